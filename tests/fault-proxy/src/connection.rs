//! One connection: two pipes, and how it ends.

use std::sync::{Arc, atomic::AtomicU64};

use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::TcpStream,
    sync::watch,
};

use crate::{
    Shared,
    faults::{End, Faults, Way},
    pipe,
};

/// What a connection has of the proxy.
pub(crate) struct Wires {
    shared: Arc<Shared>,
    number: u64,
    /// How many times all connections had been ended before this one came.
    born: u64,
}

impl Wires {
    pub(crate) fn new(shared: Arc<Shared>, number: u64) -> Self {
        let (born, _) = *shared.ended.borrow();
        Self {
            shared,
            number,
            born,
        }
    }

    pub(crate) fn faults(&self, way: Way) -> watch::Receiver<Faults> {
        self.shared.faults[way.index()].subscribe()
    }

    pub(crate) fn passed(&self, way: Way) -> &AtomicU64 {
        &self.shared.passed[way.index()]
    }

    /// Different for every way of every connection.
    pub(crate) fn seed(&self, way: Way) -> u64 {
        pipe::mix(self.shared.seed ^ pipe::mix(2 * self.number + way.index() as u64))
    }

    async fn ended(&self) -> End {
        let mut ended = self.shared.ended.subscribe();
        match ended.wait_for(|&(times, _)| times != self.born).await {
            Ok(ended) => ended.1,
            Err(_) => End::Reset,
        }
    }
}

/// Moves bytes both ways until both senders, or somebody else, have ended the connection.
pub(crate) async fn run(mut client: TcpStream, mut server: TcpStream, wires: Wires) {
    // What is delivered byte by byte should arrive so. Fails only on a socket that is of no use any more.
    let _ = (client.set_nodelay(true), server.set_nodelay(true));
    let end = {
        let (from_client, to_client) = client.split();
        let (from_server, to_server) = server.split();
        let to_server = pipe::run(&wires, Way::ToServer, from_client, to_server);
        let to_client = pipe::run(&wires, Way::ToClient, from_server, to_client);
        let both = async { tokio::try_join!(to_server, to_client).err() };
        tokio::select! {
            end = both => end.unwrap_or(End::Fin),
            end = wires.ended() => end,
        }
    };
    match end {
        End::Fin => finish(client, server).await,
        End::Reset => [client, server].iter().for_each(reset),
    }
}

/// Says to both sides that there is no more, and reads until both have said the same: a socket closed with unread bytes
/// would be a reset.
async fn finish(mut client: TcpStream, mut server: TcpStream) {
    for socket in [&mut client, &mut server] {
        // Fails where that side has gone already.
        let _ = socket.shutdown().await;
    }
    tokio::join!(drain(client), drain(server));
}

async fn drain(mut socket: TcpStream) {
    let mut bytes = [0; 4096];
    while socket.read(&mut bytes).await.is_ok_and(|count| count > 0) {}
}

/// From now on closing `socket` is a reset.
pub(crate) fn reset(socket: &TcpStream) {
    // Fails only where there is nobody to be told.
    let _ = socket.set_zero_linger();
}
