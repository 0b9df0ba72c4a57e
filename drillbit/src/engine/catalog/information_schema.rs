//! INFORMATION_SCHEMA as Drill has it: upper-case names, one catalog `DRILL`.

use std::sync::Arc;

use arrow::datatypes::{DataType, Field};
use async_trait::async_trait;
use datafusion::catalog::{SchemaProvider, TableProvider};
use datafusion::common::Result;

use super::folded::DISPLAY_NAME;
use super::system_table::{int, table, text};
use super::{INFORMATION_SCHEMA, SYS, SharedSchemas, sys};
use crate::engine::error::EngineError;
use crate::engine::options::SessionOptions;

const CATALOG: &str = "DRILL";
const TABLES: [&str; 4] = ["CATALOGS", "COLUMNS", "SCHEMATA", "TABLES"];
/// Drill's length of a VARCHAR without one.
const VARCHAR_CHARACTERS: i32 = 65_535;

#[derive(Debug)]
pub(super) struct InformationSchema {
    shared: Arc<SharedSchemas>,
}

impl InformationSchema {
    pub(super) fn new(shared: Arc<SharedSchemas>) -> Self {
        Self { shared }
    }

    fn catalogs() -> Result<Arc<dyn TableProvider>> {
        table(vec![
            text("CATALOG_NAME", [Some(CATALOG)]),
            text(
                "CATALOG_DESCRIPTION",
                [Some("The internal metadata used by Drill")],
            ),
            text("CATALOG_CONNECT", [Some("")]),
        ])
    }

    fn schemata(&self) -> Result<Arc<dyn TableProvider>> {
        let names = self.shared.names();
        let kind = |name: &String| match name.split('.').next() {
            Some("dfs" | "cp") => "file",
            Some(SYS) => "system-tables",
            _ => "ischema",
        };
        table(vec![
            text("CATALOG_NAME", names.iter().map(|_| Some(CATALOG))),
            text("SCHEMA_NAME", names.iter().map(Some)),
            text("SCHEMA_OWNER", names.iter().map(|_| Some("<owner>"))),
            text("TYPE", names.iter().map(|name| Some(kind(name)))),
            text("IS_MUTABLE", names.iter().map(|_| Some("NO"))),
        ])
    }

    fn tables() -> Result<Arc<dyn TableProvider>> {
        let all = system_tables();
        table(vec![
            text("TABLE_CATALOG", all.iter().map(|_| Some(CATALOG))),
            text("TABLE_SCHEMA", all.iter().map(|(schema, _)| Some(*schema))),
            text("TABLE_NAME", all.iter().map(|(_, table)| Some(*table))),
            text("TABLE_TYPE", all.iter().map(|_| Some("SYSTEM TABLE"))),
        ])
    }

    async fn columns(&self) -> Result<Arc<dyn TableProvider>> {
        let mut all = vec![];
        for (schema, name) in system_tables() {
            let fields = self.system_table(schema, name).await?.schema();
            let places = fields.fields().iter().zip(1..);
            all.extend(places.map(|(field, place)| ColumnRow {
                schema,
                table: name,
                place,
                field: Arc::clone(field),
            }));
        }
        columns_table(&all)
    }

    async fn system_table(&self, schema: &str, name: &str) -> Result<Arc<dyn TableProvider>> {
        if schema == SYS {
            let sys = sys::SysSchema::new(Arc::new(SessionOptions::default()));
            return sys
                .table(name)
                .await
                .map(|table| table.expect("invariant: sys has what it lists"));
        }
        match name {
            "CATALOGS" => Self::catalogs(),
            "SCHEMATA" => self.schemata(),
            "TABLES" => Self::tables(),
            _ => columns_table(&[]),
        }
    }
}

#[async_trait]
impl SchemaProvider for InformationSchema {
    fn table_names(&self) -> Vec<String> {
        TABLES.map(str::to_owned).to_vec()
    }

    async fn table(&self, name: &str) -> Result<Option<Arc<dyn TableProvider>>> {
        let upper = name.to_uppercase();
        let table = match upper.as_str() {
            "COLUMNS" => self.columns().await?,
            _ if TABLES.contains(&upper.as_str()) => {
                self.system_table(INFORMATION_SCHEMA, &upper).await?
            }
            _ => return Err(EngineError::object_not_found(name, INFORMATION_SCHEMA).into()),
        };
        Ok(Some(table))
    }

    fn table_exist(&self, name: &str) -> bool {
        TABLES.contains(&name.to_uppercase().as_str())
    }
}

/// Schema and name of the tables that exist without files.
fn system_tables() -> Vec<(&'static str, &'static str)> {
    let information = TABLES.iter().map(|table| (INFORMATION_SCHEMA, *table));
    information
        .chain(sys::TABLES.iter().map(|table| (SYS, *table)))
        .collect()
}

struct ColumnRow {
    schema: &'static str,
    table: &'static str,
    place: i32,
    field: Arc<Field>,
}

impl ColumnRow {
    fn name(&self) -> &str {
        self.field
            .metadata()
            .get(DISPLAY_NAME)
            .map_or(self.field.name(), String::as_str)
    }

    fn type_name(&self) -> &'static str {
        match self.field.data_type() {
            DataType::Boolean => "BOOLEAN",
            DataType::Int32 => "INTEGER",
            DataType::Int64 => "BIGINT",
            DataType::Float64 => "DOUBLE",
            _ => "CHARACTER VARYING",
        }
    }

    fn is_text(&self) -> bool {
        *self.field.data_type() == DataType::Utf8
    }
}

fn columns_table(rows: &[ColumnRow]) -> Result<Arc<dyn TableProvider>> {
    let precision = |row: &ColumnRow| match row.field.data_type() {
        DataType::Int32 => Some(32),
        DataType::Int64 => Some(64),
        _ => None,
    };
    let characters = |row: &ColumnRow| row.is_text().then_some(VARCHAR_CHARACTERS);
    table(vec![
        text("TABLE_CATALOG", rows.iter().map(|_| Some(CATALOG))),
        text("TABLE_SCHEMA", rows.iter().map(|row| Some(row.schema))),
        text("TABLE_NAME", rows.iter().map(|row| Some(row.table))),
        text("COLUMN_NAME", rows.iter().map(|row| Some(row.name()))),
        int("ORDINAL_POSITION", rows.iter().map(|row| Some(row.place))),
        text("COLUMN_DEFAULT", rows.iter().map(|_| None::<&str>)),
        text(
            "IS_NULLABLE",
            rows.iter()
                .map(|row| Some(if row.field.is_nullable() { "YES" } else { "NO" })),
        ),
        text("DATA_TYPE", rows.iter().map(|row| Some(row.type_name()))),
        int("CHARACTER_MAXIMUM_LENGTH", rows.iter().map(characters)),
        int(
            "CHARACTER_OCTET_LENGTH",
            rows.iter()
                .map(|row| characters(row).map(|count| count * 4)),
        ),
        int("NUMERIC_PRECISION", rows.iter().map(precision)),
        int(
            "NUMERIC_PRECISION_RADIX",
            rows.iter().map(|row| precision(row).map(|_| 2)),
        ),
        int(
            "NUMERIC_SCALE",
            rows.iter().map(|row| precision(row).map(|_| 0)),
        ),
        int("DATETIME_PRECISION", rows.iter().map(|_| None)),
        text("INTERVAL_TYPE", rows.iter().map(|_| None::<&str>)),
        int("INTERVAL_PRECISION", rows.iter().map(|_| None)),
    ])
}
