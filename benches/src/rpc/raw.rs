//! Two blocking threads and a socket: what the kernel alone takes.

use std::io::{Read, Write};
use std::net::{TcpListener, TcpStream};
use std::thread;
use std::time::Instant;

use anyhow::Result;

use super::{Latencies, MESSAGE_BYTES, Window};

/// A connection to a thread that sends everything back.
#[derive(Debug)]
pub(super) struct Pair {
    client: TcpStream,
}

impl Pair {
    pub(super) fn start() -> Result<Self> {
        let listener = TcpListener::bind("127.0.0.1:0")?;
        let client = TcpStream::connect(listener.local_addr()?)?;
        client.set_nodelay(true)?;
        let (server, _) = listener.accept()?;
        server.set_nodelay(true)?;
        // Ends when the client's side is dropped.
        thread::spawn(move || echo(server));
        Ok(Self { client })
    }

    pub(super) fn run(&mut self, in_flight: usize) -> Result<Latencies> {
        let (window, mut latencies) = (Window::now(), Latencies::default());
        let mut messages = vec![7; MESSAGE_BYTES * in_flight];
        loop {
            let begun = Instant::now();
            self.client.write_all(&messages)?;
            self.client.read_exact(&mut messages)?;
            if !latencies.record(begun, in_flight, window) {
                return Ok(latencies);
            }
        }
    }
}

fn echo(mut server: TcpStream) -> Result<()> {
    let mut buffer = vec![0; 256 * 1024];
    loop {
        let length = server.read(&mut buffer)?;
        if length == 0 {
            return Ok(());
        }
        server.write_all(&buffer[..length])?;
    }
}
