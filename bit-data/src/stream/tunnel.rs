//! Counters of a tunnel: all streams from and to one peer.

use std::{
    collections::HashMap,
    net::SocketAddr,
    sync::{Arc, Mutex, Weak},
};

use super::{
    inbound::Inbound,
    stats::{ReceiveStats, SendStats, lock},
};

/// All streams of one peer, those that have ended included.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
#[non_exhaustive]
pub struct TunnelStats {
    /// Of the other end of the connection; `None`: of this process.
    pub peer: Option<SocketAddr>,
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
    by_peer: Mutex<HashMap<Option<SocketAddr>, Tunnel>>,
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
    pub(crate) fn add_sender(&self, peer: Option<SocketAddr>, stats: &Arc<Mutex<SendStats>>) {
        self.with(peer, |tunnel| {
            tunnel.senders.push(Sending(Arc::clone(stats)));
        });
    }

    pub(crate) fn add_receiver(&self, peer: Option<SocketAddr>, inbound: &Arc<Inbound>) {
        self.with(peer, |tunnel| {
            tunnel.receivers.push(Arc::downgrade(inbound));
        });
    }

    /// A receiver has ended.
    pub(crate) fn end_receiver(&self, peer: Option<SocketAddr>, inbound: &Arc<Inbound>) {
        let this = Arc::downgrade(inbound);
        self.with(peer, |tunnel| {
            tunnel.receivers.retain(|other| !other.ptr_eq(&this));
            tunnel.received.add(&inbound.stats());
        });
    }

    fn with(&self, peer: Option<SocketAddr>, step: impl FnOnce(&mut Tunnel)) {
        let mut by_peer = lock(&self.by_peer);
        if by_peer.len() >= PEERS_MAX && !by_peer.contains_key(&peer) {
            by_peer.values_mut().for_each(Tunnel::sweep);
            by_peer.retain(|_, tunnel| tunnel.open_streams() > 0);
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

    fn stats(&self, peer: Option<SocketAddr>) -> TunnelStats {
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
