//! A connected socket, with its place in the ledger, before frames go over it.

use std::{io, net::SocketAddr, time::Duration};

use socket2::{SockRef, TcpKeepalive};
use tokio::net::TcpStream;

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
}

impl Socket {
    /// `tcp` must belong to the runtime that will drive it.
    pub(crate) fn plain(
        tcp: TcpStream,
        options: &ConnectionOptions,
        ledger: &Ledger,
    ) -> Result<Self, SocketError> {
        let file = ledger.charge(Kind::Files, 1)?;
        set_options(&tcp, options)?;
        Ok(Self {
            stream: Stream::Plain(tcp),
            file,
        })
    }

    /// The same socket after the server's side of a TLS handshake.
    pub(crate) async fn accept_tls(
        self,
        handshake: Handshake,
        tls: &TlsServer,
    ) -> Result<Self, CloseReason> {
        let Self { stream, file } = self;
        let stream = match stream {
            Stream::Plain(tcp) => Stream::Tls(handshake.accept(tcp, tls).await?),
            done @ Stream::Tls(_) => done,
        };
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
        let stream = match stream {
            Stream::Plain(tcp) => Stream::Tls(handshake.connect(tcp, tls, addr).await?),
            done @ Stream::Tls(_) => done,
        };
        Ok(Self { stream, file })
    }

    pub(crate) fn tcp(&self) -> &TcpStream {
        match &self.stream {
            Stream::Plain(tcp) => tcp,
            Stream::Tls(tls) => tls.tcp(),
        }
    }

    pub(crate) fn tls(&self) -> Option<TlsInfo> {
        match &self.stream {
            Stream::Plain(_) => None,
            Stream::Tls(tls) => Some(tls.info()),
        }
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
            let socket = Socket::plain(tcp, &options, &ledger).unwrap();
            let raw = SockRef::from(socket.tcp());
            assert!(raw.keepalive().unwrap());
            assert_eq!(raw.tcp_keepalive_time().unwrap(), KEEPALIVE_TIME);
            assert_eq!(raw.tcp_keepalive_interval().unwrap(), KEEPALIVE_INTERVAL);
            assert_eq!(raw.tcp_keepalive_retries().unwrap(), KEEPALIVE_RETRIES);
        }
    }
}
