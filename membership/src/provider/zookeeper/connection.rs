//! One connection to a ZooKeeper server, and the session that it belongs to: one request at a time, watch events in
//! between. Only what membership needs of the protocol; no TLS, no authentication.

use std::{collections::VecDeque, time::Duration};

use bytes::{Buf, BufMut, Bytes, BytesMut};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::TcpStream,
    time::{Instant, sleep_until, timeout, timeout_at},
};

use super::{
    error::Error,
    jute::{Reader, put_bytes},
};

/// Longest message that is taken, in bytes. A server's own limit is 1 MiB by default.
const MESSAGE_BYTES_MAX: usize = 4 << 20;

/// However short the session is that a server grants, nothing is expected of it in less time.
const PATIENCE_MIN: Duration = Duration::from_millis(100);

/// Events that may wait to be looked at.
const EVENTS_MAX: usize = 16 * 1024;

/// Requests, by the numbers of the protocol.
#[derive(Clone, Copy)]
enum Operation {
    Create = 1,
    Delete = 2,
    Exists = 3,
    GetData = 4,
    SetData = 5,
    GetChildren = 8,
    Ping = 11,
    Close = -11,
}

/// Answers with these numbers belong to no request.
const EVENT: i32 = -1;
const PING: i32 = -2;

const NO_NODE: i32 = -101;
const NODE_EXISTS: i32 = -110;
const SESSION_EXPIRED: i32 = -112;

/// All rights for everybody, as Drill's nodes have them.
// wire: drill@051b164 exec/java-exec/.../drill-module.conf: drill.exec.zk.apply_secure_acl
const RIGHTS: i32 = 31;

/// Lives as long as some connection pings in time.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Session {
    id: i64,
    password: Bytes,
}

/// Something happened to a node that was watched. Each watch tells once.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Event {
    pub(super) path: String,
}

/// How long a node lives.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Lifetime {
    /// Until it is deleted.
    Persistent = 0,
    /// Until the session ends.
    Ephemeral = 1,
}

/// A session has three parts: in the first, at the latest, the server is asked for something; the second one it may take
/// for its answer; the third is left for finding another server, to which the same session goes on.
///
/// What is waited for is always less than the session lasts: otherwise a server that says nothing, and does not even close
/// its connections, costs the session, although the others of its ensemble would keep it.
pub(super) struct Connection {
    stream: TcpStream,
    input: BytesMut,
    /// What is not written yet: kept here, so that a future that is dropped leaves no half of a message behind.
    output: BytesMut,
    session: Session,
    /// How long the session lives without a sign of life of this side.
    timeout: Duration,
    xid: i32,
    events: VecDeque<Event>,
    last_received: Instant,
    last_sent: Instant,
}

impl Connection {
    /// Connects to a server, and to the session that there was, or a new one that is to last `asked` without a sign of
    /// life. The server may take a third of the time that the session lasts, as far as that is known.
    pub(super) async fn open(
        server: (&str, u16),
        before: Option<&Session>,
        asked: Duration,
        granted: Option<Duration>,
    ) -> Result<Self, Error> {
        let patience = third(granted.unwrap_or(asked));
        let opened = timeout(patience, Self::connect(server, before, asked)).await;
        opened.map_err(|_| Error::Silent(patience))?
    }

    async fn connect(
        server: (&str, u16),
        before: Option<&Session>,
        asked: Duration,
    ) -> Result<Self, Error> {
        let stream = TcpStream::connect(server).await?;
        stream.set_nodelay(true)?;
        let now = Instant::now();
        let mut connection = Self {
            stream,
            input: BytesMut::new(),
            output: BytesMut::new(),
            session: before.cloned().unwrap_or_else(Session::none),
            timeout: asked,
            xid: 0,
            events: VecDeque::new(),
            last_received: now,
            last_sent: now,
        };
        connection.greet().await?;
        Ok(connection)
    }

    async fn greet(&mut self) -> Result<(), Error> {
        let mut hello = BytesMut::new();
        hello.put_i32(0); // version of the protocol
        hello.put_i64(0); // last change seen: everything is read again
        hello.put_i32(i32::try_from(self.timeout.as_millis()).unwrap_or(i32::MAX));
        hello.put_i64(self.session.id);
        put_bytes(&mut hello, &self.session.password);
        hello.put_u8(0); // not content with a server that only reads
        self.queue(&hello);
        self.flush().await?;
        let mut welcome = Reader::new(self.message().await?);
        let _version = welcome.i32()?;
        let millis = welcome.i32()?;
        let (id, password) = (welcome.i64()?, welcome.bytes()?);
        match u64::try_from(millis) {
            Ok(millis) if millis > 0 => self.timeout = Duration::from_millis(millis),
            // The server knows the session no more.
            _ => return Err(Error::SessionExpired),
        }
        self.session = Session { id, password };
        Ok(())
    }

    pub(super) fn session(&self) -> &Session {
        &self.session
    }

    /// How long the session lives without a sign of life of this side, by what the server has granted.
    pub(super) fn session_timeout(&self) -> Duration {
        self.timeout
    }

    /// Makes a node. False if there is one.
    pub(super) async fn create(
        &mut self,
        path: &str,
        data: &[u8],
        lifetime: Lifetime,
    ) -> Result<bool, Error> {
        let body = |out: &mut BytesMut| {
            put_bytes(out, path.as_bytes());
            put_bytes(out, data);
            out.put_i32(1); // one entry of rights
            out.put_i32(RIGHTS);
            put_bytes(out, b"world");
            put_bytes(out, b"anyone");
            out.put_i32(lifetime as i32);
        };
        let answer = self.ask(Operation::Create, body).await?;
        answer
            .unless(NODE_EXISTS, ("create", path))
            .map(|made| made.is_some())
    }

    /// Deletes a node. False if there is none.
    pub(super) async fn delete(&mut self, path: &str) -> Result<bool, Error> {
        let body = |out: &mut BytesMut| {
            put_bytes(out, path.as_bytes());
            out.put_i32(-1); // of any version
        };
        let answer = self.ask(Operation::Delete, body).await?;
        answer
            .unless(NO_NODE, ("delete", path))
            .map(|gone| gone.is_some())
    }

    /// Whether there is a node, and whether it belongs to this session. Watched, until it is made or changes.
    pub(super) async fn owner(&mut self, path: &str) -> Result<Option<Owner>, Error> {
        let answer = self.ask(Operation::Exists, watched(path)).await?;
        let Some(mut stat) = answer.unless(NO_NODE, ("exists", path))? else {
            return Ok(None);
        };
        // Two change numbers, two times, and three versions come before the owner.
        (0..4).try_for_each(|_| stat.i64().map(drop))?;
        (0..3).try_for_each(|_| stat.i32().map(drop))?;
        let owner = stat.i64()?;
        Ok(Some(if owner == self.session.id {
            Owner::This
        } else {
            Owner::Other
        }))
    }

    /// What is in a node; `None` if there is none. Watched, if there is.
    pub(super) async fn data(&mut self, path: &str) -> Result<Option<Bytes>, Error> {
        let answer = self.ask(Operation::GetData, watched(path)).await?;
        let data = answer.unless(NO_NODE, ("get", path))?;
        data.map(|mut data| data.bytes()).transpose()
    }

    /// Changes what is in a node. False if there is none.
    pub(super) async fn set(&mut self, path: &str, data: &[u8]) -> Result<bool, Error> {
        let body = |out: &mut BytesMut| {
            put_bytes(out, path.as_bytes());
            put_bytes(out, data);
            out.put_i32(-1); // of any version
        };
        let answer = self.ask(Operation::SetData, body).await?;
        answer
            .unless(NO_NODE, ("set", path))
            .map(|set| set.is_some())
    }

    /// The names of the nodes below one; `None` if there is none. Watched, if there is.
    pub(super) async fn children(&mut self, path: &str) -> Result<Option<Vec<String>>, Error> {
        let answer = self.ask(Operation::GetChildren, watched(path)).await?;
        let names = answer.unless(NO_NODE, ("list", path))?;
        names.map(|mut names| names.texts()).transpose()
    }

    /// The next event. Keeps the session alive while it waits.
    ///
    /// # Cancel safety
    /// Nothing is lost by dropping the future.
    pub(super) async fn next_event(&mut self) -> Result<Event, Error> {
        loop {
            if let Some(event) = self.events.pop_front() {
                return Ok(event);
            }
            self.flush().await?;
            let patience = third(self.timeout);
            let (ping_at, silent_at) =
                (self.last_sent + patience, self.last_received + 2 * patience);
            tokio::select! {
                // What has come counts, also if it is looked at late.
                biased;
                message = receive(&mut self.stream, &mut self.input) => {
                    self.last_received = Instant::now();
                    let mut message = Reader::new(message?);
                    let xid = message.i32()?;
                    self.on_other(xid, &mut message)?;
                }
                () = sleep_until(silent_at) => return Err(Error::Silent(2 * patience)),
                () = sleep_until(ping_at) => self.queue_request(PING, Operation::Ping, |_| {}),
            }
        }
    }

    /// Ends the session, and with it what lives as long; waits for the server's word.
    pub(super) async fn close(mut self) -> Result<(), Error> {
        self.ask(Operation::Close, |_| {}).await.map(drop)
    }

    async fn ask(
        &mut self,
        operation: Operation,
        body: impl FnOnce(&mut BytesMut),
    ) -> Result<Answer, Error> {
        // Numbers below are those of events and pings.
        self.xid = self.xid.checked_add(1).unwrap_or(1);
        let expected = self.xid;
        self.queue_request(expected, operation, body);
        let patience = third(self.timeout);
        // It may be silent already, and then has not as much time any more.
        let (heard, asked) = (self.last_received, Instant::now());
        let until = (asked + patience).min(heard + 2 * patience);
        let answered = timeout_at(until, self.answer(expected)).await;
        answered.map_err(|_| Error::Silent(until.max(asked) - heard))?
    }

    async fn answer(&mut self, expected: i32) -> Result<Answer, Error> {
        self.flush().await?;
        loop {
            let mut message = Reader::new(self.message().await?);
            let xid = message.i32()?;
            if xid == expected {
                let _change = message.i64()?;
                let code = message.i32()?;
                return Ok(Answer { code, message });
            }
            self.on_other(xid, &mut message)
                .map_err(|error| match error {
                    Error::OutOfOrder { actual, .. } => Error::OutOfOrder { expected, actual },
                    error => error,
                })?;
        }
    }

    /// A message that answers no request.
    fn on_other(&mut self, xid: i32, message: &mut Reader) -> Result<(), Error> {
        match xid {
            PING => Ok(()),
            EVENT => self.on_event(message),
            actual => Err(Error::OutOfOrder {
                expected: EVENT,
                actual,
            }),
        }
    }

    fn on_event(&mut self, message: &mut Reader) -> Result<(), Error> {
        let _change = message.i64()?;
        let _code = message.i32()?;
        let _kind = message.i32()?;
        let state = message.i32()?;
        if state == SESSION_EXPIRED {
            return Err(Error::SessionExpired);
        }
        let path = message.text()?;
        // There is one watch for each node that is looked at, and one event for each watch: more are none of ours.
        if self.events.len() >= EVENTS_MAX {
            return Err(Error::Malformed);
        }
        self.events.push_back(Event { path });
        Ok(())
    }

    async fn message(&mut self) -> Result<Bytes, Error> {
        let message = receive(&mut self.stream, &mut self.input).await?;
        self.last_received = Instant::now();
        Ok(message)
    }

    fn queue_request(&mut self, xid: i32, operation: Operation, body: impl FnOnce(&mut BytesMut)) {
        let mut request = BytesMut::new();
        request.put_i32(xid);
        request.put_i32(operation as i32);
        body(&mut request);
        self.queue(&request);
    }

    fn queue(&mut self, message: &[u8]) {
        put_bytes(&mut self.output, message);
        self.last_sent = Instant::now();
    }

    async fn flush(&mut self) -> Result<(), Error> {
        while !self.output.is_empty() {
            self.stream.write_buf(&mut self.output).await?;
        }
        Ok(())
    }
}

/// A part of what a session lasts.
fn third(session: Duration) -> Duration {
    (session / 3).max(PATIENCE_MIN)
}

/// Whose an ephemeral node is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Owner {
    This,
    Other,
}

impl Session {
    /// In place of one that there was.
    fn none() -> Self {
        Self {
            id: 0,
            password: Bytes::from_static(&[0; 16]),
        }
    }
}

struct Answer {
    code: i32,
    message: Reader,
}

impl Answer {
    /// The answer, or `None` if its code is `expected`.
    fn unless(
        self,
        expected: i32,
        (operation, path): (&'static str, &str),
    ) -> Result<Option<Reader>, Error> {
        match self.code {
            0 => Ok(Some(self.message)),
            code if code == expected => Ok(None),
            SESSION_EXPIRED => Err(Error::SessionExpired),
            code => Err(Error::Refused {
                operation,
                path: path.to_owned(),
                code,
            }),
        }
    }
}

fn watched(path: &str) -> impl FnOnce(&mut BytesMut) {
    move |out| {
        put_bytes(out, path.as_bytes());
        out.put_u8(1);
    }
}

/// The next message. Room grows with what has come, not with what was announced.
async fn receive(stream: &mut TcpStream, input: &mut BytesMut) -> Result<Bytes, Error> {
    loop {
        if let Some(mut length) = input.get(..4) {
            let length = usize::try_from(length.get_i32()).map_err(|_| Error::Malformed)?;
            if length > MESSAGE_BYTES_MAX {
                let (actual, max) = (length, MESSAGE_BYTES_MAX);
                return Err(Error::TooLong { actual, max });
            }
            if input.len() >= 4 + length {
                input.advance(4);
                return Ok(input.split_to(length).freeze());
            }
        }
        if stream.read_buf(input).await? == 0 {
            return Err(Error::Closed);
        }
    }
}
