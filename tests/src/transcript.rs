//! Reader of `golden/transcripts`: what the JDBC driver showed of a real Drill's answers.

use std::fs;

use anyhow::{Context, Result, bail};

use crate::golden;
use crate::interop::{Column, JdbcValue};

/// One statement and what came of it.
#[derive(Debug)]
pub struct Statement {
    /// As it was sent.
    pub sql: String,
    /// What the driver showed.
    pub outcome: Outcome,
}

/// What the driver showed for a statement.
#[derive(Debug)]
pub enum Outcome {
    /// A result set.
    Rows {
        /// Its metadata.
        columns: Vec<Column>,
        /// Its rows, nulls as `None`.
        rows: Vec<Vec<Option<JdbcValue>>>,
    },
    /// An error, as the text of the exception; ids and addresses are replaced, line ends are ` | `.
    Error(String),
}

/// The statements of `golden/transcripts/{name}.txt`.
///
/// # Errors
/// The file cannot be read, or has a line that this reader does not know.
pub fn read(name: &str) -> Result<Vec<Statement>> {
    let text = fs::read_to_string(
        golden::root()
            .join("transcripts")
            .join(format!("{name}.txt")),
    )?;
    let mut statements = Vec::new();
    for part in text.split("\nSQL ").skip(1) {
        let mut lines = part.lines();
        let sql = lines.next().context("a statement without text")?.to_owned();
        let outcome = outcome(lines).with_context(|| format!("{name}: {sql}"))?;
        statements.push(Statement { sql, outcome });
    }
    Ok(statements)
}

fn outcome<'a>(lines: impl Iterator<Item = &'a str>) -> Result<Outcome> {
    let (mut columns, mut rows) = (Vec::new(), Vec::new());
    for line in lines {
        if let Some(rest) = line.strip_prefix("  error -> ") {
            let (_, message) = rest
                .split_once(": ")
                .context("an error without a message")?;
            return Ok(Outcome::Error(message.to_owned()));
        } else if let Some(rest) = line.strip_prefix("  col ") {
            columns.push(column(rest)?);
        } else if let Some(rest) = line.strip_prefix("  row ") {
            rows.push(rest.split(" | ").map(value).collect::<Result<_>>()?);
        } else if !line.starts_with("  rows=") {
            bail!("unknown line {line:?}");
        }
    }
    Ok(Outcome::Rows { columns, rows })
}

/// `1 x label=x type=4/INTEGER null=0 prec=0 scale=0 disp=11 signed=true class=Name cat=…`
fn column(text: &str) -> Result<Column> {
    let (_, text) = text.split_once(' ').context("no number")?;
    let (name, text) = text.split_once(" label=").context("no label")?;
    let (jdbc_type, type_name) = between(text, " type=", " null=")?
        .split_once('/')
        .context("no type name")?;
    Ok(Column {
        name: name.to_owned(),
        jdbc_type: jdbc_type.parse()?,
        type_name: type_name.to_owned(),
        nullable: between(text, " null=", " prec=")? == "1",
        precision: between(text, " prec=", " scale=")?.parse()?,
        scale: between(text, " scale=", " disp=")?.parse()?,
        display_size: between(text, " disp=", " signed=")?.parse()?,
        signed: between(text, " signed=", " class=")? == "true",
        class: between(text, " class=", " cat=")?.to_owned(),
    })
}

fn between<'a>(text: &'a str, start: &str, end: &str) -> Result<&'a str> {
    let (_, rest) = text
        .split_once(start)
        .with_context(|| format!("no {start}"))?;
    Ok(rest.split_once(end).with_context(|| format!("no {end}"))?.0)
}

/// `42 {java.lang.Integer}`, `0x616263` for bytes, or `NULL`.
fn value(text: &str) -> Result<Option<JdbcValue>> {
    if text == "NULL" {
        return Ok(None);
    }
    if let Some(bytes) = text.strip_prefix("0x") {
        return Ok(Some(JdbcValue {
            class: "[B".to_owned(),
            text: bytes.to_owned(),
        }));
    }
    let (text, class) = text.rsplit_once(" {").context("a value without a class")?;
    let class = class.strip_suffix('}').context("a class without an end")?;
    Ok(Some(JdbcValue {
        class: class.to_owned(),
        text: text.to_owned(),
    }))
}
