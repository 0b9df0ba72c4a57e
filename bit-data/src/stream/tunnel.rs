//! Counters of a tunnel: all streams from and to one peer.

use std::{
    collections::HashMap,
    fmt,
    net::SocketAddr,
    sync::{Arc, Mutex, Weak},
};

use rpc_bus::RemoteConnection;

use super::{
    inbound::Inbound,
    stats::{ReceiveStats, SendStats, lock},
};

/// Whose streams are counted together.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum TunnelPeer {
    /// Senders and receivers of this process.
    #[default]
    Here,
    /// A node, by the port that it listens on if it has told that, else by that of its connection.
    Node(SocketAddr),
    /// Those that are not told apart any more: all their streams have ended.
    Others,
}

impl TunnelPeer {
    /// The other end of a connection.
    pub(crate) fn of(connection: &RemoteConnection) -> Self {
        Self::Node(node_address(connection))
    }
}

/// Where the node at the other end listens, if it has told that.
pub(crate) fn node_address(connection: &RemoteConnection) -> SocketAddr {
    let mut address = connection.peer_addr();
    let told = connection.peer_capabilities();
    let told = told.as_ref().and_then(|told| told.endpoint.as_ref());
    let port = told.and_then(|endpoint| u16::try_from(endpoint.data_port()).ok());
    if let Some(port) = port.filter(|&port| port > 0) {
        address.set_port(port);
    }
    address
}

impl fmt::Display for TunnelPeer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Here => f.write_str("this node"),
            Self::Node(address) => address.fmt(f),
            Self::Others => f.write_str("others"),
        }
    }
}

/// All streams of one peer, those that have ended included.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
#[non_exhaustive]
pub struct TunnelStats {
    /// Whose they are.
    pub peer: TunnelPeer,
    /// What was sent there.
    pub sent: SendStats,
    /// What came from there.
    pub received: ReceiveStats,
    /// Streams that are open now, in both directions.
    pub open_streams: usize,
}

/// How many peers are told apart, besides those that have open streams.
const PEERS_MAX: usize = 1024;
/// Streams of a peer are looked through for ended ones when there are this many.
const STREAMS_SWEPT: usize = 64;

#[derive(Debug, Default)]
pub(crate) struct Tunnels {
    by_peer: Mutex<HashMap<TunnelPeer, Tunnel>>,
}

#[derive(Debug, Default)]
struct Tunnel {
    /// Sum of the streams that have ended.
    sent: SendStats,
    received: ReceiveStats,
    senders: Vec<Sending>,
    receivers: Vec<Weak<Inbound>>,
    sweep_at: usize,
}

/// Kept until it is swept, so that nothing is lost that a sender counted last.
#[derive(Debug)]
struct Sending(Arc<Mutex<SendStats>>);

impl Sending {
    fn has_ended(&self) -> bool {
        Arc::strong_count(&self.0) == 1
    }
}

impl Tunnels {
    pub(crate) fn add_sender(&self, peer: TunnelPeer, stats: &Arc<Mutex<SendStats>>) {
        self.with(peer, |tunnel| {
            tunnel.senders.push(Sending(Arc::clone(stats)));
        });
    }

    pub(crate) fn add_receiver(&self, peer: TunnelPeer, inbound: &Arc<Inbound>) {
        self.with(peer, |tunnel| {
            tunnel.receivers.push(Arc::downgrade(inbound));
        });
    }

    /// A receiver has ended.
    pub(crate) fn end_receiver(&self, peer: TunnelPeer, inbound: &Arc<Inbound>) {
        let this = Arc::downgrade(inbound);
        self.with(peer, |tunnel| {
            tunnel.receivers.retain(|other| !other.ptr_eq(&this));
            tunnel.received.add(&inbound.stats());
        });
    }

    fn with(&self, peer: TunnelPeer, step: impl FnOnce(&mut Tunnel)) {
        let mut by_peer = lock(&self.by_peer);
        if by_peer.len() >= PEERS_MAX && !by_peer.contains_key(&peer) {
            join_ended(&mut by_peer);
        }
        let tunnel = by_peer.entry(peer).or_default();
        step(tunnel);
        if tunnel.open_streams() >= tunnel.sweep_at {
            tunnel.sweep();
            tunnel.sweep_at = 2 * tunnel.open_streams() + STREAMS_SWEPT;
        }
    }

    pub(crate) fn stats(&self) -> Vec<TunnelStats> {
        let mut by_peer = lock(&self.by_peer);
        let stats = by_peer.iter_mut().map(|(&peer, tunnel)| {
            tunnel.sweep();
            tunnel.stats(peer)
        });
        stats.collect()
    }
}

/// Counts those without open streams together: what is exported of all never shrinks.
fn join_ended(by_peer: &mut HashMap<TunnelPeer, Tunnel>) {
    by_peer.values_mut().for_each(Tunnel::sweep);
    let ended: Vec<_> = by_peer
        .extract_if(|peer, tunnel| *peer != TunnelPeer::Others && tunnel.open_streams() == 0)
        .collect();
    let others = by_peer.entry(TunnelPeer::Others).or_default();
    for (_, tunnel) in ended {
        others.sent.add(&tunnel.sent);
        others.received.add(&tunnel.received);
    }
}

impl Tunnel {
    fn open_streams(&self) -> usize {
        self.senders.len() + self.receivers.len()
    }

    fn sweep(&mut self) {
        let Self { sent, senders, .. } = self;
        senders.retain(|sender| {
            let ended = sender.has_ended();
            if ended {
                sent.add(&lock(&sender.0));
            }
            !ended
        });
        self.receivers.retain(|inbound| inbound.strong_count() > 0);
    }

    fn stats(&self, peer: TunnelPeer) -> TunnelStats {
        let mut stats = TunnelStats {
            peer,
            sent: self.sent,
            received: self.received,
            open_streams: self.open_streams(),
        };
        self.senders
            .iter()
            .for_each(|sender| stats.sent.add(&lock(&sender.0)));
        let open = self.receivers.iter().filter_map(Weak::upgrade);
        open.for_each(|inbound| stats.received.add(&inbound.stats()));
        stats
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn node(number: usize) -> TunnelPeer {
        let [.., high, low] = number.to_be_bytes();
        TunnelPeer::Node(SocketAddr::from(([10, 0, high, low], 31_012)))
    }

    #[test]
    fn what_was_counted_of_many_peers_is_never_lost() {
        let tunnels = Tunnels::default();
        let open = Arc::new(Mutex::new(SendStats::default()));
        tunnels.add_sender(node(0), &open);
        for number in 0..3 * PEERS_MAX {
            let stats = Arc::new(Mutex::new(SendStats::default()));
            tunnels.add_sender(node(number), &stats);
            lock(&stats).batches = 1;
        }
        lock(&open).batches = 10;
        let stats = tunnels.stats();
        assert!(stats.len() <= PEERS_MAX, "{} rows", stats.len());
        let batches =
            |stats: &[TunnelStats]| -> u64 { stats.iter().map(|tunnel| tunnel.sent.batches).sum() };
        assert_eq!(batches(&stats), 3 * PEERS_MAX as u64 + 10);
        let of = |peer| {
            let row = stats.iter().copied().find(|tunnel| tunnel.peer == peer);
            row.expect("it is told apart")
        };
        assert_eq!(of(node(0)).open_streams, 1);
        assert!(of(TunnelPeer::Others).sent.batches > PEERS_MAX as u64);
        assert_eq!(TunnelPeer::Others.to_string(), "others");
    }
}
