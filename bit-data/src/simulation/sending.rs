//! What the sender of a stream does.

use std::{sync::Arc, time::Duration};

use futures::SinkExt;
use protos::error::ErrorType;
use rpc_bus::RpcFailure;
use tokio::time::{sleep, timeout};

use super::{
    data::{Author, batch, schema},
    oracle::SenderEnd,
    plan::{Ending, StreamPlan},
    world::{Node, World, address_of},
};
use crate::stream::{SendError, SendOptions, StreamSender};

/// Between two attempts.
const PAUSE: Duration = Duration::from_millis(200);
/// More than the attempts of a life.
const ATTEMPTS: i64 = 100;

/// Sends a stream, as often as its exchange is tried.
pub(super) async fn run(world: Arc<World>, node: Arc<Node>, at: (usize, usize)) {
    let exchange = &world.plan.exchanges[at.0];
    let plan = &exchange.streams[at.1];
    world.sleep_until(plan.starts).await;
    for attempt in 0..exchange.attempts {
        let author = Author {
            sender: world.sender_id(at.0, at.1),
            attempt: node.life * ATTEMPTS + attempt,
        };
        let end = send(&world, &node, at, author).await;
        let is_over = matches!(end, SenderEnd::Sent | SenderEnd::Left);
        world.note_sender(at, end);
        if is_over {
            return;
        }
        sleep(PAUSE).await;
    }
}

/// Sends all streams of an exchange from one task, as often as it is tried.
pub(super) async fn run_together(world: Arc<World>, node: Arc<Node>, index: usize) {
    let exchange = &world.plan.exchanges[index];
    world.sleep_until(exchange.streams[0].starts).await;
    for attempt in 0..exchange.attempts {
        let attempt = node.life * ATTEMPTS + attempt;
        let sent = send_together(&world, &node, index, attempt).await;
        let is_over = sent.is_ok();
        for stream in 0..exchange.streams.len() {
            let end = match &sent {
                Ok(()) => SenderEnd::Sent,
                Err((failed, error)) if *failed == stream => SenderEnd::Stopped(error.clone()),
                // Dropped because of that.
                Err(_) => SenderEnd::Left,
            };
            world.note_sender((index, stream), end);
        }
        if is_over {
            return;
        }
        sleep(PAUSE).await;
    }
}

/// One batch of each in turn; says which one has failed.
async fn send_together(
    world: &World,
    node: &Node,
    index: usize,
    attempt: i64,
) -> Result<(), (usize, SendError)> {
    let plans = &world.plan.exchanges[index].streams;
    let open = |stream| open(world, node, (index, stream));
    let mut senders: Vec<_> = (0..plans.len()).map(open).collect();
    let mut numbers = vec![0; plans.len()];
    let rounds = plans.iter().map(|plan| plan.batches.len()).max();
    for round in 0..rounds.unwrap_or_default() {
        for (stream, plan) in plans.iter().enumerate() {
            let Some(&next) = plan.batches.get(round) else {
                continue;
            };
            let sender = world.sender_id(index, stream);
            let rows = batch(Author { sender, attempt }, numbers[stream], next);
            numbers[stream] += i64::try_from(next.rows).expect("few");
            let sent = senders[stream].send(rows).await;
            sent.map_err(|error| (stream, error))?;
        }
    }
    for (stream, sender) in senders.iter_mut().enumerate() {
        sender.close().await.map_err(|error| (stream, error))?;
    }
    Ok(())
}

fn open(world: &World, node: &Node, at: (usize, usize)) -> StreamSender {
    let plan = &world.plan.exchanges[at.0].streams[at.1];
    let options = SendOptions {
        compression: plan.compression,
        receiver_timeout: Some(plan.receiver_timeout),
    };
    let sender = node.data.sender(address_of(at), &schema(), options);
    sender.expect("the only one of its stream")
}

async fn send(world: &World, node: &Node, at: (usize, usize), author: Author) -> SenderEnd {
    let plan = &world.plan.exchanges[at.0].streams[at.1];
    let sending = send_all(open(world, node, at), plan, author);
    let sent = match plan.ending {
        Ending::DroppedAt(time) => match timeout(time, sending).await {
            Ok(sent) => sent,
            Err(_) => return SenderEnd::Left,
        },
        _ => sending.await,
    };
    match (sent, plan.ending) {
        (Err(error), _) => SenderEnd::Stopped(error),
        (Ok(()), Ending::Failed | Ending::Dropped) => SenderEnd::Left,
        (Ok(()), _) => SenderEnd::Sent,
    }
}

async fn send_all(
    mut sender: StreamSender,
    plan: &StreamPlan,
    author: Author,
) -> Result<(), SendError> {
    let (mut number, (percent, pause)) = (0, plan.pause);
    for (&next, index) in plan.batches.iter().zip(1_u32..) {
        if percent > 0 && index % (100 / percent) == 0 {
            sleep(pause).await;
        }
        let rows = batch(author, number, next);
        number += i64::try_from(next.rows).expect("few");
        if index % 2 == 0 {
            sender.feed(rows).await?;
        } else {
            sender.send(rows).await?;
        }
    }
    match plan.ending {
        Ending::Failed => {
            let failure = RpcFailure::new(ErrorType::DataRead, "as planned");
            sender.fail(failure).await
        }
        Ending::Dropped => sender.flush().await,
        Ending::Finished | Ending::DroppedAt(_) => sender.close().await,
    }
}
