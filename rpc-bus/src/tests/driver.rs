//! A driver whose socket is of a kind that one rarely meets.

use std::{
    io,
    pin::Pin,
    sync::Arc,
    task::{Context, Poll},
    time::Duration,
};

use protos::rpc::RpcMode;
use tokio::{
    io::{AsyncRead, AsyncWrite, ReadBuf},
    sync::oneshot::{self, Receiver},
    time::advance,
};
use tokio_util::task::AbortOnDropHandle;

use super::{link::outgoing, link_with_requests};
use crate::{
    connection::Outcome,
    dispatch::Mailbox,
    driver::Driver,
    error::{CallError, CloseReason},
    frame::{BodyPool, BodyPoolOptions, CoordinationId, FrameDecoder, Header, encode},
    ledger::{Ledger, Limits},
    link::{self, Link},
    vectored::ReadVectored,
};

/// Takes all that is written; how it reads, and whether its end can be said, is given.
struct Strange {
    /// Whole frames, read again and again.
    input: Vec<u8>,
    /// How much of it is read; then nothing ever comes.
    bytes_left: usize,
    ends: bool,
}

impl AsyncRead for Strange {
    fn poll_read(
        mut self: Pin<&mut Self>,
        _: &mut Context<'_>,
        out: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let bytes = self.bytes_left.min(out.remaining());
        if bytes == 0 {
            return Poll::Pending;
        }
        let endless: Vec<u8> = self.input.iter().copied().cycle().take(bytes).collect();
        out.put_slice(&endless);
        let used = bytes % self.input.len();
        self.input.rotate_left(used);
        self.bytes_left -= bytes;
        Poll::Ready(Ok(()))
    }
}

impl ReadVectored for Strange {}

impl AsyncWrite for Strange {
    fn poll_write(
        self: Pin<&mut Self>,
        _: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        Poll::Ready(Ok(bytes.len()))
    }

    fn poll_flush(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }

    fn poll_shutdown(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        if self.ends {
            Poll::Ready(Ok(()))
        } else {
            Poll::Pending
        }
    }
}

/// A server's end with such a socket, and its driver.
fn drive(socket: Strange) -> (Arc<Link>, AbortOnDropHandle<()>) {
    let (link, _) = link_with_requests(0);
    let bodies = BodyPool::new(BodyPoolOptions::default());
    let ledger = Ledger::root("test", Limits::default());
    let decoder = FrameDecoder::new(1 << 20, bodies, ledger);
    let mailbox = Arc::new(Mailbox::new(None));
    let driver = Driver::new(socket, Arc::clone(&link), mailbox, decoder);
    #[expect(clippy::disallowed_methods, reason = "it ends with its handle")]
    let running = tokio::spawn(driver);
    (link, AbortOnDropHandle::new(running))
}

fn call(link: &Link, timeout: Duration) -> Receiver<Outcome> {
    let request = outgoing(link::now());
    let (completion, outcome) = oneshot::channel();
    link.call(request, Some(timeout), completion).unwrap();
    outcome
}

/// The failure of a call that nobody has made, which is ignored.
fn ignored() -> Vec<u8> {
    let (mut frame, mode) = (Vec::new(), RpcMode::ResponseFailure);
    let header = Header {
        coordination_id: CoordinationId(77),
        ..Header::bare(mode)
    };
    encode(&header, &[], &[], &mut frame);
    frame
}

async fn some_turns() {
    for _ in 0..10 {
        tokio::task::yield_now().await;
    }
}

#[tokio::test(start_paused = true)]
async fn deadlines_pass_while_there_is_always_something_to_read() {
    let (link, _driver) = drive(Strange {
        input: ignored(),
        bytes_left: usize::MAX,
        ends: true,
    });
    let mut outcome = call(&link, Duration::from_secs(3));
    some_turns().await;
    assert!(outcome.try_recv().is_err(), "too early");
    advance(Duration::from_secs(3)).await;
    some_turns().await;
    let late = Err(CallError::Timeout(Duration::from_secs(3)));
    assert_eq!(outcome.try_recv(), Ok(late));
}

#[tokio::test(start_paused = true)]
async fn a_closing_connection_ends_though_its_end_cannot_be_said() {
    for bytes_left in [0, usize::MAX] {
        let (link, driver) = drive(Strange {
            input: ignored(),
            bytes_left,
            ends: false,
        });
        some_turns().await;
        link.close(CloseReason::ClosedHere);
        some_turns().await;
        assert!(!driver.is_finished());
        advance(Duration::from_mins(1)).await;
        some_turns().await;
        assert!(driver.is_finished());
    }
}

#[tokio::test(start_paused = true)]
async fn of_many_small_frames_only_some_are_decoded_at_a_time_and_none_is_lost() {
    let (mut pings, header) = (Vec::new(), Header::bare(RpcMode::Ping));
    for _ in 0..5000 {
        encode(&header, &[8, 1], &[], &mut pings);
    }
    let bodies = BodyPool::new(BodyPoolOptions::default());
    let ledger = Ledger::root("test", Limits::default());
    let mut decoder = FrameDecoder::new(1 << 20, bodies, ledger);
    let (mut rest, mut total) = (&pings[..], 0);
    while !rest.is_empty() {
        let mut frames = Vec::new();
        let used = decoder.feed_some(rest, &mut frames, 1000).unwrap();
        assert!((1..1500).contains(&frames.len()));
        (rest, total) = (&rest[used..], total + frames.len());
    }
    assert_eq!(total, 5000);
    // Through a driver, all at once.
    let (link, _driver) = drive(Strange {
        bytes_left: pings.len(),
        input: pings,
        ends: true,
    });
    while link.counters().stats.pings_received < 5000 {
        tokio::task::yield_now().await;
    }
    assert_eq!(link.counters().stats.pings_received, 5000);
}
