//! The batches of one query that were sent and not acknowledged yet, limited in number and in
//! bytes.

use futures::{
    StreamExt,
    future::{self, Join, Ready},
    stream::FuturesUnordered,
};

/// Unacknowledged batches; `F` is what waits for one acknowledgement.
pub(crate) struct Window<F: Future> {
    limits: WindowLimits,
    /// With each its bytes.
    waiting: FuturesUnordered<Join<Ready<usize>, F>>,
    bytes: usize,
}

#[derive(Clone, Copy, Debug)]
pub(crate) struct WindowLimits {
    pub(crate) batches_max: usize,
    pub(crate) bytes_max: usize,
}

impl<F: Future> Window<F> {
    pub(crate) fn new(limits: WindowLimits) -> Self {
        Self {
            limits,
            waiting: FuturesUnordered::new(),
            bytes: 0,
        }
    }

    /// Whether a batch may be sent now. The only batch may be of any size.
    pub(crate) fn has_room(&self, bytes: usize) -> bool {
        let fits = self.waiting.len() < self.limits.batches_max
            && self.bytes.saturating_add(bytes) <= self.limits.bytes_max;
        fits || self.waiting.is_empty()
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.waiting.is_empty()
    }

    /// Counts a batch that was sent.
    pub(crate) fn push(&mut self, bytes: usize, acknowledgement: F) {
        self.bytes = self.bytes.saturating_add(bytes);
        self.waiting
            .push(future::join(future::ready(bytes), acknowledgement));
    }

    /// Waits for any acknowledgement; `None` if nothing is outstanding. Cancel-safe.
    pub(crate) async fn next(&mut self) -> Option<F::Output> {
        let (bytes, outcome) = self.waiting.next().await?;
        self.bytes -= bytes;
        Some(outcome)
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use tokio::sync::oneshot;

    use super::*;

    const LIMITS: WindowLimits = WindowLimits {
        batches_max: 2,
        bytes_max: 100,
    };

    #[tokio::test]
    async fn batches_and_bytes_are_limited_until_acknowledged() {
        let mut window = Window::new(LIMITS);
        let (first, waiting) = oneshot::channel();
        window.push(60, waiting);
        assert!(window.has_room(40) && !window.has_room(41));
        let (_second, waiting) = oneshot::channel::<&str>();
        window.push(10, waiting);
        assert!(!window.has_room(0), "two batches are outstanding");
        first.send("ok").unwrap();
        assert_eq!(window.next().await, Some(Ok("ok")));
        assert!(window.has_room(90) && !window.has_room(91));
    }

    #[tokio::test]
    async fn a_batch_above_the_limit_goes_alone() {
        let mut window = Window::new(LIMITS);
        assert!(window.has_room(1000));
        let (_first, waiting) = oneshot::channel::<()>();
        window.push(1000, waiting);
        assert!(!window.has_room(0));
    }

    #[tokio::test]
    async fn an_empty_window_waits_for_nothing() {
        let mut window = Window::<oneshot::Receiver<()>>::new(LIMITS);
        assert!(window.is_empty());
        assert_eq!(window.next().await, None);
    }
}
