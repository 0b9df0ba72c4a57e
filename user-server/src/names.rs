//! Column names: a Drill client finds columns by name, without case, so they must differ.

use std::{collections::HashSet, sync::Arc};

use arrow::datatypes::{Field, Schema, SchemaRef};

/// The schema with every repeated name changed; the same one if none is repeated.
///
/// As in Drill, the second `a` becomes `a0`, the third `a1`, and so on.
pub(crate) fn unique(schema: &SchemaRef) -> SchemaRef {
    let lower_case = schema
        .fields()
        .iter()
        .map(|field| field.name().to_lowercase());
    let mut taken: HashSet<_> = lower_case.collect();
    if taken.len() == schema.fields().len() {
        return Arc::clone(schema);
    }
    // Names that stand on their own keep them, also behind a repeated one.
    let mut given = HashSet::new();
    let fields = schema.fields().iter().map(|field| {
        if given.insert(field.name().to_lowercase()) {
            return Arc::clone(field);
        }
        let name = fresh(field.name(), &mut taken);
        Arc::new(Field::clone(field).with_name(name))
    });
    Arc::new(Schema::new_with_metadata(
        fields.collect::<Vec<_>>(),
        schema.metadata().clone(),
    ))
}

/// `base` and the first number that makes it new.
fn fresh(base: &str, taken: &mut HashSet<String>) -> String {
    let mut number = 0_usize;
    loop {
        let name = format!("{base}{number}");
        if taken.insert(name.to_lowercase()) {
            return name;
        }
        number += 1;
    }
}

#[cfg(test)]
mod tests {
    use arrow::datatypes::DataType;

    use super::*;

    fn renamed(names: &[&str]) -> Vec<String> {
        let field = |name: &&str| Field::new(*name, DataType::Int32, false);
        let schema = Arc::new(Schema::new(names.iter().map(field).collect::<Vec<_>>()));
        unique(&schema)
            .fields()
            .iter()
            .map(|field| field.name().clone())
            .collect()
    }

    #[test]
    fn distinct_names_are_kept() {
        assert_eq!(renamed(&["a", "b"]), ["a", "b"]);
    }

    #[test]
    fn repeated_names_get_numbers() {
        assert_eq!(renamed(&["a", "A", "a"]), ["a", "A0", "a1"]);
    }

    #[test]
    fn a_number_never_takes_the_name_of_another_column() {
        assert_eq!(renamed(&["a", "a", "a0"]), ["a", "a1", "a0"]);
    }
}
