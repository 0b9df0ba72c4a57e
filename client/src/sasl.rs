//! SASL PLAIN: one message with user and password.

use bytes::Bytes;
use protos::{
    calls::user::SaslMessage as SaslCall,
    shared::{SaslMessage, SaslStatus},
};
use rpc_bus::{CallOptions, RemoteConnection};

use crate::{error::ClientError, options::ClientOptions};

const PLAIN: &str = "PLAIN";

/// Authenticates a connection whose server asked for it.
// wire: golden/auth
pub(crate) async fn authenticate(
    connection: &RemoteConnection,
    options: &ClientOptions,
    offered: Vec<String>,
    encrypted: bool,
) -> Result<(), ClientError> {
    let plain = offered
        .iter()
        .any(|mechanism| mechanism.eq_ignore_ascii_case(PLAIN))
        && !encrypted;
    let (true, Some(user), Some(password)) = (plain, &options.user, &options.password) else {
        return Err(ClientError::Authentication { offered, encrypted });
    };
    let start = SaslMessage {
        mechanism: Some(PLAIN.to_owned()),
        data: Some(plain_data(user, password)),
        status: Some(SaslStatus::SaslStart.into()),
    };
    let patience = CallOptions {
        deadline: Some(options.connection.handshake_timeout),
        ..CallOptions::default()
    };
    let answer = connection
        .call::<SaslCall>(&start, Vec::new(), patience)
        .await?;
    match answer.message.status() {
        SaslStatus::SaslSuccess => Ok(()),
        SaslStatus::SaslFailed => Err(ClientError::WrongPassword),
        _ => Err(ClientError::Protocol(
            "an unexpected step of authentication",
        )),
    }
}

/// No authorization id, then user and password, with a NUL before each.
fn plain_data(user: &str, password: &str) -> Bytes {
    format!("\0{user}\0{password}").into()
}
