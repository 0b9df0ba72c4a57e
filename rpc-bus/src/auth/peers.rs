//! What the addresses of peers have done: failures within a time, and checks that are under way.

use std::{
    collections::{BTreeMap, HashMap},
    net::IpAddr,
    time::Instant,
};

use super::{AuthError, AuthOptions};
use crate::network::network;

/// A table of at most `peers_max` addresses; the one that has failed longest ago goes first.
#[derive(Debug)]
pub(super) struct Peers {
    options: AuthOptions,
    failures: HashMap<IpAddr, Failures>,
    /// Addresses in the order of their last failure.
    order: BTreeMap<u64, IpAddr>,
    next_order: u64,
    /// Checks that run or wait, by address; no more than `waiting_max` together.
    pending: HashMap<IpAddr, usize>,
    pending_total: usize,
}

#[derive(Debug)]
struct Failures {
    count: u32,
    /// When the count starts again.
    until: Instant,
    order: u64,
}

impl Peers {
    pub(super) fn new(options: AuthOptions) -> Self {
        Self {
            options,
            failures: HashMap::new(),
            order: BTreeMap::new(),
            next_order: 0,
            pending: HashMap::new(),
            pending_total: 0,
        }
    }

    /// Notes a failure; returns whether it was the last one that is allowed for now.
    pub(super) fn fail(&mut self, peer: IpAddr, now: Instant) -> bool {
        let (peer, until) = (network(peer), now + self.options.failure_window);
        let old = self.failures.remove(&peer);
        if let Some(old) = &old {
            self.order.remove(&old.order);
        } else if self.failures.len() >= self.options.peers_max {
            self.forget_oldest();
        }
        let (count, until) = match old {
            Some(old) if now < old.until => (old.count.saturating_add(1), old.until),
            _ => (1, until),
        };
        let order = self.next_order;
        self.next_order += 1;
        self.order.insert(order, peer);
        self.failures.insert(
            peer,
            Failures {
                count,
                until,
                order,
            },
        );
        count == self.options.failures_per_peer_max
    }

    /// Takes a place for a check, to be given back by [`Self::end`].
    pub(super) fn begin(&mut self, peer: IpAddr, now: Instant) -> Result<(), AuthError> {
        self.check(peer, now)?;
        let of_peer = self.pending.entry(network(peer)).or_default();
        if self.pending_total >= self.options.waiting_max
            || *of_peer >= self.options.waiting_per_peer_max
        {
            if *of_peer == 0 {
                self.pending.remove(&network(peer));
            }
            return Err(AuthError::Busy);
        }
        *of_peer += 1;
        self.pending_total += 1;
        Ok(())
    }

    pub(super) fn end(&mut self, peer: IpAddr) {
        let peer = network(peer);
        self.pending_total -= 1;
        if let Some(of_peer) = self.pending.get_mut(&peer) {
            *of_peer -= 1;
            if *of_peer == 0 {
                self.pending.remove(&peer);
            }
        }
    }

    /// Whether `peer` may try.
    pub(super) fn check(&self, peer: IpAddr, now: Instant) -> Result<(), AuthError> {
        let failures = self.failures.get(&network(peer));
        match failures {
            Some(failures)
                if now < failures.until && failures.count >= self.options.failures_per_peer_max =>
            {
                Err(AuthError::TooManyFailures {
                    retry_after: failures.until - now,
                })
            }
            _ => Ok(()),
        }
    }

    fn forget_oldest(&mut self) {
        if let Some((_, oldest)) = self.order.pop_first() {
            self.failures.remove(&oldest);
        }
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use std::time::Duration;

    use super::*;

    fn peers() -> Peers {
        Peers::new(AuthOptions {
            failures_per_peer_max: 2,
            peers_max: 2,
            waiting_max: 3,
            waiting_per_peer_max: 2,
            ..AuthOptions::default()
        })
    }

    fn ip(text: &str) -> IpAddr {
        text.parse().unwrap()
    }

    #[test]
    fn an_address_that_fails_too_often_is_held_off_for_a_while() {
        let (mut peers, now) = (peers(), Instant::now());
        let (bad, good) = (ip("192.0.2.1"), ip("192.0.2.2"));
        assert!(!peers.fail(bad, now));
        assert!(peers.fail(bad, now));
        let later = now + Duration::from_secs(59);
        let retry_after = Duration::from_secs(1);
        assert_eq!(
            peers.check(bad, later),
            Err(AuthError::TooManyFailures { retry_after })
        );
        assert_eq!(peers.check(good, later), Ok(()));
        let after = now + Duration::from_mins(1);
        assert_eq!(peers.check(bad, after), Ok(()));
        assert!(!peers.fail(bad, after));
    }

    #[test]
    fn addresses_of_one_ipv6_network_are_one_and_mapped_ones_are_ipv4() {
        let (mut peers, now) = (peers(), Instant::now());
        peers.fail(ip("2001:db8::1"), now);
        peers.fail(ip("2001:db8::ffff:2"), now);
        assert!(peers.check(ip("2001:db8::3"), now).is_err());
        assert!(peers.check(ip("2001:db8:0:1::3"), now).is_ok());
        peers.fail(ip("::ffff:192.0.2.1"), now);
        peers.fail(ip("192.0.2.1"), now);
        assert!(peers.check(ip("192.0.2.1"), now).is_err());
    }

    #[test]
    fn the_table_stays_small_and_forgets_the_oldest() {
        let (mut peers, now) = (peers(), Instant::now());
        for (address, times) in [
            ("192.0.2.1", 2),
            ("192.0.2.2", 1),
            ("192.0.2.1", 1),
            ("192.0.2.3", 1),
        ] {
            for _ in 0..times {
                peers.fail(ip(address), now);
            }
        }
        assert_eq!((peers.failures.len(), peers.order.len()), (2, 2));
        assert!(peers.check(ip("192.0.2.1"), now).is_err());
        assert!(!peers.failures.contains_key(&ip("192.0.2.2")));
    }

    #[test]
    fn one_address_leaves_places_for_others() {
        let (mut peers, now) = (peers(), Instant::now());
        let (one, other) = (ip("192.0.2.1"), ip("192.0.2.2"));
        assert_eq!(
            (peers.begin(one, now), peers.begin(one, now)),
            (Ok(()), Ok(()))
        );
        assert_eq!(peers.begin(one, now), Err(AuthError::Busy));
        assert_eq!(peers.begin(other, now), Ok(()));
        assert_eq!(peers.begin(other, now), Err(AuthError::Busy));
        for peer in [one, one, other] {
            peers.end(peer);
        }
        assert_eq!((peers.pending_total, peers.pending.len()), (0, 0));
    }
}
