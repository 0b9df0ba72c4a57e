//! The schema `sys`: version and options of this node.

use std::sync::Arc;

use async_trait::async_trait;
use datafusion::catalog::{SchemaProvider, TableProvider};
use datafusion::common::Result;

use super::SYS;
use super::system_table::{table, text};
use crate::engine::error::EngineError;
use crate::engine::options::SessionOptions;

#[derive(Debug)]
pub(super) struct SysSchema {
    options: Arc<SessionOptions>,
}

impl SysSchema {
    pub(super) fn new(options: Arc<SessionOptions>) -> Self {
        Self { options }
    }
}

/// The tables by lower-case name.
pub(super) const TABLES: [&str; 2] = ["options", "version"];

#[async_trait]
impl SchemaProvider for SysSchema {
    fn table_names(&self) -> Vec<String> {
        TABLES.map(str::to_owned).to_vec()
    }

    async fn table(&self, name: &str) -> Result<Option<Arc<dyn TableProvider>>> {
        match name.to_lowercase().as_str() {
            "options" => options(&self.options).map(Some),
            "version" => version().map(Some),
            _ => Err(EngineError::object_not_found(name, SYS).into()),
        }
    }

    fn table_exist(&self, name: &str) -> bool {
        TABLES.contains(&name.to_lowercase().as_str())
    }
}

fn options(options: &SessionOptions) -> Result<Arc<dyn TableProvider>> {
    let all = options.all();
    table(vec![
        text("name", all.iter().map(|option| Some(option.name))),
        text("kind", all.iter().map(|option| Some(option.kind.name()))),
        text("accessibleScopes", all.iter().map(|_| Some("ALL"))),
        text("val", all.iter().map(|option| Some(&option.value))),
        text(
            "status",
            all.iter()
                .map(|option| Some(if option.changed { "CHANGED" } else { "DEFAULT" })),
        ),
        text(
            "optionScope",
            all.iter()
                .map(|option| Some(if option.changed { "SESSION" } else { "BOOT" })),
        ),
        text("description", all.iter().map(|_| Some(""))),
    ])
}

fn version() -> Result<Arc<dyn TableProvider>> {
    let one = |name, value: &'static str| text(name, [Some(value)]);
    table(vec![
        one("version", env!("CARGO_PKG_VERSION")),
        one("commit_id", ""),
        one("commit_message", ""),
        one("commit_time", ""),
        one("build_email", ""),
        one("build_time", ""),
    ])
}
