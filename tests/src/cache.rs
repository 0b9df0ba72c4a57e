//! What is expensive to make and the same every time: resolved class paths, compiled Java, large
//! data files. Made once a machine, safe against other test processes doing the same.

use std::fs::{self, File};
use std::path::{Path, PathBuf};

use anyhow::{Context, Result};

/// Overrides where the cache is. Default: `columnar-bus/tests` in the user's cache directory.
const DIRECTORY_VARIABLE: &str = "TESTS_CACHE_DIR";

/// The cache directory, created if need be.
///
/// # Errors
/// No home directory is known, or it cannot be written.
pub fn directory() -> Result<PathBuf> {
    let path = |name| {
        std::env::var_os(name)
            .filter(|value| !value.is_empty())
            .map(PathBuf::from)
    };
    let of_user =
        || path("XDG_CACHE_HOME").or_else(|| path("HOME").map(|home| home.join(".cache")));
    let directory = path(DIRECTORY_VARIABLE)
        .or_else(|| of_user().map(|cache| cache.join("columnar-bus").join("tests")))
        .with_context(|| format!("set {DIRECTORY_VARIABLE}: no home directory is known"))?;
    fs::create_dir_all(&directory)?;
    Ok(directory)
}

/// The path of the entry `name`, made by `make` if this is the first time.
///
/// `make` gets a path to write a file or a directory to. Only what it finished is ever seen under
/// the entry's own name; a second process waits for the first.
///
/// # Errors
/// Those of `make`, and of the file system.
pub fn entry(name: &str, make: impl FnOnce(&Path) -> Result<()>) -> Result<PathBuf> {
    let directory = directory()?;
    let entry = directory.join(name);
    let lock = File::create(directory.join(format!("{name}.lock")))?;
    lock.lock()?;
    if !entry.exists() {
        let partial = directory.join(format!("{name}.partial"));
        remove(&partial)?;
        make(&partial).with_context(|| format!("making {}", entry.display()))?;
        fs::rename(&partial, &entry)?;
    }
    Ok(entry)
}

fn remove(path: &Path) -> Result<()> {
    if path.is_dir() {
        fs::remove_dir_all(path)?;
    } else if path.exists() {
        fs::remove_file(path)?;
    }
    Ok(())
}
