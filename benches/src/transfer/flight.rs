//! Arrow Flight: `DoPut` over tonic, one call a stream, all of them on one HTTP/2 connection.

use std::io;
use std::net::SocketAddr;
use std::sync::Arc;

use anyhow::{Context, Result};
use arrow::array::RecordBatch;
use arrow_flight::decode::FlightRecordBatchStream;
use arrow_flight::encode::FlightDataEncoderBuilder;
use arrow_flight::error::FlightError;
use arrow_flight::flight_service_client::FlightServiceClient;
use arrow_flight::flight_service_server::{FlightService, FlightServiceServer};
use arrow_flight::{
    Action, ActionType, Criteria, Empty, FlightClient, FlightData, FlightDescriptor, FlightInfo,
    HandshakeRequest, HandshakeResponse, PollInfo, PutResult, SchemaResult, Ticket,
};
use futures::future::BoxFuture;
use futures::stream::{self, BoxStream};
use futures::{FutureExt, StreamExt, TryStreamExt};
use hyper_util::rt::TokioIo;
use socket2::SockRef;
use tokio::net::{TcpListener, TcpStream};
use tokio::runtime::{Handle, Runtime};
use tonic::transport::server::TcpIncoming;
use tonic::transport::{Channel, Endpoint, Server};
use tonic::{Request, Response, Status, Streaming};

use super::bus::SEND_BUFFER_BYTES;
use super::{Consumer, Link, Seen};

/// Nobody waits for a window of this on one machine, and 64 streams of large batches fit.
const STREAM_WINDOW_BYTES: u32 = 4 << 20;
const CONNECTION_WINDOW_BYTES: u32 = 64 << 20;
/// HTTP/2 has 16 KiB otherwise.
const FRAME_BYTES_MAX: u32 = 1 << 20;
/// gRPC takes no message above 4 MiB otherwise; Flight cuts batches to 2 MiB, which is better for it than larger ones.
const MESSAGE_BYTES_MAX: usize = 64 << 20;
const STREAM_HEADER: &str = "stream";

/// How it is set.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Tuning {
    /// As it comes.
    Default,
    /// As somebody would set it who has measured what tonic has options for.
    Tuned,
    /// The same over sockets that somebody makes for it, with the send buffer of the bus.
    SendBuffer,
}

/// Both ends, connected.
pub(crate) struct Flight {
    // The client first, or else its connection would end with an error.
    client: Runtime,
    channel: Channel,
    tuning: Tuning,
    _server: Runtime,
}

impl Flight {
    /// Starts both ends with `threads` threads each; the batches of stream `n` are taken by consumer `n`.
    pub(crate) fn start(
        tuning: Tuning,
        threads: usize,
        consumers: Arc<[Consumer]>,
    ) -> Result<Self> {
        let (server, client) = (runtime("server", threads)?, runtime("client", threads)?);
        let listener = server.block_on(TcpListener::bind("127.0.0.1:0"))?;
        let addr = listener.local_addr()?;
        let incoming = {
            let _inside = server.enter();
            TcpIncoming::from(listener).with_nodelay(Some(true))
        };
        let router = tuning.server().add_service(tuning.service(consumers));
        server.spawn(router.serve_with_incoming(incoming));
        Ok(Self {
            channel: client.block_on(tuning.connect(addr))?,
            client,
            tuning,
            _server: server,
        })
    }
}

impl Link for Flight {
    fn runtime(&self) -> &Handle {
        self.client.handle()
    }

    fn send(
        &self,
        number: usize,
        batches: BoxStream<'static, RecordBatch>,
    ) -> BoxFuture<'static, Result<Seen>> {
        let mut client = self.tuning.client(self.channel.clone());
        let data = FlightDataEncoderBuilder::new().build(batches.map(Ok));
        let sending = async move {
            client.add_header(STREAM_HEADER, &number.to_string())?;
            let mut results = client.do_put(data).await?;
            let result = results.try_next().await?.context("no result")?;
            Seen::from_bytes(&result.app_metadata).context("a result of another form")
        };
        sending.boxed()
    }
}

fn runtime(name: &str, threads: usize) -> Result<Runtime> {
    let mut builder = tokio::runtime::Builder::new_multi_thread();
    let builder = builder.worker_threads(threads).thread_name(name);
    Ok(builder.enable_all().build()?)
}

impl Tuning {
    fn server(self) -> Server {
        match self {
            Self::Default => Server::builder(),
            Self::Tuned | Self::SendBuffer => Server::builder()
                .initial_stream_window_size(STREAM_WINDOW_BYTES)
                .initial_connection_window_size(CONNECTION_WINDOW_BYTES)
                .max_frame_size(FRAME_BYTES_MAX),
        }
    }

    fn service(self, consumers: Arc<[Consumer]>) -> FlightServiceServer<Puts> {
        let service = FlightServiceServer::new(Puts(consumers));
        match self {
            Self::Default => service,
            Self::Tuned | Self::SendBuffer => service.max_decoding_message_size(MESSAGE_BYTES_MAX),
        }
    }

    fn endpoint(self, server: SocketAddr) -> Result<Endpoint> {
        let endpoint = Endpoint::from_shared(format!("http://{server}"))?;
        Ok(match self {
            Self::Default => endpoint,
            Self::Tuned | Self::SendBuffer => endpoint
                .tcp_nodelay(true)
                .initial_stream_window_size(STREAM_WINDOW_BYTES)
                .initial_connection_window_size(CONNECTION_WINDOW_BYTES)
                .max_frame_size(FRAME_BYTES_MAX),
        })
    }

    async fn connect(self, server: SocketAddr) -> Result<Channel> {
        let endpoint = self.endpoint(server)?;
        Ok(match self {
            Self::Default | Self::Tuned => endpoint.connect().await?,
            Self::SendBuffer => {
                let connector = tower::service_fn(move |_| socket(server));
                endpoint.connect_with_connector(connector).await?
            }
        })
    }

    fn client(self, channel: Channel) -> FlightClient {
        let client = FlightServiceClient::new(channel);
        FlightClient::new_from_inner(match self {
            Self::Default => client,
            Self::Tuned | Self::SendBuffer => client.max_encoding_message_size(MESSAGE_BYTES_MAX),
        })
    }
}

/// With the same send buffer as the bus. The kernel would let it grow to some MiB, which do not stay in the cache: half as
/// much CPU time again for batches of a MiB.
async fn socket(server: SocketAddr) -> io::Result<TokioIo<TcpStream>> {
    let socket = TcpStream::connect(server).await?;
    socket.set_nodelay(true)?;
    SockRef::from(&socket).set_send_buffer_size(SEND_BUFFER_BYTES)?;
    Ok(TokioIo::new(socket))
}

impl Seen {
    fn to_bytes(self) -> Vec<u8> {
        [self.rows, self.nulls, self.sum]
            .iter()
            .flat_map(|number| number.to_le_bytes())
            .collect()
    }

    fn from_bytes(bytes: &[u8]) -> Option<Self> {
        let (numbers, rest) = bytes.as_chunks::<8>();
        let [rows, nulls, sum] = <[[u8; 8]; 3]>::try_from(numbers)
            .ok()?
            .map(u64::from_le_bytes);
        rest.is_empty().then_some(Self { rows, nulls, sum })
    }
}

/// Hands the batches of a call to the consumer that the call names.
struct Puts(Arc<[Consumer]>);

impl Puts {
    fn number(&self, request: &Request<Streaming<FlightData>>) -> Option<usize> {
        let number = request
            .metadata()
            .get(STREAM_HEADER)?
            .to_str()
            .ok()?
            .parse()
            .ok()?;
        (number < self.0.len()).then_some(number)
    }
}

type Answer<T> = Result<Response<T>, Status>;
type Answers<T> = BoxStream<'static, Result<T, Status>>;

#[tonic::async_trait]
impl FlightService for Puts {
    type HandshakeStream = Answers<HandshakeResponse>;
    type ListFlightsStream = Answers<FlightInfo>;
    type DoGetStream = Answers<FlightData>;
    type DoPutStream = Answers<PutResult>;
    type DoExchangeStream = Answers<FlightData>;
    type DoActionStream = Answers<arrow_flight::Result>;
    type ListActionsStream = Answers<ActionType>;

    async fn do_put(&self, request: Request<Streaming<FlightData>>) -> Answer<Self::DoPutStream> {
        let number = self.number(&request);
        let number = number.ok_or_else(|| Status::invalid_argument("a stream of no consumer"))?;
        let consumers = Arc::clone(&self.0);
        let data = request.into_inner().map_err(FlightError::from);
        // Answered at once: the consumer takes its time.
        let result = async move {
            let batches = FlightRecordBatchStream::new_from_flight_data(data);
            let seen = consumers[number].take(batches).await?;
            let app_metadata = seen.to_bytes().into();
            Ok(PutResult { app_metadata })
        };
        Ok(Response::new(stream::once(result).boxed()))
    }

    async fn handshake(
        &self,
        _: Request<Streaming<HandshakeRequest>>,
    ) -> Answer<Self::HandshakeStream> {
        Err(nothing_else())
    }

    async fn list_flights(&self, _: Request<Criteria>) -> Answer<Self::ListFlightsStream> {
        Err(nothing_else())
    }

    async fn get_flight_info(&self, _: Request<FlightDescriptor>) -> Answer<FlightInfo> {
        Err(nothing_else())
    }

    async fn poll_flight_info(&self, _: Request<FlightDescriptor>) -> Answer<PollInfo> {
        Err(nothing_else())
    }

    async fn get_schema(&self, _: Request<FlightDescriptor>) -> Answer<SchemaResult> {
        Err(nothing_else())
    }

    async fn do_get(&self, _: Request<Ticket>) -> Answer<Self::DoGetStream> {
        Err(nothing_else())
    }

    async fn do_exchange(
        &self,
        _: Request<Streaming<FlightData>>,
    ) -> Answer<Self::DoExchangeStream> {
        Err(nothing_else())
    }

    async fn do_action(&self, _: Request<Action>) -> Answer<Self::DoActionStream> {
        Err(nothing_else())
    }

    async fn list_actions(&self, _: Request<Empty>) -> Answer<Self::ListActionsStream> {
        Err(nothing_else())
    }
}

fn nothing_else() -> Status {
    Status::unimplemented("only DoPut is measured")
}
