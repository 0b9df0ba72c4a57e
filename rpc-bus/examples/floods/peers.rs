//! Peers that do not play by the rules, on bare sockets.

use std::{
    io,
    net::{Ipv4Addr, SocketAddr},
    time::{Duration, Instant},
};

use prost::Message;
use protos::{
    Call,
    calls::user::CancelQuery,
    rpc::{Ack, RpcMode},
    shared::QueryId,
};
use rpc_bus::{
    CoordinationId,
    frame::{Header, encode},
};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::{TcpSocket, TcpStream},
    task::JoinSet,
    time::sleep,
};

use crate::{Outcome, server::HELLO};

/// Frames that are written at once.
const BLOCK_FRAMES: u32 = 1000;
/// Connections that a flood of handshakes uses at a time.
const HANDSHAKES_AT_ONCE: usize = 32;
/// Another address than the good client's.
const HERE: Ipv4Addr = Ipv4Addr::new(127, 0, 0, 2);

/// Does what lines on stdin say, until there are no more, and answers each with how much was done.
pub(crate) fn run(kind: &str, server: SocketAddr) -> Outcome<()> {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()?;
    let mut held = Held::default();
    for line in io::stdin().lines() {
        let line = line?;
        let words: Vec<&str> = line.split(' ').collect();
        let done = match words[..] {
            ["open", count] => runtime.block_on(held.open(kind, server, count.parse()?))?,
            ["wait"] => runtime.block_on(held.wait()),
            ["spin", _, seconds, _] => spin(Duration::from_secs(seconds.parse()?)),
            ["flood", count, least, most] => {
                let amount = Amount::new(count.parse()?, least.parse()?, most.parse()?);
                runtime.block_on(flood(kind, server, amount))?
            }
            _ => return Err(format!("unknown order {line:?}").into()),
        };
        println!("{done}");
    }
    Ok(())
}

/// How much is to be sent: so many messages, for so long at least, and for so long at most.
#[derive(Clone, Copy)]
struct Amount {
    count: u32,
    least: Instant,
    most: Instant,
}

impl Amount {
    fn new(count: u32, least_seconds: u64, most_seconds: u64) -> Self {
        let now = Instant::now();
        Self {
            count,
            least: now + Duration::from_secs(least_seconds),
            most: now + Duration::from_secs(most_seconds),
        }
    }

    fn is_reached(self, done: u32) -> bool {
        let now = Instant::now();
        now >= self.most || (done >= self.count && now >= self.least)
    }
}

async fn flood(kind: &str, server: SocketAddr, amount: Amount) -> Outcome<u32> {
    match kind {
        "pings" => answered(server, &ping(), amount).await,
        "cancels" => answered(server, &cancel(), amount).await,
        "handshakes" => handshakes(server, amount).await,
        "never-read" => never_read(server, amount.count).await,
        _ => Err("no such flood".into()),
    }
}

/// Computes, and sends nothing.
fn spin(time: Duration) -> u32 {
    let since = Instant::now();
    let mut rounds = 0;
    while since.elapsed() < time {
        rounds = std::hint::black_box(rounds | 1);
    }
    rounds
}

/// Connections that are held open.
#[derive(Default)]
struct Held {
    sockets: Vec<TcpStream>,
    dripping: JoinSet<()>,
}

impl Held {
    async fn open(&mut self, kind: &str, server: SocketAddr, count: u32) -> Outcome<u32> {
        for _ in 0..count {
            match kind {
                "announce" => self.sockets.push(announced(server).await?),
                "slow-loris" => drop(self.dripping.spawn(drip(connect(server).await?))),
                _ => return Err("no such flood".into()),
            }
        }
        Ok(count)
    }

    /// Until the server has closed all that drip.
    async fn wait(&mut self) -> u32 {
        let mut closed = 0;
        while self.dripping.join_next().await.is_some() {
            closed += 1;
        }
        closed
    }
}

/// Announces a frame of 2 GiB, and sends 8 bytes of it.
async fn announced(server: SocketAddr) -> Outcome<TcpStream> {
    let mut socket = open(server).await?;
    let length = [0xff, 0xff, 0xff, 0xff, 0x07];
    socket.write_all(&length).await?;
    socket.write_all(&[0x0a, 6, 8, 0, 0x10, 2, 0x18, 4]).await?;
    Ok(socket)
}

/// Sends a byte of a handshake every second, until the server ends the connection.
async fn drip(socket: TcpStream) {
    let (mut read, mut write) = socket.into_split();
    let dripping = async {
        // A frame of 100 bytes.
        for byte in [100, 0x0a, 6].into_iter().chain([0; 98]) {
            if write.write_all(&[byte]).await.is_err() {
                return;
            }
            sleep(Duration::from_secs(1)).await;
        }
    };
    let mut end = [0];
    tokio::select! {
        () = dripping => {}
        _ = read.read(&mut end) => {}
    }
}

/// Sends `frame` again and again, reading the answers.
async fn answered(server: SocketAddr, frame: &[u8], amount: Amount) -> Outcome<u32> {
    let (mut read, mut write) = open(server).await?.into_split();
    let mut reading = JoinSet::new();
    reading.spawn(async move {
        let mut bytes = vec![0; 64 * 1024];
        while read.read(&mut bytes).await.is_ok_and(|count| count > 0) {}
    });
    let (block, mut sent) = (frame.repeat(BLOCK_FRAMES as usize), 0);
    while !amount.is_reached(sent) {
        write.write_all(&block).await?;
        sent += BLOCK_FRAMES;
    }
    // The server has taken everything when it has seen the end.
    write.shutdown().await?;
    reading.join_next().await;
    Ok(sent)
}

/// So many peers that send cancels until they are closed, and read nothing.
async fn never_read(server: SocketAddr, count: u32) -> Outcome<u32> {
    let (mut peers, mut closed) = (JoinSet::new(), 0);
    for _ in 0..count {
        let mut socket = open(server).await?;
        let block = cancel().repeat(BLOCK_FRAMES as usize);
        peers.spawn(async move { while socket.write_all(&block).await.is_ok() {} });
    }
    while peers.join_next().await.is_some() {
        closed += 1;
    }
    Ok(closed)
}

/// Handshakes that are refused, some at a time.
async fn handshakes(server: SocketAddr, amount: Amount) -> Outcome<u32> {
    let (mut peers, mut done) = (JoinSet::new(), 0);
    while !amount.is_reached(done) {
        while peers.len() < HANDSHAKES_AT_ONCE {
            peers.spawn(refused(server));
        }
        if let Some(ended) = peers.join_next().await {
            ended??;
            done += 1;
        }
    }
    Ok(done)
}

async fn refused(server: SocketAddr) -> Outcome<()> {
    let mut socket = connect(server).await?;
    socket.write_all(&request(0, b"wrong")).await?;
    socket.read_to_end(&mut Vec::new()).await?;
    Ok(())
}

async fn connect(server: SocketAddr) -> Outcome<TcpStream> {
    let socket = TcpSocket::new_v4()?;
    socket.bind((HERE, 0).into())?;
    Ok(socket.connect(server).await?)
}

/// A connection whose handshake is done.
async fn open(server: SocketAddr) -> Outcome<TcpStream> {
    let mut socket = connect(server).await?;
    socket.write_all(&request(0, HELLO)).await?;
    // A frame of less than 128 bytes.
    let length = socket.read_u8().await?;
    socket.read_exact(&mut vec![0; length.into()]).await?;
    Ok(socket)
}

fn ping() -> Vec<u8> {
    frame(RpcMode::Ping, 0, &Ack { ok: Some(true) }.encode_to_vec())
}

fn cancel() -> Vec<u8> {
    request(CancelQuery::REQUEST, &QueryId::default().encode_to_vec())
}

fn request(rpc_type: i32, pbody: &[u8]) -> Vec<u8> {
    frame(RpcMode::Request, rpc_type, pbody)
}

fn frame(mode: RpcMode, rpc_type: i32, pbody: &[u8]) -> Vec<u8> {
    let coordination_id = CoordinationId(1);
    let header = Header {
        mode,
        coordination_id,
        rpc_type,
    };
    let mut wire = Vec::new();
    encode(&header, pbody, &[], &mut wire);
    wire
}
