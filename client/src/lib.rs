//! The user plane, client side: SQL to a stream of Arrow record batches, from our node or from a
//! real Drill.
//!
//! ```no_run
//! use client::{Client, ClientOptions};
//! use futures::TryStreamExt;
//! # use rpc_bus::{BusRuntime, Ledger};
//!
//! # async fn rows(runtime: BusRuntime, ledger: Ledger) -> Result<(), client::ClientError> {
//! let options = ClientOptions::new(runtime, ledger);
//! let client = Client::connect("127.0.0.1:31010", options).await?;
//! let mut result = client.query("select full_name from cp.`employee.json`").await?;
//! while let Some(batch) = result.try_next().await? {
//!     println!("{} rows", batch.num_rows());
//! }
//! # Ok(())
//! # }
//! ```
//!
//! Nothing is read ahead without limit. Our node waits for acknowledgements, which are sent when
//! the consumer takes a batch. A real Drill sends on without them, so there the client stops
//! reading the connection when too much waits for the consumer, and gives every query that streams
//! a connection of its own.

mod bodies;
mod client;
mod error;
mod gate;
mod handshake;
mod link;
mod options;
mod router;
mod stream;

pub use client::Client;
pub use error::{ClientError, RemoteError};
pub use handshake::{ServerInfo, ServerKind};
pub use options::ClientOptions;
pub use stream::{QueryEvent, QueryStream};
