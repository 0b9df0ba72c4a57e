//! Every family of metrics, declared once: name, type, labels, help.

/// Types of Prometheus.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Kind {
    Counter,
    Gauge,
    Histogram,
}

/// A family of metrics.
#[derive(Debug)]
pub(super) struct Family {
    /// Counters end in `_total`.
    pub(super) name: &'static str,
    pub(super) kind: Kind,
    pub(super) labels: &'static [&'static str],
    pub(super) help: &'static str,
}

impl Family {
    /// Its row in `METRICS.md`.
    #[cfg(test)]
    pub(super) fn document_row(&self) -> String {
        let kind = match self.kind {
            Kind::Counter => "counter",
            Kind::Gauge => "gauge",
            Kind::Histogram => "histogram",
        };
        let (name, labels, help) = (self.name, self.labels.join(", "), self.help);
        format!("| `{name}` | {kind} | {labels} | {help} |")
    }
}

macro_rules! families {
    ($($NAME:ident = $Kind:ident $name:literal [$($label:literal),*] $help:literal;)+) => {
        $(pub(super) const $NAME: Family = Family {
            name: $name,
            kind: Kind::$Kind,
            labels: &[$($label),*],
            help: $help,
        };)+

        /// In the order in which they are shown.
        #[cfg(test)]
        pub(super) const ALL: &[Family] = &[$($NAME),+];
    };
}

families! {
    BUILD = Gauge "drillbit_build_info" ["version", "engine"]
        "Version of the software and of its engine; always 1.";
    UPTIME = Gauge "drillbit_uptime_seconds" []
        "Time since the node started, in seconds.";
    LEDGER_USED = Gauge "drillbit_ledger_used" ["ledger", "kind"]
        "What connections hold: bytes, tasks, calls and files.";
    LEDGER_LIMIT = Gauge "drillbit_ledger_limit" ["ledger", "kind"]
        "How much of it they may hold, where there is a limit.";
    QUERIES_RUNNING = Gauge "drillbit_queries_running" []
        "Queries that are running.";
    QUERIES = Counter "drillbit_queries_total" ["outcome"]
        "Queries that have ended: completed, failed, canceled, or lost with their client.";
    QUERY_ROWS = Counter "drillbit_query_rows_total" []
        "Rows sent to clients.";
    QUERY_BYTES = Counter "drillbit_query_bytes_total" []
        "Batches sent to clients, in bytes.";
    ENGINE_MEMORY = Gauge "drillbit_engine_memory_bytes" []
        "Memory that queries have reserved, in bytes.";
    ENGINE_MEMORY_LIMIT = Gauge "drillbit_engine_memory_limit_bytes" []
        "Memory that queries may reserve, in bytes.";
    CONNECTIONS_OPENED = Counter "drillbit_connections_opened_total" ["plane"]
        "Sockets that became connections, with or without a handshake.";
    CONNECTIONS_OPEN = Gauge "drillbit_connections_open" ["plane"]
        "Connections that are open.";
    CONNECTIONS_CLOSED = Counter "drillbit_connections_closed_total" ["plane", "reason"]
        "Connections that have ended, by reason.";
    CONNECTIONS_REFUSED = Counter "drillbit_connections_refused_total" ["plane"]
        "Sockets closed at once because there were too many.";
    CONNECT_FAILURES = Counter "drillbit_connect_failures_total" ["plane", "reason"]
        "Attempts of this side to connect that failed, by reason.";
    FRAMES = Counter "drillbit_frames_total" ["plane", "direction"]
        "Frames received and sent.";
    BYTES = Counter "drillbit_socket_bytes_total" ["plane", "direction"]
        "What was received and sent, in bytes.";
    SOCKET_CALLS = Counter "drillbit_socket_calls_total" ["plane", "direction"]
        "Reads that brought something and writes that took something.";
    PINGS = Counter "drillbit_pings_total" ["plane", "direction"]
        "PINGs received and sent.";
    BEATS_MISSED = Counter "drillbit_beats_missed_total" ["plane"]
        "Heartbeats before which nothing had come from the peer since the last one.";
    LATE_ANSWERS = Counter "drillbit_late_answers_total" ["plane"]
        "Answers that came after their call was given up.";
    QUEUED_BYTES = Gauge "drillbit_queued_bytes" ["plane", "queue"]
        "Requests and replies that wait to be written, in bytes.";
    REQUESTS = Counter "drillbit_requests_total" ["plane", "rpc", "direction"]
        "Requests received from peers and sent to them, by RPC type.";
    REQUESTS_IN_FLIGHT = Gauge "drillbit_requests_in_flight" ["plane", "rpc", "direction"]
        "Requests that wait for their answer.";
    REQUESTS_ENDED = Counter "drillbit_requests_ended_total" ["plane", "rpc", "direction", "outcome"]
        "Requests that have ended, by how: answered, failed, lost with the connection, and others.";
    REQUEST_BYTES = Counter "drillbit_request_bytes_total" ["plane", "rpc", "direction"]
        "Bodies of requests, in bytes.";
    ANSWER_BYTES = Counter "drillbit_answer_bytes_total" ["plane", "rpc", "direction"]
        "Bodies of answers to these requests, in bytes.";
    QUEUE_TIME = Histogram "drillbit_request_queue_seconds" ["plane", "rpc"]
        "From the arrival of a request to the start of its handler, in seconds.";
    HANDLER_TIME = Histogram "drillbit_request_handler_seconds" ["plane", "rpc"]
        "From the start of a handler to its answer, in seconds.";
    ROOM_WAIT = Histogram "drillbit_call_room_wait_seconds" ["plane", "rpc"]
        "How long calls that had to wait for room in the write queue waited, in seconds.";
    ROUND_TRIP = Histogram "drillbit_call_round_trip_seconds" ["plane", "rpc"]
        "From a call to its answer, the wait for room included, in seconds.";
    PING_ROUND_TRIP = Histogram "drillbit_ping_round_trip_seconds" ["plane"]
        "From a PING to its PONG, in seconds.";
    NODES = Gauge "drillbit_nodes" ["health"]
        "Other nodes of the cluster: up, suspect or down.";
    NODE_UP = Gauge "drillbit_node_up" ["node"]
        "1 of another node that is up, 0 of one that is suspect or down.";
    BEATS = Counter "drillbit_beats_total" ["node", "outcome"]
        "Beats to other nodes that have ended: answered, or failed.";
    NODE_DOWNS = Counter "drillbit_node_downs_total" ["node"]
        "How often another node went down.";
    NODE_FLAPS = Counter "drillbit_node_flaps_total" ["node"]
        "How often another node was down and came back as the same process.";
    BEAT_ROUND_TRIP = Histogram "drillbit_beat_round_trip_seconds" ["node"]
        "From a beat to its answer, in seconds.";
    CLOCK_SKEW = Gauge "drillbit_clock_skew_seconds" ["node"]
        "The clock of another node less ours, in seconds.";
    BEATS_LATE = Counter "drillbit_beats_late_seconds_total" []
        "How much later than due this node has looked after its beats, because it was busy or stopped, in seconds.";
    ZOOKEEPER_CONNECTED = Gauge "drillbit_zookeeper_connected" []
        "1 while there is a connection with ZooKeeper, else 0.";
    ZOOKEEPER_REGISTERED = Gauge "drillbit_zookeeper_registered" []
        "1 while this node is registered with ZooKeeper, as far as is known, else 0.";
    ZOOKEEPER_CONNECTIONS = Counter "drillbit_zookeeper_connections_total" []
        "Connections with ZooKeeper.";
    ZOOKEEPER_SESSIONS = Counter "drillbit_zookeeper_sessions_total" []
        "Sessions with ZooKeeper: with each after the first this node was gone for others for a while.";
    ZOOKEEPER_UNUSABLE = Counter "drillbit_zookeeper_unusable_registrations_total" []
        "Registrations in ZooKeeper that could not be read, each counted whenever it was.";
    STREAMS_OPEN = Gauge "drillbit_streams_open" []
        "Streams of the data plane that are open, in both directions.";
    STREAM_BATCHES = Counter "drillbit_stream_batches_total" ["direction"]
        "Batches of streams.";
    STREAM_BYTES = Counter "drillbit_stream_bytes_total" ["direction"]
        "Bodies of these batches on the wire, in bytes; those sent are StarRocks' BytesSent.";
    STREAM_UNCOMPRESSED = Counter "drillbit_stream_uncompressed_bytes_total" []
        "What was sent before it was compressed, in bytes.";
    STREAM_PASS_THROUGH = Counter "drillbit_stream_pass_through_bytes_total" []
        "BytesPassThrough: what the rows of batches take that were handed over within the process, about, in bytes.";
    STREAM_SPILLED = Counter "drillbit_stream_spilled_bytes_total" []
        "What receivers have put into spill files, in bytes.";
    STREAM_SERIALIZE = Counter "drillbit_stream_serialize_seconds_total" []
        "SerializeChunkTime: how long senders have encoded and compressed batches, in seconds.";
    STREAM_WAIT_RESPONSE = Counter "drillbit_stream_wait_response_seconds_total" []
        "WaitResponseTime: how long senders have waited for their receivers, to open the stream and for credit, in seconds.";
    STREAM_CREDIT_WAIT = Counter "drillbit_stream_credit_wait_seconds_total" []
        "How long senders have waited for credit, in seconds.";
    STREAM_SEND_REQUEST = Counter "drillbit_stream_send_request_seconds_total" []
        "SendRequestTime: how long senders have made checksums and handed frames to connections, waiting for room included, in seconds.";
    STREAM_DESERIALIZE = Counter "drillbit_stream_deserialize_seconds_total" []
        "DeserializeChunkTime: how long receivers have checked, decompressed and decoded batches, in seconds.";
    STREAM_RECEIVER_PROCESS = Counter "drillbit_stream_receiver_process_seconds_total" []
        "ReceiverProcessTotalTime: how long I/O threads have put frames into receivers' queues, in seconds.";
    STREAM_WAIT_LOCK = Counter "drillbit_stream_wait_lock_seconds_total" []
        "WaitLockTime: how long I/O threads and consumers of receivers have waited for each other, in seconds.";
    STREAM_WINDOW = Gauge "drillbit_stream_window_bytes" []
        "What the senders of open streams may send before anything is taken, in bytes.";
    STREAM_CREDIT = Gauge "drillbit_stream_credit_bytes" []
        "What the open senders of this node may send now, in bytes.";
    STREAM_STALLED = Gauge "drillbit_stream_senders_waiting" []
        "Open senders of this node that wait for credit.";
    STREAM_WAITING = Gauge "drillbit_stream_waiting_bytes" []
        "Batches that wait for their consumers, in bytes.";
    STREAM_PEAK_WAITING = Gauge "drillbit_stream_peak_waiting_bytes" []
        "PeakBufferMemoryBytes: most that ever waited for the consumer of one stream, in bytes.";
    TUNNEL_OPEN = Gauge "drillbit_tunnel_streams_open" ["peer"]
        "Streams with a peer that are open, in both directions.";
    TUNNEL_BATCHES = Counter "drillbit_tunnel_batches_total" ["peer", "direction"]
        "Batches of streams with a peer.";
    TUNNEL_BYTES = Counter "drillbit_tunnel_bytes_total" ["peer", "direction"]
        "With a peer: bodies of these batches on the wire, in bytes; those sent are StarRocks' BytesSent.";
    TUNNEL_UNCOMPRESSED = Counter "drillbit_tunnel_uncompressed_bytes_total" ["peer"]
        "With a peer: what was sent before it was compressed, in bytes.";
    TUNNEL_PASS_THROUGH = Counter "drillbit_tunnel_pass_through_bytes_total" ["peer"]
        "With a peer: BytesPassThrough: what the rows of batches take that were handed over within the process, about, in bytes.";
    TUNNEL_SPILLED = Counter "drillbit_tunnel_spilled_bytes_total" ["peer"]
        "With a peer: what receivers have put into spill files, in bytes.";
    TUNNEL_SERIALIZE = Counter "drillbit_tunnel_serialize_seconds_total" ["peer"]
        "With a peer: SerializeChunkTime: how long senders have encoded and compressed batches, in seconds.";
    TUNNEL_WAIT_RESPONSE = Counter "drillbit_tunnel_wait_response_seconds_total" ["peer"]
        "With a peer: WaitResponseTime: how long senders have waited for their receivers, to open the stream and for credit, in seconds.";
    TUNNEL_CREDIT_WAIT = Counter "drillbit_tunnel_credit_wait_seconds_total" ["peer"]
        "With a peer: how long senders have waited for credit, in seconds.";
    TUNNEL_SEND_REQUEST = Counter "drillbit_tunnel_send_request_seconds_total" ["peer"]
        "With a peer: SendRequestTime: how long senders have made checksums and handed frames to connections, waiting for room included, in seconds.";
    TUNNEL_DESERIALIZE = Counter "drillbit_tunnel_deserialize_seconds_total" ["peer"]
        "With a peer: DeserializeChunkTime: how long receivers have checked, decompressed and decoded batches, in seconds.";
    TUNNEL_RECEIVER_PROCESS = Counter "drillbit_tunnel_receiver_process_seconds_total" ["peer"]
        "With a peer: ReceiverProcessTotalTime: how long I/O threads have put frames into receivers' queues, in seconds.";
    TUNNEL_WAIT_LOCK = Counter "drillbit_tunnel_wait_lock_seconds_total" ["peer"]
        "With a peer: WaitLockTime: how long I/O threads and consumers of receivers have waited for each other, in seconds.";
    TUNNEL_WINDOW = Gauge "drillbit_tunnel_window_bytes" ["peer"]
        "With a peer: what the senders of open streams may send before anything is taken, in bytes.";
    TUNNEL_CREDIT = Gauge "drillbit_tunnel_credit_bytes" ["peer"]
        "With a peer: what the open senders of this node may send now, in bytes.";
    TUNNEL_STALLED = Gauge "drillbit_tunnel_senders_waiting" ["peer"]
        "With a peer: open senders of this node that wait for credit.";
    TUNNEL_WAITING = Gauge "drillbit_tunnel_waiting_bytes" ["peer"]
        "With a peer: batches that wait for their consumers, in bytes.";
    TUNNEL_PEAK_WAITING = Gauge "drillbit_tunnel_peak_waiting_bytes" ["peer"]
        "With a peer: PeakBufferMemoryBytes: most that ever waited for the consumer of one stream, in bytes.";
    PROCESS_RESIDENT = Gauge "process_resident_memory_bytes" []
        "Resident memory of the process, in bytes.";
    PROCESS_VIRTUAL = Gauge "process_virtual_memory_bytes" []
        "Virtual memory of the process, in bytes.";
    PROCESS_THREADS = Gauge "process_threads" []
        "Threads of the process.";
    PROCESS_FILES = Gauge "process_open_fds" []
        "Open file handles of the process.";
    PROCESS_FILES_MAX = Gauge "process_max_fds" []
        "Most file handles that the process may open.";
}
