//! Room for what is spilled, which all queues share: in memory until it is written, and on disk; and those queues that wait
//! for either.
//!
//! Whoever waits in a place is told: either something is held there, and [`Room::tell`] comes after it was given back; or
//! there is room already, and somebody is about to call that; or it is others that hold the memory, those with whom a
//! ledger above is shared, and [`Room::ask_again`] comes in a while. Who has found too little says nothing about others, who
//! may want less, so all are told, those first who have waited longest for their turn.
//!
//! What is to be read back needs memory too, of the ledger above, and does not wait here: what gives memory back is soon
//! followed by what takes it. So what has waited for long comes first, as long as it holds a [`First`]: nothing is reserved
//! meanwhile, and what is here is written and gives back what it holds.
//!
//! As long as somebody waits, somebody watches: it sees to [`Room::ask_again`], and if it ends too early, those who wait
//! are told that the room is closed. It is begun under the lock, so that nobody begins to wait for one that is not there.

use std::{
    collections::BTreeMap,
    mem,
    sync::{
        Arc, Mutex, MutexGuard, PoisonError, Weak,
        atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering},
    },
};

use rpc_bus::{
    Ledger,
    ledger::{BudgetExceeded, Charge, Kind},
};

use super::{SpillError, index::Absorb};

/// Whoever wants room.
pub(super) trait Waits {
    /// There may be room, for some at least. Nothing is locked.
    fn on_room(&self);

    /// Where it is listed as waiting; changed under the lock of the room.
    fn waiting(&self) -> &Waiting;
}

/// Whether somebody waits, in each place.
#[derive(Debug, Default)]
pub(super) struct Waiting([Turn; 2]);

#[derive(Debug, Default)]
struct Turn {
    is_listed: AtomicBool,
    /// Since it got something: the lower, the earlier. Zero: it gets one when it has to wait.
    number: AtomicU64,
}

/// Where there is room.
#[derive(Clone, Copy, Debug)]
enum Place {
    /// For records that are to be written.
    Memory,
    Disk,
}

#[derive(Debug)]
pub(super) struct Room<W> {
    memory: Ledger,
    disk: Ledger,
    /// In memory, and on disk.
    turns: Mutex<[Turns<W>; 2]>,
    /// Changed under the lock.
    is_watched: AtomicBool,
    /// How many others come first in memory; changed under the lock.
    firsts: AtomicUsize,
    /// Whoever watched has gone for ever.
    is_closed: AtomicBool,
}

/// Comes before all that is to be written, in memory. After it was dropped, [`Room::tell`] is to be called.
#[derive(Debug)]
pub(super) struct First<W>(Arc<Room<W>>);

/// Why there is no room.
#[derive(Debug)]
pub(super) enum Refused {
    /// Others hold it; what it is called if that does not end.
    Yet(SpillError),
    Ever(SpillError),
}

/// Whose turn it is in one place.
#[derive(Debug)]
struct Turns<W> {
    place: Place,
    /// How often there is something to be given back.
    held: usize,
    /// Some was given back since those who wait were told of it.
    has_more: bool,
    /// By their turns: who finds too little keeps its own, who gets something has its next one after all others.
    waiting: BTreeMap<u64, Weak<W>>,
    last_turn: u64,
}

/// What a record, or several, take in one place.
#[derive(Debug)]
pub(super) struct Held<W> {
    charge: Option<Charge>,
    place: Place,
    room: Arc<Room<W>>,
}

/// What a record takes until it is written, and after.
#[derive(Debug)]
pub(super) struct Reserved<W> {
    pub(super) memory: Held<W>,
    pub(super) disk: Held<W>,
}

impl<W> Room<W> {
    pub(super) fn new(memory: Ledger, disk: Ledger) -> Arc<Self> {
        let turns = [Place::Memory, Place::Disk].map(Turns::new);
        Arc::new(Self {
            memory,
            disk,
            turns: Mutex::new(turns),
            is_watched: AtomicBool::new(false),
            firsts: AtomicUsize::new(0),
            is_closed: AtomicBool::new(false),
        })
    }

    /// In memory, until it is written.
    pub(super) fn unwritten_bytes(&self) -> usize {
        self.memory.used(Kind::Bytes)
    }

    pub(super) fn disk_bytes(&self) -> usize {
        self.disk.used(Kind::Bytes)
    }

    /// Comes first from now on.
    pub(super) fn first(self: &Arc<Self>) -> First<W> {
        let _turns = self.lock();
        self.firsts.fetch_add(1, Ordering::Relaxed);
        First(Arc::clone(self))
    }

    /// For a record, under the lock.
    fn charge_memory(&self, bytes: usize) -> Result<Charge, BudgetExceeded> {
        let charge = self.memory.charge(Kind::Bytes, bytes)?;
        if self.firsts.load(Ordering::Relaxed) == 0 {
            return Ok(charge);
        }
        drop(charge);
        let used = self.memory.used(Kind::Bytes);
        Err(BudgetExceeded {
            ledger: self.memory.name().into(),
            kind: Kind::Bytes,
            requested: bytes,
            used,
            limit: self.memory.limit(Kind::Bytes).unwrap_or(usize::MAX),
        })
    }

    fn lock(&self) -> MutexGuard<'_, [Turns<W>; 2]> {
        self.turns.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn held(self: &Arc<Self>, place: Place, charge: Charge) -> Held<W> {
        Held {
            charge: Some(charge),
            place,
            room: Arc::clone(self),
        }
    }
}

impl<W: Waits> Room<W> {
    /// Room for so many bytes of `whose`, in memory and on disk; it is told if there is none yet.
    ///
    /// # Errors
    ///
    /// There is none now, or can never be any.
    pub(super) fn reserve(
        self: &Arc<Self>,
        memory_bytes: usize,
        disk_bytes: usize,
        whose: &Arc<W>,
    ) -> Result<Reserved<W>, Refused> {
        // Held while the ledgers are asked: what is given back is so before this is locked.
        let mut turns = self.lock();
        let [in_memory, on_disk] = &mut *turns;
        let memory = match self.charge_memory(memory_bytes) {
            Ok(charge) => charge,
            Err(exceeded) if in_memory.waits(&exceeded, whose) => {
                return Err(Refused::Yet(exceeded.into()));
            }
            Err(exceeded) => return Err(too_long(exceeded)),
        };
        let disk = match self.disk.charge(Kind::Bytes, disk_bytes) {
            Ok(charge) => charge,
            Err(exceeded) if on_disk.waits(&exceeded, whose) => {
                return Err(Refused::Yet(disk_limit(&exceeded)));
            }
            Err(exceeded) => return Err(too_long(exceeded)),
        };
        in_memory.held += 1;
        on_disk.held += 1;
        whose.waiting().has_had_its_turn();
        Ok(Reserved {
            memory: self.held(Place::Memory, memory),
            disk: self.held(Place::Disk, disk),
        })
    }

    /// Whether [`Self::tell`] is to be called, by somebody who has nothing locked.
    pub(super) fn has_to_tell(&self) -> bool {
        self.lock().iter().any(Turns::has_to_tell)
    }

    /// Tells those who wait of what was given back: each of them once.
    pub(super) fn tell(&self) {
        loop {
            // None of them goes away under the lock.
            let told = self.lock().each_mut().map(Turns::take);
            if told.iter().all(Vec::is_empty) {
                return;
            }
            told.iter().flatten().for_each(|one| one.on_room());
        }
    }

    /// Has `begin` begin to watch, if somebody waits and nobody watches.
    ///
    /// # Errors
    ///
    /// Nobody can watch any more.
    pub(super) fn watch(&self, begin: impl FnOnce()) -> Result<(), SpillError> {
        let turns = self.lock();
        let is_needed = turns.iter().any(|turns| !turns.waiting.is_empty());
        if is_needed && !self.is_watched.load(Ordering::SeqCst) {
            begin();
            self.is_watched.store(true, Ordering::SeqCst);
        }
        // One that ends while it begins does not see that it has begun: then this sees that it has ended.
        if self.is_closed.load(Ordering::SeqCst) {
            return Err(SpillError::RuntimeEnded);
        }
        drop(turns);
        Ok(())
    }

    /// Has those told again who wait for what others hold, by [`Self::tell`]; or all, so that they see how long they
    /// have waited. `false`: nobody waits, and nobody needs to watch.
    pub(super) fn ask_again(&self, is_everybody: bool) -> bool {
        let mut turns = self.lock();
        if turns.iter().all(|turns| turns.waiting.is_empty()) {
            self.is_watched.store(false, Ordering::SeqCst);
            return false;
        }
        for turns in &mut *turns {
            turns.has_more |= is_everybody || turns.held == 0;
        }
        true
    }

    /// Nobody watches any more: tells those who wait. Nothing is locked, but for the caller of [`Self::watch`] while it
    /// begins, and then nobody else waits.
    pub(super) fn close(&self) {
        self.is_closed.store(true, Ordering::SeqCst);
        if self.is_watched.load(Ordering::SeqCst) {
            self.ask_again(true);
            self.tell();
        }
    }
}

impl<W> Turns<W> {
    fn new(place: Place) -> Self {
        Self {
            place,
            held: 0,
            has_more: false,
            waiting: BTreeMap::new(),
            last_turn: 0,
        }
    }

    fn has_to_tell(&self) -> bool {
        self.has_more && !self.waiting.is_empty()
    }
}

impl<W: Waits> Turns<W> {
    /// Lets `whose` wait, unless there can never be enough.
    fn waits(&mut self, exceeded: &BudgetExceeded, whose: &Arc<W>) -> bool {
        if exceeded.requested > exceeded.limit {
            return false;
        }
        // What was given back it has seen, which does not hold for those who wait already.
        self.has_more &= !self.waiting.is_empty();
        let turn = whose.waiting().at(self.place);
        if turn.number.load(Ordering::Relaxed) == 0 {
            self.last_turn += 1;
            turn.number.store(self.last_turn, Ordering::Relaxed);
        }
        if !turn.is_listed.swap(true, Ordering::Relaxed) {
            let number = turn.number.load(Ordering::Relaxed);
            self.waiting.insert(number, Arc::downgrade(whose));
        }
        true
    }

    /// All who wait, if there is something to tell them of.
    fn take(&mut self) -> Vec<Arc<W>> {
        if !self.has_to_tell() {
            return Vec::new();
        }
        self.has_more = false;
        let waiting = mem::take(&mut self.waiting).into_values();
        let told: Vec<_> = waiting.filter_map(|one| one.upgrade()).collect();
        for one in &told {
            let turn = one.waiting().at(self.place);
            turn.is_listed.store(false, Ordering::Relaxed);
        }
        told
    }
}

impl Waiting {
    pub(super) fn is_anywhere(&self) -> bool {
        let mut turns = self.0.iter();
        turns.any(|turn| turn.is_listed.load(Ordering::Relaxed))
    }

    fn has_had_its_turn(&self) {
        for turn in &self.0 {
            // Who is listed yet is so by its number.
            if !turn.is_listed.load(Ordering::Relaxed) {
                turn.number.store(0, Ordering::Relaxed);
            }
        }
    }

    fn at(&self, place: Place) -> &Turn {
        let [in_memory, on_disk] = &self.0;
        match place {
            Place::Memory => in_memory,
            Place::Disk => on_disk,
        }
    }
}

impl<W> Drop for First<W> {
    fn drop(&mut self) {
        let [in_memory, _] = &mut *self.0.lock();
        self.0.firsts.fetch_sub(1, Ordering::Relaxed);
        in_memory.has_more = true;
    }
}

impl<W> Absorb for Held<W> {
    fn absorb(&mut self, mut other: Self) {
        if let (Some(charge), Some(more)) = (&mut self.charge, other.charge.take()) {
            charge.absorb(more);
        }
    }
}

impl<W> Drop for Held<W> {
    fn drop(&mut self) {
        // What another one has absorbed is not given back.
        let is_given_back = self.charge.take().is_some();
        let mut turns = self.room.lock();
        let [in_memory, on_disk] = &mut *turns;
        let turns = match self.place {
            Place::Memory => in_memory,
            Place::Disk => on_disk,
        };
        turns.held -= 1;
        turns.has_more |= is_given_back;
    }
}

fn too_long(exceeded: BudgetExceeded) -> Refused {
    Refused::Ever(SpillError::TooLong {
        ledger: exceeded.ledger,
        requested: exceeded.requested,
        limit: exceeded.limit,
    })
}

fn disk_limit(exceeded: &BudgetExceeded) -> SpillError {
    SpillError::DiskLimit {
        requested: exceeded.requested,
        used: exceeded.used,
        limit: exceeded.limit,
    }
}

#[cfg(test)]
mod tests {
    use std::ops::AddAssign;

    use rpc_bus::ledger::Limits;

    use super::*;

    /// Wants records of one byte each, and keeps what it gets.
    struct Wants {
        this: Weak<Self>,
        room: Arc<Room<Self>>,
        records: Mutex<usize>,
        disk_bytes: usize,
        got: Mutex<Vec<Reserved<Self>>>,
        waiting: Waiting,
    }

    impl Wants {
        fn new(room: &Arc<Room<Self>>, records: usize) -> Arc<Self> {
            Self::of(room, records, 1)
        }

        /// Records that take more on disk.
        fn of(room: &Arc<Room<Self>>, records: usize, disk_bytes: usize) -> Arc<Self> {
            Arc::new_cyclic(|this| Self {
                this: this.clone(),
                room: Arc::clone(room),
                records: Mutex::new(records),
                disk_bytes,
                got: Mutex::default(),
                waiting: Waiting::default(),
            })
        }

        fn reserve(&self) -> Result<Reserved<Self>, Refused> {
            let this = self.this.upgrade().unwrap();
            self.room.reserve(1, self.disk_bytes, &this)
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
                && let Ok(held) = self.reserve()
            {
                *records -= 1;
                self.got.lock().unwrap().push(held);
            }
        }

        fn waiting(&self) -> &Waiting {
            &self.waiting
        }
    }

    fn room(bytes: usize) -> Arc<Room<Wants>> {
        room_of(bytes, 1_000)
    }

    fn room_of(memory_bytes: usize, disk_bytes: usize) -> Arc<Room<Wants>> {
        let ledger = |bytes| {
            let limits = Limits {
                bytes: Some(bytes),
                ..Limits::default()
            };
            Ledger::root("test", limits)
        };
        Room::new(ledger(memory_bytes), ledger(disk_bytes))
    }

    /// Records are written: they keep what they have on disk.
    fn written(wants: &Wants) -> Vec<Held<Wants>> {
        let got = mem::take(&mut *wants.got.lock().unwrap());
        got.into_iter().map(|reserved| reserved.disk).collect()
    }

    #[test]
    fn who_waits_for_the_disk_is_told_when_files_are_deleted() {
        let room = room_of(10, 4);
        let (full, late) = (Wants::new(&room, 4), Wants::new(&room, 2));
        full.on_room();
        late.on_room();
        assert_eq!((full.got(), late.got()), (4, 0));
        let mut on_disk = written(&full);
        room.tell();
        assert_eq!(late.got(), 0, "there is room in memory only");
        let mut kept = on_disk.pop().expect("four");
        kept.absorb(on_disk.pop().expect("three"));
        assert!(!room.has_to_tell(), "what was absorbed is still there");
        drop(on_disk);
        assert!(room.has_to_tell());
        room.tell();
        assert_eq!((late.got(), room.disk_bytes()), (2, 4));
    }

    #[test]
    fn who_waits_for_the_disk_does_not_hold_up_who_waits_for_memory() {
        let room = room_of(4, 6);
        let full = Wants::new(&room, 4);
        full.on_room();
        let (large, small) = (Wants::of(&room, 1, 5), Wants::new(&room, 1));
        large.on_room();
        small.on_room();
        let on_disk = written(&full);
        room.tell();
        assert_eq!((large.got(), small.got()), (0, 1));
        drop((on_disk, written(&small)));
        room.tell();
        assert_eq!(large.got(), 1);
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
    fn who_wants_more_than_there_is_does_not_hold_up_who_wants_less() {
        let room = room_of(100, 10);
        let full = Wants::new(&room, 10);
        full.on_room();
        let (large, small) = (Wants::of(&room, 1, 8), Wants::new(&room, 2));
        large.on_room();
        small.on_room();
        full.give_back(4);
        room.tell();
        assert_eq!((large.got(), small.got()), (0, 2));
        assert!(!room.has_to_tell(), "all were told");
        // And keeps its turn.
        let late = Wants::new(&room, 1);
        full.give_back(6);
        drop(written(&small));
        let other = Wants::of(&room, 1, 3);
        other.on_room();
        late.on_room();
        assert_eq!((late.got(), other.got()), (1, 1));
        other.give_back(1);
        other.records.lock().unwrap().add_assign(2);
        other.on_room();
        assert_eq!(other.got(), 2);
        let again = Wants::of(&room, 1, 8);
        again.on_room();
        other.give_back(2);
        room.tell();
        assert_eq!((large.got(), again.got()), (1, 0));
    }

    #[test]
    fn nothing_is_reserved_while_something_else_comes_first() {
        let room = room(4);
        let (wants, other) = (Wants::new(&room, 1), Wants::new(&room, 1));
        let (first, second) = (room.first(), room.first());
        wants.on_room();
        other.on_room();
        drop(first);
        room.tell();
        assert_eq!(
            (wants.got(), other.got(), room.unwritten_bytes()),
            (0, 0, 0)
        );
        drop(second);
        assert!(room.has_to_tell());
        room.tell();
        assert_eq!((wants.got(), other.got()), (1, 1));
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
        let too_long = room.reserve(5, 1, &nobody);
        assert!(matches!(too_long, Err(Refused::Ever(_))));
        let _held = room.reserve(1, 1, &nobody).expect("there is room");
        let too_long = room.reserve(5, 1, &nobody);
        assert!(matches!(too_long, Err(Refused::Ever(_))));
        let not_yet = room.reserve(4, 1, &nobody);
        assert!(matches!(not_yet, Err(Refused::Yet(_))));
    }
}
