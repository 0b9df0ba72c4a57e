//! A protobuf body as JSON, by the descriptors that the messages were generated from.

use prost_reflect::{DynamicMessage, SerializeOptions};
use protos::calls::MessageName;
use serde_json::Value;

/// Whether passwords are shown. They travel in clear in handshakes and in SASL PLAIN.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Secrets {
    Hide,
    Show,
}

const HIDDEN: &str = "<hidden>";

/// The body by its message, or as hexadecimal text when the message is unknown or does not fit, and
/// what did not fit.
pub(super) fn show(
    message: Option<MessageName>,
    bytes: &[u8],
    secrets: Secrets,
) -> (Value, Option<String>) {
    let Some(message) = message else {
        return (hex(bytes), None);
    };
    match decode(message, bytes) {
        Ok(mut value) => {
            if secrets == Secrets::Hide {
                hide_secrets(message, &mut value);
            }
            (value, None)
        }
        Err(error) => (hex(bytes), Some(format!("not a {message}: {error}"))),
    }
}

fn decode(message: MessageName, bytes: &[u8]) -> Result<Value, String> {
    let descriptor = protos::descriptors().get_message_by_name(&message.to_string());
    let descriptor = descriptor.ok_or("no descriptor")?;
    let decoded = DynamicMessage::decode(descriptor, bytes).map_err(|error| error.to_string())?;
    // 64-bit integers stay strings, as protobuf's JSON has them: a QueryId does not fit a JSON
    // reader's double.
    let options = SerializeOptions::new().use_proto_field_name(true);
    let value = decoded.serialize_with_options(serde_json::value::Serializer, &options);
    value.map_err(|error| error.to_string())
}

fn hex(bytes: &[u8]) -> Value {
    use std::fmt::Write as _;
    let text = bytes
        .iter()
        .fold(String::with_capacity(2 * bytes.len()), |mut text, byte| {
            // Writing into a String cannot fail.
            let _ = write!(text, "{byte:02x}");
            text
        });
    Value::from(text)
}

fn hide_secrets(message: MessageName, value: &mut Value) {
    match message.name {
        "UserToBitHandshake" => {
            let properties = value
                .pointer_mut("/properties/properties")
                .and_then(Value::as_array_mut);
            properties.into_iter().flatten().for_each(hide_password);
        }
        "SaslMessage" => hide(value.get_mut("data")),
        _ => {}
    }
}

fn hide_password(property: &mut Value) {
    let key = property
        .get("key")
        .and_then(Value::as_str)
        .unwrap_or_default();
    // Also trustStorePassword and its like; keys are matched without case, as Drill does.
    if key.to_ascii_lowercase().contains("password") {
        hide(property.get_mut("value"));
    }
}

fn hide(value: Option<&mut Value>) {
    if let Some(value) = value {
        *value = Value::from(HIDDEN);
    }
}
