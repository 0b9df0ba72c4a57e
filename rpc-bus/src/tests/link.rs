//! The link of a connection that no driver serves.

use std::{net::SocketAddr, sync::Arc, time::Instant};

use bytes::Bytes;
use protos::{Plane, rpc::RpcMode};

use super::pair::REQUEST;
use crate::{
    connection::{Connection, Event, IdleTimeout, Outgoing},
    frame::{CoordinationId, Frame, Header},
    lanes::{StreamKey, Transmit},
    ledger::{Ledger, Limits},
    link::{Ends, Link, Room},
    metrics::Ticket,
    options::ConnectionOptions,
};

/// A server's link, open, with that many requests in flight: 1, 2, ...
pub(crate) fn link_with_requests(requests: i32) -> (Arc<Link>, Vec<Ticket>) {
    let (now, ledger) = (Instant::now(), Ledger::root("test", Limits::default()));
    let options = ConnectionOptions::bit_server();
    let mut connection = Connection::server(Plane::Data, options, &ledger, now);
    connection.handle_frame(request(0, 0), now);
    connection.open(Bytes::new(), IdleTimeout::Keep);
    (1..=requests).for_each(|id| connection.handle_frame(request(id, REQUEST), now));
    // The answer to the handshake is gone.
    connection.transmit(&mut Transmit::default());
    let tickets = connection
        .take_events()
        .into_iter()
        .filter_map(|event| match event {
            Event::Request { ticket, .. } => Some(ticket),
            _ => None,
        });
    let here = SocketAddr::from(([127, 0, 0, 1], 0));
    let ends = Ends {
        id: 1,
        plane: Plane::Data,
        local: here,
        peer: here,
        tls: None,
    };
    (Link::new(ends, connection, 1 << 20), tickets.collect())
}

/// A request without bodies.
pub(crate) fn outgoing(began: Instant) -> Outgoing<'static> {
    Outgoing {
        rpc_type: REQUEST,
        pbody: Bytes::new().into(),
        dbody: Vec::new(),
        stream: StreamKey::default(),
        room: Room::default(),
        began,
    }
}

/// Makes a call whose answer nobody waits for.
pub(crate) fn call_on(link: &Link) {
    // The receiving half is of no interest here.
    let completion = tokio::sync::oneshot::channel().0;
    let called =
        link.with(|connection| connection.call(outgoing(Instant::now()), None, completion));
    assert!(called.is_ok());
}

fn request(id: i32, rpc_type: i32) -> Frame {
    Frame {
        header: Header {
            mode: RpcMode::Request,
            coordination_id: CoordinationId(id),
            rpc_type,
        },
        pbody: Bytes::new(),
        dbody: Bytes::new(),
    }
}
