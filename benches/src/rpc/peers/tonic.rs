//! tonic: unary gRPC over HTTP/2, without TLS. Message and service are written as its generator would write them.

use std::convert::Infallible;
use std::future::{Ready, ready};
use std::net::SocketAddr;
use std::task::{Context, Poll};

use anyhow::Result;
use bytes::Bytes;
use tokio::runtime::{Handle, Runtime};
use tonic::body::Body;
use tonic::client::Grpc;
use tonic::codegen::{BoxFuture, Service, http};
use tonic::server::{NamedService, UnaryService};
use tonic::transport::server::TcpIncoming;
use tonic::transport::{Channel, Endpoint, Server};
use tonic::{Request, Response, Status};
use tonic_prost::ProstCodec;

use super::listen;
use crate::rpc::stack::{Client, Connection, Serving, Stack};
use crate::rpc::threads::{ThreadOptions, runtime};

/// Nobody waits for a window of this on one machine, and 4 streams of bulk fit.
const STREAM_WINDOW_BYTES: u32 = 4 << 20;
const CONNECTION_WINDOW_BYTES: u32 = 16 << 20;
/// A message of bulk is one frame.
const FRAME_BYTES_MAX: u32 = 2 << 20;
/// hyper lets 200 streams be open at a time.
const STREAMS_MAX: u32 = 4096;
/// tonic holds 1,024 requests between callers and connection.
const REQUESTS_QUEUED_MAX: usize = 4096;

/// tonic.
#[derive(Clone, Copy, Debug)]
pub(in crate::rpc) enum Tonic {
    /// As it comes.
    Default,
    /// As somebody would set it who has measured.
    Tuned,
}

/// What goes both ways; `bulk` only to the server.
#[derive(Clone, PartialEq, prost::Message)]
struct Note {
    #[prost(bytes = "bytes", tag = "1")]
    message: Bytes,
    #[prost(bytes = "bytes", tag = "2")]
    bulk: Bytes,
}

#[derive(Clone, Copy)]
struct Echo;

/// Threads that call.
pub(in crate::rpc) struct Caller {
    runtime: Runtime,
    settings: Tonic,
}

impl Stack for Tonic {
    type Client = Caller;

    fn serve(&self, threads: ThreadOptions) -> Result<Serving> {
        let runtime = runtime("server", threads.all())?;
        let (listener, addr) = runtime.block_on(listen())?;
        let incoming = TcpIncoming::from(listener).with_nodelay(Some(true));
        let server = self.server().add_service(Echo);
        runtime.spawn(server.serve_with_incoming(incoming));
        Ok(Serving {
            addr,
            _running: Box::new(runtime),
        })
    }

    fn client(&self, threads: ThreadOptions) -> Result<Caller> {
        Ok(Caller {
            runtime: runtime("client", threads.all())?,
            settings: *self,
        })
    }
}

impl Tonic {
    fn server(self) -> Server {
        let server = Server::builder();
        match self {
            Self::Default => server,
            Self::Tuned => server
                .initial_stream_window_size(STREAM_WINDOW_BYTES)
                .initial_connection_window_size(CONNECTION_WINDOW_BYTES)
                .max_frame_size(FRAME_BYTES_MAX)
                .max_concurrent_streams(STREAMS_MAX),
        }
    }

    fn endpoint(self, server: SocketAddr) -> Result<Endpoint> {
        let endpoint = Endpoint::from_shared(format!("http://{server}"))?;
        Ok(match self {
            Self::Default => endpoint,
            Self::Tuned => endpoint
                .tcp_nodelay(true)
                .initial_stream_window_size(STREAM_WINDOW_BYTES)
                .initial_connection_window_size(CONNECTION_WINDOW_BYTES)
                .max_frame_size(FRAME_BYTES_MAX)
                .buffer_size(REQUESTS_QUEUED_MAX),
        })
    }
}

impl Client for Caller {
    type Connection = Channel;

    fn runtime(&self) -> &Handle {
        self.runtime.handle()
    }

    async fn connect(&self, server: SocketAddr) -> Result<Channel> {
        Ok(self.settings.endpoint(server)?.connect().await?)
    }
}

impl Connection for Channel {
    async fn echo(&self, message: Bytes) -> Result<Bytes> {
        let bulk = Bytes::new();
        Ok(call(self, Note { message, bulk }).await?.message)
    }

    async fn sink(&self, bulk: Bytes) -> Result<()> {
        let message = Bytes::new();
        call(self, Note { message, bulk }).await?;
        Ok(())
    }
}

async fn call(channel: &Channel, note: Note) -> Result<Note> {
    let mut grpc = Grpc::new(channel.clone());
    grpc.ready().await?;
    let path = http::uri::PathAndQuery::from_static("/benches.Echo/Call");
    let answer = grpc
        .unary(Request::new(note), path, ProstCodec::default())
        .await?;
    Ok(answer.into_inner())
}

impl NamedService for Echo {
    const NAME: &'static str = "benches.Echo";
}

impl Service<http::Request<Body>> for Echo {
    type Response = http::Response<Body>;
    type Error = Infallible;
    type Future = BoxFuture<Self::Response, Infallible>;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), Infallible>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, request: http::Request<Body>) -> Self::Future {
        let mut grpc = tonic::server::Grpc::new(ProstCodec::default());
        let echo = *self;
        Box::pin(async move { Ok(grpc.unary(echo, request).await) })
    }
}

impl UnaryService<Note> for Echo {
    type Response = Note;
    type Future = Ready<Result<Response<Note>, Status>>;

    fn call(&mut self, request: Request<Note>) -> Self::Future {
        let Note { message, .. } = request.into_inner();
        ready(Ok(Response::new(Note {
            message,
            bulk: Bytes::new(),
        })))
    }
}
