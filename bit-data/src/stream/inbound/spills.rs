//! What goes to disk and when: frames and takes by hand, files on a thread of the test's runtime.

use std::path::Path;

use rpc_bus::ledger::Limits;
use tempfile::TempDir;
use tokio::runtime::Handle;

use super::*;
use crate::{spill::SpillOptions, stream::options::ReceiveOptions};

const KIB: usize = 1024;
const MIB: usize = 1024 * KIB;

/// A stream that spills, and its sender.
struct ByHand {
    inbound: Arc<Inbound>,
    budget: Ledger,
    dir: SpillDir,
    _parent: TempDir,
    next_sequence: u64,
}

impl ByHand {
    /// One of `streams` that share a budget.
    fn new(budget_bytes: usize, streams: usize, spill: &SpillOptions) -> Self {
        let parent = tempfile::tempdir().expect("a directory");
        let dir = open(parent.path(), spill);
        let budget = Ledger::root("budget", bytes(budget_bytes));
        let inbound = inbound(&budget, budget_bytes, streams, &dir);
        Self {
            inbound,
            budget,
            dir,
            _parent: parent,
            next_sequence: 0,
        }
    }

    fn send(&mut self, frame: StreamFrame, body_bytes: usize) {
        let frame = StreamFrame {
            sequence: Some(self.next_sequence),
            ..frame
        };
        self.next_sequence += 1;
        let (accepted, _) = self.inbound.accept(frame, body(body_bytes));
        accepted.expect("it keeps to the protocol");
    }

    fn send_batch(&mut self, bytes: usize) {
        self.send(StreamFrame::default(), bytes);
    }

    /// Whether the sender has credit.
    fn has_credit(&self) -> bool {
        !lock(&self.inbound.state).intake.window.is_used_up()
    }

    /// Bytes of the next batch.
    async fn take(&self) -> usize {
        let taken = std::future::poll_fn(|cx| self.inbound.poll_take(cx)).await;
        match taken.expect("a batch").expect("no error").item {
            Item::Encoded(batch) => batch.frames.iter().map(|(_, body)| body.len()).sum(),
            Item::Value(batch, _) => batch.get_array_memory_size(),
        }
    }
}

fn open(parent: &Path, options: &SpillOptions) -> SpillDir {
    let ledger = Ledger::root("spilling", Limits::default());
    let dir = SpillDir::open(parent, options, &ledger, Handle::current());
    dir.expect("a directory")
}

fn inbound(budget: &Ledger, budget_bytes: usize, streams: usize, dir: &SpillDir) -> Arc<Inbound> {
    let options = ReceiveOptions {
        budget_bytes,
        spill: Some(dir.clone()),
        ..ReceiveOptions::default()
    };
    let terms = Terms {
        has_checksums: false,
        batch_bytes_max: 64 * MIB,
    };
    let sizes = options.windows(streams).expect("there is room");
    let inbound = Inbound::try_new(sizes, terms, budget).expect("there is room");
    let inbound = Arc::new(inbound);
    inbound.spill_to(dir);
    inbound
}

fn bytes(limit: usize) -> Limits {
    Limits {
        bytes: Some(limit),
        ..Limits::default()
    }
}

fn body(bytes: usize) -> Bytes {
    Bytes::from(vec![7; bytes])
}

#[tokio::test]
async fn a_row_longer_than_the_budget_goes_to_disk_and_comes_back() {
    let mut stream = ByHand::new(MIB, 1, &SpillOptions::default());
    for _ in 0..3 {
        let first = StreamFrame {
            chunked_bytes: Some(2 * MIB as u64),
            ..StreamFrame::default()
        };
        stream.send(first, MIB);
        assert!(!stream.has_credit(), "all of the row counts");
        stream.send_batch(MIB);
        assert!(stream.has_credit(), "there is room on disk");
    }
    stream.dir.idle().await;
    for _ in 0..3 {
        assert_eq!(stream.take().await, 2 * MIB);
    }
    assert!(stream.budget.used(Kind::Bytes) <= MIB && stream.has_credit());
    stream.inbound.close();
    assert!(stream.budget.is_zero());
}
