//! Which Drill type stands for which Arrow type, both ways. The table in the crate's documentation
//! is this file in words; a test compares them.

use arrow::datatypes::{DECIMAL128_MAX_PRECISION, DataType, IntervalUnit, TimeUnit};
use protos::common::MinorType;

use crate::{
    drill_type::DrillType,
    error::{EncodeProblem, VectorError},
};

/// Most digits of a Drill decimal. The limit is an option of Drill's, and this its default.
pub(crate) const PRECISION_MAX: u8 = DECIMAL128_MAX_PRECISION;

/// The Arrow type that a scalar vector decodes to; its mode does not matter.
pub(crate) fn arrow_scalar(drill: &DrillType) -> Result<DataType, VectorError> {
    Ok(match drill.minor {
        MinorType::Tinyint => DataType::Int8,
        MinorType::Smallint => DataType::Int16,
        MinorType::Int => DataType::Int32,
        MinorType::Bigint => DataType::Int64,
        MinorType::Uint1 => DataType::UInt8,
        MinorType::Uint2 => DataType::UInt16,
        MinorType::Uint4 => DataType::UInt32,
        MinorType::Uint8 => DataType::UInt64,
        MinorType::Float4 => DataType::Float32,
        MinorType::Float8 => DataType::Float64,
        MinorType::Bit => DataType::Boolean,
        MinorType::Date => DataType::Date64,
        MinorType::Time => DataType::Time32(TimeUnit::Millisecond),
        MinorType::Timestamp => DataType::Timestamp(TimeUnit::Millisecond, None),
        MinorType::Intervalyear => DataType::Interval(IntervalUnit::YearMonth),
        MinorType::Intervalday => DataType::Interval(IntervalUnit::DayTime),
        MinorType::Interval => DataType::Interval(IntervalUnit::MonthDayNano),
        MinorType::Varchar | MinorType::Var16char => DataType::Utf8,
        MinorType::Varbinary => DataType::Binary,
        MinorType::Vardecimal => decimal(drill, i32::from(PRECISION_MAX))?,
        MinorType::Decimal9 => decimal(drill, 9)?,
        MinorType::Decimal18 => decimal(drill, 18)?,
        MinorType::Decimal28sparse | MinorType::Decimal28dense => decimal(drill, 28)?,
        MinorType::Decimal38sparse | MinorType::Decimal38dense => decimal(drill, 38)?,
        MinorType::Null => DataType::Null,
        minor => {
            let mode = drill.mode;
            return Err(VectorError::Unsupported { minor, mode });
        }
    })
}

/// The Arrow decimal of a Drill decimal. An absent or zero precision is `precision_default`, as
/// Drill's own old decimals leave it out.
fn decimal(drill: &DrillType, precision_default: i32) -> Result<DataType, VectorError> {
    let precision = match drill.precision.unwrap_or(0) {
        0 => precision_default,
        precision => precision,
    };
    let scale = drill.scale.unwrap_or(0);
    let error = VectorError::DecimalType { precision, scale };
    let (Ok(digits), Ok(point @ 0..)) = (u8::try_from(precision), i8::try_from(scale)) else {
        return Err(error);
    };
    match digits {
        1..=PRECISION_MAX if scale <= precision => Ok(DataType::Decimal128(digits, point)),
        _ => Err(error),
    }
}

/// The minor type that a scalar Arrow type is encoded to when its field says nothing else.
pub(crate) fn drill_scalar(data_type: &DataType) -> Result<MinorType, EncodeProblem> {
    Ok(match data_type {
        // Drill's SQL hardly produces the small integers, and its JDBC driver reads the unsigned
        // ones wrong or not at all: the next wider signed type holds every value.
        DataType::Int8
        | DataType::Int16
        | DataType::Int32
        | DataType::UInt8
        | DataType::UInt16
        // Drill sends an untyped null as a nullable INT.
        | DataType::Null => MinorType::Int,
        // Counts and row numbers are UInt64 in engines and BIGINT in Drill.
        DataType::Int64 | DataType::UInt32 | DataType::UInt64 => MinorType::Bigint,
        DataType::Float16 | DataType::Float32 => MinorType::Float4,
        DataType::Float64 => MinorType::Float8,
        DataType::Boolean => MinorType::Bit,
        DataType::Date32 | DataType::Date64 => MinorType::Date,
        DataType::Time32(_) | DataType::Time64(_) => MinorType::Time,
        DataType::Timestamp(..) => MinorType::Timestamp,
        DataType::Interval(IntervalUnit::YearMonth) => MinorType::Intervalyear,
        DataType::Interval(IntervalUnit::DayTime) | DataType::Duration(_) => MinorType::Intervalday,
        DataType::Interval(IntervalUnit::MonthDayNano) => MinorType::Interval,
        DataType::Utf8 | DataType::LargeUtf8 | DataType::Utf8View => MinorType::Varchar,
        DataType::Binary
        | DataType::LargeBinary
        | DataType::BinaryView
        | DataType::FixedSizeBinary(_) => MinorType::Varbinary,
        DataType::Decimal32(..)
        | DataType::Decimal64(..)
        | DataType::Decimal128(..)
        | DataType::Decimal256(..) => MinorType::Vardecimal,
        _ => return Err(NO_LAYOUT),
    })
}

/// The minor type for a field of `data_type` that asks for `wanted`: `wanted` where every value of
/// the type has a place in it, else the default.
pub(crate) fn drill_scalar_as(
    data_type: &DataType,
    wanted: Option<MinorType>,
) -> Result<MinorType, EncodeProblem> {
    let default = drill_scalar(data_type)?;
    Ok(match (data_type, wanted) {
        (DataType::Int8, Some(minor @ (MinorType::Tinyint | MinorType::Smallint)))
        | (DataType::Int16, Some(minor @ MinorType::Smallint))
        | (DataType::UInt8, Some(minor @ MinorType::Uint1))
        | (DataType::UInt16, Some(minor @ MinorType::Uint2))
        | (DataType::UInt32, Some(minor @ MinorType::Uint4))
        | (DataType::UInt64, Some(minor @ (MinorType::Uint8 | MinorType::Vardecimal)))
        | (DataType::Null, Some(minor @ MinorType::Null))
        | (DataType::Utf8, Some(minor @ MinorType::Var16char)) => minor,
        _ => default,
    })
}

/// The precision and scale of the VARDECIMAL that holds every value of `data_type` of at most
/// [`PRECISION_MAX`] digits.
pub(crate) fn vardecimal(data_type: &DataType) -> Result<Option<(u8, u8)>, EncodeProblem> {
    let (precision, scale) = match *data_type {
        DataType::Decimal32(precision, scale)
        | DataType::Decimal64(precision, scale)
        | DataType::Decimal128(precision, scale)
        | DataType::Decimal256(precision, scale) => (precision, scale),
        // u64::MAX has 20 digits.
        DataType::UInt64 => (20, 0),
        _ => return Ok(None),
    };
    // A negative scale says how many zeros follow; Drill has them in the value.
    let zeros = if scale < 0 { scale.unsigned_abs() } else { 0 };
    let scale = scale.max(0).unsigned_abs();
    if scale > PRECISION_MAX || zeros >= PRECISION_MAX {
        return Err(EncodeProblem::NoDrillType {
            reason: "a decimal's scale is 0 to 38 digits",
        });
    }
    Ok(Some((
        precision.saturating_add(zeros).min(PRECISION_MAX),
        scale,
    )))
}

pub(crate) const NO_LAYOUT: EncodeProblem = EncodeProblem::NoDrillType {
    reason: "Drill has no vector of this layout",
};

#[cfg(test)]
mod tests {
    use std::{collections::BTreeSet, sync::Arc};

    use arrow::datatypes::{Field, Fields, Schema, UnionFields, UnionMode};
    use protos::{
        common::{DataMode, MajorType},
        shared::{NamePart, RecordBatchDef, SerializedField},
    };

    use super::*;
    use crate::{DecodeOptions, Encoder, schema_of};

    const PAGE: &str = include_str!("../MAPPING.md");

    /// Cells of the rows under a heading of the page.
    fn table(heading: &str) -> Vec<Vec<&'static str>> {
        let (_, section) = PAGE.split_once(heading).unwrap();
        let section = section.split("\n## ").next().unwrap();
        section
            .lines()
            .filter(|line| line.starts_with('|'))
            .skip(2)
            .map(|line| line.trim_matches('|').split('|').map(str::trim).collect())
            .collect()
    }

    #[test]
    fn the_page_lists_every_drill_type_as_it_decodes() {
        let rows = table("## Drill to Arrow");
        let listed: Vec<_> = rows.iter().map(|row| row[0].trim_matches('`')).collect();
        let all: Vec<_> = (0..100)
            .filter_map(|number| MinorType::try_from(number).ok())
            .collect();
        let names: Vec<_> = all.iter().map(MinorType::as_str_name).collect();
        assert_eq!(listed, names);
        for (row, minor) in rows.iter().zip(all) {
            assert_eq!(row[1..3], decoded(minor), "{row:?}");
        }
    }

    fn decoded(minor: MinorType) -> [String; 2] {
        let def = RecordBatchDef {
            field: vec![descriptor("a", minor)],
            ..RecordBatchDef::default()
        };
        match schema_of(&def, &DecodeOptions::default()) {
            Ok(schema) => [brief(schema.field(0).data_type()), "lossless".to_owned()],
            Err(_) => ["refused".to_owned(), String::new()],
        }
    }

    fn descriptor(name: &str, minor: MinorType) -> SerializedField {
        let int = |name| descriptor(name, MinorType::Int);
        let child = match minor {
            MinorType::List => vec![int("$data$")],
            MinorType::Dict => vec![required(int("key")), int("value")],
            MinorType::Union => vec![descriptor("internal", MinorType::Map)],
            _ => vec![],
        };
        SerializedField {
            major_type: Some(MajorType {
                minor_type: Some(minor as i32),
                mode: Some(DataMode::Optional as i32),
                ..MajorType::default()
            }),
            name_part: Some(NamePart {
                name: Some(name.to_owned()),
                ..NamePart::default()
            }),
            child,
            ..SerializedField::default()
        }
    }

    fn required(mut field: SerializedField) -> SerializedField {
        field
            .major_type
            .as_mut()
            .unwrap()
            .set_mode(DataMode::Required);
        field
    }

    /// A type's name without parameters that depend on the column.
    fn brief(data_type: &DataType) -> String {
        let text = data_type.to_string();
        let nested = data_type.is_nested() || matches!(data_type, DataType::Decimal128(..));
        match text.split_once('(') {
            Some((name, _)) if nested => name.to_owned(),
            _ => text,
        }
    }

    #[test]
    fn the_page_lists_every_arrow_type_as_it_encodes() {
        let rows = table("## Arrow to Drill");
        let samples = samples();
        assert_eq!(rows.len(), samples.len());
        for (row, sample) in rows.iter().zip(&samples) {
            let name = match sample {
                DataType::Union(..) => "Union".to_owned(),
                DataType::Map(..) => "Map".to_owned(),
                DataType::RunEndEncoded(..) => "RunEndEncoded(Int32, Utf8)".to_owned(),
                other => other.to_string().replace("non-null ", ""),
            };
            assert_eq!(row[0], name);
            assert_eq!(row[1..3], encoded(sample), "{row:?}");
        }
        let variants: BTreeSet<_> = samples.iter().map(variant).collect();
        assert_eq!(variants, (0..=LAST_VARIANT).collect());
    }

    fn encoded(data_type: &DataType) -> [String; 2] {
        // Maps have no validity.
        let nullable = !matches!(data_type, DataType::Struct(_) | DataType::Map(..));
        let field = Field::new("a", data_type.clone(), nullable);
        let schema = Arc::new(Schema::new(vec![field]));
        let Ok(encoder) = Encoder::try_new(&schema) else {
            return ["refused".to_owned(), String::new()];
        };
        let def = encoder.schema_only();
        let minor = def.field[0].major_type.as_ref().unwrap().minor_type();
        let back = schema_of(&def, &DecodeOptions::default()).unwrap();
        let same = back.field(0).data_type() == data_type;
        let how = if same { "lossless" } else { "converted" };
        [minor.as_str_name().to_owned(), how.to_owned()]
    }

    fn samples() -> Vec<DataType> {
        use TimeUnit::{Microsecond, Millisecond, Nanosecond, Second};
        let item = || Arc::new(Field::new_list_field(DataType::Int32, true));
        let member = Field::new("a", DataType::Int32, false);
        let entry = Fields::from(vec![
            Field::new("key", DataType::Utf8, false),
            Field::new("value", DataType::Int32, true),
        ]);
        let units = [Second, Millisecond, Microsecond, Nanosecond];
        let mut all = vec![DataType::Null, DataType::Boolean];
        all.extend([
            DataType::Int8,
            DataType::Int16,
            DataType::Int32,
            DataType::Int64,
        ]);
        all.extend([
            DataType::UInt8,
            DataType::UInt16,
            DataType::UInt32,
            DataType::UInt64,
        ]);
        all.extend([DataType::Float16, DataType::Float32, DataType::Float64]);
        all.extend(units.map(|unit| DataType::Timestamp(unit, None)));
        all.push(DataType::Timestamp(Millisecond, Some("UTC".into())));
        all.extend([DataType::Date32, DataType::Date64]);
        all.extend([Second, Millisecond].map(DataType::Time32));
        all.extend([Microsecond, Nanosecond].map(DataType::Time64));
        all.extend(units.map(DataType::Duration));
        all.extend([
            DataType::Interval(IntervalUnit::YearMonth),
            DataType::Interval(IntervalUnit::DayTime),
            DataType::Interval(IntervalUnit::MonthDayNano),
            DataType::Binary,
            DataType::FixedSizeBinary(2),
            DataType::LargeBinary,
            DataType::BinaryView,
            DataType::Utf8,
            DataType::LargeUtf8,
            DataType::Utf8View,
            DataType::List(item()),
            DataType::ListView(item()),
            DataType::FixedSizeList(item(), 2),
            DataType::LargeList(item()),
            DataType::LargeListView(item()),
            DataType::Struct(Fields::from(vec![member.clone()])),
            DataType::Union(
                UnionFields::from_iter([(5, Arc::new(member))]),
                UnionMode::Sparse,
            ),
            DataType::Dictionary(Box::new(DataType::Int32), Box::new(DataType::Utf8)),
            DataType::Decimal32(9, 2),
            DataType::Decimal64(18, 2),
            DataType::Decimal128(38, 2),
            DataType::Decimal256(76, 2),
            DataType::Map(
                Arc::new(Field::new("entries", DataType::Struct(entry), false)),
                false,
            ),
            DataType::RunEndEncoded(
                Arc::new(Field::new("run_ends", DataType::Int32, false)),
                Arc::new(Field::new("values", DataType::Utf8, true)),
            ),
        ]);
        all
    }

    const LAST_VARIANT: usize = 40;

    /// Numbers the variants without a wildcard: a type that Arrow adds does not compile here until
    /// the page has it.
    fn variant(data_type: &DataType) -> usize {
        match data_type {
            DataType::Null => 0,
            DataType::Boolean => 1,
            DataType::Int8 => 2,
            DataType::Int16 => 3,
            DataType::Int32 => 4,
            DataType::Int64 => 5,
            DataType::UInt8 => 6,
            DataType::UInt16 => 7,
            DataType::UInt32 => 8,
            DataType::UInt64 => 9,
            DataType::Float16 => 10,
            DataType::Float32 => 11,
            DataType::Float64 => 12,
            DataType::Timestamp(..) => 13,
            DataType::Date32 => 14,
            DataType::Date64 => 15,
            DataType::Time32(_) => 16,
            DataType::Time64(_) => 17,
            DataType::Duration(_) => 18,
            DataType::Interval(_) => 19,
            DataType::Binary => 20,
            DataType::FixedSizeBinary(_) => 21,
            DataType::LargeBinary => 22,
            DataType::BinaryView => 23,
            DataType::Utf8 => 24,
            DataType::LargeUtf8 => 25,
            DataType::Utf8View => 26,
            DataType::List(_) => 27,
            DataType::ListView(_) => 28,
            DataType::FixedSizeList(..) => 29,
            DataType::LargeList(_) => 30,
            DataType::LargeListView(_) => 31,
            DataType::Struct(_) => 32,
            DataType::Union(..) => 33,
            DataType::Dictionary(..) => 34,
            DataType::Decimal32(..) => 35,
            DataType::Decimal64(..) => 36,
            DataType::Decimal128(..) => 37,
            DataType::Decimal256(..) => 38,
            DataType::Map(..) => 39,
            DataType::RunEndEncoded(..) => 40,
        }
    }
}
