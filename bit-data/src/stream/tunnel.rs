//! Counters of a tunnel: all streams from and to one peer. And the streams that are open, one by one.

use std::{
    collections::HashMap,
    fmt,
    net::SocketAddr,
    sync::{Arc, Mutex, Weak},
};

use rpc_bus::RemoteConnection;

use super::{
    address::StreamAddress,
    inbound::Inbound,
    outbound::Outbound,
    stats::{ReceiveStats, SendStats, lock, now},
};

/// Whose streams are counted together.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, PartialOrd, Ord)]
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
    let told = connection.peer_capabilities();
    let told = told.as_ref().and_then(|told| told.endpoint.as_ref());
    let port = told.and_then(|endpoint| u16::try_from(endpoint.data_port()).ok());
    listens_at(connection.peer_addr(), port.filter(|&port| port > 0))
}

/// One address for a node, whoever has connected: to a socket that takes IPv4 and IPv6, what comes by IPv4 looks like
/// IPv6.
fn listens_at(mut address: SocketAddr, port: Option<u16>) -> SocketAddr {
    address.set_ip(address.ip().to_canonical());
    if let Some(port) = port {
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

/// All streams of one peer, those that have ended included: what only grows of a stream does of a tunnel too.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
#[non_exhaustive]
pub struct TunnelStats {
    /// Whose they are.
    pub peer: TunnelPeer,
    /// What was sent there.
    pub sent: SendStats,
    /// What came from there. `PeakBufferMemoryBytes` is the highest of one stream.
    pub received: ReceiveStats,
    /// Streams that are open now, in both directions.
    pub open_streams: usize,
    /// What the open senders of this node may send there now, in bytes.
    pub credit_bytes: u64,
    /// How many of them wait for credit.
    pub waiting_senders: usize,
}

impl TunnelStats {
    /// What a sender or receiver has counted until its end, or so far.
    fn add(&mut self, end: &StreamEnd) {
        match end {
            StreamEnd::Sender(stats) => self.sent.add(stats),
            StreamEnd::Receiver(stats) => {
                let peaks = [
                    self.received.peak_buffer_memory_bytes,
                    stats.peak_buffer_memory_bytes,
                ];
                self.received.add(stats);
                self.received.peak_buffer_memory_bytes = peaks[0].max(peaks[1]);
            }
        }
    }

    fn add_open(&mut self, stream: &StreamStats) {
        self.add(&stream.end);
        self.open_streams += 1;
        if let StreamEnd::Sender(_) = stream.end {
            self.credit_bytes = self.credit_bytes.saturating_add(stream.credit_bytes);
            self.waiting_senders += usize::from(stream.is_waiting);
        }
    }
}

/// A stream that is open, as the end of it that is here sees it.
#[derive(Clone, Copy, Debug, PartialEq)]
#[non_exhaustive]
pub struct StreamStats {
    /// Which stream.
    pub address: StreamAddress,
    /// Who is at the other end.
    pub peer: TunnelPeer,
    /// What this end has counted.
    pub end: StreamEnd,
    /// What its sender may send now, in bytes, as far as is known here.
    pub credit_bytes: u64,
    /// Of a sender: it waits for credit. Of a receiver: its consumer waits for a batch.
    pub is_waiting: bool,
}

/// Which end of a stream it is.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum StreamEnd {
    /// The one that sends.
    Sender(SendStats),
    /// The one that receives.
    Receiver(ReceiveStats),
}

/// How many peers are told apart whose streams have all ended.
const PEERS_MAX: usize = 1024;
/// Streams of a peer are looked through for ended ones when there are this many.
const STREAMS_SWEPT: usize = 64;

#[derive(Debug, Default)]
pub(crate) struct Tunnels(Mutex<Rows>);

#[derive(Debug, Default)]
struct Rows {
    by_peer: HashMap<TunnelPeer, Tunnel>,
    /// Counts what happens to any of them.
    steps: u64,
}

#[derive(Debug, Default)]
struct Tunnel {
    /// When something happened to it last, in steps of all.
    last_step: u64,
    /// Of the streams that have ended.
    ended: TunnelStats,
    senders: Vec<Sending>,
    receivers: Vec<Receiving>,
    sweep_at: usize,
}

/// Kept until it is swept, so that nothing is lost that a sender counted last.
#[derive(Debug)]
struct Sending {
    address: StreamAddress,
    stats: Arc<Mutex<SendStats>>,
    outbound: Weak<Outbound>,
}

impl Sending {
    /// Its sender, or the receiver of the same process, may still be there.
    fn has_ended(&self) -> bool {
        let outbound = self.outbound.upgrade();
        outbound.is_none_or(|outbound| outbound.has_ended())
    }

    fn end(&self) -> StreamEnd {
        StreamEnd::Sender(lock(&self.stats).until(now()))
    }

    fn stats(&self, peer: TunnelPeer) -> StreamStats {
        let outbound = self.outbound.upgrade();
        let (credit_bytes, is_waiting) =
            outbound.map_or((0, false), |outbound| outbound.credit_now());
        StreamStats {
            address: self.address,
            peer,
            end: self.end(),
            credit_bytes,
            is_waiting,
        }
    }
}

#[derive(Debug)]
struct Receiving {
    address: StreamAddress,
    inbound: Weak<Inbound>,
}

impl Receiving {
    fn stats(&self, peer: TunnelPeer) -> Option<StreamStats> {
        let inbound = self.inbound.upgrade()?;
        let (credit_bytes, is_waiting) = inbound.credit_now();
        Some(StreamStats {
            address: self.address,
            peer,
            end: StreamEnd::Receiver(inbound.stats()),
            credit_bytes,
            is_waiting,
        })
    }
}

impl Tunnels {
    pub(crate) fn add_sender(
        &self,
        peer: TunnelPeer,
        address: StreamAddress,
        stats: &Arc<Mutex<SendStats>>,
        outbound: &Arc<Outbound>,
    ) {
        self.with(peer, |tunnel| {
            tunnel.senders.push(Sending {
                address,
                stats: Arc::clone(stats),
                outbound: Arc::downgrade(outbound),
            });
        });
    }

    pub(crate) fn add_receiver(
        &self,
        peer: TunnelPeer,
        address: StreamAddress,
        inbound: &Arc<Inbound>,
    ) {
        self.with(peer, |tunnel| {
            tunnel.receivers.push(Receiving {
                address,
                inbound: Arc::downgrade(inbound),
            });
        });
    }

    /// A receiver has ended.
    pub(crate) fn end_receiver(&self, peer: TunnelPeer, inbound: &Arc<Inbound>) {
        let this = Arc::downgrade(inbound);
        self.with(peer, |tunnel| {
            tunnel
                .receivers
                .retain(|other| !other.inbound.ptr_eq(&this));
            tunnel.ended.add(&StreamEnd::Receiver(inbound.stats()));
        });
    }

    fn with(&self, peer: TunnelPeer, step: impl FnOnce(&mut Tunnel)) {
        let mut rows = lock(&self.0);
        if !rows.by_peer.contains_key(&peer) {
            rows.join_ended();
        }
        rows.steps += 1;
        let last_step = rows.steps;
        let tunnel = rows.by_peer.entry(peer).or_default();
        tunnel.last_step = last_step;
        step(tunnel);
        if tunnel.open_streams() >= tunnel.sweep_at {
            tunnel.sweep();
            tunnel.sweep_at = 2 * tunnel.open_streams() + STREAMS_SWEPT;
        }
    }

    /// By peer.
    pub(crate) fn stats(&self) -> Vec<TunnelStats> {
        let mut rows = lock(&self.0);
        rows.join_ended();
        let stats = rows.by_peer.iter_mut().map(|(&peer, tunnel)| {
            tunnel.sweep();
            tunnel.stats(peer)
        });
        let mut stats: Vec<_> = stats.collect();
        drop(rows);
        stats.sort_unstable_by_key(|tunnel| tunnel.peer);
        stats
    }

    /// Of all peers, in no order.
    pub(crate) fn streams(&self) -> Vec<StreamStats> {
        let mut rows = lock(&self.0);
        let mut streams = Vec::new();
        for (&peer, tunnel) in &mut rows.by_peer {
            tunnel.sweep();
            streams.extend(tunnel.open(peer));
        }
        streams
    }
}

impl Rows {
    /// Counts those together that have had no open streams for longest, and are too many: what is exported of all never
    /// shrinks.
    fn join_ended(&mut self) {
        if self.by_peer.len() <= PEERS_MAX {
            return;
        }
        self.by_peer.values_mut().for_each(Tunnel::sweep);
        let ended = self
            .by_peer
            .iter()
            .filter(|(peer, tunnel)| **peer != TunnelPeer::Others && tunnel.open_streams() == 0);
        let mut ended: Vec<_> = ended
            .map(|(&peer, tunnel)| (tunnel.last_step, peer))
            .collect();
        ended.sort_unstable();
        ended.truncate(ended.len().saturating_sub(PEERS_MAX));
        for (_, peer) in ended {
            let Some(Tunnel { ended, .. }) = self.by_peer.remove(&peer) else {
                continue;
            };
            let others = self.by_peer.entry(TunnelPeer::Others).or_default();
            others.ended.add(&StreamEnd::Sender(ended.sent));
            others.ended.add(&StreamEnd::Receiver(ended.received));
        }
    }
}

impl Tunnel {
    fn open_streams(&self) -> usize {
        self.senders.len() + self.receivers.len()
    }

    fn sweep(&mut self) {
        let Self { ended, senders, .. } = self;
        senders.retain(|sender| {
            let has_ended = sender.has_ended();
            if has_ended {
                ended.add(&sender.end());
            }
            !has_ended
        });
        self.receivers
            .retain(|receiver| receiver.inbound.strong_count() > 0);
    }

    fn open(&self, peer: TunnelPeer) -> impl Iterator<Item = StreamStats> {
        let senders = self.senders.iter().map(move |sender| sender.stats(peer));
        let receivers = self.receivers.iter();
        senders.chain(receivers.filter_map(move |receiver| receiver.stats(peer)))
    }

    fn stats(&self, peer: TunnelPeer) -> TunnelStats {
        let mut stats = TunnelStats { peer, ..self.ended };
        for stream in self.open(peer) {
            stats.add_open(&stream);
        }
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

    fn address() -> StreamAddress {
        let query = protos::id::QueryId { part1: 1, part2: 2 };
        StreamAddress::new(query, (1, 0), (0, 0))
    }

    fn add_sender(tunnels: &Tunnels, peer: TunnelPeer) -> (Arc<Mutex<SendStats>>, Arc<Outbound>) {
        let (stats, outbound) = (Arc::default(), Arc::default());
        tunnels.add_sender(peer, address(), &stats, &outbound);
        (stats, outbound)
    }

    #[test]
    fn a_node_has_one_address_whoever_has_connected() {
        let dialled = "10.0.0.2:31012".parse().unwrap();
        let accepted = "[::ffff:10.0.0.2]:40000".parse().unwrap();
        assert_eq!(listens_at(dialled, None), dialled);
        assert_eq!(listens_at(accepted, Some(31_012)), dialled);
        let (other, expected) = ("[fe80::1%7]:40000", "[fe80::1%7]:31012");
        let address = listens_at(other.parse().unwrap(), Some(31_012));
        assert_eq!(address, expected.parse().unwrap());
    }

    #[test]
    fn peaks_of_streams_that_follow_one_another_are_not_summed() {
        let mut tunnel = TunnelStats::default();
        for peak in [3, 7, 5] {
            let stats = ReceiveStats {
                batches: 1,
                peak_buffer_memory_bytes: peak,
                ..ReceiveStats::default()
            };
            tunnel.add(&StreamEnd::Receiver(stats));
        }
        let ReceiveStats {
            batches,
            peak_buffer_memory_bytes: peak,
            ..
        } = tunnel.received;
        assert_eq!((batches, peak), (3, 7));
    }

    #[test]
    fn peers_with_open_streams_take_no_place_of_those_without() {
        let tunnels = Tunnels::default();
        let open = |number| add_sender(&tunnels, node(number));
        let open: Vec<_> = (0..PEERS_MAX).map(open).collect();
        for number in PEERS_MAX..PEERS_MAX + 10 {
            add_sender(&tunnels, node(number));
        }
        let stats = tunnels.stats();
        assert_eq!(stats.len(), open.len() + 10);
        assert!(stats.iter().all(|row| row.peer != TunnelPeer::Others));
    }

    #[test]
    fn what_was_counted_of_many_peers_is_never_lost() {
        let tunnels = Tunnels::default();
        let (open, _outbound) = add_sender(&tunnels, node(0));
        for number in 0..3 * PEERS_MAX {
            let (stats, outbound) = add_sender(&tunnels, node(number));
            lock(&stats).batches = 1;
            outbound.end();
        }
        lock(&open).batches = 10;
        let stats = tunnels.stats();
        assert_eq!(stats.len(), PEERS_MAX + 2, "with an open one, and others");
        let batches =
            |stats: &[TunnelStats]| -> u64 { stats.iter().map(|tunnel| tunnel.sent.batches).sum() };
        assert_eq!(batches(&stats), 3 * PEERS_MAX as u64 + 10);
        let of = |peer| stats.iter().copied().find(|tunnel| tunnel.peer == peer);
        assert_eq!(of(node(0)).unwrap().open_streams, 1);
        let (newest, oldest) = (2 * PEERS_MAX..3 * PEERS_MAX, 1..2 * PEERS_MAX);
        assert!(newest.map(node).all(|peer| of(peer).is_some()));
        assert!(oldest.map(node).all(|peer| of(peer).is_none()));
        let others = of(TunnelPeer::Others).unwrap();
        assert_eq!(others.sent.batches, 2 * PEERS_MAX as u64 - 1);
        assert_eq!(TunnelPeer::Others.to_string(), "others");
    }
}
