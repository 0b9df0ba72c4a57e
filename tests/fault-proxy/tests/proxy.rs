//! Each fault, seen from both ends. Time is paused: it passes when nobody has anything to do.
#![allow(clippy::unwrap_used, reason = "tests say what they expect")]

use std::{io::ErrorKind, time::Duration};

use fault_proxy::{Cut, End, Flow, Proxy, Way};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::{TcpListener, TcpStream},
    time::{Instant, timeout},
};

const SECOND: Duration = Duration::from_secs(1);

/// A proxy and both ends of one connection through it.
struct Line {
    proxy: Proxy,
    listener: TcpListener,
    client: TcpStream,
    server: TcpStream,
}

impl Line {
    async fn new(seed: u64) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let proxy = Proxy::start(listener.local_addr().unwrap(), seed);
        let proxy = proxy.await.unwrap();
        let (client, server) = connect(&proxy, &listener).await;
        Self {
            proxy,
            listener,
            client,
            server,
        }
    }

    async fn deliver(&mut self, bytes: &[u8]) -> Vec<u8> {
        self.client.write_all(bytes).await.unwrap();
        let mut got = vec![0; bytes.len()];
        self.server.read_exact(&mut got).await.unwrap();
        got
    }
}

async fn connect(proxy: &Proxy, listener: &TcpListener) -> (TcpStream, TcpStream) {
    let (client, server) = tokio::join!(TcpStream::connect(proxy.addr()), listener.accept());
    (client.unwrap(), server.unwrap().0)
}

/// All that comes, and how it ended.
async fn rest(socket: &mut TcpStream) -> (Vec<u8>, Result<(), ErrorKind>) {
    let mut bytes = Vec::new();
    let end = socket.read_to_end(&mut bytes).await;
    (bytes, end.map(|_| ()).map_err(|error| error.kind()))
}

#[tokio::test(start_paused = true)]
async fn without_faults_bytes_and_ends_pass_both_ways() {
    let mut line = Line::new(1).await;
    assert_eq!(line.deliver(b"ping").await, b"ping");
    line.client.shutdown().await.unwrap();
    assert_eq!(rest(&mut line.server).await, (vec![], Ok(())));
    line.server.write_all(b"pong").await.unwrap();
    drop(line.server);
    assert_eq!(rest(&mut line.client).await, (b"pong".to_vec(), Ok(())));
    assert_eq!(line.proxy.passed(Way::ToServer), 4);
    assert_eq!(line.proxy.passed(Way::ToClient), 4);
}

#[tokio::test(start_paused = true)]
async fn a_crash_of_one_side_is_one_for_the_other() {
    let mut line = Line::new(1).await;
    line.client.set_zero_linger().unwrap();
    drop(line.client);
    let (_, end) = rest(&mut line.server).await;
    assert_eq!(end, Err(ErrorKind::ConnectionReset));
}

#[tokio::test(start_paused = true)]
async fn nobody_behind_the_proxy_is_a_reset() {
    let mut line = Line::new(1).await;
    drop((line.listener, line.server));
    line.client.shutdown().await.unwrap();
    let mut late = TcpStream::connect(line.proxy.addr()).await.unwrap();
    let (_, end) = rest(&mut late).await;
    assert_eq!(end, Err(ErrorKind::ConnectionReset));
}

#[tokio::test(start_paused = true)]
async fn latency_is_of_every_byte_and_of_one_way() {
    let mut line = Line::new(1).await;
    line.proxy
        .set(Way::ToServer, |faults| faults.latency = SECOND);
    let started = Instant::now();
    assert_eq!(line.deliver(b"ping").await, b"ping");
    assert_eq!(started.elapsed().as_secs(), 1);
    line.server.write_all(b"pong").await.unwrap();
    line.client.read_exact(&mut [0; 4]).await.unwrap();
    assert_eq!(started.elapsed().as_secs(), 1);
}

async fn jittered(seed: u64) -> Vec<Duration> {
    let mut line = Line::new(seed).await;
    line.proxy.set_both(|faults| faults.jitter = SECOND);
    let mut took = Vec::new();
    for _ in 0..20 {
        let started = Instant::now();
        line.deliver(&[7; 1024]).await;
        took.push(started.elapsed());
    }
    took
}

#[tokio::test(start_paused = true)]
async fn jitter_follows_from_the_seed() {
    let took = jittered(1).await;
    assert!(
        took.iter()
            .all(|took| *took <= SECOND + Duration::from_millis(1))
    );
    assert!(took.iter().max() > took.iter().min());
    assert_eq!(jittered(1).await, took);
    assert_ne!(jittered(2).await, took);
}

#[tokio::test(start_paused = true)]
async fn a_rate_is_kept() {
    let mut line = Line::new(1).await;
    line.proxy.set(Way::ToServer, |faults| {
        (faults.bytes_per_s, faults.piece_bytes_max) = (Some(1000), 100);
    });
    let started = Instant::now();
    assert_eq!(line.deliver(&[7; 10_000]).await, [7; 10_000]);
    // The last piece is there before its time is over.
    assert_eq!(started.elapsed().as_millis() / 100, 99);
}

#[tokio::test(start_paused = true)]
async fn a_rate_whose_pieces_take_less_than_a_timer_can_tell_is_kept_too() {
    let mut line = Line::new(1).await;
    line.proxy.set(Way::ToServer, |faults| {
        (faults.bytes_per_s, faults.piece_bytes_max) = (Some(1_000_000), 100);
    });
    let started = Instant::now();
    let sent = vec![7; 100_000];
    assert_eq!(line.deliver(&sent).await, sent);
    let took = started.elapsed().as_millis();
    assert!((99..=101).contains(&took), "{took} ms");
}

#[tokio::test(start_paused = true)]
async fn what_is_stalled_arrives_later() {
    let mut line = Line::new(1).await;
    line.proxy
        .set(Way::ToServer, |faults| faults.flow = Flow::Stalled);
    line.client.write_all(b"ping").await.unwrap();
    let mut got = [0; 4];
    let early = timeout(SECOND, line.server.read_exact(&mut got)).await;
    assert!(early.is_err());
    line.proxy
        .set(Way::ToServer, |faults| faults.flow = Flow::Passing);
    line.server.read_exact(&mut got).await.unwrap();
    assert_eq!(&got, b"ping");
}

#[tokio::test(start_paused = true)]
async fn what_is_lost_never_arrives_and_ends_are_lost_too() {
    let mut line = Line::new(1).await;
    line.proxy.set_both(|faults| faults.flow = Flow::Lost);
    // More than all buffers on the way hold: it is taken.
    line.client.write_all(&vec![7; 20_000_000]).await.unwrap();
    drop(line.client);
    let end = timeout(60 * SECOND, rest(&mut line.server)).await;
    assert!(end.is_err());
    assert_eq!(line.proxy.passed(Way::ToServer), 0);
}

#[tokio::test(start_paused = true)]
async fn one_bit_is_flipped_wherever_it_falls() {
    for piece_bytes_max in [1, 3, 100] {
        let mut line = Line::new(1).await;
        line.proxy.set(Way::ToServer, |faults| {
            (faults.flip_bit, faults.piece_bytes_max) = (Some(5 * 8 + 7), piece_bytes_max);
        });
        assert_eq!(line.deliver(&[0; 8]).await, [0, 0, 0, 0, 0, 0x80, 0, 0]);
    }
}

#[tokio::test(start_paused = true)]
async fn a_cut_ends_both_ways_after_so_many_bytes() {
    for (end, expected) in [
        (End::Fin, Ok(())),
        (End::Reset, Err(ErrorKind::ConnectionReset)),
    ] {
        let mut line = Line::new(1).await;
        let after_bytes = 3;
        line.proxy.set(Way::ToServer, |faults| {
            faults.cut = Some(Cut { after_bytes, end });
        });
        line.client.write_all(b"pi").await.unwrap();
        line.server.read_exact(&mut [0; 2]).await.unwrap();
        line.client.write_all(b"ng").await.unwrap();
        let (bytes, ended) = rest(&mut line.server).await;
        assert_eq!(ended, expected);
        // A reset may overtake what came before it.
        assert!(bytes == b"n" || end == End::Reset);
        assert_eq!(rest(&mut line.client).await.1, expected);
        assert_eq!(line.proxy.passed(Way::ToServer), 3);
    }
}

#[tokio::test(start_paused = true)]
async fn all_connections_are_ended_and_later_ones_are_served() {
    let mut line = Line::new(1).await;
    let (mut client, mut server) = connect(&line.proxy, &line.listener).await;
    line.proxy.end_all(End::Reset);
    for socket in [&mut line.client, &mut line.server, &mut client, &mut server] {
        assert_eq!(rest(socket).await.1, Err(ErrorKind::ConnectionReset));
    }
    (line.client, line.server) = connect(&line.proxy, &line.listener).await;
    assert_eq!(line.deliver(b"ping").await, b"ping");
    assert_eq!(line.proxy.accepted(), 3);
}
