//! The server's side of one exchange: SASL messages in, SASL messages out, however many steps the mechanism has.

use std::{net::IpAddr, sync::Arc};

use bytes::Bytes;
use prost::Message;
use protos::shared::{SaslMessage, SaslStatus};

use super::{
    AuthError, Authenticator, Identity, Mechanism, plain,
    scram::server::{Challenged, ClientFirst},
};

/// What comes of a client's message.
#[derive(Debug)]
pub(crate) enum Step {
    /// The exchange goes on.
    Continue(SaslMessage),
    /// The client is let in.
    Success(SaslMessage, Identity),
    /// The exchange is over, and so is the connection.
    Failure(AuthError),
}

/// A client on its way in.
#[derive(Debug)]
pub(crate) struct Exchange {
    authenticator: Arc<Authenticator>,
    peer: IpAddr,
    state: State,
}

/// `Waiting` --START SCRAM--> `Challenged` --> `Over`, or `Waiting` --START PLAIN--> `Over`.
#[derive(Debug)]
enum State {
    Waiting,
    Challenged {
        identity: Identity,
        challenged: Box<Challenged>,
    },
    Over,
}

impl Exchange {
    pub(crate) fn new(authenticator: Arc<Authenticator>, peer: IpAddr) -> Self {
        Self {
            authenticator,
            peer,
            state: State::Waiting,
        }
    }

    /// Takes the body of a `SASL_MESSAGE`.
    pub(crate) async fn step(&mut self, pbody: Bytes) -> Step {
        let stepped = match SaslMessage::decode(pbody) {
            Ok(message) => self.take(&message).await,
            Err(_) => Err(AuthError::Malformed("a malformed SASL message")),
        };
        stepped.unwrap_or_else(|error| self.fail(error))
    }

    // wire: drill@051b164 exec/rpc/.../ServerAuthenticationHandler.java: only the start names a mechanism
    async fn take(&mut self, message: &SaslMessage) -> Result<Step, AuthError> {
        let state = std::mem::replace(&mut self.state, State::Over);
        match (message.status(), state) {
            (SaslStatus::SaslStart, State::Waiting) => self.start(message).await,
            (
                SaslStatus::SaslInProgress,
                State::Challenged {
                    identity,
                    challenged,
                },
            ) => self.finish(message, identity, &challenged),
            _ => Err(AuthError::Malformed("an unexpected step of authentication")),
        }
    }

    async fn start(&mut self, message: &SaslMessage) -> Result<Step, AuthError> {
        self.authenticator.admit(self.peer)?;
        let mechanism = Mechanism::named(message.mechanism());
        let offered = self.authenticator.mechanisms();
        match mechanism.filter(|mechanism| offered.contains(mechanism)) {
            Some(Mechanism::Plain) => self.plain(message.data()).await,
            Some(Mechanism::ScramSha256) => self.challenge(message.data()),
            None => Err(AuthError::mechanism(message.mechanism())),
        }
    }

    async fn plain(&self, data: &[u8]) -> Result<Step, AuthError> {
        let credentials = plain::parse(data).map_err(AuthError::Malformed)?;
        let identity = self.authenticator.verify(self.peer, credentials).await?;
        Ok(Step::Success(
            answer(SaslStatus::SaslSuccess, None),
            identity,
        ))
    }

    fn challenge(&mut self, data: &[u8]) -> Result<Step, AuthError> {
        let first = ClientFirst::parse(data)?;
        let keys = self.authenticator.table().scram_keys(&first.user);
        let keys = keys.ok_or_else(|| AuthError::mechanism(Mechanism::ScramSha256.name()))?;
        let identity = Identity {
            user: first.user.clone(),
            mechanism: Mechanism::ScramSha256,
        };
        let (challenge, challenged) = first.challenge(keys);
        self.state = State::Challenged {
            identity,
            challenged: Box::new(challenged),
        };
        Ok(Step::Continue(answer(
            SaslStatus::SaslInProgress,
            Some(challenge),
        )))
    }

    fn finish(
        &self,
        message: &SaslMessage,
        identity: Identity,
        challenged: &Challenged,
    ) -> Result<Step, AuthError> {
        let signature = self.authenticator.admit(self.peer);
        let signature = signature.and_then(|()| challenged.finish(message.data()));
        let signature = self.authenticator.settle(self.peer, &identity, signature);
        let success = answer(SaslStatus::SaslSuccess, Some(signature?));
        Ok(Step::Success(success, identity))
    }

    /// Failures that the authenticator has not seen are noted here.
    fn fail(&self, error: AuthError) -> Step {
        if let AuthError::Malformed(_) | AuthError::Mechanism(_) = error {
            tracing::warn!(peer = %self.peer, %error, "login failed");
        }
        Step::Failure(error)
    }
}

fn answer(status: SaslStatus, data: Option<String>) -> SaslMessage {
    SaslMessage {
        mechanism: None,
        data: data.map(Bytes::from),
        status: Some(status.into()),
    }
}

/// What a client is told that is not let in.
pub(crate) fn failed() -> SaslMessage {
    answer(SaslStatus::SaslFailed, None)
}
