//! Other people's stacks.

pub(super) mod tarpc;
pub(super) mod tonic;

use std::net::SocketAddr;

use anyhow::Result;
use tokio::net::TcpListener;

/// A listener on a free port of this machine.
async fn listen() -> Result<(TcpListener, SocketAddr)> {
    let listener = TcpListener::bind("127.0.0.1:0").await?;
    let addr = listener.local_addr()?;
    Ok((listener, addr))
}
