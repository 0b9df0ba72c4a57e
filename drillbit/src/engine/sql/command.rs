//! Drill's statements that are no queries, read off the tokens.

use datafusion::sql::sqlparser::tokenizer::{Token, TokenWithSpan};

use crate::engine::error::EngineError;

/// What a statement asks for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Command {
    /// A query, to be parsed from the statement's own tokens from this index on.
    Query {
        /// Index of its first token.
        from: usize,
    },
    /// EXPLAIN PLAN FOR the query from this token on.
    Explain {
        /// Index of the query's first token.
        from: usize,
    },
    /// A statement that is short for this query on INFORMATION_SCHEMA.
    Shorthand {
        /// The query.
        sql: String,
    },
    /// USE.
    Use {
        /// The schema's parts joined by dots.
        schema: String,
    },
    /// ALTER SESSION SET.
    Set {
        /// Option name.
        name: String,
        /// The value as text.
        value: String,
    },
    /// ALTER SESSION RESET; `None` = all options.
    Reset {
        /// Option name.
        name: Option<String>,
    },
}

/// Reads the statement's first words.
///
/// # Errors
///
/// [`EngineError::Unsupported`] for statements that Drill knows and this engine does not offer;
/// [`EngineError::Syntax`] for broken ones.
pub fn read(tokens: &[TokenWithSpan], sql: &str) -> Result<Command, EngineError> {
    let mut words = Words {
        tokens,
        next: 0,
        sql,
    };
    let Some(first) = words.keyword() else {
        return Ok(Command::Query { from: 0 });
    };
    match first.as_str() {
        "USE" => words.use_schema(),
        "ALTER" => words.alter(),
        "SET" => words.set(),
        "RESET" => words.reset(),
        "SHOW" => words.show(),
        "DESCRIBE" | "DESC" => words.describe(),
        "EXPLAIN" => words.explain(),
        "CREATE" | "DROP" | "INSERT" | "DELETE" | "UPDATE" | "MERGE" | "TRUNCATE" | "REFRESH"
        | "ANALYZE" | "COPY" | "GRANT" | "REVOKE" | "BEGIN" | "COMMIT" | "ROLLBACK" => {
            let object = words
                .keyword()
                .map(|word| format!(" {word}"))
                .unwrap_or_default();
            Err(EngineError::Unsupported {
                what: format!("{first}{object}"),
                note: "",
            })
        }
        _ => Ok(Command::Query { from: 0 }),
    }
}

/// A cursor over the tokens that are not blanks.
struct Words<'a> {
    tokens: &'a [TokenWithSpan],
    next: usize,
    sql: &'a str,
}

impl Words<'_> {
    fn use_schema(&mut self) -> Result<Command, EngineError> {
        let schema = self.dotted()?;
        self.end(Command::Use { schema })
    }

    fn alter(&mut self) -> Result<Command, EngineError> {
        let scope = self.keyword().unwrap_or_default();
        if scope != "SESSION" {
            return Err(EngineError::Unsupported {
                what: format!("ALTER {scope}"),
                note: "",
            });
        }
        match self.keyword().as_deref() {
            Some("SET") => self.set(),
            Some("RESET") => self.reset(),
            _ => Err(self.unexpected("SET or RESET")),
        }
    }

    fn set(&mut self) -> Result<Command, EngineError> {
        let name = self.dotted()?;
        match self.take() {
            Some(Token::Eq) => {}
            _ => return Err(self.unexpected("=")),
        }
        let value = self.value()?;
        self.end(Command::Set { name, value })
    }

    fn reset(&mut self) -> Result<Command, EngineError> {
        let name = self.dotted()?;
        let name = (!name.eq_ignore_ascii_case("all")).then_some(name);
        self.end(Command::Reset { name })
    }

    fn show(&mut self) -> Result<Command, EngineError> {
        let what = self.keyword().unwrap_or_default();
        let query = match what.as_str() {
            "SCHEMAS" | "DATABASES" => {
                "SELECT SCHEMA_NAME FROM INFORMATION_SCHEMA.SCHEMATA WHERE TRUE".to_owned()
            }
            "TABLES" => {
                "SELECT TABLE_SCHEMA, TABLE_NAME FROM INFORMATION_SCHEMA.`TABLES` WHERE TRUE"
                    .to_owned()
                    + &self.in_schema()?
            }
            _ => {
                return Err(EngineError::Unsupported {
                    what: format!("SHOW {what}"),
                    note: "",
                });
            }
        };
        let name = if what == "TABLES" {
            "TABLE_NAME"
        } else {
            "SCHEMA_NAME"
        };
        let sql = query + &self.like(name)?;
        self.end(Command::Shorthand { sql })
    }

    fn describe(&mut self) -> Result<Command, EngineError> {
        let name = self.dotted()?;
        let (schema, table) = name.rsplit_once('.').unwrap_or(("", &name));
        let sql = format!(
            "SELECT COLUMN_NAME, DATA_TYPE, IS_NULLABLE FROM INFORMATION_SCHEMA.COLUMNS \
             WHERE LOWER(TABLE_NAME) = {}",
            quoted(&table.to_lowercase())
        );
        let sql = sql + &only_schema(schema);
        self.end(Command::Shorthand { sql })
    }

    fn explain(&mut self) -> Result<Command, EngineError> {
        if self.keyword().as_deref() != Some("PLAN") {
            return Err(self.unexpected("PLAN"));
        }
        loop {
            match self.keyword().as_deref() {
                Some("FOR") => return Ok(Command::Explain { from: self.next }),
                Some(
                    "WITH" | "WITHOUT" | "IMPLEMENTATION" | "INCLUDING" | "EXCLUDING"
                    | "ATTRIBUTES",
                ) => {}
                _ => return Err(self.unexpected("FOR")),
            }
        }
    }

    fn in_schema(&mut self) -> Result<String, EngineError> {
        if !matches!(self.peek_keyword().as_deref(), Some("IN" | "FROM")) {
            return Ok(String::new());
        }
        self.keyword();
        Ok(only_schema(&self.dotted()?))
    }

    fn like(&mut self, column: &str) -> Result<String, EngineError> {
        if self.peek_keyword().as_deref() != Some("LIKE") {
            return Ok(String::new());
        }
        self.keyword();
        let pattern = self.value()?;
        Ok(format!(" AND {column} LIKE {}", quoted(&pattern)))
    }

    fn dotted(&mut self) -> Result<String, EngineError> {
        let mut name = self.word()?;
        while matches!(self.peek(), Some(Token::Period)) {
            self.take();
            name.push('.');
            name += &self.word()?;
        }
        Ok(name)
    }

    fn word(&mut self) -> Result<String, EngineError> {
        match self.take() {
            Some(Token::Word(word)) => Ok(word.value.clone()),
            _ => Err(self.unexpected("a name")),
        }
    }

    fn value(&mut self) -> Result<String, EngineError> {
        let sign = if matches!(self.peek(), Some(Token::Minus)) {
            self.take();
            "-"
        } else {
            ""
        };
        match self.take() {
            Some(Token::Number(text, _)) => Ok(format!("{sign}{text}")),
            Some(Token::SingleQuotedString(text)) if sign.is_empty() => Ok(text.clone()),
            Some(Token::Word(word)) if sign.is_empty() => Ok(word.value.to_lowercase()),
            _ => Err(self.unexpected("a value")),
        }
    }

    fn end(&mut self, command: Command) -> Result<Command, EngineError> {
        match self.take() {
            None => Ok(command),
            Some(_) => Err(self.unexpected("the end of the statement")),
        }
    }

    fn keyword(&mut self) -> Option<String> {
        let keyword = self.peek_keyword()?;
        self.take();
        Some(keyword)
    }

    fn peek_keyword(&mut self) -> Option<String> {
        match self.peek() {
            Some(Token::Word(word)) if word.quote_style.is_none() => {
                Some(word.value.to_uppercase())
            }
            _ => None,
        }
    }

    fn peek(&mut self) -> Option<&Token> {
        self.skip_blanks();
        self.tokens.get(self.next).map(|token| &token.token)
    }

    fn take(&mut self) -> Option<&Token> {
        self.skip_blanks();
        let token = self.tokens.get(self.next)?;
        self.next += 1;
        Some(&token.token)
    }

    fn skip_blanks(&mut self) {
        while matches!(self.tokens.get(self.next), Some(token) if matches!(token.token, Token::Whitespace(_)))
        {
            self.next += 1;
        }
    }

    /// An error at the last token that was taken.
    fn unexpected(&self, expected: &str) -> EngineError {
        let last = self
            .next
            .checked_sub(1)
            .and_then(|index| self.tokens.get(index));
        EngineError::Syntax {
            reason: format!("Expected {expected}"),
            sql: self.sql.to_owned(),
            at: last
                .and_then(|token| super::position::Region::of(token.span))
                .map(|region| region.start),
        }
    }
}

/// A further condition; none for the empty name.
fn only_schema(schema: &str) -> String {
    if schema.is_empty() {
        return String::new();
    }
    format!(
        " AND LOWER(TABLE_SCHEMA) = {}",
        quoted(&schema.to_lowercase())
    )
}

fn quoted(text: &str) -> String {
    format!("'{}'", text.replace('\'', "''"))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::engine::sql::tokenize;

    fn command(sql: &str) -> Result<Command, EngineError> {
        read(&tokenize(sql).expect("tokens"), sql)
    }

    #[test]
    fn session_statements_are_read_with_and_without_quotes() {
        let set = |value: &str| Command::Set {
            name: "planner.slice_target".into(),
            value: value.into(),
        };
        assert_eq!(
            command("alter session set `planner.slice_target` = 1000;").expect("set"),
            set("1000")
        );
        assert_eq!(
            command("SET planner.slice_target = -1").expect("set"),
            set("-1")
        );
        assert_eq!(
            command("alter session reset all").expect("reset"),
            Command::Reset { name: None }
        );
        assert_eq!(
            command("use dfs.`tmp`").expect("use"),
            Command::Use {
                schema: "dfs.tmp".into()
            }
        );
    }

    #[test]
    fn explain_points_at_its_query() {
        assert_eq!(
            command("explain plan for select 1").expect("explain"),
            Command::Explain { from: 5 }
        );
    }

    #[test]
    fn statements_that_write_are_refused_by_name() {
        let error = command("create table t as select 1").expect_err("refused");
        assert_eq!(error.to_string(), "CREATE TABLE is not supported");
    }

    #[test]
    fn a_broken_statement_says_where() {
        let error = command("alter session set x 1").expect_err("refused");
        assert!(
            matches!(error, EngineError::Syntax { at: Some(at), .. } if at.column == 21),
            "{error}"
        );
    }

    #[test]
    fn show_tables_asks_the_information_schema() {
        let Command::Shorthand { sql } = command("show tables in sys like 'v%'").expect("show")
        else {
            panic!("a shorthand")
        };
        assert!(
            sql.ends_with("WHERE TRUE AND LOWER(TABLE_SCHEMA) = 'sys' AND TABLE_NAME LIKE 'v%'"),
            "{sql}"
        );
    }
}
