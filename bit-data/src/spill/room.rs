//! Room in memory for what waits to be written, which all queues share, and those of them that wait for it.
//!
//! Whoever is in `waiting` is told: either something is held, and [`Room::tell`] comes after it was given back; or
//! there is room already, and somebody is about to call that.

use std::{
    collections::VecDeque,
    sync::{
        Arc, Mutex, MutexGuard, PoisonError, Weak,
        atomic::{AtomicBool, Ordering},
    },
};

use rpc_bus::{
    Ledger,
    ledger::{Charge, Kind},
};

use super::SpillError;

/// Whoever wants room.
pub(super) trait Waits {
    /// There may be room, for some at least. Nothing is locked.
    fn on_room(&self);

    /// Whether it is listed as waiting; changed under the lock of the room.
    fn is_waiting(&self) -> &AtomicBool;
}

#[derive(Debug)]
pub(super) struct Room<W> {
    ledger: Ledger,
    state: Mutex<State<W>>,
}

#[derive(Debug)]
struct State<W> {
    /// Records that have room.
    held: usize,
    /// Some was given back, and nobody has found it to be too little.
    has_more: bool,
    /// In the order of their turns.
    waiting: VecDeque<Weak<W>>,
}

/// A record's room.
#[derive(Debug)]
pub(super) struct Held<W> {
    charge: Option<Charge>,
    room: Arc<Room<W>>,
}

impl<W> Room<W> {
    pub(super) fn new(ledger: Ledger) -> Arc<Self> {
        let state = State {
            held: 0,
            has_more: false,
            waiting: VecDeque::new(),
        };
        Arc::new(Self {
            ledger,
            state: Mutex::new(state),
        })
    }

    pub(super) fn used_bytes(&self) -> usize {
        self.ledger.used(Kind::Bytes)
    }

    fn lock(&self) -> MutexGuard<'_, State<W>> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl<W: Waits> Room<W> {
    /// Room for `bytes` of `whose`, which is told if there is none yet.
    ///
    /// # Errors
    ///
    /// There is none, or can never be any.
    pub(super) fn reserve(
        self: &Arc<Self>,
        bytes: usize,
        whose: &Arc<W>,
    ) -> Result<Held<W>, SpillError> {
        // Held while the ledger is asked: what is given back is so before this is locked.
        let mut state = self.lock();
        match self.ledger.charge(Kind::Bytes, bytes) {
            Ok(charge) => {
                state.held += 1;
                Ok(Held {
                    charge: Some(charge),
                    room: Arc::clone(self),
                })
            }
            Err(exceeded) if state.held > 0 && exceeded.requested <= exceeded.limit => {
                state.has_more = false;
                if !whose.is_waiting().swap(true, Ordering::Relaxed) {
                    state.waiting.push_back(Arc::downgrade(whose));
                }
                Err(SpillError::NoRoomYet)
            }
            // Nothing of ours will be given back, so that nobody could be told.
            Err(exceeded) => Err(exceeded.into()),
        }
    }

    /// Whether [`Self::tell`] is to be called, by somebody who has nothing locked.
    pub(super) fn has_to_tell(&self) -> bool {
        let state = self.lock();
        state.has_more && !state.waiting.is_empty()
    }

    /// Tells those who wait, one after the other, until one of them finds too little: then it is the next one's turn.
    pub(super) fn tell(&self) {
        while let Some(first) = self.next() {
            first.on_room();
        }
    }

    fn next(&self) -> Option<Arc<W>> {
        let mut state = self.lock();
        while state.has_more
            && let Some(first) = state.waiting.pop_front()
        {
            if let Some(first) = first.upgrade() {
                first.is_waiting().store(false, Ordering::Relaxed);
                return Some(first);
            }
        }
        None
    }
}

impl<W> Drop for Held<W> {
    fn drop(&mut self) {
        drop(self.charge.take());
        let mut state = self.room.lock();
        state.held -= 1;
        state.has_more = true;
    }
}

#[cfg(test)]
mod tests {
    use rpc_bus::ledger::Limits;

    use super::*;

    /// Wants records of one byte each, and keeps what it gets.
    struct Wants {
        this: Weak<Self>,
        room: Arc<Room<Self>>,
        records: Mutex<usize>,
        got: Mutex<Vec<Held<Self>>>,
        is_waiting: AtomicBool,
    }

    impl Wants {
        fn new(room: &Arc<Room<Self>>, records: usize) -> Arc<Self> {
            Arc::new_cyclic(|this| Self {
                this: this.clone(),
                room: Arc::clone(room),
                records: Mutex::new(records),
                got: Mutex::default(),
                is_waiting: AtomicBool::new(false),
            })
        }

        fn got(&self) -> usize {
            self.got.lock().unwrap().len()
        }

        fn give_back(&self, records: usize) {
            self.got.lock().unwrap().drain(..records);
        }
    }

    impl Waits for Wants {
        fn on_room(&self) {
            let mut records = self.records.lock().unwrap();
            while *records > 0
                && let Ok(held) = self.room.reserve(1, &self.this.upgrade().unwrap())
            {
                *records -= 1;
                self.got.lock().unwrap().push(held);
            }
        }

        fn is_waiting(&self) -> &AtomicBool {
            &self.is_waiting
        }
    }

    fn room(bytes: usize) -> Arc<Room<Wants>> {
        let limits = Limits {
            bytes: Some(bytes),
            ..Limits::default()
        };
        Room::new(Ledger::root("test", limits))
    }

    #[test]
    fn who_found_no_room_is_told_when_others_give_theirs_back() {
        let room = room(4);
        let (full, late) = (Wants::new(&room, 4), Wants::new(&room, 2));
        full.on_room();
        late.on_room();
        assert_eq!((full.got(), late.got()), (4, 0));
        assert!(!room.has_to_tell());
        full.give_back(3);
        assert!(room.has_to_tell());
        room.tell();
        assert_eq!(late.got(), 2);
        assert!(!room.has_to_tell(), "nobody waits");
    }

    #[test]
    fn what_is_given_back_between_a_refusal_and_the_wait_is_not_missed() {
        let room = room(1);
        let (full, late) = (Wants::new(&room, 1), Wants::new(&room, 1));
        full.on_room();
        late.on_room();
        full.give_back(1);
        // Somebody else is faster than the one who waits, and then is done.
        let fast = Wants::new(&room, 1);
        fast.on_room();
        room.tell();
        assert_eq!((fast.got(), late.got()), (1, 0));
        fast.give_back(1);
        assert!(room.has_to_tell());
        room.tell();
        assert_eq!(late.got(), 1);
    }

    #[test]
    fn those_who_wait_take_turns() {
        let room = room(2);
        let full = Wants::new(&room, 2);
        full.on_room();
        let waiting = [1, 2, 3].map(|_| Wants::new(&room, 100));
        for wants in &waiting {
            wants.on_room();
        }
        full.give_back(2);
        room.tell();
        for _ in 0..3 {
            for at in 0..3 {
                let got = waiting.each_ref().map(|wants| wants.got());
                assert_eq!(got[at], 2, "its turn: {got:?}");
                waiting[at].give_back(2);
                room.tell();
            }
        }
    }

    #[test]
    fn who_has_gone_is_passed_over() {
        let room = room(1);
        let (full, gone, late) = (
            Wants::new(&room, 1),
            Wants::new(&room, 1),
            Wants::new(&room, 1),
        );
        for wants in [&full, &gone, &late] {
            wants.on_room();
        }
        drop(gone);
        full.give_back(1);
        room.tell();
        assert_eq!(late.got(), 1);
    }

    #[test]
    fn nobody_waits_for_what_nobody_gives_back() {
        let room = room(4);
        let nobody = Wants::new(&room, 1);
        let too_long = room.reserve(5, &nobody);
        assert!(matches!(too_long, Err(SpillError::Budget(_))));
        let _held = room.reserve(1, &nobody).expect("there is room");
        let too_long = room.reserve(5, &nobody);
        assert!(matches!(too_long, Err(SpillError::Budget(_))));
        let not_yet = room.reserve(4, &nobody);
        assert!(matches!(not_yet, Err(SpillError::NoRoomYet)));
    }
}
