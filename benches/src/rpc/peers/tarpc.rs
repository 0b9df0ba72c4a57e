//! tarpc: serde and bincode in length-delimited frames over TCP.
//!
//! As its examples do it: a task per request on the server, frames of up to 8 MiB. Three things are set for it: no delay
//! of small segments, as every other variant has it, and more calls in flight and queued than its 1,000 and 100, as a
//! user with 1,024 callers would.

use std::net::SocketAddr;

use anyhow::Result;
use bytes::Bytes;
use futures::StreamExt;
use serde::{Deserialize, Serialize};
use tarpc::server::{BaseChannel, Channel as _};
use tarpc::tokio_serde::formats::Bincode;
use tarpc::tokio_util::codec::LengthDelimitedCodec;
use tarpc::{ClientMessage, RequestName, context};
use tokio::net::{TcpListener, TcpStream};
use tokio::runtime::{Handle, Runtime};

use super::listen;
use crate::rpc::stack::{Client, Connection, Serving, Stack};
use crate::rpc::threads::{ThreadOptions, runtime};

const CALLS_MAX: usize = 4096;

/// tarpc.
pub(in crate::rpc) struct Tarpc;

/// What is asked; the answer is `message`.
#[derive(Debug, Deserialize, Serialize)]
pub(in crate::rpc) struct Note {
    message: Bytes,
    bulk: Bytes,
}

impl RequestName for Note {
    fn name(&self) -> &'static str {
        "note"
    }
}

type Requests = tarpc::serde_transport::Transport<
    TcpStream,
    ClientMessage<Note>,
    tarpc::Response<Bytes>,
    Bincode<ClientMessage<Note>, tarpc::Response<Bytes>>,
>;
type Answers = tarpc::serde_transport::Transport<
    TcpStream,
    tarpc::Response<Bytes>,
    ClientMessage<Note>,
    Bincode<tarpc::Response<Bytes>, ClientMessage<Note>>,
>;
type Channel = tarpc::client::Channel<Note, Bytes>;

impl Stack for Tarpc {
    type Client = Runtime;

    fn serve(&self, threads: ThreadOptions) -> Result<Serving> {
        let runtime = runtime("server", threads.all())?;
        let (listener, addr) = runtime.block_on(listen())?;
        runtime.spawn(accept(listener, runtime.handle().clone()));
        Ok(Serving {
            addr,
            _running: Box::new(runtime),
        })
    }

    fn client(&self, threads: ThreadOptions) -> Result<Runtime> {
        runtime("client", threads.all())
    }
}

async fn accept(listener: TcpListener, runtime: Handle) -> Result<()> {
    loop {
        let (socket, _) = listener.accept().await?;
        socket.set_nodelay(true)?;
        runtime.spawn(answer(socket, runtime.clone()));
    }
}

async fn answer(socket: TcpStream, runtime: Handle) {
    let framed = LengthDelimitedCodec::builder().new_framed(socket);
    let requests: Requests = tarpc::serde_transport::new(framed, Bincode::default());
    let echo = tarpc::server::serve(|_, note: Note| async move { Ok(note.message) });
    BaseChannel::with_defaults(requests)
        .execute(echo)
        .for_each(|request| {
            runtime.spawn(request);
            std::future::ready(())
        })
        .await;
}

impl Client for Runtime {
    type Connection = Channel;

    fn runtime(&self) -> &Handle {
        self.handle()
    }

    async fn connect(&self, server: SocketAddr) -> Result<Channel> {
        let socket = TcpStream::connect(server).await?;
        socket.set_nodelay(true)?;
        let framed = LengthDelimitedCodec::builder().new_framed(socket);
        let answers: Answers = tarpc::serde_transport::new(framed, Bincode::default());
        let mut config = tarpc::client::Config::default();
        config.max_in_flight_requests = CALLS_MAX;
        config.pending_request_buffer = CALLS_MAX;
        let tarpc::client::NewClient { client, dispatch } = tarpc::client::new(config, answers);
        self.spawn(dispatch);
        Ok(client)
    }
}

impl Connection for Channel {
    async fn echo(&self, message: Bytes) -> Result<Bytes> {
        let bulk = Bytes::new();
        Ok(self
            .call(context::current(), Note { message, bulk })
            .await?)
    }

    async fn sink(&self, bulk: Bytes) -> Result<()> {
        let message = Bytes::new();
        self.call(context::current(), Note { message, bulk })
            .await?;
        Ok(())
    }
}
