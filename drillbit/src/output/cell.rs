//! One value as text: scalars as people write them, lists and structs as JSON.

use std::{fmt::Write as _, sync::Arc};

use arrow::{
    array::{Array, RecordBatch},
    buffer::NullBuffer,
    datatypes::{DataType, Field, FieldRef},
    error::ArrowError,
    json::writer::{Encoder, EncoderFactory, EncoderOptions, NullableEncoder, make_encoder},
    util::display::{ArrayFormatter, FormatOptions},
};

// Drill's DATE arrives as Date64 at midnight.
const DATE: &str = "%Y-%m-%d";
const TIME: &str = "%H:%M:%S%.f";
const TIMESTAMP: &str = "%Y-%m-%d %H:%M:%S%.f";
const TIMESTAMP_JSON: &str = "%Y-%m-%dT%H:%M:%S%.f";
const TIMESTAMP_TZ_JSON: &str = "%Y-%m-%dT%H:%M:%S%.f%:z";

/// Formats the cells of one column of one batch.
pub(crate) struct Column<'a> {
    /// Also the NULLs that dictionaries and runs keep in their values.
    nulls: Option<NullBuffer>,
    shape: Shape<'a>,
}

enum Shape<'a> {
    Scalar(ArrayFormatter<'a>),
    Nested(Box<NullableEncoder<'a>>, Vec<u8>),
}

impl<'a> Column<'a> {
    /// # Errors
    /// The type has no text form.
    pub(crate) fn try_new(
        field: &'a FieldRef,
        array: &'a dyn Array,
        json: &'a EncoderOptions,
    ) -> Result<Self, ArrowError> {
        let shape = if array.data_type().is_nested() && !is_display_only(array.data_type()) {
            Shape::Nested(Box::new(make_encoder(field, array, json)?), Vec::new())
        } else {
            Shape::Scalar(ArrayFormatter::try_new(array, &text_options())?)
        };
        Ok(Self {
            nulls: array.logical_nulls(),
            shape,
        })
    }

    /// Appends the value of `row` to `text`; `false` and nothing appended for NULL.
    ///
    /// # Errors
    /// The value has no text form, for instance a date beyond the calendar.
    pub(crate) fn write(&mut self, row: usize, text: &mut String) -> Result<bool, ArrowError> {
        if self.nulls.as_ref().is_some_and(|nulls| nulls.is_null(row)) {
            return Ok(false);
        }
        match &mut self.shape {
            Shape::Scalar(formatter) => formatter.value(row).write(text)?,
            Shape::Nested(encoder, json) => {
                json.clear();
                encoder.encode(row, json);
                text.push_str(&String::from_utf8_lossy(json));
            }
        }
        Ok(true)
    }
}

/// Formatters for all columns of `batch`.
///
/// # Errors
/// A column's type has no text form.
pub(crate) fn columns<'a>(
    batch: &'a RecordBatch,
    json: &'a EncoderOptions,
) -> Result<Vec<Column<'a>>, ArrowError> {
    let schema = batch.schema_ref();
    let pairs = schema.fields().iter().zip(batch.columns());
    pairs
        .map(|(field, array)| Column::try_new(field, array.as_ref(), json))
        .collect()
}

/// How values look inside JSON: every key present, ISO 8601 times, hexadecimal binary.
pub(crate) fn json_options() -> EncoderOptions {
    EncoderOptions::default()
        .with_explicit_nulls(true)
        .with_date_format(DATE.to_owned())
        .with_datetime_format(DATE.to_owned())
        .with_time_format(TIME.to_owned())
        .with_timestamp_format(TIMESTAMP_JSON.to_owned())
        .with_timestamp_tz_format(TIMESTAMP_TZ_JSON.to_owned())
        .with_encoder_factory(Arc::new(DisplayFactory))
}

fn text_options() -> FormatOptions<'static> {
    FormatOptions::new()
        .with_display_error(false)
        .with_date_format(Some(DATE))
        .with_datetime_format(Some(DATE))
        .with_time_format(Some(TIME))
        .with_timestamp_format(Some(TIMESTAMP))
}

/// Types that arrow's JSON encoder refuses; their display form stands in.
fn is_display_only(data_type: &DataType) -> bool {
    match data_type {
        DataType::Union(..) => true,
        DataType::Map(entries, _) => !has_string_keys(entries),
        _ => false,
    }
}

fn has_string_keys(entries: &Field) -> bool {
    let DataType::Struct(fields) = entries.data_type() else {
        return false;
    };
    let key = fields.first().map(|field| field.data_type());
    matches!(
        key,
        Some(DataType::Utf8 | DataType::LargeUtf8 | DataType::Utf8View)
    )
}

#[derive(Debug)]
struct DisplayFactory;

impl EncoderFactory for DisplayFactory {
    fn make_default_encoder<'a>(
        &self,
        _field: &'a FieldRef,
        array: &'a dyn Array,
        _options: &'a EncoderOptions,
    ) -> Result<Option<NullableEncoder<'a>>, ArrowError> {
        if !is_display_only(array.data_type()) {
            return Ok(None);
        }
        let formatter = ArrayFormatter::try_new(array, &text_options())?;
        Ok(Some(NullableEncoder::new(
            Box::new(Display(formatter)),
            array.nulls().cloned(),
        )))
    }
}

/// The display form as a JSON string.
struct Display<'a>(ArrayFormatter<'a>);

impl Encoder for Display<'_> {
    fn encode(&mut self, row: usize, out: &mut Vec<u8>) {
        let mut text = String::new();
        // The trait cannot report an error; a value that has no form shows as what is wrong with
        // it.
        if let Err(error) = self.0.value(row).write(&mut text) {
            let _ = write!(text, "{error}");
        }
        out.extend_from_slice(serde_json::Value::from(text).to_string().as_bytes());
    }
}
