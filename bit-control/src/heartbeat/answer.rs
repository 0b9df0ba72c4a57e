//! The other end of a beat: answered on the I/O thread, as soon as it is read.

use std::{
    fmt,
    ops::RangeInclusive,
    sync::{Arc, OnceLock},
};

use membership::NodeAddress;
use protos::{
    Call,
    calls::control as calls,
    control::{Beat, BeatAnswer},
    error::ErrorType,
};
use rpc_bus::{InboundRequest, RpcFailure};

use super::{
    beat::ANNOUNCEMENT,
    driver::{Heartbeats, Shared, unix_us},
    status::{incarnation, learned},
};
use crate::services::Extension;

/// Longest beat, in bytes: an endpoint of the longest, two versions, and numbers.
const BEAT_BYTES_MAX: usize = 8 * 1024;

/// Answers the beats of other nodes: one of the [extensions](crate::Services::extensions) of a control node, which then
/// offers [`Feature::Beats`](rpc_bus::Feature::Beats). Clones are the same.
///
/// There before the [`Heartbeats`] are, because the node's address may only be known once its server listens.
#[derive(Clone, Default)]
pub struct BeatAnswerer(Arc<OnceLock<Arc<Shared>>>);

impl BeatAnswerer {
    /// Answers for these from now on; before, beats are refused. Once only.
    pub fn serve(&self, heartbeats: &Heartbeats) {
        self.0.get_or_init(|| Arc::clone(heartbeats.shared()));
    }

    /// Answers a BEAT of the node `from`. What is no beat is refused.
    fn answer(&self, from: &NodeAddress, request: InboundRequest) {
        let received = unix_us();
        let Some(shared) = self.0.get() else {
            let failure = RpcFailure::new(ErrorType::Resource, "this node is starting");
            return request.refuse(failure);
        };
        let bytes = request.pbody.len();
        if bytes > BEAT_BYTES_MAX {
            let message =
                format!("expected a beat of at most {BEAT_BYTES_MAX} bytes, found {bytes}");
            return request.refuse(RpcFailure::new(ErrorType::Validation, message));
        }
        if let Some((beat, _, reply)) = request.decode::<calls::Beat>() {
            if beat.sequence() == ANNOUNCEMENT
                && let Ok(learned) = learned(beat.sender.clone())
            {
                shared.on_announcement(from, &learned);
            }
            reply.send(&answer_to(&beat, shared, received));
            shared.on_beat(from, incarnation(beat.sender));
        }
    }
}

impl Extension for BeatAnswerer {
    fn rpc_types(&self) -> RangeInclusive<i32> {
        calls::Beat::REQUEST..=calls::Beat::REQUEST
    }

    fn runs_inline(&self, _: i32) -> bool {
        true
    }

    fn request(&self, from: &NodeAddress, request: InboundRequest) {
        self.answer(from, request);
    }
}

fn answer_to(beat: &Beat, shared: &Shared, received_unix_us: u64) -> BeatAnswer {
    BeatAnswer {
        sequence: beat.sequence,
        received_unix_us: Some(received_unix_us),
        sender: shared.status(),
        sent_unix_us: Some(unix_us()),
    }
}

impl fmt::Debug for BeatAnswerer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("BeatAnswerer").finish_non_exhaustive()
    }
}
