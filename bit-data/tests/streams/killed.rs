//! Processes that are killed (signal 9) in the middle of their streams, and one beside them that is not.
//!
//! Each of them sends and receives, so that every kill is one of senders and of receivers. When it comes follows from a
//! seed: `KILLS` and `KILLS_SEED` are for more of them, and for others.

use std::{
    env,
    io::{BufRead, BufReader},
    net::SocketAddr,
    ops::Range,
    process::{Child, ChildStdout, Command, Stdio},
    str::FromStr,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
};

use bit_data::{
    NodeOptions, Origin, ReceiveError, ReceiveOptions, SendError, StreamAddress, StreamReceiver,
    StreamSender,
};
use futures::{SinkExt, StreamExt, future::join_all};
use protos::{error::Retry, id::QueryId};
use rand::{Rng, SeedableRng, rngs::StdRng};
use tokio::task::JoinHandle;

use crate::support::{Node, batch, expected, identity, receive_all, send_all, settled_at, used};

const PAYLOAD_BYTES: usize = 20_000;
/// Stream 0 of each way, which ends before anybody is killed.
const WHOLE_BATCHES: i64 = 5;
/// The other streams of each way, which have no end of their own.
const ENDLESS: Range<i32> = 1..4;
/// Batches of one of them that come before the kill.
const BATCHES_BEFORE_MAX: i64 = 60;

/// Arguments of the other process: its number, where it listens, and who is not killed.
const PEER: [&str; 3] = ["PEER_NUMBER", "PEER_LISTENS", "PEER_OF"];
/// It says this, and where it listens; in the end this, and how many batches came of each endless stream.
const LISTENS: &str = "listens on ";
const TOOK: &str = "took ";

fn variable<T: FromStr>(name: &str) -> Option<T> {
    env::var(name).ok()?.parse().ok()
}

/// A stream from the process of this number to the test.
fn from_peer(process: i64, minor: i32) -> StreamAddress {
    StreamAddress::new(query(process), (1, minor), (0, minor))
}

/// The other way.
fn to_peer(process: i64, minor: i32) -> StreamAddress {
    StreamAddress::new(query(process), (2, minor), (0, minor))
}

fn query(process: i64) -> QueryId {
    QueryId {
        part1: process,
        part2: 0,
    }
}

async fn open(node: &Node, from: SocketAddr, stream: StreamAddress) -> StreamReceiver {
    let options = ReceiveOptions::default();
    let receiver = node.node.receiver(Origin::Node(from), stream, &options);
    receiver.await.expect("a sender is there")
}

async fn send_whole(sender: StreamSender) {
    let sent = send_all(sender, 0, WHOLE_BATCHES, PAYLOAD_BYTES).await;
    sent.expect("nobody is killed yet");
}

async fn receive_whole(receiver: StreamReceiver) {
    let (seen, end) = receive_all(receiver).await;
    assert!(end.is_ok() && seen == expected(0, WHOLE_BATCHES), "{end:?}");
}

/// What runs in the other process.
#[tokio::test]
#[ignore = "is killed by another test, which starts it"]
async fn peer() {
    let (Some(number), Some(listens), Some(test)) =
        (variable(PEER[0]), variable(PEER[1]), variable(PEER[2]))
    else {
        return;
    };
    let node = Node::start_at(listens, NodeOptions::default()).await;
    println!("{LISTENS}{}", node.node.local_addr());
    let receive = async |minor| receive_all(open(&node, test, to_peer(number, minor)).await).await;
    let sending = ENDLESS.map(|minor| {
        let sender = node.sender(from_peer(number, minor));
        send_all(sender, minor.into(), i64::MAX, PAYLOAD_BYTES)
    });
    let ((), (), sent, received) = tokio::join!(
        send_whole(node.sender(from_peer(number, 0))),
        async { receive_whole(open(&node, test, to_peer(number, 0)).await).await },
        join_all(sending),
        join_all(ENDLESS.map(receive))
    );
    // Who is killed does not get here.
    for sent in sent {
        let stopped = sent.expect_err("it has no end");
        assert!(stopped.is_finished(), "{stopped}");
    }
    let mut took = Vec::new();
    for (minor, (seen, end)) in ENDLESS.zip(received) {
        let count = i64::try_from(seen.len()).expect("not so many");
        assert!(
            end.is_ok() && seen == expected(minor.into(), count),
            "{end:?}"
        );
        took.push(count);
    }
    println!("{TOOK}{took:?}");
    node.stop().await;
}

/// The other process, seen from the test; killed when dropped.
struct Peer {
    number: i64,
    process: Child,
    said: BufReader<ChildStdout>,
    address: SocketAddr,
}

impl Peer {
    /// Starts it, and waits until it listens.
    fn start(number: i64, listens: SocketAddr, test: &Node) -> Self {
        let arguments = [
            number.to_string(),
            listens.to_string(),
            test.node.local_addr().to_string(),
        ];
        let mut process = Command::new(env::current_exe().expect("this program"))
            .args(["--exact", "killed::peer", "--ignored", "--nocapture"])
            .envs(PEER.into_iter().zip(arguments))
            .stdout(Stdio::piped())
            .spawn()
            .expect("this program once more");
        let said = BufReader::new(process.stdout.take().expect("invariant: it is piped"));
        let mut peer = Self {
            number,
            process,
            said,
            address: listens,
        };
        peer.address = peer.says(LISTENS).parse().expect("an address");
        peer
    }

    /// What it says behind `prefix`, which may be behind something else.
    fn says(&mut self, prefix: &str) -> String {
        let lines = (&mut self.said).lines().map_while(Result::ok);
        let found = |line: String| Some(line.split_once(prefix)?.1.to_owned());
        let mut found = lines.filter_map(found);
        found
            .next()
            .unwrap_or_else(|| panic!("it ends without {prefix:?}"))
    }
}

impl Drop for Peer {
    fn drop(&mut self) {
        // Signal 9 on Unix. It may have ended by itself.
        let _ = self.process.kill();
        let _ = self.process.wait();
    }
}

/// All endless streams between the test and a process, after the whole ones have come to their ends.
struct Streams {
    receivers: Vec<StreamReceiver>,
    sending: Vec<JoinHandle<Result<i64, SendError>>>,
    is_over: Arc<AtomicBool>,
}

impl Streams {
    async fn open(node: &Node, peer: &Peer) -> Self {
        let is_over = Arc::<AtomicBool>::default();
        let sending = ENDLESS.map(|minor| {
            let sender = node.sender(to_peer(peer.number, minor));
            tokio::spawn(send_until(Arc::clone(&is_over), sender, minor.into()))
        });
        let sending = sending.collect();
        let whole = node.sender(to_peer(peer.number, 0));
        let receiver = open(node, peer.address, from_peer(peer.number, 0));
        tokio::join!(send_whole(whole), async {
            receive_whole(receiver.await).await;
        });
        let receivers =
            ENDLESS.map(|minor| open(node, peer.address, from_peer(peer.number, minor)));
        Self {
            receivers: join_all(receivers).await,
            sending,
            is_over,
        }
    }
}

/// Sends batches until it is told to end, and how many.
async fn send_until(
    is_over: Arc<AtomicBool>,
    mut sender: StreamSender,
    id: i64,
) -> Result<i64, SendError> {
    for number in 0.. {
        if is_over.load(Ordering::Relaxed) {
            sender.close().await?;
            return Ok(number);
        }
        sender.feed(batch(id, number, PAYLOAD_BYTES)).await?;
    }
    unreachable!("so many are never sent")
}

/// Kills a process after so many batches of one of its streams; what is left of them.
async fn kill(node: &Node, peer: Peer, before: i64) {
    let Streams {
        receivers, sending, ..
    } = Streams::open(node, &peer).await;
    let address = peer.address;
    let mut receivers = receivers.into_iter();
    let mut first = receivers.next().expect("one of several");
    let others: Vec<_> = receivers.map(receive_all).map(tokio::spawn).collect();
    for number in 0..before {
        let batch = first.next().await.expect("it has no end");
        assert_eq!(identity(&batch.expect("it is not killed yet")), (1, number));
    }
    drop(peer);
    let (seen, end) = receive_all(first).await;
    check_end(end, address);
    let all = expected(1, before + i64::try_from(seen.len()).expect("not so many"));
    assert!(all.ends_with(&seen), "lost, doubled or reordered");
    for (minor, other) in (2..).zip(others) {
        let (seen, end) = other.await.expect("no panic");
        check_end(end, address);
        let count = i64::try_from(seen.len()).expect("not so many");
        assert_eq!(seen, expected(minor, count), "lost, doubled or reordered");
    }
    for sending in sending {
        let error = sending.await.expect("no panic").expect_err("it is dead");
        assert!(
            matches!(error, SendError::Lost { peer, .. } if peer == address),
            "{error}"
        );
        assert_eq!(error.retry(), Retry::SameNode, "{error}");
    }
}

fn check_end(end: Result<(), ReceiveError>, address: SocketAddr) {
    let error = end.expect_err("an end that was never sent");
    assert!(
        matches!(error, ReceiveError::Lost { peer, .. } if peer == address),
        "{error}"
    );
    assert_eq!(error.retry(), Retry::SameNode, "{error}");
}

/// Takes the next batch of each stream that nobody harms.
async fn take_next(unharmed: &mut Streams, counts: &mut [i64]) {
    for (id, (receiver, count)) in (1..).zip(unharmed.receivers.iter_mut().zip(counts)) {
        let batch = receiver.next().await.expect("it has no end");
        let batch = batch.expect("nobody harms it");
        assert_eq!(identity(&batch), (id, *count), "lost, doubled or reordered");
        *count += 1;
    }
}

#[tokio::test]
async fn killed_processes_end_their_streams_with_an_error_and_harm_no_others() {
    let (kills, seed) = (variable("KILLS"), variable("KILLS_SEED"));
    let mut draws = StdRng::seed_from_u64(seed.unwrap_or(1));
    let node = Node::start(NodeOptions::default()).await;
    let at_rest = used(&node.ledger);
    let any = SocketAddr::from(([127, 0, 0, 1], 0));
    let mut bystander = Peer::start(0, any, &node);
    let mut unharmed = Streams::open(&node, &bystander).await;
    let mut counts = vec![0; unharmed.receivers.len()];
    let killing = async {
        // Whoever is started again listens where the one before did.
        let mut listens = any;
        for number in 1..=kills.unwrap_or(8) {
            let peer = Peer::start(number, listens, &node);
            listens = peer.address;
            kill(&node, peer, draws.random_range(0..BATCHES_BEFORE_MAX)).await;
        }
    };
    let meanwhile = async {
        loop {
            take_next(&mut unharmed, &mut counts).await;
        }
    };
    tokio::select! {
        () = killing => {}
        () = meanwhile => {}
    }
    take_next(&mut unharmed, &mut counts).await;

    unharmed
        .receivers
        .into_iter()
        .for_each(StreamReceiver::finish);
    unharmed.is_over.store(true, Ordering::Relaxed);
    let mut sent = Vec::new();
    for sending in unharmed.sending {
        sent.push(sending.await.expect("no panic").expect("nobody harms it"));
    }
    let took = tokio::task::spawn_blocking(move || {
        let took = bystander.says(TOOK);
        assert!(
            bystander
                .process
                .wait()
                .is_ok_and(|status| status.success())
        );
        took
    });
    assert_eq!(took.await.expect("no panic"), format!("{sent:?}"));
    // Without being shut down.
    settled_at(&node.ledger, at_rest).await;
    node.stop().await;
}
