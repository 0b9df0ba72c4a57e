//! The status as JSON: the same names wherever it is shown. What is not known is `null`.

use bit_control::heartbeat::BeatCounts;
use membership::NodeAddress;
use protos::{
    coord::{DrillbitEndpoint, drillbit_endpoint::State},
    id::QueryId,
    shared::{QueryId as WireId, query_result::QueryState},
    status::{Beats, ClusterStatus, Node, Query, Stream, Tunnel, node::Health},
};
use rpc_bus::Histogram;
use serde::Serialize;

/// All that a node tells.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub(crate) struct StatusView {
    /// The node that answers comes first.
    pub(crate) nodes: Vec<NodeView>,
    /// Those of the node that answers, the oldest first.
    pub(crate) queries: Vec<QueryView>,
    /// Its peers in the data plane.
    pub(crate) tunnels: Vec<TunnelView>,
    /// Some of its open streams, those that are held up first.
    pub(crate) streams: Vec<StreamView>,
}

/// A node.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub(crate) struct NodeView {
    pub(crate) address: String,
    pub(crate) user_port: Option<i32>,
    pub(crate) control_port: Option<i32>,
    pub(crate) data_port: Option<i32>,
    pub(crate) http_port: Option<i32>,
    /// Drill's name; `null` of a node that has not said.
    pub(crate) state: Option<&'static str>,
    /// `up`, `suspect`, `down`; `unknown` before the first beat.
    pub(crate) health: &'static str,
    pub(crate) reason: String,
    pub(crate) version: Option<String>,
    pub(crate) engine_version: Option<String>,
    /// In hexadecimal: not every reader of JSON takes 64 bits for a number.
    pub(crate) incarnation: Option<String>,
    /// The node that answers.
    pub(crate) local: bool,
    pub(crate) beat_age_ms: Option<f64>,
    /// On the control connection.
    pub(crate) rtt_ms: RttView,
    /// On a data connection.
    pub(crate) data_rtt_ms: RttView,
    pub(crate) queries_running: Option<u32>,
    pub(crate) fragments_running: Option<u32>,
    /// What its queries hold, and may hold.
    pub(crate) memory_bytes: Option<u64>,
    pub(crate) memory_bytes_max: Option<u64>,
    pub(crate) beats: Option<BeatsView>,
}

/// Round trips, in milliseconds.
#[derive(Debug, Clone, Copy, Default, PartialEq, Serialize)]
pub(crate) struct RttView {
    pub(crate) p50: Option<f64>,
    pub(crate) p99: Option<f64>,
}

/// Heartbeats to a node.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub(crate) struct BeatsView {
    pub(crate) sent: u64,
    pub(crate) answered: u64,
    pub(crate) missed: u64,
    pub(crate) flaps: u32,
    pub(crate) phi: Option<f64>,
    /// The newest last, in milliseconds.
    pub(crate) recent_rtt_ms: Vec<f64>,
    /// Its clock less ours, in milliseconds.
    pub(crate) clock_skew_ms: Option<f64>,
    /// How far off that may be, in milliseconds.
    pub(crate) clock_skew_error_ms: Option<f64>,
}

/// A node that is beaten to, with what the node that answers has counted of it.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub(crate) struct HeartbeatView {
    #[serde(flatten)]
    node: NodeView,
    /// Times that it came to be suspect after it was up.
    suspected: u64,
    /// Times that it went down.
    downs: u64,
    /// Times that another process answered in its place.
    restarts: u64,
    rtt_histogram: HistogramView,
}

/// How many round trips took how long.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub(crate) struct HistogramView {
    count: u64,
    sum_ms: f64,
    /// The shortest first.
    buckets: Vec<BucketView>,
}

/// Those above the bucket before, up to its own bound.
#[derive(Debug, Clone, PartialEq, Serialize)]
struct BucketView {
    /// `null` of the last one, which has no bound.
    up_to_ms: Option<f64>,
    count: u64,
}

/// A running query.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub(crate) struct QueryView {
    pub(crate) id: String,
    pub(crate) user: String,
    pub(crate) state: &'static str,
    pub(crate) statement: String,
    pub(crate) age_ms: f64,
    pub(crate) rows_sent: u64,
    pub(crate) bytes_sent: u64,
}

/// A peer in the data plane.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub(crate) struct TunnelView {
    pub(crate) peer: String,
    pub(crate) streams: u32,
    pub(crate) window_bytes: u64,
    pub(crate) waiting_bytes: u64,
    pub(crate) bytes_sent: u64,
    pub(crate) bytes_received: u64,
    pub(crate) batches_sent: u64,
    pub(crate) batches_received: u64,
    pub(crate) credit_wait_ms: f64,
    /// What senders here may send now.
    pub(crate) credit_bytes: u64,
    /// Senders here that wait for credit.
    pub(crate) waiting_senders: u32,
    pub(crate) pass_through_bytes: u64,
    pub(crate) uncompressed_bytes: u64,
    pub(crate) serialize_ms: f64,
    pub(crate) wait_response_ms: f64,
    pub(crate) send_request_ms: f64,
    pub(crate) deserialize_ms: f64,
    pub(crate) receiver_process_ms: f64,
    pub(crate) wait_lock_ms: f64,
    /// Most that ever waited for the consumer of one stream.
    pub(crate) peak_waiting_bytes: u64,
    pub(crate) spilled_bytes: u64,
}

/// An open stream, as the end of it on the node that answers sees it.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub(crate) struct StreamView {
    pub(crate) query: String,
    /// Fragments, as `major:minor`.
    pub(crate) sender: String,
    pub(crate) receiver: String,
    pub(crate) driver: i32,
    pub(crate) peer: String,
    /// `sender` or `receiver`.
    pub(crate) end: &'static str,
    /// What this end waits for: `credit` or `batches`.
    pub(crate) waits_for: Option<&'static str>,
    pub(crate) credit_bytes: u64,
    pub(crate) batches: u64,
    pub(crate) bytes: u64,
    /// Of a sender.
    pub(crate) credit_wait_ms: Option<f64>,
    /// Of a receiver, as what follows.
    pub(crate) window_bytes: Option<u64>,
    pub(crate) waiting_bytes: Option<u64>,
    pub(crate) spilled_bytes: Option<u64>,
}

impl From<ClusterStatus> for StatusView {
    fn from(status: ClusterStatus) -> Self {
        Self {
            nodes: status.node.into_iter().map(Into::into).collect(),
            queries: status.query.into_iter().map(Into::into).collect(),
            tunnels: status.tunnel.into_iter().map(Into::into).collect(),
            streams: status.stream.into_iter().map(Into::into).collect(),
        }
    }
}

impl StatusView {
    /// Those that are not told one by one, too.
    pub(crate) fn open_streams(&self) -> usize {
        let streams = self.tunnels.iter().map(|tunnel| tunnel.streams as usize);
        streams.sum()
    }
}

impl StreamView {
    /// Query and fragments.
    pub(crate) fn name(&self) -> String {
        let (query, sender, receiver) = (&self.query, &self.sender, &self.receiver);
        match self.driver {
            0 => format!("{query} {sender} -> {receiver}"),
            driver => format!("{query} {sender} -> {receiver}#{driver}"),
        }
    }
}

impl From<Node> for NodeView {
    fn from(node: Node) -> Self {
        let health = health_name(node.health());
        let endpoint = node.endpoint.unwrap_or_default();
        let beats = node.beats.unwrap_or_default();
        Self {
            state: state_name(&endpoint),
            user_port: endpoint.user_port,
            control_port: endpoint.control_port,
            data_port: endpoint.data_port,
            http_port: endpoint.http_port,
            health,
            reason: node.reason.unwrap_or_default(),
            version: node.software_version.or(endpoint.version),
            engine_version: node.engine_version,
            incarnation: node.incarnation.map(|drawn| format!("{drawn:016x}")),
            local: node.local.unwrap_or_default(),
            beat_age_ms: beats.age_us.map(millis),
            rtt_ms: RttView {
                p50: beats.rtt_p50_us.map(millis),
                p99: beats.rtt_p99_us.map(millis),
            },
            data_rtt_ms: RttView {
                p50: beats.data_rtt_p50_us.map(millis),
                p99: beats.data_rtt_p99_us.map(millis),
            },
            queries_running: node.queries_running,
            fragments_running: node.fragments_running,
            memory_bytes: node.memory_bytes,
            memory_bytes_max: node.memory_bytes_max,
            address: endpoint.address.unwrap_or_default(),
            beats: (beats != Beats::default()).then(|| beats.into()),
        }
    }
}

impl NodeView {
    /// Whether this is the node at `address`.
    pub(crate) fn is_at(&self, address: &NodeAddress) -> bool {
        let port = Some(i32::from(address.control_port()));
        self.address == address.host() && self.control_port == port
    }
}

impl HeartbeatView {
    pub(crate) fn new(node: NodeView, counts: &BeatCounts, rtt_histogram: HistogramView) -> Self {
        Self {
            node,
            suspected: counts.suspected,
            downs: counts.downs,
            restarts: counts.restarts,
            rtt_histogram,
        }
    }
}

impl From<&Histogram> for HistogramView {
    fn from(times: &Histogram) -> Self {
        Self::of(times.bounds_s, &times.counts, times.sum_s)
    }
}

impl HistogramView {
    /// There is one more count than there are bounds.
    fn of(bounds_s: &[f64], counts: &[u64], sum_s: f64) -> Self {
        let bounds = bounds_s.iter().map(|bound| Some(bound * 1000.0));
        let buckets = bounds.chain([None]).zip(counts);
        Self {
            count: counts.iter().sum(),
            sum_ms: sum_s * 1000.0,
            buckets: buckets
                .map(|(up_to_ms, &count)| BucketView { up_to_ms, count })
                .collect(),
        }
    }
}

impl From<Beats> for BeatsView {
    fn from(beats: Beats) -> Self {
        Self {
            sent: beats.sent(),
            answered: beats.answered(),
            missed: beats.missed(),
            flaps: beats.flaps(),
            phi: beats.phi,
            recent_rtt_ms: beats.recent_rtt_us.iter().copied().map(millis).collect(),
            clock_skew_ms: beats.clock_skew_us.map(|skew| {
                millis(skew.unsigned_abs()).copysign(if skew < 0 { -1.0 } else { 1.0 })
            }),
            clock_skew_error_ms: beats.clock_skew_error_us.map(millis),
        }
    }
}

impl From<Query> for QueryView {
    fn from(query: Query) -> Self {
        Self {
            id: query_id(query.id.as_ref()),
            state: query
                .state
                .map_or(QueryState::Running, |_| query.state())
                .as_str_name(),
            age_ms: millis(query.age_us()),
            rows_sent: query.rows_sent(),
            bytes_sent: query.bytes_sent(),
            user: query.user.unwrap_or_default(),
            statement: query.statement.unwrap_or_default(),
        }
    }
}

impl From<Tunnel> for TunnelView {
    fn from(tunnel: Tunnel) -> Self {
        Self {
            streams: tunnel.streams(),
            window_bytes: tunnel.window_bytes(),
            waiting_bytes: tunnel.waiting_bytes(),
            bytes_sent: tunnel.bytes_sent(),
            bytes_received: tunnel.bytes_received(),
            batches_sent: tunnel.batches_sent(),
            batches_received: tunnel.batches_received(),
            credit_wait_ms: millis(tunnel.credit_wait_us()),
            credit_bytes: tunnel.credit_bytes(),
            waiting_senders: tunnel.waiting_senders(),
            pass_through_bytes: tunnel.pass_through_bytes(),
            uncompressed_bytes: tunnel.uncompressed_bytes(),
            serialize_ms: millis(tunnel.serialize_us()),
            wait_response_ms: millis(tunnel.wait_response_us()),
            send_request_ms: millis(tunnel.send_request_us()),
            deserialize_ms: millis(tunnel.deserialize_us()),
            receiver_process_ms: millis(tunnel.receiver_process_us()),
            wait_lock_ms: millis(tunnel.wait_lock_us()),
            peak_waiting_bytes: tunnel.peak_waiting_bytes(),
            spilled_bytes: tunnel.spilled_bytes(),
            peer: tunnel.peer.unwrap_or_default(),
        }
    }
}

impl From<Stream> for StreamView {
    fn from(stream: Stream) -> Self {
        let (end, waits_for) = if stream.is_sender() {
            ("sender", "credit")
        } else {
            ("receiver", "batches")
        };
        Self {
            query: query_id(stream.query_id.as_ref()),
            sender: format!(
                "{}:{}",
                stream.sending_major_fragment_id(),
                stream.sending_minor_fragment_id()
            ),
            receiver: format!(
                "{}:{}",
                stream.receiving_major_fragment_id(),
                stream.receiving_minor_fragment_id()
            ),
            driver: stream.driver(),
            end,
            waits_for: stream.is_waiting().then_some(waits_for),
            credit_bytes: stream.credit_bytes(),
            batches: stream.batches(),
            bytes: stream.bytes(),
            credit_wait_ms: stream.credit_wait_us.map(millis),
            window_bytes: stream.window_bytes,
            waiting_bytes: stream.waiting_bytes,
            spilled_bytes: stream.spilled_bytes,
            peer: stream.peer.unwrap_or_default(),
        }
    }
}

fn query_id(id: Option<&WireId>) -> String {
    let id = id.map(QueryId::try_from);
    id.and_then(Result::ok).unwrap_or_default().to_string()
}

fn health_name(health: Health) -> &'static str {
    match health {
        Health::Unknown => "unknown",
        Health::Up => "up",
        Health::Suspect => "suspect",
        Health::Down => "down",
    }
}

fn state_name(endpoint: &DrillbitEndpoint) -> Option<&'static str> {
    let state = State::try_from(endpoint.state?).ok()?;
    Some(state.as_str_name())
}

/// Microseconds as milliseconds, to the microsecond.
fn millis(micros: u64) -> f64 {
    #[expect(clippy::cast_precision_loss, reason = "exact for 285 years")]
    let micros = micros as f64;
    micros / 1000.0
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_not_known_is_null() {
        let view: StatusView = ClusterStatus {
            node: vec![Node::default()],
            ..ClusterStatus::default()
        }
        .into();
        let json = serde_json::to_value(&view).unwrap();
        let node = &json["nodes"][0];
        for key in [
            "user_port",
            "state",
            "version",
            "incarnation",
            "beat_age_ms",
            "beats",
        ] {
            assert!(
                node[key].is_null() && node.get(key).is_some(),
                "{key}: {json}"
            );
        }
        for rtt in ["rtt_ms", "data_rtt_ms"] {
            assert!(node[rtt]["p50"].is_null() && node[rtt].get("p99").is_some());
        }
        assert_eq!(node["health"], "unknown");
        assert_eq!(json["queries"], serde_json::json!([]));
    }

    #[test]
    fn times_are_in_milliseconds() {
        let beats = Beats {
            age_us: Some(1_500),
            rtt_p50_us: Some(73),
            data_rtt_p99_us: Some(2_000),
            clock_skew_us: Some(-2_500),
            ..Beats::default()
        };
        let view: NodeView = Node {
            health: Some(Health::Suspect.into()),
            beats: Some(beats),
            incarnation: Some(u64::MAX),
            ..Node::default()
        }
        .into();
        assert_eq!(
            (view.beat_age_ms, view.rtt_ms.p50),
            (Some(1.5), Some(0.073))
        );
        let data = (view.data_rtt_ms.p50, view.data_rtt_ms.p99);
        assert_eq!(data, (None, Some(2.0)));
        assert_eq!(view.beats.unwrap().clock_skew_ms, Some(-2.5));
        assert_eq!(view.health, "suspect");
        assert_eq!(view.incarnation.as_deref(), Some("ffffffffffffffff"));
    }

    #[test]
    fn heartbeats_tell_what_was_counted_beside_the_node() {
        let node = Node {
            endpoint: Some(DrillbitEndpoint {
                address: Some("node2".to_owned()),
                control_port: Some(31011),
                ..DrillbitEndpoint::default()
            }),
            ..Node::default()
        };
        let node = NodeView::from(node);
        assert!(node.is_at(&"node2:31011".parse().unwrap()));
        assert!(!node.is_at(&"node2:32011".parse().unwrap()));
        let mut counts = BeatCounts::default();
        (counts.suspected, counts.downs, counts.restarts) = (3, 2, 1);
        let trips = HistogramView::of(&[0.25, 0.5], &[4, 0, 1], 1.5);
        let json = serde_json::to_value(HeartbeatView::new(node, &counts, trips)).unwrap();
        assert_eq!(json["address"], "node2");
        let counted = (&json["suspected"], &json["downs"], &json["restarts"]);
        assert_eq!(counted, (&3.into(), &2.into(), &1.into()));
        let buckets = serde_json::json!({"count": 5, "sum_ms": 1500.0, "buckets": [
            {"up_to_ms": 250.0, "count": 4},
            {"up_to_ms": 500.0, "count": 0},
            {"up_to_ms": null, "count": 1},
        ]});
        assert_eq!(json["rtt_histogram"], buckets);
    }

    #[test]
    fn a_query_without_a_state_runs() {
        let view: QueryView = Query::default().into();
        assert_eq!(view.state, "RUNNING");
        assert_eq!(view.id.len(), 36);
    }
}
