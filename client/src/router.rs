//! Brings batches and results to the query that they belong to.
//!
//! Batches and even the result may come before the reply that names the query; batches may follow a
//! failed result. Whatever belongs to no query is acknowledged and discarded.
// wire: golden/transcripts/fake1 "early", "failed"; fake2 "trailing"

use std::{
    collections::HashMap,
    mem,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
};

use protos::{
    calls::user::{QueryData as QueryDataCall, QueryResult as QueryResultCall},
    error::ErrorType,
    id::QueryId,
    rpc::Ack,
    shared::{self, QueryResult, query_result::QueryState},
    user::RpcType,
};
use rpc_bus::{CloseReason, Handler, InboundRequest, RpcFailure};
use tokio::sync::mpsc::{UnboundedReceiver, UnboundedSender, unbounded_channel};

use crate::{
    error::{ClientError, RemoteError},
    gate::{Gate, Undelivered},
};

/// Messages that may wait for the name of their query.
const EARLY_MESSAGES_MAX: usize = 64;

/// What happens to a query.
#[derive(Debug)]
pub(crate) enum Event {
    Batch(Undelivered),
    /// Nothing follows.
    End(Result<(), ClientError>),
}

/// Events of one query. Unbounded as such: what may wait in it is limited by acknowledgements or by
/// the gate.
pub(crate) type Events = UnboundedReceiver<Event>;

/// The routes of one connection.
#[derive(Debug, Default)]
pub(crate) struct Router {
    gate: Arc<Gate>,
    routes: Mutex<Routes>,
}

#[derive(Debug, Default)]
struct Routes {
    running: HashMap<QueryId, UnboundedSender<Event>>,
    /// Queries whose name is not known yet.
    opening: usize,
    /// Messages that came before the name of their query, in order.
    early: Vec<(QueryId, Event)>,
    closed: Option<CloseReason>,
}

impl Router {
    pub(crate) fn gate(&self) -> &Arc<Gate> {
        &self.gate
    }

    /// Announces a query whose name is not known yet.
    pub(crate) fn open(self: &Arc<Self>) -> Opening {
        self.gate.query_opening();
        self.lock().opening += 1;
        Opening(Arc::clone(self))
    }

    /// Forgets a query; what still comes of it is discarded.
    pub(crate) fn forget(&self, id: QueryId) {
        self.lock().running.remove(&id);
    }

    fn route(&self, id: QueryId, event: Event) {
        // Dropped after the lock is released: dropping acknowledges.
        let _discarded = self.lock().put(id, event);
        if self.lock().early.len() > EARLY_MESSAGES_MAX {
            tracing::warn!("a server sent too much of queries that it did not name");
            self.gate.close();
        }
    }

    fn lock(&self) -> MutexGuard<'_, Routes> {
        self.routes.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Routes {
    /// Gives the event back if nobody wants it.
    fn put(&mut self, id: QueryId, event: Event) -> Option<Event> {
        if let Some(query) = self.running.get(&id) {
            let ended = matches!(event, Event::End(_));
            let unwanted = query.send(event).err().map(|refused| refused.0);
            if ended {
                self.running.remove(&id);
            }
            return unwanted;
        }
        if self.opening == 0 {
            return Some(event);
        }
        self.early.push((id, event));
        None
    }

    /// What came early of one query.
    fn take_early(&mut self, id: QueryId) -> Vec<Event> {
        let (of_query, others) = mem::take(&mut self.early)
            .into_iter()
            .partition(|(of, _)| *of == id);
        self.early = others;
        let of_query: Vec<(QueryId, Event)> = of_query;
        of_query.into_iter().map(|(_, event)| event).collect()
    }

    fn adopt(&mut self, id: QueryId) -> Events {
        let (query, events) = unbounded_channel();
        self.running.insert(id, query);
        for event in self.take_early(id) {
            // Its other end is in this very function.
            let _ = self.put(id, event);
        }
        if let Some(reason) = &self.closed {
            let _ = self.put(id, lost(reason));
        }
        events
    }
}

fn lost(reason: &CloseReason) -> Event {
    Event::End(Err(ClientError::Lost(reason.clone())))
}

/// A query that was sent and not named yet. Dropped without a name, it failed.
#[derive(Debug)]
pub(crate) struct Opening(Arc<Router>);

impl Opening {
    /// The query has a name: everything of it, from its first message on.
    pub(crate) fn named(self, id: QueryId) -> Events {
        self.0.lock().adopt(id)
    }
}

impl Drop for Opening {
    fn drop(&mut self) {
        let mut routes = self.0.lock();
        routes.opening -= 1;
        // What is left belongs to nobody if no other query waits for its name.
        let discarded = if routes.opening == 0 {
            mem::take(&mut routes.early)
        } else {
            Vec::new()
        };
        drop(routes);
        drop(discarded);
        self.0.gate.query_opened();
    }
}

impl Handler for Router {
    fn handle(&self, request: InboundRequest) {
        match RpcType::try_from(request.rpc_type) {
            Ok(RpcType::QueryData) => self.query_data(request),
            Ok(RpcType::QueryResult) => self.query_result(request),
            _ => {
                let error = RpcFailure::unknown_type(request.rpc_type);
                request.refuse(error);
            }
        }
    }

    fn closed(&self, reason: &CloseReason) {
        let mut routes = self.lock();
        routes.closed = Some(reason.clone());
        let running = mem::take(&mut routes.running);
        let early = mem::take(&mut routes.early);
        drop(routes);
        drop(early);
        for query in running.into_values() {
            // Nobody may be reading it any more.
            let _ = query.send(lost(reason));
        }
    }
}

impl Router {
    fn query_data(&self, request: InboundRequest) {
        let Some((data, dbody, reply)) = request.decode::<QueryDataCall>() else {
            return;
        };
        match name(data.query_id.as_ref()) {
            Some(id) => {
                let batch = Undelivered::new(data, dbody, reply, &self.gate);
                self.route(id, Event::Batch(batch));
            }
            None => reply.fail(nameless()),
        }
    }

    fn query_result(&self, request: InboundRequest) {
        let Some((result, _, reply)) = request.decode::<QueryResultCall>() else {
            return;
        };
        match name(result.query_id.as_ref()) {
            Some(id) => {
                reply.send(&Ack { ok: Some(true) });
                if let Some(end) = end(result) {
                    self.route(id, Event::End(end));
                }
            }
            None => reply.fail(nameless()),
        }
    }
}

fn name(id: Option<&shared::QueryId>) -> Option<QueryId> {
    QueryId::try_from(id?).ok()
}

fn nameless() -> RpcFailure {
    RpcFailure::new(ErrorType::System, "the message names no query")
}

/// How the query ended; `None` if it has not.
// wire: golden/transcripts/fake2 "running", "canceled"; fake1 "failed_noerr"
fn end(result: QueryResult) -> Option<Result<(), ClientError>> {
    match result.query_state.map(QueryState::try_from) {
        Some(Ok(QueryState::Completed)) => Some(Ok(())),
        Some(Ok(QueryState::Canceled)) => Some(Err(ClientError::Canceled)),
        Some(Ok(QueryState::Failed)) => {
            let error = result.error.into_iter().next().unwrap_or_default();
            Some(Err(ClientError::Remote(Box::new(RemoteError::from(error)))))
        }
        Some(Ok(_)) => None,
        None | Some(Err(_)) => Some(Err(ClientError::Protocol("a result without a known state"))),
    }
}
