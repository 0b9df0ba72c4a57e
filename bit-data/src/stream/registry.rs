//! Senders that wait for their receivers, and receivers that wait for their senders: whoever comes second finds the
//! first.

mod refusal;

use std::{
    collections::{HashMap, hash_map::Entry},
    sync::{Arc, Mutex, Weak},
    task::Waker,
    time::Duration,
};

use protos::{calls::data::OpenStream as OpenCall, data};
use rpc_bus::{Ledger, Reply, task::Tasks};
use tokio::{runtime::Handle, sync::oneshot};

pub(crate) use refusal::Refusal;

use super::{
    address::StreamAddress,
    error::{OpenError, ReceiveError, SendError},
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
        opened: oneshot::Sender<Result<Arc<Outbound>, Refusal>>,
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
                    Err(SenderGone) => drop(opened.send(Err(Refusal::SenderGone))),
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

    fn refuse(self, address: StreamAddress, refusal: Refusal) {
        match self {
            Self::Remote {
                side,
                request,
                reply,
            } => {
                side.forget(request.stream());
                reply.fail(refusal.into_failure(address));
            }
            // Nobody may be waiting any more.
            Self::Local { opened, .. } => drop(opened.send(Err(refusal))),
        }
    }
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

/// A sender that is free and a receiver that waits never have the same address: whoever comes second, under the lock, takes
/// the first.
#[derive(Debug, Default)]
struct Slots {
    /// From their registration until they are dropped.
    senders: HashMap<StreamAddress, Listed>,
    waiting: HashMap<StreamAddress, Waiting>,
    next_ticket: u64,
    /// The node goes: nobody is let in any more.
    is_closed: bool,
}

#[derive(Debug)]
struct Listed {
    outbound: Arc<Outbound>,
    /// It has a receiver, or is being brought together with one.
    is_taken: bool,
}

/// A receiver that has no sender yet.
#[derive(Debug)]
struct Waiting {
    opener: Opener,
    ticket: u64,
    /// Dropped with it, which ends the wait.
    _waits: oneshot::Sender<()>,
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
    /// There is one already, or the node goes.
    pub(crate) fn register(&self, address: StreamAddress) -> Result<Arc<Outbound>, OpenError> {
        let outbound = Arc::<Outbound>::default();
        self.offer(address, &outbound)?;
        Ok(outbound)
    }

    /// Gives a sender to the receiver that waits for it, or lists it as free.
    fn offer(&self, address: StreamAddress, outbound: &Arc<Outbound>) -> Result<(), OpenError> {
        while let Some(opener) = self.announce(address, outbound)? {
            if opener.attach(outbound) == Met::Told {
                break;
            }
        }
        Ok(())
    }

    /// Lists a sender; returns the receiver that waits for it.
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
        if slots.is_closed {
            return Err(OpenError::ShuttingDown);
        }
        let is_other = |listed: &Listed| !Arc::ptr_eq(&listed.outbound, outbound);
        // One that has stopped sends nothing any more, whenever it will be dropped.
        let is_in_use = |listed: &Listed| listed.outbound.stopped().is_none();
        if slots
            .senders
            .get(&address)
            .is_some_and(|listed| is_other(listed) && is_in_use(listed))
        {
            return Err(OpenError::Duplicate(address));
        }
        let opener = slots.waiting.remove(&address);
        let listed = Listed {
            outbound: Arc::clone(outbound),
            is_taken: opener.is_some(),
        };
        slots.senders.insert(address, listed);
        Ok(opener.map(|waiting| waiting.opener))
    }

    /// Gives the receiver its sender; one that has gone in the meantime leaves it to the next.
    fn connect(&self, address: StreamAddress, opener: Opener, outbound: &Arc<Outbound>) {
        if opener.attach(outbound) == Met::Told {
            return;
        }
        let offered = self.offer(address, outbound);
        debug_assert!(
            matches!(offered, Ok(()) | Err(OpenError::ShuttingDown)),
            "invariant: its place was kept"
        );
    }

    /// A sender has stopped and goes, before or after its receiver came.
    pub(crate) fn unregister(&self, address: StreamAddress, outbound: &Arc<Outbound>) {
        let mut slots = lock(&self.slots);
        if let Entry::Occupied(listed) = slots.senders.entry(address)
            && Arc::ptr_eq(&listed.get().outbound, outbound)
        {
            listed.remove();
        }
    }

    /// A receiver that may wait has gone. It says so first: what waits here is looked at under the lock, so that it is
    /// either found now, or was found to be gone and does not wait.
    pub(crate) fn withdraw(&self, address: StreamAddress, is_it: impl FnOnce(&Opener) -> bool) {
        self.refuse_waiting(
            address,
            |waiting| is_it(&waiting.opener),
            Refusal::ReceiverGone,
        );
    }

    fn refuse_waiting(
        &self,
        address: StreamAddress,
        is_it: impl FnOnce(&Waiting) -> bool,
        refusal: Refusal,
    ) {
        let mut slots = lock(&self.slots);
        let Entry::Occupied(waiting) = slots.waiting.entry(address) else {
            return;
        };
        if !is_it(waiting.get()) {
            return;
        }
        let waiting = waiting.remove();
        drop(slots);
        waiting.opener.refuse(address, refusal);
    }

    /// A receiver has come: it gets the sender that is free, or waits for it.
    pub(crate) fn open(&self, address: StreamAddress, opener: Opener) {
        let mut slots = lock(&self.slots);
        if let Some(outbound) = slots.take_free(&address, &opener) {
            drop(slots);
            return self.connect(address, opener, &outbound);
        }
        if let Some(refusal) = slots.refusal(&address, &opener, self.patience.waiting_max) {
            drop(slots);
            return opener.refuse(address, refusal);
        }
        let (ticket, settled) = slots.wait(address, opener);
        drop(slots);
        self.expire_later(address, ticket, settled);
    }

    fn expire_later(&self, address: StreamAddress, ticket: u64, settled: oneshot::Receiver<()>) {
        let (this, wait) = (self.this.clone(), self.patience.wait);
        let expire = async move {
            let is_settled = tokio::time::timeout(wait, settled).await.is_ok();
            if !is_settled && let Some(registry) = this.upgrade() {
                registry.expire(address, ticket, Refusal::NoSender(wait));
            }
        };
        if let Err(spent) = self.tasks.spawn(&self.app, &self.ledger, expire) {
            self.expire(address, ticket, Refusal::Budget(spent));
        }
    }

    fn expire(&self, address: StreamAddress, ticket: u64, refusal: Refusal) {
        self.refuse_waiting(address, |waiting| waiting.ticket == ticket, refusal);
    }

    /// Ends the senders and receivers that are here, and lets nobody in any more: the node goes.
    ///
    /// Whoever is being brought together at the same time is listed. So the sender is stopped first, and its receiver
    /// looked for then: it is there, or finds the sender stopped.
    pub(crate) fn close(&self) {
        let mut slots = lock(&self.slots);
        slots.is_closed = true;
        let waiting = std::mem::take(&mut slots.waiting);
        let senders = slots.senders.values();
        let senders: Vec<_> = senders.map(|listed| Arc::clone(&listed.outbound)).collect();
        drop(slots);
        for (address, waiting) in waiting {
            waiting.opener.refuse(address, Refusal::ShuttingDown);
        }
        for outbound in senders {
            outbound.stop(SendError::ShuttingDown);
            if let Some(Route::Local(inbound)) = outbound.route() {
                inbound.fail(ReceiveError::ShuttingDown);
            }
        }
    }

    pub(crate) fn waiting_max_of_a_connection(&self) -> usize {
        self.patience.waiting_per_connection_max
    }

    /// Senders that wait for receivers, and receivers that wait for senders.
    pub(crate) fn waiting(&self) -> (usize, usize) {
        let slots = lock(&self.slots);
        let free = slots.senders.values().filter(|listed| !listed.is_taken);
        (free.count(), slots.waiting.len())
    }

    /// Waits for what runs, at most `grace`.
    pub(crate) async fn join(&self, grace: Duration) {
        self.tasks.join(grace).await;
    }
}

impl Slots {
    /// The sender for a receiver that has come, if it is free.
    fn take_free(&mut self, address: &StreamAddress, opener: &Opener) -> Option<Arc<Outbound>> {
        let listed = self.senders.get_mut(address)?;
        if self.is_closed || listed.is_taken || !opener.is_there() {
            return None;
        }
        listed.is_taken = true;
        Some(Arc::clone(&listed.outbound))
    }

    /// Why a receiver that has come, and for which no sender is free, may not wait.
    fn refusal(
        &self,
        address: &StreamAddress,
        opener: &Opener,
        waiting_max: usize,
    ) -> Option<Refusal> {
        if self.is_closed {
            return Some(Refusal::ShuttingDown);
        }
        if !opener.is_there() {
            return Some(Refusal::ReceiverGone);
        }
        if self.waiting.contains_key(address) {
            return Some(Refusal::WaitsAlready);
        }
        (self.waiting.len() >= waiting_max).then_some(Refusal::TooMany(waiting_max))
    }

    fn wait(&mut self, address: StreamAddress, opener: Opener) -> (u64, oneshot::Receiver<()>) {
        let ticket = self.next_ticket;
        self.next_ticket += 1;
        let (waits, settled) = oneshot::channel();
        let waiting = Waiting {
            opener,
            ticket,
            _waits: waits,
        };
        self.waiting.insert(address, waiting);
        (ticket, settled)
    }
}

#[cfg(test)]
mod tests;
