//! Which message of a data connection goes to whom. Nothing here waits.

use std::sync::Arc;

use protos::{
    Call, Plane,
    calls::data::OpenStream,
    data::{self, RpcType},
    error::ErrorType,
    rpc_name,
};
use rpc_bus::{
    CloseReason, Handler, InboundRequest, OneWayMessage, PeerMisbehaved, RemoteConnection, Reply,
    RpcFailure,
};

use crate::drill::Arrivals;

/// What takes the messages of streams on one connection, whichever side opened it.
pub trait StreamSink: Send + Sync + 'static {
    /// A receiver opens a stream; the sender behind `reply` acknowledges it. Must not wait.
    fn open(&self, request: data::OpenStream, reply: Reply<OpenStream>) {
        let _ = request;
        reply.fail(refusal(OpenStream::REQUEST));
    }

    /// Takes a message that is never answered, on the I/O thread; see [`Handler::one_way`].
    ///
    /// # Errors
    ///
    /// The message breaks the rules. That ends the connection.
    fn one_way(&self, message: OneWayMessage) -> Result<(), PeerMisbehaved> {
        Err(message.unexpected())
    }

    /// No more of them come in this turn of the I/O thread; see [`Handler::turn_ended`].
    fn turn_ended(&self) {}

    /// The connection has ended; the last call of all.
    fn closed(&self, reason: &CloseReason) {
        let _ = reason;
    }
}

/// Gives every connection that a server accepts its sink.
pub trait StreamHost: Send + Sync + 'static {
    /// A peer has connected on `connection` and is about to be let in. Must not wait.
    fn accepted(&self, connection: &RemoteConnection) -> Arc<dyn StreamSink>;
}

/// Serves no streams: refuses all that belongs to them.
#[derive(Clone, Copy, Debug, Default)]
pub struct NoStreams;

impl StreamSink for NoStreams {}

impl StreamHost for NoStreams {
    fn accepted(&self, _: &RemoteConnection) -> Arc<dyn StreamSink> {
        Arc::new(Self)
    }
}

/// Serves the requests of a peer that has connected.
pub(crate) struct ServerHandler {
    arrivals: Arrivals,
    streams: Arc<dyn StreamSink>,
}

impl ServerHandler {
    pub(crate) fn new(arrivals: Arrivals, streams: Arc<dyn StreamSink>) -> Self {
        Self { arrivals, streams }
    }
}

impl Handler for ServerHandler {
    fn handle(&self, request: InboundRequest) {
        match RpcType::try_from(request.rpc_type) {
            Ok(RpcType::ReqRecordBatch) => self.arrivals.record_batch(request),
            Ok(RpcType::ReqRuntimeFilter) => self.arrivals.runtime_filter(request),
            Ok(RpcType::OpenStream) => {
                if let Some((open, _, reply)) = request.decode::<OpenStream>() {
                    self.streams.open(open, reply);
                }
            }
            _ => refuse(request),
        }
    }

    fn one_way(&self, message: OneWayMessage) -> Result<(), PeerMisbehaved> {
        self.streams.one_way(message)
    }

    fn turn_ended(&self) {
        self.streams.turn_ended();
    }

    fn closed(&self, reason: &CloseReason) {
        self.arrivals.closed();
        self.streams.closed(reason);
    }
}

/// Takes what comes back on a connection that this side has opened: messages of streams, and no request.
pub(crate) struct ClientHandler(pub(crate) Arc<dyn StreamSink>);

impl Handler for ClientHandler {
    // wire: drill@051b164 exec/java-exec/.../rpc/data/DataClient.java: the side that accepts asks for nothing
    fn handle(&self, request: InboundRequest) {
        refuse(request);
    }

    fn one_way(&self, message: OneWayMessage) -> Result<(), PeerMisbehaved> {
        self.0.one_way(message)
    }

    fn turn_ended(&self) {
        self.0.turn_ended();
    }

    fn closed(&self, reason: &CloseReason) {
        self.0.closed(reason);
    }
}

fn refuse(request: InboundRequest) {
    let failure = refusal(request.rpc_type);
    request.refuse(failure);
}

/// The answer to a request that is not served here.
fn refusal(rpc_type: i32) -> RpcFailure {
    match rpc_name(Plane::Data, rpc_type) {
        Some(name) => {
            let message = format!("{name} is not served here");
            RpcFailure::new(ErrorType::UnsupportedOperation, message)
        }
        None => RpcFailure::unknown_type(rpc_type),
    }
}
