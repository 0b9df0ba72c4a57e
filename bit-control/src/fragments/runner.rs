//! What an engine has to do for its fragments to be run.

use std::{fmt, sync::Arc};

use bytes::Bytes;
use futures::future::BoxFuture;
use membership::NodeAddress;
use protos::{id::FragmentId, shared::MinorFragmentProfile};
use rpc_bus::RpcFailure;

/// One fragment, as its foreman has sent it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct FragmentTask {
    /// Which one.
    pub id: FragmentId,
    /// Whose query it is of.
    pub foreman: NodeAddress,
    /// Whether it receives from no other fragment.
    pub is_leaf: bool,
    /// For the engine alone to read.
    pub plan: Bytes,
}

/// An engine that runs fragments.
pub trait FragmentRunner: Send + Sync + 'static {
    /// Makes a fragment ready: the future is done once it can receive data. It is dropped if the fragment is cancelled
    /// before. A panic fails the fragment.
    fn start(&self, task: FragmentTask) -> BoxFuture<'static, Result<Started, Box<RpcFailure>>>;
}

/// A fragment that is ready.
pub struct Started {
    /// How to reach it while it runs.
    pub control: Arc<dyn FragmentControl>,
    /// Runs it to its end. It is dropped if it has not ended within a grace time after [`FragmentControl::cancel`], and
    /// the fragment counts as cancelled whether or not that took effect. A panic fails the fragment.
    pub run: BoxFuture<'static, Result<(), Box<RpcFailure>>>,
}

impl fmt::Debug for Started {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Started").finish_non_exhaustive()
    }
}

/// A fragment that runs. No method may wait.
pub trait FragmentControl: Send + Sync + 'static {
    /// Asks it to end soon. May come before [`Started::run`] is looked at for the first time.
    fn cancel(&self);

    /// Lets it go on if a test has paused it.
    fn unpause(&self) {}

    /// `receiver` wants no more of it.
    fn receiver_finished(&self, receiver: FragmentId) {
        let _ = receiver;
    }

    /// How far it is: times, memory, operators. Its state, error and number are filled in. Asked about once per report
    /// interval, and when it has ended. A foreman keeps at most 1,000 operators and 256 KiB of it; more fails the query.
    fn profile(&self) -> MinorFragmentProfile {
        MinorFragmentProfile::default()
    }
}
