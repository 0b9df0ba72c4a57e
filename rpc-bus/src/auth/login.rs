//! The client's side of an exchange.

use std::time::Duration;

use bytes::Bytes;
use protos::{
    Call, Plane,
    calls::{control, data, user},
    shared::{SaslMessage, SaslStatus},
};
use thiserror::Error;

use super::{Credentials, Identity, Mechanism, plain, scram::client::Begun};
use crate::{
    error::CallError,
    remote::{CallOptions, RemoteConnection},
    runtime::BusRuntime,
};

/// How to prove who this side is.
#[derive(Clone, Debug)]
pub struct Login {
    /// Whom to be.
    pub credentials: Credentials,
    /// The only mechanism to be used. Default `None`: the strongest that is offered. PLAIN shows the password to the
    /// server and, without TLS, to everybody on the way.
    pub mechanism: Option<Mechanism>,
    /// How long the server may take for each step. Default 10 s.
    pub step_timeout: Duration,
}

impl Login {
    /// With the defaults.
    #[must_use]
    pub fn new(credentials: Credentials) -> Self {
        Self {
            credentials,
            mechanism: None,
            step_timeout: Duration::from_secs(10),
        }
    }
}

/// Why a server did not let this side in, or is not to be trusted.
#[derive(Clone, Debug, PartialEq, Error)]
#[non_exhaustive]
pub enum LoginError {
    /// The server offers no mechanism that may be used.
    #[error("the server offers {offered:?}, not {}", usable(.wanted.as_ref()))]
    NotOffered {
        /// What it offers.
        offered: Vec<String>,
        /// The only mechanism that may be used, if it was named.
        wanted: Option<Mechanism>,
    },
    /// `SASLprep` does not allow the user's name or the password.
    #[error("the name or the password holds characters that SASL does not allow")]
    NotPreparable,
    /// User or password are wrong.
    #[error("the server did not accept user and password")]
    Rejected,
    /// The server let this side in, but does not know its keys itself.
    #[error("the server could not prove that it knows this user")]
    NotGenuine,
    /// The server does not speak as agreed.
    #[error("the server sent {0}")]
    Server(&'static str),
    /// The exchange broke off.
    #[error(transparent)]
    Call(#[from] CallError),
}

fn usable(mechanism: Option<&Mechanism>) -> String {
    let all = Mechanism::ALL.iter();
    let wanted = all.filter(|each| mechanism.is_none_or(|wanted| wanted == *each));
    wanted
        .map(|each| each.name())
        .collect::<Vec<_>>()
        .join(" or ")
}

impl LoginError {
    /// Whether the same login may succeed another time.
    #[must_use]
    pub fn is_retryable(&self) -> bool {
        matches!(self, Self::Call(error) if error.is_retryable())
    }
}

/// Proves who this side is, on a connection whose handshake was answered with the mechanisms that the server offers.
///
/// # Errors
///
/// The server did not let this side in, or is not to be trusted. The connection is of no use then.
///
/// # Cancel safety
///
/// Dropping the future leaves the connection in the middle of the exchange: it is of no use then.
// wire: golden/auth
pub async fn authenticate(
    connection: &RemoteConnection,
    runtime: &BusRuntime,
    login: &Login,
    offered: &[String],
) -> Result<Identity, LoginError> {
    let mechanism = choose(login.mechanism, offered)?;
    let conversation = Conversation {
        connection,
        step_timeout: login.step_timeout,
    };
    match mechanism {
        Mechanism::Plain => conversation.plain(&login.credentials).await?,
        Mechanism::ScramSha256 => conversation.scram(runtime, &login.credentials).await?,
    }
    Ok(Identity {
        user: login.credentials.user.clone(),
        mechanism,
    })
}

fn choose(wanted: Option<Mechanism>, offered: &[String]) -> Result<Mechanism, LoginError> {
    let offered_ones: Vec<_> = offered
        .iter()
        .filter_map(|name| Mechanism::named(name))
        .collect();
    let mut usable = Mechanism::ALL.into_iter().filter(|mechanism| {
        offered_ones.contains(mechanism) && wanted.is_none_or(|wanted| wanted == *mechanism)
    });
    usable.next().ok_or_else(|| LoginError::NotOffered {
        offered: offered.to_vec(),
        wanted,
    })
}

struct Conversation<'a> {
    connection: &'a RemoteConnection,
    step_timeout: Duration,
}

impl Conversation<'_> {
    async fn plain(&self, credentials: &Credentials) -> Result<(), LoginError> {
        let message = Bytes::from_owner(plain::message(credentials));
        let answer = self.start(Mechanism::Plain, message).await?;
        match answer.status() {
            SaslStatus::SaslSuccess => Ok(()),
            status => Err(unexpected(status)),
        }
    }

    async fn scram(
        &self,
        runtime: &BusRuntime,
        credentials: &Credentials,
    ) -> Result<(), LoginError> {
        let (first, begun) = Begun::new(credentials.clone())?;
        let answer = self.start(Mechanism::ScramSha256, first.into()).await?;
        let SaslStatus::SaslInProgress = answer.status() else {
            return Err(unexpected(answer.status()));
        };
        let proof = runtime.compute(move || begun.prove(answer.data())).await;
        let (last, proved) = proof.map_err(|_| LoginError::Server("what cannot be computed"))??;
        let answer = self
            .step(message(SaslStatus::SaslInProgress, None, last.into()))
            .await?;
        match answer.status() {
            SaslStatus::SaslSuccess => proved.check(answer.data()),
            status => Err(unexpected(status)),
        }
    }

    async fn start(&self, mechanism: Mechanism, data: Bytes) -> Result<SaslMessage, LoginError> {
        self.step(message(SaslStatus::SaslStart, Some(mechanism), data))
            .await
    }

    async fn step(&self, message: SaslMessage) -> Result<SaslMessage, LoginError> {
        match self.connection.plane() {
            Plane::User => self.call::<user::SaslMessage>(&message).await,
            Plane::Control => self.call::<control::SaslMessage>(&message).await,
            Plane::Data => self.call::<data::SaslMessage>(&message).await,
        }
    }

    async fn call<C: Call<Request = SaslMessage, Reply = SaslMessage>>(
        &self,
        message: &SaslMessage,
    ) -> Result<SaslMessage, LoginError> {
        let options = CallOptions {
            deadline: Some(self.step_timeout),
            ..CallOptions::default()
        };
        let answer = self
            .connection
            .call::<C>(message, Vec::new(), options)
            .await?;
        Ok(answer.message)
    }
}

fn message(status: SaslStatus, mechanism: Option<Mechanism>, data: Bytes) -> SaslMessage {
    SaslMessage {
        mechanism: mechanism.map(|mechanism| mechanism.name().to_owned()),
        data: Some(data),
        status: Some(status.into()),
    }
}

fn unexpected(status: SaslStatus) -> LoginError {
    match status {
        SaslStatus::SaslFailed => LoginError::Rejected,
        // Success before the server's proof is a way around it.
        SaslStatus::SaslSuccess => LoginError::NotGenuine,
        _ => LoginError::Server("an unexpected step of authentication"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn chosen(wanted: Option<Mechanism>, offered: &[&str]) -> Option<Mechanism> {
        let offered: Vec<_> = offered.iter().map(|&name| name.to_owned()).collect();
        choose(wanted, &offered).ok()
    }

    #[test]
    fn the_strongest_mechanism_is_taken_unless_one_is_named() {
        let (plain, scram) = (Mechanism::Plain, Mechanism::ScramSha256);
        assert_eq!(chosen(None, &["PLAIN", "SCRAM-SHA-256"]), Some(scram));
        assert_eq!(chosen(None, &["KERBEROS", "plain"]), Some(plain));
        assert_eq!(
            chosen(Some(plain), &["PLAIN", "SCRAM-SHA-256"]),
            Some(plain)
        );
        assert_eq!(chosen(Some(scram), &["PLAIN"]), None);
        assert_eq!(chosen(None, &["KERBEROS"]), None);
    }

    #[test]
    fn an_error_says_what_was_offered_and_what_was_wanted() {
        let offered = ["KERBEROS".to_owned()];
        let error = |wanted| {
            choose(wanted, &offered)
                .err()
                .map(|error| error.to_string())
        };
        let any = "the server offers [\"KERBEROS\"], not SCRAM-SHA-256 or PLAIN";
        assert_eq!(error(None).as_deref(), Some(any));
        let one = "the server offers [\"KERBEROS\"], not PLAIN";
        assert_eq!(error(Some(Mechanism::Plain)).as_deref(), Some(one));
    }
}
