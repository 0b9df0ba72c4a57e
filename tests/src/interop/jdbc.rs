//! The Drill JDBC driver in a JVM of its own, spoken to over the line protocol of
//! `tests/interop/jdbc`.

use std::collections::HashMap;
use std::fmt;
use std::io::Write;
use std::net::SocketAddr;
use std::process::ChildStdin;
use std::sync::mpsc::{self, Sender};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::thread;
use std::time::Duration;

use anyhow::{Context, Result};
use serde_json::Value;

use super::java::{Java, Project};
use crate::process::Process;

const START_WITHIN: Duration = Duration::from_secs(30);
/// No request of a test takes longer; a driver that hangs fails the test.
const REPLY_WITHIN: Duration = Duration::from_secs(90);

/// As many rows as a result has: the largest number that Java knows.
pub const ALL_ROWS: u64 = i64::MAX.unsigned_abs();

/// A JVM with the JDBC driver. Requests of different threads run at the same time.
#[derive(Debug)]
pub struct Jdbc {
    process: Arc<Process>,
    requests: Mutex<Requests>,
    waiting: Arc<Mutex<HashMap<u64, Sender<Value>>>>,
}

#[derive(Debug)]
struct Requests {
    stdin: ChildStdin,
    sent: u64,
}

/// A JDBC connection; closed when dropped.
#[derive(Debug)]
pub struct JdbcConnection<'a> {
    jdbc: &'a Jdbc,
    number: String,
}

/// A JDBC statement; closed when dropped.
#[derive(Debug)]
pub struct JdbcStatement<'a> {
    jdbc: &'a Jdbc,
    number: String,
}

/// A `SQLException`, or whatever else the driver threw.
#[derive(Debug)]
pub struct JdbcError {
    /// Java class, such as `java.sql.SQLException`.
    pub class: String,
    /// Its message; empty where it has none.
    pub message: String,
    /// Java classes of the causes, the nearest first.
    pub causes: Vec<String>,
}

/// What `ResultSetMetaData` says about a column.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Column {
    /// `getColumnName`.
    pub name: String,
    /// `getColumnType`, a number of `java.sql.Types`.
    pub jdbc_type: i64,
    /// `getColumnTypeName`.
    pub type_name: String,
    /// `isNullable`.
    pub nullable: bool,
    /// `getPrecision`.
    pub precision: i64,
    /// `getScale`.
    pub scale: i64,
    /// `getColumnDisplaySize`.
    pub display_size: i64,
    /// `isSigned`.
    pub signed: bool,
    /// `getColumnClassName`.
    pub class: String,
}

/// Rows read in one go.
#[derive(Debug)]
pub struct Rows {
    /// How many were read.
    pub count: u64,
    /// Whether the result set ended.
    pub ended: bool,
    /// The first of them, as many as were asked to be kept.
    pub kept: Vec<Vec<Option<JdbcValue>>>,
    /// Nulls of each column.
    pub nulls: Vec<u64>,
    /// Of each column: the sum of its numbers, or the total length of its texts.
    pub sums: Vec<f64>,
}

/// A value from `getObject`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct JdbcValue {
    /// Java class of the object.
    pub class: String,
    /// `toString`; bytes as hex.
    pub text: String,
}

impl Jdbc {
    /// Builds the harness if need be, and starts it.
    ///
    /// # Errors
    /// What is missing, or what the JVM said when it failed.
    pub fn start() -> Result<Self> {
        let mut command = Java::build(Project::Jdbc)?.command(512, 1024);
        let mut process = Process::spawn("the JDBC driver", command.arg("interop.JdbcHarness"))?;
        process.line_after("ready", START_WITHIN)?;
        let stdin = process.take_stdin().context("stdin is piped")?;
        let process = Arc::new(process);
        let waiting = Arc::new(Mutex::new(HashMap::new()));
        hand_out_replies(Arc::clone(&process), Arc::clone(&waiting));
        Ok(Self {
            process,
            requests: Mutex::new(Requests { stdin, sent: 0 }),
            waiting,
        })
    }

    /// `DriverManager.getConnection`, with `key=value` properties.
    ///
    /// # Errors
    /// What the driver threw.
    pub fn connect(
        &self,
        node: SocketAddr,
        properties: &[&str],
    ) -> Result<JdbcConnection<'_>, JdbcError> {
        let address = node.to_string();
        let arguments: Vec<&str> = [address.as_str()]
            .into_iter()
            .chain(properties.iter().copied())
            .collect();
        let number = self.request("connect", &arguments)?.to_string();
        Ok(JdbcConnection { jdbc: self, number })
    }

    /// Process id of the JVM.
    #[must_use]
    pub fn id(&self) -> u32 {
        self.process.id()
    }

    /// SIGKILL for the JVM.
    pub fn kill(&self) {
        // The harness dies with its stdin too, but not at once.
        let pid = self.process.id().to_string();
        let _ = std::process::Command::new("kill")
            .args(["-KILL", &pid])
            .status();
    }

    fn request(&self, verb: &str, arguments: &[&str]) -> Result<Value, JdbcError> {
        let (sender, receiver) = mpsc::channel();
        let number = self
            .send(verb, arguments, sender)
            .map_err(|error| JdbcError::harness(&error))?;
        let reply = receiver.recv_timeout(REPLY_WITHIN).map_err(|_| {
            locked(&self.waiting).remove(&number);
            let stderr = self.process.stderr();
            JdbcError::harness(&anyhow::anyhow!("no reply to {verb}; {stderr}"))
        })?;
        match reply.get("error") {
            Some(error) => Err(JdbcError::parse(error)),
            None => Ok(reply["result"].clone()),
        }
    }

    fn send(&self, verb: &str, arguments: &[&str], reply: Sender<Value>) -> Result<u64> {
        let mut requests = locked(&self.requests);
        requests.sent += 1;
        let number = requests.sent;
        locked(&self.waiting).insert(number, reply);
        let mut line = format!("{number}\t{verb}");
        for argument in arguments {
            line.push('\t');
            line.push_str(&escaped(argument));
        }
        line.push('\n');
        requests.stdin.write_all(line.as_bytes())?;
        Ok(number)
    }
}

fn hand_out_replies(process: Arc<Process>, waiting: Arc<Mutex<HashMap<u64, Sender<Value>>>>) {
    thread::spawn(move || {
        // The process ends when it is dropped, at the latest with the tests.
        while let Ok(line) = process.line(Duration::MAX) {
            let Ok(reply) = serde_json::from_str::<Value>(&line) else {
                continue;
            };
            let receiver = reply["id"]
                .as_u64()
                .and_then(|number| locked(&waiting).remove(&number));
            if let Some(receiver) = receiver {
                // Fails where the request has timed out.
                let _ = receiver.send(reply);
            }
        }
        locked(&waiting).clear();
    });
}

impl<'a> JdbcConnection<'a> {
    /// `createStatement`.
    ///
    /// # Errors
    /// What the driver threw.
    pub fn statement(&self) -> Result<JdbcStatement<'a>, JdbcError> {
        let number = self.jdbc.request("statement", &[&self.number])?.to_string();
        Ok(JdbcStatement {
            jdbc: self.jdbc,
            number,
        })
    }

    /// Runs a query on a statement of its own, and reads all its rows.
    ///
    /// # Errors
    /// What the driver threw.
    pub fn query(&self, sql: &str) -> Result<(Vec<Column>, Rows), JdbcError> {
        let statement = self.statement()?;
        let columns = statement.execute(sql)?;
        Ok((columns, statement.fetch(ALL_ROWS, 100)?))
    }

    /// As [`Self::query`], with all rows in the form of `random_batches::shown`.
    ///
    /// # Errors
    /// What the driver threw.
    pub fn query_exact(&self, sql: &str) -> Result<(Vec<Column>, Vec<Vec<String>>), JdbcError> {
        let statement = self.statement()?;
        let columns = statement.execute(sql)?;
        Ok((columns, statement.fetch_exact()?))
    }

    /// `DatabaseMetaData.getTables`, of all schemas.
    ///
    /// # Errors
    /// What the driver threw.
    pub fn tables(&self) -> Result<Rows, JdbcError> {
        Ok(Rows::parse(&self.jdbc.request("tables", &[&self.number])?))
    }

    /// `prepareStatement`: the columns that running it would give.
    ///
    /// # Errors
    /// What the driver threw.
    pub fn prepare(&self, sql: &str) -> Result<Vec<Column>, JdbcError> {
        let columns = self.jdbc.request("prepare", &[&self.number, sql])?;
        Ok(columns
            .as_array()
            .into_iter()
            .flatten()
            .map(Column::parse)
            .collect())
    }

    /// `isValid`: the driver sends a PING.
    ///
    /// # Errors
    /// What the driver threw.
    pub fn is_valid(&self, within_seconds: u32) -> Result<bool, JdbcError> {
        let valid = self
            .jdbc
            .request("valid", &[&self.number, &within_seconds.to_string()])?;
        Ok(valid.as_bool().unwrap_or_default())
    }

    /// Name and version of the server, from `DatabaseMetaData`.
    ///
    /// # Errors
    /// What the driver threw.
    pub fn product(&self) -> Result<(String, String), JdbcError> {
        let product = self.jdbc.request("product", &[&self.number])?;
        Ok((text(&product["name"]), text(&product["version"])))
    }
}

impl Drop for JdbcConnection<'_> {
    fn drop(&mut self) {
        // Fails where the JVM was killed.
        let _ = self.jdbc.request("disconnect", &[&self.number]);
    }
}

impl JdbcStatement<'_> {
    /// `setMaxRows` and `setQueryTimeout`; 0 is no limit.
    ///
    /// # Errors
    /// What the driver threw.
    pub fn limit(&self, rows: u32, seconds: u32) -> Result<(), JdbcError> {
        self.request("limits", &[&rows.to_string(), &seconds.to_string()])?;
        Ok(())
    }

    /// `execute`: the columns of the result; none where there is no result set.
    ///
    /// # Errors
    /// What the driver threw.
    pub fn execute(&self, sql: &str) -> Result<Vec<Column>, JdbcError> {
        let outcome = self.request("execute", &[sql])?;
        Ok(outcome["columns"]
            .as_array()
            .into_iter()
            .flatten()
            .map(Column::parse)
            .collect())
    }

    /// Reads at most `limit` rows, and keeps the values of the first `keep`.
    ///
    /// # Errors
    /// What the driver threw.
    pub fn fetch(&self, limit: u64, keep: u64) -> Result<Rows, JdbcError> {
        let read = self.request("fetch", &[&limit.to_string(), &keep.to_string()])?;
        Ok(Rows::parse(&read))
    }

    /// Reads all rows, every value in the form of `random_batches::shown`.
    ///
    /// # Errors
    /// What the driver threw.
    pub fn fetch_exact(&self) -> Result<Vec<Vec<String>>, JdbcError> {
        let rows = self.request("exact", &[])?;
        let row = |row: &Value| row.as_array().into_iter().flatten().map(text).collect();
        Ok(rows.as_array().into_iter().flatten().map(row).collect())
    }

    /// Runs a query and reads all its rows by typed getters: `rows`, their `sum`, and the time until
    /// the first and the last (`first_row_nanos`, `nanos`), as `Scan.java` says.
    ///
    /// # Errors
    /// What the driver threw.
    pub fn scan(&self, sql: &str) -> Result<Value, JdbcError> {
        self.request("scan", &[sql])
    }

    /// `ResultSet.close`.
    ///
    /// # Errors
    /// What the driver threw.
    pub fn close_results(&self) -> Result<(), JdbcError> {
        self.request("close-results", &[]).map(drop)
    }

    /// `Statement.cancel`.
    ///
    /// # Errors
    /// What the driver threw.
    pub fn cancel(&self) -> Result<(), JdbcError> {
        self.request("cancel", &[]).map(drop)
    }

    fn request(&self, verb: &str, arguments: &[&str]) -> Result<Value, JdbcError> {
        let all: Vec<&str> = [self.number.as_str()]
            .into_iter()
            .chain(arguments.iter().copied())
            .collect();
        self.jdbc.request(verb, &all)
    }
}

impl Drop for JdbcStatement<'_> {
    fn drop(&mut self) {
        // Fails where the connection has ended.
        let _ = self.request("close", &[]);
    }
}

impl JdbcError {
    fn parse(error: &Value) -> Self {
        let causes = error["causes"].as_array().into_iter().flatten();
        Self {
            class: text(&error["class"]),
            message: text(&error["message"]),
            causes: causes.map(|cause| text(&cause["class"])).collect(),
        }
    }

    fn harness(error: &anyhow::Error) -> Self {
        Self {
            class: "harness".to_owned(),
            message: format!("{error:#}"),
            causes: Vec::new(),
        }
    }
}

impl fmt::Display for JdbcError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {}", self.class, self.message)
    }
}

impl std::error::Error for JdbcError {}

impl Column {
    fn parse(column: &Value) -> Self {
        let number = |key: &str| column[key].as_i64().unwrap_or_default();
        Self {
            name: text(&column["name"]),
            jdbc_type: number("type"),
            type_name: text(&column["type_name"]),
            nullable: number("nullable") == 1,
            precision: number("precision"),
            scale: number("scale"),
            display_size: number("display_size"),
            signed: column["signed"].as_bool().unwrap_or_default(),
            class: text(&column["class"]),
        }
    }
}

impl Rows {
    fn parse(read: &Value) -> Self {
        let list = |key: &str| read[key].as_array().cloned().unwrap_or_default();
        let row = |row: &Value| {
            row.as_array()
                .into_iter()
                .flatten()
                .map(JdbcValue::parse)
                .collect()
        };
        Self {
            count: read["count"].as_u64().unwrap_or_default(),
            ended: read["ended"].as_bool().unwrap_or_default(),
            kept: list("rows").iter().map(row).collect(),
            nulls: list("nulls").iter().filter_map(Value::as_u64).collect(),
            sums: list("sums").iter().filter_map(Value::as_f64).collect(),
        }
    }

    /// The texts of the kept rows; nulls as `NULL`.
    #[must_use]
    pub fn texts(&self) -> Vec<Vec<&str>> {
        self.kept
            .iter()
            .map(|row| {
                row.iter()
                    .map(|value| JdbcValue::text_or_null(value.as_ref()))
                    .collect()
            })
            .collect()
    }
}

impl JdbcValue {
    fn parse(value: &Value) -> Option<Self> {
        value.as_array().map(|pair| Self {
            class: text(&pair[0]),
            text: text(&pair[1]),
        })
    }

    fn text_or_null(value: Option<&Self>) -> &str {
        value.map_or("NULL", |value| &value.text)
    }
}

fn escaped(argument: &str) -> String {
    argument
        .replace('\\', "\\\\")
        .replace('\t', "\\t")
        .replace('\n', "\\n")
}

fn text(value: &Value) -> String {
    value.as_str().unwrap_or_default().to_owned()
}

fn locked<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
