//! The server: answers cancels, and takes handshakes of one kind only.

use std::{
    io::{self, Read},
    net::{Ipv4Addr, SocketAddr},
    sync::Arc,
};

use bytes::Bytes;
use protos::{Plane, calls::user::CancelQuery, rpc::Ack};
use rpc_bus::{
    Acceptor, ConnectionOptions, Handler, Hello, IdleTimeout, InboundRequest, Ledger, Server,
    ServerOptions, Verdict, ledger::Limits,
};

use crate::{Outcome, threads};

/// The only handshake that is accepted.
pub(crate) const HELLO: &[u8] = b"hello";

/// Largest frame, so that one of 2 GiB is not refused by its length.
const FRAME_BYTES_MAX: usize = i32::MAX as usize;

/// What all connections may hold together: replies that nobody reads, above all.
const BYTES_MAX: usize = 256 << 20;

struct Cancels;

impl Acceptor for Cancels {
    fn accept(&self, hello: Hello) -> Verdict {
        if hello.pbody != HELLO {
            return Verdict::Refuse {
                reply: Some(Bytes::from_static(b"no")),
                reason: "not the handshake of this server".into(),
            };
        }
        Verdict::Open {
            reply: Bytes::new(),
            handler: Arc::new(Self),
            idle_timeout: IdleTimeout::Keep,
        }
    }
}

impl Handler for Cancels {
    fn handle(&self, request: InboundRequest) {
        if let Some((_, _, reply)) = request.decode::<CancelQuery>() {
            reply.send(&Ack { ok: Some(true) });
        }
    }
}

/// Prints the address, and serves until stdin ends.
pub(crate) fn run() -> Outcome<()> {
    let (app, bus) = threads()?;
    let connection = ConnectionOptions {
        frame_bytes_max: FRAME_BYTES_MAX,
        ..ConnectionOptions::user_server()
    };
    let options = ServerOptions {
        // Thousands of slow connections are let in, to see what they do.
        connections_per_peer_max: None,
        ..ServerOptions::new(connection)
    };
    let here = SocketAddr::from((Ipv4Addr::LOCALHOST, 0));
    let limits = Limits {
        bytes: Some(BYTES_MAX),
        ..Limits::default()
    };
    let ledger = Ledger::root("server", limits);
    let server = Server::bind(here, Plane::User, bus, options, ledger, Arc::new(Cancels));
    let server = app.block_on(server)?;
    println!("{}", server.local_addr());
    io::stdin().read_to_end(&mut Vec::new())?;
    Ok(())
}
