//! What the receiver of an exchange does.

use std::{sync::Arc, time::Duration};

use arrow::array::RecordBatch;
use futures::{Stream, StreamExt, future::join_all};
use protos::error::ErrorType;
use rpc_bus::RpcFailure;
use tokio::time::{sleep, timeout};

use super::{
    data::schema,
    oracle::{AnyError, Received, ReceiverEnd},
    plan::{Consumer, Exchange, Leaving, Taking},
    world::{Node, World},
};
use crate::{
    merge::{MergeOptions, SortKey},
    stream::{ReceiveOptions, Receivers, StreamReceiver},
};

/// Between two attempts.
const PAUSE: Duration = Duration::from_millis(100);

/// Why nothing more is taken.
enum Stopped {
    /// It is time to leave.
    Leaves,
    Failed(AnyError),
}

/// Receives, as often as the exchange is tried.
pub(super) async fn run(world: Arc<World>, node: Arc<Node>, index: usize) {
    let exchange = &world.plan.exchanges[index];
    world.sleep_until(exchange.starts).await;
    for _ in 0..exchange.attempts {
        let end = match exchange.consumer.leaves {
            Some(Leaving::DroppedAt(time)) => {
                let left = timeout(time, receive(&world, &node, index)).await;
                left.unwrap_or(ReceiverEnd::Left)
            }
            _ => receive(&world, &node, index).await,
        };
        let is_over = matches!(end, ReceiverEnd::All(_) | ReceiverEnd::Left);
        world.note_receiver(index, end);
        if is_over {
            return;
        }
        sleep(PAUSE).await;
    }
}

async fn receive(world: &World, node: &Node, index: usize) -> ReceiverEnd {
    let exchange = &world.plan.exchanges[index];
    let options = ReceiveOptions {
        budget_bytes: exchange.budget_bytes,
        window_bytes: exchange.window_bytes,
        spill: node.spill.clone().filter(|_| exchange.spills),
        open_timeout: exchange.open_timeout,
        checksums: exchange.checksums,
        ..ReceiveOptions::default()
    };
    let from = world.senders(index, node);
    let receivers = match node.data.receivers(&from, &options).await {
        Ok(receivers) => receivers,
        Err(error) => return ReceiverEnd::Failed(error.into()),
    };
    let ids = (0..from.len()).map(|stream| world.sender_id(index, stream));
    match take(receivers, exchange, &ids.collect::<Vec<_>>()).await {
        Ok(seen) => ReceiverEnd::All(seen),
        Err(Stopped::Leaves) => ReceiverEnd::Left,
        Err(Stopped::Failed(error)) => ReceiverEnd::Failed(error),
    }
}

async fn take(receivers: Receivers, exchange: &Exchange, ids: &[i64]) -> Result<Received, Stopped> {
    let (consumer, mut seen) = (exchange.consumer, Received::default());
    match exchange.taking {
        Taking::Unordered => {
            let mut receiver = receivers.unordered();
            let take = |batch: &_| seen.take(batch, ids);
            let taken = consumer.take_from(&mut receiver, take).await;
            taken.inspect_err(|_| consumer.leave(receiver, |receiver, _| receiver.finish()))?;
        }
        Taking::Merged => {
            let options = MergeOptions {
                batch_rows_max: 50,
                ..MergeOptions::default()
            };
            let merged = receivers.merged(schema(), &[SortKey::ascending(0)], options);
            let mut receiver = merged.expect("numbers have an order");
            let take = |batch: &_| seen.take_merged(batch, ids);
            let taken = consumer.take_from(&mut receiver, take).await;
            taken.inspect_err(|_| consumer.leave(receiver, |receiver, _| receiver.finish()))?;
        }
        Taking::InTurn => {
            for (receiver, id) in receivers.per_sender().into_iter().zip(ids) {
                seen.join(take_one(receiver, consumer, *id).await?);
            }
        }
        Taking::PerSender => {
            let receivers = receivers.per_sender().into_iter().zip(ids);
            let all = receivers.map(|(receiver, id)| take_one(receiver, consumer, *id));
            for one in join_all(all).await {
                seen.join(one?);
            }
        }
    }
    Ok(seen)
}

async fn take_one(
    mut receiver: StreamReceiver,
    consumer: Consumer,
    id: i64,
) -> Result<Received, Stopped> {
    let mut seen = Received::default();
    let take = |batch: &_| seen.take(batch, &[id]);
    let taken = consumer.take_from(&mut receiver, take).await;
    taken.inspect_err(|_| {
        consumer.leave(receiver, |receiver, failure| match failure {
            Some(failure) => receiver.fail(failure),
            None => receiver.finish(),
        });
    })?;
    Ok(seen)
}

impl Consumer {
    /// Takes all that comes, or as much as is wanted.
    async fn take_from<E: Into<AnyError>>(
        self,
        receiver: &mut (impl Stream<Item = Result<RecordBatch, E>> + Unpin),
        mut take: impl FnMut(&RecordBatch),
    ) -> Result<(), Stopped> {
        for taken in 0.. {
            if self.leaves_after() == Some(taken) {
                return Err(Stopped::Leaves);
            }
            if let Some((_, time)) = self.stop.filter(|(after, _)| *after == taken) {
                sleep(time).await;
            }
            match receiver.next().await {
                Some(Ok(batch)) => take(&batch),
                Some(Err(error)) => return Err(Stopped::Failed(error.into())),
                None => return Ok(()),
            }
            if !self.pause.is_zero() {
                sleep(self.pause).await;
            }
        }
        Ok(())
    }

    fn leaves_after(self) -> Option<usize> {
        match self.leaves? {
            Leaving::DroppedAfter(taken)
            | Leaving::FinishedAfter(taken)
            | Leaving::FailedAfter(taken) => Some(taken),
            Leaving::DroppedAt(_) => None,
        }
    }

    /// Drops the receiver, or ends it in another way, with a failure or without one.
    fn leave<R>(self, receiver: R, end: impl FnOnce(R, Option<RpcFailure>)) {
        match self.leaves {
            Some(Leaving::FinishedAfter(_)) => end(receiver, None),
            Some(Leaving::FailedAfter(_)) => {
                let failure = RpcFailure::new(ErrorType::DataRead, "as planned");
                end(receiver, Some(failure));
            }
            _ => drop(receiver),
        }
    }
}
