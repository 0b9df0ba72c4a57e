//! The schemas `dfs.NAME`: files and folders below a root, read by their extension.

use std::path::{Component, Path, PathBuf};
use std::sync::Arc;

use arrow::datatypes::{DataType, Field, Schema, SchemaRef};
use async_trait::async_trait;
use datafusion::catalog::{SchemaProvider, TableProvider};
use datafusion::common::Result;
use datafusion::datasource::file_format::FileFormat;
use datafusion::datasource::file_format::csv::CsvFormat;
use datafusion::datasource::file_format::parquet::ParquetFormat;
use datafusion::datasource::listing::{
    ListingOptions, ListingTable, ListingTableConfig, ListingTableUrl,
};
use datafusion::execution::SessionState;
use datafusion::prelude::SessionContext;
use url::Url;

use super::folded::{Missing, folded};
use super::{json, text};
use crate::engine::error::EngineError;

/// Most files of one table.
const FILES_MAX: usize = 20_000;
/// Deepest folder below a table's folder.
const FOLDERS_DEEP_MAX: usize = 32;

/// A folder that queries may read.
#[derive(Debug)]
pub(super) struct Workspace {
    schema: String,
    root: PathBuf,
}

/// How a file is read.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Format {
    Parquet,
    Json,
    /// Text with a line of column names.
    CsvWithHeader,
    /// Text without one.
    Commas,
    Tabs,
    Bars,
}

impl Workspace {
    pub(super) fn new(schema: String, root: PathBuf) -> Self {
        Self { schema, root }
    }

    /// The path behind a table's name. Absolute names are absolute in a workspace whose root is
    /// relative or `/`, and below the root in all others; nothing leads out of the root.
    fn path(&self, name: &str) -> Result<PathBuf, EngineError> {
        if self.root.is_relative() && Path::new(name).is_absolute() {
            return Ok(PathBuf::from(name));
        }
        let relative = Path::new(name.trim_start_matches('/'));
        let escapes = relative
            .components()
            .any(|part| matches!(part, Component::ParentDir));
        if escapes && self.root.is_absolute() && self.root != Path::new("/") {
            return Err(self.not_found(name));
        }
        std::path::absolute(self.root.join(relative)).map_err(|_| self.not_found(name))
    }

    fn not_found(&self, name: &str) -> EngineError {
        EngineError::object_not_found(name, self.schema.trim_end_matches(".default"))
    }

    /// The files of the table `name`, sorted by path.
    fn files(&self, name: &str) -> Result<Vec<PathBuf>, EngineError> {
        let path = self.path(name)?;
        let mut files = vec![];
        if name.contains(['*', '?', '[']) && !path.exists() {
            let pattern = path.to_string_lossy();
            let matches = glob::glob(&pattern).map_err(|_| self.not_found(name))?;
            for path in matches.flatten() {
                add_files(&path, FOLDERS_DEEP_MAX, &mut files)?;
            }
        } else {
            add_files(&path, FOLDERS_DEEP_MAX, &mut files).map_err(|error| match error {
                EngineError::FileUnreadable { .. } if !path.exists() => self.not_found(name),
                other => other,
            })?;
        }
        files.sort();
        if files.is_empty() {
            Err(self.not_found(name))
        } else {
            Ok(files)
        }
    }

    async fn open(&self, name: &str) -> Result<Arc<dyn TableProvider>, EngineError> {
        let files = self.files(name)?;
        let format = common_format(&files)?;
        let opened = match format {
            Format::Parquet => {
                let parquet = ParquetFormat::new().with_force_view_types(false);
                listing(&files, Arc::new(parquet), None).await
            }
            Format::CsvWithHeader => {
                let schema = header(&files)?;
                let csv = CsvFormat::default()
                    .with_has_header(true)
                    .with_newlines_in_values(true)
                    .with_truncated_rows(true);
                listing(&files, Arc::new(csv), Some(schema)).await
            }
            Format::Json => json::table(files.clone()),
            Format::Commas => text::commas(files.clone()),
            Format::Tabs => text::tabs(files.clone()),
            Format::Bars => text::bars(files.clone()),
        };
        let missing = if format == Format::CsvWithHeader {
            Missing::EmptyText
        } else {
            Missing::Null
        };
        opened
            .and_then(|table| folded(table, missing))
            .map_err(|error| EngineError::opening(&shown(&files), error))
    }
}

#[async_trait]
impl SchemaProvider for Workspace {
    /// Files are found by name and never listed, as in Drill.
    fn table_names(&self) -> Vec<String> {
        vec![]
    }

    async fn table(&self, name: &str) -> Result<Option<Arc<dyn TableProvider>>> {
        Ok(Some(self.open(name).await?))
    }

    fn table_exist(&self, name: &str) -> bool {
        self.path(name).is_ok_and(|path| path.exists())
    }
}

/// The file, or the files of the folder; names with a leading `.` or `_` are hidden.
fn add_files(path: &Path, deep: usize, files: &mut Vec<PathBuf>) -> Result<(), EngineError> {
    let unreadable = |error: std::io::Error| EngineError::FileUnreadable {
        file: path.display().to_string(),
        reason: error.to_string(),
    };
    if !std::fs::metadata(path).map_err(unreadable)?.is_dir() {
        files.push(path.to_owned());
        return super::super::sql::limits::within(
            files.len(),
            FILES_MAX,
            "too many files in a table",
        );
    }
    if deep == 0 {
        return Err(EngineError::TooComplex {
            what: "too deep a folder",
            limit: FOLDERS_DEEP_MAX,
        });
    }
    for entry in std::fs::read_dir(path).map_err(unreadable)? {
        let entry = entry.map_err(unreadable)?;
        if !entry.file_name().to_string_lossy().starts_with(['.', '_']) {
            add_files(&entry.path(), deep - 1, files)?;
        }
    }
    Ok(())
}

fn common_format(files: &[PathBuf]) -> Result<Format, EngineError> {
    let mut formats = files.iter().map(|file| format(file));
    let first = formats.next().unwrap_or_else(|| {
        Err(EngineError::Internal {
            reason: "no files".into(),
        })
    })?;
    for next in formats {
        if next? != first {
            return Err(EngineError::Unsupported {
                what: "A folder with files of several formats".into(),
                note: "",
            });
        }
    }
    Ok(first)
}

fn format(file: &Path) -> Result<Format, EngineError> {
    let extension = file
        .extension()
        .map(|extension| extension.to_string_lossy().to_lowercase());
    match extension.as_deref() {
        Some("parquet") => Ok(Format::Parquet),
        Some("json" | "ndjson" | "jsonl") => Ok(Format::Json),
        Some("csvh") => Ok(Format::CsvWithHeader),
        Some("csv") => Ok(Format::Commas),
        Some("tsv") => Ok(Format::Tabs),
        Some("psv" | "tbl") => Ok(Format::Bars),
        Some(other) => Err(EngineError::Unsupported {
            what: format!("The file type .{other} ({})", file.display()),
            note: "Files are read as .parquet, .json, .csvh (with a line of column names), .csv, .tsv or .psv",
        }),
        None => Err(EngineError::Unsupported {
            what: format!("A file without type ({})", file.display()),
            note: "",
        }),
    }
}

/// DataFusion's table of files, with its own schema unless one is given.
async fn listing(
    files: &[PathBuf],
    format: Arc<dyn FileFormat>,
    schema: Option<SchemaRef>,
) -> Result<Arc<dyn TableProvider>> {
    let urls = files
        .iter()
        .map(|file| file_url(file))
        .collect::<Result<Vec<_>>>()?;
    let state = inference_state();
    let config = ListingTableConfig::new_with_multi_paths(urls)
        .with_listing_options(ListingOptions::new(format).with_file_extension(""));
    let config = match schema {
        Some(schema) => config.with_schema(schema),
        None => config.infer_schema(&state).await?,
    };
    Ok(Arc::new(ListingTable::try_new(config)?))
}

/// Reading a schema needs no session of the user, only the settings that shape types.
fn inference_state() -> SessionState {
    SessionContext::new_with_config(crate::engine::settings::session_config()).state()
}

fn file_url(file: &Path) -> Result<ListingTableUrl> {
    let unusable = || EngineError::Invalid {
        reason: format!("{} is no usable path", file.display()),
    };
    // The object store behind the table takes no `..`.
    let file = file.canonicalize().map_err(|_| unusable())?;
    ListingTableUrl::try_new(Url::from_file_path(&file).map_err(|()| unusable())?, None)
}

/// The columns that the first file names, all VARCHAR.
fn header(files: &[PathBuf]) -> Result<SchemaRef, EngineError> {
    let Some(first) = files.first() else {
        return Err(EngineError::Internal {
            reason: "no files".into(),
        });
    };
    let unreadable = |reason: String| EngineError::FileUnreadable {
        file: first.display().to_string(),
        reason,
    };
    let file = std::fs::File::open(first).map_err(|error| unreadable(error.to_string()))?;
    let (schema, _) = arrow::csv::reader::Format::default()
        .with_header(true)
        .infer_schema(std::io::BufReader::new(file), Some(0))
        .map_err(|error| unreadable(error.to_string()))?;
    let text = |field: &Arc<Field>| Field::new(field.name(), DataType::Utf8, true);
    Ok(Arc::new(Schema::new(
        schema.fields().iter().map(text).collect::<Vec<_>>(),
    )))
}

/// The files as a message names them.
pub(super) fn shown(files: &[PathBuf]) -> String {
    match files {
        [one] => one.display().to_string(),
        [first, ..] => format!("{} and {} more", first.display(), files.len() - 1),
        [] => String::new(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn workspace(root: &str) -> Workspace {
        Workspace::new("dfs.tmp".into(), root.into())
    }

    #[test]
    fn names_stay_below_the_root() {
        assert_eq!(
            workspace("/data").path("/x/y").expect("path"),
            Path::new("/data/x/y")
        );
        assert!(workspace("/data").path("../etc/passwd").is_err());
    }

    #[test]
    fn a_relative_root_takes_absolute_names_as_they_are() {
        assert_eq!(
            workspace(".").path("/x/y").expect("path"),
            Path::new("/x/y")
        );
        assert!(workspace(".").path("x/y").expect("path").ends_with("x/y"));
    }

    #[test]
    fn hidden_files_are_not_read_and_folders_are_searched() {
        let folder = tempfile::tempdir().expect("folder");
        std::fs::create_dir(folder.path().join("part")).expect("folder");
        for name in ["b.json", "part/a.json", "_metadata", ".crc"] {
            std::fs::write(folder.path().join(name), "").expect("file");
        }
        let files = workspace("/")
            .files(&folder.path().to_string_lossy())
            .expect("files");
        let names: Vec<_> = files
            .iter()
            .filter_map(|file| file.strip_prefix(folder.path()).ok())
            .collect();
        assert_eq!(names, [Path::new("b.json"), Path::new("part/a.json")]);
    }

    #[test]
    fn a_file_that_does_not_exist_is_an_object_not_found() {
        let error = workspace("/")
            .files("nosuch/file.json")
            .expect_err("missing");
        assert_eq!(
            error.to_string(),
            "Object 'nosuch/file.json' not found within 'dfs.tmp'"
        );
    }
}
