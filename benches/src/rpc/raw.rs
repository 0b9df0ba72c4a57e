//! Bare sockets and blocking threads: what the kernel alone takes.
//!
//! No frames, no matching of answers. All calls in flight on a connection go in one write and come back in one read, so
//! that it is a limit, not a peer.

use std::io::{Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::thread::{self, JoinHandle, sleep};
use std::time::Instant;

use anyhow::{Result, anyhow};

use super::load::{BULK_BYTES, Latencies, Load, Measured, Window, message, verify};
use super::stack::Pair;
use crate::process::{CpuSnapshot, Watched};

/// What one read takes at most.
const READ_BYTES: usize = 256 * 1024;
/// First byte of a connection: whether what follows is sent back.
const ECHO: u8 = 1;
const SINK: u8 = 2;

/// A server with one thread a connection.
#[derive(Debug)]
pub(crate) struct Raw {
    server: SocketAddr,
    calls: Vec<TcpStream>,
    bulk: Vec<TcpStream>,
}

impl Raw {
    pub(crate) fn start() -> Result<Self> {
        let listener = TcpListener::bind("127.0.0.1:0")?;
        let server = listener.local_addr()?;
        thread::spawn(move || {
            for stream in listener.incoming().map_while(Result::ok) {
                // Ends when the client's side is dropped.
                thread::spawn(move || serve(stream));
            }
        });
        Ok(Self {
            server,
            calls: Vec::new(),
            bulk: Vec::new(),
        })
    }

    fn connect(&mut self, load: &Load) -> Result<()> {
        while self.calls.len() < load.connections {
            self.calls.push(connect(self.server, ECHO)?);
        }
        while self.bulk.len() < load.bulk {
            self.bulk.push(connect(self.server, SINK)?);
        }
        Ok(())
    }
}

impl Pair for Raw {
    fn run(&mut self, load: &Load) -> Result<Measured> {
        self.connect(load)?;
        let (window, in_flight) = (load.window(), load.in_flight);
        let callers = spawn_each(&self.calls[..load.connections], move |stream| {
            call_until(stream, in_flight, window)
        })?;
        let streams = spawn_each(&self.bulk[..load.bulk], move |stream| {
            write_until(stream, window)
        })?;
        let before = cpu_at(window.from)?;
        let cpu = cpu_at(window.until)?.since(&before);
        let mut latencies = Latencies::default();
        for caller in callers {
            latencies.append(join(caller)?);
        }
        let mut bulk_bytes = 0;
        for stream in streams {
            bulk_bytes += join(stream)?;
        }
        Ok(Measured {
            latencies,
            cpu,
            bulk_bytes,
        })
    }
}

fn connect(server: SocketAddr, kind: u8) -> Result<TcpStream> {
    let mut stream = TcpStream::connect(server)?;
    stream.set_nodelay(true)?;
    stream.write_all(&[kind])?;
    Ok(stream)
}

fn spawn_each<T: Send + 'static>(
    streams: &[TcpStream],
    work: impl Fn(TcpStream) -> Result<T> + Clone + Send + 'static,
) -> Result<Vec<JoinHandle<Result<T>>>> {
    let spawn = |stream: &TcpStream| {
        let (stream, work) = (stream.try_clone()?, work.clone());
        Ok(thread::spawn(move || work(stream)))
    };
    streams.iter().map(spawn).collect()
}

fn join<T>(thread: JoinHandle<Result<T>>) -> Result<T> {
    thread.join().map_err(|_| anyhow!("a caller panicked"))?
}

fn cpu_at(moment: Instant) -> Result<CpuSnapshot> {
    sleep(moment.saturating_duration_since(Instant::now()));
    Watched(std::process::id()).cpu()
}

fn call_until(mut stream: TcpStream, in_flight: usize, window: Window) -> Result<Latencies> {
    let messages: Vec<u8> = (0..in_flight).flat_map(message).collect();
    let (mut latencies, mut answers) = (Latencies::default(), vec![0; messages.len()]);
    let mut begun = Instant::now();
    loop {
        stream.write_all(&messages)?;
        stream.read_exact(&mut answers)?;
        verify(&answers, &messages)?;
        let Some(ended) = latencies.record(begun, in_flight, window) else {
            return Ok(latencies);
        };
        begun = ended;
    }
}

fn write_until(mut stream: TcpStream, window: Window) -> Result<u64> {
    let (body, mut bytes) = (vec![7; BULK_BYTES], 0);
    loop {
        stream.write_all(&body)?;
        let ended = Instant::now();
        if window.holds(ended) {
            bytes += body.len() as u64;
        }
        if ended >= window.until {
            return Ok(bytes);
        }
    }
}

fn serve(mut stream: TcpStream) -> Result<()> {
    stream.set_nodelay(true)?;
    let mut kind = [0];
    stream.read_exact(&mut kind)?;
    let mut buffer = vec![0; READ_BYTES];
    loop {
        let length = stream.read(&mut buffer)?;
        if length == 0 {
            return Ok(());
        }
        if kind == [ECHO] {
            stream.write_all(&buffer[..length])?;
        }
    }
}
