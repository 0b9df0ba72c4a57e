//! Every recorded protobuf body decodes into our message, keeps every field, and encodes to the
//! bytes that it was; and the table of calls names each as the recorder did.

use std::collections::BTreeSet;

use bytes::Bytes;
use prost::{DecodeError, Message};
use protos::rpc::RpcMode;
use protos::{bit, control, data, rpc, shared, user};
use tests::golden::Recording;

/// Bodies that a client made by hand and that are no message.
const ODD: [(&str, usize); 1] = [("raw/raw_user.user9", 2)];

#[test]
fn every_recorded_protobuf_body_encodes_to_the_bytes_that_it_was() {
    let (mut same, mut different) = (0, BTreeSet::new());
    for recording in Recording::all().unwrap() {
        for (item, frame) in recording.frames() {
            let Some(name) = &frame.head.message else {
                continue;
            };
            if reencode(recording.plane, name, &frame.pbody).is_ok_and(|bytes| bytes == frame.pbody)
            {
                same += 1;
            } else {
                different.insert((recording.name.clone(), item.index));
            }
        }
    }
    let odd = ODD
        .iter()
        .map(|(name, index)| ((*name).to_owned(), *index))
        .collect();
    assert_eq!(different, odd);
    assert!(same > 2500, "only {same} bodies");
}

#[test]
fn the_table_of_calls_names_every_recorded_message() {
    for recording in Recording::all().unwrap() {
        for (item, frame) in recording.frames() {
            let mode = RpcMode::from_str_name(&frame.head.mode).unwrap();
            let message = protos::body_message(recording.plane, mode, frame.head.rpc_type);
            let name = message.map(|message| message.name.to_owned());
            assert_eq!(
                name, frame.head.message,
                "{} {}",
                recording.name, item.index
            );
        }
    }
}

#[test]
fn the_table_of_calls_names_every_recorded_number() {
    for recording in Recording::all().unwrap() {
        for (item, frame) in recording.frames() {
            let name = protos::rpc_name(recording.plane, frame.head.rpc_type).unwrap_or("?");
            assert_eq!(
                name, frame.head.rpc_name,
                "{} {}",
                recording.name, item.index
            );
        }
    }
}

fn reencode(plane: protos::Plane, message: &str, body: &Bytes) -> Result<Vec<u8>, DecodeError> {
    Ok(match message {
        "Ack" => through::<rpc::Ack>(body)?,
        "AckWithCredit" => through::<data::AckWithCredit>(body)?,
        "BitClientHandshake" => through::<data::BitClientHandshake>(body)?,
        "BitControlHandshake" => through::<control::BitControlHandshake>(body)?,
        "BitServerHandshake" => through::<data::BitServerHandshake>(body)?,
        "BitToUserHandshake" => through::<user::BitToUserHandshake>(body)?,
        "CreatePreparedStatementReq" => through::<user::CreatePreparedStatementReq>(body)?,
        "CreatePreparedStatementResp" => through::<user::CreatePreparedStatementResp>(body)?,
        "CustomMessage" => through::<control::CustomMessage>(body)?,
        "DrillPBError" => through::<shared::DrillPbError>(body)?,
        "FinishedReceiver" => through::<control::FinishedReceiver>(body)?,
        "FragmentHandle" => through::<bit::FragmentHandle>(body)?,
        "FragmentRecordBatch" => through::<data::FragmentRecordBatch>(body)?,
        "FragmentStatus" => through::<control::FragmentStatus>(body)?,
        "GetCatalogsReq" => through::<user::GetCatalogsReq>(body)?,
        "GetCatalogsResp" => through::<user::GetCatalogsResp>(body)?,
        "GetColumnsReq" => through::<user::GetColumnsReq>(body)?,
        "GetColumnsResp" => through::<user::GetColumnsResp>(body)?,
        "GetSchemasReq" => through::<user::GetSchemasReq>(body)?,
        "GetSchemasResp" => through::<user::GetSchemasResp>(body)?,
        "GetServerMetaReq" => through::<user::GetServerMetaReq>(body)?,
        "GetServerMetaResp" => through::<user::GetServerMetaResp>(body)?,
        "GetTablesReq" => through::<user::GetTablesReq>(body)?,
        "GetTablesResp" => through::<user::GetTablesResp>(body)?,
        "InitializeFragments" => through::<control::InitializeFragments>(body)?,
        "QueryData" => through::<shared::QueryData>(body)?,
        "QueryId" => through::<shared::QueryId>(body)?,
        "QueryResult" => through::<shared::QueryResult>(body)?,
        "RunQuery" => through::<user::RunQuery>(body)?,
        "SaslMessage" => through::<shared::SaslMessage>(body)?,
        "UserToBitHandshake" => through::<user::UserToBitHandshake>(body)?,
        other => panic!("no message {other} on the {} plane", plane.name()),
    })
}

fn through<M: Message + Default>(body: &Bytes) -> Result<Vec<u8>, DecodeError> {
    Ok(M::decode(body.clone())?.encode_to_vec())
}
