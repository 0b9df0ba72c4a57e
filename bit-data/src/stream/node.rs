//! This node's part in the data plane: a server for its senders, connections for its receivers.

use std::{fmt, io, net::SocketAddr, sync::Arc, time::Duration};

use arrow::datatypes::SchemaRef;
use futures::future::try_join_all;
use protos::{
    calls::data::OpenStream as OpenCall,
    data::{OpenStream, close_stream},
    id::QueryId,
};
use rpc_bus::{
    BusRuntime, CallError, CallOptions, Capabilities, ConnectionOptions, Feature, Features, Ledger,
    auth::Login, tls::TlsClient,
};
use tokio::sync::oneshot;

use super::{
    address::StreamAddress,
    budget::{Budgets, Share},
    checksum::sealed,
    credit::{STARVED_MIN_HERE, WindowSizes},
    error::{OpenError, SendError},
    frame::{Codecs, codec_to_wire},
    inbound::Inbound,
    intake::Terms,
    options::{Checksums, ReceiveOptions, SendOptions},
    outbound::Outbound,
    peers::{DataPeers, Dialing, Line, Peers},
    receiver::{Parts, Source, StreamReceiver},
    receiver_side::close,
    receivers::Receivers,
    registry::{Opener, Patience, Refusal, Registry},
    sender::StreamSender,
    sender_side::SenderHost,
    transmitter::{Surroundings, Transmitter},
    tunnel::{StreamStats, TunnelStats},
};
use crate::{
    drill::{FragmentEvents, Fragments, FragmentsOptions, NoEvents},
    server::{BEATS, DataServer, DataServerOptions},
};

const MIB: usize = 1 << 20;
const STREAM_FEATURES: [Feature; 3] = [Feature::Streams, Feature::Checksums, Feature::Compression];

/// How a node takes part in the data plane.
#[derive(Clone)]
pub struct NodeOptions {
    /// Limits of the side that accepts; what this node can do is added.
    pub server: DataServerOptions,
    /// Limits of the connections that this node opens; what this node can do is added. Default: a beat a second, and
    /// five may be missed.
    pub connection: ConnectionOptions,
    /// TLS of the nodes that this one connects to. Default `None`.
    pub tls: Option<TlsClient>,
    /// Who to be there. Default `None`.
    pub login: Option<Login>,
    /// Connections to each node, over which streams are spread. Default 1.
    pub connections_per_peer: usize,
    /// Most bytes that all receivers of this node may reserve. Default `None`: what the ledger allows. A program gives
    /// a quarter of its memory. What has come within that is charged to the ledger once more, as memory of connections.
    pub plane_bytes_max: Option<usize>,
    /// Most bytes that the receivers of one query may reserve. Streams that spill rather than take more leave the last quarter
    /// to receivers that are opened later. Default 256 MiB.
    pub query_bytes_max: usize,
    /// Largest batch, on the wire and in memory, in bytes: longer ones are cut by rows, so that this is the longest row.
    /// Default 16 MiB.
    pub batch_bytes_max: usize,
    /// How long a receiver may wait here for a sender that is not there yet. Default 10 s.
    pub sender_timeout: Duration,
    /// How many receivers may wait so; those beyond are refused at once. Default 16,384.
    pub waiting_receivers_max: usize,
    /// How many of one connection. All streams that a query has between two nodes may be opened before their senders are
    /// there: for 32 sending fragments and 32 receiving ones these are 1,024. Default 4,096.
    pub waiting_receivers_per_connection_max: usize,
    /// What this node does beside Drill's protocol where its peer does it too, as far as that is of the data plane.
    /// Default: streams, checksums and compression.
    pub features: Features,
    /// Limits of what real Drillbits send.
    pub fragments: FragmentsOptions,
    /// What that causes elsewhere. Default: nothing.
    pub events: Arc<dyn FragmentEvents>,
    /// Drawn anew at every start of the node.
    pub incarnation: Option<u64>,
}

impl Default for NodeOptions {
    fn default() -> Self {
        Self {
            server: DataServerOptions::default(),
            connection: ConnectionOptions {
                beats: Some(BEATS),
                ..ConnectionOptions::bit()
            },
            tls: None,
            login: None,
            connections_per_peer: 1,
            plane_bytes_max: None,
            query_bytes_max: 256 * MIB,
            batch_bytes_max: 16 * MIB,
            sender_timeout: Duration::from_secs(10),
            waiting_receivers_max: 16_384,
            waiting_receivers_per_connection_max: 4_096,
            features: STREAM_FEATURES.into_iter().collect(),
            fragments: FragmentsOptions::default(),
            events: Arc::new(NoEvents),
            incarnation: None,
        }
    }
}

/// Where the sender of a stream is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Origin {
    /// In this process: batches are handed over as they are.
    Here,
    /// On the node whose data server listens there, whichever process that is.
    Node(SocketAddr),
    /// On the same, and of the process that drew this incarnation at its start: one that was started in its place, and
    /// has other senders under the same names, if any, is refused.
    Incarnation {
        /// Where the data server of the node listens.
        address: SocketAddr,
        /// As the node tells it in its handshakes.
        incarnation: u64,
    },
}

impl Origin {
    /// Address and incarnation.
    fn named(self) -> Option<(SocketAddr, Option<u64>)> {
        match self {
            Self::Here => None,
            Self::Node(address) => Some((address, None)),
            Self::Incarnation {
                address,
                incarnation,
            } => Some((address, Some(incarnation))),
        }
    }
}

/// This node's part in the data plane. Dropping it ends all its streams; see [`Self::shutdown`].
pub struct DataNode {
    server: DataServer,
    fragments: Fragments,
    local: SocketAddr,
    /// Of this process.
    incarnation: Option<u64>,
    runtime: BusRuntime,
    around: Surroundings,
    peers: Arc<Peers>,
    budgets: Arc<Budgets>,
    batch_bytes_max: usize,
    /// Senders keep the registry: it does not end with the node by itself.
    _closing: CloseOnDrop,
}

impl DataNode {
    /// Listens on `address`; port 0 takes a free one. All that the node holds is charged to `ledger`.
    ///
    /// # Errors
    ///
    /// The address cannot be listened on, or the options contradict each other.
    pub async fn bind(
        address: SocketAddr,
        runtime: BusRuntime,
        options: NodeOptions,
        ledger: Ledger,
    ) -> io::Result<Self> {
        let patience = Patience {
            wait: options.sender_timeout,
            waiting_max: options.waiting_receivers_max,
            waiting_per_connection_max: options.waiting_receivers_per_connection_max,
        };
        let registry = Registry::new(patience, runtime.app().clone(), ledger.clone());
        let host = SenderHost::new(Arc::clone(&registry), options.batch_bytes_max);
        let accepted = host.sides();
        let (server, dialing) = options.sides(&runtime, &ledger);
        let fragments = Fragments::new(options.fragments, &ledger, options.events);
        let streams = Arc::new(host);
        let (at, held) = (runtime.clone(), ledger.clone());
        let server =
            DataServer::bind(address, at, server, held, fragments.clone(), streams).await?;
        let closing = CloseOnDrop(Arc::clone(&registry));
        let around = Surroundings {
            runtime: runtime.clone(),
            registry,
            tunnels: Arc::default(),
        };
        let dialing = announcing(server.local_addr().port(), dialing);
        Ok(Self {
            local: server.local_addr(),
            server,
            fragments,
            runtime,
            around,
            incarnation: dialing.incarnation(),
            peers: Arc::new(Peers::new(dialing, accepted)),
            budgets: Budgets::new(&ledger, options.plane_bytes_max, options.query_bytes_max),
            batch_bytes_max: options.batch_bytes_max,
            _closing: closing,
        })
    }

    /// Where it listens.
    #[must_use]
    pub fn local_addr(&self) -> SocketAddr {
        self.local
    }

    /// The connections that this node has opened to others.
    #[must_use]
    pub fn peers(&self) -> DataPeers {
        DataPeers::of(&self.peers)
    }

    /// Receivers of what real Drillbits send to this node.
    #[must_use]
    pub fn fragments(&self) -> &Fragments {
        &self.fragments
    }

    /// Registers the sender of a stream. It may send once its receiver has opened the stream.
    ///
    /// # Errors
    ///
    /// There is a sender of the stream that has not ended, or batches of `schema` cannot be sent.
    pub fn sender(
        &self,
        stream: StreamAddress,
        schema: &SchemaRef,
        options: SendOptions,
    ) -> Result<StreamSender, OpenError> {
        let around = self.around.clone();
        let transmitter = Transmitter::try_new(stream, schema, options, around)?;
        Ok(StreamSender::new(stream, schema.clone(), transmitter))
    }

    /// Opens the streams of all senders of a receiver, at the same time, under one budget.
    ///
    /// # Errors
    ///
    /// That of the first sender that cannot be had; the others are cancelled. Or the budget is too small, or they are not
    /// all of one query.
    ///
    /// # Cancel safety
    ///
    /// Dropping the future cancels what is open already.
    pub async fn receivers(
        &self,
        senders: &[(Origin, StreamAddress)],
        options: &ReceiveOptions,
    ) -> Result<Receivers, OpenError> {
        let windows = options.windows(senders.len())?;
        let query = query_of(senders)?;
        let budget = self.budgets.receiver(query, options.budget_bytes);
        let shares = senders.iter().map(|_| budget.share(windows));
        let shares = shares.collect::<Result<Vec<_>, _>>()?;
        let open = |(&(origin, stream), share)| self.open(origin, stream, options, share);
        let receivers = try_join_all(senders.iter().zip(shares).map(open)).await?;
        Ok(Receivers::new(receivers))
    }

    /// Opens the stream of the only sender of a receiver.
    ///
    /// # Errors
    ///
    /// The sender cannot be had, or the budget is too small.
    ///
    /// # Cancel safety
    ///
    /// Dropping the future cancels the stream.
    pub async fn receiver(
        &self,
        origin: Origin,
        stream: StreamAddress,
        options: &ReceiveOptions,
    ) -> Result<StreamReceiver, OpenError> {
        let windows = options.windows(1)?;
        let budget = self.budgets.receiver(stream.query, options.budget_bytes);
        self.open(origin, stream, options, budget.share(windows)?)
            .await
    }

    async fn open(
        &self,
        origin: Origin,
        stream: StreamAddress,
        options: &ReceiveOptions,
        share: Share,
    ) -> Result<StreamReceiver, OpenError> {
        let Share {
            budget,
            windows,
            reserved,
        } = share;
        let terms = |has_checksums, codecs| Terms {
            has_checksums,
            batch_bytes_max: self.batch_bytes_max,
            codecs,
        };
        let inbound = |windows, terms| {
            let inbound = Arc::new(Inbound::new(windows, terms, reserved));
            if let Some(dir) = &options.spill {
                inbound.spill_to(dir, budget.of_query());
            }
            inbound
        };
        let (source, inbound, terms) = match origin.named() {
            Some((address, expected)) if address != self.local => {
                let line = match expected {
                    Some(incarnation) => self.peers.line_with(address, incarnation).await?,
                    None => self.peers.line(address).await?,
                };
                let side = Arc::clone(&line.side);
                let wants = options.checksums == Checksums::On;
                let codecs = if line.connection.has(Feature::Compression) {
                    Codecs::of(&options.codecs)
                } else {
                    Codecs::default()
                };
                let terms = terms(wants && line.connection.has(Feature::Checksums), codecs);
                let inbound = inbound(windows, terms);
                let source = open_remote(line, stream, &inbound, options, terms).await;
                let source = source.map_err(|error| side.explain(error))?;
                (source, inbound, terms)
            }
            named => {
                self.expect_incarnation(named.and_then(|(_, expected)| expected))?;
                let terms = terms(false, Codecs::default());
                let windows = WindowSizes {
                    starved_min: STARVED_MIN_HERE,
                    ..windows
                };
                let inbound = inbound(windows, terms);
                let source = self
                    .open_local(stream, &inbound, options.open_timeout)
                    .await?;
                (source, inbound, terms)
            }
        };
        Ok(StreamReceiver::new(Parts {
            address: stream,
            source,
            inbound,
            terms,
            runtime: self.runtime.clone(),
            tunnels: Arc::clone(&self.around.tunnels),
            budget,
        }))
    }

    /// A receiver of this process that wants batches of its own address may mean the process before.
    fn expect_incarnation(&self, expected: Option<u64>) -> Result<(), OpenError> {
        match expected {
            Some(expected) if self.incarnation != Some(expected) => {
                Err(OpenError::OtherIncarnation {
                    address: self.local,
                    expected,
                    actual: self.incarnation,
                })
            }
            _ => Ok(()),
        }
    }

    async fn open_local(
        &self,
        stream: StreamAddress,
        inbound: &Arc<Inbound>,
        patience: Duration,
    ) -> Result<Source, OpenError> {
        let registry = &self.around.registry;
        let (opened, sender) = oneshot::channel();
        let mut opening = OpeningHere {
            registry,
            stream,
            inbound: Some(inbound),
            sender,
        };
        let inbound = Arc::clone(inbound);
        registry.open(stream, Opener::Local { inbound, opened });
        match tokio::time::timeout(patience, &mut opening.sender).await {
            Ok(Ok(Ok(outbound))) => {
                // There is a receiver from now on, which does the same.
                opening.inbound = None;
                Ok(Source::Local(outbound))
            }
            Ok(Ok(Err(refusal))) => Err(refusal.into_error(stream)),
            Ok(Err(_)) => Err(OpenError::ShuttingDown),
            Err(_) => Err(Refusal::NoSender(patience).into_error(stream)),
        }
    }

    /// Counters of the streams from and to each peer, by peer. At most 1,024 peers without open streams are told apart.
    #[must_use]
    pub fn tunnels(&self) -> Vec<TunnelStats> {
        self.around.tunnels.stats()
    }

    /// The streams that are open, those that send once they have a receiver; in no order.
    #[must_use]
    pub fn streams(&self) -> Vec<StreamStats> {
        self.around.tunnels.streams()
    }

    /// What the receivers of this node have reserved, in bytes.
    #[must_use]
    pub fn reserved(&self) -> &Ledger {
        self.budgets.plane()
    }

    /// How many senders wait for their receivers, and receivers for their senders.
    #[must_use]
    pub fn waiting(&self) -> (usize, usize) {
        self.around.registry.waiting()
    }

    /// Ends all streams and connections, and waits until they have, at most `grace`. Senders of this node that are left
    /// find their stream ended by [`SendError::ShuttingDown`]; receivers of theirs that are here too, by
    /// [`ReceiveError::ShuttingDown`](crate::ReceiveError::ShuttingDown). Everybody else's connection is lost.
    pub async fn shutdown(self, grace: Duration) {
        self.around.registry.close();
        self.peers.close();
        self.server.shutdown(grace).await;
        self.around.registry.join(grace).await;
    }
}

/// Ends the streams of a node that is dropped.
struct CloseOnDrop(Arc<Registry>);

impl Drop for CloseOnDrop {
    fn drop(&mut self) {
        self.0.close();
    }
}

#[cfg(test)]
impl DataNode {
    pub(crate) fn streams_listed(&self) -> usize {
        self.peers.open_streams()
    }

    pub(crate) fn registry(&self) -> Arc<Registry> {
        Arc::clone(&self.around.registry)
    }
}

/// The query that all senders are of.
fn query_of(senders: &[(Origin, StreamAddress)]) -> Result<QueryId, OpenError> {
    let expected = senders.first().map(|(_, stream)| stream.query);
    let expected = expected.unwrap_or_default();
    let other = senders.iter().find(|(_, stream)| stream.query != expected);
    other.map_or(Ok(expected), |&(_, address)| {
        Err(OpenError::OtherQuery { address, expected })
    })
}

/// Opens a stream on a connection, and waits until its sender is there.
async fn open_remote(
    line: Line,
    stream: StreamAddress,
    inbound: &Arc<Inbound>,
    options: &ReceiveOptions,
    terms: Terms,
) -> Result<Source, OpenError> {
    let side = Arc::clone(&line.side);
    let in_order = side.opening.lock().await;
    let id = line.side.register(inbound).map_err(Line::lost)?;
    // Until there is a receiver, which does the same.
    let mut opening = Opening {
        line: Some(line),
        id,
        is_asked: false,
    };
    let Some(line) = &opening.line else {
        return Err(OpenError::ShuttingDown);
    };
    let codecs = terms.codecs.list().filter_map(codec_to_wire);
    let request = sealed(OpenStream {
        stream: Some(id),
        limit_bytes: Some(inbound.limit_bytes()),
        checksum: Some(terms.has_checksums),
        codecs: codecs.map(Into::into).collect(),
        ..stream.to_wire()
    });
    let call = CallOptions {
        deadline: Some(options.open_timeout),
        ..CallOptions::default()
    };
    inbound.set_sender(&line.connection, id);
    let answer = line
        .connection
        .start::<OpenCall>(&request, Vec::new(), call);
    let answer = answer.await?;
    drop(in_order);
    opening.is_asked = true;
    answer.await.inspect_err(|error| {
        // Who refuses needs not be told.
        opening.is_asked = !matches!(error, CallError::Remote(_));
    })?;
    let line = opening.line.take().ok_or(OpenError::ShuttingDown)?;
    Ok(Source::Remote {
        connection: line.connection,
        side: line.side,
        stream: id,
    })
}

/// Tells peers where this node listens, which its own connections do not show: so they know one node by one address.
fn announcing(data_port: u16, mut dialing: Dialing) -> Dialing {
    let ours = dialing.options.capabilities.as_deref().cloned();
    let mut ours = ours.unwrap_or_default();
    let endpoint = ours.endpoint.get_or_insert_default();
    endpoint.data_port.get_or_insert_with(|| data_port.into());
    dialing.options.capabilities = Some(Arc::new(ours));
    dialing
}

/// A stream that is being opened. If it is given up, its sender is told, whether or not it was found yet: nothing else
/// would, once the stream is off the list.
struct Opening {
    line: Option<Line>,
    id: u64,
    /// Whether the request is with the connection, and not refused.
    is_asked: bool,
}

impl Drop for Opening {
    fn drop(&mut self) {
        let Some(line) = &self.line else {
            return;
        };
        line.side.forget(self.id);
        if self.is_asked {
            let kind = close_stream::Kind::Cancelled;
            close(&line.connection, self.id, kind, None);
        }
    }
}

/// The same for a sender of this process, which is here or will be.
struct OpeningHere<'a> {
    registry: &'a Registry,
    stream: StreamAddress,
    /// `None` once it is opened.
    inbound: Option<&'a Arc<Inbound>>,
    sender: oneshot::Receiver<Result<Arc<Outbound>, Refusal>>,
}

impl Drop for OpeningHere<'_> {
    fn drop(&mut self) {
        let Some(ours) = self.inbound else {
            return;
        };
        // From now on nobody can give it a sender. Who has given it one before knows no better than that it is there.
        self.sender.close();
        if let Ok(Ok(outbound)) = self.sender.try_recv() {
            outbound.stop(SendError::ReceiverCancelled);
        }
        self.registry.withdraw(
            self.stream,
            |opener| matches!(opener, Opener::Local { inbound, .. } if Arc::ptr_eq(inbound, ours)),
        );
        ours.close();
    }
}

impl NodeOptions {
    /// Options of both sides, each with what this node can do.
    fn sides(&self, runtime: &BusRuntime, ledger: &Ledger) -> (DataServerOptions, Dialing) {
        let mut server = self.server.clone();
        let accepting = &mut server.connections.connection;
        accepting.capabilities = Some(self.capabilities(accepting));
        let mut connection = self.connection.clone();
        connection.capabilities = Some(self.capabilities(&connection));
        let dialing = Dialing {
            runtime: runtime.clone(),
            tls: self.tls.clone(),
            login: self.login.clone(),
            options: connection,
            ledger: ledger.clone(),
            connections_per_peer: self.connections_per_peer,
        };
        (server, dialing)
    }

    fn capabilities(&self, options: &ConnectionOptions) -> Arc<Capabilities> {
        let software = || Capabilities::of_software(env!("CARGO_PKG_VERSION"));
        let ours = options
            .capabilities
            .as_deref()
            .cloned()
            .unwrap_or_else(software);
        let offered = STREAM_FEATURES.into_iter();
        let offered = offered.filter(|&feature| self.features.contains(feature));
        Arc::new(Capabilities {
            features: offered.fold(ours.features, Features::with),
            incarnation: self.incarnation.or(ours.incarnation),
            initial_credit_bytes: 0,
            batch_bytes_max: self.batch_bytes_max as u64,
            ..ours
        })
    }
}

impl fmt::Debug for DataNode {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("DataNode")
            .field("local_addr", &self.local)
            .field("reserved", self.reserved())
            .finish_non_exhaustive()
    }
}
