//! The live ring: a real Drillbit and the real JDBC driver, from Maven Central.
//!
//! One of each serves all tests of a process. Where Java or Maven is missing the tests that need
//! them are skipped, and say so; with `REQUIRE_INTEROP=1` they fail instead.

mod control_plane;
mod data_plane;
mod drill;
mod java;
mod jdbc;
mod plane;
mod zookeeper;

use std::io::Write;
use std::sync::OnceLock;

use anyhow::Result;

pub use control_plane::DrillControlPlane;
pub use data_plane::DrillDataPlane;
pub use drill::{Memory, RealDrillbit, Security};
pub use java::{Java, Project, keytool};
pub use jdbc::{ALL_ROWS, Column, Jdbc, JdbcConnection, JdbcError, JdbcStatement, JdbcValue, Rows};
pub use zookeeper::ZooKeeper;

/// Set to `1` where a skipped interop test is a failure.
const REQUIRED_VARIABLE: &str = "REQUIRE_INTEROP";

/// The real Drillbit that all tests share; `None` where there can be none.
///
/// # Panics
/// There can be none, and `REQUIRE_INTEROP=1`.
pub fn real_drillbit() -> Option<&'static RealDrillbit> {
    static SHARED: OnceLock<Option<RealDrillbit>> = OnceLock::new();
    SHARED
        .get_or_init(|| available("a real Drillbit", RealDrillbit::start(&Memory::default())))
        .as_ref()
}

/// The JVM with the JDBC driver that all tests share; `None` where there can be none.
///
/// # Panics
/// There can be none, and `REQUIRE_INTEROP=1`.
pub fn jdbc() -> Option<&'static Jdbc> {
    static SHARED: OnceLock<Option<Jdbc>> = OnceLock::new();
    SHARED
        .get_or_init(|| available("the JDBC driver", Jdbc::start()))
        .as_ref()
}

/// What was started, or `None` after saying loudly what is missing.
///
/// # Panics
/// It could not be started, and `REQUIRE_INTEROP=1`.
pub fn available<T>(what: &str, started: Result<T>) -> Option<T> {
    match started {
        Ok(started) => Some(started),
        Err(missing) if std::env::var(REQUIRED_VARIABLE).is_ok_and(|value| value == "1") => {
            panic!("{REQUIRED_VARIABLE}=1, but {what} cannot be started: {missing:#}")
        }
        Err(missing) => {
            // Not `eprintln!`: the test harness swallows that when the test passes.
            let message = format!("SKIPPED: tests with {what}: {missing:#}\n");
            let _ = std::io::stderr().write_all(message.as_bytes());
            None
        }
    }
}
