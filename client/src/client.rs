//! The client: one connection, and further ones where a result needs one of its own.

use std::{
    net::SocketAddr,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
};

use protos::{
    calls::user::{Drain, GetStatus as GetStatusCall},
    rpc::Ack,
    status::{ClusterStatus, GetStatus},
};
use rpc_bus::CloseReason;

use crate::{
    error::ClientError,
    handshake::{ServerInfo, ServerKind},
    link::{Lease, Link},
    options::ClientOptions,
    stream::QueryStream,
};

/// A client of one server. Dropping it leaves the results that are being read alone.
#[derive(Debug)]
pub struct Client {
    server: ServerInfo,
    options: Arc<ClientOptions>,
    /// The session of this client is here.
    first: Arc<Link>,
    /// Further connections to a server that sends without limit, with sessions of their own.
    further: Mutex<Vec<Arc<Link>>>,
}

impl Client {
    /// Connects to `host:port`, or to one of several, with commas in between: to the first one that
    /// answers, in their order. A name that stands for several addresses is as good as a list of
    /// them. Nothing is tried twice: when to do so, and how often, is for the caller to say, with an
    /// `rpc_bus::RetryPolicy` where that fits.
    ///
    /// # Errors
    ///
    /// No such address, nobody there, the server shows a wrong certificate, or it refuses. Of
    /// several, that of the last one; a server that refuses has answered, and no other is asked.
    pub async fn connect(addresses: &str, options: ClientOptions) -> Result<Self, ClientError> {
        let mut last = ClientError::Protocol("no address");
        for address in addresses.split(',').map(str::trim) {
            match Self::connect_one(address, options.clone()).await {
                Err(error @ (ClientError::Connect(_) | ClientError::Address { .. })) => {
                    last = error;
                }
                done => return done,
            }
        }
        Err(last)
    }

    async fn connect_one(address: &str, mut options: ClientOptions) -> Result<Self, ClientError> {
        let tls = options.tls.map(|tls| tls.for_host(host(address)));
        options.tls = tls.transpose()?;
        let options = Arc::new(options);
        let (first, server) = connect_any(resolve(address).await?, &options).await?;
        Ok(Self {
            server,
            options,
            first,
            further: Mutex::default(),
        })
    }

    /// Who answers.
    #[must_use]
    pub fn server(&self) -> &ServerInfo {
        &self.server
    }

    /// Sends a query. Several may run at once.
    ///
    /// A real Drill gets a connection for each of them. What a statement changes in its session
    /// (`USE`, `ALTER SESSION`) holds for the client's first connection, which is used whenever no
    /// other result is read from it.
    ///
    /// # Errors
    ///
    /// The server refused the query, or the connection is lost. Most errors of a query come with
    /// its stream.
    ///
    /// # Cancel safety
    ///
    /// A query whose future is dropped may run and is then cancelled.
    pub async fn query(&self, sql: &str) -> Result<QueryStream, ClientError> {
        if self.first.connection().is_closed() {
            return Err(ClientError::Lost(self.first.connection().closed().await));
        }
        match self.server.kind {
            ServerKind::Acknowledged => self.first.query(sql, None).await,
            ServerKind::Unlimited => {
                let lease = self.lease().await?;
                Arc::clone(lease.link()).query(sql, Some(lease)).await
            }
        }
    }

    /// What the server knows of itself and of its cluster. Only our own nodes tell.
    ///
    /// # Errors
    ///
    /// [`ClientError::NotOurs`] of any other server, or there is no answer.
    pub async fn status(&self) -> Result<ClusterStatus, ClientError> {
        self.first.admin::<GetStatusCall>(&GetStatus {}).await
    }

    /// Asks the server to take no new queries, to end those that run, and to leave. Returns once it has begun to; it
    /// closes the connection when it leaves.
    ///
    /// # Errors
    ///
    /// [`ClientError::NotOurs`] of any other server, or there is no answer.
    pub async fn drain(&self) -> Result<(), ClientError> {
        self.first.admin::<Drain>(&Ack::default()).await?;
        Ok(())
    }

    /// The connection has ended, and why.
    pub async fn closed(&self) -> CloseReason {
        self.first.connection().closed().await
    }

    /// Closes all connections; results that are being read end with an error.
    pub async fn close(self) {
        self.first.connection().close();
        for link in self.lock().iter() {
            link.connection().close();
        }
        self.first.connection().closed().await;
    }

    /// A connection of one's own: one that is idle, or a new one.
    async fn lease(&self) -> Result<Lease, ClientError> {
        if let Some(lease) = self.idle() {
            return Ok(lease);
        }
        let connections_max = self.options.connections_max;
        if self.lock().len() + 1 >= connections_max {
            return Err(ClientError::TooManyConnections { connections_max });
        }
        let (link, _) = Link::connect(self.server.address, &self.options).await?;
        self.lock().push(Arc::clone(&link));
        link.lease()
            .ok_or(ClientError::TooManyConnections { connections_max })
    }

    fn idle(&self) -> Option<Lease> {
        let mut further = self.lock();
        further.retain(|link| !link.connection().is_closed());
        self.first
            .lease()
            .or_else(|| further.iter().find_map(Link::lease))
    }

    fn lock(&self) -> MutexGuard<'_, Vec<Arc<Link>>> {
        self.further.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Without the port, and without the brackets of an IPv6 address.
fn host(address: &str) -> &str {
    let host = address.rsplit_once(':').map_or(address, |(host, _)| host);
    let bare = host
        .strip_prefix('[')
        .and_then(|host| host.strip_suffix(']'));
    bare.unwrap_or(host)
}

async fn resolve(address: &str) -> Result<Vec<SocketAddr>, ClientError> {
    let unknown = |source| ClientError::Address {
        address: address.to_owned(),
        source,
    };
    let found = tokio::net::lookup_host(address).await.map_err(unknown)?;
    let found: Vec<_> = found.collect();
    if found.is_empty() {
        return Err(unknown(std::io::ErrorKind::NotFound.into()));
    }
    Ok(found)
}

/// The first address that answers, or the error of the last one.
async fn connect_any(
    addresses: Vec<SocketAddr>,
    options: &Arc<ClientOptions>,
) -> Result<(Arc<Link>, ServerInfo), ClientError> {
    let mut last = ClientError::Protocol("no address");
    for address in addresses {
        match Link::connect(address, options).await {
            Err(error @ ClientError::Connect(_)) => last = error,
            done => return done,
        }
    }
    Err(last)
}
