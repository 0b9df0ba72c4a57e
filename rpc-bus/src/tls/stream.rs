//! The handshake of both sides, and the socket that comes of it.

use std::{
    io::{self, IoSlice},
    net::SocketAddr,
    pin::Pin,
    task::{Context, Poll},
    time::{Duration, Instant},
};

use tokio::{
    io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt, ReadBuf},
    net::TcpStream,
    time::timeout_at,
};
use tokio_rustls::{TlsAcceptor, TlsConnector};

use super::{TlsClient, TlsError, TlsInfo, TlsServer};
use crate::{error::CloseReason, link, options::ConnectionOptions};

/// The time that a handshake may take.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Handshake {
    /// When it began: with the socket.
    since: Instant,
    /// How long it may take, together with the plane's own handshake.
    timeout: Duration,
    /// How long to wait, after a failure, until the peer has read why.
    linger_timeout: Duration,
}

impl Handshake {
    pub(crate) fn new(options: &ConnectionOptions, since: Instant) -> Self {
        Self {
            since,
            timeout: options.handshake_timeout,
            linger_timeout: options.linger_timeout,
        }
    }

    /// The side that accepts.
    pub(crate) async fn accept(
        self,
        socket: TcpStream,
        tls: &TlsServer,
    ) -> Result<TlsStream, CloseReason> {
        let accept = TlsAcceptor::from(tls.config()).accept(socket);
        let stream = self.finish(accept.into_fallible()).await?;
        Ok(TlsStream(Box::new(stream.into())))
    }

    /// The side that connects.
    pub(crate) async fn connect(
        self,
        socket: TcpStream,
        tls: &TlsClient,
        addr: SocketAddr,
    ) -> Result<TlsStream, CloseReason> {
        let connector = TlsConnector::from(tls.config());
        let connect = connector.connect(tls.server_name(addr), socket);
        let stream = self.finish(connect.into_fallible()).await?;
        Ok(TlsStream(Box::new(stream.into())))
    }

    async fn finish<S>(
        self,
        handshake: impl Future<Output = Result<S, (io::Error, TcpStream)>>,
    ) -> Result<S, CloseReason> {
        let deadline = self.since + self.timeout;
        match timeout_at(deadline.into(), handshake).await {
            Ok(Ok(stream)) => Ok(stream),
            Ok(Err((error, socket))) => {
                let until = deadline.min(link::now() + self.linger_timeout);
                // Whether or not the peer has read the alert, its time is over then.
                let _ = timeout_at(until.into(), part(socket)).await;
                Err(reason(&error))
            }
            Err(_) => Err(CloseReason::HandshakeTimeout(self.timeout)),
        }
    }
}

fn reason(error: &io::Error) -> CloseReason {
    match TlsError::inside(error) {
        Some(error) => CloseReason::Tls(TlsError::in_handshake(error)),
        None if error.kind() == io::ErrorKind::UnexpectedEof => {
            CloseReason::Tls(TlsError::ClosedInHandshake)
        }
        None => CloseReason::Io(error.kind()),
    }
}

/// Says that there is no more, and waits for the peer to do the same: a socket closed with unread bytes would take the
/// alert with it.
async fn part(mut socket: TcpStream) -> io::Result<()> {
    socket.shutdown().await?;
    let mut unread = [0; 1024];
    while socket.read(&mut unread).await? > 0 {}
    Ok(())
}

/// A socket whose TLS handshake is done.
#[derive(Debug)]
pub(crate) struct TlsStream(Box<tokio_rustls::TlsStream<TcpStream>>);

impl TlsStream {
    /// The socket beneath.
    pub(crate) fn tcp(&self) -> &TcpStream {
        self.0.get_ref().0
    }

    pub(crate) fn info(&self) -> TlsInfo {
        TlsInfo::of(self.0.get_ref().1)
    }

    fn inner(self: Pin<&mut Self>) -> Pin<&mut tokio_rustls::TlsStream<TcpStream>> {
        Pin::new(&mut *self.get_mut().0)
    }
}

impl AsyncRead for TlsStream {
    fn poll_read(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        match self.inner().poll_read(cx, buf) {
            // A peer that dies does not take its leave. Frames have lengths, so that one cut off is noticed anyway.
            Poll::Ready(Err(error)) if error.kind() == io::ErrorKind::UnexpectedEof => {
                Poll::Ready(Ok(()))
            }
            read => read,
        }
    }
}

impl AsyncWrite for TlsStream {
    fn poll_write(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &[u8],
    ) -> Poll<io::Result<usize>> {
        self.inner().poll_write(cx, buf)
    }

    fn poll_write_vectored(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        slices: &[IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        self.inner().poll_write_vectored(cx, slices)
    }

    fn is_write_vectored(&self) -> bool {
        self.0.is_write_vectored()
    }

    fn poll_flush(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        self.inner().poll_flush(cx)
    }

    fn poll_shutdown(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        self.inner().poll_shutdown(cx)
    }
}
