//! SQL as Drill's users write it, on DataFusion.
//!
//! A statement goes one way: `session` takes it, a thread of `planning` tokenizes it and checks
//! its [`sql::limits`], reads Drill's own statements ([`sql::command`]), rewrites queries
//! (`sql/rewrite.rs`), lets DataFusion plan them over the `catalog`, and starts the plan; the rows
//! get Drill's shape in `output` on their way out.

mod adapter;
mod catalog;
mod dialect;
mod error;
mod functions;
mod options;
mod output;
mod physical;
mod planning;
mod session;
mod settings;
pub mod sql;
mod statement;
#[cfg(test)]
mod tests;

use std::collections::BTreeMap;
use std::num::NonZeroUsize;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use datafusion::execution::disk_manager::{DiskManagerBuilder, DiskManagerMode};
use datafusion::execution::memory_pool::{FairSpillPool, TrackConsumersPool};
use datafusion::execution::runtime_env::{RuntimeEnv, RuntimeEnvBuilder};

pub use error::{EngineError, ErrorClass};
pub use session::{EngineSession, Rows};

use catalog::SharedSchemas;
use planning::PlanningThreads;

/// How the engine is set up.
#[derive(Debug, Clone)]
pub struct EngineOptions {
    /// Memory for sorts, joins and aggregates of all queries, in bytes; beyond it they spill, and
    /// what cannot spill fails. Default 2 GiB.
    pub memory_bytes_max: usize,
    /// Folder for spilled data; `None` is the system's folder for temporary files.
    pub spill_folder: Option<PathBuf>,
    /// Most bytes of spilled data. Default 64 GiB.
    pub spill_bytes_max: u64,
    /// Most statements planned at a time; each takes a thread with a stack of 64 MiB (of which only
    /// the used part is resident). Default 8.
    pub planning_threads_max: NonZeroUsize,
    /// Longest planning of a statement, including the reading of schemas. Default 60 s.
    pub planning_time_max: Duration,
    /// Partitions of a plan; `None` is one per core.
    pub partitions: Option<NonZeroUsize>,
    /// The folders behind `dfs.NAME`. Default: `default` is the working directory (absolute paths
    /// are taken as they are), `root` is `/`, `tmp` is `/tmp`.
    pub workspaces: BTreeMap<String, PathBuf>,
}

impl Default for EngineOptions {
    fn default() -> Self {
        let workspaces = [("default", "."), ("root", "/"), ("tmp", "/tmp")];
        Self {
            memory_bytes_max: 2 * 1024 * 1024 * 1024,
            spill_folder: None,
            spill_bytes_max: 64 * 1024 * 1024 * 1024,
            planning_threads_max: const { NonZeroUsize::new(8).expect("invariant: not zero") },
            planning_time_max: Duration::from_mins(1),
            partitions: None,
            workspaces: workspaces
                .into_iter()
                .map(|(name, root)| (name.to_owned(), PathBuf::from(root)))
                .collect(),
        }
    }
}

/// Name and version of what runs the queries, as peers are told.
#[must_use]
pub fn version() -> String {
    format!("datafusion {}", datafusion::DATAFUSION_VERSION)
}

/// The engine of a node: what its sessions share.
#[derive(Debug)]
pub struct DrillEngine {
    schemas: Arc<SharedSchemas>,
    runtime: Arc<RuntimeEnv>,
    planning: Arc<PlanningThreads>,
    partitions: Option<NonZeroUsize>,
    memory_bytes_max: usize,
}

impl DrillEngine {
    /// Starts no thread and reads no file.
    ///
    /// # Errors
    ///
    /// [`EngineError`] when DataFusion refuses the limits.
    pub fn try_new(options: &EngineOptions) -> Result<Self, EngineError> {
        Ok(Self {
            schemas: Arc::new(SharedSchemas::new(&options.workspaces)),
            runtime: runtime_env(options)?,
            planning: Arc::new(PlanningThreads::new(
                options.planning_threads_max.get(),
                options.planning_time_max,
            )),
            partitions: options.partitions,
            memory_bytes_max: options.memory_bytes_max,
        })
    }

    /// Memory that queries have reserved, in bytes.
    #[must_use]
    pub fn memory_bytes(&self) -> usize {
        self.runtime.memory_pool.reserved()
    }

    /// Memory that queries may reserve, in bytes.
    #[must_use]
    pub fn memory_bytes_max(&self) -> usize {
        self.memory_bytes_max
    }

    /// A session with default options.
    #[must_use]
    pub fn session(&self) -> EngineSession {
        EngineSession::new(
            Arc::clone(&self.schemas),
            &self.runtime,
            self.partitions,
            Arc::clone(&self.planning),
        )
    }
}

fn runtime_env(options: &EngineOptions) -> Result<Arc<RuntimeEnv>, EngineError> {
    /// Consumers that an out-of-memory error names.
    const NAMED_CONSUMERS: NonZeroUsize =
        const { NonZeroUsize::new(3).expect("invariant: not zero") };
    let pool = TrackConsumersPool::new(
        FairSpillPool::new(options.memory_bytes_max),
        NAMED_CONSUMERS,
    );
    let mode = match &options.spill_folder {
        Some(folder) => DiskManagerMode::Directories(vec![folder.clone()]),
        None => DiskManagerMode::OsTmpDirectory,
    };
    let disk = DiskManagerBuilder::default()
        .with_mode(mode)
        .with_max_temp_directory_size(options.spill_bytes_max);
    RuntimeEnvBuilder::new()
        .with_memory_pool(Arc::new(pool))
        .with_disk_manager_builder(disk)
        .build_arc()
        .map_err(EngineError::planning)
}
