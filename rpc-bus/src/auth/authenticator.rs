//! Checks who peers are, at a bounded cost however many try.

use std::{
    borrow::Cow,
    net::IpAddr,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use thiserror::Error;
use tokio::sync::Semaphore;

use super::{
    Credentials, Identity, Mechanism, Users, admission::Admission, htpasswd::NAME_BYTES_MAX,
    peers::Peers, scram::prepare, users::Table,
};
use crate::{link, options::OptionsError, runtime::BusRuntime};

/// Characters of a user's name that are logged.
const LOGGED_NAME_CHARS: usize = 64;

/// Limits of an [`Authenticator`].
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct AuthOptions {
    /// Mechanisms that may be used. Default: all. SCRAM-SHA-256 is only offered if every user has keys for it.
    pub mechanisms: Vec<Mechanism>,
    /// Passwords that are checked at a time, each on one thread of the cpu pool for up to about a second. Default 2.
    pub verifications_max: usize,
    /// Checks that may run or wait; one more is refused at once. Default 64.
    pub waiting_max: usize,
    /// The same for one peer address. Default 8.
    pub waiting_per_peer_max: usize,
    /// Failures of one peer address within `failure_window`; then it is refused unchecked until the window has passed.
    /// Default 10.
    pub failures_per_peer_max: u32,
    /// How long failures of a peer address count, and keep it from trying again. Default 1 min.
    pub failure_window: Duration,
    /// Peer addresses whose failures are remembered; the oldest are forgotten. Default 4,096.
    pub peers_max: usize,
}

impl Default for AuthOptions {
    fn default() -> Self {
        Self {
            mechanisms: Mechanism::ALL.to_vec(),
            verifications_max: 2,
            waiting_max: 64,
            waiting_per_peer_max: 8,
            failures_per_peer_max: 10,
            failure_window: Duration::from_mins(1),
            peers_max: 4096,
        }
    }
}

impl AuthOptions {
    /// Checks the values.
    ///
    /// # Errors
    ///
    /// A limit or a time of zero: nobody could come in, or everybody could try for ever.
    pub fn validate(&self) -> Result<(), OptionsError> {
        let limits = [
            ("mechanisms", self.mechanisms.len()),
            ("verifications_max", self.verifications_max),
            ("waiting_max", self.waiting_max),
            ("waiting_per_peer_max", self.waiting_per_peer_max),
            ("failures_per_peer_max", self.failures_per_peer_max as usize),
            (
                "failure_window",
                usize::from(!self.failure_window.is_zero()),
            ),
            ("peers_max", self.peers_max),
        ];
        match limits.into_iter().find(|(_, value)| *value == 0) {
            Some((name, _)) => Err(OptionsError::Zero { name }),
            None => Ok(()),
        }
    }
}

/// Why a peer is not let in.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
#[non_exhaustive]
pub enum AuthError {
    /// The user does not exist, or the password is wrong; nobody is told which.
    #[error("user or password are wrong")]
    Rejected,
    /// What the peer sent is no exchange of the mechanism.
    #[error("{0}")]
    Malformed(&'static str),
    /// A mechanism that is not offered.
    #[error("the mechanism {0:?} is not offered")]
    Mechanism(String),
    /// The address of the peer has failed too often of late.
    #[error("too many failed logins from this address, try again in {} s", .retry_after.as_secs() + 1)]
    TooManyFailures {
        /// When it may try again.
        retry_after: Duration,
    },
    /// Who they are is proved, but they may not come in here.
    #[error("the user {user:?} may not come in here, expected {expected}")]
    NotAdmitted {
        /// Name of the user.
        user: String,
        /// Who may.
        expected: &'static str,
    },
    /// Too many checks are waiting.
    #[error("too many logins at a time")]
    Busy,
    /// The check itself failed.
    #[error("the password could not be checked")]
    Broken,
}

impl AuthError {
    /// That `name`, from a peer, is not offered.
    pub(super) fn mechanism(name: &str) -> Self {
        Self::Mechanism(name.chars().take(LOGGED_NAME_CHARS).collect())
    }

    /// Whether the same login may succeed another time.
    #[must_use]
    pub fn is_retryable(&self) -> bool {
        matches!(self, Self::Busy | Self::TooManyFailures { .. })
    }
}

/// Lets users in. Shared by all connections of a server, or of several.
#[derive(Debug)]
pub struct Authenticator {
    users: Arc<Users>,
    mechanisms: Vec<Mechanism>,
    runtime: BusRuntime,
    /// One permit per check that may run.
    running: Arc<Semaphore>,
    peers: Arc<Mutex<Peers>>,
    /// `None`: every user may come in.
    admission: Option<Admission>,
}

impl Authenticator {
    /// Checks passwords of `users` on the cpu pool of `runtime`.
    ///
    /// # Errors
    ///
    /// The options cannot work.
    pub fn new(
        users: Arc<Users>,
        options: AuthOptions,
        runtime: BusRuntime,
    ) -> Result<Self, OptionsError> {
        options.validate()?;
        Ok(Self {
            users,
            mechanisms: options.mechanisms.clone(),
            runtime,
            running: Arc::new(Semaphore::new(options.verifications_max)),
            peers: Arc::new(Mutex::new(Peers::new(options))),
            admission: None,
        })
    }

    /// The same users under the same limits, of whom only those named here come in. Others who have proved who they are
    /// get [`AuthError::NotAdmitted`], which no address is kept out for. `expected` says what these users are. Names are
    /// compared in the form that `SASLprep` (RFC 4013) gives them, as they are looked up.
    #[must_use]
    pub fn only(&self, users: impl IntoIterator<Item = String>, expected: &'static str) -> Self {
        let users = users.into_iter().map(|user| prepared(&user)).collect();
        Self {
            users: Arc::clone(&self.users),
            mechanisms: self.mechanisms.clone(),
            runtime: self.runtime.clone(),
            running: Arc::clone(&self.running),
            peers: Arc::clone(&self.peers),
            admission: Some(Admission::new(users, expected)),
        }
    }

    /// The users; to be read again.
    #[must_use]
    pub fn users(&self) -> &Arc<Users> {
        &self.users
    }

    /// Mechanisms to be offered in a handshake, the strongest first. SCRAM-SHA-256 is one of them only if every user
    /// has keys for it: offered, it is what a client takes, whoever its user is.
    #[must_use]
    pub fn mechanisms(&self) -> Vec<Mechanism> {
        let scram = self.users.table().all_have_scram_keys();
        let possible = |mechanism: &Mechanism| *mechanism != Mechanism::ScramSha256 || scram;
        let all = Mechanism::ALL.into_iter().filter(possible);
        all.filter(|mechanism| self.mechanisms.contains(mechanism))
            .collect()
    }

    /// Checks a password that came from `peer`. Never tells whether the user exists, neither by its answer nor by the
    /// time it takes, unless the file mixes schemes of different cost.
    ///
    /// # Errors
    ///
    /// User or password are wrong, this is one try too many, or the user may not come in here.
    ///
    /// # Cancel safety
    ///
    /// A check that runs goes on, and counts.
    pub async fn verify(
        &self,
        peer: IpAddr,
        credentials: Credentials,
    ) -> Result<Identity, AuthError> {
        let identity = Identity {
            user: prepared(&credentials.user),
            mechanism: Mechanism::Plain,
        };
        let matches = self.check(peer, credentials).await;
        let outcome = matches.and_then(|matches| matches.then_some(()).ok_or(AuthError::Rejected));
        let outcome = outcome.and_then(|()| self.admits(peer, &identity));
        log(peer, &identity, &outcome);
        outcome.map(|()| identity)
    }

    /// Whether somebody who has proved who they are may come in here.
    fn admits(&self, peer: IpAddr, identity: &Identity) -> Result<(), AuthError> {
        match &self.admission {
            Some(admission) => admission.check(peer, identity),
            None => Ok(()),
        }
    }

    async fn check(&self, peer: IpAddr, credentials: Credentials) -> Result<bool, AuthError> {
        let place = Place::take(&self.peers, peer)?;
        let permit = Arc::clone(&self.running).acquire_owned().await;
        let (table, now) = (self.users.table(), link::now());
        let check = move || {
            let _permit = permit;
            let matches = table.verify(&credentials.user, credentials.password.expose());
            // Noted here, because whoever asked may have gone.
            if !matches {
                place.fail(now);
            }
            matches
        };
        let checked = self.runtime.compute(check).await;
        checked.map_err(|_| AuthError::Broken)
    }

    /// Whether a peer may try a mechanism that needs no check on the cpu pool.
    pub(super) fn admit(&self, peer: IpAddr) -> Result<(), AuthError> {
        lock(&self.peers).check(peer, link::now())
    }

    /// Notes how such a try ended; also says whether who has proved who they are may come in here.
    pub(super) fn settle<T>(
        &self,
        peer: IpAddr,
        identity: &Identity,
        outcome: Result<T, AuthError>,
    ) -> Result<T, AuthError> {
        if outcome.as_ref().is_err_and(|error| !error.is_retryable()) {
            note_failure(&self.peers, peer, link::now());
        }
        let outcome = outcome.and_then(|proof| {
            self.admits(peer, identity)?;
            Ok(proof)
        });
        log(peer, identity, &outcome);
        outcome
    }

    pub(super) fn table(&self) -> Arc<Table> {
        self.users.table()
    }
}

/// A place among the checks that run or wait, until dropped.
struct Place {
    peers: Arc<Mutex<Peers>>,
    peer: IpAddr,
}

impl Place {
    fn take(peers: &Arc<Mutex<Peers>>, peer: IpAddr) -> Result<Self, AuthError> {
        lock(peers).begin(peer, link::now())?;
        Ok(Self {
            peers: Arc::clone(peers),
            peer,
        })
    }

    fn fail(&self, now: std::time::Instant) {
        note_failure(&self.peers, self.peer, now);
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        lock(&self.peers).end(self.peer);
    }
}

/// The form in which a name is looked up; one that cannot be looked up stays as it is.
fn prepared(user: &str) -> String {
    let short = (user.len() <= NAME_BYTES_MAX).then_some(user);
    short
        .and_then(prepare)
        .map_or_else(|| user.to_owned(), Cow::into_owned)
}

fn note_failure(peers: &Mutex<Peers>, peer: IpAddr, now: std::time::Instant) {
    let is_last = lock(peers).fail(peer, now);
    if is_last {
        tracing::warn!(%peer, "too many failed logins from this address, it is refused for a while");
    }
}

/// A refusal without a check says nothing new about the user, and comes as often as the peer likes.
fn log<T>(peer: IpAddr, identity: &Identity, outcome: &Result<T, AuthError>) {
    let user: String = identity.user.chars().take(LOGGED_NAME_CHARS).collect();
    let mechanism = identity.mechanism.name();
    match outcome {
        Ok(_) => tracing::info!(?user, %peer, mechanism, "login"),
        // Where it was found, it was logged as often as it should be.
        Err(AuthError::NotAdmitted { .. }) => {}
        Err(error) if error.is_retryable() => {
            tracing::debug!(?user, %peer, mechanism, %error, "login refused");
        }
        Err(error) => tracing::warn!(?user, %peer, mechanism, %error, "login failed"),
    }
}

fn lock(peers: &Mutex<Peers>) -> MutexGuard<'_, Peers> {
    peers.lock().unwrap_or_else(PoisonError::into_inner)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_window_in_which_no_failure_counts_is_refused() {
        assert_eq!(AuthOptions::default().validate(), Ok(()));
        let endless = AuthOptions {
            failure_window: Duration::ZERO,
            ..AuthOptions::default()
        };
        let name = "failure_window";
        assert_eq!(endless.validate(), Err(OptionsError::Zero { name }));
    }
}
