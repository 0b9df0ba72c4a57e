//! A server that costs next to nothing: it sends what a real Drillbit sent for the same query.
//!
//! What a driver reaches against it is the driver's own ceiling. It is a blocking socket and the frames of one
//! recorded answer in one buffer, and it uses nothing of the product, so that no limit of the product's hides in it.

use std::io::Write;
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::sync::Arc;
use std::thread;
use std::time::Duration;

use anyhow::{Context, Result, bail, ensure};
use bytes::Bytes;
use harness::peer::{self, Peer, RawFrame};
use prost::Message;
use protos::calls::user::{GetServerMeta, Handshake, QueryData, QueryResult, RunQuery};
use protos::rpc::RpcMode;
use protos::shared::query_result::QueryState;
use protos::{Call, shared, user};

/// Longer than any pause between two queries.
const SILENCE_MAX: Duration = Duration::from_hours(1);
/// Stands for the query's id in recorded frames; found again by [`Answer::ids`].
const PLACEHOLDER: [i64; 2] = [0x5e1f_7bd9_0c3a_a6e4, 0x2d84_91c6_f05b_3e77];

/// What a real Drillbit answers to a driver that connects and runs one query.
#[derive(Debug)]
pub(crate) struct Recording {
    hello: Bytes,
    server_meta: Bytes,
    answer: Answer,
}

/// The frames of one query's result, end to end, with its id at known places.
#[derive(Clone, Debug)]
struct Answer {
    frames: Vec<u8>,
    /// Where in `frames` the 8 + 1 + 8 bytes of a query id are.
    ids: Vec<usize>,
}

/// The server; it runs until the program ends.
#[derive(Debug)]
pub(crate) struct Replay {
    /// Where it accepts connections.
    pub(crate) user: SocketAddr,
}

impl Recording {
    /// Asks the Drillbit at `server` what it says of itself, and for the result of `sql`.
    pub(crate) fn take(server: SocketAddr, sql: &str) -> Result<Self> {
        let mut drillbit = Peer::connect(server)?;
        let hello = peer::hello(protos::USER_RPC_VERSION).encode_to_vec();
        drillbit.send(&peer::request(1, Handshake::REQUEST, &hello))?;
        let hello = drillbit.message()?.pbody;
        drillbit.send(&peer::request(2, GetServerMeta::REQUEST, &[]))?;
        let server_meta = drillbit.message()?.pbody;
        drillbit.send(&peer::run_query(3, sql))?;
        let answer = record(&mut drillbit)?;
        Ok(Self {
            hello,
            server_meta,
            answer,
        })
    }
}

fn record(drillbit: &mut Peer) -> Result<Answer> {
    let mut answer = Answer {
        frames: Vec::new(),
        ids: Vec::new(),
    };
    loop {
        let frame = drillbit.message()?;
        if frame.mode == RpcMode::ResponseFailure as i32 {
            bail!(
                "RUN_QUERY failed: {:?}",
                shared::DrillPbError::decode(frame.pbody)?
            );
        }
        if frame.mode != RpcMode::Request as i32 {
            continue; // The query's handle: another one is given out later.
        }
        drillbit.send(&peer::ack(frame.coordination_id))?;
        answer.push(&frame)?;
        if frame.rpc_type == QueryResult::REQUEST {
            return Ok(answer);
        }
    }
}

impl Answer {
    fn push(&mut self, frame: &RawFrame) -> Result<()> {
        let pbody = match frame.rpc_type {
            QueryData::REQUEST => {
                let mut data = shared::QueryData::decode(frame.pbody.clone())?;
                data.query_id = Some(placeholder());
                data.encode_to_vec()
            }
            QueryResult::REQUEST => {
                let mut result = shared::QueryResult::decode(frame.pbody.clone())?;
                ensure!(
                    result.query_state() == QueryState::Completed,
                    "the query ended with {result:?}"
                );
                result.query_id = Some(placeholder());
                result.encode_to_vec()
            }
            other => bail!("a Drillbit sent rpc_type {other} to a client"),
        };
        let head = id_bytes(PLACEHOLDER);
        let id = pbody
            .windows(head.len())
            .position(|bytes| bytes == head)
            .context("no query id")?;
        let whole = peer::frame(
            RpcMode::Request,
            frame.coordination_id,
            frame.rpc_type,
            &pbody,
            &frame.raw,
        );
        let pbody_at = whole
            .windows(pbody.len())
            .position(|bytes| bytes == pbody)
            .context("no body")?;
        self.ids.push(self.frames.len() + pbody_at + id);
        self.frames.extend_from_slice(&whole);
        Ok(())
    }

    fn name(&mut self, id: [i64; 2]) {
        let bytes = id_bytes(id);
        for at in &self.ids {
            self.frames[*at..*at + bytes.len()].copy_from_slice(&bytes);
        }
    }
}

fn placeholder() -> shared::QueryId {
    shared::QueryId {
        part1: Some(PLACEHOLDER[0]),
        part2: Some(PLACEHOLDER[1]),
    }
}

/// A query id from its first value's first byte to its second value's last.
// wire: drill@051b164 protocol/src/main/protobuf/UserBitShared.proto: two sfixed64, so ids are of equal length.
fn id_bytes([part1, part2]: [i64; 2]) -> [u8; 17] {
    let mut bytes = [0x11; 17];
    bytes[..8].copy_from_slice(&part1.to_le_bytes());
    bytes[9..].copy_from_slice(&part2.to_le_bytes());
    bytes
}

impl Replay {
    /// Serves `recording` on a free port.
    pub(crate) fn start(recording: Recording) -> Result<Self> {
        let listener = TcpListener::bind("127.0.0.1:0")?;
        let user = listener.local_addr()?;
        let recording = Arc::new(recording);
        thread::spawn(move || {
            for stream in listener.incoming().map_while(Result::ok) {
                let recording = Arc::clone(&recording);
                // A driver that leaves is no failure: the benchmark notices on its own side.
                thread::spawn(move || serve(stream, &recording));
            }
        });
        Ok(Self { user })
    }
}

fn serve(stream: TcpStream, recording: &Recording) -> Result<()> {
    let mut bulk = stream.try_clone()?;
    let mut driver = Peer::over(stream)?;
    let mut answer = recording.answer.clone();
    let mut queries = 0;
    while let Some(frame) = driver.frame_within(SILENCE_MAX)? {
        let respond = |rpc_type, pbody: &[u8]| {
            peer::frame(
                RpcMode::Response,
                frame.coordination_id,
                rpc_type,
                pbody,
                &[],
            )
        };
        match (RpcMode::try_from(frame.mode)?, frame.rpc_type) {
            (RpcMode::Request, Handshake::REQUEST) => {
                driver.send(&respond(Handshake::RESPONSE, &recording.hello))?;
            }
            (RpcMode::Request, GetServerMeta::REQUEST) => {
                driver.send(&respond(GetServerMeta::RESPONSE, &recording.server_meta))?;
            }
            (RpcMode::Request, RunQuery::REQUEST) => {
                queries += 1;
                let id = shared::QueryId {
                    part1: Some(queries),
                    part2: Some(queries),
                };
                driver.send(&respond(RunQuery::RESPONSE, &id.encode_to_vec()))?;
                answer.name([queries, queries]);
                bulk.write_all(&answer.frames)?;
            }
            (RpcMode::Ping, _) => driver.send(&pong(&frame))?,
            (RpcMode::Response, rpc_type) if rpc_type == user::RpcType::Ack as i32 => {}
            (mode, rpc_type) => bail!("a driver sent {mode:?} of rpc_type {rpc_type}"),
        }
    }
    Ok(())
}

fn pong(ping: &RawFrame) -> Vec<u8> {
    peer::frame(
        RpcMode::Pong,
        ping.coordination_id,
        ping.rpc_type,
        &ping.pbody,
        &[],
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_recorded_answer_is_named_anew_for_each_query() {
        let data = shared::QueryData {
            query_id: Some(placeholder()),
            row_count: Some(7),
            ..Default::default()
        };
        let frame = RawFrame {
            mode: RpcMode::Request as i32,
            coordination_id: 5,
            rpc_type: QueryData::REQUEST,
            pbody: data.encode_to_vec().into(),
            raw: Bytes::from_static(b"body"),
        };
        let mut answer = Answer {
            frames: Vec::new(),
            ids: Vec::new(),
        };
        answer.push(&frame).unwrap();
        answer.name([1, -2]);
        let renamed = shared::QueryId {
            part1: Some(1),
            part2: Some(-2),
        };
        let expected = shared::QueryData {
            query_id: Some(renamed),
            ..data
        }
        .encode_to_vec();
        let expected = peer::frame(RpcMode::Request, 5, QueryData::REQUEST, &expected, b"body");
        assert_eq!(answer.frames, expected);
    }
}
