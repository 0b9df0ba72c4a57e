//! A server by script, and a client that must bear it.

use std::net::{Ipv4Addr, SocketAddr};

use client::{Client, ClientOptions, QueryStream};
use futures::StreamExt;
use protos::rpc::RpcMode;
use rpc_bus::{Ledger, ledger::Limits};
use tokio::{
    net::{TcpListener, TcpStream},
    task::JoinSet,
};

use crate::{
    PATIENCE, Tally, block_on, bus_runtime, seeds, settled,
    wire::{Peer, frames},
};

/// Connections that a script is played to.
const CONNECTIONS_MAX: usize = 3;
/// Requests that a script waits for before one of its answers.
const REQUESTS_MAX: usize = 8;

/// How a server by script, and its client, behave.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[allow(
    clippy::struct_excessive_bools,
    reason = "any of them goes with any other"
)]
pub struct ClientMode {
    /// A good handshake comes before the script: that of a real Drill.
    pub greets: bool,
    /// The first result is cancelled after its first batch.
    pub cancels: bool,
    /// Two queries run at once.
    pub two: bool,
    /// Results are dropped after their first batch.
    pub drops: bool,
    /// The server has another name: it waits for acknowledgements.
    pub ours: bool,
    /// The client reads no more than a few bytes ahead.
    pub narrow: bool,
}

impl From<u8> for ClientMode {
    fn from(byte: u8) -> Self {
        Self {
            greets: byte & 1 > 0,
            cancels: byte & 2 > 0,
            two: byte & 4 > 0,
            drops: byte & 8 > 0,
            ours: byte & 16 > 0,
            narrow: byte & 32 > 0,
        }
    }
}

/// A client survives `bytes`: a [`ClientMode`], and all that its server sends. Answers wait for their requests.
///
/// Everything ends once the server has closed; after its end a result gives nothing more; nothing is left.
///
/// # Panics
///
/// One of these does not hold.
#[allow(
    clippy::must_use_candidate,
    reason = "fuzz targets have no use for the tally"
)]
pub fn client(bytes: &[u8]) -> Tally {
    let (mode, script) = bytes.split_first().unwrap_or((&0, &[]));
    block_on(play(ClientMode::from(*mode), script.to_vec()))
}

async fn play(mode: ClientMode, script: Vec<u8>) -> Tally {
    let here = SocketAddr::from((Ipv4Addr::LOCALHOST, 0));
    let listener = TcpListener::bind(here).await.expect("a free port");
    let address = listener.local_addr().expect("an address");
    let ledger = Ledger::root("fuzzing", Limits::default());
    // Its end takes the connections along.
    let runtime = bus_runtime();
    let mut options = ClientOptions::new(runtime.clone(), ledger.clone());
    if mode.narrow {
        options.undelivered_bytes_max = 100;
        options.connection.mailbox_bytes_max = Some(100);
    }
    let session = tokio::time::timeout(PATIENCE, use_client(mode, address, options));
    let tally = tokio::select! {
        tally = session => tally.expect("everything ends once the server has closed"),
        () = serve(mode, listener, script) => unreachable!("it serves for ever"),
    };
    drop(runtime);
    settled(&ledger).await;
    tally
}

/// Plays the script to every connection.
async fn serve(mode: ClientMode, listener: TcpListener, script: Vec<u8>) {
    let (mut played, mut accepted) = (JoinSet::new(), 0);
    loop {
        let (socket, _) = listener.accept().await.expect("invariant: it listens");
        // Those that come later are closed at once.
        if accepted < CONNECTIONS_MAX {
            accepted += 1;
            played.spawn(play_to(mode, socket, script.clone()));
        }
    }
}

async fn play_to(mode: ClientMode, socket: TcpStream, script: Vec<u8>) {
    let (mut peer, mut asked) = (Peer::new(socket), Vec::new());
    if mode.greets {
        wait_for(1, &mut peer, &mut asked).await;
        peer.send(&seeds::welcome(mode.ours)).await;
    }
    let (frames, rest) = frames(&script);
    for (header, bytes) in frames {
        if matches!(header.mode, RpcMode::Response | RpcMode::ResponseFailure) {
            wait_for(header.coordination_id.0, &mut peer, &mut asked).await;
        }
        peer.send(bytes).await;
    }
    peer.send(rest).await;
    peer.shutdown().await;
    peer.rest().await;
}

/// Until a request with this id has come, or hardly any more do.
async fn wait_for(id: i32, peer: &mut Peer, asked: &mut Vec<i32>) {
    for _ in 0..REQUESTS_MAX {
        if asked.contains(&id) {
            return;
        }
        let Some(frame) = peer.next().await else {
            return;
        };
        if frame.header.mode == RpcMode::Request {
            asked.push(frame.id());
        }
    }
}

async fn use_client(mode: ClientMode, address: SocketAddr, options: ClientOptions) -> Tally {
    let mut tally = Tally::default();
    let Ok(client) = Client::connect(&address.to_string(), options).await else {
        return tally;
    };
    tally.sessions = 1;
    if mode.two {
        let (one, other) = tokio::join!(client.query("one"), client.query("other"));
        let (one, other) = tokio::join!(read(mode, one), read(mode, other));
        tally += one;
        tally += other;
    } else {
        tally += read(mode, client.query("one").await).await;
    }
    client.close().await;
    tally
}

async fn read(mode: ClientMode, result: Result<QueryStream, client::ClientError>) -> Tally {
    let mut tally = Tally::default();
    let Ok(mut result) = result else {
        return tally;
    };
    tally.queries = 1;
    while let Some(Ok(batch)) = result.next().await {
        assert!(batch.num_rows() > 0, "a batch without rows");
        tally.batches += 1;
        if mode.drops {
            return tally;
        }
        if mode.cancels && tally.batches == 1 {
            // Fails where the connection does not last.
            let _ = result.cancel().await;
        }
    }
    assert!(result.next().await.is_none(), "nothing follows the end");
    tally
}
