//! One beat over a connection, and what comes of it.

use std::{io, sync::Arc, time::Duration};

use membership::Learned;
use protos::{calls::control as calls, control::Beat};
use rpc_bus::{CallError, CallOptions, ConnectError, Feature, RemoteConnection, StreamKey};

use super::{
    driver::{PeerLinks, Shared, now, unix_us},
    monitor::Due,
    skew::Exchange,
    status::learned,
};

/// Sequence of a beat that is not counted: it tells what its sender has become.
pub(super) const ANNOUNCEMENT: u64 = 0;

/// What has come of a beat.
pub(super) struct Outcome {
    pub(super) due: Due,
    /// The connection that it was sent on.
    pub(super) line: Option<RemoteConnection>,
    pub(super) news: News,
}

pub(super) enum News {
    Answered {
        exchange: Exchange,
        learned: Box<Learned>,
    },
    /// The node takes no beats, but has answered a PING.
    Pong(Duration),
    Refused(String),
    Lost,
    Unanswered,
}

pub(super) struct Sender {
    shared: Arc<Shared>,
    links: Arc<dyn PeerLinks>,
    patience: Duration,
}

impl Sender {
    pub(super) fn new(
        shared: &Arc<Shared>,
        links: &Arc<dyn PeerLinks>,
        patience: Duration,
    ) -> Self {
        Self {
            shared: Arc::clone(shared),
            links: Arc::clone(links),
            patience,
        }
    }

    /// Sends a beat and waits for its answer, not for longer than its node may be silent.
    pub(super) async fn send(self, due: Due) -> Outcome {
        let connecting = tokio::time::timeout(self.patience, self.links.connection(&due.address));
        let (line, news) = match connecting.await {
            Ok(Ok(line)) => {
                let news = self.send_on(&line, due.sequence).await;
                (Some(line), news.unwrap_or_else(|error| News::of(&error)))
            }
            Ok(Err(error)) => (None, News::of(&error)),
            Err(_) => (None, News::Unanswered),
        };
        Outcome { due, line, news }
    }

    async fn send_on(&self, line: &RemoteConnection, sequence: u64) -> Result<News, CallError> {
        if !line.has(Feature::Beats) {
            // The connection itself gives up on a Drillbit that does not answer.
            return Ok(News::Pong(line.ping().await?));
        }
        let (sent, sent_unix_us) = (now(), unix_us());
        let beat = Beat {
            sequence: Some(sequence),
            sent_unix_us: Some(sent_unix_us),
            sent_monotonic_us: Some(self.shared.monotonic_us(sent)),
            sender: self.shared.status(),
        };
        let options = CallOptions {
            deadline: Some(self.patience),
            stream: StreamKey::default(),
        };
        let answer = line.call::<calls::Beat>(&beat, Vec::new(), options).await?;
        let answer = answer.message;
        let exchange = Exchange {
            sent,
            sent_unix_us,
            peer_received_unix_us: answer.received_unix_us(),
            peer_sent_unix_us: answer.sent_unix_us(),
            received: now(),
        };
        Ok(match learned(answer.sender) {
            Ok(learned) => News::Answered {
                exchange,
                learned: Box::new(learned),
            },
            Err(error) => {
                tracing::debug!(peer = %line.peer_addr(), %error, "no usable answer to a beat");
                News::Unanswered
            }
        })
    }
}

impl News {
    fn of(error: &CallError) -> Self {
        match error {
            CallError::Connect(ConnectError::Io(io::ErrorKind::ConnectionRefused)) => {
                Self::Refused(error.to_string())
            }
            CallError::Lost(_) => Self::Lost,
            _ => Self::Unanswered,
        }
    }
}
