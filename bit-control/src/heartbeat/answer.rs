//! The other end of a beat: answered on the I/O thread, as soon as it is read.

use std::{fmt, sync::Arc};

use membership::NodeAddress;
use protos::{
    calls::control as calls,
    control::{Beat, BeatAnswer},
    error::ErrorType,
};
use rpc_bus::{InboundRequest, RpcFailure};

use super::driver::{Shared, unix_us};

/// Longest beat, in bytes: an endpoint of the longest, two versions, and numbers.
const BEAT_BYTES_MAX: usize = 8 * 1024;

/// Answers the beats of other nodes. Never waits.
#[derive(Clone)]
pub struct BeatAnswerer(Arc<Shared>);

impl BeatAnswerer {
    pub(super) fn new(shared: Arc<Shared>) -> Self {
        Self(shared)
    }

    /// Answers a BEAT of the node `from`. What is no beat is refused.
    pub fn answer(&self, from: &NodeAddress, request: InboundRequest) {
        let received = unix_us();
        let bytes = request.pbody.len();
        if bytes > BEAT_BYTES_MAX {
            let message =
                format!("expected a beat of at most {BEAT_BYTES_MAX} bytes, found {bytes}");
            return request.refuse(RpcFailure::new(ErrorType::Validation, message));
        }
        if let Some((beat, _, reply)) = request.decode::<calls::Beat>() {
            reply.send(&self.answer_to(&beat, received));
            let incarnation = beat.sender.and_then(|sender| sender.incarnation);
            self.0.on_beat(from, incarnation);
        }
    }

    fn answer_to(&self, beat: &Beat, received_unix_us: u64) -> BeatAnswer {
        BeatAnswer {
            sequence: beat.sequence,
            received_unix_us: Some(received_unix_us),
            sender: self.0.status(),
            sent_unix_us: Some(unix_us()),
        }
    }
}

impl fmt::Debug for BeatAnswerer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("BeatAnswerer").finish_non_exhaustive()
    }
}
