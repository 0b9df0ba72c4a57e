//! What a node tells our own tools, and its way out: online, quiescent, offline.

use std::{
    cmp::Reverse,
    fmt,
    sync::{Arc, Mutex, OnceLock, PoisonError, Weak},
    time::{Duration, SystemTime},
};

use bit_control::heartbeat::NodeHealth;
use bit_data::{DataNode, StreamEnd, StreamStats, TunnelStats};
use membership::ZooKeeperStats;
use protos::{
    coord::{DrillbitEndpoint, drillbit_endpoint::State},
    status::{ClusterStatus, Node, Query, Stream, Tunnel, node::Health},
};
use tokio::sync::watch;
use user_server::{NodeAdmin, Queries, QuerySnapshot};

use crate::{
    cluster::{Cluster, micros},
    engine, version,
};

/// Longest statement that is shown whole, in characters.
const STATEMENT_CHARS_MAX: usize = 4096;
/// Open streams that are told one by one. There may be a great many; tunnels tell how many.
const STREAMS_MAX: usize = 64;

/// The node, for whoever asks about it. Parts that start later are added when they are there.
pub(crate) struct Admin {
    pub(crate) queries: Queries,
    /// Drawn anew at every start.
    incarnation: u64,
    state: watch::Sender<State>,
    /// Held while the others are told, so that what they hear last is what the node has become last.
    telling: Mutex<()>,
    endpoint: OnceLock<DrillbitEndpoint>,
    data: OnceLock<Weak<DataNode>>,
    cluster: OnceLock<Weak<Cluster>>,
}

impl Admin {
    pub(crate) fn new() -> Self {
        Self {
            queries: Queries::default(),
            incarnation: rand::random(),
            state: watch::Sender::new(State::Startup),
            telling: Mutex::default(),
            endpoint: OnceLock::new(),
            data: OnceLock::new(),
            cluster: OnceLock::new(),
        }
    }

    pub(crate) fn incarnation(&self) -> u64 {
        self.incarnation
    }

    /// The node's part in the data plane, once there is one.
    pub(crate) fn set_data(&self, data: &Arc<DataNode>) {
        let _first = self.data.set(Arc::downgrade(data));
    }

    /// The node's part in the cluster, once there is one.
    pub(crate) fn set_cluster(&self, cluster: &Arc<Cluster>) {
        let _first = self.cluster.set(Arc::downgrade(cluster));
    }

    fn cluster(&self) -> Option<Arc<Cluster>> {
        self.cluster.get()?.upgrade()
    }

    /// What the others are told of the state.
    fn tell(&self) {
        let Some(cluster) = self.cluster() else {
            return;
        };
        let _telling = self.telling.lock().unwrap_or_else(PoisonError::into_inner);
        cluster.set_state(self.state());
    }

    /// All servers listen: the node takes work, unless it was drained since the first of them does.
    pub(crate) fn online(&self, endpoint: DrillbitEndpoint) {
        let _first = self.endpoint.set(endpoint);
        self.become_if(State::Online, |state| state == State::Startup);
        self.tell();
    }

    /// All is closed, or about to be.
    pub(crate) fn offline(&self) {
        self.state.send_replace(State::Offline);
        self.tell();
    }

    pub(crate) fn state(&self) -> State {
        *self.state.borrow()
    }

    /// Completes when the node shall leave.
    pub(crate) async fn draining(&self) {
        let mut state = self.state.subscribe();
        let leaving = |state: &State| matches!(state, State::Quiescent | State::Offline);
        if state.wait_for(leaving).await.is_err() {
            // The sender is ours.
            std::future::pending::<()>().await;
        }
    }

    fn become_if(&self, next: State, may: impl FnOnce(State) -> bool) {
        self.state.send_if_modified(|state| {
            let changes = may(*state);
            if changes {
                *state = next;
            }
            changes
        });
    }

    fn nodes(&self) -> Vec<Node> {
        match self.cluster() {
            Some(cluster) => cluster.nodes(),
            None => vec![self.this_node()],
        }
    }

    /// Of a node that knows no others.
    fn this_node(&self) -> Node {
        let endpoint = self.endpoint.get().cloned().unwrap_or_default();
        Node {
            endpoint: Some(DrillbitEndpoint {
                state: Some(self.state().into()),
                ..endpoint
            }),
            health: Some(Health::Up.into()),
            reason: Some("this node".to_owned()),
            incarnation: Some(self.incarnation),
            software_version: Some(version::SOFTWARE.to_owned()),
            engine_version: Some(engine::version()),
            local: Some(true),
            beats: None,
            queries_running: u32::try_from(self.queries.counts().running).ok(),
            fragments_running: None,
            memory_bytes: None,
            memory_bytes_max: None,
        }
    }

    fn data(&self) -> Option<Arc<DataNode>> {
        self.data.get()?.upgrade()
    }

    /// Counters of the data plane by peer.
    pub(crate) fn tunnels(&self) -> Vec<TunnelStats> {
        let data = self.data();
        data.map(|data| data.tunnels()).unwrap_or_default()
    }

    /// The open streams that an operator would look at first.
    fn streams(&self) -> Vec<StreamStats> {
        let data = self.data();
        let mut streams = data.map(|data| data.streams()).unwrap_or_default();
        streams.sort_unstable_by_key(|stream| {
            let (waits, waiting_bytes) = match stream.end {
                StreamEnd::Sender(_) => (stream.is_waiting, 0),
                StreamEnd::Receiver(received) => (false, received.buffer_memory_bytes),
            };
            (!waits, Reverse(waiting_bytes), stream.address)
        });
        streams.truncate(STREAMS_MAX);
        streams
    }

    /// How the other nodes are.
    pub(crate) fn health(&self) -> Vec<NodeHealth> {
        let cluster = self.cluster();
        cluster.map(|cluster| cluster.health()).unwrap_or_default()
    }

    /// How much later than due beats were looked after; `None` of a node that is alone.
    pub(crate) fn beats_late(&self) -> Option<Duration> {
        Some(self.cluster()?.stalled())
    }

    /// How it goes with ZooKeeper, if members come from there.
    pub(crate) fn zookeeper(&self) -> Option<ZooKeeperStats> {
        self.cluster()?.zookeeper()
    }
}

impl NodeAdmin for Admin {
    fn status(&self) -> ClusterStatus {
        let now = SystemTime::now();
        let mut queries = self.queries.snapshot();
        queries.sort_by_key(|query| query.started);
        ClusterStatus {
            node: self.nodes(),
            query: queries
                .into_iter()
                .map(|running| query(running, now))
                .collect(),
            tunnel: self.tunnels().iter().map(tunnel).collect(),
            stream: self.streams().iter().map(stream).collect(),
        }
    }

    fn drain(&self) {
        self.become_if(State::Quiescent, |state| {
            matches!(state, State::Startup | State::Online)
        });
        self.tell();
    }
}

impl fmt::Debug for Admin {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Admin")
            .field("state", &self.state())
            .field("queries", &self.queries)
            .finish_non_exhaustive()
    }
}

fn query(running: QuerySnapshot, now: SystemTime) -> Query {
    let age = now.duration_since(running.started).unwrap_or_default();
    let mut statement = running.sql;
    if let Some((end, _)) = statement.char_indices().nth(STATEMENT_CHARS_MAX) {
        statement.truncate(end);
        statement.push('…');
    }
    Query {
        id: Some(running.id.into()),
        user: Some(running.user.to_string()),
        statement: Some(statement),
        state: Some(running.state.into()),
        age_us: Some(micros(age)),
        rows_sent: Some(running.rows),
        bytes_sent: Some(running.bytes),
    }
}

fn tunnel(stats: &TunnelStats) -> Tunnel {
    let (sent, received) = (&stats.sent, &stats.received);
    Tunnel {
        peer: Some(stats.peer.to_string()),
        streams: u32::try_from(stats.open_streams).ok(),
        window_bytes: Some(received.window_bytes),
        bytes_sent: Some(sent.bytes_sent + sent.bytes_pass_through),
        bytes_received: Some(received.bytes_received + received.bytes_pass_through),
        batches_sent: Some(sent.batches),
        batches_received: Some(received.batches),
        waiting_bytes: Some(received.buffer_memory_bytes),
        credit_wait_us: Some(micros(sent.credit_wait_time)),
        credit_bytes: Some(stats.credit_bytes),
        waiting_senders: u32::try_from(stats.waiting_senders).ok(),
        pass_through_bytes: Some(sent.bytes_pass_through),
        uncompressed_bytes: Some(sent.bytes_uncompressed),
        serialize_us: Some(micros(sent.serialize_chunk_time)),
        wait_response_us: Some(micros(sent.wait_response_time)),
        send_request_us: Some(micros(sent.send_request_time)),
        deserialize_us: Some(micros(received.deserialize_chunk_time)),
        receiver_process_us: Some(micros(received.receiver_process_total_time)),
        wait_lock_us: Some(micros(received.wait_lock_time)),
        peak_waiting_bytes: Some(received.peak_buffer_memory_bytes),
        spilled_bytes: Some(received.bytes_spilled),
    }
}

fn stream(stats: &StreamStats) -> Stream {
    let address = stats.address;
    let stream = Stream {
        query_id: Some(address.query.into()),
        sending_major_fragment_id: Some(address.sender.0.0),
        sending_minor_fragment_id: Some(address.sender.1.0),
        receiving_major_fragment_id: Some(address.receiver.0.0),
        receiving_minor_fragment_id: Some(address.receiver.1.0),
        driver: Some(address.driver),
        peer: Some(stats.peer.to_string()),
        credit_bytes: Some(stats.credit_bytes),
        is_waiting: Some(stats.is_waiting),
        ..Stream::default()
    };
    match stats.end {
        StreamEnd::Sender(sent) => Stream {
            is_sender: Some(true),
            batches: Some(sent.batches),
            bytes: Some(sent.bytes_sent + sent.bytes_pass_through),
            credit_wait_us: Some(micros(sent.credit_wait_time)),
            ..stream
        },
        StreamEnd::Receiver(received) => Stream {
            is_sender: Some(false),
            batches: Some(received.batches),
            bytes: Some(received.bytes_received + received.bytes_pass_through),
            window_bytes: Some(received.window_bytes),
            waiting_bytes: Some(received.buffer_memory_bytes),
            spilled_bytes: Some(received.bytes_spilled),
            ..stream
        },
    }
}

#[cfg(test)]
mod tests {
    use futures::FutureExt;

    use super::*;

    #[test]
    fn a_node_leaves_once() {
        let admin = Admin::new();
        admin.online(DrillbitEndpoint::default());
        assert!(admin.draining().now_or_never().is_none());
        admin.drain();
        assert_eq!(admin.state(), State::Quiescent);
        assert!(admin.draining().now_or_never().is_some());
        admin.offline();
        admin.drain();
        assert_eq!(admin.state(), State::Offline);
    }

    #[test]
    fn a_node_that_is_drained_while_it_starts_leaves() {
        let admin = Admin::new();
        admin.drain();
        admin.online(DrillbitEndpoint::default());
        assert_eq!(admin.state(), State::Quiescent);
        assert!(admin.draining().now_or_never().is_some());
    }

    #[test]
    fn the_node_that_answers_comes_first() {
        let admin = Admin::new();
        let endpoint = DrillbitEndpoint {
            user_port: Some(31010),
            ..DrillbitEndpoint::default()
        };
        admin.online(endpoint);
        let status = admin.status();
        let [node] = &status.node[..] else {
            panic!("one node")
        };
        let endpoint = node.endpoint.as_ref().unwrap();
        assert_eq!(
            (endpoint.user_port(), endpoint.state()),
            (31010, State::Online)
        );
        assert!(node.local() && node.incarnation.is_some());
    }

    #[test]
    fn long_statements_are_cut_between_characters() {
        let running = QuerySnapshot {
            id: protos::id::QueryId { part1: 1, part2: 2 },
            user: "ann".into(),
            sql: "ü".repeat(STATEMENT_CHARS_MAX + 1),
            state: protos::shared::query_result::QueryState::Running,
            started: SystemTime::UNIX_EPOCH,
            rows: 1,
            bytes: 2,
        };
        let shown = query(running, SystemTime::UNIX_EPOCH + Duration::from_millis(3));
        assert_eq!(shown.statement().chars().count(), STATEMENT_CHARS_MAX + 1);
        assert!(shown.statement().ends_with("ü…"));
        assert_eq!(shown.age_us(), 3_000);
    }
}
