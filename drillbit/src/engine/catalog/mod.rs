//! The schemas that every session sees, and what a table's name means.
//!
//! DataFusion sees one catalog, `drill`, whose schemas are Drill's full schema names: `dfs.tmp`,
//! `cp.default`, `information_schema`, `sys`. A rewritten query names tables by all three parts.

mod employee;
mod files;
mod folded;
mod information_schema;
mod json;
mod json_schema;
mod sample;
mod streamed;
mod sys;
mod system_table;
mod text;

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::sync::Arc;

use datafusion::catalog::{CatalogProvider, CatalogProviderList, SchemaProvider};

use super::error::EngineError;
use super::options::SessionOptions;
use super::sql::rewrite::CATALOG;

pub(super) use folded::DISPLAY_NAME;

/// The plugin of local files.
const DFS: &str = "dfs";
/// The plugin of the data that the program carries.
const CP: &str = "cp";
pub(super) const INFORMATION_SCHEMA: &str = "information_schema";
pub(super) const SYS: &str = "sys";

/// What all sessions share.
#[derive(Debug)]
pub(super) struct SharedSchemas {
    files: BTreeMap<String, Arc<files::Workspace>>,
    sample: Arc<sample::SampleSchema>,
}

impl SharedSchemas {
    /// `workspaces` are the folders behind `dfs.NAME`.
    pub(super) fn new(workspaces: &BTreeMap<String, PathBuf>) -> Self {
        let workspace = |(name, root): (&String, &PathBuf)| {
            let schema = format!("{DFS}.{}", name.to_lowercase());
            (
                schema.clone(),
                Arc::new(files::Workspace::new(schema, root.clone())),
            )
        };
        Self {
            files: workspaces.iter().map(workspace).collect(),
            sample: Arc::default(),
        }
    }

    /// All schemas in Drill's spelling.
    pub(super) fn names(&self) -> Vec<String> {
        let mut names = vec![format!("{CP}.default")];
        names.extend(self.files.keys().cloned());
        names.extend([INFORMATION_SCHEMA.to_owned(), SYS.to_owned()]);
        names
    }

    /// The full name of the schema that `name` means: without case, and `.default` may be left out.
    pub(super) fn find(&self, name: &str) -> Option<String> {
        let lower = name.to_lowercase();
        let with_default = format!("{lower}.default");
        self.names()
            .into_iter()
            .find(|known| *known == lower || *known == with_default)
    }

    /// Schema and object of a table's name: below the default schema first, then from the root.
    pub(super) fn locate(
        &self,
        default: Option<&str>,
        parts: &[&str],
    ) -> Result<(String, String), EngineError> {
        let (object, schema) = parts
            .split_last()
            .map_or(("", parts), |(object, schema)| (*object, schema));
        let schema = schema.join(".");
        let below = default.map(|default| {
            if schema.is_empty() {
                default.to_owned()
            } else {
                format!("{default}.{schema}")
            }
        });
        let found = below
            .and_then(|name| self.find(&name))
            .or_else(|| self.find(&schema));
        match found {
            Some(schema) => Ok((schema, object.to_owned())),
            None => Err(EngineError::ObjectNotFound {
                object: parts.join("."),
                schema: String::new(),
                at: None,
            }),
        }
    }

    fn schema(&self, name: &str) -> Option<Arc<dyn SchemaProvider>> {
        if let Some(files) = self.files.get(name) {
            return Some(Arc::clone(files) as _);
        }
        (name == "cp.default").then(|| Arc::clone(&self.sample) as _)
    }
}

/// The catalog as one session sees it: what is shared, and its own options.
#[derive(Debug)]
pub(super) struct SessionCatalog {
    shared: Arc<SharedSchemas>,
    information: Arc<information_schema::InformationSchema>,
    sys: Arc<sys::SysSchema>,
}

impl SessionCatalog {
    pub(super) fn new(shared: Arc<SharedSchemas>, options: Arc<SessionOptions>) -> Self {
        let information = Arc::new(information_schema::InformationSchema::new(Arc::clone(
            &shared,
        )));
        Self {
            shared,
            information,
            sys: Arc::new(sys::SysSchema::new(options)),
        }
    }
}

impl CatalogProvider for SessionCatalog {
    fn schema_names(&self) -> Vec<String> {
        self.shared.names()
    }

    fn schema(&self, name: &str) -> Option<Arc<dyn SchemaProvider>> {
        match name {
            INFORMATION_SCHEMA => Some(Arc::clone(&self.information) as _),
            SYS => Some(Arc::clone(&self.sys) as _),
            other => self.shared.schema(other),
        }
    }
}

/// The list with the one catalog in it.
#[derive(Debug)]
pub(super) struct Catalogs(pub(super) Arc<SessionCatalog>);

impl CatalogProviderList for Catalogs {
    fn register_catalog(
        &self,
        _: String,
        _: Arc<dyn CatalogProvider>,
    ) -> Option<Arc<dyn CatalogProvider>> {
        None
    }

    fn catalog_names(&self) -> Vec<String> {
        vec![CATALOG.to_owned()]
    }

    fn catalog(&self, name: &str) -> Option<Arc<dyn CatalogProvider>> {
        (name == CATALOG).then(|| Arc::clone(&self.0) as _)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn schemas() -> SharedSchemas {
        let workspaces = ["default", "tmp"].map(|name| (name.to_owned(), PathBuf::from("/")));
        SharedSchemas::new(&BTreeMap::from(workspaces))
    }

    fn located(default: Option<&str>, parts: &[&str]) -> Option<(String, String)> {
        schemas().locate(default, parts).ok()
    }

    #[test]
    fn names_are_found_below_the_default_schema_and_then_from_the_root() {
        let tmp_x = Some(("dfs.tmp".to_owned(), "x".to_owned()));
        assert_eq!(located(None, &["DFS", "tmp", "x"]), tmp_x);
        assert_eq!(located(Some("dfs.tmp"), &["x"]), tmp_x);
        assert_eq!(located(Some("dfs"), &["tmp", "x"]), tmp_x);
        assert_eq!(located(Some("cp.default"), &["dfs", "tmp", "x"]), tmp_x);
        assert_eq!(
            located(None, &["dfs", "/x"]),
            Some(("dfs.default".to_owned(), "/x".to_owned()))
        );
    }

    #[test]
    fn without_a_schema_nothing_is_found() {
        assert_eq!(located(None, &["x"]), None);
        assert_eq!(located(None, &["nosuch", "x"]), None);
    }
}
