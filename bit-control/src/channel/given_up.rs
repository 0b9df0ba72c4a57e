//! Channels that the peer has given up before it was known that it opens them: what ends one overtakes what opens it.
//!
//! Those that are too many to be remembered one by one are remembered as a range. Whatever is opened in there is refused,
//! for the peer to try again: it may have been given up.

use std::{collections::BTreeSet, ops::RangeInclusive};

#[derive(Debug)]
pub(crate) struct GivenUp {
    max: usize,
    ids: BTreeSet<u64>,
    range: Option<RangeInclusive<u64>>,
}

impl GivenUp {
    /// Remembers `max` of them one by one.
    pub(crate) fn new(max: usize) -> Self {
        Self {
            max,
            ids: BTreeSet::new(),
            range: None,
        }
    }

    pub(crate) fn add(&mut self, id: u64) {
        if self.ids.len() < self.max || self.ids.contains(&id) {
            self.ids.insert(id);
        } else {
            let range = self.range.take().unwrap_or(id..=id);
            self.range = Some(id.min(*range.start())..=id.max(*range.end()));
        }
    }

    /// Whether a channel that is opened may have been given up. None with a lower id is opened later.
    pub(crate) fn take(&mut self, id: u64) -> bool {
        let rest = self.ids.split_off(&id);
        self.ids = rest;
        self.range.take_if(|range| *range.end() < id);
        self.ids.remove(&id) || self.range.as_ref().is_some_and(|range| range.contains(&id))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn those_that_are_remembered_are_told_from_others() {
        let mut given_up = GivenUp::new(3);
        for id in [9, 3, 3, 5] {
            given_up.add(id);
        }
        let opened = [1, 3, 5, 7, 9, 11].map(|id| given_up.take(id));
        assert_eq!(opened, [false, true, true, false, true, false]);
        assert!(given_up.ids.is_empty());
    }

    #[test]
    fn those_that_are_too_many_are_a_range_until_it_is_over() {
        let mut given_up = GivenUp::new(2);
        for id in [3, 21, 11, 11, 15, 9, 21] {
            given_up.add(id);
        }
        assert_eq!(
            (given_up.ids.len(), given_up.range.clone()),
            (2, Some(9..=15))
        );
        let opened = [1, 3, 7, 9, 13, 15, 17, 21, 23].map(|id| given_up.take(id));
        let expected = [false, true, false, true, true, true, false, true, false];
        assert_eq!(opened, expected);
        assert!(given_up.range.is_none());
        given_up.add(u64::MAX);
        assert!(given_up.take(u64::MAX));
    }
}
