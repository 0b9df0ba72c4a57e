//! What happens in a schedule, drawn from its seed before it begins.

use std::{ops::RangeInclusive, time::Duration};

use rand::{Rng, SeedableRng, rngs::StdRng, seq::IndexedRandom};
use record_batch::Codec;
use rpc_bus::simulation::{Death, End, Fault, Path};

use super::data::{BatchPlan, ROW_BYTES_MAX};
use crate::stream::{Checksums, Compression, ReceiveOptions};

/// Things go wrong before.
const LAST_HAPPENING: Duration = Duration::from_secs(12);
/// The shortest time that anybody waits for somebody else to be there.
const PATIENCE_MIN: Duration = Duration::from_secs(8);
/// Rows above this may overrun a window by more than it reckons with.
const LONG_ROW_BYTES: usize = 60_000;
/// Too little for what may have to be spilled.
const DISK_BYTES_LITTLE: usize = 200_000;
/// More than all pieces that are in memory while they are written.
const SPILL_ROOM_BYTES: usize = 32 << 20;
/// Of a stream.
const BATCHES_MAX: usize = 24;

#[derive(Debug)]
pub(super) struct Plan {
    pub(super) nodes: Vec<NodePlan>,
    /// By index of both nodes.
    pub(super) paths: Vec<(usize, usize, Path)>,
    pub(super) exchanges: Vec<Exchange>,
    /// In the order in which they happen.
    pub(super) happenings: Vec<(Duration, Happening)>,
}

#[derive(Clone, Debug)]
pub(super) struct NodePlan {
    pub(super) connections_per_peer: usize,
    pub(super) batch_bytes_max: usize,
    pub(super) has_compression: bool,
    pub(super) disk_bytes_max: usize,
    pub(super) unwritten_bytes_max: usize,
}

/// A receiver and its senders.
#[derive(Debug)]
pub(super) struct Exchange {
    pub(super) receiver: usize,
    pub(super) taking: Taking,
    pub(super) streams: Vec<StreamPlan>,
    pub(super) budget_bytes: usize,
    pub(super) window_bytes: usize,
    pub(super) spills: bool,
    /// All its senders are fed by one task, which waits for each: only what spills may then be taken in a fixed order.
    pub(super) is_fed_by_one: bool,
    pub(super) checksums: Checksums,
    pub(super) open_timeout: Duration,
    pub(super) starts: Duration,
    pub(super) consumer: Consumer,
    /// How often it is tried, by both sides.
    pub(super) attempts: i64,
    /// Whether it may fail although nothing happens to its connections.
    pub(super) may_fail: bool,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Taking {
    Unordered,
    Merged,
    /// All at the same time.
    PerSender,
    /// One sender after the other.
    InTurn,
}

/// What the receiver does with what comes.
#[derive(Clone, Copy, Debug)]
pub(super) struct Consumer {
    /// After each batch.
    pub(super) pause: Duration,
    /// Once, after so many batches.
    pub(super) stop: Option<(usize, Duration)>,
    pub(super) leaves: Option<Leaving>,
}

/// A receiver that does not wait for the end.
#[derive(Clone, Copy, Debug)]
pub(super) enum Leaving {
    /// Dropped after that time, whatever it is at.
    DroppedAt(Duration),
    DroppedAfter(usize),
    FinishedAfter(usize),
    /// With an error, which one alone of its receivers has.
    FailedAfter(usize),
}

#[derive(Debug)]
pub(super) struct StreamPlan {
    pub(super) sender: usize,
    pub(super) starts: Duration,
    pub(super) batches: Vec<BatchPlan>,
    /// Before a batch, in this share of all, in percent.
    pub(super) pause: (u32, Duration),
    pub(super) compression: Compression,
    pub(super) receiver_timeout: Duration,
    pub(super) ending: Ending,
}

#[derive(Clone, Copy, Debug)]
pub(super) enum Ending {
    Finished,
    /// With an error, behind all batches.
    Failed,
    /// Dropped behind all batches.
    Dropped,
    /// Dropped after that time, whatever it is at.
    DroppedAt(Duration),
}

#[derive(Clone, Copy, Debug)]
pub(super) enum Happening {
    Stall {
        from: usize,
        to: usize,
        time: Duration,
    },
    Fault {
        from: usize,
        to: usize,
        after_bytes: u64,
        fault: Fault,
    },
    Death {
        node: usize,
        death: Death,
        /// When it comes back, if it does.
        back: Option<Duration>,
    },
    /// A node ends as a program does that is told to.
    Shutdown { node: usize, back: Option<Duration> },
    /// One node is told that another is down.
    Disconnect { at: usize, from: usize },
}

impl Happening {
    fn is_damage(&self) -> bool {
        matches!(
            self,
            Self::Fault {
                fault: Fault::FlipBit(_),
                ..
            }
        )
    }
}

struct Draw {
    random: StdRng,
    /// Whether there are batches beyond what a frame should hold.
    has_large: bool,
}

impl Plan {
    pub(super) fn of(seed: u64) -> Self {
        let random = StdRng::seed_from_u64(seed);
        let has_large = false;
        Draw { random, has_large }.plan()
    }

    /// Whether a node is told that another is down.
    pub(super) fn has_disconnects(&self) -> bool {
        let is_one = |happening: &_| matches!(happening, Happening::Disconnect { .. });
        self.happenings
            .iter()
            .any(|(_, happening)| is_one(happening))
    }

    /// Whether a bit is flipped somewhere.
    pub(super) fn has_damage(&self) -> bool {
        self.happenings
            .iter()
            .any(|(_, happening)| happening.is_damage())
    }
}

impl Draw {
    fn chance(&mut self, percent: u32) -> bool {
        self.random.random_ratio(percent, 100)
    }

    fn millis(&mut self, range: RangeInclusive<u64>) -> Duration {
        Duration::from_millis(self.random.random_range(range))
    }

    fn one_of<T: Copy>(&mut self, choices: &[T]) -> T {
        *choices.choose(&mut self.random).expect("a choice")
    }

    /// Small numbers as often as large ones.
    fn log(&mut self, max: usize) -> usize {
        let bits = self.random.random_range(0..=max.max(1).ilog2() + 1);
        self.random.random_range(0..=max.min(1 << bits))
    }

    fn plan(mut self) -> Plan {
        self.has_large = self.chance(5);
        let count = self.random.random_range(2..=4);
        let nodes: Vec<_> = (0..count).map(|_| self.node()).collect();
        let paths = self.paths(count);
        let exchanges = self.exchanges(&nodes);
        let happenings = self.happenings(count, &exchanges);
        let mut plan = Plan {
            nodes,
            paths,
            exchanges,
            happenings,
        };
        if !plan.has_damage() && self.chance(20) {
            for exchange in &mut plan.exchanges {
                exchange.checksums = Checksums::Off;
            }
        }
        plan
    }

    fn node(&mut self) -> NodePlan {
        let spills_little = self.chance(20);
        NodePlan {
            connections_per_peer: self.one_of(&[1, 1, 2, 3]),
            batch_bytes_max: self.one_of(&[16 << 20, 16 << 20, 1 << 20]),
            has_compression: self.chance(80),
            disk_bytes_max: if spills_little {
                DISK_BYTES_LITTLE
            } else {
                1 << 30
            },
            unwritten_bytes_max: self.one_of(&[100_000, 1 << 20, SPILL_ROOM_BYTES]),
        }
    }

    fn paths(&mut self, nodes: usize) -> Vec<(usize, usize, Path)> {
        let pairs = (0..nodes).flat_map(|from| (0..nodes).map(move |to| (from, to)));
        let apart: Vec<_> = pairs.filter(|(from, to)| from != to).collect();
        let is_ragged = self.chance(50);
        let path = |(from, to)| (from, to, self.path(is_ragged));
        apart.into_iter().map(path).collect()
    }

    fn path(&mut self, is_ragged: bool) -> Path {
        let plain = Path {
            latency: self.millis(0..=20),
            ..Path::default()
        };
        if !is_ragged {
            return plain;
        }
        let piece_bytes_max = self.one_of(&[1, 100, 10_000, 100_000]);
        // A path that takes everything in single bytes is for the handshake and small batches; few at a time pass here.
        let piece_bytes_max = if piece_bytes_max == 1 && self.chance(90) {
            1_000
        } else {
            piece_bytes_max
        };
        // Large frames would hold up all others for longer than anybody waits.
        let buffer_bytes = self.one_of(&[2_000, 30_000, 256 * 1024]);
        Path {
            jitter: self.millis(0..=40),
            bytes_per_s: self.one_of(&[None, Some(1_000_000), Some(20_000_000)]),
            buffer_bytes: if self.has_large {
                256 * 1024
            } else {
                buffer_bytes
            },
            piece_bytes_max: Some(piece_bytes_max),
            ..plain
        }
    }

    fn exchanges(&mut self, nodes: &[NodePlan]) -> Vec<Exchange> {
        let mut left = 1 + self.log(11);
        let mut exchanges = Vec::new();
        while left > 0 {
            let streams = self.random.random_range(1..=left);
            left -= streams;
            exchanges.push(self.exchange(nodes, streams));
        }
        let doubtful = |exchange: &Exchange| {
            exchange.is_doubtful(nodes) || exchange.may_lack_room(nodes, &exchanges)
        };
        let doubtful: Vec<_> = exchanges.iter().map(doubtful).collect();
        for (exchange, may_fail) in exchanges.iter_mut().zip(doubtful) {
            exchange.may_fail = may_fail;
        }
        exchanges
    }

    fn exchange(&mut self, nodes: &[NodePlan], streams: usize) -> Exchange {
        let receiver = self.random.random_range(0..nodes.len());
        let has_large = self.has_large && self.chance(50);
        let least = ReceiveOptions::budget_bytes_min(streams);
        let streams: Vec<_> = (0..streams)
            .map(|_| self.stream(nodes.len(), has_large))
            .collect();
        let mut exchange = Exchange {
            receiver,
            taking: self.one_of(&[
                Taking::Unordered,
                Taking::Merged,
                Taking::PerSender,
                Taking::InTurn,
            ]),
            streams,
            budget_bytes: self.one_of(&[least, least, 2 * least, 16 << 20]).max(least),
            window_bytes: self.one_of(&[64 << 10, 128 << 10, 2 << 20]),
            spills: self.chance(30),
            is_fed_by_one: false,
            checksums: Checksums::On,
            open_timeout: self.one_of(&[PATIENCE_MIN, 2 * PATIENCE_MIN]),
            starts: self.start(),
            consumer: self.consumer(),
            attempts: self.random.random_range(1..=2),
            may_fail: false,
        };
        if exchange.spills && self.chance(50) {
            self.feed_by_one(&mut exchange);
        }
        exchange
    }

    /// Most of these could not be without spilling: what is taken last comes as early as what is taken first, and is more
    /// than waits elsewhere.
    fn feed_by_one(&mut self, exchange: &mut Exchange) {
        exchange.is_fed_by_one = true;
        let is_in_turn = self.chance(60);
        if is_in_turn {
            exchange.taking = Taking::InTurn;
            exchange.budget_bytes = ReceiveOptions::budget_bytes_min(exchange.streams.len());
        }
        let (sender, starts) = (exchange.streams[0].sender, exchange.streams[0].starts);
        for stream in &mut exchange.streams {
            (stream.sender, stream.starts) = (sender, starts);
            stream.ending = Ending::Finished;
            if is_in_turn {
                stream.batches = (0..BATCHES_MAX).map(|_| self.middling_batch()).collect();
            }
        }
    }

    /// Mostly soon; now and then later than others wait.
    fn start(&mut self) -> Duration {
        match self.random.random_range(0..20) {
            0 => self.millis(0..=20_000),
            1..5 => self.millis(0..=5_000),
            _ => self.millis(0..=100),
        }
    }

    fn consumer(&mut self) -> Consumer {
        let pause = match self.random.random_range(0..4) {
            0 => self.millis(1..=200),
            _ => Duration::ZERO,
        };
        let stop = self
            .chance(25)
            .then(|| (self.log(20), self.millis(0..=10_000)));
        let leaves = self
            .chance(25)
            .then(|| match self.random.random_range(0..4) {
                0 => Leaving::DroppedAt(self.millis(0..=3_000)),
                1 => Leaving::DroppedAfter(self.log(20)),
                2 => Leaving::FinishedAfter(self.log(20)),
                _ => Leaving::FailedAfter(self.log(20)),
            });
        Consumer {
            pause,
            stop,
            leaves,
        }
    }

    fn stream(&mut self, nodes: usize, has_large: bool) -> StreamPlan {
        let ending = match self.random.random_range(0..20) {
            0 => Ending::Failed,
            1 => Ending::Dropped,
            2 => Ending::DroppedAt(self.millis(0..=3_000)),
            _ => Ending::Finished,
        };
        let batches = self.log(BATCHES_MAX);
        let bulk = self.chance(25);
        let mut batches: Vec<_> = (0..batches).map(|_| self.batch(bulk)).collect();
        if has_large && let Some(first) = batches.first_mut() {
            *first = self.large_batch();
        }
        StreamPlan {
            sender: self.random.random_range(0..nodes),
            starts: self.start(),
            batches,
            pause: (self.one_of(&[0, 0, 5, 30]), self.millis(0..=2_000)),
            compression: self.one_of(&[
                Compression::Fixed(Codec::None),
                Compression::Fixed(Codec::None),
                Compression::Fixed(Codec::Lz4),
                Compression::Fixed(Codec::Zstd),
                Compression::Adaptive,
            ]),
            receiver_timeout: self.one_of(&[PATIENCE_MIN, 3 * PATIENCE_MIN]),
            ending,
        }
    }

    fn batch(&mut self, bulk: bool) -> BatchPlan {
        let bytes = self.log(if bulk { 200_000 } else { 3_000 });
        let rows = self.log(20).max(bytes.div_ceil(LONG_ROW_BYTES / 2));
        BatchPlan {
            rows,
            row_bytes: bytes / rows.max(1),
        }
    }

    /// So that a stream of them is more than a window and a small disk hold.
    fn middling_batch(&mut self) -> BatchPlan {
        let (rows, bytes) = (4, self.random.random_range(5_000..40_000));
        BatchPlan {
            rows,
            row_bytes: bytes / rows,
        }
    }

    /// Beyond the pieces that batches are cut to: one row that goes in chunks, or many.
    fn large_batch(&mut self) -> BatchPlan {
        let bytes = self.random.random_range(100_000..ROW_BYTES_MAX);
        let rows = self.one_of(&[1, 1, 30]);
        BatchPlan {
            rows,
            row_bytes: bytes / rows,
        }
    }

    fn happenings(&mut self, nodes: usize, exchanges: &[Exchange]) -> Vec<(Duration, Happening)> {
        // Half of the schedules are undisturbed: in those everything has to arrive.
        let count = if self.chance(50) { 0 } else { 1 + self.log(5) };
        let mut happenings: Vec<_> = (0..count)
            .map(|_| (self.moment(), self.happening(nodes, exchanges)))
            .collect();
        happenings.sort_by_key(|(at, _)| *at);
        happenings
    }

    /// Most are in the first moments, where most streams are.
    fn moment(&mut self) -> Duration {
        let longest = LAST_HAPPENING.as_millis().try_into().unwrap_or(u64::MAX);
        let longest = self.one_of(&[50, 200, 200, 1_000, longest]);
        self.millis(0..=longest)
    }

    /// From one node to another: mostly one way or the other between the ends of a stream.
    fn way(&mut self, nodes: usize, exchanges: &[Exchange]) -> (usize, usize) {
        let exchange = exchanges.choose(&mut self.random);
        let ends = exchange.and_then(|exchange| {
            let stream = exchange.streams.choose(&mut self.random)?;
            (stream.sender != exchange.receiver).then_some((stream.sender, exchange.receiver))
        });
        match ends {
            Some(ends) if self.chance(60) => ends,
            Some((sender, receiver)) if self.chance(80) => (receiver, sender),
            _ => {
                let from = self.random.random_range(0..nodes);
                (from, (from + self.random.random_range(1..nodes)) % nodes)
            }
        }
    }

    fn happening(&mut self, nodes: usize, exchanges: &[Exchange]) -> Happening {
        let (from, to) = self.way(nodes, exchanges);
        match self.random.random_range(0..14) {
            0..3 => Happening::Stall {
                from,
                to,
                time: Duration::from_millis(self.one_of(&[300, 1_000, 20_000])),
            },
            3..6 => Happening::Fault {
                from,
                to,
                after_bytes: self.log(100_000) as u64,
                fault: Fault::FlipBit(self.random.random_range(0..8)),
            },
            6..9 => Happening::Fault {
                from,
                to,
                after_bytes: self.log(100_000) as u64,
                fault: Fault::Cut(self.one_of(&[End::Fin, End::Reset])),
            },
            9 => Happening::Disconnect { at: from, from: to },
            10..12 => Happening::Shutdown {
                node: from,
                back: self.chance(70).then(|| self.millis(0..=5_000)),
            },
            _ => Happening::Death {
                node: from,
                death: self.one_of(&[Death::Process, Death::Power]),
                back: self.chance(70).then(|| self.millis(0..=5_000)),
            },
        }
    }
}

impl Exchange {
    /// Whether something of the plan itself may end it early.
    fn is_doubtful(&self, nodes: &[NodePlan]) -> bool {
        self.consumer.leaves.is_some()
            || self.is_late()
            || self.may_be_too_large(nodes)
            || self
                .streams
                .iter()
                .any(|stream| !matches!(stream.ending, Ending::Finished))
    }

    /// Somebody may give up before somebody else comes.
    fn is_late(&self) -> bool {
        let starts = self.streams.iter().map(|stream| stream.starts);
        let starts = || starts.clone().chain([self.starts]);
        let (first, last) = (starts().min(), starts().max());
        let apart = last
            .unwrap_or_default()
            .saturating_sub(first.unwrap_or_default());
        apart + Duration::from_secs(2) > PATIENCE_MIN
    }

    /// Whether what it spills may wait for room on disk for longer than it does: for a stream that nothing is taken from,
    /// because others of its receiver come first, or while such a stream of another exchange holds all there is.
    fn may_lack_room(&self, nodes: &[NodePlan], all: &[Self]) -> bool {
        let has_little = nodes[self.receiver].disk_bytes_max == DISK_BYTES_LITTLE;
        let may_stand = |other: &Self| {
            other.spills
                && other.receiver == self.receiver
                && matches!(other.taking, Taking::InTurn | Taking::Merged)
        };
        self.spills && has_little && all.iter().any(may_stand)
    }

    fn may_be_too_large(&self, nodes: &[NodePlan]) -> bool {
        let all = || self.streams.iter().flat_map(|stream| &stream.batches);
        let longest = all().map(|batch| batch.row_bytes).max().unwrap_or_default();
        let largest = all().map(|batch| batch.bytes()).max().unwrap_or_default();
        let here = &nodes[self.receiver];
        let spilled_max = here.unwritten_bytes_max.min(here.disk_bytes_max);
        let spills_more = self.spills && largest + 4_096 > spilled_max;
        let smallest = nodes.iter().map(|node| node.batch_bytes_max).min();
        let is_long = longest > LONG_ROW_BYTES
            && (self.budget_bytes < 16 << 20 || Some(longest + 4_096) > smallest);
        spills_more || is_long
    }
}
