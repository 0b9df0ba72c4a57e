//! The schema `cp`: the sample data that the program carries.

use std::sync::{Arc, OnceLock};

use async_trait::async_trait;
use datafusion::catalog::{MemTable, SchemaProvider, TableProvider};
use datafusion::common::Result;

use super::employee;
use crate::engine::error::EngineError;

/// `cp.default`.
#[derive(Debug, Default)]
pub(super) struct SampleSchema {
    employees: OnceLock<Arc<MemTable>>,
}

#[async_trait]
impl SchemaProvider for SampleSchema {
    fn table_names(&self) -> Vec<String> {
        vec![employee::FILE.to_owned()]
    }

    async fn table(&self, name: &str) -> Result<Option<Arc<dyn TableProvider>>> {
        if !self.table_exist(name) {
            return Err(EngineError::object_not_found(name, "cp").into());
        }
        if let Some(table) = self.employees.get() {
            return Ok(Some(Arc::clone(table) as _));
        }
        let batch = employee::employees()?;
        let table = Arc::new(MemTable::try_new(batch.schema(), vec![vec![batch]])?);
        Ok(Some(Arc::clone(self.employees.get_or_init(|| table)) as _))
    }

    fn table_exist(&self, name: &str) -> bool {
        name.trim_start_matches('/') == employee::FILE
    }
}
