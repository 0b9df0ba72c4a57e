//! The session of a connection: opened by its first query.

use std::sync::Arc;

use tokio::sync::OnceCell;

use crate::{
    engine::{Engine, Session, SessionProperties},
    error::UserError,
};

/// A session that may not be open yet.
pub(crate) struct SessionSlot {
    engine: Arc<dyn Engine>,
    properties: SessionProperties,
    open: OnceCell<Arc<dyn Session>>,
}

impl SessionSlot {
    pub(crate) fn new(engine: Arc<dyn Engine>, properties: SessionProperties) -> Self {
        Self {
            engine,
            properties,
            open: OnceCell::new(),
        }
    }

    /// The session, opened if it is not; queries that come at once wait for the same one.
    pub(crate) async fn get(&self) -> Result<Arc<dyn Session>, UserError> {
        let open = || self.engine.open_session(self.properties.clone());
        self.open.get_or_try_init(open).await.map(Arc::clone)
    }

    /// The schema of unqualified names, as far as it is known.
    pub(crate) fn current_schema(&self) -> String {
        match self.open.get() {
            Some(session) => session.current_schema(),
            None => self.properties.schema.clone().unwrap_or_default(),
        }
    }
}
