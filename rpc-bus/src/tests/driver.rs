//! A driver whose socket is of a kind that one rarely meets.

use std::{
    io,
    pin::Pin,
    sync::Arc,
    task::{Context, Poll},
    time::Duration,
};

use bytes::Bytes;
use protos::rpc::RpcMode;
use tokio::{
    io::{AsyncRead, AsyncWrite, ReadBuf},
    sync::oneshot::{self, Receiver},
    time::advance,
};
use tokio_util::task::AbortOnDropHandle;

use super::{link_with_requests, pair::REQUEST};
use crate::{
    connection::{Outcome, Outgoing},
    dispatch::Mailbox,
    driver::Driver,
    error::{CallError, CloseReason},
    frame::{BodyPool, BodyPoolOptions, CoordinationId, FrameDecoder, Header, encode},
    lanes::StreamKey,
    ledger::{Ledger, Limits},
    link::{self, Link, Room},
};

/// Takes all that is written; how it reads, and whether its end can be said, is given.
struct Strange {
    /// Read again and again; if it is empty, nothing ever comes.
    input: Vec<u8>,
    ends: bool,
}

impl AsyncRead for Strange {
    fn poll_read(
        self: Pin<&mut Self>,
        _: &mut Context<'_>,
        out: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        if self.input.is_empty() {
            return Poll::Pending;
        }
        while out.remaining() >= self.input.len() {
            out.put_slice(&self.input);
        }
        Poll::Ready(Ok(()))
    }
}

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
    let request = Outgoing {
        rpc_type: REQUEST,
        pbody: Bytes::new().into(),
        dbody: Vec::new(),
        stream: StreamKey::default(),
        room: Room::default(),
        began: link::now(),
    };
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
    for input in [Vec::new(), ignored()] {
        let (link, driver) = drive(Strange { input, ends: false });
        some_turns().await;
        link.close(CloseReason::ClosedHere);
        some_turns().await;
        assert!(!driver.is_finished());
        advance(Duration::from_mins(1)).await;
        some_turns().await;
        assert!(driver.is_finished());
    }
}
