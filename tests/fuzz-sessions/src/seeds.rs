//! What mutations start from: whole conversations, one side of each.

use std::{fs, io, path::Path};

use prost::Message;
use protos::{
    Call,
    calls::user::{CancelQuery, GetServerMeta, QueryData, QueryResult, RunQuery},
    rpc::{Ack, RpcMode},
    shared::{self, QueryType, query_result::QueryState},
    user::{
        BitToUserHandshake, GetServerMetaReq, HandshakeStatus, QueryResultsMode, RpcEndpointInfos,
        RpcType, UserProperties, UserToBitHandshake,
    },
};
use record_batch::Encoder;
use rpc_bus::frame::Header;

use crate::{
    engine,
    wire::{frame, frame_with, frames},
};

/// The query that scripts of servers answer.
const QUERY: shared::QueryId = shared::QueryId {
    part1: Some(1),
    part2: Some(2),
};
/// Statements of scripts: see the engine.
const STATEMENTS: [&str; 6] = [
    "rows 2000",
    "late 1000",
    "stalls 10",
    "hang",
    "fail",
    "rows 0",
];

/// A client's handshake.
#[must_use]
pub fn hello() -> Vec<u8> {
    let hello = UserToBitHandshake {
        rpc_version: Some(protos::USER_RPC_VERSION),
        support_timeout: Some(true),
        support_complex_types: Some(true),
        properties: Some(UserProperties::default()),
        ..UserToBitHandshake::default()
    };
    frame(RpcMode::Request, 1, RpcType::Handshake.into(), &hello)
}

/// A server's answer to it: a real Drill's, or that of a node of ours.
#[must_use]
pub fn welcome(ours: bool) -> Vec<u8> {
    let name = if ours {
        user_server::SERVER_NAME
    } else {
        "Apache Drill Server"
    };
    let welcome = BitToUserHandshake {
        rpc_version: Some(protos::USER_RPC_VERSION),
        status: Some(HandshakeStatus::Success.into()),
        server_infos: Some(RpcEndpointInfos {
            name: Some(name.to_owned()),
            version: Some("1.22.0".to_owned()),
            ..RpcEndpointInfos::default()
        }),
        ..BitToUserHandshake::default()
    };
    frame(RpcMode::Response, 1, RpcType::Handshake.into(), &welcome)
}

/// Scripts of clients, to be played behind [`hello`].
#[must_use]
pub fn of_clients() -> Vec<Vec<u8>> {
    let mut scripts: Vec<_> = STATEMENTS.map(|sql| run_query(2, sql)).into();
    scripts.push((2..8).flat_map(|id| run_query(id, "rows 1500")).collect());
    let mut all: Vec<u8> = (2..)
        .zip(STATEMENTS)
        .flat_map(|(id, sql)| run_query(id, sql))
        .collect();
    all.extend(frame(RpcMode::Ping, 0, 0, &Ack { ok: Some(true) }));
    all.extend(request::<CancelQuery>(20, &QUERY));
    all.extend(request::<GetServerMeta>(21, &GetServerMetaReq::default()));
    scripts.push(all);
    scripts
}

/// Scripts of servers, to be played behind [`welcome`]: the client's first query has the coordination id 2.
#[must_use]
pub fn of_servers() -> Vec<Vec<u8>> {
    let handle = frame(RpcMode::Response, 2, RunQuery::RESPONSE, &QUERY);
    let data = |id| query_data(id, 0..50);
    let done = result(9, QueryState::Completed);
    let failed = result(9, QueryState::Failed);
    vec![
        [handle.clone(), data(1), data(2), done.clone()].concat(),
        [handle.clone(), data(1), failed].concat(),
        [data(1), data(2), handle.clone(), done.clone()].concat(),
        [handle.clone(), data(1), data(1), done.clone(), data(3)].concat(),
        [handle.clone(), done, handle].concat(),
    ]
}

/// The recorded streams in `folder` whose names end with `.SIDE`, without their handshakes.
///
/// # Errors
///
/// The folder or a file cannot be read.
pub fn recorded(folder: &Path, side: &str) -> io::Result<Vec<Vec<u8>>> {
    let mut paths = Vec::new();
    for entry in fs::read_dir(folder)? {
        let path = entry?.path();
        let name = path
            .file_name()
            .unwrap_or_default()
            .to_string_lossy()
            .into_owned();
        if name.contains(".user") && name.ends_with(side) {
            paths.push(path);
        }
    }
    paths.sort();
    paths
        .iter()
        .map(|path| Ok(without_handshake(&fs::read(path)?)))
        .collect()
}

fn without_handshake(stream: &[u8]) -> Vec<u8> {
    match frames(stream).0.first() {
        Some((Header { rpc_type: 0, .. }, handshake)) => stream[handshake.len()..].to_vec(),
        _ => stream.to_vec(),
    }
}

fn request<C: Call>(id: i32, request: &C::Request) -> Vec<u8> {
    frame(RpcMode::Request, id, C::REQUEST, request)
}

fn run_query(id: i32, sql: &str) -> Vec<u8> {
    let query = protos::user::RunQuery {
        results_mode: Some(QueryResultsMode::StreamFull.into()),
        r#type: Some(QueryType::Sql.into()),
        plan: Some(sql.to_owned()),
        ..protos::user::RunQuery::default()
    };
    request::<RunQuery>(id, &query)
}

fn query_data(id: i32, rows: std::ops::Range<i64>) -> Vec<u8> {
    let batch = engine::batch(rows);
    let encoder = Encoder::try_new(&batch.schema()).expect("invariant: types that Drill has");
    let body = encoder.encode(&batch).expect("invariant: a small batch");
    let data = shared::QueryData {
        query_id: Some(QUERY),
        row_count: body.def.record_count,
        def: Some(body.def.clone()),
        ..shared::QueryData::default()
    };
    let bodies = (&data.encode_to_vec()[..], &body.joined()[..]);
    frame_with(RpcMode::Request, id, QueryData::REQUEST, bodies)
}

fn result(id: i32, state: QueryState) -> Vec<u8> {
    let result = shared::QueryResult {
        query_state: Some(state.into()),
        query_id: Some(QUERY),
        ..shared::QueryResult::default()
    };
    request::<QueryResult>(id, &result)
}
