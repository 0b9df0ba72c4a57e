//! Calls that wait for their answer: ids, deadlines, and tombstones of those given up.

use std::{cmp::Reverse, collections::BinaryHeap, mem, time::Instant};

use tokio::sync::oneshot;

use super::Outcome;
use crate::{frame::CoordinationId, metrics::Started};

/// Where the outcome of a call goes.
pub(crate) type Completion = oneshot::Sender<Outcome>;

/// First number of places for calls; a power of two.
const PLACES_MIN: usize = 4;
/// Places that a connection keeps when it has no calls.
const SPARE_PLACES_MAX: usize = 16;

#[derive(Debug)]
enum Slot {
    Waiting(Waiting),
    /// Nobody waits, but the peer may still answer: the id stays taken.
    GivenUp,
}

/// A call that somebody waits for.
#[derive(Debug)]
pub(crate) struct Waiting {
    pub(crate) completion: Completion,
    /// By when it must be answered.
    pub(crate) deadline: Option<Instant>,
    pub(crate) started: Started,
}

/// Whom an id belongs to.
#[derive(Debug)]
pub(crate) enum Answered {
    Waiting(Waiting),
    GivenUp,
    Unknown,
}

#[derive(Debug, Default)]
pub(crate) struct Calls {
    last: i32,
    slots: Slots,
    /// Earliest first; entries of calls that have ended are dropped when they come up, or when they are the most.
    deadlines: BinaryHeap<Reverse<(Instant, CoordinationId)>>,
}

impl Calls {
    /// The next id: from 1, never 0, past the highest number negative ones follow; never one that is taken.
    // wire: drill@051b164 exec/rpc/.../RequestIdMap.java
    pub(crate) fn next_id(&mut self) -> CoordinationId {
        self.slots.make_room();
        loop {
            self.last = self.last.wrapping_add(1);
            let id = CoordinationId(self.last);
            if id != CoordinationId::NONE && self.slots.is_free(id) {
                return id;
            }
        }
    }

    #[inline]
    pub(crate) fn insert(&mut self, id: CoordinationId, call: Waiting) {
        let deadline = call.deadline;
        if let Some(place) = self.slots.take_place(id) {
            *place = Some((id, Slot::Waiting(call)));
        }
        if let Some(at) = deadline {
            self.deadlines.push(Reverse((at, id)));
            self.drop_stale_deadlines();
        }
    }

    /// Ends the call with `id`, because its answer is here.
    pub(crate) fn answered(&mut self, id: CoordinationId) -> Answered {
        match self.slots.take(id) {
            Some(Slot::Waiting(call)) => Answered::Waiting(call),
            Some(Slot::GivenUp) => Answered::GivenUp,
            None => Answered::Unknown,
        }
    }

    /// Nobody waits for `id` any more; the call that was given up, unless it was already.
    pub(crate) fn give_up(&mut self, id: CoordinationId) -> Option<Waiting> {
        match mem::replace(self.slots.get_mut(id)?, Slot::GivenUp) {
            Slot::Waiting(call) => Some(call),
            Slot::GivenUp => None,
        }
    }

    /// A call whose deadline has passed, given up.
    pub(crate) fn expire(&mut self, now: Instant) -> Option<Waiting> {
        while let Some(&Reverse((at, id))) = self.deadlines.peek() {
            if at > now {
                return None;
            }
            self.deadlines.pop();
            if self.has_deadline(at, id)
                && let Some(call) = self.give_up(id)
            {
                return Some(call);
            }
        }
        None
    }

    /// The earliest deadline; it may be that of a call that has ended already.
    pub(crate) fn next_deadline(&self) -> Option<Instant> {
        self.deadlines.peek().map(|Reverse((at, _))| *at)
    }

    /// Gives back what a burst of calls has left behind, once all of them have ended. Not for every burst: a busy
    /// connection would do nothing else.
    pub(crate) fn shrink(&mut self) {
        if self.slots.taken == 0 && self.slots.places.len() > SPARE_PLACES_MAX {
            self.slots = Slots::default();
            self.deadlines = BinaryHeap::new();
        }
    }

    /// Takes out every call that somebody waits for, for ever.
    pub(crate) fn drain(&mut self) -> Vec<Completion> {
        self.deadlines = BinaryHeap::new();
        let taken = mem::take(&mut self.slots).places.into_iter().flatten();
        taken
            .filter_map(|(_, slot)| match slot {
                Slot::Waiting(call) => Some(call.completion),
                Slot::GivenUp => None,
            })
            .collect()
    }

    /// Calls in flight, those given up included.
    pub(crate) fn len(&self) -> usize {
        self.slots.taken
    }

    #[cfg(test)]
    pub(super) fn places(&self) -> usize {
        self.slots.places.len()
    }

    fn has_deadline(&self, at: Instant, id: CoordinationId) -> bool {
        matches!(
            self.slots.get(id),
            Some(Slot::Waiting(Waiting { deadline: Some(deadline), .. })) if *deadline == at
        )
    }

    // Deadlines are long and answers quick: without this the heap would hold a minute of calls.
    fn drop_stale_deadlines(&mut self) {
        if self.deadlines.len() > 64 + 2 * self.slots.taken {
            let mut deadlines = mem::take(&mut self.deadlines).into_vec();
            deadlines.retain(|Reverse((at, id))| self.has_deadline(*at, *id));
            self.deadlines = deadlines.into();
        }
    }
}

/// What each id that is taken stands for. Ids come one after the other, and so do their places: the one of `id` is its
/// number modulo how many there are, a power of two of which at most half are taken.
#[derive(Debug, Default)]
struct Slots {
    places: Vec<Option<(CoordinationId, Slot)>>,
    taken: usize,
}

impl Slots {
    /// Makes sure that there is a free place for one more.
    fn make_room(&mut self) {
        if 2 * (self.taken + 1) > self.places.len() {
            self.grow();
        }
    }

    #[cold]
    fn grow(&mut self) {
        let len = (2 * self.places.len()).max(PLACES_MIN);
        let mut grown = Self::default();
        grown.places.resize_with(len, || None);
        for (id, slot) in mem::take(self).places.into_iter().flatten() {
            // Two that shared none of the old places share none of the new ones.
            if let Some(place) = grown.take_place(id) {
                *place = Some((id, slot));
            }
        }
        *self = grown;
    }

    /// Whether `id` could be inserted now.
    fn is_free(&self, id: CoordinationId) -> bool {
        let place = self.places.get(self.index(id));
        place.is_some_and(Option::is_none)
    }

    /// The place of `id`, which is free and must be filled: where it is, not moved there.
    fn take_place(&mut self, id: CoordinationId) -> Option<&mut Option<(CoordinationId, Slot)>> {
        let index = self.index(id);
        debug_assert!(self.is_free(id), "invariant: a place is taken once");
        self.taken += 1;
        self.places.get_mut(index)
    }

    fn get(&self, id: CoordinationId) -> Option<&Slot> {
        let place = self.places.get(self.index(id))?.as_ref();
        place.filter(|(of, _)| *of == id).map(|(_, slot)| slot)
    }

    fn get_mut(&mut self, id: CoordinationId) -> Option<&mut Slot> {
        let index = self.index(id);
        let place = self.places.get_mut(index)?.as_mut();
        place.filter(|(of, _)| *of == id).map(|(_, slot)| slot)
    }

    fn take(&mut self, id: CoordinationId) -> Option<Slot> {
        let index = self.index(id);
        let (_, slot) = self.places.get_mut(index)?.take_if(|(of, _)| *of == id)?;
        self.taken -= 1;
        Some(slot)
    }

    fn index(&self, id: CoordinationId) -> usize {
        id.0.cast_unsigned() as usize & self.places.len().wrapping_sub(1)
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use protos::Plane;

    use super::*;
    use crate::metrics::Rpcs;

    fn waiting(calls: &mut Calls, deadline: Option<Instant>) -> CoordinationId {
        let id = calls.next_id();
        // The receiving half is of no interest here.
        let call = Waiting {
            completion: oneshot::channel().0,
            deadline,
            started: Rpcs::default().on_call(Plane::User, 3, 0, Instant::now()),
        };
        calls.insert(id, call);
        id
    }

    fn after(start: Instant, seconds: u64) -> Instant {
        start + Duration::from_secs(seconds)
    }

    #[test]
    fn ids_start_at_1_and_wrap_to_negative_ones_without_0() {
        let mut calls = Calls::default();
        assert_eq!(calls.next_id(), CoordinationId(1));
        calls.last = i32::MAX;
        assert_eq!(calls.next_id(), CoordinationId(i32::MIN));
        calls.last = -1;
        assert_eq!(calls.next_id(), CoordinationId(1));
    }

    #[test]
    fn an_id_that_is_taken_is_never_given_out_again() {
        let mut calls = Calls::default();
        let first = waiting(&mut calls, None);
        let second = waiting(&mut calls, None);
        calls.give_up(second);
        calls.last = 0;
        assert_eq!(calls.next_id(), CoordinationId(3));
        assert!(matches!(calls.answered(first), Answered::Waiting(_)));
        assert!(matches!(calls.answered(second), Answered::GivenUp));
        assert!(matches!(calls.answered(second), Answered::Unknown));
    }

    #[test]
    fn calls_that_end_in_any_order_are_found_by_their_id() {
        let (mut calls, mut open) = (Calls::default(), Vec::new());
        for round in 0..1000_usize {
            open.extend((0..round % 7).map(|_| waiting(&mut calls, None)));
            // Some are answered soon, some given up, and some stay for long.
            for _ in 0..(round % 6).min(open.len()) {
                let id = open.swap_remove(round * 31 % open.len());
                if round % 5 == 0 {
                    assert!(calls.give_up(id).is_some() && calls.give_up(id).is_none());
                    assert!(matches!(calls.answered(id), Answered::GivenUp));
                } else {
                    assert!(matches!(calls.answered(id), Answered::Waiting(_)));
                }
                assert!(matches!(calls.answered(id), Answered::Unknown));
            }
            assert_eq!(calls.len(), open.len());
        }
        assert!(open.len() > 100);
        assert_eq!(calls.drain().len(), open.len());
    }

    #[test]
    fn what_a_burst_has_left_is_given_back_once_all_have_ended() {
        let (mut calls, start) = (Calls::default(), Instant::now());
        let ids: Vec<_> = (0..65_536)
            .map(|_| waiting(&mut calls, Some(after(start, 60))))
            .collect();
        for &id in &ids[1..] {
            assert!(matches!(calls.answered(id), Answered::Waiting(_)));
        }
        calls.shrink();
        assert!(calls.slots.places.len() > 65_536, "one is not answered yet");
        assert!(matches!(calls.answered(ids[0]), Answered::Waiting(_)));
        calls.shrink();
        let held = (calls.slots.places.capacity(), calls.deadlines.capacity());
        assert_eq!((held, calls.next_deadline()), ((0, 0), None));
        let next = waiting(&mut calls, Some(after(start, 60)));
        assert_eq!(next, CoordinationId(65_537));
        assert!(matches!(calls.answered(ids[7]), Answered::Unknown));
        assert!(matches!(calls.answered(next), Answered::Waiting(_)));
    }

    #[test]
    fn few_places_are_kept() {
        let mut calls = Calls::default();
        let ids: Vec<_> = (0..8).map(|_| waiting(&mut calls, None)).collect();
        for id in ids {
            calls.answered(id);
        }
        calls.shrink();
        assert_eq!(calls.slots.places.len(), SPARE_PLACES_MAX);
    }

    #[test]
    fn an_expired_call_stays_as_a_tombstone() {
        let (mut calls, start) = (Calls::default(), Instant::now());
        let id = waiting(&mut calls, Some(after(start, 5)));
        assert!(calls.expire(start + Duration::from_secs(4)).is_none());
        assert!(calls.expire(after(start, 5)).is_some());
        assert!(matches!(calls.answered(id), Answered::GivenUp));
    }

    #[test]
    fn deadlines_of_answered_calls_do_not_pile_up() {
        let (mut calls, start) = (Calls::default(), Instant::now());
        for _ in 0..10_000 {
            let id = waiting(&mut calls, Some(after(start, 60)));
            calls.answered(id);
        }
        assert!(calls.deadlines.len() < 100);
        assert!(calls.expire(start + Duration::from_secs(61)).is_none());
    }
}
