//! What carries the bytes of a node's connections: TCP, or in tests a simulated network. Whoever connects or listens
//! asks the network of its [`BusRuntime`](crate::BusRuntime).

use std::{io, net::SocketAddr};

use tokio::net::{TcpListener, TcpSocket, TcpStream};

#[cfg(any(test, feature = "simulation"))]
use crate::simulation::{Host, SimulatedListener};
use crate::socket::Stream;

/// The network that a node is on.
#[derive(Clone, Debug)]
pub(crate) enum Network {
    Tcp,
    #[cfg(any(test, feature = "simulation"))]
    Simulated(Host),
}

/// Where a server accepts.
pub(crate) enum Listener {
    Tcp(TcpListener),
    #[cfg(any(test, feature = "simulation"))]
    Simulated(SimulatedListener),
}

impl Network {
    pub(crate) async fn connect(&self, to: SocketAddr) -> io::Result<Stream> {
        match self {
            Self::Tcp => Ok(Stream::Plain(TcpStream::connect(to).await?)),
            #[cfg(any(test, feature = "simulation"))]
            Self::Simulated(host) => Ok(Stream::Simulated(host.connect(to).await?)),
        }
    }

    /// Within the runtime that is to accept.
    pub(crate) fn listen(&self, addr: SocketAddr, backlog: u32) -> io::Result<Listener> {
        match self {
            Self::Tcp => Ok(Listener::Tcp(listen(addr, backlog)?)),
            #[cfg(any(test, feature = "simulation"))]
            Self::Simulated(host) => Ok(Listener::Simulated(host.listen(addr)?)),
        }
    }
}

impl Listener {
    pub(crate) fn local_addr(&self) -> io::Result<SocketAddr> {
        match self {
            Self::Tcp(listener) => listener.local_addr(),
            #[cfg(any(test, feature = "simulation"))]
            Self::Simulated(listener) => Ok(listener.local_addr()),
        }
    }

    pub(crate) async fn accept(&self) -> io::Result<(Stream, SocketAddr)> {
        match self {
            Self::Tcp(listener) => {
                let (tcp, peer) = listener.accept().await?;
                Ok((Stream::Plain(tcp), peer))
            }
            #[cfg(any(test, feature = "simulation"))]
            Self::Simulated(listener) => {
                let (stream, peer) = listener.accept().await;
                Ok((Stream::Simulated(stream), peer))
            }
        }
    }
}

fn listen(addr: SocketAddr, backlog: u32) -> io::Result<TcpListener> {
    let socket = if addr.is_ipv4() {
        TcpSocket::new_v4()?
    } else {
        TcpSocket::new_v6()?
    };
    socket.set_reuseaddr(true)?;
    socket.bind(addr)?;
    socket.listen(backlog)
}
