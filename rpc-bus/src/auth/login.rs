//! The client's side of an exchange.

use std::{net::IpAddr, time::Duration};

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
    tls::TlsInfo,
};

/// How to prove who this side is.
#[derive(Clone, Debug)]
pub struct Login {
    /// Whom to be.
    pub credentials: Credentials,
    /// The only mechanism to be used. Default `None`: the strongest that is offered. PLAIN shows the password to the
    /// server and, without TLS, to everybody on the way: so without TLS, and to another machine, it is used only if it
    /// is named here. Whoever sits on the way could leave all else out of the offer.
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
    /// The server offers nothing but PLAIN, everybody on the way could read the password, and PLAIN was not asked for.
    #[error(
        "the server offers {offered:?}: without TLS, the password would travel in clear; expected {}, TLS, or PLAIN \
         asked for by name",
        Mechanism::ScramSha256.name()
    )]
    InClear {
        /// What it offers.
        offered: Vec<String>,
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
    let mechanism = choose(login.mechanism, offered, Way::of(connection))?;
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

/// Who can read what is sent to the server.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Way {
    /// Only the server, or at most this machine.
    Closed,
    /// Everybody between here and there.
    Open,
}

impl Way {
    fn of(connection: &RemoteConnection) -> Self {
        Self::to(connection.peer_addr().ip(), connection.tls())
    }

    fn to(peer: IpAddr, tls: Option<TlsInfo>) -> Self {
        match tls {
            None if !peer.to_canonical().is_loopback() => Self::Open,
            _ => Self::Closed,
        }
    }
}

fn choose(
    wanted: Option<Mechanism>,
    offered: &[String],
    way: Way,
) -> Result<Mechanism, LoginError> {
    let offered_ones: Vec<_> = offered
        .iter()
        .filter_map(|name| Mechanism::named(name))
        .collect();
    let mut usable = Mechanism::ALL.into_iter().filter(|mechanism| {
        offered_ones.contains(mechanism) && wanted.is_none_or(|wanted| wanted == *mechanism)
    });
    match (usable.next(), wanted, way) {
        (Some(Mechanism::Plain), None, Way::Open) => Err(LoginError::InClear {
            offered: offered.to_vec(),
        }),
        (Some(mechanism), ..) => Ok(mechanism),
        (None, ..) => Err(LoginError::NotOffered {
            offered: offered.to_vec(),
            wanted,
        }),
    }
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
        choose(wanted, &offered, Way::Closed).ok()
    }

    #[test]
    fn plain_goes_over_an_open_way_only_if_it_is_named() {
        let offer = |names: &[&str]| {
            names
                .iter()
                .map(|&name| name.to_owned())
                .collect::<Vec<_>>()
        };
        let (plain, both) = (offer(&["PLAIN"]), offer(&["PLAIN", "SCRAM-SHA-256"]));
        let in_clear = LoginError::InClear {
            offered: plain.clone(),
        };
        assert_eq!(choose(None, &plain, Way::Open), Err(in_clear));
        let scram = Ok(Mechanism::ScramSha256);
        assert_eq!(choose(None, &both, Way::Open), scram);
        for offered in [&plain, &both] {
            let named = choose(Some(Mechanism::Plain), offered, Way::Open);
            assert_eq!(named, Ok(Mechanism::Plain));
        }
        let told = choose(None, &plain, Way::Open).unwrap_err().to_string();
        assert!(
            told.contains("expected SCRAM-SHA-256, TLS, or PLAIN"),
            "{told}"
        );
    }

    #[test]
    fn a_way_is_open_to_other_machines_without_tls() {
        let tls = TlsInfo {
            version: crate::tls::TlsVersion::Tls13,
            peer_has_certificate: true,
        };
        for (peer, tls, way) in [
            ("192.0.2.1", None, Way::Open),
            ("::ffff:192.0.2.1", None, Way::Open),
            ("2001:db8::1", None, Way::Open),
            ("192.0.2.1", Some(tls), Way::Closed),
            ("127.0.0.1", None, Way::Closed),
            ("::1", None, Way::Closed),
            ("::ffff:127.0.0.1", None, Way::Closed),
        ] {
            assert_eq!(Way::to(peer.parse().unwrap(), tls), way, "{peer}");
        }
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
            choose(wanted, &offered, Way::Open)
                .err()
                .map(|error| error.to_string())
        };
        let any = "the server offers [\"KERBEROS\"], not SCRAM-SHA-256 or PLAIN";
        assert_eq!(error(None).as_deref(), Some(any));
        let one = "the server offers [\"KERBEROS\"], not PLAIN";
        assert_eq!(error(Some(Mechanism::Plain)).as_deref(), Some(one));
    }
}
