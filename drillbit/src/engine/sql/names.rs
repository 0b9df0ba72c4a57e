//! The names of a result's columns. Drill matches names without regard to case and shows them as
//! the query spells them; expressions without a name are `EXPR$n`, and repeated names get a number.

use std::collections::HashMap;

use datafusion::sql::sqlparser::ast::{Expr, Query, Select, SelectItem, SetExpr};

/// One item of the outermost SELECT list.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(in crate::engine) enum OutputName {
    /// One column of this name.
    Named(String),
    /// As many columns as the tables have.
    Wildcard,
}

/// The names that the query's own SELECT list gives; `None` if there is no such list.
pub(in crate::engine) fn output_names(query: &Query) -> Option<Vec<OutputName>> {
    let mut body = query.body.as_ref();
    loop {
        body = match body {
            SetExpr::Select(select) => return Some(item_names(select)),
            SetExpr::Query(inner) => inner.body.as_ref(),
            SetExpr::SetOperation { left, .. } => left.as_ref(),
            _ => return None,
        };
    }
}

fn item_names(select: &Select) -> Vec<OutputName> {
    select
        .projection
        .iter()
        .enumerate()
        .map(|(index, item)| item_name(index, item))
        .collect()
}

pub(super) fn item_name(index: usize, item: &SelectItem) -> OutputName {
    match item {
        SelectItem::UnnamedExpr(expr) => {
            OutputName::Named(expr_name(expr).map_or_else(|| unnamed(index), str::to_owned))
        }
        SelectItem::ExprWithAlias { alias, .. } => OutputName::Named(alias.value.clone()),
        SelectItem::ExprWithAliases { .. } => OutputName::Named(unnamed(index)),
        SelectItem::Wildcard(_) | SelectItem::QualifiedWildcard(..) => OutputName::Wildcard,
    }
}

/// The name of the n-th expression without one.
pub(super) fn unnamed(index: usize) -> String {
    format!("EXPR${index}")
}

/// The name of a plain column; nothing else has one of its own.
fn expr_name(expr: &Expr) -> Option<&str> {
    match expr {
        Expr::Identifier(ident) => Some(&ident.value),
        Expr::CompoundIdentifier(parts) => parts.last().map(|ident| ident.value.as_str()),
        _ => None,
    }
}

/// Gives out names that differ without regard to case: `a`, `a0`, `a1`.
#[derive(Debug, Default)]
pub(in crate::engine) struct UniqueNames {
    /// Names given out, in lower case, and the number to try next after each.
    taken: HashMap<String, usize>,
}

impl UniqueNames {
    pub(in crate::engine) fn claim(&mut self, name: &str) -> String {
        let lower = name.to_lowercase();
        let Some(mut number) = self.taken.get(&lower).copied() else {
            self.taken.insert(lower, 0);
            return name.to_owned();
        };
        while self.taken.contains_key(&format!("{lower}{number}")) {
            number += 1;
        }
        self.taken.insert(format!("{lower}{number}"), 0);
        self.taken.insert(lower, number + 1);
        format!("{name}{number}")
    }
}

/// The shown names of a result whose columns the engine calls `columns`; `spelling` is the
/// spelling of a column that came through a wildcard.
pub(in crate::engine) fn shown_names(
    list: Option<&[OutputName]>,
    columns: usize,
    spelling: impl Fn(usize) -> String,
) -> Vec<String> {
    let list = list.unwrap_or(&[OutputName::Wildcard]);
    let first = list
        .iter()
        .position(|name| *name == OutputName::Wildcard)
        .unwrap_or(list.len());
    let after = list
        .iter()
        .rev()
        .position(|name| *name == OutputName::Wildcard)
        .unwrap_or(0);
    let mut unique = UniqueNames::default();
    let named = |index: usize| {
        let item = if index < first {
            list.get(index)
        } else {
            (columns - index <= after)
                .then(|| list.get(list.len() - (columns - index)))
                .flatten()
        };
        match item {
            Some(OutputName::Named(name)) => name.clone(),
            _ => spelling(index),
        }
    };
    (0..columns)
        .map(|index| unique.claim(&named(index)))
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn shown(list: &[&str], columns: &[&str]) -> Vec<String> {
        let list: Vec<_> = list
            .iter()
            .map(|name| {
                if *name == "*" {
                    OutputName::Wildcard
                } else {
                    OutputName::Named((*name).to_owned())
                }
            })
            .collect();
        shown_names(Some(&list), columns.len(), |index| {
            columns[index].to_owned()
        })
    }

    #[test]
    fn names_are_shown_as_the_query_spells_them() {
        assert_eq!(shown(&["ID", "Name"], &["id", "name"]), ["ID", "Name"]);
    }

    #[test]
    fn a_wildcard_takes_the_columns_between_its_neighbours() {
        assert_eq!(
            shown(&["X", "*", "Y"], &["x", "a", "b", "y"]),
            ["X", "a", "b", "Y"]
        );
        assert_eq!(shown(&["*"], &["a", "b"]), ["a", "b"]);
        assert_eq!(shown(&["*", "Z", "*"], &["a", "z", "b"]), ["a", "z", "b"]);
    }

    #[test]
    fn repeated_names_get_the_first_free_number() {
        assert_eq!(
            shown(&["a", "A", "a"], &["a", "a0", "a1"]),
            ["a", "A0", "a1"]
        );
        assert_eq!(
            shown(&["a0", "a", "a"], &["a0", "a", "a1"]),
            ["a0", "a", "a1"]
        );
    }
}
