//! What kind of error, and whether trying again can help.

pub use crate::shared::drill_pb_error::ErrorType;

/// Whether a failed request is worth another try; set where the error is born, kept through every wrapping.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub enum Retry {
    /// The same request fails again anywhere. Also what an unknown error means.
    #[default]
    Never,
    /// The same node may take it a moment later.
    SameNode,
    /// Another node may take it.
    OtherNode,
}

impl Retry {
    /// Whether any further try makes sense.
    #[must_use]
    pub fn is_worthwhile(self) -> bool {
        self != Self::Never
    }
}
