//! One recorded side played to our code: Drill's server to our client, Drill's client to our node.

use std::fmt::Write;
use std::net::{SocketAddr, TcpListener};
use std::thread::{self, JoinHandle};

use futures::TryStreamExt;
use prost::Message;
use protos::shared::QueryData;
use protos::user::RunQuery;
use tests::golden::{Content, Frame, Item, Recording, Side};
use tests::peer::{Peer, RawFrame, ack};
use tests::transcript::{self, Outcome};

use super::batches::same_values;
use crate::interop::client_suite::texts;
use crate::nodes::{Connected, node};

#[tokio::test]
async fn our_client_reads_every_type_from_the_recorded_drill() {
    let (address, server) = recorded_server(Recording::named("user/types.user1").unwrap());
    let connected = Connected::to(address).await;
    for statement in transcript::read("types").unwrap() {
        let found = match connected.client.query(&statement.sql).await {
            Ok(stream) => stream.try_collect::<Vec<_>>().await,
            Err(error) => Err(error),
        };
        match (found, statement.outcome) {
            (Ok(batches), Outcome::Rows { rows, .. }) => {
                let expected = rows[0][0]
                    .as_ref()
                    .map(|value| (value.class.as_str(), value.text.as_str()));
                assert_eq!(
                    texts(&batches),
                    [[as_arrow_shows(expected)]],
                    "{}",
                    statement.sql
                );
            }
            (Err(error), Outcome::Error(expected)) => {
                assert_eq!(kind(&error.to_string()), kind(&expected));
            }
            (found, expected) => panic!("{}: {found:?}, expected {expected:?}", statement.sql),
        }
    }
    connected.close().await;
    server.join().unwrap();
}

#[tokio::test]
async fn our_client_reads_results_and_errors_from_the_recorded_drill() {
    for name in ["employee", "error"] {
        let (address, server) =
            recorded_server(Recording::named(&format!("user/{name}.user1")).unwrap());
        let connected = Connected::to(address).await;
        for sql in recorded_queries(&format!("user/{name}.user1")) {
            let found = match connected.client.query(&sql).await {
                Ok(stream) => stream.try_collect::<Vec<_>>().await,
                Err(error) => Err(error),
            };
            if let Err(error) = found {
                assert_eq!(name, "error", "{sql}: {error}");
                assert_eq!(error.error_id().map(str::len), Some(36), "{sql}: {error}");
            }
        }
        connected.close().await;
        server.join().unwrap();
    }
}

#[test]
fn our_node_answers_every_recorded_query_of_a_type_with_the_recorded_bytes() {
    let recording = Recording::named("user/types.user1").unwrap();
    let mut peer = Peer::connect(node().user()).unwrap();
    let mut wrong = String::new();
    let requests = recording
        .frames()
        .filter(|(item, frame)| item.from == Side::Client && frame.head.mode == "REQUEST");
    for (_, request) in requests {
        peer.send(&request.bytes).unwrap();
        if request.head.rpc_name == "HANDSHAKE" {
            assert_eq!(
                peer.message().unwrap().coordination_id,
                request.head.coordination_id
            );
            continue;
        }
        let sql = RunQuery::decode(request.pbody.clone())
            .unwrap()
            .plan
            .unwrap();
        let (found, expected) = (query_data(&mut peer), recorded_data(&recording, request));
        if let Err(difference) = compare(found.as_ref(), expected) {
            let _ = writeln!(wrong, "{sql}\n{difference}");
        }
    }
    assert!(wrong.is_empty(), "\n{wrong}");
}

/// A server that sends one client what Drill sent, as soon as the client has sent what Drill had
/// got by then.
fn recorded_server(recording: Recording) -> (SocketAddr, JoinHandle<()>) {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap();
    let server = thread::spawn(move || {
        let mut peer = Peer::over(listener.accept().unwrap().0).unwrap();
        for item in &recording.items {
            play(&mut peer, item);
        }
    });
    (address, server)
}

fn play(peer: &mut Peer, item: &Item) {
    let Content::Frame(frame) = &item.content else {
        panic!("{item:?} was not kept")
    };
    if item.from == Side::Server {
        peer.send(&frame.bytes).unwrap();
        return;
    }
    let found = peer.message().unwrap();
    let id_and_type = (frame.head.coordination_id, frame.head.rpc_type);
    assert_eq!(
        (found.coordination_id, found.rpc_type),
        id_and_type,
        "instead of frame {}",
        item.index
    );
}

fn recorded_queries(name: &str) -> Vec<String> {
    let recording = Recording::named(name).unwrap();
    let queries = recording
        .frames()
        .filter(|(_, frame)| frame.head.rpc_name == "RUN_QUERY");
    queries
        .map(|(_, frame)| RunQuery::decode(frame.pbody.clone()).unwrap().plan.unwrap())
        .collect()
}

/// Every batch with rows of the query that was sent last; each is acknowledged.
fn query_data(peer: &mut Peer) -> Option<RawFrame> {
    let mut data = None;
    loop {
        let message = peer.message().unwrap();
        match protos::rpc_name(protos::Plane::User, message.rpc_type) {
            Some("QUERY_HANDLE") => {}
            Some("QUERY_DATA") => {
                peer.send(&ack(message.coordination_id)).unwrap();
                data = Some(message);
            }
            Some("QUERY_RESULT") => {
                peer.send(&ack(message.coordination_id)).unwrap();
                return data;
            }
            _ => panic!("answered {message:?}"),
        }
    }
}

/// The batch that Drill answered a request with; `None` where it was an error.
fn recorded_data<'a>(recording: &'a Recording, request: &Frame) -> Option<&'a Frame> {
    let after = recording
        .frames()
        .skip_while(|(_, frame)| frame.bytes != request.bytes)
        .skip(1);
    let own = after.take_while(|(_, frame)| frame.head.rpc_name != "RUN_QUERY");
    own.map(|(_, frame)| frame)
        .filter(|frame| frame.head.rpc_name == "QUERY_DATA")
        .last()
}

fn compare(found: Option<&RawFrame>, expected: Option<&Frame>) -> Result<(), String> {
    let (found, expected) = match (found, expected) {
        (None, None) => return Ok(()),
        (Some(found), Some(expected)) => (found, expected),
        (found, expected) => return Err(format!("  found    {found:?}\n  expected {expected:?}")),
    };
    let (ours, theirs) = (
        QueryData::decode(found.pbody.clone()).unwrap(),
        QueryData::decode(expected.pbody.clone()).unwrap(),
    );
    let (ours, theirs) = (ours.def.unwrap_or_default(), theirs.def.unwrap_or_default());
    if ours != theirs {
        return Err(format!("  found    {ours:?}\n  expected {theirs:?}"));
    }
    same_values(&theirs, &expected.raw(), &found.raw)
}

fn kind(message: &str) -> &str {
    message.split(':').next().unwrap_or_default()
}

/// What the driver shows, in the way in which Arrow shows the same value.
fn as_arrow_shows(value: Option<(&str, &str)>) -> String {
    match value {
        None => "NULL".to_owned(),
        Some(("java.sql.Date", date)) => format!("{date}T00:00:00"),
        Some(("java.sql.Timestamp", timestamp)) => timestamp.replace(' ', "T"),
        Some((_, "P1Y2M")) => "1 years 2 mons".to_owned(),
        Some((_, "P3DT14706.789S")) => "3 days 4 hours 5 mins 6.789 secs".to_owned(),
        Some((_, "P-1D")) => "-1 days".to_owned(),
        Some((_, text)) => text.to_owned(),
    }
}
