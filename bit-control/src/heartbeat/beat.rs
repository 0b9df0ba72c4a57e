//! One beat over a connection, and what comes of it.

use std::{io, sync::Arc, time::Duration};

use bytes::Bytes;
use membership::NodeAddress;
use protos::{calls::control as calls, control::Beat};
use rpc_bus::{CallError, CallOptions, ConnectError, Feature, RemoteConnection, StreamKey};

use super::{
    driver::{PeerLinks, Shared, now, unix_us},
    monitor::Due,
    skew::Exchange,
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
        /// What the node says of itself, encoded.
        status: Option<Bytes>,
    },
    /// The node takes no beats, but has answered a PING.
    Pong(Duration),
    Refused(String),
    Lost,
    /// It could not be sent, or its answer is of no use.
    Failed(String),
    Unanswered,
}

/// Sends beats that are due at the same time: what this node says of itself is the same in all of them.
#[derive(Clone)]
pub(super) struct Sender {
    shared: Arc<Shared>,
    links: Arc<dyn PeerLinks>,
    status: Option<Bytes>,
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
            status: shared.status(),
            patience,
        }
    }

    /// Sends a beat and waits for its answer, not for longer than its node may be silent.
    pub(super) async fn send(self, due: Due) -> Outcome {
        let line = match self.links.open(&due.address) {
            Some(line) => Ok(line),
            // Boxed, because seldom: else every beat would carry the room for it.
            None => Box::pin(self.connect(&due.address)).await,
        };
        let (line, news) = match line {
            Ok(line) => {
                let news = self.send_on(&line, due.sequence).await;
                (Some(line), news.unwrap_or_else(|error| News::of(&error)))
            }
            Err(news) => (None, news),
        };
        Outcome { due, line, news }
    }

    async fn connect(&self, to: &NodeAddress) -> Result<RemoteConnection, News> {
        let patience = self.patience;
        let connected = tokio::time::timeout(patience, self.links.connection(to)).await;
        let late = |_| News::Failed(format!("no connection within {patience:.1?}"));
        connected.map_err(late)?.map_err(|error| News::of(&error))
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
            sender: self.status.clone(),
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
        Ok(News::Answered {
            exchange,
            status: answer.sender,
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
            CallError::Timeout(_) => Self::Unanswered,
            error => Self::Failed(error.to_string()),
        }
    }
}
