//! The columns of a result as Drill's clients know them: names, types, lengths, nullability.

use std::collections::HashMap;
use std::sync::Arc;

use arrow::array::{ArrayRef, AsArray, IntervalDayTimeArray, RecordBatch};
use arrow::compute::cast;
use arrow::datatypes::{
    DataType, DurationMillisecondType, Field, FieldRef, IntervalDayTime, IntervalDayTimeType,
    IntervalUnit, Schema, SchemaRef, TimeUnit,
};
use arrow::error::ArrowError;
use datafusion::common::ScalarValue;
use datafusion::logical_expr::{Expr, LogicalPlan};

use super::catalog::DISPLAY_NAME;
use super::sql::names::{OutputName, shown_names};

/// Key of the field metadata with the length of a VARCHAR.
pub(super) const PRECISION: &str = record_batch::metadata::PRECISION;

/// The shape of a result.
#[derive(Debug, Clone)]
pub(super) struct Output {
    schema: SchemaRef,
}

impl Output {
    /// `names` is the outermost SELECT list; `spelling` how the statement writes a name.
    pub(super) fn of(
        plan: &LogicalPlan,
        names: Option<&[OutputName]>,
        spelling: &HashMap<String, String>,
    ) -> Self {
        let fields = plan.schema().fields();
        let spelled = |index: usize| {
            let field = &fields[index];
            let own = field
                .metadata()
                .get(DISPLAY_NAME)
                .or_else(|| spelling.get(field.name()));
            own.unwrap_or_else(|| field.name()).clone()
        };
        let names = shown_names(names, fields.len(), spelled);
        let field =
            |(index, name): (usize, String)| shown_field(&fields[index], name, length(plan, index));
        let fields: Vec<Field> = names.into_iter().enumerate().map(field).collect();
        Self {
            schema: Arc::new(Schema::new(fields)),
        }
    }

    pub(super) fn schema(&self) -> &SchemaRef {
        &self.schema
    }

    /// The engine's batch in this shape; columns that have it already are not copied.
    pub(super) fn convert(&self, batch: &RecordBatch) -> Result<RecordBatch, ArrowError> {
        let columns = batch
            .columns()
            .iter()
            .zip(self.schema.fields())
            .map(|(column, field)| convert(column, field));
        let options =
            arrow::array::RecordBatchOptions::new().with_row_count(Some(batch.num_rows()));
        RecordBatch::try_new_with_options(
            Arc::clone(&self.schema),
            columns.collect::<Result<_, _>>()?,
            &options,
        )
    }
}

fn shown_field(field: &Field, name: String, length: Option<usize>) -> Field {
    let data_type = shown_type(field.data_type());
    let nullable = field.is_nullable() || *field.data_type() == DataType::Null;
    let known = field
        .metadata()
        .get(PRECISION)
        .cloned()
        .or_else(|| length.map(|length| length.to_string()));
    let metadata = known
        .filter(|_| data_type == DataType::Utf8)
        .map(|length| (PRECISION.to_owned(), length));
    Field::new(name, data_type, nullable).with_metadata(metadata.into_iter().collect())
}

/// Types that Drill's clients do not read become the next ones that they do.
fn shown_type(data_type: &DataType) -> DataType {
    match data_type {
        DataType::Null | DataType::Int8 | DataType::Int16 | DataType::UInt8 | DataType::UInt16 => {
            DataType::Int32
        }
        DataType::UInt32 | DataType::UInt64 => DataType::Int64,
        DataType::Float16 => DataType::Float32,
        DataType::Duration(_) => DataType::Interval(IntervalUnit::DayTime),
        DataType::Timestamp(_, Some(_)) => DataType::Timestamp(TimeUnit::Millisecond, None),
        DataType::Dictionary(_, values) => shown_type(values),
        other => other.clone(),
    }
}

fn convert(column: &ArrayRef, field: &FieldRef) -> Result<ArrayRef, ArrowError> {
    match (column.data_type(), field.data_type()) {
        (from, to) if from == to => Ok(Arc::clone(column)),
        (DataType::Duration(_), DataType::Interval(IntervalUnit::DayTime)) => day_time(column),
        (DataType::Timestamp(..), to) => cast(
            &cast(column, &DataType::Timestamp(TimeUnit::Millisecond, None))?,
            to,
        ),
        (_, to) => {
            let strict = arrow::compute::CastOptions {
                safe: false,
                ..Default::default()
            };
            arrow::compute::cast_with_options(column, to, &strict)
        }
    }
}

fn day_time(durations: &ArrayRef) -> Result<ArrayRef, ArrowError> {
    const DAY: i64 = 24 * 60 * 60 * 1000;
    let millis = cast(durations, &DataType::Duration(TimeUnit::Millisecond))?;
    let millis = millis.as_primitive::<DurationMillisecondType>();
    let intervals: IntervalDayTimeArray =
        millis.try_unary::<_, IntervalDayTimeType, ArrowError>(|millis| {
            let too_long =
                |_| ArrowError::ComputeError(format!("{millis} ms do not fit an interval"));
            let days = i32::try_from(millis / DAY).map_err(too_long)?;
            let rest = i32::try_from(millis % DAY).map_err(too_long)?;
            Ok(IntervalDayTime::new(days, rest))
        })?;
    Ok(Arc::new(intervals))
}

/// The length of a text literal that reaches the result as it is.
fn length(plan: &LogicalPlan, index: usize) -> Option<usize> {
    match plan {
        LogicalPlan::Projection(projection) => {
            literal_length(projection.expr.get(index)?, &projection.input)
        }
        LogicalPlan::Limit(limit) => length(&limit.input, index),
        LogicalPlan::Sort(sort) => length(&sort.input, index),
        LogicalPlan::SubqueryAlias(alias) => length(&alias.input, index),
        LogicalPlan::Filter(filter) => length(&filter.input, index),
        LogicalPlan::Values(values) => {
            let lengths = values
                .values
                .iter()
                .map(|row| literal_length(row.get(index)?, plan));
            lengths.collect::<Option<Vec<_>>>()?.into_iter().max()
        }
        _ => None,
    }
}

fn literal_length(expr: &Expr, input: &LogicalPlan) -> Option<usize> {
    match expr {
        Expr::Literal(ScalarValue::Utf8(Some(text)), _) => Some(text.chars().count()),
        Expr::Alias(alias) => literal_length(&alias.expr, input),
        Expr::Column(column) => length(input, input.schema().index_of_column(column).ok()?),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use arrow::array::{Array, DurationNanosecondArray, UInt64Array};

    fn converted(column: &ArrayRef) -> Result<ArrayRef, ArrowError> {
        let field = shown_field(
            &Field::new("x", column.data_type().clone(), true),
            "x".into(),
            None,
        );
        convert(column, &Arc::new(field))
    }

    #[test]
    fn unsigned_numbers_widen_and_never_wrap() {
        let widened = converted(&(Arc::new(UInt64Array::from(vec![7])) as ArrayRef)).expect("fits");
        assert_eq!(*widened.data_type(), DataType::Int64);
        assert!(converted(&(Arc::new(UInt64Array::from(vec![u64::MAX])) as ArrayRef)).is_err());
    }

    #[test]
    fn durations_become_days_and_milliseconds() {
        let durations = DurationNanosecondArray::from(vec![Some(-90_000_000_000_000), None]);
        let intervals = converted(&(Arc::new(durations) as ArrayRef)).expect("fits");
        assert_eq!(
            intervals.as_primitive::<IntervalDayTimeType>().value(0),
            IntervalDayTime::new(-1, -3_600_000)
        );
        assert!(intervals.is_null(1));
    }
}
