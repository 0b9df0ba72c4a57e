//! A connected socket, with its place in the ledger, before frames go over it.

use std::{io, net::SocketAddr, time::Duration};

use socket2::{SockRef, TcpKeepalive};
use tokio::net::TcpStream;

#[cfg(any(test, feature = "simulation"))]
use crate::simulation::SimulatedStream;
use crate::{
    error::CloseReason,
    ledger::{BudgetExceeded, Charge, Kind, Ledger},
    options::ConnectionOptions,
    tls::{Handshake, TlsClient, TlsInfo, TlsServer, TlsStream},
};

/// How long nothing comes from a peer before the kernel asks the peer's whether it is still there, how often it asks, and
/// how often in vain until the socket fails: a peer that has vanished without a word is found within a minute, also where
/// no PING is to be expected of it.
const KEEPALIVE_TIME: Duration = Duration::from_secs(30);
const KEEPALIVE_INTERVAL: Duration = Duration::from_secs(10);
const KEEPALIVE_RETRIES: u32 = 3;

/// See the module's description.
pub(crate) struct Socket {
    pub(crate) stream: Stream,
    /// Given back when the socket is closed.
    pub(crate) file: Charge,
}

/// What carries the bytes.
pub(crate) enum Stream {
    Plain(TcpStream),
    Tls(TlsStream),
    #[cfg(any(test, feature = "simulation"))]
    Simulated(SimulatedStream),
}

impl Stream {
    /// The same, driven by the runtime that this is called within.
    pub(crate) fn moved_here(self) -> io::Result<Self> {
        if let Self::Plain(tcp) = self {
            return Ok(Self::Plain(TcpStream::from_std(tcp.into_std()?)?));
        }
        Ok(self)
    }

    pub(crate) fn local_addr(&self) -> io::Result<SocketAddr> {
        match self {
            Self::Plain(tcp) => tcp.local_addr(),
            Self::Tls(tls) => tls.tcp().local_addr(),
            #[cfg(any(test, feature = "simulation"))]
            Self::Simulated(stream) => Ok(stream.local_addr()),
        }
    }

    pub(crate) fn peer_addr(&self) -> io::Result<SocketAddr> {
        match self {
            Self::Plain(tcp) => tcp.peer_addr(),
            Self::Tls(tls) => tls.tcp().peer_addr(),
            #[cfg(any(test, feature = "simulation"))]
            Self::Simulated(stream) => Ok(stream.peer_addr()),
        }
    }
}

impl Socket {
    /// `stream` must belong to the runtime that will drive it.
    pub(crate) fn new(
        stream: Stream,
        options: &ConnectionOptions,
        ledger: &Ledger,
    ) -> Result<Self, SocketError> {
        let file = ledger.charge(Kind::Files, 1)?;
        if let Stream::Plain(tcp) = &stream {
            set_options(tcp, options)?;
        }
        Ok(Self { stream, file })
    }

    /// The same socket after the server's side of a TLS handshake.
    pub(crate) async fn accept_tls(
        self,
        handshake: Handshake,
        tls: &TlsServer,
    ) -> Result<Self, CloseReason> {
        let Self { stream, file } = self;
        let Stream::Plain(tcp) = stream else {
            return Ok(Self { stream, file });
        };
        let stream = Stream::Tls(handshake.accept(tcp, tls).await?);
        Ok(Self { stream, file })
    }

    /// The same socket after the client's side of a TLS handshake with `addr`.
    pub(crate) async fn connect_tls(
        self,
        handshake: Handshake,
        tls: &TlsClient,
        addr: SocketAddr,
    ) -> Result<Self, CloseReason> {
        let Self { stream, file } = self;
        let Stream::Plain(tcp) = stream else {
            return Ok(Self { stream, file });
        };
        let stream = Stream::Tls(handshake.connect(tcp, tls, addr).await?);
        Ok(Self { stream, file })
    }

    pub(crate) fn tls(&self) -> Option<TlsInfo> {
        let Stream::Tls(tls) = &self.stream else {
            return None;
        };
        Some(tls.info())
    }
}

// The receive buffer is left to the kernel: setting it turns its tuning off.
fn set_options(socket: &TcpStream, options: &ConnectionOptions) -> io::Result<()> {
    socket.set_nodelay(true)?;
    let keepalive = TcpKeepalive::new()
        .with_time(KEEPALIVE_TIME)
        .with_interval(KEEPALIVE_INTERVAL)
        .with_retries(KEEPALIVE_RETRIES);
    SockRef::from(socket).set_tcp_keepalive(&keepalive)?;
    match options.send_buffer_bytes {
        // Linux doubles what it is told, for its own book-keeping.
        Some(bytes) => SockRef::from(socket).set_send_buffer_size(bytes),
        None => Ok(()),
    }
}

/// Why a socket cannot become a connection.
#[derive(Debug, thiserror::Error)]
pub(crate) enum SocketError {
    #[error(transparent)]
    Io(#[from] io::Error),
    #[error(transparent)]
    Budget(#[from] BudgetExceeded),
    /// It was closed before the first frame.
    #[error(transparent)]
    Closed(#[from] CloseReason),
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use tokio::net::TcpListener;

    use super::*;
    use crate::ledger::Limits;

    #[tokio::test]
    async fn the_kernel_asks_after_peers_that_are_silent() {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let addr = listener.local_addr().unwrap();
        let (accepted, connected) = tokio::join!(listener.accept(), TcpStream::connect(addr));
        let ledger = Ledger::root("test", Limits::default());
        for tcp in [accepted.unwrap().0, connected.unwrap()] {
            let options = ConnectionOptions::user_server();
            let socket = Socket::new(Stream::Plain(tcp), &options, &ledger).unwrap();
            let Stream::Plain(tcp) = &socket.stream else {
                panic!("it is what it was made of");
            };
            let raw = SockRef::from(tcp);
            assert!(raw.keepalive().unwrap());
            assert_eq!(raw.tcp_keepalive_time().unwrap(), KEEPALIVE_TIME);
            assert_eq!(raw.tcp_keepalive_interval().unwrap(), KEEPALIVE_INTERVAL);
            assert_eq!(raw.tcp_keepalive_retries().unwrap(), KEEPALIVE_RETRIES);
        }
    }
}
