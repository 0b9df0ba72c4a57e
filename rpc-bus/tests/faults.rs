//! Our client and our server with a bad network between them. Time is paused: it passes when nobody has anything to do.
#![allow(clippy::unwrap_used, reason = "tests say what they expect")]

mod common;

use std::{ops::RangeInclusive, time::Duration};

use bytes::Bytes;
use common::{Scene, plan, query, run, until};
use fault_proxy::{Cut, End, Faults, Flow, Proxy, Way};
use protos::{Plane, calls::user::RunQuery, shared::QueryId};
use rpc_bus::{
    Answer, Beats, CallError, CallOptions, CloseReason, ConnectionOptions, Endpoint,
    RemoteConnection, ServerOptions,
};
use tokio::time::{Instant, timeout};

const MIB: usize = 1024 * 1024;
const SECOND: Duration = Duration::from_secs(1);
/// Three beats, and what is allowed on top.
const FOUND_WITHIN: Duration = Duration::from_secs(4);

/// A server, a proxy in front of it, and the peers of both.
struct Line {
    scene: Scene,
    proxy: Proxy,
}

impl Line {
    async fn with(change: impl FnOnce(&mut ServerOptions)) -> Self {
        let scene = Scene::with(change).await;
        let proxy = Proxy::start(scene.server.local_addr(), 1).await.unwrap();
        Self { scene, proxy }
    }

    async fn new() -> Self {
        Self::with(|_| {}).await
    }

    /// Both sides send beats.
    async fn beating() -> Self {
        Self::with(|options| options.connection.beats = Some(Beats::default())).await
    }

    /// The proxy's.
    fn endpoint(&self) -> Endpoint {
        Endpoint::new(self.proxy.addr(), Plane::User)
    }

    async fn connect(&self, options: ConnectionOptions) -> RemoteConnection {
        let proxy = self.endpoint();
        let connected = self.scene.try_connect_to(&proxy, options, "hello");
        connected.await.unwrap().0
    }

    /// Nothing may be left, even of connections that still hang.
    async fn finish(self) {
        drop(self.proxy);
        self.scene.finish().await;
    }
}

fn beating_client() -> ConnectionOptions {
    ConnectionOptions {
        beats: Some(Beats::default()),
        ..ConnectionOptions::user_client()
    }
}

/// Has the length of `body` told.
async fn echo(connection: &RemoteConnection, body: Vec<u8>) -> Result<usize, CallError> {
    let (request, options) = (query(plan::ECHO), CallOptions::default());
    let answer = connection
        .call::<RunQuery>(&request, vec![body.into()], options)
        .await?;
    Ok(usize::try_from(answer.message.part2.unwrap()).unwrap())
}

/// Starts calls that the server does not answer.
async fn unanswered(
    client: &RemoteConnection,
    count: usize,
) -> Vec<impl Future<Output = Result<Answer<QueryId>, CallError>> + use<>> {
    let (request, mut calls) = (query(plan::KEEP), Vec::new());
    for _ in 0..count {
        let call = client.start::<RunQuery>(&request, vec![], CallOptions::without_deadline());
        calls.push(call.await.unwrap());
    }
    calls
}

async fn fail_at_once(
    calls: Vec<impl Future<Output = Result<Answer<QueryId>, CallError>>>,
    client: &RemoteConnection,
) {
    let closed = Instant::now();
    for call in calls {
        let error = call.await.unwrap_err();
        assert!(matches!(error, CallError::Lost(_)), "{error:?}");
        assert!(error.is_retryable(), "{error:?}");
    }
    assert_eq!(closed.elapsed(), Duration::ZERO);
    assert_eq!(client.stats().calls_in_flight, 0);
}

#[tokio::test(start_paused = true)]
async fn a_half_open_connection_is_found_by_both_sides_within_three_beats() {
    let line = Line::beating().await;
    let client = line.connect(beating_client()).await;
    tokio::time::sleep(10 * SECOND).await;
    let calls = unanswered(&client, 50).await;
    until(|| (line.scene.script.kept.lock().unwrap().len() == 50).then_some(())).await;
    line.proxy.set_both(|faults| faults.flow = Flow::Lost);
    let lost = Instant::now();
    let reason = CloseReason::PongTimeout(3 * SECOND);
    assert_eq!(client.closed().await, reason);
    fail_at_once(calls, &client).await;
    assert_eq!(line.scene.close_reason().await, reason);
    assert!(lost.elapsed() <= FOUND_WITHIN, "{:?}", lost.elapsed());
    // What was asked is of no use any more; answering it goes nowhere.
    line.scene.script.kept.lock().unwrap().clear();
    line.finish().await;
}

#[tokio::test(start_paused = true)]
async fn a_way_that_is_lost_is_found_by_who_hears_nothing_and_told_to_the_other() {
    for (way, of_client, of_server) in [
        (Way::ToServer, "closed by the peer", "no PONG"),
        (Way::ToClient, "no PONG", "closed by the peer"),
    ] {
        let line = Line::beating().await;
        let client = line.connect(beating_client()).await;
        line.proxy.set(way, |faults| faults.flow = Flow::Lost);
        let lost = Instant::now();
        let (of_client_found, of_server_found) =
            tokio::join!(client.closed(), line.scene.close_reason());
        assert!(of_client_found.to_string().starts_with(of_client));
        assert!(of_server_found.to_string().starts_with(of_server));
        assert!(lost.elapsed() <= FOUND_WITHIN, "{:?}", lost.elapsed());
        line.finish().await;
    }
}

#[tokio::test(start_paused = true)]
async fn a_peer_that_takes_nothing_any_more_is_found_in_the_middle_of_a_large_body() {
    let line = Line::beating().await;
    let client = line.connect(beating_client()).await;
    line.proxy.set_both(|faults| faults.flow = Flow::Stalled);
    let stalled = Instant::now();
    let answer = echo(&client, vec![7; 12 * MIB]).await;
    let reason = CloseReason::PongTimeout(3 * SECOND);
    assert_eq!(answer, Err(CallError::Lost(reason.clone())));
    assert_eq!(line.scene.close_reason().await, reason);
    assert!(stalled.elapsed() <= FOUND_WITHIN, "{:?}", stalled.elapsed());
    line.finish().await;
}

#[tokio::test(start_paused = true)]
async fn a_short_stall_is_no_death() {
    let line = Line::beating().await;
    let client = line.connect(beating_client()).await;
    for way in Way::BOTH {
        line.proxy.set(way, |faults| faults.flow = Flow::Stalled);
        tokio::time::sleep(Duration::from_millis(2_500)).await;
        line.proxy.set(way, |faults| faults.flow = Flow::Passing);
        assert!(run(&client, plan::ECHO).await.is_ok());
    }
    assert!(client.stats().beats_missed > 0);
    drop(client);
    line.finish().await;
}

#[tokio::test(start_paused = true)]
async fn towards_drill_a_half_open_connection_is_found_by_drills_own_times() {
    for (client, server, found) in [
        (
            ConnectionOptions::user_client(),
            ConnectionOptions::user_server(),
            30,
        ),
        (
            ConnectionOptions::bit(),
            ConnectionOptions::bit_server(),
            300,
        ),
    ] {
        let line = Line::with(|options| options.connection = server).await;
        let client = line.connect(client).await;
        let calls = unanswered(&client, 3).await;
        until(|| (line.scene.script.kept.lock().unwrap().len() == 3).then_some(())).await;
        line.proxy.set_both(|faults| faults.flow = Flow::Lost);
        let lost = Instant::now();
        // Not `close_reason`, which looks every millisecond.
        let server = line.scene.server.connections().remove(0);
        let (of_client, of_server) = tokio::join!(client.closed(), server.closed());
        assert!(matches!(of_client, CloseReason::PongTimeout(_)));
        assert!(matches!(of_server, CloseReason::IdleTimeout(_)));
        assert!(lost.elapsed() <= Duration::from_secs(found + 1));
        fail_at_once(calls, &client).await;
        line.scene.script.kept.lock().unwrap().clear();
        line.finish().await;
    }
}

#[tokio::test(start_paused = true)]
async fn a_frame_of_200_mb_that_takes_20_s_to_arrive_is_no_death() {
    let line = Line::with(|options| {
        options.connection.beats = Some(Beats::default());
        options.connection.frame_bytes_max = 256 * MIB;
    })
    .await;
    let client = line.connect(beating_client()).await;
    line.proxy.set(Way::ToServer, |faults| {
        (faults.bytes_per_s, faults.piece_bytes_max) = (Some(10_000_000), 256 * 1024);
    });
    let started = Instant::now();
    let arrived = echo(&client, vec![7; 200_000_000]).await;
    assert_eq!(arrived, Ok(200_000_000));
    assert!(started.elapsed() >= 19 * SECOND);
    drop(client);
    line.finish().await;
}

#[tokio::test(start_paused = true)]
async fn a_slow_request_of_a_server_is_no_death_of_its_client_either() {
    let line = Line::beating().await;
    let client = line.connect(beating_client()).await;
    line.proxy
        .set(Way::ToClient, |faults| faults.bytes_per_s = Some(100_000));
    let server = line.scene.server.connections().remove(0);
    assert_eq!(echo(&server, vec![7; MIB]).await, Ok(MIB));
    drop(client);
    line.finish().await;
}

#[tokio::test(start_paused = true)]
async fn a_network_that_is_slow_and_uneven_loses_nothing() {
    let line = Line::new().await;
    line.proxy.set_both(|faults| {
        *faults = Faults {
            latency: Duration::from_millis(50),
            jitter: Duration::from_millis(200),
            piece_bytes_max: 1,
            ..Faults::default()
        };
    });
    let client = line.connect(ConnectionOptions::user_client()).await;
    for length in [0, 1, 127, 128, 5000] {
        assert_eq!(echo(&client, vec![7; length]).await, Ok(length));
    }
    assert!(client.ping().await.unwrap() >= Duration::from_millis(100));
    drop(client);
    line.finish().await;
}

#[tokio::test(start_paused = true)]
async fn a_slow_reader_is_served_at_its_pace_and_others_at_theirs() {
    let line = Line::new().await;
    let slow = line.connect(ConnectionOptions::user_client()).await;
    line.proxy
        .set(Way::ToClient, |faults| faults.bytes_per_s = Some(1000));
    let asking = async {
        for _ in 0..200 {
            run(&slow, plan::ECHO).await.unwrap();
        }
    };
    let started = Instant::now();
    let other = line.scene.connect().await;
    let served = async {
        for _ in 0..200 {
            run(&other, plan::ECHO).await.unwrap();
        }
        started.elapsed()
    };
    let ((), served) = tokio::join!(asking, served);
    assert!(started.elapsed() >= 3 * SECOND);
    assert!(served < SECOND, "{served:?}");
    drop((slow, other));
    line.finish().await;
}

// ---- one conversation, damaged at every place ----

/// Longest time that anything of a conversation takes, if nothing tells its end.
const DEADLINE: Duration = Duration::from_secs(5);
/// Handshake timeout, idle timeout and what else may have to pass.
const OVER_WITHIN: Duration = Duration::from_mins(1);

/// What became of a conversation: of its handshake and its calls, each once.
struct Told {
    opened: bool,
    answered: usize,
    errors: Vec<CallError>,
}

/// A handshake, two calls that overlap, a call with a body behind a PING, and the end.
async fn converse(line: &Line) -> Told {
    let mut told = Told {
        opened: false,
        answered: 0,
        errors: Vec::new(),
    };
    let (proxy, options) = (line.endpoint(), ConnectionOptions::user_client());
    let Ok((client, _)) = line.scene.try_connect_to(&proxy, options, "hello").await else {
        return told;
    };
    told.opened = true;
    let options = CallOptions {
        deadline: Some(DEADLINE),
        ..CallOptions::default()
    };
    let request = query(plan::ECHO);
    let call = |body| client.call::<RunQuery>(&request, vec![body], options);
    let (first, second) = tokio::join!(call(Bytes::new()), call(Bytes::new()));
    let (_, third) = tokio::join!(client.ping(), call(Bytes::from_static(b"body")));
    for outcome in [first, second, third] {
        match outcome {
            Ok(_) => told.answered += 1,
            Err(error) => told.errors.push(error),
        }
    }
    told
}

/// Offsets of the first and the last byte that a conversation sends one way.
async fn offsets(line: &Line, way: Way) -> RangeInclusive<u64> {
    let before = line.proxy.passed(way);
    let told = converse(line).await;
    assert_eq!((told.opened, told.answered), (true, 3));
    until(|| line.scene.server.connections().is_empty().then_some(())).await;
    0..=line.proxy.passed(way) - before - 1
}

#[tokio::test(start_paused = true)]
async fn a_cut_anywhere_fails_each_call_once_and_retryably() {
    let line = Line::new().await;
    for (way, end) in Way::BOTH
        .into_iter()
        .flat_map(|way| [(way, End::Fin), (way, End::Reset)])
    {
        line.proxy.set_both(|faults| faults.cut = None);
        for after_bytes in offsets(&line, way).await {
            let cut = Some(Cut { after_bytes, end });
            line.proxy.set(way, |faults| faults.cut = cut);
            let told = converse(&line).await;
            let calls = told.answered + told.errors.len();
            assert_eq!(calls, if told.opened { 3 } else { 0 }, "{cut:?}");
            for error in told.errors {
                assert!(matches!(error, CallError::Lost(_)), "{cut:?}: {error:?}");
                assert!(error.is_retryable(), "{cut:?}: {error:?}");
            }
        }
    }
    line.finish().await;
}

#[tokio::test(start_paused = true)]
async fn a_flipped_bit_anywhere_ends_in_an_answer_or_an_error() {
    let line = Line::new().await;
    for way in Way::BOTH {
        line.proxy.set_both(|faults| faults.flip_bit = None);
        let bytes = offsets(&line, way).await;
        for bit in 8 * bytes.start()..8 * (bytes.end() + 1) {
            line.proxy.set(way, |faults| faults.flip_bit = Some(bit));
            let told = timeout(OVER_WITHIN, converse(&line)).await;
            let told = told.unwrap_or_else(|_| panic!("{way:?} bit {bit}: no end"));
            let calls = told.answered + told.errors.len();
            assert_eq!(calls, if told.opened { 3 } else { 0 }, "{way:?} bit {bit}");
        }
    }
    line.proxy.set_both(|faults| faults.flip_bit = None);
    assert_eq!(converse(&line).await.answered, 3);
    line.finish().await;
}
