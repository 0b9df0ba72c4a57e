//! From the text of a statement to something that can be planned: limits, Drill's own statements,
//! and the rewriting of Drill's SQL into what DataFusion understands. Pure; no table is looked at.

mod calls;
pub mod command;
mod interval;
pub mod limits;
pub(super) mod names;
pub mod position;
pub(super) mod rewrite;

use datafusion::sql::sqlparser::ast::{Query, Statement};
use datafusion::sql::sqlparser::dialect::GenericDialect;
use datafusion::sql::sqlparser::parser::Parser;
use datafusion::sql::sqlparser::tokenizer::{Token, TokenWithSpan, Tokenizer};

use super::error::{EngineError, syntax};

/// The tokens of a statement that is not too long, a final semicolon left out.
///
/// # Errors
///
/// [`EngineError::Syntax`] or [`EngineError::TooComplex`].
pub fn tokenize(sql: &str) -> Result<Vec<TokenWithSpan>, EngineError> {
    limits::within(sql.len(), limits::STATEMENT_BYTES_MAX, "too many bytes")?;
    let mut tokens = Tokenizer::new(&GenericDialect, sql)
        .tokenize_with_location()
        .map_err(|error| syntax(error.into(), sql))?;
    while tokens
        .last()
        .is_some_and(|last| ends_statement(&last.token))
    {
        tokens.pop();
    }
    Ok(tokens)
}

/// Parses exactly one query.
///
/// # Errors
///
/// [`EngineError::Syntax`], or [`EngineError::Unsupported`] for statements that are no queries.
pub fn parse_query(tokens: Vec<TokenWithSpan>, sql: &str) -> Result<Query, EngineError> {
    let mut parser = Parser::new(&GenericDialect)
        .with_recursion_limit(limits::DEPTH_MAX)
        .with_tokens_with_locations(tokens);
    let statement = parser
        .parse_statement()
        .map_err(|error| syntax(error, sql))?;
    if parser.peek_token_ref().token != Token::EOF {
        let found = parser.peek_token();
        let error = parser.expected("the end of the statement", found);
        return Err(error.map_or_else(
            |error| syntax(error, sql),
            |never: Query| drop_query(&never),
        ));
    }
    match statement {
        Statement::Query(query) => Ok(*query),
        other => {
            let text = other.to_string();
            let what = text
                .split_whitespace()
                .next()
                .unwrap_or_default()
                .to_uppercase();
            Err(EngineError::Unsupported { what, note: "" })
        }
    }
}

fn drop_query(_: &Query) -> EngineError {
    EngineError::Internal {
        reason: "the parser expected nothing".to_owned(),
    }
}

fn ends_statement(token: &Token) -> bool {
    matches!(token, Token::Whitespace(_) | Token::SemiColon | Token::EOF)
}
