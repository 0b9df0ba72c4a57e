//! Senders that wait for their receivers, and receivers that wait for their senders: whoever comes second finds the
//! first.

use std::{
    collections::{HashMap, hash_map::Entry},
    sync::{Arc, Mutex, Weak},
    task::Waker,
    time::Duration,
};

use protos::{
    calls::data::OpenStream as OpenCall,
    data,
    error::{ErrorType, Retry},
};
use rpc_bus::{Ledger, Reply, RpcFailure, task::Tasks};
use tokio::{runtime::Handle, sync::oneshot};

use super::{
    address::StreamAddress,
    error::{OpenError, SendError},
    inbound::Inbound,
    outbound::{Outbound, Route, SenderGone},
    sender_side::SenderSide,
    stats::lock,
};

/// A receiver that has asked for a stream.
#[derive(Debug)]
pub(crate) enum Opener {
    /// Of another process.
    Remote {
        side: Arc<SenderSide>,
        request: Box<data::OpenStream>,
        reply: Reply<OpenCall>,
    },
    /// Of this one.
    Local {
        inbound: Arc<Inbound>,
        opened: oneshot::Sender<Result<Arc<Outbound>, RpcFailure>>,
    },
}

/// What became of giving a receiver its sender.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[must_use = "a sender whose receiver has gone waits for another"]
pub(crate) enum Met {
    /// The receiver has been told, also if the sender was gone.
    Told,
    ReceiverGone,
}

impl Opener {
    fn attach(self, outbound: &Arc<Outbound>) -> Met {
        match self {
            Self::Remote {
                side,
                request,
                reply,
            } => side.attach(outbound, &request, reply),
            Self::Local { opened, .. } if opened.is_closed() => Met::ReceiverGone,
            Self::Local { inbound, opened } => {
                let limit_bytes = inbound.limit_bytes();
                inbound.set_sender_here(outbound);
                match outbound.attach(Route::Local(inbound), limit_bytes) {
                    Ok(sender) => {
                        if opened.send(Ok(Arc::clone(outbound))).is_err() {
                            outbound.stop(SendError::ReceiverCancelled);
                        }
                        sender.into_iter().for_each(Waker::wake);
                    }
                    Err(SenderGone) => drop(opened.send(Err(sender_gone()))),
                }
                Met::Told
            }
        }
    }

    /// Whether the receiver has not gone.
    fn is_there(&self) -> bool {
        match self {
            Self::Remote { side, request, .. } => side.is_waiting(request.stream()),
            Self::Local { opened, .. } => !opened.is_closed(),
        }
    }

    fn refuse(self, failure: RpcFailure) {
        match self {
            Self::Remote {
                side,
                request,
                reply,
            } => {
                side.forget(request.stream());
                reply.fail(failure);
            }
            // Nobody may be waiting any more.
            Self::Local { opened, .. } => drop(opened.send(Err(failure))),
        }
    }
}

/// For a receiver whose sender has gone: another one may come.
pub(crate) fn sender_gone() -> RpcFailure {
    let message = "the sender of the stream was cancelled";
    RpcFailure::new(ErrorType::Resource, message).with_retry(Retry::SameNode)
}

/// For a receiver that is not there any more; nobody reads it.
fn receiver_gone() -> RpcFailure {
    RpcFailure::new(ErrorType::Connection, "the receiver of the stream has gone")
}

/// How long, and how many, receivers may wait for senders that are not there yet.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Patience {
    pub(crate) wait: Duration,
    pub(crate) waiting_max: usize,
    /// Of one connection.
    pub(crate) waiting_per_connection_max: usize,
}

#[derive(Debug)]
pub(crate) struct Registry {
    this: Weak<Self>,
    slots: Mutex<Slots>,
    patience: Patience,
    tasks: Tasks,
    app: Handle,
    ledger: Ledger,
}

#[derive(Debug, Default)]
struct Slots {
    by_address: HashMap<StreamAddress, Slot>,
    waiting: usize,
    next_ticket: u64,
}

/// Who came first.
#[derive(Debug)]
enum Slot {
    Sender(Arc<Outbound>),
    Opener {
        opener: Opener,
        ticket: u64,
        /// Dropped with the slot, which ends the wait.
        _waits: oneshot::Sender<()>,
    },
}

impl Registry {
    pub(crate) fn new(patience: Patience, app: Handle, ledger: Ledger) -> Arc<Self> {
        Arc::new_cyclic(|this| Self {
            this: this.clone(),
            slots: Mutex::default(),
            patience,
            tasks: Tasks::default(),
            app,
            ledger,
        })
    }

    /// A sender has come.
    ///
    /// # Errors
    ///
    /// There is one already.
    pub(crate) fn register(&self, address: StreamAddress) -> Result<Arc<Outbound>, OpenError> {
        let outbound = Arc::<Outbound>::default();
        self.offer(address, &outbound)?;
        Ok(outbound)
    }

    /// Gives a sender to the receiver that waits for it, or lists it.
    fn offer(&self, address: StreamAddress, outbound: &Arc<Outbound>) -> Result<(), OpenError> {
        while let Some(opener) = self.announce(address, outbound)? {
            if opener.attach(outbound) == Met::Told {
                break;
            }
        }
        Ok(())
    }

    /// Lists a sender, unless a receiver waits for it.
    fn announce(
        &self,
        address: StreamAddress,
        outbound: &Arc<Outbound>,
    ) -> Result<Option<Opener>, OpenError> {
        let mut slots = lock(&self.slots);
        // A sender stops before it is taken off the list: it will not look here again.
        if outbound.stopped().is_some() {
            return Ok(None);
        }
        match slots.by_address.remove(&address) {
            None => {
                let slot = Slot::Sender(Arc::clone(outbound));
                slots.by_address.insert(address, slot);
                Ok(None)
            }
            Some(slot @ Slot::Sender(_)) => {
                slots.by_address.insert(address, slot);
                Err(OpenError::Duplicate(address))
            }
            Some(Slot::Opener { opener, .. }) => {
                slots.waiting -= 1;
                Ok(Some(opener))
            }
        }
    }

    /// Gives the receiver its sender; one that has gone in the meantime leaves it to the next.
    fn connect(&self, address: StreamAddress, opener: Opener, outbound: &Arc<Outbound>) {
        if opener.attach(outbound) == Met::ReceiverGone && self.offer(address, outbound).is_err() {
            // While it was not listed, another one has taken its place.
            outbound.stop(SendError::Ended);
        }
    }

    /// A sender has stopped and goes, before or after its receiver came.
    pub(crate) fn unregister(&self, address: StreamAddress, outbound: &Arc<Outbound>) {
        let mut slots = lock(&self.slots);
        if let Some(Slot::Sender(waiting)) = slots.by_address.get(&address)
            && Arc::ptr_eq(waiting, outbound)
        {
            slots.by_address.remove(&address);
        }
    }

    /// A receiver that may wait has gone. It says so first: what waits here is looked at under the lock, so that it is
    /// either found now, or was found to be gone and does not wait.
    pub(crate) fn withdraw(&self, address: StreamAddress, is_it: impl FnOnce(&Opener) -> bool) {
        let mut slots = lock(&self.slots);
        let Entry::Occupied(slot) = slots.by_address.entry(address) else {
            return;
        };
        if !matches!(slot.get(), Slot::Opener { opener, .. } if is_it(opener)) {
            return;
        }
        let gone = slot.remove();
        slots.waiting -= 1;
        drop(slots);
        if let Slot::Opener { opener, .. } = gone {
            opener.refuse(receiver_gone());
        }
    }

    /// A receiver has come: it gets the sender that is there, or waits for it.
    pub(crate) fn open(&self, address: StreamAddress, opener: Opener) {
        let mut slots = lock(&self.slots);
        if !opener.is_there() {
            drop(slots);
            return opener.refuse(receiver_gone());
        }
        match slots.by_address.remove(&address) {
            Some(Slot::Sender(outbound)) => {
                drop(slots);
                self.connect(address, opener, &outbound);
            }
            Some(slot @ Slot::Opener { .. }) => {
                slots.by_address.insert(address, slot);
                drop(slots);
                let message = format!("a receiver of the stream {address} waits already");
                let failure = RpcFailure::new(ErrorType::Validation, message);
                // That one may be gone, without this node knowing of it yet.
                opener.refuse(failure.with_retry(Retry::SameNode));
            }
            None if slots.waiting >= self.patience.waiting_max => {
                drop(slots);
                let max = self.patience.waiting_max;
                let message = format!("{max} receivers wait for their senders already");
                let failure = RpcFailure::new(ErrorType::Resource, message);
                opener.refuse(failure.with_retry(Retry::SameNode));
            }
            None => {
                let (ticket, settled) = slots.wait(address, opener);
                drop(slots);
                self.expire_later(address, ticket, settled);
            }
        }
    }

    fn expire_later(&self, address: StreamAddress, ticket: u64, settled: oneshot::Receiver<()>) {
        let (this, wait) = (self.this.clone(), self.patience.wait);
        let expire = async move {
            let is_settled = tokio::time::timeout(wait, settled).await.is_ok();
            if !is_settled && let Some(registry) = this.upgrade() {
                registry.expire(address, ticket);
            }
        };
        if self.tasks.spawn(&self.app, &self.ledger, expire).is_err() {
            self.expire(address, ticket);
        }
    }

    fn expire(&self, address: StreamAddress, ticket: u64) {
        let mut slots = lock(&self.slots);
        let Entry::Occupied(slot) = slots.by_address.entry(address) else {
            return;
        };
        if !matches!(slot.get(), Slot::Opener { ticket: other, .. } if *other == ticket) {
            return;
        }
        let slot = slot.remove();
        slots.waiting -= 1;
        drop(slots);
        if let Slot::Opener { opener, .. } = slot {
            let waited = self.patience.wait;
            let message = format!("no sender of the stream {address} within {waited:?}");
            let failure = RpcFailure::new(ErrorType::Resource, message);
            opener.refuse(failure.with_retry(Retry::SameNode));
        }
    }

    /// Runs what is left to do of a stream whose owner has gone.
    pub(crate) fn run_detached(
        &self,
        rest: impl Future<Output = ()> + Send + 'static,
    ) -> Result<(), rpc_bus::BudgetExceeded> {
        self.tasks.spawn(&self.app, &self.ledger, rest)
    }

    pub(crate) fn waiting_max_of_a_connection(&self) -> usize {
        self.patience.waiting_per_connection_max
    }

    /// Senders that wait for receivers, and receivers that wait for senders.
    pub(crate) fn waiting(&self) -> (usize, usize) {
        let slots = lock(&self.slots);
        (slots.by_address.len() - slots.waiting, slots.waiting)
    }

    /// Waits for what runs, at most `grace`.
    pub(crate) async fn join(&self, grace: Duration) {
        self.tasks.join(grace).await;
    }
}

impl Slots {
    fn wait(&mut self, address: StreamAddress, opener: Opener) -> (u64, oneshot::Receiver<()>) {
        let ticket = self.next_ticket;
        self.next_ticket += 1;
        self.waiting += 1;
        let (waits, settled) = oneshot::channel();
        let slot = Slot::Opener {
            opener,
            ticket,
            _waits: waits,
        };
        self.by_address.insert(address, slot);
        (ticket, settled)
    }
}

#[cfg(test)]
mod tests;
