//! Which of the users may come in at one place: between nodes, those that are nodes.

use std::{
    collections::{HashSet, VecDeque},
    net::IpAddr,
    sync::{Arc, Mutex, PoisonError},
};

use super::{AuthError, Identity};
use crate::network::network;

/// Users, each at an address, whose refusal was logged as a warning and is not again; the oldest are forgotten.
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
    /// The user is not one of them. That is a warning once for each user at each address, because whoever knows a password
    /// can be refused as often as they like.
    pub(super) fn check(&self, peer: IpAddr, identity: &Identity) -> Result<(), AuthError> {
        if self.users.contains(&identity.user) {
            return Ok(());
        }
        let error = AuthError::NotAdmitted {
            user: identity.user.clone(),
            expected: self.expected,
        };
        if self.is_first(network(peer), &identity.user) {
            tracing::warn!(%peer, %error, "refused; not told again of this user at this address");
        } else {
            tracing::debug!(%peer, %error, "refused again");
        }
        Err(error)
    }

    fn is_first(&self, peer: IpAddr, user: &str) -> bool {
        let mut logged = self.logged.lock().unwrap_or_else(PoisonError::into_inner);
        logged.is_first((peer, user.into()))
    }
}

#[derive(Debug, Default)]
struct Logged {
    users: HashSet<(IpAddr, Arc<str>)>,
    order: VecDeque<(IpAddr, Arc<str>)>,
}

impl Logged {
    fn is_first(&mut self, user: (IpAddr, Arc<str>)) -> bool {
        if !self.users.insert(user.clone()) {
            return false;
        }
        self.order.push_back(user);
        if self.order.len() > LOGGED_MAX
            && let Some(oldest) = self.order.pop_front()
        {
            self.users.remove(&oldest);
        }
        true
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_user_at_an_address_is_logged_once_and_remembered_within_a_limit() {
        let mut logged = Logged::default();
        let address = |number: usize| {
            let [.., high, low] = number.to_be_bytes();
            (IpAddr::from([10, 0, high, low]), Arc::from("ann"))
        };
        for number in 0..=LOGGED_MAX {
            assert!(logged.is_first(address(number)) && !logged.is_first(address(number)));
        }
        assert_eq!(
            (logged.users.len(), logged.order.len()),
            (LOGGED_MAX, LOGGED_MAX)
        );
        assert!(logged.is_first(address(0)), "forgotten");
        let (peer, _) = address(0);
        assert!(logged.is_first((peer, "bob".into())), "another user");
    }
}
