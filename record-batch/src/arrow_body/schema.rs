//! The schema of a stream, from its flatbuffer.
// wire: https://github.com/apache/arrow/blob/main/format/Schema.fbs

use std::{collections::HashMap, sync::Arc};

use arrow::{
    datatypes::{
        DataType, Field, FieldRef, Fields, IntervalUnit, Schema, SchemaRef, TimeUnit, UnionFields,
        UnionMode,
    },
    ipc::{self, Endianness, Precision, Type},
};

use super::error::ArrowBodyError;

/// A schema, and which dictionary stands behind which of its columns.
#[derive(Debug)]
pub(super) struct StreamSchema {
    pub(super) schema: SchemaRef,
    /// Of the dictionary columns, depth first, but for those inside of dictionaries.
    pub(super) ids: Vec<i64>,
    pub(super) dictionaries: HashMap<i64, Dictionary>,
}

/// What the batches of one dictionary hold.
#[derive(Debug)]
pub(super) struct Dictionary {
    pub(super) values: FieldRef,
    /// Of the dictionary columns inside of the values, depth first.
    pub(super) ids: Vec<i64>,
}

impl StreamSchema {
    pub(super) fn read(schema: ipc::Schema<'_>, depth_max: usize) -> Result<Self, ArrowBodyError> {
        if schema.endianness() != Endianness::Little {
            return Err(ArrowBodyError::Malformed("a schema of big-endian data"));
        }
        let mut reader = Reader {
            depth_max,
            path: Vec::new(),
            ids: Vec::new(),
            dictionaries: HashMap::new(),
        };
        let fields = schema.fields().into_iter().flatten();
        let fields: Vec<_> = fields
            .map(|field| reader.field(field))
            .collect::<Result<_, _>>()?;
        let metadata = metadata(schema.custom_metadata());
        Ok(Self {
            schema: Arc::new(Schema::new_with_metadata(fields, metadata)),
            ids: reader.ids,
            dictionaries: reader.dictionaries,
        })
    }
}

fn metadata<'a>(
    pairs: Option<impl IntoIterator<Item = ipc::KeyValue<'a>>>,
) -> HashMap<String, String> {
    let pairs = pairs.into_iter().flatten();
    pairs
        .filter_map(|pair| Some((pair.key()?.to_owned(), pair.value()?.to_owned())))
        .collect()
}

struct Reader {
    depth_max: usize,
    /// Names down to the field that is being read.
    path: Vec<String>,
    /// Dictionaries found so far on this level of dictionaries.
    ids: Vec<i64>,
    dictionaries: HashMap<i64, Dictionary>,
}

impl Reader {
    fn field(&mut self, field: ipc::Field<'_>) -> Result<FieldRef, ArrowBodyError> {
        let name = field.name().unwrap_or_default();
        self.path.push(name.to_owned());
        if self.path.len() > self.depth_max {
            return Err(self.problem("nested too deep"));
        }
        let data_type = match field.dictionary() {
            Some(dictionary) => self.dictionary(field, dictionary)?,
            None => self.data_type(field)?,
        };
        self.path.pop();
        let ordered = field
            .dictionary()
            .is_some_and(|dictionary| dictionary.isOrdered());
        let field = Field::new(name, data_type, field.nullable())
            .with_dict_is_ordered(ordered)
            .with_metadata(metadata(field.custom_metadata()));
        Ok(Arc::new(field))
    }

    fn problem(&self, problem: &'static str) -> ArrowBodyError {
        let column = self.path.join(".");
        ArrowBodyError::Type { column, problem }
    }

    fn dictionary(
        &mut self,
        field: ipc::Field<'_>,
        encoding: ipc::DictionaryEncoding<'_>,
    ) -> Result<DataType, ArrowBodyError> {
        let id = encoding.id();
        self.ids.push(id);
        let outer = std::mem::take(&mut self.ids);
        let values = self.data_type(field)?;
        let ids = std::mem::replace(&mut self.ids, outer);
        let keys = match encoding.indexType() {
            Some(index) => integer(index).ok_or_else(|| self.problem("keys of an odd width"))?,
            None => DataType::Int32,
        };
        let column = Arc::new(Field::new("dictionary", values.clone(), true));
        let dictionary = Dictionary {
            values: column,
            ids,
        };
        if self.dictionaries.insert(id, dictionary).is_some() {
            return Err(self.problem("two columns with one dictionary"));
        }
        Ok(DataType::Dictionary(Box::new(keys), Box::new(values)))
    }

    fn data_type(&mut self, field: ipc::Field<'_>) -> Result<DataType, ArrowBodyError> {
        if let Some(scalar) = scalar(field) {
            return Ok(scalar);
        }
        match field.type_type() {
            Type::List => Ok(DataType::List(self.only_child(field)?)),
            Type::LargeList => Ok(DataType::LargeList(self.only_child(field)?)),
            Type::ListView => Ok(DataType::ListView(self.only_child(field)?)),
            Type::LargeListView => Ok(DataType::LargeListView(self.only_child(field)?)),
            Type::FixedSizeList => self.fixed_size_list(field),
            Type::Struct_ => Ok(DataType::Struct(self.children(field)?)),
            Type::Map => self.map(field),
            Type::RunEndEncoded => self.run_end_encoded(field),
            Type::Union => self.union(field),
            _ => Err(self.problem("no type that Arrow arrays have")),
        }
    }

    fn children(&mut self, field: ipc::Field<'_>) -> Result<Fields, ArrowBodyError> {
        let children = field.children().into_iter().flatten();
        children.map(|child| self.field(child)).collect()
    }

    fn only_child(&mut self, field: ipc::Field<'_>) -> Result<FieldRef, ArrowBodyError> {
        match &*self.children(field)? {
            [child] => Ok(Arc::clone(child)),
            _ => Err(self.problem("expected one child")),
        }
    }

    fn fixed_size_list(&mut self, field: ipc::Field<'_>) -> Result<DataType, ArrowBodyError> {
        let width = field
            .type_as_fixed_size_list()
            .map_or(-1, |list| list.listSize());
        if width < 0 {
            return Err(self.problem("a list of negative width"));
        }
        Ok(DataType::FixedSizeList(self.only_child(field)?, width))
    }

    fn map(&mut self, field: ipc::Field<'_>) -> Result<DataType, ArrowBodyError> {
        let sorted = field.type_as_map().is_some_and(|map| map.keysSorted());
        let entries = self.only_child(field)?;
        match entries.data_type() {
            DataType::Struct(members) if members.len() == 2 => Ok(DataType::Map(entries, sorted)),
            _ => Err(self.problem("a map without keys and values")),
        }
    }

    fn run_end_encoded(&mut self, field: ipc::Field<'_>) -> Result<DataType, ArrowBodyError> {
        match &*self.children(field)? {
            [ends, values] if ends.data_type().is_run_ends_type() => Ok(DataType::RunEndEncoded(
                Arc::clone(ends),
                Arc::clone(values),
            )),
            _ => Err(self.problem("expected run ends and values")),
        }
    }

    fn union(&mut self, field: ipc::Field<'_>) -> Result<DataType, ArrowBodyError> {
        let union = field.type_as_union();
        let union = union.ok_or_else(|| self.problem("a union without a mode"))?;
        let mode = match union.mode() {
            ipc::UnionMode::Sparse => UnionMode::Sparse,
            ipc::UnionMode::Dense => UnionMode::Dense,
            _ => return Err(self.problem("a union of an unknown mode")),
        };
        let children = self.children(field)?;
        let ids: Vec<i8> = match union.typeIds() {
            Some(ids) => ids
                .iter()
                .map(|id| i8::try_from(id).unwrap_or(-1))
                .collect(),
            None => (0..=i8::MAX).take(children.len()).collect(),
        };
        if ids.len() != children.len() {
            return Err(self.problem("expected one type id for each child"));
        }
        let fields = UnionFields::try_new(ids, children.iter().cloned());
        let fields = fields.map_err(|_| self.problem("type ids that are none, or not unique"))?;
        Ok(DataType::Union(fields, mode))
    }
}

fn scalar(field: ipc::Field<'_>) -> Option<DataType> {
    Some(match field.type_type() {
        Type::Null => DataType::Null,
        Type::Bool => DataType::Boolean,
        Type::Int => integer(field.type_as_int()?)?,
        Type::FloatingPoint => float(field.type_as_floating_point()?.precision())?,
        Type::Utf8 => DataType::Utf8,
        Type::LargeUtf8 => DataType::LargeUtf8,
        Type::Utf8View => DataType::Utf8View,
        Type::Binary => DataType::Binary,
        Type::LargeBinary => DataType::LargeBinary,
        Type::BinaryView => DataType::BinaryView,
        Type::FixedSizeBinary => {
            let width = field.type_as_fixed_size_binary()?.byteWidth();
            DataType::FixedSizeBinary((width >= 0).then_some(width)?)
        }
        Type::Decimal => decimal(field.type_as_decimal()?)?,
        Type::Date => match field.type_as_date()?.unit() {
            ipc::DateUnit::DAY => DataType::Date32,
            ipc::DateUnit::MILLISECOND => DataType::Date64,
            _ => return None,
        },
        Type::Time => time(field.type_as_time()?)?,
        Type::Timestamp => {
            let timestamp = field.type_as_timestamp()?;
            // An empty zone means none.
            let zone = timestamp.timezone().filter(|zone| !zone.is_empty());
            DataType::Timestamp(unit(timestamp.unit())?, zone.map(Into::into))
        }
        Type::Duration => DataType::Duration(unit(field.type_as_duration()?.unit())?),
        Type::Interval => DataType::Interval(interval(field.type_as_interval()?.unit())?),
        _ => return None,
    })
}

fn integer(integer: ipc::Int<'_>) -> Option<DataType> {
    Some(match (integer.bitWidth(), integer.is_signed()) {
        (8, true) => DataType::Int8,
        (16, true) => DataType::Int16,
        (32, true) => DataType::Int32,
        (64, true) => DataType::Int64,
        (8, false) => DataType::UInt8,
        (16, false) => DataType::UInt16,
        (32, false) => DataType::UInt32,
        (64, false) => DataType::UInt64,
        _ => return None,
    })
}

fn float(precision: Precision) -> Option<DataType> {
    match precision {
        Precision::HALF => Some(DataType::Float16),
        Precision::SINGLE => Some(DataType::Float32),
        Precision::DOUBLE => Some(DataType::Float64),
        _ => None,
    }
}

/// Digits that fit into each width, as Arrow's own types have them.
fn decimal(decimal: ipc::Decimal<'_>) -> Option<DataType> {
    let precision = u8::try_from(decimal.precision()).ok()?;
    let scale = i8::try_from(decimal.scale()).ok()?;
    let (digits_max, data_type) = match decimal.bitWidth() {
        32 => (9, DataType::Decimal32(precision, scale)),
        64 => (18, DataType::Decimal64(precision, scale)),
        128 => (38, DataType::Decimal128(precision, scale)),
        256 => (76, DataType::Decimal256(precision, scale)),
        _ => return None,
    };
    let scale_fits = scale <= 0 || scale.unsigned_abs() <= precision;
    let fits = (1..=digits_max).contains(&precision) && scale_fits;
    (fits && scale.unsigned_abs() <= digits_max).then_some(data_type)
}

fn time(time: ipc::Time<'_>) -> Option<DataType> {
    match (time.bitWidth(), unit(time.unit())?) {
        (32, unit @ (TimeUnit::Second | TimeUnit::Millisecond)) => Some(DataType::Time32(unit)),
        (64, unit @ (TimeUnit::Microsecond | TimeUnit::Nanosecond)) => Some(DataType::Time64(unit)),
        _ => None,
    }
}

fn unit(unit: ipc::TimeUnit) -> Option<TimeUnit> {
    match unit {
        ipc::TimeUnit::SECOND => Some(TimeUnit::Second),
        ipc::TimeUnit::MILLISECOND => Some(TimeUnit::Millisecond),
        ipc::TimeUnit::MICROSECOND => Some(TimeUnit::Microsecond),
        ipc::TimeUnit::NANOSECOND => Some(TimeUnit::Nanosecond),
        _ => None,
    }
}

fn interval(unit: ipc::IntervalUnit) -> Option<IntervalUnit> {
    match unit {
        ipc::IntervalUnit::YEAR_MONTH => Some(IntervalUnit::YearMonth),
        ipc::IntervalUnit::DAY_TIME => Some(IntervalUnit::DayTime),
        ipc::IntervalUnit::MONTH_DAY_NANO => Some(IntervalUnit::MonthDayNano),
        _ => None,
    }
}
