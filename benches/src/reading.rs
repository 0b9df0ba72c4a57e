//! One reading of the whole data set by one client, and the clients that can read it.

use std::io::Write;
use std::net::SocketAddr;
use std::process::Command;
use std::time::Duration;

use anyhow::{Context, Result, bail};
use harness::interop::{Jdbc, JdbcConnection, JdbcStatement};
use harness::process::Process;
use serde_json::Value;

use crate::checksum::Checksum;
use crate::process::Watched;

/// A reading takes well below a second; a client that hangs ends the benchmark.
const READ_WITHIN: Duration = Duration::from_secs(90);

/// What one reading took and found.
#[derive(Debug)]
pub(crate) struct Reading {
    /// What was read.
    pub(crate) checksum: Checksum,
    /// From sending the query until the first row could be used.
    pub(crate) first_row: Duration,
    /// From sending the query until the end of the result.
    pub(crate) elapsed: Duration,
    /// CPU time of the client process.
    pub(crate) cpu: Duration,
}

/// A client with an open connection, in a process of its own.
#[derive(Debug)]
pub(crate) enum Reader<'a> {
    /// The JDBC driver in its JVM.
    Jdbc(JdbcReader<'a>),
    /// Our client.
    Client(ClientReader),
}

/// A statement of the JDBC driver.
#[derive(Debug)]
pub(crate) struct JdbcReader<'a> {
    jdbc: &'a Jdbc,
    // Before its connection: fields are dropped in this order.
    statement: JdbcStatement<'a>,
    _connection: JdbcConnection<'a>,
}

/// The `read` command of this program, see [`crate::client_process`].
#[derive(Debug)]
pub(crate) struct ClientReader(Process);

impl Reader<'_> {
    /// Runs `sql` and reads all of its result.
    pub(crate) fn read(&mut self, sql: &str) -> Result<Reading> {
        let watched = self.watched();
        let before = watched.cpu()?;
        let reply = match self {
            Self::Jdbc(reader) => reader.statement.scan(sql)?,
            Self::Client(reader) => reader.read(sql)?,
        };
        Reading::parse(&reply, watched.cpu()?.since(&before))
    }

    fn watched(&self) -> Watched {
        match self {
            Self::Jdbc(reader) => Watched(reader.jdbc.id()),
            Self::Client(reader) => Watched(reader.0.id()),
        }
    }
}

impl<'a> JdbcReader<'a> {
    /// Connects the driver to `server`.
    pub(crate) fn connect(jdbc: &'a Jdbc, server: SocketAddr) -> Result<Self> {
        let connection = jdbc.connect(server, &["user=anonymous"])?;
        Ok(Self {
            jdbc,
            statement: connection.statement()?,
            _connection: connection,
        })
    }
}

impl ClientReader {
    /// Starts this program once more, as a client of `server`.
    pub(crate) fn connect(server: SocketAddr) -> Result<Self> {
        let mut command = Command::new(std::env::current_exe()?);
        let process = Process::spawn("our client", command.arg("read").arg(server.to_string()))?;
        process.line_after("connected", READ_WITHIN)?;
        Ok(Self(process))
    }

    fn read(&mut self, sql: &str) -> Result<Value> {
        writeln!(self.0.stdin().context("stdin is piped")?, "{sql}")?;
        Ok(serde_json::from_str(&self.0.line(READ_WITHIN)?)?)
    }
}

impl Reading {
    /// The numbers under the keys that all clients use.
    fn parse(reply: &Value, cpu: Duration) -> Result<Self> {
        if let Some(error) = reply.get("error") {
            bail!("{error}");
        }
        let number = |key: &str| {
            reply[key]
                .as_i64()
                .with_context(|| format!("no {key} in {reply}"))
        };
        let nanos = |key: &str| anyhow::Ok(Duration::from_nanos(u64::try_from(number(key)?)?));
        Ok(Self {
            checksum: Checksum {
                rows: u64::try_from(number("rows")?)?,
                sum: number("sum")?.cast_unsigned(),
            },
            first_row: nanos("first_row_nanos")?,
            elapsed: nanos("nanos")?,
            cpu,
        })
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn a_sum_above_javas_largest_long_arrives_as_a_negative_number() {
        let reply = json!({"rows": 1, "sum": -1, "first_row_nanos": 2, "nanos": 3});
        let reading = Reading::parse(&reply, Duration::ZERO).unwrap();
        assert_eq!(
            reading.checksum,
            Checksum {
                rows: 1,
                sum: u64::MAX
            }
        );
        assert_eq!(reading.elapsed, Duration::from_nanos(3));
    }

    #[test]
    fn what_a_client_says_of_its_failure_is_kept() {
        let failure =
            Reading::parse(&json!({"error": "no such table"}), Duration::ZERO).unwrap_err();
        assert!(failure.to_string().contains("no such table"));
    }
}
