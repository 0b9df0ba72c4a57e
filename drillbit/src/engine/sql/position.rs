//! Places in a statement, counted from 1 as Drill's messages count them.

use std::collections::HashMap;
use std::fmt;

use datafusion::sql::sqlparser::tokenizer;

/// A character of the statement.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Location {
    /// Line, from 1.
    pub line: usize,
    /// Column in characters, from 1.
    pub column: usize,
}

impl Location {
    /// Splits the parser's ` at Line: 1, Column: 7` off its message.
    pub(in crate::engine) fn split_off(text: &str) -> (&str, Option<Self>) {
        let Some((reason, place)) = text.rsplit_once(" at Line: ") else {
            return (text, None);
        };
        let Some((line, column)) = place.split_once(", Column: ") else {
            return (text, None);
        };
        match (line.trim().parse(), column.trim().parse()) {
            (Ok(line), Ok(column)) => (reason, Some(Self { line, column })),
            _ => (text, None),
        }
    }
}

/// First and last character of a piece of the statement.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Region {
    /// The first character.
    pub start: Location,
    /// The last character.
    pub end: Location,
}

impl Region {
    /// From the tokenizer's span, whose end is the place after the last character.
    pub(in crate::engine) fn of(span: tokenizer::Span) -> Option<Self> {
        let start = location(span.start)?;
        let mut end = location(span.end)?;
        end.column = end.column.saturating_sub(1).max(1);
        Some(Self { start, end })
    }

    /// One character longer: the closing bracket that the parser's spans leave out.
    pub(in crate::engine) fn with_bracket(mut self) -> Self {
        self.end.column += 1;
        self
    }
}

impl fmt::Display for Region {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { start, end } = self;
        write!(
            f,
            "From line {}, column {} to line {}, column {}",
            start.line, start.column, end.line, end.column
        )
    }
}

/// Where the statement names its columns and tables, by lower-case name, first use first.
#[derive(Debug, Default)]
pub(in crate::engine) struct Positions {
    columns: HashMap<String, Region>,
    tables: HashMap<String, Region>,
}

impl Positions {
    pub(in crate::engine) fn note_column(&mut self, name: &str, span: tokenizer::Span) {
        note(&mut self.columns, name, span);
    }

    pub(in crate::engine) fn note_table(&mut self, name: &str, span: tokenizer::Span) {
        note(&mut self.tables, name, span);
    }

    pub(in crate::engine) fn column(&self, name: &str) -> Option<Region> {
        self.columns.get(name).copied()
    }

    pub(in crate::engine) fn table(&self, name: &str) -> Option<Region> {
        self.tables.get(name).copied()
    }
}

fn note(names: &mut HashMap<String, Region>, name: &str, span: tokenizer::Span) {
    if let Some(region) = Region::of(span) {
        names.entry(name.to_owned()).or_insert(region);
    }
}

fn location(place: tokenizer::Location) -> Option<Location> {
    let line = usize::try_from(place.line).ok().filter(|line| *line > 0)?;
    let column = usize::try_from(place.column)
        .ok()
        .filter(|column| *column > 0)?;
    Some(Location { line, column })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_parsers_place_is_split_off_its_message() {
        let (reason, at) =
            Location::split_off("Expected: an SQL statement, found: selec at Line: 1, Column: 1");
        assert_eq!(reason, "Expected: an SQL statement, found: selec");
        assert_eq!(at, Some(Location { line: 1, column: 1 }));
    }

    #[test]
    fn a_message_without_a_place_is_kept_whole() {
        assert_eq!(Location::split_off("at Line: x"), ("at Line: x", None));
    }
}
