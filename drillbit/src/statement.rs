//! Splits SQL text into statements at `;`, outside quotes and comments. Knows nothing else of SQL.
//!
//! Quotes are `'…'`, `"…"` and `` `…` ``, where a doubled quote stands for itself; comments are
//! `-- …`, `// …` and `/* … */` (not nested), as Drill's SQL has them.

use std::{
    collections::VecDeque,
    io::{self, BufRead, Read},
    mem,
};

/// Longest statement that is read, in bytes. A server refuses far shorter ones; this bounds our own
/// memory.
const STATEMENT_BYTES_MAX: usize = 16 << 20;

/// One statement, without its `;` and without comments in front of it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Statement {
    /// The text as it is sent.
    pub(crate) sql: String,
    /// Counts from 1 within its source.
    pub(crate) number: usize,
    /// Line of its first word, from 1.
    pub(crate) line: usize,
}

/// What is wrong with a script before any server has seen it.
#[derive(Debug, thiserror::Error)]
pub(crate) enum ScriptError {
    /// The source could not be read.
    #[error("cannot read the statements: {0}")]
    Read(#[from] io::Error),
    /// SQL travels as UTF-8.
    #[error("line {line}: not valid UTF-8")]
    NotUtf8 {
        /// Line, from 1.
        line: usize,
    },
    /// The text ended inside a quote or a block comment.
    #[error("line {line}: this {what} is never closed")]
    Unclosed {
        /// "quote" or "comment", with the character that opened it.
        what: String,
        /// Line of the opening, from 1.
        line: usize,
    },
    /// A statement (or a quote that was never closed) is longer than we hold.
    #[error("line {line}: the statement is longer than {max} bytes")]
    TooLong {
        /// Line of the statement's first word, from 1.
        line: usize,
        /// The limit, in bytes.
        max: usize,
    },
}

/// Takes text line by line and gives statements as they are completed.
#[derive(Debug)]
pub(crate) struct Splitter {
    state: State,
    /// Text of the statement that is not complete yet, from its first word on.
    pending: String,
    pending_line: usize,
    line: usize,
    statements: usize,
}

impl Default for Splitter {
    fn default() -> Self {
        Self {
            state: State::Code,
            pending: String::new(),
            pending_line: 1,
            line: 1,
            statements: 0,
        }
    }
}

impl Splitter {
    /// Takes whole lines (a two-character mark must not be cut) and returns what they complete.
    pub(crate) fn push(&mut self, lines: &str) -> Vec<Statement> {
        let mut complete = Vec::new();
        let mut rest = lines;
        while !rest.is_empty() {
            let (state, length, token) = scan(self.state, rest.as_bytes(), self.line);
            let (text, behind) = rest.split_at(length);
            match token {
                Token::End => complete.extend(self.complete()),
                Token::Filler if self.pending.is_empty() => {}
                Token::Code | Token::Filler => self.append(text),
            }
            self.line += text.matches('\n').count();
            self.state = state;
            rest = behind;
        }
        complete
    }

    /// The last statement, which needs no `;`.
    ///
    /// # Errors
    /// The text ended inside a quote or a block comment.
    pub(crate) fn finish(&mut self) -> Result<Option<Statement>, ScriptError> {
        match mem::replace(&mut self.state, State::Code) {
            State::Quoted { quote, line } => Err(ScriptError::Unclosed {
                what: format!("quote {}", char::from(quote)),
                line,
            }),
            State::BlockComment { line } => Err(ScriptError::Unclosed {
                what: "comment /*".to_owned(),
                line,
            }),
            State::Code | State::LineComment => Ok(self.complete()),
        }
    }

    /// Whether the text so far ends between statements: nothing is begun, nothing is open.
    pub(crate) fn is_between(&self) -> bool {
        self.pending.is_empty() && matches!(self.state, State::Code | State::LineComment)
    }

    fn append(&mut self, text: &str) {
        if self.pending.is_empty() {
            self.pending_line = self.line;
        }
        self.pending.push_str(text);
    }

    fn complete(&mut self) -> Option<Statement> {
        let mut sql = mem::take(&mut self.pending);
        sql.truncate(sql.trim_end().len());
        if sql.is_empty() {
            return None;
        }
        self.statements += 1;
        Some(Statement {
            sql,
            number: self.statements,
            line: self.pending_line,
        })
    }
}

#[derive(Debug, Clone, Copy)]
enum State {
    Code,
    Quoted { quote: u8, line: usize },
    LineComment,
    BlockComment { line: usize },
}

enum Token {
    /// Belongs to a statement and can begin one.
    Code,
    /// Space or comment: kept inside a statement, dropped in front of one.
    Filler,
    /// The `;`.
    End,
}

/// One step: the state behind it, how many bytes it takes (at least 1, whole characters), what they
/// are.
fn scan(state: State, rest: &[u8], line: usize) -> (State, usize, Token) {
    match (state, rest) {
        (State::Code, [b';', ..]) => (State::Code, 1, Token::End),
        (State::Code, [b'-', b'-', ..] | [b'/', b'/', ..]) => {
            (State::LineComment, 2, Token::Filler)
        }
        (State::Code, [b'/', b'*', ..]) => (State::BlockComment { line }, 2, Token::Filler),
        (State::Code, [quote @ (b'\'' | b'"' | b'`'), ..]) => (
            State::Quoted {
                quote: *quote,
                line,
            },
            1,
            Token::Code,
        ),
        (State::Code, [c, ..]) if c.is_ascii_whitespace() => (State::Code, 1, Token::Filler),
        (State::Code, _) => (State::Code, run(rest, is_plain_code), Token::Code),
        (State::Quoted { quote, .. }, [c, ..]) if *c == quote => (State::Code, 1, Token::Code),
        (State::Quoted { quote, .. }, _) => (state, run(rest, |c| c != quote), Token::Code),
        (State::LineComment, [b'\n', ..]) => (State::Code, 1, Token::Filler),
        (State::LineComment, _) => (state, run(rest, |c| c != b'\n'), Token::Filler),
        (State::BlockComment { .. }, [b'*', b'/', ..]) => (State::Code, 2, Token::Filler),
        (State::BlockComment { .. }, _) => (state, run(rest, |c| c != b'*'), Token::Filler),
    }
}

/// Length of the first byte and of those behind it that belong to the same run.
fn run(bytes: &[u8], belongs: impl Fn(u8) -> bool) -> usize {
    let behind = bytes.iter().skip(1).position(|&byte| !belongs(byte));
    behind.map_or(bytes.len(), |length| length + 1)
}

fn is_plain_code(byte: u8) -> bool {
    !byte.is_ascii_whitespace() && !matches!(byte, b';' | b'-' | b'/' | b'\'' | b'"' | b'`')
}

/// Reads a script as statements, in bounded memory; ends after the first error.
pub(crate) struct Statements<R> {
    source: R,
    splitter: Splitter,
    ready: VecDeque<Statement>,
    ended: bool,
}

impl<R: BufRead> Statements<R> {
    /// Reads `source` to its end.
    pub(crate) fn new(source: R) -> Self {
        Self {
            source,
            splitter: Splitter::default(),
            ready: VecDeque::new(),
            ended: false,
        }
    }

    fn advance(&mut self) -> Result<(), ScriptError> {
        if let Some(line) = self.read_line()? {
            self.ready.extend(self.splitter.push(&line));
        } else {
            self.ended = true;
            self.ready.extend(self.splitter.finish()?);
        }
        Ok(())
    }

    fn read_line(&mut self) -> Result<Option<String>, ScriptError> {
        let room = STATEMENT_BYTES_MAX.saturating_sub(self.splitter.pending.len());
        let mut line = Vec::new();
        self.source
            .by_ref()
            .take(room as u64 + 1)
            .read_until(b'\n', &mut line)?;
        if line.is_empty() {
            return Ok(None);
        }
        if line.len() > room {
            let line = self.splitter.pending_line;
            return Err(ScriptError::TooLong {
                line,
                max: STATEMENT_BYTES_MAX,
            });
        }
        let text = String::from_utf8(line).map_err(|_| ScriptError::NotUtf8 {
            line: self.splitter.line,
        })?;
        Ok(Some(self.without_byte_order_mark(text)))
    }

    /// Some editors put one in front of a file.
    fn without_byte_order_mark(&self, text: String) -> String {
        match text.strip_prefix('\u{feff}') {
            Some(rest) if self.splitter.line == 1 => rest.to_owned(),
            _ => text,
        }
    }
}

impl<R: BufRead> Iterator for Statements<R> {
    type Item = Result<Statement, ScriptError>;

    fn next(&mut self) -> Option<Self::Item> {
        while self.ready.is_empty() && !self.ended {
            if let Err(error) = self.advance() {
                self.ended = true;
                return Some(Err(error));
            }
        }
        self.ready.pop_front().map(Ok)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn split(text: &str) -> Vec<String> {
        Statements::new(text.as_bytes())
            .map(|statement| statement.unwrap().sql)
            .collect()
    }

    fn error(text: &[u8]) -> String {
        Statements::new(text)
            .find_map(Result::err)
            .unwrap()
            .to_string()
    }

    #[test]
    fn statements_end_at_a_semicolon_and_the_last_needs_none() {
        assert_eq!(
            split("select 1; select 2;\nselect\n3"),
            ["select 1", "select 2", "select\n3"]
        );
    }

    #[test]
    fn empty_statements_and_comments_alone_are_no_statements() {
        assert_eq!(
            split(";; -- nothing\n; /* nothing; */ ; // nothing;\n"),
            [""; 0]
        );
    }

    #[test]
    fn a_semicolon_in_quotes_ends_nothing() {
        let script = "select 'a;''b;', `c;``d`, \"e;\"\"f\" ; select 'g\n;h'";
        assert_eq!(
            split(script),
            ["select 'a;''b;', `c;``d`, \"e;\"\"f\"", "select 'g\n;h'"]
        );
    }

    #[test]
    fn a_semicolon_in_a_comment_ends_nothing() {
        let script = "select 1 -- a;\n, 2 // b;\n, 3 /* c;\n; ** */ , 4";
        assert_eq!(split(script), [script]);
    }

    #[test]
    fn a_quote_in_a_comment_opens_nothing_and_a_comment_mark_in_a_quote_neither() {
        assert_eq!(
            split("-- don't\nselect '--', `//`, '/*'; select 2"),
            ["select '--', `//`, '/*'", "select 2"]
        );
    }

    #[test]
    fn minus_and_slash_alone_are_code() {
        assert_eq!(
            split("select 4 - 2 / 1; select -1"),
            ["select 4 - 2 / 1", "select -1"]
        );
    }

    #[test]
    fn number_and_line_of_the_first_word_are_known() {
        let script = "-- head\n\n  select 1\n;\n/* two\nlines */ select 2;";
        let places: Vec<_> = Statements::new(script.as_bytes())
            .map(|s| s.map(|s| (s.number, s.line)).unwrap())
            .collect();
        assert_eq!(places, [(1, 3), (2, 6)]);
    }

    #[test]
    fn text_of_any_script_survives() {
        assert_eq!(
            split("select 'Grüße; 雪', `größe`;select '🦀'"),
            ["select 'Grüße; 雪', `größe`", "select '🦀'"]
        );
    }

    #[test]
    fn a_byte_order_mark_is_dropped() {
        assert_eq!(split("\u{feff}select 1;"), ["select 1"]);
    }

    #[test]
    fn an_open_quote_is_named_with_its_line() {
        assert_eq!(
            error(b"select 1;\nselect 'abc;\n"),
            "line 2: this quote ' is never closed"
        );
        assert_eq!(
            error(b"\n\n/* abc"),
            "line 3: this comment /* is never closed"
        );
    }

    #[test]
    fn bytes_that_are_not_utf8_are_refused_with_their_line() {
        assert_eq!(error(b"select 1;\n\xff;"), "line 2: not valid UTF-8");
    }

    #[test]
    fn a_statement_without_end_is_refused_before_it_fills_the_memory() {
        let endless = io::repeat(b'a').take(1 << 40);
        let first = Statements::new(io::BufReader::new(endless)).next().unwrap();
        assert!(matches!(first, Err(ScriptError::TooLong { line: 1, .. })));
    }

    #[test]
    fn statements_before_an_error_are_given() {
        let mut statements = Statements::new(&b"select 1; select '"[..]);
        assert_eq!(statements.next().unwrap().unwrap().sql, "select 1");
        assert!(statements.next().unwrap().is_err());
        assert!(statements.next().is_none());
    }
}
