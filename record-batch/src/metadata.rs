//! What Drill says about a column and Arrow's types cannot, kept in Arrow field metadata.
//!
//! Decoding sets a key only where encoding would otherwise write another descriptor. Encoding
//! honours a key only where it fits the field's Arrow type: engines carry metadata along through
//! expressions that change the type, so a stale key is ignored, never an error.

use std::collections::HashMap;

use protos::common::{DataMode, MinorType};

use crate::drill_type::DrillType;

/// Drill's name of the minor type, where it is not the one the Arrow type maps to.
pub const MINOR_TYPE: &str = "drill.minor_type";
/// Drill's name of the mode, where it is not the one the Arrow field maps to.
pub const MODE: &str = "drill.mode";
/// Decimal number: characters of a VARCHAR, digits of a number.
pub const PRECISION: &str = "drill.precision";
/// Decimal number.
pub const SCALE: &str = "drill.scale";
/// Decimal number, bytes.
pub const WIDTH: &str = "drill.width";
/// Decimal number.
pub const TIME_ZONE: &str = "drill.time_zone";
/// Drill's names of the types a UNION may hold, separated by commas, in the order on the wire.
pub const SUB_TYPES: &str = "drill.sub_types";

/// `column` where Drill named the arrays inside a REPEATED LIST like the column, not `$data$`.
pub const INNER_NAME: &str = "drill.inner_name";
/// The only value of [`INNER_NAME`].
pub(crate) const AS_COLUMN: &str = "column";

/// Whether the item of a list has [`INNER_NAME`].
pub(crate) fn is_named_as_column(metadata: &HashMap<String, String>) -> bool {
    metadata
        .get(INNER_NAME)
        .is_some_and(|name| name == AS_COLUMN)
}

/// Reads a number kept under `key`.
pub(crate) fn number(metadata: &HashMap<String, String>, key: &str) -> Option<i32> {
    metadata.get(key)?.parse().ok()
}

/// Reads the minor type, if a valid one is kept.
pub(crate) fn minor_type(metadata: &HashMap<String, String>) -> Option<MinorType> {
    MinorType::from_str_name(metadata.get(MINOR_TYPE)?)
}

/// Reads the mode, if a valid one is kept.
pub(crate) fn mode(metadata: &HashMap<String, String>) -> Option<DataMode> {
    DataMode::from_str_name(metadata.get(MODE)?)
}

/// Reads the sub-types; names that Drill does not know are left out.
pub(crate) fn sub_types(metadata: &HashMap<String, String>) -> Vec<MinorType> {
    metadata.get(SUB_TYPES).map_or_else(Vec::new, |names| {
        names
            .split(',')
            .filter_map(MinorType::from_str_name)
            .collect()
    })
}

/// The numbers of `drill`, as metadata.
pub(crate) fn facts(drill: &DrillType) -> HashMap<String, String> {
    let numbers = [
        (PRECISION, drill.precision),
        (SCALE, drill.scale),
        (WIDTH, drill.width),
        (TIME_ZONE, drill.time_zone),
    ];
    numbers
        .into_iter()
        .filter_map(|(key, value)| Some((key.to_owned(), value?.to_string())))
        .collect()
}

/// The names of `types`, as [`SUB_TYPES`] holds them.
pub(crate) fn join(types: &[MinorType]) -> String {
    let names: Vec<_> = types.iter().map(MinorType::as_str_name).collect();
    names.join(",")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sub_types_are_read_back() {
        let types = vec![MinorType::Bigint, MinorType::Varchar];
        let metadata = [(SUB_TYPES.to_owned(), join(&types))].into();
        assert_eq!(sub_types(&metadata), types);
        assert_eq!(sub_types(&[(SUB_TYPES.to_owned(), join(&[]))].into()), []);
    }

    #[test]
    fn facts_are_read_back() {
        let drill = DrillType {
            precision: Some(0),
            width: Some(7),
            ..DrillType::new(MinorType::Union, DataMode::Optional)
        };
        let metadata = facts(&drill);
        assert_eq!(number(&metadata, PRECISION), Some(0));
        assert_eq!(number(&metadata, WIDTH), Some(7));
        assert_eq!(number(&metadata, SCALE), None);
    }
}
