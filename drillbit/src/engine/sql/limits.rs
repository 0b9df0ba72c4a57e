//! Limits on a statement, checked on its tokens before anything recursive sees it.
//!
//! A parser builds `1 + 1 + ...` as a tree as deep as the chain is long, and everything after it
//! (visitors, the planner, evaluation, even dropping the tree) recurses over that depth. So the
//! depth is estimated here, in one flat pass: within a bracket level and list item, AND and OR count
//! as nested in each other, and so do the other operators between two of them. The tree is at most
//! twice as deep as the estimate.

use datafusion::sql::sqlparser::keywords::Keyword;
use datafusion::sql::sqlparser::tokenizer::{Token, TokenWithSpan};

use crate::engine::error::EngineError;

/// Largest statement, in bytes.
pub const STATEMENT_BYTES_MAX: usize = 1024 * 1024;
/// Most tokens of a statement, blanks included.
pub const TOKENS_MAX: usize = 400_000;
/// Deepest expression: brackets, CASE and chained operators together.
pub const DEPTH_MAX: usize = 200;
/// Most UNION, INTERSECT, EXCEPT and MINUS of a statement.
pub const SET_OPERATIONS_MAX: usize = 100;
/// Most items of one list (IN, VALUES, SELECT, arguments).
pub const LIST_ITEMS_MAX: usize = 20_000;
/// Most parts of one name (`a.b.c`).
pub const NAME_PARTS_MAX: usize = 32;
/// Most tables that a statement reads, counting each use of a WITH table as all its tables.
pub const RELATIONS_MAX: usize = 128;
/// Deepest plan, in operators: polling one recurses over it, on threads with small stacks.
pub const PLAN_DEPTH_MAX: usize = 800;

/// Refuses what would be too deep, too long or too wide.
///
/// # Errors
///
/// [`EngineError::TooComplex`] with the limit that was exceeded.
pub fn check(tokens: &[TokenWithSpan]) -> Result<(), EngineError> {
    within(tokens.len(), TOKENS_MAX, "too many tokens")?;
    let mut shape = Shape::new();
    tokens.iter().try_for_each(|token| shape.take(&token.token))
}

/// The running estimate; one level for each open bracket or CASE.
struct Shape {
    levels: Vec<Level>,
    depth: usize,
    set_operations: usize,
    name_parts: usize,
}

#[derive(Default)]
struct Level {
    /// AND, OR in this item.
    connectives: usize,
    /// Other operators since the last of them.
    operators: usize,
    items: usize,
}

impl Shape {
    fn new() -> Self {
        Self {
            levels: vec![Level::default()],
            depth: 1,
            set_operations: 0,
            name_parts: 0,
        }
    }

    fn take(&mut self, token: &Token) -> Result<(), EngineError> {
        match token {
            Token::LParen | Token::LBracket | Token::LBrace => self.open(),
            Token::RParen | Token::RBracket | Token::RBrace => self.close(),
            Token::Comma => self.next_item()?,
            Token::Period => self.name_parts += 1,
            Token::Word(word) if word.quote_style.is_none() => self.keyword(word.keyword)?,
            Token::Whitespace(_) | Token::Word(_) | Token::Number(..) | Token::SemiColon => {}
            Token::SingleQuotedString(_) | Token::EOF => self.name_parts = 0,
            _ => self.operator(),
        }
        if !matches!(token, Token::Period | Token::Word(_)) {
            self.name_parts = 0;
        }
        within(
            self.depth,
            DEPTH_MAX,
            "too many nested levels or chained operators",
        )?;
        within(self.name_parts, NAME_PARTS_MAX, "too long a name")
    }

    fn keyword(&mut self, keyword: Keyword) -> Result<(), EngineError> {
        match keyword {
            Keyword::CASE => self.open(),
            Keyword::END => self.close(),
            Keyword::UNION | Keyword::INTERSECT | Keyword::EXCEPT | Keyword::MINUS => {
                self.set_operations += 1;
                self.restart();
                within(
                    self.set_operations,
                    SET_OPERATIONS_MAX,
                    "too many set operations",
                )?;
            }
            Keyword::SELECT
            | Keyword::FROM
            | Keyword::WHERE
            | Keyword::GROUP
            | Keyword::HAVING
            | Keyword::ORDER
            | Keyword::WHEN
            | Keyword::THEN
            | Keyword::ELSE => self.restart(),
            Keyword::AND | Keyword::OR | Keyword::XOR => self.connective(),
            Keyword::NOT
            | Keyword::IS
            | Keyword::LIKE
            | Keyword::ILIKE
            | Keyword::SIMILAR
            | Keyword::RLIKE
            | Keyword::REGEXP
            | Keyword::DIV
            | Keyword::COLLATE
            | Keyword::AT
            | Keyword::INTERVAL => self.operator(),
            _ => {}
        }
        Ok(())
    }

    fn open(&mut self) {
        self.levels.push(Level::default());
        self.depth += 1;
    }

    fn close(&mut self) {
        self.restart();
        if self.levels.len() > 1 {
            self.levels.pop();
            self.depth -= 1;
        }
    }

    fn operator(&mut self) {
        self.level().operators += 1;
        self.depth += 1;
    }

    fn connective(&mut self) {
        let level = self.level();
        level.connectives += 1;
        let ended = std::mem::take(&mut level.operators);
        self.depth = self.depth + 1 - ended;
    }

    /// A new item or clause: the chain before it is no part of what follows.
    fn restart(&mut self) {
        let level = self.level();
        let ended = std::mem::take(&mut level.operators) + std::mem::take(&mut level.connectives);
        self.depth -= ended;
    }

    fn next_item(&mut self) -> Result<(), EngineError> {
        self.restart();
        let level = self.level();
        level.items += 1;
        within(level.items, LIST_ITEMS_MAX, "too long a list")
    }

    fn level(&mut self) -> &mut Level {
        self.levels
            .last_mut()
            .expect("invariant: the outermost level is never closed")
    }
}

/// The one comparison of all limits.
pub(in crate::engine) fn within(
    count: usize,
    limit: usize,
    what: &'static str,
) -> Result<(), EngineError> {
    if count > limit {
        Err(EngineError::TooComplex { what, limit })
    } else {
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::engine::sql::tokenize;

    fn checked(sql: &str) -> Result<(), EngineError> {
        check(&tokenize(sql).expect("tokens"))
    }

    #[test]
    fn a_chain_counts_as_deep_and_a_list_of_short_chains_does_not() {
        assert!(checked(&format!("select 1{}", " + 1".repeat(DEPTH_MAX + 1))).is_err());
        assert!(checked(&format!("select {}1", "1 + 1, ".repeat(DEPTH_MAX + 1))).is_ok());
    }

    #[test]
    fn brackets_add_to_the_chains_around_them() {
        let nested = format!(
            "select {}1{}",
            "1 + (".repeat(DEPTH_MAX / 2),
            ")".repeat(DEPTH_MAX / 2)
        );
        assert!(checked(&nested).is_err());
        assert!(checked("select ((1 + 2) * 3) from t where a = 1 and b = 2 or c = 3").is_ok());
    }

    #[test]
    fn closing_more_than_was_opened_is_left_to_the_parser() {
        assert!(checked("select 1)))) + 1 end end").is_ok());
    }

    #[test]
    fn names_and_lists_have_a_longest_length() {
        assert!(checked(&format!("select a{}", ".b".repeat(NAME_PARTS_MAX + 1))).is_err());
        assert!(
            checked(&format!(
                "select a in ({}1)",
                "1,".repeat(LIST_ITEMS_MAX + 1)
            ))
            .is_err()
        );
        assert!(checked(&format!("select {}1", "a.b, ".repeat(1000))).is_ok());
    }
}
