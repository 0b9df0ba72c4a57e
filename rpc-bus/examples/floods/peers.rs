//! Peers that do not play by the rules, on bare sockets.

use std::{net::SocketAddr, time::Duration};

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
    net::TcpStream,
    task::JoinSet,
    time::sleep,
};

use crate::{Outcome, server::HELLO};

/// Frames that are written at once.
const BLOCK_FRAMES: u32 = 10_000;
/// Connections that a flood of handshakes uses at a time.
const HANDSHAKES_AT_ONCE: u32 = 32;

/// Does what `kind` says, `count` times; says `ready` when all is in place, and `done` at its end.
pub(crate) fn run(kind: &str, server: SocketAddr, count: u32) -> Outcome<()> {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()?;
    runtime.block_on(async {
        match kind {
            "announce" => announce(server, count).await?,
            "slow-loris" => slow_loris(server, count).await?,
            "pings" => answered(server, &ping(), count).await?,
            "cancels" => answered(server, &cancel(), count).await?,
            "never-read" => never_read(server, count).await?,
            "handshakes" => handshakes(server, count).await?,
            _ => return Err("no such flood".into()),
        }
        println!("done");
        Ok(())
    })
}

/// Announces frames of 2 GiB, sends 8 bytes of each, and goes on holding them.
async fn announce(server: SocketAddr, count: u32) -> Outcome<()> {
    let mut held = Vec::new();
    for _ in 0..count {
        let mut socket = open(server).await?;
        let length = [0xff, 0xff, 0xff, 0xff, 0x07];
        socket.write_all(&length).await?;
        socket.write_all(&[0x0a, 6, 8, 0, 0x10, 2, 0x18, 4]).await?;
        held.push(socket);
    }
    println!("ready");
    sleep(Duration::from_mins(10)).await;
    Ok(())
}

/// Sends a byte of a handshake every second, until the server ends each connection.
async fn slow_loris(server: SocketAddr, count: u32) -> Outcome<()> {
    let mut peers = JoinSet::new();
    for _ in 0..count {
        let socket = TcpStream::connect(server).await?;
        peers.spawn(drip(socket));
    }
    println!("ready");
    while peers.join_next().await.is_some() {}
    Ok(())
}

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

/// Sends `frame` so many times, reading the answers.
async fn answered(server: SocketAddr, frame: &[u8], count: u32) -> Outcome<()> {
    let (mut read, mut write) = open(server).await?.into_split();
    println!("ready");
    let mut reading = JoinSet::new();
    reading.spawn(async move {
        let mut bytes = vec![0; 64 * 1024];
        while read.read(&mut bytes).await.is_ok_and(|count| count > 0) {}
    });
    let block = frame.repeat(BLOCK_FRAMES as usize);
    for _ in 0..count / BLOCK_FRAMES {
        write.write_all(&block).await?;
    }
    // The server has taken everything when it has seen the end.
    write.shutdown().await?;
    reading.join_next().await;
    Ok(())
}

/// So many peers that send cancels until they are closed, and read nothing.
async fn never_read(server: SocketAddr, count: u32) -> Outcome<()> {
    let mut sockets = Vec::new();
    for _ in 0..count {
        sockets.push(open(server).await?);
    }
    println!("ready");
    let mut peers = JoinSet::new();
    for mut socket in sockets {
        let block = cancel().repeat(BLOCK_FRAMES as usize);
        peers.spawn(async move { while socket.write_all(&block).await.is_ok() {} });
    }
    while peers.join_next().await.is_some() {}
    Ok(())
}

/// So many handshakes that are refused, some at a time.
async fn handshakes(server: SocketAddr, count: u32) -> Outcome<()> {
    println!("ready");
    let mut peers = JoinSet::new();
    for _ in 0..HANDSHAKES_AT_ONCE {
        peers.spawn(async move {
            for _ in 0..count / HANDSHAKES_AT_ONCE {
                refused(server).await?;
            }
            Outcome::Ok(())
        });
    }
    while let Some(ended) = peers.join_next().await {
        ended??;
    }
    Ok(())
}

async fn refused(server: SocketAddr) -> Outcome<()> {
    let mut socket = TcpStream::connect(server).await?;
    socket.write_all(&request(0, b"wrong")).await?;
    socket.read_to_end(&mut Vec::new()).await?;
    Ok(())
}

/// A connection whose handshake is done.
async fn open(server: SocketAddr) -> Outcome<TcpStream> {
    let mut socket = TcpStream::connect(server).await?;
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
