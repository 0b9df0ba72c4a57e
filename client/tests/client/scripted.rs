//! Against a server by hand, which does what real and broken Drillbits do.

use std::{
    collections::{HashSet, VecDeque},
    net::SocketAddr,
    sync::Arc,
    time::Duration,
};

use arrow::{
    array::{ArrayRef, AsArray, Int32Array, RecordBatch, StringArray},
    datatypes::{DataType, Field, Int32Type, Schema},
};
use client::{Client, ClientError, ClientOptions, QueryEvent, QueryStream, ServerKind};
use futures::StreamExt;
use prost::Message;
use protos::{
    calls::user::{CancelQuery, Handshake, QueryData, QueryResult, RunQuery, SaslMessage},
    error::ErrorType,
    rpc::{Ack, RpcMode},
    shared::{self, DrillPbError, QueryId, RecordBatchDef, SaslStatus, query_result::QueryState},
    user::{BitToUserHandshake, HandshakeStatus, RpcEndpointInfos, UserToBitHandshake},
};
use record_batch::{EncodedBatch, Encoder};
use rpc_bus::{BusRuntime, Ledger, ledger::Kind};
use tokio::{net::TcpListener, task::JoinHandle};

use crate::support::{
    golden::recording,
    ledger,
    peer::{Frame, Peer},
    runtime, settled, until,
};

const ID: QueryId = QueryId {
    part1: Some(11),
    part2: Some(12),
};
const OTHER: QueryId = QueryId {
    part1: Some(21),
    part2: Some(22),
};

const STRAY: QueryId = QueryId {
    part1: Some(31),
    part2: Some(32),
};

/// A server by hand, with one connection.
struct Drill {
    peer: Peer,
    /// The last coordination id of its own.
    last: i32,
    acknowledged: HashSet<i32>,
    /// Requests that came while something else was waited for.
    requests: VecDeque<Frame>,
}

impl Drill {
    async fn accept(listener: &TcpListener) -> Self {
        let (socket, _) = listener.accept().await.unwrap();
        let mut drill = Self {
            peer: Peer::over(socket),
            last: 0,
            acknowledged: HashSet::new(),
            requests: VecDeque::new(),
        };
        let hello: UserToBitHandshake = drill.peer.frame().await.message();
        assert_eq!((hello.rpc_version(), hello.support_timeout()), (5, true));
        drill
    }

    async fn welcome(listener: &TcpListener) -> Self {
        let mut drill = Self::accept(listener).await;
        drill
            .peer
            .respond::<Handshake>(1, &reply(HandshakeStatus::Success))
            .await;
        drill
    }

    /// Reads one frame: an acknowledgement or a request.
    async fn read(&mut self) {
        let frame = self.peer.frame().await;
        if frame.mode == RpcMode::Response {
            assert!(frame.message::<Ack>().ok());
            self.acknowledged.insert(frame.id);
        } else {
            self.requests.push_back(frame);
        }
    }

    /// The next `RUN_QUERY`: its coordination id.
    async fn run_query(&mut self) -> i32 {
        loop {
            if let Some(frame) = self.requests.pop_front() {
                assert!(frame.is_request::<RunQuery>(), "{frame:?}");
                return frame.id;
            }
            self.read().await;
        }
    }

    async fn handle(&mut self, to: i32, id: QueryId) {
        self.peer.respond::<RunQuery>(to, &id).await;
    }

    /// Reads `RUN_QUERY` and names it.
    async fn named(&mut self) {
        let to = self.run_query().await;
        self.handle(to, ID).await;
    }

    async fn data(&mut self, id: QueryId, batch: &EncodedBatch) -> i32 {
        self.last += 1;
        let data = shared::QueryData {
            query_id: Some(id),
            row_count: batch.def.record_count,
            def: Some(batch.def.clone()),
            affected_rows_count: None,
            arrow_body: None,
        };
        let pbody = data.encode_to_vec();
        self.peer
            .send(RpcMode::Request, self.last, 6, &pbody, &batch.joined())
            .await;
        self.last
    }

    async fn result(&mut self, id: QueryId, state: QueryState, error: Option<DrillPbError>) {
        self.last += 1;
        let result = shared::QueryResult {
            query_state: Some(state.into()),
            query_id: Some(id),
            error: error.into_iter().collect(),
        };
        self.peer.request::<QueryResult>(self.last, &result).await;
    }

    async fn completed(&mut self) {
        self.result(ID, QueryState::Completed, None).await;
    }

    /// Reads until everything that was sent is acknowledged.
    async fn all_acknowledged(&mut self) {
        while !(1..=self.last).all(|id| self.acknowledged.contains(&id)) {
            self.read().await;
        }
    }

    /// Waits for the client to go away.
    async fn closed(mut self) {
        while self.peer.next().await.is_some() {}
    }
}

fn reply(status: HandshakeStatus) -> BitToUserHandshake {
    BitToUserHandshake {
        rpc_version: Some(5),
        status: Some(status.into()),
        error_id: (status != HandshakeStatus::Success).then(|| "e1".to_owned()),
        error_message: Some("bad version".to_owned()),
        server_infos: Some(RpcEndpointInfos {
            name: Some("Apache Drill Server".to_owned()),
            version: Some("1.22.0".to_owned()),
            ..RpcEndpointInfos::default()
        }),
        ..BitToUserHandshake::default()
    }
}

fn encoded(name: &str, column: ArrayRef) -> EncodedBatch {
    let field = Field::new(name, column.data_type().clone(), false);
    let schema = Arc::new(Schema::new(vec![field]));
    let batch = RecordBatch::try_new(Arc::clone(&schema), vec![column]).unwrap();
    Encoder::try_new(&schema).unwrap().encode(&batch).unwrap()
}

fn ints(values: &[i32]) -> EncodedBatch {
    encoded("n", Arc::new(Int32Array::from(values.to_vec())))
}

fn columns_only() -> EncodedBatch {
    let schema = Arc::new(Schema::new(vec![Field::new("n", DataType::Int32, false)]));
    EncodedBatch {
        def: Encoder::try_new(&schema).unwrap().schema_only(),
        dbody: Vec::new(),
    }
}

/// A client, and the server that plays `script` to it.
struct Scene {
    client: Client,
    ledger: Ledger,
    /// Connections end with it, at once.
    runtime: BusRuntime,
    server: JoinHandle<()>,
}

impl Scene {
    async fn play<F>(script: impl FnOnce(TcpListener) -> F) -> Self
    where
        F: Future<Output = ()> + Send + 'static,
    {
        Self::with(script, |_| ()).await
    }

    async fn with<F>(
        script: impl FnOnce(TcpListener) -> F,
        change: impl FnOnce(&mut ClientOptions),
    ) -> Self
    where
        F: Future<Output = ()> + Send + 'static,
    {
        let (address, server) = serve(script).await;
        let (ledger, runtime) = (ledger(), runtime());
        let mut options = ClientOptions::new(runtime.clone(), ledger.clone());
        change(&mut options);
        let client = Client::connect(&address.to_string(), options)
            .await
            .unwrap();
        assert_eq!(client.server().kind, ServerKind::Unlimited);
        Self {
            client,
            ledger,
            runtime,
            server,
        }
    }

    async fn query(&self) -> QueryStream {
        self.client.query("select 1").await.unwrap()
    }

    /// All values of one query, and how it ended.
    async fn rows(&self) -> (Vec<i32>, Option<ClientError>) {
        rows(&mut self.query().await).await
    }

    /// The script comes to its end, and nothing is left of the client.
    async fn end(self) {
        drop(self.client);
        self.server.await.unwrap();
        settled(&self.ledger).await;
        drop(self.runtime);
    }
}

async fn serve<F>(script: impl FnOnce(TcpListener) -> F) -> (SocketAddr, JoinHandle<()>)
where
    F: Future<Output = ()> + Send + 'static,
{
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    #[allow(
        clippy::disallowed_methods,
        reason = "its owner is the scene, which joins it"
    )]
    let server = tokio::spawn(script(listener));
    (address, server)
}

async fn rows(result: &mut QueryStream) -> (Vec<i32>, Option<ClientError>) {
    let mut rows = Vec::new();
    loop {
        match result.next().await {
            None => return (rows, None),
            Some(Ok(batch)) => rows.extend(batch.column(0).as_primitive::<Int32Type>().values()),
            Some(Err(error)) => {
                assert!(result.next().await.is_none(), "nothing follows an error");
                return (rows, Some(error));
            }
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_plain_result_is_read_and_acknowledged() {
    let scene = Scene::play(|listener| async move {
        let mut drill = Drill::welcome(&listener).await;
        drill.named().await;
        drill.data(ID, &ints(&[1, 2])).await;
        drill.completed().await;
        drill.all_acknowledged().await;
        drill.closed().await;
    });
    let scene = scene.await;
    let (rows, error) = scene.rows().await;
    assert!(error.is_none() && rows == [1, 2], "{rows:?} {error:?}");
    scene.end().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn data_and_result_may_come_before_the_handle() {
    let scene = Scene::play(|listener| async move {
        let mut drill = Drill::welcome(&listener).await;
        let to = drill.run_query().await;
        drill.data(ID, &ints(&[1])).await;
        drill.data(OTHER, &ints(&[9])).await;
        drill.data(ID, &ints(&[2])).await;
        drill.completed().await;
        drill.handle(to, ID).await;
        drill.all_acknowledged().await;
        drill.closed().await;
    });
    let scene = scene.await;
    let (rows, error) = scene.rows().await;
    assert!(error.is_none() && rows == [1, 2], "{rows:?} {error:?}");
    scene.end().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_result_may_have_no_data_and_states_that_are_no_end() {
    let scene = Scene::play(|listener| async move {
        let mut drill = Drill::welcome(&listener).await;
        drill.named().await;
        drill.result(ID, QueryState::Running, None).await;
        drill.completed().await;
        drill.closed().await;
    });
    let scene = scene.await;
    let (rows, error) = scene.rows().await;
    assert!(rows.is_empty() && error.is_none(), "{rows:?} {error:?}");
    scene.end().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn batches_without_columns_or_rows_are_skipped() {
    let scene = Scene::play(|listener| async move {
        let mut drill = Drill::welcome(&listener).await;
        drill.named().await;
        let nothing = EncodedBatch {
            def: RecordBatchDef::default(),
            dbody: Vec::new(),
        };
        drill.data(ID, &nothing).await;
        drill.data(ID, &columns_only()).await;
        drill.data(ID, &ints(&[1, 2])).await;
        drill.completed().await;
        drill.closed().await;
    });
    let scene = scene.await;
    let mut result = scene.query().await;
    assert!(matches!(
        result.next_event().await,
        Ok(Some(QueryEvent::Schema(_)))
    ));
    assert!(matches!(
        result.next_event().await,
        Ok(Some(QueryEvent::Batch(_)))
    ));
    assert!(matches!(result.next_event().await, Ok(None)));
    drop(result);
    scene.end().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_change_of_columns_is_told() {
    let scene = Scene::play(|listener| async move {
        let mut drill = Drill::welcome(&listener).await;
        drill.named().await;
        drill.data(ID, &ints(&[1])).await;
        drill
            .data(ID, &encoded("s", Arc::new(StringArray::from(vec!["x"]))))
            .await;
        drill.completed().await;
        drill.closed().await;
    });
    let scene = scene.await;
    let mut result = scene.query().await;
    for expected in ["n", "s"] {
        let Some(QueryEvent::Schema(schema)) = result.next_event().await.unwrap() else {
            panic!("columns")
        };
        assert_eq!(schema.field(0).name(), expected);
        let Some(QueryEvent::Batch(batch)) = result.next_event().await.unwrap() else {
            panic!("rows")
        };
        assert_eq!(batch.schema(), schema);
    }
    assert_eq!(result.next_event().await.unwrap(), None);
    drop(result);
    scene.end().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn data_behind_the_end_is_acknowledged_and_discarded() {
    let scene = Scene::play(|listener| async move {
        let mut drill = Drill::welcome(&listener).await;
        drill.named().await;
        drill.data(ID, &ints(&[1])).await;
        let error = DrillPbError {
            error_type: Some(ErrorType::Validation.into()),
            message: Some("VALIDATION ERROR: nope".to_owned()),
            error_id: Some("e1".to_owned()),
            ..DrillPbError::default()
        };
        drill.result(ID, QueryState::Failed, Some(error)).await;
        drill.data(ID, &ints(&[2])).await;
        drill.data(STRAY, &ints(&[3])).await;
        let to = drill.run_query().await;
        drill.handle(to, OTHER).await;
        drill.data(OTHER, &ints(&[4])).await;
        drill.result(OTHER, QueryState::Completed, None).await;
        drill.all_acknowledged().await;
        drill.closed().await;
    });
    let scene = scene.await;
    let (rows, error) = scene.rows().await;
    assert_eq!(
        (rows, error.as_ref().unwrap().error_id()),
        (vec![1], Some("e1"))
    );
    let (rows, error) = scene.rows().await;
    assert!(error.is_none() && rows == [4], "{rows:?} {error:?}");
    scene.end().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn every_other_end_is_a_typed_error() {
    let scene = Scene::with(
        |listener| async move {
            let mut drill = Drill::welcome(&listener).await;
            drill.named().await;
            drill.data(ID, &ints(&[1])).await;
            drill.result(ID, QueryState::Canceled, None).await;
            drill.named().await;
            drill.result(ID, QueryState::Failed, None).await;
            let to = drill.run_query().await;
            let refused = DrillPbError {
                message: Some("refused".to_owned()),
                ..Default::default()
            };
            let refused = refused.encode_to_vec();
            drill
                .peer
                .send(RpcMode::ResponseFailure, to, 0, &refused, &[])
                .await;
            drill.named().await;
            let mut broken = ints(&[1, 2]);
            broken.dbody.clear();
            drill.data(ID, &broken).await;
            drill.closed().await;
        },
        |options| options.cancel_timeout = Duration::from_millis(50),
    );
    let scene = scene.await;
    let (rows, error) = scene.rows().await;
    assert!(
        matches!(error, Some(ClientError::Canceled)) && rows == [1],
        "{error:?}"
    );
    let (_, error) = scene.rows().await;
    assert!(matches!(error, Some(ClientError::Remote(_))), "{error:?}");
    let error = scene.client.query("select 1").await.unwrap_err();
    assert_eq!(error.to_string(), "refused");
    let (_, error) = scene.rows().await;
    assert!(matches!(error, Some(ClientError::Decode(_))), "{error:?}");
    scene.end().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_server_that_goes_away_is_a_typed_error() {
    let scene = Scene::play(|listener| async move {
        let mut drill = Drill::welcome(&listener).await;
        drill.named().await;
        drill.data(ID, &ints(&[1])).await;
    });
    let scene = scene.await;
    let (_, error) = scene.rows().await;
    let error = error.unwrap();
    assert!(
        matches!(error, ClientError::Lost(_)) && error.is_retryable(),
        "{error:?}"
    );
    scene.end().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn an_unknown_request_is_refused_and_the_query_goes_on() {
    let scene = Scene::play(|listener| async move {
        let mut drill = Drill::welcome(&listener).await;
        drill.named().await;
        drill.peer.send(RpcMode::Request, 77, 99, &[], &[]).await;
        let frame = drill.peer.frame().await;
        assert_eq!((frame.mode, frame.id), (RpcMode::ResponseFailure, 77));
        drill.data(ID, &ints(&[1])).await;
        drill.completed().await;
        drill.closed().await;
    });
    let scene = scene.await;
    let (rows, error) = scene.rows().await;
    assert!(error.is_none() && rows == [1], "{error:?}");
    scene.end().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_batch_is_acknowledged_when_it_is_taken() {
    let (taken, may_end) = tokio::sync::oneshot::channel();
    let scene = Scene::play(|listener| async move {
        let mut drill = Drill::welcome(&listener).await;
        drill.named().await;
        let first = drill.data(ID, &ints(&[1])).await;
        let second = drill.data(ID, &ints(&[2])).await;
        assert_eq!(drill.peer.frame().await.id, first);
        // The client answers PING although a batch waits; nothing else came meanwhile.
        drill.peer.send(RpcMode::Ping, 0, 0, &[8, 1], &[]).await;
        assert_eq!(drill.peer.frame().await.mode, RpcMode::Pong);
        taken.send(()).unwrap();
        assert_eq!(drill.peer.frame().await.id, second);
        drill.completed().await;
        drill.closed().await;
    });
    let scene = scene.await;
    let mut result = scene.query().await;
    result.next().await.unwrap().unwrap();
    may_end.await.unwrap();
    let (rows, error) = rows(&mut result).await;
    assert!(error.is_none() && rows == [2], "{error:?}");
    drop(result);
    scene.end().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn dropping_the_stream_cancels_and_takes_what_still_comes() {
    let scene = Scene::play(|listener| async move {
        let mut drill = Drill::welcome(&listener).await;
        drill.named().await;
        drill.data(ID, &ints(&[1])).await;
        let cancel = loop {
            let frame = drill.peer.frame().await;
            if frame.is_request::<CancelQuery>() {
                break frame;
            }
        };
        assert_eq!(cancel.message::<QueryId>(), ID);
        drill
            .peer
            .respond::<CancelQuery>(cancel.id, &Ack { ok: Some(true) })
            .await;
        let late = drill.data(ID, &ints(&[2])).await;
        let mut acknowledged = drill.peer.frame().await;
        while acknowledged.id != late {
            acknowledged = drill.peer.frame().await;
        }
        drill.result(ID, QueryState::Canceled, None).await;
        drill.closed().await;
    });
    let scene = scene.await;
    drop(scene.query().await);
    scene.end().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_cancel_that_is_never_answered_is_given_up() {
    let scene = Scene::with(
        |listener| async move {
            let mut drill = Drill::welcome(&listener).await;
            drill.named().await;
            drill.closed().await;
        },
        |options| options.cancel_timeout = Duration::from_millis(50),
    );
    let scene = scene.await;
    drop(scene.query().await);
    scene.end().await;
}

const MIB: usize = 1 << 20;

#[tokio::test(flavor = "multi_thread")]
async fn a_server_without_end_is_not_read_further_than_the_limit() {
    const BATCHES: usize = 200;
    let scene = Scene::with(
        |listener| async move {
            let mut drill = Drill::welcome(&listener).await;
            drill.named().await;
            let batch = encoded("s", Arc::new(StringArray::from(vec!["x".repeat(MIB)])));
            for _ in 0..BATCHES {
                drill.data(ID, &batch).await;
            }
            drill.completed().await;
            drill.closed().await;
        },
        |options| options.undelivered_bytes_max = 4 * MIB,
    );
    let scene = scene.await;
    let mut result = scene.query().await;
    // Reading has stopped when nothing more comes although there is more.
    let (mut before, mut equal) = (0, 0);
    until("reading has stopped", || {
        let used = scene.ledger.used(Kind::Bytes);
        equal = if used == before { equal + 1 } else { 0 };
        before = used;
        used > 4 * MIB && equal == 100
    })
    .await;
    // The limit, what the mailbox holds twice, and the batch that is coming in.
    assert!(before < 20 * MIB, "{} MiB wait", before / MIB);
    let mut batches = 0;
    while let Some(batch) = result.next().await {
        assert_eq!(batch.unwrap().num_rows(), 1);
        batches += 1;
    }
    assert_eq!(batches, BATCHES);
    drop(result);
    scene.end().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn every_result_that_streams_gets_a_connection_of_its_own() {
    let scene = Scene::play(|listener| async move {
        let mut first = Drill::welcome(&listener).await;
        first.named().await;
        let mut second = Drill::welcome(&listener).await;
        let to = second.run_query().await;
        second.handle(to, OTHER).await;
        second.data(OTHER, &ints(&[2])).await;
        second.result(OTHER, QueryState::Completed, None).await;
        first.data(ID, &ints(&[1])).await;
        first.completed().await;
        // Both are free again: the third query takes the first one.
        first.named().await;
        first.completed().await;
        first.closed().await;
        second.closed().await;
    });
    let scene = scene.await;
    let (mut first, mut second) = (scene.query().await, scene.query().await);
    assert_eq!(rows(&mut second).await.0, [2]);
    assert_eq!(rows(&mut first).await.0, [1]);
    assert!(scene.rows().await.0.is_empty());
    drop((first, second));
    scene.end().await;
}

/// Connects to a server that answers the handshake with `reply`.
async fn refused(reply: BitToUserHandshake) -> ClientError {
    let (address, server) = serve(|listener| async move {
        let mut drill = Drill::accept(&listener).await;
        drill.peer.respond::<Handshake>(1, &reply).await;
        drill.closed().await;
    })
    .await;
    let ledger = ledger();
    let options = ClientOptions::new(runtime(), ledger.clone());
    let error = Client::connect(&address.to_string(), options)
        .await
        .unwrap_err();
    server.await.unwrap();
    settled(&ledger).await;
    error
}

#[tokio::test(flavor = "multi_thread")]
async fn a_refused_handshake_is_a_typed_error() {
    let error = refused(reply(HandshakeStatus::RpcVersionMismatch)).await;
    assert_eq!(error.error_id(), Some("e1"));
    assert!(error.to_string().contains("bad version"), "{error}");
    let error = refused(reply(HandshakeStatus::AuthRequired)).await;
    assert!(
        matches!(error, ClientError::Authentication { .. }),
        "{error:?}"
    );
}

/// Authenticates against a server that answers with `status`.
async fn authenticated(status: SaslStatus) -> Result<(), ClientError> {
    let (address, server) = serve(|listener| async move {
        let mut drill = Drill::accept(&listener).await;
        let required = BitToUserHandshake {
            authentication_mechanisms: vec!["plain".to_owned()],
            ..reply(HandshakeStatus::AuthRequired)
        };
        drill.peer.respond::<Handshake>(1, &required).await;
        let frame: Frame = drill.peer.frame().await;
        let start: shared::SaslMessage = frame.message();
        assert_eq!(
            (start.mechanism(), start.data()),
            ("PLAIN", &b"\0alice\0wonder"[..])
        );
        let answer = shared::SaslMessage {
            status: Some(status.into()),
            ..Default::default()
        };
        drill.peer.respond::<SaslMessage>(frame.id, &answer).await;
        drill.closed().await;
    })
    .await;
    let ledger = ledger();
    let options = ClientOptions {
        user: Some("alice".to_owned()),
        password: Some("wonder".into()),
        ..ClientOptions::new(runtime(), ledger.clone())
    };
    let client = Client::connect(&address.to_string(), options)
        .await
        .map(drop);
    server.await.unwrap();
    settled(&ledger).await;
    client
}

#[tokio::test(flavor = "multi_thread")]
async fn user_and_password_are_sent_when_they_are_asked_for() {
    authenticated(SaslStatus::SaslSuccess).await.unwrap();
    let error = authenticated(SaslStatus::SaslFailed).await.unwrap_err();
    assert!(matches!(error, ClientError::WrongPassword), "{error:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn recorded_logins_end_as_they_did_with_drills_own_client() {
    for (name, password) in [("auth_ok", "wonder"), ("auth_bad", "nope")] {
        let (address, server) = serve(move |listener| async move {
            let mut peer = Peer::over(listener.accept().await.unwrap().0);
            for recorded in recording(&format!("auth/{name}.user1")).iter().take(4) {
                if !recorded.from_client {
                    peer.send_bytes(&recorded.bytes).await;
                    continue;
                }
                let frame = peer.frame().await;
                assert_eq!((frame.id, frame.rpc_type), (recorded.id, recorded.rpc_type));
                if frame.is_request::<SaslMessage>() {
                    assert_eq!(&frame.pbody[..], recorded.pbody, "{name}");
                }
            }
            assert!(peer.next().await.is_none());
        })
        .await;
        let ledger = ledger();
        let options = ClientOptions {
            user: Some("alice".to_owned()),
            password: Some(password.into()),
            ..ClientOptions::new(runtime(), ledger.clone())
        };
        let client = Client::connect(&address.to_string(), options).await;
        match (name, client) {
            ("auth_ok", Ok(client)) => drop(client),
            ("auth_bad", Err(ClientError::WrongPassword)) => {}
            (_, other) => panic!("{name}: {other:?}"),
        }
        server.await.unwrap();
        settled(&ledger).await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn data_that_names_no_query_is_refused() {
    let (answered, done) = tokio::sync::oneshot::channel();
    let scene = Scene::play(|listener| async move {
        let mut drill = Drill::welcome(&listener).await;
        drill
            .peer
            .request::<QueryData>(5, &shared::QueryData::default())
            .await;
        assert_eq!(drill.peer.frame().await.mode, RpcMode::ResponseFailure);
        answered.send(()).unwrap();
        drill.closed().await;
    });
    let scene = scene.await;
    done.await.unwrap();
    scene.end().await;
}
