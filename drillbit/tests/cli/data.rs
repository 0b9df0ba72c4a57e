//! `serve --data-port`: other Drillbits may send, and are told that nobody is there to receive.

use std::{
    io::{Read as _, Write as _},
    net::TcpStream,
    time::Duration,
};

use crate::program::{Served, run};

// wire: golden/raw/raw_control.data5, frames 0 to 2
const HELLO: &[u8] = b"\x0e\x0a\x06\x08\x00\x10\x01\x18\x00\x12\x04\x08\x04\x10\x01";
const WELCOME: &[u8] = b"\x0c\x0a\x06\x08\x01\x10\x01\x18\x00\x12\x02\x08\x04";
/// A batch for a fragment that nobody knows.
const BATCH: &[u8] =
    b"\x2c\x0a\x06\x08\x00\x10\x02\x18\x03\x12\x22\x0a\x12\x09\x01\0\0\0\0\0\0\0\x11\
    \x02\0\0\0\0\0\0\0\x10\x01\x18\x00\x20\x02\x28\x00\x32\x02\x08\x00\x38\x01";
/// Credit -1.
const REFUSED: &[u8] = b"\x15\x0a\x06\x08\x01\x10\x02\x18\x06\x12\x0b\x08\
    \xff\xff\xff\xff\xff\xff\xff\xff\xff\x01";

fn connect(node: &Served) -> TcpStream {
    let socket = TcpStream::connect(node.data.as_deref().unwrap()).unwrap();
    let patience = Some(Duration::from_mins(1));
    socket.set_read_timeout(patience).unwrap();
    socket
}

fn ask(socket: &mut TcpStream, request: &[u8], answer: &[u8]) {
    socket.write_all(request).unwrap();
    let mut found = vec![0; answer.len()];
    socket.read_exact(&mut found).unwrap();
    assert_eq!(found, answer);
}

#[test]
fn other_drillbits_are_let_in_and_a_batch_for_nobody_is_refused_in_time() {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("drillbit.toml");
    std::fs::write(&file, "[data]\nearly_timeout_ms = 200\n").unwrap();
    let file = file.to_str().unwrap();
    let node = Served::start_with(&["--data-port", "0", "--http-port", "0", "--config", file]);
    assert!(node.http.is_some());
    let mut socket = connect(&node);
    ask(&mut socket, HELLO, WELCOME);
    ask(&mut socket, BATCH, REFUSED);
    node.end("TERM").well();
    assert!(matches!(socket.read(&mut [0]), Ok(0) | Err(_)));
}

#[test]
fn there_is_no_data_server_unless_it_is_asked_for() {
    let node = Served::start();
    assert!(node.data.is_none() && node.http.is_none());
    node.end("TERM").well();
}

#[test]
fn a_data_port_that_is_taken_or_used_twice_is_told() {
    let taken = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let port = taken.local_addr().unwrap().port().to_string();
    let stderr = run(&["serve", "--user-port", "0", "--data-port", &port]).with(3);
    assert!(
        stderr.contains(&format!("cannot listen on 127.0.0.1:{port}")),
        "{stderr}"
    );
    let stderr = run(&["serve", "--user-port", "40123", "--data-port", "40123"]).with(2);
    assert!(
        stderr.contains("data.port is 40123, which is node.user_port already"),
        "{stderr}"
    );
}
