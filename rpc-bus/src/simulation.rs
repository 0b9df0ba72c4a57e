//! A network in memory, for tests that run whole nodes: everything that happens on it comes from one seed.
//!
//! A [`BusRuntime::simulated`](crate::BusRuntime::simulated) connects and listens here in place of TCP. Bytes take their
//! time, arrive in pieces and through narrow links, are held up, damaged, or lost with their connection; hosts die and
//! come back. There is no socket, no other thread, and no time but the runtime's: so on a single-threaded runtime of
//! tokio whose clock is paused the same seed brings the same schedule again, down to the order in which tasks run.
//!
//! What would make every run another one is replaced along with the network: work for the cpu pool runs as a task, after
//! a moment that the seed decides, and how long a thread is busy is counted in looks at the clock. Threads
//! remember times, of a clock that does not go back: each simulation wants a thread of its own. What is
//! left to chance is the jitter of retries, which come from `rand`: a simulation must not depend on more than one
//! attempt. Times are those of tokio's timer, whose grain is a millisecond. TLS is not simulated.

pub(crate) mod busy;
mod pipe;
mod stream;
pub(crate) mod trace;

use std::{
    collections::{BTreeMap, VecDeque},
    fmt, io,
    net::{IpAddr, SocketAddr},
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    task::Waker,
    time::{Duration, Instant},
};

use rand::{Rng, SeedableRng, rngs::StdRng};

use self::{busy::Busy, pipe::Pipe, trace::Trace};
use crate::link;

pub(crate) use stream::{SimulatedListener, SimulatedStream};

/// Ports below are those of listeners.
const FIRST_FREE_PORT: u16 = 20_000;
/// Longest time that work for the cpu pool takes.
const COMPUTE_TIME_MAX: Duration = Duration::from_millis(3);

/// How one host's bytes get to another.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Path {
    /// How long a byte takes at least.
    pub latency: Duration,
    /// How much longer it may take; bytes of one connection never overtake each other.
    pub jitter: Duration,
    /// What all connections that way share; `None`: all that is written.
    pub bytes_per_s: Option<u64>,
    /// Bytes of a connection that are on their way before a write has to wait; at least 1.
    pub buffer_bytes: usize,
    /// Most bytes that one read or write takes, at least 1: each takes anything up to that, small shares as often as
    /// large ones. `None`: all that there is.
    pub piece_bytes_max: Option<usize>,
}

impl Default for Path {
    fn default() -> Self {
        Self {
            latency: Duration::from_millis(1),
            jitter: Duration::ZERO,
            bytes_per_s: None,
            buffer_bytes: 256 * 1024,
            piece_bytes_max: None,
        }
    }
}

/// How a direction of a connection ends.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum End {
    /// As if its writer had said so.
    Fin,
    /// With an error, which overtakes what is on its way.
    Reset,
}

/// What a network does to a connection.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Fault {
    /// A bit of the next byte arrives flipped; which one, is counted from the least.
    FlipBit(u8),
    /// Nothing more gets through, and both ends are told.
    Cut(End),
}

/// How a host dies.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Death {
    /// Its process ends: its kernel resets all connections.
    Process,
    /// It is off: nobody is told anything.
    Power,
}

/// The network. Clones are the same.
#[derive(Clone)]
pub struct SimulatedNetwork(Arc<Mutex<State>>);

/// One life of a host: what it was in a former one is not connected any more. Clones are the same.
#[derive(Clone)]
pub struct Host {
    network: SimulatedNetwork,
    ip: IpAddr,
    life: u64,
}

struct State {
    random: StdRng,
    began: Instant,
    trace: Trace,
    /// How often each host has begun, and whether it lives.
    hosts: BTreeMap<IpAddr, (u64, bool)>,
    paths: BTreeMap<(IpAddr, IpAddr), PathState>,
    listeners: BTreeMap<SocketAddr, Listening>,
    connections: BTreeMap<u64, Connection>,
    next_connection: u64,
    next_port: u16,
    _busy: Busy,
}

#[derive(Clone, Copy)]
struct PathState {
    path: Path,
    /// When the last byte that was written is through its narrowest part.
    free_at: Instant,
    /// Nothing arrives before.
    stalled: Instant,
    /// Of the next connection that is made.
    fault: Option<(u64, Fault)>,
}

#[derive(Default)]
struct Listening {
    incoming: VecDeque<SimulatedStream>,
    acceptor: Option<Waker>,
}

/// The side that has connected is 0.
struct Connection {
    addrs: [SocketAddr; 2],
    /// What the side of the same index writes.
    pipes: [Pipe; 2],
    /// Whether the side has dropped its stream.
    gone: [bool; 2],
    /// Whether the host of the side has died: its stream is of no use.
    dead: [bool; 2],
}

/// What is noted in the trace.
#[derive(Clone, Copy)]
enum Event {
    Connected,
    Refused,
    Read,
    Written,
    Ended,
    Died,
    Computed,
    Note,
}

impl SimulatedNetwork {
    /// A network without hosts, on the thread that is to run them, within its runtime.
    #[must_use]
    pub fn new(seed: u64) -> Self {
        Self(Arc::new(Mutex::new(State {
            random: StdRng::seed_from_u64(seed),
            began: link::now(),
            trace: Trace::new(),
            hosts: BTreeMap::new(),
            paths: BTreeMap::new(),
            listeners: BTreeMap::new(),
            connections: BTreeMap::new(),
            next_connection: 1,
            next_port: FIRST_FREE_PORT,
            _busy: Busy::new(),
        })))
    }

    /// A host begins, for the first time or after it has died.
    #[must_use]
    pub fn host(&self, ip: IpAddr) -> Host {
        let mut state = self.lock();
        let host = state.hosts.entry(ip).or_default();
        *host = (host.0 + 1, true);
        let life = host.0;
        Host {
            network: self.clone(),
            ip,
            life,
        }
    }

    /// How bytes get from one host to another from now on.
    pub fn set_path(&self, from: IpAddr, to: IpAddr, path: Path) {
        self.lock().path(from, to).path = path;
    }

    /// Nothing gets from one host to another for so long; then it does.
    pub fn stall(&self, from: IpAddr, to: IpAddr, time: Duration) {
        let until = link::now() + time;
        let mut state = self.lock();
        let path = state.path(from, to);
        path.stalled = path.stalled.max(until);
    }

    /// Lets `fault` happen behind the next `after_bytes` from one host to another: on one of the connections that they
    /// have, or on the next one.
    pub fn fault(&self, from: IpAddr, to: IpAddr, after_bytes: u64, fault: Fault) {
        let mut state = self.lock();
        let open = state.connections.iter().flat_map(|(&id, connection)| {
            let sides = [0, 1].map(|side| (id, side, connection));
            sides.into_iter().filter(|(_, side, connection)| {
                let ips = [*side, 1 - side].map(|side| connection.addrs[side].ip());
                ips == [from, to] && connection.dead == [false; 2]
            })
        });
        let open: Vec<_> = open.map(|(id, side, _)| (id, side)).collect();
        if open.is_empty() {
            state.path(from, to).fault = Some((after_bytes, fault));
            return;
        }
        let (id, side) = open[state.random.random_range(0..open.len())];
        if let Some(connection) = state.connections.get_mut(&id) {
            connection.pipes[side].arm(after_bytes, fault);
        }
    }

    /// Everything gets through from now on, and no fault happens that has not happened yet.
    pub fn heal(&self) {
        let mut state = self.lock();
        let began = state.began;
        for path in state.paths.values_mut() {
            (path.stalled, path.fault) = (began, None);
        }
        for connection in state.connections.values_mut() {
            connection.pipes.iter_mut().for_each(Pipe::heal);
        }
    }

    /// A host dies. What still runs in its name can reach nobody any more.
    pub fn kill(&self, ip: IpAddr, death: Death) {
        let mut state = self.lock();
        state.note(Event::Died, [u64::from(death == Death::Power), 0, 0]);
        let life = state.hosts.get(&ip).map_or(0, |host| host.0);
        state.hosts.insert(ip, (life, false));
        let waiting = state.forget_listeners(ip);
        let ids: Vec<_> = state.connections.keys().copied().collect();
        for id in ids {
            state.kill_ends(id, ip, death);
        }
        drop(state);
        // Dropping a stream takes the lock.
        drop(waiting);
    }

    /// Connections of which an end is still held.
    #[must_use]
    pub fn connections(&self) -> usize {
        self.lock().connections.len()
    }

    /// Notes something that is not the network's in the trace.
    pub fn note(&self, words: [u64; 3]) {
        self.lock().note(Event::Note, words);
    }

    /// A hash over everything that has happened, and when.
    #[must_use]
    pub fn trace(&self) -> u64 {
        self.lock().trace.hash()
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Host {
    /// Its address.
    #[must_use]
    pub fn ip(&self) -> IpAddr {
        self.ip
    }

    /// A time of up to `longest`, in milliseconds, which the seed decides: for what takes its time on this host.
    #[must_use]
    pub fn moment(&self, longest: Duration) -> Duration {
        let mut state = self.network.lock();
        let longest = u64::try_from(longest.as_millis()).unwrap_or(u64::MAX);
        let millis = state.random.random_range(0..=longest);
        state.note(Event::Computed, [millis, 0, 0]);
        Duration::from_millis(millis)
    }

    /// How long work for the cpu pool takes.
    pub(crate) fn compute_time(&self) -> Duration {
        self.moment(COMPUTE_TIME_MAX)
    }

    pub(crate) fn listen(&self, addr: SocketAddr) -> io::Result<SimulatedListener> {
        let mut state = self.network.lock();
        if addr.ip() != self.ip || !state.lives(self) {
            return Err(io::ErrorKind::AddrNotAvailable.into());
        }
        let port = match addr.port() {
            0 => state.free_port(),
            port => port,
        };
        let addr = SocketAddr::new(self.ip, port);
        if state.listeners.contains_key(&addr) {
            return Err(io::ErrorKind::AddrInUse.into());
        }
        state.listeners.insert(addr, Listening::default());
        Ok(SimulatedListener::new(self.clone(), addr))
    }

    /// Takes a round trip, also where nobody listens; where nobody lives there is no answer.
    pub(crate) async fn connect(&self, to: SocketAddr) -> io::Result<SimulatedStream> {
        self.cross(self.ip, to.ip()).await;
        let made = self.meet(to);
        match made {
            Meeting::Silence => std::future::pending().await,
            Meeting::Made(stream) => {
                self.cross(to.ip(), self.ip).await;
                Ok(stream)
            }
            Meeting::Refused => {
                self.cross(to.ip(), self.ip).await;
                Err(io::ErrorKind::ConnectionRefused.into())
            }
        }
    }

    /// Lets the time pass that a byte takes.
    async fn cross(&self, from: IpAddr, to: IpAddr) {
        let arrival = self.network.lock().arrival(from, to, 0);
        tokio::time::sleep_until(arrival.into()).await;
        loop {
            let stalled = self.network.lock().path(from, to).stalled;
            if stalled <= link::now() {
                return;
            }
            tokio::time::sleep_until(stalled.into()).await;
        }
    }

    fn meet(&self, to: SocketAddr) -> Meeting {
        let (now, mut state) = (link::now(), self.network.lock());
        let (_, lives) = state.hosts.get(&to.ip()).copied().unwrap_or_default();
        if !lives || !state.lives(self) {
            return Meeting::Silence;
        }
        if !state.listeners.contains_key(&to) {
            state.note(Event::Refused, [u64::from(to.port()), 0, 0]);
            return Meeting::Refused;
        }
        let from = SocketAddr::new(self.ip, state.free_port());
        let id = state.next_connection;
        state.next_connection += 1;
        let faults =
            [(from, to), (to, from)].map(|(from, to)| state.path(from.ip(), to.ip()).fault.take());
        let connection = Connection {
            addrs: [from, to],
            pipes: faults.map(|fault| Pipe::new(now, fault)),
            gone: [false; 2],
            dead: [false; 2],
        };
        state.connections.insert(id, connection);
        state.note(Event::Connected, [id, 0, 0]);
        let [ours, theirs] =
            [0, 1].map(|side| SimulatedStream::new(self.network.clone(), id, side, [from, to]));
        if let Some(listening) = state.listeners.get_mut(&to) {
            listening.incoming.push_back(theirs);
            listening.acceptor.take().into_iter().for_each(Waker::wake);
        }
        Meeting::Made(ours)
    }
}

/// What became of connecting, at the other end.
enum Meeting {
    Made(SimulatedStream),
    Refused,
    Silence,
}

impl State {
    fn note(&mut self, event: Event, [a, b, c]: [u64; 3]) {
        let at = link::now().saturating_duration_since(self.began);
        let at = u64::try_from(at.as_micros()).unwrap_or(u64::MAX);
        self.trace.note([at << 3 | event as u64, a, b, c]);
    }

    fn lives(&self, host: &Host) -> bool {
        self.hosts.get(&host.ip) == Some(&(host.life, true))
    }

    fn free_port(&mut self) -> u16 {
        let port = self.next_port;
        self.next_port = port.checked_add(1).unwrap_or(FIRST_FREE_PORT);
        port
    }

    fn path(&mut self, from: IpAddr, to: IpAddr) -> &mut PathState {
        let began = self.began;
        self.paths.entry((from, to)).or_insert_with(|| PathState {
            path: Path::default(),
            free_at: began,
            stalled: began,
            fault: None,
        })
    }

    /// When bytes arrive that are written now.
    fn arrival(&mut self, from: IpAddr, to: IpAddr, bytes: usize) -> Instant {
        let now = link::now();
        let jitter: f64 = self.random.random();
        let PathState { path, free_at, .. } = self.path(from, to);
        if let Some(bytes_per_s) = path.bytes_per_s {
            let nanos = 1_000_000_000 * bytes as u64 / bytes_per_s.max(1);
            let takes = Duration::from_nanos(nanos);
            *free_at = now.max(*free_at) + takes;
        }
        now.max(*free_at) + path.latency + path.jitter.mul_f64(jitter)
    }

    /// Most bytes of a read or a write.
    fn piece_bytes(&mut self, from: IpAddr, to: IpAddr) -> usize {
        let Some(max) = self.path(from, to).path.piece_bytes_max else {
            return usize::MAX;
        };
        let max = max.max(1);
        let longest = max.min(1 << self.random.random_range(0..=max.ilog2() + 1));
        self.random.random_range(1..=longest)
    }

    fn forget_listeners(&mut self, ip: IpAddr) -> Vec<Listening> {
        let addrs: Vec<_> = self.listeners.keys().copied().collect();
        let of_ip = addrs.into_iter().filter(|addr| addr.ip() == ip);
        of_ip
            .filter_map(|addr| self.listeners.remove(&addr))
            .collect()
    }

    /// Takes the ends of a connection from the host that dies.
    fn kill_ends(&mut self, id: u64, ip: IpAddr, death: Death) {
        for side in [0, 1] {
            let Some(connection) = self.connections.get_mut(&id) else {
                return;
            };
            if connection.addrs[side].ip() != ip || connection.dead[side] {
                continue;
            }
            connection.dead[side] = true;
            connection.pipes[1 - side].lose();
            match death {
                Death::Process => self.end(id, side, End::Reset),
                // What was sent is lost as well, as it is where a host and its network fail together.
                Death::Power => connection.pipes[side].lose(),
            }
        }
    }

    /// Ends what `side` writes.
    fn end(&mut self, id: u64, side: usize, end: End) {
        let Some(connection) = self.connections.get(&id) else {
            return;
        };
        let [from, to] = [side, 1 - side].map(|side| connection.addrs[side].ip());
        let at = self.arrival(from, to, 0);
        let is_reset = u64::from(end == End::Reset);
        self.note(Event::Ended, [id, side as u64, is_reset]);
        if let Some(connection) = self.connections.get_mut(&id) {
            connection.pipes[side].end(end, at);
        }
    }
}

impl fmt::Debug for SimulatedNetwork {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("SimulatedNetwork").finish_non_exhaustive()
    }
}

impl fmt::Debug for Host {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Host")
            .field("ip", &self.ip)
            .finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests;
