//! The user plane, server side: Drill clients connect, send SQL, and read results as Drill's record
//! batches.
//!
//! [`UserServer`] speaks the protocol; an [`Engine`] answers the queries. One query goes this way:
//!
//! ```text
//! RUN_QUERY -> connection.rs (limits, id, QUERY_HANDLE) -> query.rs (one task) -> Session::run
//!     -> shape.rs (pieces of about 1 MiB) -> result.rs (encode on the cpu pool)
//!     -> window.rs (unacknowledged batches)
//!     -> QUERY_DATA* -> QUERY_RESULT
//! ```
//!
//! What is served: handshake (version 5, with authentication if asked for), SQL queries, cancel, server meta.
//! Every other request of the protocol is refused by name with a `RESPONSE_FAILURE`, and the
//! connection goes on.
//!
//! ```no_run
//! # use std::sync::Arc;
//! # use rpc_bus::{BusRuntime, ledger::Ledger};
//! # use user_server::{Engine, UserServer, UserServerOptions};
//! # type Done = std::io::Result<()>;
//! # async fn serve(runtime: BusRuntime, ledger: Ledger, engine: Arc<dyn Engine>) -> Done {
//! let address = "127.0.0.1:31010".parse().expect("a literal address");
//! let options = UserServerOptions::default();
//! let server = UserServer::bind(address, runtime, options, ledger, engine).await?;
//! println!("ready user={}", server.local_addr());
//! # Ok(())
//! # }
//! ```

mod admin;
mod bodies;
mod connection;
mod engine;
mod error;
mod handshake;
mod meta;
mod names;
mod options;
mod query;
mod registry;
mod result;
mod server;
mod session;
mod shape;
mod window;

pub use admin::NodeAdmin;
pub use engine::{Engine, QueryOutput, QueryRequest, Session, SessionProperties};
pub use error::UserError;
pub use handshake::SERVER_NAME;
pub use meta::server_meta;
pub use options::UserServerOptions;
pub use registry::{Queries, QueryCounts, QuerySnapshot};
pub use server::UserServer;
