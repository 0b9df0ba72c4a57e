//! Counts what waits for its consumer on one connection, and stops reading from a server that would
//! go on sending.

use std::{
    mem,
    sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError},
};

use bytes::Bytes;
use protos::{calls::user::QueryData as QueryDataCall, rpc::Ack, shared::RecordBatchDef};
use rpc_bus::{RemoteConnection, Reply};

/// What a batch holds beside its body, roughly: its message, and this much for every column.
const MESSAGE_BYTES: usize = 1024;
const COLUMN_BYTES: usize = 512;

/// The gate of one connection.
#[derive(Debug, Default)]
pub(crate) struct Gate {
    /// Set once the connection is open.
    guarded: OnceLock<Guarded>,
    state: Mutex<State>,
}

#[derive(Debug)]
struct Guarded {
    connection: RemoteConnection,
    /// `None` towards a server that waits for acknowledgements.
    bytes_max: Option<usize>,
}

#[derive(Debug, Default)]
struct State {
    bytes: usize,
    paused: bool,
    /// Queries whose name is not known yet: it comes on this very connection, so reading must go
    /// on.
    opening: usize,
}

impl Gate {
    /// The connection to guard, which from now on ends by being closed, not by being dropped.
    pub(crate) fn guard(&self, connection: RemoteConnection, bytes_max: Option<usize>) {
        // A second one cannot come: a gate belongs to one connection.
        let _ = self.guarded.set(Guarded {
            connection,
            bytes_max,
        });
    }

    /// The peer does not keep to the rules.
    pub(crate) fn close(&self) {
        if let Some(guarded) = self.guarded.get() {
            guarded.connection.close();
        }
    }

    pub(crate) fn query_opening(&self) {
        self.change(|state| state.opening += 1);
    }

    pub(crate) fn query_opened(&self) {
        self.change(|state| state.opening -= 1);
    }

    fn add(&self, bytes: usize) {
        self.change(|state| state.bytes += bytes);
    }

    fn remove(&self, bytes: usize) {
        self.change(|state| state.bytes -= bytes);
    }

    /// Pauses and resumes under the lock, so that the last change wins.
    fn change(&self, change: impl FnOnce(&mut State)) {
        let mut state = self.lock();
        change(&mut state);
        let Some(Guarded {
            connection,
            bytes_max: Some(max),
        }) = self.guarded.get()
        else {
            return;
        };
        if !state.paused && state.opening == 0 && state.bytes > *max {
            connection.pause_reading();
            state.paused = true;
        } else if state.paused && (state.opening > 0 || state.bytes <= *max / 2) {
            connection.resume_reading();
            state.paused = false;
        }
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// What a batch is decoded from.
#[derive(Debug)]
pub(crate) enum BatchBody {
    Drill(RecordBatchDef, Bytes),
    Arrow(Bytes),
}

/// A batch that its consumer has not taken yet. It is acknowledged when it is dropped, read or not.
#[derive(Debug)]
pub(crate) struct Undelivered {
    body: BatchBody,
    affected_rows: Option<i32>,
    bytes: usize,
    gate: Arc<Gate>,
    reply: Option<Reply<QueryDataCall>>,
}

impl Undelivered {
    pub(crate) fn new(
        data: protos::shared::QueryData,
        dbody: Bytes,
        reply: Reply<QueryDataCall>,
        gate: &Arc<Gate>,
    ) -> Self {
        let def = data.def.unwrap_or_default();
        let bytes = dbody.len() + MESSAGE_BYTES + def.field.len() * COLUMN_BYTES;
        gate.add(bytes);
        let body = if data.arrow_body == Some(true) {
            BatchBody::Arrow(dbody)
        } else {
            BatchBody::Drill(def, dbody)
        };
        Self {
            affected_rows: data.affected_rows_count,
            body,
            bytes,
            gate: Arc::clone(gate),
            reply: Some(reply),
        }
    }

    /// For a statement that writes: how many rows it wrote.
    pub(crate) fn affected_rows(&self) -> Option<i32> {
        self.affected_rows
    }

    /// Takes the batch, which acknowledges it.
    pub(crate) fn take(mut self) -> BatchBody {
        mem::replace(&mut self.body, BatchBody::Arrow(Bytes::new()))
    }
}

impl Drop for Undelivered {
    fn drop(&mut self) {
        self.gate.remove(self.bytes);
        if let Some(reply) = self.reply.take() {
            reply.send(&Ack { ok: Some(true) });
        }
    }
}
