//! Which of the users may come in at one place: between nodes, those that are nodes.

use std::{
    collections::{HashSet, VecDeque},
    net::IpAddr,
    sync::{Mutex, PoisonError},
};

use super::{AuthError, Identity};
use crate::network::network;

/// Peer addresses whose refusal was logged and is not logged again; the oldest are forgotten.
const LOGGED_MAX: usize = 1024;

/// Who may come in.
#[derive(Debug)]
pub(super) struct Admission {
    users: HashSet<String>,
    /// What these users are, for messages.
    expected: &'static str,
    logged: Mutex<Logged>,
}

impl Admission {
    pub(super) fn new(users: HashSet<String>, expected: &'static str) -> Self {
        Self {
            users,
            expected,
            logged: Mutex::default(),
        }
    }

    /// # Errors
    ///
    /// The user is not one of them. That is logged once for each address, because whoever knows a password can be refused
    /// as often as they like.
    pub(super) fn check(&self, peer: IpAddr, identity: &Identity) -> Result<(), AuthError> {
        if self.users.contains(&identity.user) {
            return Ok(());
        }
        let error = AuthError::NotAdmitted {
            user: identity.user.clone(),
            expected: self.expected,
        };
        let mut logged = self.logged.lock().unwrap_or_else(PoisonError::into_inner);
        if logged.is_first(network(peer)) {
            tracing::warn!(%peer, %error, "refused; not told again of this address");
        }
        Err(error)
    }
}

#[derive(Debug, Default)]
struct Logged {
    peers: HashSet<IpAddr>,
    order: VecDeque<IpAddr>,
}

impl Logged {
    fn is_first(&mut self, peer: IpAddr) -> bool {
        if !self.peers.insert(peer) {
            return false;
        }
        self.order.push_back(peer);
        if self.order.len() > LOGGED_MAX
            && let Some(oldest) = self.order.pop_front()
        {
            self.peers.remove(&oldest);
        }
        true
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_address_is_logged_once_and_remembered_within_a_limit() {
        let mut logged = Logged::default();
        let address = |number: usize| {
            let [.., high, low] = number.to_be_bytes();
            IpAddr::from([10, 0, high, low])
        };
        for number in 0..=LOGGED_MAX {
            assert!(logged.is_first(address(number)) && !logged.is_first(address(number)));
        }
        assert_eq!(
            (logged.peers.len(), logged.order.len()),
            (LOGGED_MAX, LOGGED_MAX)
        );
        assert!(logged.is_first(address(0)), "forgotten");
    }
}
