//! Session options: the names that Drill's clients set, their kinds and values. Most change nothing
//! here; what counts is that a client may set and read them.

use std::collections::BTreeMap;
use std::sync::{Mutex, MutexGuard, PoisonError};

use super::error::EngineError;

/// Option that limits every result's rows; 0 = no limit.
pub(super) const MAX_ROWS: &str = "exec.query.max_rows";

/// Type of an option's value.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Kind {
    Boolean,
    Long,
    String,
}

impl Kind {
    pub(super) fn name(self) -> &'static str {
        match self {
            Self::Boolean => "BOOLEAN",
            Self::Long => "LONG",
            Self::String => "STRING",
        }
    }

    fn accepts(self, value: &str) -> bool {
        match self {
            Self::Boolean => matches!(value, "true" | "false"),
            Self::Long => value.parse::<i64>().is_ok(),
            Self::String => true,
        }
    }
}

const KNOWN: [(&str, Kind, &str); 28] = [
    (
        "drill.exec.hashjoin.fallback.enabled",
        Kind::Boolean,
        "false",
    ),
    ("exec.enable_union_type", Kind::Boolean, "false"),
    ("exec.errors.verbose", Kind::Boolean, "false"),
    (
        "exec.hashjoin.enable.runtime_filter",
        Kind::Boolean,
        "false",
    ),
    (MAX_ROWS, Kind::Long, "0"),
    (
        "exec.query.return_result_set_for_ddl",
        Kind::Boolean,
        "true",
    ),
    ("exec.query_profile.save", Kind::Boolean, "true"),
    ("planner.add_producer_consumer", Kind::Boolean, "false"),
    ("planner.broadcast_threshold", Kind::Long, "10000000"),
    ("planner.enable_broadcast_join", Kind::Boolean, "true"),
    ("planner.enable_decimal_data_type", Kind::Boolean, "true"),
    (
        "planner.enable_file_listing_limit0_optimization",
        Kind::Boolean,
        "false",
    ),
    ("planner.enable_hashagg", Kind::Boolean, "true"),
    ("planner.enable_hashjoin", Kind::Boolean, "true"),
    ("planner.enable_limit0_optimization", Kind::Boolean, "true"),
    ("planner.enable_mergejoin", Kind::Boolean, "true"),
    (
        "planner.enable_nljoin_for_scalar_only",
        Kind::Boolean,
        "true",
    ),
    ("planner.enable_streamagg", Kind::Boolean, "true"),
    (
        "planner.memory.max_query_memory_per_node",
        Kind::Long,
        "2147483648",
    ),
    ("planner.memory_limit", Kind::Long, "268435456"),
    ("planner.parser.quoting_identifiers", Kind::String, "`"),
    ("planner.slice_target", Kind::Long, "100000"),
    ("planner.width.max_per_node", Kind::Long, "0"),
    ("planner.width.max_per_query", Kind::Long, "1000"),
    ("store.format", Kind::String, "parquet"),
    ("store.json.all_text_mode", Kind::Boolean, "false"),
    ("store.json.read_numbers_as_double", Kind::Boolean, "false"),
    ("store.parquet.compression", Kind::String, "snappy"),
];

/// An option as `sys.options` shows it.
#[derive(Debug)]
pub(super) struct ShownOption {
    pub(super) name: &'static str,
    pub(super) kind: Kind,
    pub(super) value: String,
    /// Set in this session.
    pub(super) changed: bool,
}

/// The options that one session has set.
#[derive(Debug, Default)]
pub(super) struct SessionOptions {
    set: Mutex<BTreeMap<&'static str, String>>,
}

impl SessionOptions {
    /// Sets an option, whose name is compared without case.
    pub(super) fn set(&self, name: &str, value: &str) -> Result<(), EngineError> {
        let (known, kind, _) = find(name)?;
        if !kind.accepts(value) {
            let reason = format!(
                "'{value}' is no {} value for the option '{known}'",
                kind.name()
            );
            return Err(EngineError::Invalid { reason });
        }
        self.changed().insert(known, value.to_owned());
        Ok(())
    }

    /// Takes an option, or all of them, back to the default.
    pub(super) fn reset(&self, name: Option<&str>) -> Result<(), EngineError> {
        match name {
            Some(name) => {
                let (known, ..) = find(name)?;
                self.changed().remove(known);
            }
            None => self.changed().clear(),
        }
        Ok(())
    }

    /// The session's own limit on the rows of a result.
    pub(super) fn max_rows(&self) -> Option<u64> {
        let rows = self.changed().get(MAX_ROWS)?.parse().ok()?;
        (rows > 0).then_some(rows)
    }

    pub(super) fn all(&self) -> Vec<ShownOption> {
        let changed = self.changed();
        let shown = |(name, kind, default): &(&'static str, Kind, &'static str)| {
            let value = changed.get(name);
            let changed = value.is_some();
            let value = value.map_or_else(|| (*default).to_owned(), Clone::clone);
            ShownOption {
                name,
                kind: *kind,
                value,
                changed,
            }
        };
        KNOWN.iter().map(shown).collect()
    }

    fn changed(&self) -> MutexGuard<'_, BTreeMap<&'static str, String>> {
        self.set.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

fn find(name: &str) -> Result<(&'static str, Kind, &'static str), EngineError> {
    let known = KNOWN
        .iter()
        .find(|(known, ..)| known.eq_ignore_ascii_case(name));
    known.copied().ok_or_else(|| EngineError::OptionNotFound {
        name: name.to_owned(),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn options_are_set_shown_and_reset() {
        let options = SessionOptions::default();
        options.set("planner.SLICE_target", "1000").expect("set");
        let shown = |options: &SessionOptions| {
            let all = options.all();
            let option = all
                .iter()
                .find(|option| option.name == "planner.slice_target")
                .expect("known");
            (option.value.clone(), option.changed)
        };
        assert_eq!(shown(&options), ("1000".to_owned(), true));
        options.reset(None).expect("reset");
        assert_eq!(shown(&options), ("100000".to_owned(), false));
    }

    #[test]
    fn unknown_names_and_wrong_values_are_refused() {
        let options = SessionOptions::default();
        let error = options.set("no.such.option", "1").expect_err("unknown");
        assert_eq!(
            error.to_string(),
            "The option 'no.such.option' does not exist."
        );
        assert!(options.set("planner.slice_target", "x").is_err());
    }

    #[test]
    fn a_row_limit_of_zero_is_none() {
        let options = SessionOptions::default();
        options.set(MAX_ROWS, "7").expect("set");
        assert_eq!(options.max_rows(), Some(7));
        options.set(MAX_ROWS, "0").expect("set");
        assert_eq!(options.max_rows(), None);
    }
}
