//! What a node offers our own tools beside queries.

use std::fmt;

use protos::status::ClusterStatus;

/// A node as its tools see it: `drillbit status`, `top` and `drain`. Both calls come on an app thread and must not wait.
pub trait NodeAdmin: fmt::Debug + Send + Sync + 'static {
    /// What it knows of itself and of its cluster.
    fn status(&self) -> ClusterStatus;

    /// Asks for its end: it takes no new work, ends what runs, and leaves. Asking again changes nothing.
    fn drain(&self);
}
