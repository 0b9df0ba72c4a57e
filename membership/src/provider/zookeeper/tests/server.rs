//! A ZooKeeper in the test's own process: as much of one as membership needs, and what tests do to it.

use std::{
    collections::{BTreeMap, BTreeSet, HashMap},
    future::pending,
    io,
    net::SocketAddr,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use bytes::{BufMut, Bytes, BytesMut};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::{TcpListener, TcpStream, tcp::OwnedWriteHalf},
    sync::mpsc::{UnboundedSender, unbounded_channel},
    task::JoinSet,
    time::Instant,
};

use super::{super::jute, path};

/// Dropping it closes everything.
pub(super) struct Server {
    address: SocketAddr,
    state: Arc<Mutex<State>>,
    /// Those of one ensemble share their state; each has a number.
    number: usize,
    _task: JoinSet<()>,
}

/// How long sessions last that expire.
const SESSION: Duration = Duration::from_secs(1);

#[derive(Default)]
struct State {
    /// Data, and the session that it belongs to; 0 for none.
    nodes: BTreeMap<String, (Vec<u8>, i64)>,
    sessions: BTreeSet<i64>,
    sessions_ever: i64,
    /// Messages to each connection.
    clients: HashMap<u64, UnboundedSender<Vec<u8>>>,
    clients_ever: u64,
    /// Who is told when something happens at a path, or below it.
    watches: BTreeSet<(String, u64)>,
    child_watches: BTreeSet<(String, u64)>,
    forbids: bool,
    /// When something came of a session last; `None` where sessions do not expire.
    heard: Option<HashMap<i64, Instant>>,
    /// Servers that take what comes, and do not say anything.
    silent: BTreeSet<usize>,
}

impl Server {
    pub(super) async fn start() -> Self {
        Self::with(Arc::default(), 0).await
    }

    /// Servers of one ensemble, whose sessions expire.
    pub(super) async fn ensemble() -> [Self; 3] {
        let state = State {
            heard: Some(HashMap::new()),
            ..State::default()
        };
        let state = Arc::new(Mutex::new(state));
        let server = |number| Self::with(Arc::clone(&state), number);
        [server(0).await, server(1).await, server(2).await]
    }

    async fn with(state: Arc<Mutex<State>>, number: usize) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let shared = Arc::clone(&state);
        let mut task = JoinSet::new();
        task.spawn(async move {
            let mut clients = JoinSet::new();
            while let Ok((socket, _)) = listener.accept().await {
                let state = Arc::clone(&shared);
                clients.spawn(async move {
                    // Whatever ended it has ended it.
                    let _ = serve(socket, &state, number).await;
                });
            }
        });
        Self {
            address,
            state,
            number,
            _task: task,
        }
    }

    /// Says nothing any more, on connections that are open and on those that come.
    pub(super) fn fall_silent(&self) {
        self.lock().silent.insert(self.number);
    }

    pub(super) fn speak_again(&self) {
        self.lock().silent.remove(&self.number);
    }

    pub(super) fn addr(&self) -> SocketAddr {
        self.address
    }

    /// Names in the cluster.
    pub(super) fn names(&self) -> Vec<String> {
        let below = format!("{}/", path(self.address).cluster());
        let state = self.lock();
        let names = state
            .nodes
            .keys()
            .filter_map(|node| node.strip_prefix(&below));
        names.map(str::to_owned).collect()
    }

    pub(super) fn sessions(&self) -> usize {
        self.lock().sessions.len()
    }

    /// Puts a node into the cluster that belongs to nobody.
    pub(super) fn put(&self, name: &str, data: &[u8]) {
        let cluster = path(self.address);
        let mut state = self.lock();
        for ancestor in cluster.ancestors() {
            state.nodes.entry(ancestor).or_default();
        }
        state.create(&format!("{}/{name}", cluster.cluster()), data.to_vec(), 0);
    }

    /// The session that a node of the cluster belongs to.
    pub(super) fn owner(&self, name: &str) -> i64 {
        let node = format!("{}/{name}", path(self.address).cluster());
        self.lock().nodes[&node].1
    }

    /// Sessions are unknown, but their nodes are still there.
    pub(super) fn forget_sessions(&self) {
        let mut state = self.lock();
        state.sessions.clear();
        state.clients.clear();
    }

    pub(super) fn forbid_all(&self) {
        self.lock().forbids = true;
    }

    /// Connections end, sessions live on.
    pub(super) fn cut_all(&self) {
        self.lock().clients.clear();
    }

    /// Sessions end too, and their nodes.
    pub(super) fn expire_all(&self) {
        let mut state = self.lock();
        for session in std::mem::take(&mut state.sessions) {
            state.end(session);
        }
        state.clients.clear();
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        lock(&self.state)
    }
}

fn lock(state: &Mutex<State>) -> MutexGuard<'_, State> {
    state.lock().unwrap_or_else(PoisonError::into_inner)
}

async fn serve(socket: TcpStream, state: &Mutex<State>, number: usize) -> io::Result<()> {
    let (mut input, output) = socket.into_split();
    let (sender, receiver) = unbounded_channel();
    let mut writing = JoinSet::new();
    writing.spawn(write_all(output, receiver));
    let mut hello = jute::Reader::new(read(&mut input).await?);
    if lock(state).silent.contains(&number) {
        return pending().await;
    }
    let session = lock(state).greet(&mut hello);
    let client = {
        let mut state = lock(state);
        state.clients_ever += 1;
        let client = state.clients_ever;
        state.clients.insert(client, sender);
        state.tell(client, welcome(session));
        client
    };
    loop {
        let request = tokio::select! {
            request = read(&mut input) => request?,
            // It was cut.
            _ = writing.join_next() => return Ok(()),
        };
        let mut state = lock(state);
        if !state.silent.contains(&number) {
            state.answer(client, session, request);
        }
    }
}

async fn write_all(
    mut output: OwnedWriteHalf,
    mut messages: tokio::sync::mpsc::UnboundedReceiver<Vec<u8>>,
) {
    while let Some(message) = messages.recv().await {
        let length = u32::try_from(message.len()).unwrap().to_be_bytes();
        if output
            .write_all(&[&length[..], &message].concat())
            .await
            .is_err()
        {
            return;
        }
    }
}

async fn read(input: &mut (impl AsyncReadExt + Unpin)) -> io::Result<Bytes> {
    let length = input.read_u32().await?;
    let mut message = vec![0; usize::try_from(length).unwrap()];
    input.read_exact(&mut message).await?;
    Ok(message.into())
}

fn welcome(session: i64) -> Vec<u8> {
    let mut out = BytesMut::new();
    out.put_i32(0);
    let millis = i32::try_from(SESSION.as_millis()).unwrap();
    out.put_i32(if session == 0 { 0 } else { millis });
    out.put_i64(session);
    jute::put_bytes(&mut out, &[7; 16]);
    out.put_u8(0);
    out.to_vec()
}

impl State {
    /// The session; 0 for one that has expired.
    fn greet(&mut self, hello: &mut jute::Reader) -> i64 {
        hello.i32().unwrap();
        hello.i64().unwrap();
        hello.i32().unwrap();
        let known = hello.i64().unwrap();
        if known != 0 {
            return if self.sessions.contains(&known) && self.hear(known) {
                known
            } else {
                0
            };
        }
        self.sessions_ever += 1;
        self.sessions.insert(self.sessions_ever);
        self.hear(self.sessions_ever);
        self.sessions_ever
    }

    /// Something has come of a session; whether that was in time.
    fn hear(&mut self, session: i64) -> bool {
        let Some(heard) = &mut self.heard else {
            return true;
        };
        let before = heard.insert(session, Instant::now());
        before.is_none_or(|before| before.elapsed() < SESSION)
    }

    fn answer(&mut self, client: u64, session: i64, request: Bytes) {
        let mut request = jute::Reader::new(request);
        let (xid, operation) = (request.i32().unwrap(), request.i32().unwrap());
        assert!(self.hear(session), "asked too late");
        let mut out = BytesMut::new();
        let code = match operation {
            _ if self.forbids => -102,
            11 => 0,
            -11 => {
                self.sessions.remove(&session);
                self.end(session);
                0
            }
            _ => self.on_node(operation, (client, session), &mut request, &mut out),
        };
        let mut answer = BytesMut::new();
        answer.put_i32(xid);
        answer.put_i64(0);
        answer.put_i32(code);
        answer.put_slice(&out);
        self.tell(client, answer.to_vec());
    }

    fn on_node(
        &mut self,
        operation: i32,
        (client, session): (u64, i64),
        request: &mut jute::Reader,
        out: &mut BytesMut,
    ) -> i32 {
        let node = request.text().unwrap();
        let data = self.nodes.get(&node).cloned();
        match (operation, data) {
            (1, Some(_)) => -110,
            (1, None) => {
                let data = request.bytes().unwrap().to_vec();
                // One entry of rights.
                request.i32().unwrap();
                request.i32().unwrap();
                request.text().unwrap();
                request.text().unwrap();
                let is_ephemeral = request.i32().unwrap() == 1;
                self.create(&node, data, if is_ephemeral { session } else { 0 });
                jute::put_bytes(out, node.as_bytes());
                0
            }
            (3, data) => {
                self.watches.insert((node, client));
                let Some((_, owner)) = data else { return -101 };
                out.put_bytes(0, 4 * 8 + 3 * 4);
                out.put_i64(owner);
                out.put_bytes(0, 4 + 4 + 8);
                0
            }
            (_, None) => -101,
            (2, Some(_)) => {
                self.delete(&node);
                0
            }
            (4, Some((data, _))) => {
                self.watches.insert((node, client));
                jute::put_bytes(out, &data);
                0
            }
            (5, Some((_, owner))) => {
                let data = request.bytes().unwrap().to_vec();
                self.nodes.insert(node.clone(), (data, owner));
                self.happened(&node);
                0
            }
            (8, Some(_)) => {
                let below = format!("{node}/");
                let names = self
                    .nodes
                    .keys()
                    .filter_map(|node| node.strip_prefix(&below));
                let names: Vec<_> = names.filter(|name| !name.contains('/')).collect();
                out.put_i32(i32::try_from(names.len()).unwrap());
                for name in names {
                    jute::put_bytes(out, name.as_bytes());
                }
                self.child_watches.insert((node, client));
                0
            }
            other => panic!("not expected here: {other:?}"),
        }
    }

    fn create(&mut self, node: &str, data: Vec<u8>, session: i64) {
        self.nodes.insert(node.to_owned(), (data, session));
        self.happened(node);
        self.happened_below(node);
    }

    fn delete(&mut self, node: &str) {
        self.nodes.remove(node);
        self.happened(node);
        self.happened_below(node);
    }

    fn end(&mut self, session: i64) {
        let owned = self
            .nodes
            .iter()
            .filter(|(_, (_, owner))| *owner == session);
        let owned: Vec<_> = owned.map(|(node, _)| node.clone()).collect();
        for node in owned {
            self.delete(&node);
        }
    }

    fn happened(&mut self, node: &str) {
        let watching = self.watches.extract_if(.., |(path, _)| path == node);
        let watching: Vec<_> = watching.collect();
        self.tell_all(watching);
    }

    fn happened_below(&mut self, node: &str) {
        let Some((parent, _)) = node.rsplit_once('/') else {
            return;
        };
        let watching = self
            .child_watches
            .extract_if(.., |(path, _)| path == parent);
        let watching: Vec<_> = watching.collect();
        self.tell_all(watching);
    }

    fn tell_all(&self, watching: Vec<(String, u64)>) {
        for (path, client) in watching {
            let mut event = BytesMut::new();
            event.put_i32(-1);
            event.put_i64(-1);
            event.put_i32(0);
            event.put_i32(3);
            event.put_i32(3);
            jute::put_bytes(&mut event, path.as_bytes());
            self.tell(client, event.to_vec());
        }
    }

    fn tell(&self, client: u64, message: Vec<u8>) {
        if let Some(client) = self.clients.get(&client) {
            // It may have gone.
            let _ = client.send(message);
        }
    }
}
