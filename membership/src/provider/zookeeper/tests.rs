//! The provider against a server in the same process: one that keeps the rules, and some that do not.

use std::{future::pending, net::SocketAddr, sync::Arc};

use bytes::{BufMut, BytesMut};
use protos::coord::DrillbitEndpoint;
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::TcpListener,
    task::JoinSet,
};

use super::*;
use crate::{Event, registry::RegistryOptions};

mod server;

use server::Server;

/// No test waits longer for anything.
const PATIENCE: Duration = Duration::from_secs(30);

/// A provider that runs.
struct Running {
    registry: Registry,
    watch: Watch,
    provider: Arc<ZooKeeperProvider>,
    stop: CancellationToken,
    task: JoinSet<Result<(), ProviderError>>,
}

impl Running {
    fn observer(server: SocketAddr) -> Self {
        let registry = Registry::of_observer(RegistryOptions::default());
        Self::start(registry, ZooKeeperOptions::observer(path(server)))
    }

    fn registered(server: SocketAddr, control_port: i32) -> Self {
        let endpoint = DrillbitEndpoint {
            address: Some("node".to_owned()),
            control_port: Some(control_port),
            user_port: Some(31010),
            state: Some(NodeState::Online.into()),
            ..DrillbitEndpoint::default()
        };
        let local = Member::of(endpoint.into()).unwrap();
        let registry = Registry::of_node(local, RegistryOptions::default());
        Self::start(registry, ZooKeeperOptions::registered(path(server)))
    }

    fn start(registry: Registry, mut options: ZooKeeperOptions) -> Self {
        options.backoff_max = Duration::from_millis(20);
        let provider = Arc::new(ZooKeeperProvider::new(options));
        let stop = CancellationToken::new();
        let (_, watch) = registry.watch();
        let mut task = JoinSet::new();
        let (runs, in_registry, until) = (Arc::clone(&provider), registry.clone(), stop.clone());
        task.spawn(async move { runs.run(&in_registry, &until).await });
        Self {
            registry,
            watch,
            provider,
            stop,
            task,
        }
    }

    async fn next(&mut self) -> Event {
        let event = tokio::time::timeout(PATIENCE, self.watch.next());
        event.await.expect("an event")
    }

    async fn until(&self, what: &str, holds: impl Fn(&ZooKeeperStats) -> bool) {
        let wait = async {
            while !holds(&self.provider.stats()) {
                tokio::time::sleep(Duration::from_millis(1)).await;
            }
        };
        let waited = tokio::time::timeout(PATIENCE, wait).await;
        waited.unwrap_or_else(|_| panic!("never: {what}; {:?}", self.provider.stats()));
    }

    async fn stop(mut self) {
        self.stop.cancel();
        let ended = tokio::time::timeout(PATIENCE, self.task.join_next()).await;
        ended.unwrap().unwrap().unwrap().unwrap();
        assert!(!self.provider.stats().is_connected);
    }
}

fn path(server: SocketAddr) -> ZooKeeperPath {
    format!("{server}/a/b/cluster").parse().unwrap()
}

fn is_left(event: &Event) -> bool {
    matches!(event, Event::Left(_))
}

#[tokio::test]
async fn nodes_that_register_see_each_other_come_change_and_go() {
    let server = Server::start().await;
    let mut observer = Running::observer(server.addr());
    let node = Running::registered(server.addr(), 1);
    assert!(
        matches!(observer.next().await, Event::Joined(member) if member.user_port() == Some(31010))
    );
    node.registry.set_local_state(NodeState::Quiescent);
    let Event::Changed { after, .. } = observer.next().await else {
        panic!("not changed");
    };
    assert_eq!(after.state, Some(NodeState::Quiescent));
    let other = Running::registered(server.addr(), 2);
    assert!(matches!(observer.next().await, Event::Joined(_)));
    node.stop().await;
    while !is_left(&observer.next().await) {}
    let gone = observer.registry.members();
    assert_eq!(gone.len(), 1);
    assert_eq!(server.names(), [other.provider.name.as_str()]);
    other.stop().await;
    observer.stop().await;
    assert_eq!((server.names().len(), server.sessions()), (0, 0));
}

#[tokio::test]
async fn a_node_that_is_starting_is_not_registered_yet() {
    let server = Server::start().await;
    let mut local = Member::at("node:1".parse().unwrap());
    local.set_state(NodeState::Startup);
    let registry = Registry::of_node(local, RegistryOptions::default());
    let node = Running::start(registry, ZooKeeperOptions::registered(path(server.addr())));
    node.until("connected", |stats| stats.is_connected).await;
    assert_eq!(server.names().len(), 0);
    node.registry.set_local_state(NodeState::Online);
    node.until("registered", |stats| stats.is_registered).await;
    assert_eq!(server.names(), [node.provider.name.as_str()]);
    node.stop().await;
}

#[tokio::test]
async fn a_connection_that_is_lost_changes_nothing_and_a_session_that_is_lost_registers_again() {
    let server = Server::start().await;
    let mut observer = Running::observer(server.addr());
    let node = Running::registered(server.addr(), 1);
    assert!(matches!(observer.next().await, Event::Joined(_)));
    server.cut_all();
    for running in [&node, &observer] {
        let again = |stats: &ZooKeeperStats| stats.connections == 2 && stats.is_connected;
        running.until("connected again", again).await;
        assert_eq!(running.provider.stats().sessions, 1);
    }
    node.until("registered", |stats| stats.is_registered).await;
    assert_eq!(observer.watch.try_next(), None);
    server.expire_all();
    node.until("another session", |stats| {
        stats.sessions == 2 && stats.is_registered
    })
    .await;
    observer
        .until("another session", |stats| stats.sessions == 2)
        .await;
    while observer.registry.members().len() != 1 {
        observer.next().await;
    }
    node.stop().await;
    observer.stop().await;
}

/// Whether it is asked for something meanwhile or not.
#[tokio::test(start_paused = true)]
async fn a_server_that_falls_silent_costs_no_session() {
    for asks in [false, true] {
        let servers = Server::ensemble().await;
        let hosts = servers.each_ref().map(|server| server.addr().to_string());
        let path = format!("{}/a/b/cluster", hosts.join(",")).parse().unwrap();
        let endpoint = DrillbitEndpoint {
            address: Some("node".to_owned()),
            control_port: Some(1),
            state: Some(NodeState::Online.into()),
            ..DrillbitEndpoint::default()
        };
        let local = Member::of(endpoint.into()).unwrap();
        let registry = Registry::of_node(local, RegistryOptions::default());
        let node = Running::start(registry, ZooKeeperOptions::registered(path));
        node.until("registered", |stats| stats.is_registered).await;
        // Which of them is connected to is drawn.
        for (server, state) in servers
            .iter()
            .zip([NodeState::Quiescent, NodeState::Online].iter().cycle())
        {
            server.fall_silent();
            if asks {
                node.registry.set_local_state(*state);
            }
            tokio::time::sleep(Duration::from_secs(10)).await;
            node.until("connected", |stats| stats.is_connected).await;
            server.speak_again();
        }
        node.until("registered", |stats| stats.is_registered).await;
        let stats = node.provider.stats();
        assert_eq!(stats.sessions, 1, "{stats:?}");
        assert!(stats.connections > 1, "{stats:?}");
        assert_eq!(servers[2].sessions(), 1);
        node.stop().await;
    }
}

/// A third of the session is left for another server, also if the silence had begun before somebody asked.
#[tokio::test(start_paused = true)]
async fn who_asks_a_silent_server_does_not_begin_to_wait_anew() {
    let [server, ..] = Server::ensemble().await;
    let address = server.addr();
    let (host, port) = (address.ip().to_string(), address.port());
    let asked = Duration::from_secs(5);
    let connection = Connection::open((&host, port), None, asked, None).await;
    let mut connection = connection.unwrap();
    let heard = tokio::time::Instant::now();
    server.fall_silent();
    let session = connection.session_timeout();
    tokio::time::sleep(session * 6 / 10).await;
    let error = connection.data("/a").await.unwrap_err();
    let limit = session * 2 / 3;
    assert_eq!(
        error.to_string(),
        format!("nothing from the server within {limit:?}")
    );
    let waited = heard.elapsed();
    assert!(
        waited >= limit && waited < limit + Duration::from_millis(10),
        "{waited:?} {limit:?}"
    );
}

#[tokio::test]
async fn a_registration_of_a_session_that_is_not_over_yet_is_taken_over() {
    let server = Server::start().await;
    let node = Running::registered(server.addr(), 1);
    node.until("registered", |stats| stats.is_registered).await;
    server.forget_sessions();
    let again = |stats: &ZooKeeperStats| stats.sessions == 2 && stats.is_registered;
    node.until("another session", again).await;
    assert_eq!(server.owner(&node.provider.name), 2);
    node.stop().await;
}

#[tokio::test]
async fn registrations_that_cannot_be_read_are_counted_and_skipped() {
    let server = Server::start().await;
    server.put("someone", b"{\"name\":\"curator\"}");
    server.put("else", &[]);
    let mut observer = Running::observer(server.addr());
    observer
        .until("both were read", |stats| stats.unusable_registrations == 2)
        .await;
    let node = Running::registered(server.addr(), 1);
    assert!(matches!(observer.next().await, Event::Joined(_)));
    assert_eq!(observer.registry.members().len(), 1);
    node.stop().await;
    observer.stop().await;
}

#[test]
fn no_wait_lasts_as_long_as_the_session() {
    let somewhere = SocketAddr::from(([127, 0, 0, 1], 1));
    let asked = ZooKeeperOptions {
        session_timeout: Duration::from_secs(6),
        ..ZooKeeperOptions::observer(path(somewhere))
    };
    let short = ZooKeeperOptions {
        backoff_max: Duration::from_millis(500),
        ..asked.clone()
    };
    let granted = Some(Duration::from_secs(3));
    let expected = [
        (&asked, None, 2000),
        (&asked, granted, 1000),
        (&short, granted, 500),
    ];
    for (options, granted, millis) in expected {
        let provider = ZooKeeperProvider::new(options.clone());
        let mut kept = Kept::new(1);
        kept.granted = granted;
        let waits = (0..2000).map(|_| provider.wait(&mut kept));
        let longest = waits.max().unwrap();
        let limit = Duration::from_millis(millis);
        assert!(
            longest <= limit && longest > limit / 2,
            "{longest:?} {limit:?}"
        );
    }
}

#[tokio::test]
async fn nothing_can_be_registered_by_what_is_no_node() {
    let registry = Registry::of_observer(RegistryOptions::default());
    let somewhere = SocketAddr::from(([127, 0, 0, 1], 1));
    let provider = ZooKeeperProvider::new(ZooKeeperOptions::registered(path(somewhere)));
    let refused = provider.run(&registry, &CancellationToken::new()).await;
    assert_eq!(refused, Err(ProviderError::NoNode));
}

#[tokio::test]
async fn a_server_that_does_not_allow_it_is_told_by_name() {
    let server = Server::start().await;
    server.forbid_all();
    let mut node = Running::registered(server.addr(), 1);
    let ended = tokio::time::timeout(PATIENCE, node.task.join_next()).await;
    let error = ended.unwrap().unwrap().unwrap().unwrap_err().to_string();
    assert!(error.contains("create /a: NoAuth"), "{error}");
}

/// Welcomes a client, and then says `bytes` in answer to whatever it asks.
async fn hostile(welcome: Vec<u8>, bytes: Vec<u8>) -> (SocketAddr, JoinSet<()>) {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    let mut task = JoinSet::new();
    task.spawn(async move {
        let mut open = Vec::new();
        loop {
            let (mut socket, _) = listener.accept().await.unwrap();
            let mut hello = [0; 49];
            if socket.read_exact(&mut hello).await.is_ok() {
                // It may have gone already.
                let _ = socket.write_all(&welcome).await;
                let _ = socket.read(&mut [0; 1024]).await;
                let _ = socket.write_all(&bytes).await;
            }
            open.push(socket);
            if open.len() > 3 {
                return pending().await;
            }
        }
    });
    (address, task)
}

fn message(body: &[u8]) -> Vec<u8> {
    let mut out = BytesMut::new();
    jute::put_bytes(&mut out, body);
    out.to_vec()
}

fn welcome() -> Vec<u8> {
    let mut body = BytesMut::new();
    body.put_i32(0);
    body.put_i32(5000);
    body.put_i64(7);
    jute::put_bytes(&mut body, &[1; 16]);
    body.put_u8(0);
    message(&body)
}

#[tokio::test]
async fn servers_that_break_the_rules_are_left_and_tried_again() {
    let of_request = |xid: i32| [xid.to_be_bytes().to_vec(), vec![0; 12]].concat();
    let event = [
        vec![255; 4],
        vec![0; 12],
        vec![0, 0, 0, 3, 0, 0, 0, 3, 0, 0, 1, 0],
    ]
    .concat();
    let list = [of_request(1), i32::MAX.to_be_bytes().to_vec()].concat();
    for (welcome, answer, expected) in [
        (message(&[0; 3]), vec![], "none of ZooKeeper's protocol"),
        (
            welcome(),
            vec![0x7f, 255, 255, 255],
            "at most 4194304 bytes, found 2147483647",
        ),
        (
            welcome(),
            vec![255, 255, 255, 255],
            "none of ZooKeeper's protocol",
        ),
        (
            welcome(),
            message(&of_request(2)),
            "answer to request 1, found that to 2",
        ),
        (welcome(), message(&event), "none of ZooKeeper's protocol"),
        (welcome(), message(&list), "none of ZooKeeper's protocol"),
    ] {
        let (address, _server) = hostile(welcome, answer).await;
        let observer = Running::observer(address);
        let as_expected = |stats: &ZooKeeperStats| {
            let error = stats.last_error.as_ref();
            error.is_some_and(|error| error.contains(expected))
        };
        observer.until(expected, as_expected).await;
        observer
            .until("it tried again", |stats| stats.connections != 1)
            .await;
    }
}
