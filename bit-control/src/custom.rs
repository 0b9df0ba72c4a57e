//! Messages of extensions, told apart by a number: `REQ_CUSTOM`.

use std::{
    collections::HashMap,
    fmt,
    sync::{Arc, PoisonError, RwLock},
};

use bytes::Bytes;
use membership::NodeAddress;
use prost::Message;
use protos::{calls::control as calls, control::CustomMessage, error::ErrorType};
use rpc_bus::RpcFailure;
use thiserror::Error;

use crate::reply::ReplyTo;

/// Serves the custom messages of one number. Called in the order in which a connection brings them; must not wait.
pub trait CustomHandler: Send + Sync + 'static {
    /// Takes the message and the raw body of a request.
    fn handle(&self, from: &NodeAddress, message: Bytes, dbody: Bytes, reply: CustomReply);
}

impl<F> CustomHandler for F
where
    F: Fn(&NodeAddress, Bytes, Bytes, CustomReply) + Send + Sync + 'static,
{
    fn handle(&self, from: &NodeAddress, message: Bytes, dbody: Bytes, reply: CustomReply) {
        self(from, message, dbody, reply);
    }
}

/// The obligation to answer a custom message; dropped, it answers that the request was dropped.
#[derive(Debug)]
#[must_use = "a caller is waiting for this answer"]
pub struct CustomReply {
    number: i32,
    reply: ReplyTo<calls::Custom>,
}

impl CustomReply {
    /// Answers with the bytes of a message, and a raw body in pieces.
    pub fn send(self, message: Bytes, dbody: Vec<Bytes>) {
        let answer = CustomMessage {
            r#type: Some(self.number),
            message: Some(message),
        };
        self.reply.send_with_body(answer, dbody);
    }

    /// Answers with a message.
    pub fn send_message(self, message: &impl Message) {
        self.send(message.encode_to_vec().into(), Vec::new());
    }

    /// Answers with `RESPONSE_FAILURE`.
    pub fn fail(self, failure: RpcFailure) {
        self.reply.fail(failure);
    }
}

/// A number has a handler already.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Error)]
#[error("custom messages of type {number} have a handler already")]
pub struct NumberTaken {
    /// The number.
    pub number: i32,
}

/// Handlers of custom messages, by number. Clones are the same.
#[derive(Clone, Default)]
pub struct CustomHandlers(Arc<RwLock<HashMap<i32, Arc<dyn CustomHandler>>>>);

impl CustomHandlers {
    /// Gives the messages of `number` to `handler`.
    ///
    /// # Errors
    ///
    /// They have a handler already.
    pub fn register(&self, number: i32, handler: impl CustomHandler) -> Result<(), NumberTaken> {
        let mut handlers = self.0.write().unwrap_or_else(PoisonError::into_inner);
        if handlers.contains_key(&number) {
            return Err(NumberTaken { number });
        }
        handlers.insert(number, Arc::new(handler));
        Ok(())
    }

    /// As [`Self::register`], for messages of type `M`; others are refused.
    ///
    /// # Errors
    ///
    /// The number has a handler already.
    pub fn register_typed<M: Message + Default>(
        &self,
        number: i32,
        handler: impl Fn(&NodeAddress, M, Bytes, CustomReply) + Send + Sync + 'static,
    ) -> Result<(), NumberTaken> {
        let typed =
            move |from: &NodeAddress, message: Bytes, dbody, reply: CustomReply| match M::decode(
                message,
            ) {
                Ok(message) => handler(from, message, dbody, reply),
                Err(error) => {
                    let message = format!("malformed custom message of type {number}: {error}");
                    reply.fail(RpcFailure::new(ErrorType::Validation, message));
                }
            };
        self.register(number, typed)
    }

    /// Takes the handler of `number` away; says whether there was one.
    pub fn unregister(&self, number: i32) -> bool {
        let mut handlers = self.0.write().unwrap_or_else(PoisonError::into_inner);
        handlers.remove(&number).is_some()
    }

    // wire: golden/raw/raw_control.control12
    pub(crate) fn handle(
        &self,
        from: &NodeAddress,
        request: CustomMessage,
        dbody: Bytes,
        reply: ReplyTo<calls::Custom>,
    ) {
        let number = request.r#type();
        let handlers = self.0.read().unwrap_or_else(PoisonError::into_inner);
        let handler = handlers.get(&number).cloned();
        drop(handlers);
        let Some(handler) = handler else {
            let message = format!("nobody here takes custom messages of type {number}");
            return reply.fail(RpcFailure::new(ErrorType::UnsupportedOperation, message));
        };
        let message = request.message.unwrap_or_default();
        handler.handle(from, message, dbody, CustomReply { number, reply });
    }
}

impl fmt::Debug for CustomHandlers {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let handlers = self.0.read().unwrap_or_else(PoisonError::into_inner);
        f.debug_tuple("CustomHandlers")
            .field(&handlers.keys())
            .finish()
    }
}
