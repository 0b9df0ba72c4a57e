//! What kind of error, and whether trying again can help.

use std::time::Duration;

use crate::{
    bus::{ErrorAdvice, error_advice},
    shared::DrillPbError,
};

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

impl From<error_advice::Retry> for Retry {
    fn from(retry: error_advice::Retry) -> Self {
        match retry {
            error_advice::Retry::Never => Self::Never,
            error_advice::Retry::SameNode => Self::SameNode,
            error_advice::Retry::OtherNode => Self::OtherNode,
        }
    }
}

impl From<Retry> for error_advice::Retry {
    fn from(retry: Retry) -> Self {
        match retry {
            Retry::Never => Self::Never,
            Retry::SameNode => Self::SameNode,
            Retry::OtherNode => Self::OtherNode,
        }
    }
}

/// The advice travels inside the error, so that it cannot be lost on the way.
impl DrillPbError {
    /// What was said about another try; `None` where nothing was, as in all errors of a real Drill.
    #[must_use]
    pub fn retry_advice(&self) -> Option<Retry> {
        Some(self.advice.as_ref()?.retry().into())
    }

    /// Whether another try can help; never, if nothing was said.
    #[must_use]
    pub fn retry(&self) -> Retry {
        self.retry_advice().unwrap_or_default()
    }

    /// How long to wait before another try, if that was said.
    #[must_use]
    pub fn retry_after(&self) -> Option<Duration> {
        let millis = self.advice.as_ref()?.retry_after_ms?;
        Some(Duration::from_millis(millis))
    }

    /// Gives the advice `retry`, and keeps the rest of what was said.
    #[must_use]
    pub fn with_retry(mut self, retry: Retry) -> Self {
        let retry = error_advice::Retry::from(retry);
        self.advice.get_or_insert_default().set_retry(retry);
        self
    }

    /// Advises to wait before another try, in whole milliseconds.
    #[must_use]
    pub fn with_retry_after(mut self, wait: Duration) -> Self {
        let millis = u64::try_from(wait.as_millis()).unwrap_or(u64::MAX);
        let advice = self.advice.get_or_insert_with(ErrorAdvice::default);
        advice.retry_after_ms = Some(millis);
        self
    }

    /// The error as a peer may see it that knows Drill's fields only.
    #[must_use]
    pub fn without_advice(mut self) -> Self {
        self.advice = None;
        self
    }
}

#[cfg(test)]
mod tests {
    use prost::Message;

    use super::*;

    #[test]
    fn advice_is_kept_on_the_wire() {
        for retry in [Retry::Never, Retry::SameNode, Retry::OtherNode] {
            let error = DrillPbError::default()
                .with_retry_after(Duration::from_millis(1500))
                .with_retry(retry);
            let back = DrillPbError::decode(&*error.encode_to_vec()).expect("our own bytes");
            assert_eq!(back.retry_advice(), Some(retry));
            assert_eq!(back.retry_after(), Some(Duration::from_millis(1500)));
        }
    }

    #[test]
    fn no_advice_means_never() {
        let drills = DrillPbError::default();
        assert_eq!(
            (drills.retry(), drills.retry_advice()),
            (Retry::Never, None)
        );
        assert_eq!(
            drills.clone().with_retry(Retry::SameNode).without_advice(),
            drills
        );
    }

    #[test]
    fn an_unknown_advice_means_never() {
        let mut unknown = DrillPbError::default().with_retry(Retry::SameNode);
        unknown.advice.get_or_insert_default().retry = Some(77);
        assert_eq!(unknown.retry(), Retry::Never);
    }
}
