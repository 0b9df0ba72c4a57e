//! One budget tree: what is in use of bytes, tasks, calls and files, and how much may be.
//!
//! A [`Charge`] is taken before the thing it stands for and given back when it is dropped; it counts at its ledger and at
//! every ledger above. Bytes are charged as pinned capacity, not as length. When nothing is going on, all of it reads 0.
//!
//! Not counted as bytes, because counting would cost more than they do, but bounded by what is counted:
//!
//! - bodies of up to 4 KiB: at most two of them belong to a call, so that [`Limits::calls`] bounds them to 8 KiB a call;
//! - what a socket needs, which [`Limits::files`] and the limit of connections bound: the start of a frame of up to 16 KiB
//!   that has not come to its end, up to 64 KiB that were read and wait their turn, a thousand frames of them decoded, and with TLS up to 64 KiB of a handshake, afterwards one record of 16 KiB each way.

use std::{
    fmt,
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
};

use thiserror::Error;

/// What is counted.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Kind {
    /// Bytes of memory, as capacity.
    Bytes,
    /// Running tasks.
    Tasks,
    /// Calls that wait for an answer, made and received.
    Calls,
    /// Open files and sockets.
    Files,
}

impl Kind {
    /// All kinds, for reports.
    pub const ALL: [Self; 4] = [Self::Bytes, Self::Tasks, Self::Calls, Self::Files];
}

/// Most that may be in use at once; `None` is no limit of its own, so that only the ledgers above hold.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Limits {
    /// Bytes of memory.
    pub bytes: Option<usize>,
    /// Tasks.
    pub tasks: Option<usize>,
    /// Calls.
    pub calls: Option<usize>,
    /// Files and sockets.
    pub files: Option<usize>,
}

impl Limits {
    fn of(&self, kind: Kind) -> Option<usize> {
        match kind {
            Kind::Bytes => self.bytes,
            Kind::Tasks => self.tasks,
            Kind::Calls => self.calls,
            Kind::Files => self.files,
        }
    }
}

/// A ledger had no room.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
#[error("{kind:?} of {ledger}: {requested} more do not fit, {used} of {limit} are in use")]
pub struct BudgetExceeded {
    /// Name of the ledger that refused.
    pub ledger: Arc<str>,
    /// What was asked for.
    pub kind: Kind,
    /// How much was asked for.
    pub requested: usize,
    /// How much was in use.
    pub used: usize,
    /// How much may be.
    pub limit: usize,
}

/// One node of the budget tree. Clones are the same node.
#[derive(Clone)]
pub struct Ledger(Arc<Node>);

struct Node {
    name: Arc<str>,
    parent: Option<Ledger>,
    limits: Limits,
    used: [AtomicUsize; Kind::ALL.len()],
}

impl Ledger {
    /// The top of a tree: usually the process.
    #[must_use]
    pub fn root(name: impl Into<Arc<str>>, limits: Limits) -> Self {
        Self::node(name.into(), None, limits)
    }

    /// A part of this ledger with limits of its own.
    #[must_use]
    pub fn child(&self, name: impl Into<Arc<str>>, limits: Limits) -> Self {
        Self::node(name.into(), Some(self.clone()), limits)
    }

    fn node(name: Arc<str>, parent: Option<Self>, limits: Limits) -> Self {
        Self(Arc::new(Node {
            name,
            parent,
            limits,
            used: Default::default(),
        }))
    }

    /// Takes `amount` here and in every ledger above, or nowhere.
    ///
    /// # Errors
    ///
    /// One of them has no room.
    pub fn charge(&self, kind: Kind, amount: usize) -> Result<Charge, BudgetExceeded> {
        let mut charge = self.nothing(kind);
        charge.grow(amount)?;
        Ok(charge)
    }

    /// A charge of nothing, to be grown later.
    pub fn nothing(&self, kind: Kind) -> Charge {
        Charge {
            ledger: self.clone(),
            kind,
            amount: 0,
        }
    }

    /// How much of `kind` is in use here and below.
    #[must_use]
    pub fn used(&self, kind: Kind) -> usize {
        self.0.used[kind as usize].load(Ordering::Relaxed)
    }

    /// How much of `kind` may be in use here; `None` if only the ledgers above limit it.
    #[must_use]
    pub fn limit(&self, kind: Kind) -> Option<usize> {
        self.0.limits.of(kind)
    }

    /// Name given when it was made.
    #[must_use]
    pub fn name(&self) -> &str {
        &self.0.name
    }

    /// Whether nothing at all is in use.
    #[must_use]
    pub fn is_zero(&self) -> bool {
        Kind::ALL.into_iter().all(|kind| self.used(kind) == 0)
    }

    fn path(&self) -> impl Iterator<Item = &Node> {
        std::iter::successors(Some(&*self.0), |node| node.parent.as_ref().map(|up| &*up.0))
    }

    fn take(&self, kind: Kind, amount: usize) -> Result<(), BudgetExceeded> {
        for (taken, node) in self.path().enumerate() {
            if let Err(refused) = node.take(kind, amount) {
                self.path()
                    .take(taken)
                    .for_each(|node| node.give(kind, amount));
                return Err(refused);
            }
        }
        Ok(())
    }

    fn give(&self, kind: Kind, amount: usize) {
        self.path().for_each(|node| node.give(kind, amount));
    }
}

impl Node {
    fn take(&self, kind: Kind, amount: usize) -> Result<(), BudgetExceeded> {
        let used = &self.used[kind as usize];
        let Some(limit) = self.limits.of(kind) else {
            used.fetch_add(amount, Ordering::Relaxed);
            return Ok(());
        };
        let fits = |used: usize| used.checked_add(amount).filter(|&total| total <= limit);
        match used.fetch_update(Ordering::Relaxed, Ordering::Relaxed, fits) {
            Ok(_) => Ok(()),
            Err(used) => Err(BudgetExceeded {
                ledger: Arc::clone(&self.name),
                kind,
                requested: amount,
                used,
                limit,
            }),
        }
    }

    fn give(&self, kind: Kind, amount: usize) {
        self.used[kind as usize].fetch_sub(amount, Ordering::Relaxed);
    }
}

impl fmt::Debug for Ledger {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut out = f.debug_struct("Ledger");
        out.field("name", &self.0.name);
        for kind in Kind::ALL {
            out.field(&format!("{kind:?}"), &self.used(kind));
        }
        out.finish()
    }
}

/// A part of a budget, given back when dropped.
#[derive(Debug)]
#[must_use = "a dropped charge is given back at once"]
pub struct Charge {
    ledger: Ledger,
    kind: Kind,
    amount: usize,
}

impl Charge {
    /// Takes `more` on top.
    ///
    /// # Errors
    ///
    /// There is no room; the charge stays as it was.
    pub fn grow(&mut self, more: usize) -> Result<(), BudgetExceeded> {
        self.ledger.take(self.kind, more)?;
        self.amount += more;
        Ok(())
    }

    /// Gives `less` back, or all that is left.
    pub fn shrink(&mut self, less: usize) {
        let less = less.min(self.amount);
        if less > 0 {
            self.amount -= less;
            self.ledger.give(self.kind, less);
        }
    }

    /// Makes it stand for `amount`.
    ///
    /// # Errors
    ///
    /// There is no room for more; the charge stays as it was.
    pub fn resize(&mut self, amount: usize) -> Result<(), BudgetExceeded> {
        if amount > self.amount {
            return self.grow(amount - self.amount);
        }
        self.shrink(self.amount - amount);
        Ok(())
    }

    /// Takes over what `other` stands for.
    ///
    /// # Panics
    ///
    /// They are not of the same kind and ledger.
    pub fn absorb(&mut self, mut other: Self) {
        let same = self.kind == other.kind && Arc::ptr_eq(&self.ledger.0, &other.ledger.0);
        assert!(same, "invariant: charges of one kind and ledger");
        self.amount += std::mem::take(&mut other.amount);
    }

    /// How much it stands for.
    #[must_use]
    pub fn amount(&self) -> usize {
        self.amount
    }
}

impl Drop for Charge {
    fn drop(&mut self) {
        self.ledger.give(self.kind, self.amount);
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    fn bytes(limit: usize) -> Limits {
        Limits {
            bytes: Some(limit),
            ..Limits::default()
        }
    }

    #[test]
    fn a_charge_counts_in_every_ledger_above_until_it_is_dropped() {
        let process = Ledger::root("process", Limits::default());
        let plane = process.child("user", bytes(100));
        let charge = plane.charge(Kind::Bytes, 60).unwrap();
        assert_eq!(
            (plane.used(Kind::Bytes), process.used(Kind::Bytes)),
            (60, 60)
        );
        assert!(!process.is_zero());
        drop(charge);
        assert!(plane.is_zero() && process.is_zero());
    }

    #[test]
    fn a_refusal_names_the_ledger_and_takes_nothing() {
        let process = Ledger::root("process", bytes(50));
        let plane = process.child("user", bytes(100));
        let _held = plane.charge(Kind::Bytes, 40).unwrap();
        let refused = plane.charge(Kind::Bytes, 20).unwrap_err();
        assert_eq!(
            (&*refused.ledger, refused.used, refused.limit),
            ("process", 40, 50)
        );
        assert_eq!(plane.used(Kind::Bytes), 40);
    }

    #[test]
    fn a_charge_grows_and_shrinks_within_the_limit() {
        let ledger = Ledger::root("process", bytes(10));
        let mut charge = ledger.charge(Kind::Bytes, 4).unwrap();
        assert!(charge.grow(7).is_err());
        charge.grow(6).unwrap();
        charge.shrink(9);
        assert_eq!((charge.amount(), ledger.used(Kind::Bytes)), (1, 1));
        charge.resize(7).unwrap();
        charge.resize(3).unwrap();
        assert_eq!(ledger.used(Kind::Bytes), 3);
        charge.shrink(usize::MAX);
        assert!(ledger.is_zero());
    }

    #[test]
    fn a_charge_takes_over_another_one() {
        let ledger = Ledger::root("process", bytes(10));
        let mut charge = ledger.charge(Kind::Bytes, 4).unwrap();
        charge.absorb(ledger.charge(Kind::Bytes, 6).unwrap());
        assert_eq!((charge.amount(), ledger.used(Kind::Bytes)), (10, 10));
        drop(charge);
        assert!(ledger.is_zero());
    }

    #[test]
    fn an_overflowing_request_is_refused() {
        let ledger = Ledger::root("process", bytes(usize::MAX));
        let _held = ledger.charge(Kind::Bytes, 1).unwrap();
        assert!(ledger.charge(Kind::Bytes, usize::MAX).is_err());
    }
}
