//! From Arrow fields to plans: which Drill type and layout a field gets, or why it gets none.

use arrow::datatypes::{DataType, Field, FieldRef, Fields, UnionFields};
use protos::common::{DataMode, MinorType};

use super::plan::{Layout, Member, Plan};
use crate::{
    drill_type::{DrillType, ordinal},
    error::{EncodeError, EncodeProblem},
    mapping, metadata, names,
};

/// Deepest nesting of fields. Drill's readers parse descriptors recursively, and protobuf readers
/// stop at 100 levels of messages, of which an Arrow level takes up to two.
const DEPTH_MAX: usize = 32;

/// Plans a column.
pub(super) fn column(field: &Field) -> Result<Plan, EncodeError> {
    let top = Place {
        depth: DEPTH_MAX,
        in_nullable: false,
        in_list: false,
    };
    plan(field, top)
}

/// Where a field stands.
#[derive(Clone, Copy)]
struct Place {
    /// Levels that may still follow.
    depth: usize,
    /// Whether a surrounding map is nullable: it has no validity, its members must say it.
    in_nullable: bool,
    /// Whether a LIST or UNION holds the field: Drill's have no REPEATED vectors inside.
    in_list: bool,
}

impl Place {
    /// One level down.
    fn inside(self) -> Result<Self, EncodeProblem> {
        Ok(Self {
            depth: self.depth.checked_sub(1).ok_or(EncodeProblem::TooDeep)?,
            in_nullable: false,
            in_list: false,
        })
    }

    fn in_map(self, in_nullable: bool) -> Self {
        Self {
            in_nullable,
            ..self
        }
    }

    fn in_list(self) -> Self {
        Self {
            in_list: true,
            ..self
        }
    }
}

fn plan(field: &Field, place: Place) -> Result<Plan, EncodeError> {
    let refused = |problem| EncodeError::column(field.name(), field.data_type(), problem);
    let inner = place.inside().map_err(refused)?;
    let planned = match expanded(field.data_type()) {
        DataType::Struct(fields) => map(
            field,
            fields,
            inner.in_map(place.in_nullable || field.is_nullable()),
        ),
        DataType::List(item)
        | DataType::LargeList(item)
        | DataType::FixedSizeList(item, _)
        | DataType::ListView(item)
        | DataType::LargeListView(item) => array(field, item, inner, place.in_list),
        DataType::Map(entries, _) => match entries.data_type() {
            DataType::Struct(pair) => dict(field, pair, inner),
            _ => return Err(refused(mapping::NO_LAYOUT)),
        },
        DataType::Union(fields, _) => union(field, fields, inner),
        _ => return scalar(field, place.in_nullable).map_err(refused),
    };
    planned.map_err(|error| error.inside(field.name()))
}

fn scalar(field: &Field, in_nullable: bool) -> Result<Plan, EncodeProblem> {
    Ok(Plan {
        name: field.name().clone(),
        source: field.data_type().clone(),
        nullable: field.is_nullable() || in_nullable || *field.data_type() == DataType::Null,
        drill: scalar_type(field)?,
        layout: Layout::Scalar,
    })
}

fn nested(field: &Field, minor: MinorType, mode: DataMode, layout: Layout) -> Plan {
    Plan {
        name: field.name().clone(),
        source: field.data_type().clone(),
        nullable: field.is_nullable(),
        drill: declared(field, minor, mode),
        layout,
    }
}

fn map(field: &Field, fields: &Fields, inner: Place) -> Result<Plan, EncodeError> {
    let members = fields
        .iter()
        .map(|member| plan(member, inner))
        .collect::<Result<_, _>>()?;
    let mode = mode_or(field, DataMode::Required);
    Ok(nested(field, MinorType::Map, mode, Layout::Map(members)))
}

/// An array per row: a REPEATED vector where neither a row nor an element can be null, which has no
/// place for one, else a LIST.
fn array(field: &Field, item: &FieldRef, inner: Place, in_list: bool) -> Result<Plan, EncodeError> {
    let asked = metadata::mode(field.metadata()) == Some(DataMode::Repeated);
    let never_null = !field.is_nullable() && !item.is_nullable();
    match expanded(item.data_type()) {
        // Neither has a REPEATED vector.
        DataType::Union(..) | DataType::Null => list(field, item, inner),
        _ if !in_list && (never_null || asked) => repeated(field, item, inner),
        _ => list(field, item, inner),
    }
}

/// The elements' scalars are always nullable, and the names are Drill's.
fn list(field: &Field, item: &FieldRef, inner: Place) -> Result<Plan, EncodeError> {
    let item = plan(item, inner.in_list())?;
    let name = match item.layout {
        Layout::Union(_) => names::UNION,
        _ => names::DATA,
    };
    let item = Plan {
        name: name.to_owned(),
        nullable: true,
        ..item
    };
    let mode = mode_or(field, DataMode::Optional);
    Ok(nested(
        field,
        MinorType::List,
        mode,
        Layout::List(Box::new(item)),
    ))
}

fn repeated(field: &Field, item: &FieldRef, inner: Place) -> Result<Plan, EncodeError> {
    let named_as_column = metadata::is_named_as_column(item.metadata());
    let mut item = plan(item, inner)?;
    let (minor, name) = match item.layout {
        Layout::Map(members) => {
            let layout = Layout::RepeatedMap(members);
            return Ok(nested(field, MinorType::Map, DataMode::Repeated, layout));
        }
        Layout::Scalar => return Ok(repeated_scalar(field, item)),
        Layout::Dict(_) => (MinorType::Dict, names::INNER),
        _ if named_as_column => (MinorType::List, field.name().as_str()),
        _ => (MinorType::List, names::DATA),
    };
    name.clone_into(&mut item.name);
    Ok(nested(
        field,
        minor,
        DataMode::Repeated,
        Layout::Repeated(Box::new(item)),
    ))
}

/// wire: golden/user/complex, the inner vector says `precision: 0 scale: 0` where the outer one
/// says nothing; both say those of a decimal
fn repeated_scalar(field: &Field, mut item: Plan) -> Plan {
    names::DATA.clone_into(&mut item.name);
    item.nullable = false;
    let mut drill = declared(field, item.drill.minor, DataMode::Repeated);
    if drill.minor == MinorType::Vardecimal {
        (drill.precision, drill.scale) = (item.drill.precision, item.drill.scale);
    }
    item.drill.precision.get_or_insert(0);
    item.drill.scale.get_or_insert(0);
    Plan {
        name: field.name().clone(),
        source: field.data_type().clone(),
        nullable: field.is_nullable(),
        drill,
        layout: Layout::Repeated(Box::new(item)),
    }
}

fn dict(field: &Field, pair: &Fields, inner: Place) -> Result<Plan, EncodeError> {
    let (key, value) = (plan(&pair[0], inner)?, plan(&pair[1], inner)?);
    if !key.is_scalar() {
        return Err(key.refused(EncodeProblem::NoDrillType {
            reason: "the keys of a DICT are scalars",
        }));
    }
    let key = Plan {
        name: names::KEY.to_owned(),
        nullable: metadata::mode(pair[0].metadata()) == Some(DataMode::Optional),
        ..key
    };
    let value = Plan {
        name: names::VALUE.to_owned(),
        ..value
    };
    let mode = mode_or(field, DataMode::Required);
    Ok(nested(
        field,
        MinorType::Dict,
        mode,
        Layout::Dict(Box::new([key, value])),
    ))
}

fn union(field: &Field, fields: &UnionFields, inner: Place) -> Result<Plan, EncodeError> {
    let mut members: Vec<Member> = Vec::new();
    // A row of type Null is simply null.
    let typed = fields
        .iter()
        .filter(|(_, field)| *field.data_type() != DataType::Null);
    for (type_id, field) in typed {
        members.push(member(type_id, field, inner, &members)?);
    }
    let sub_types = members
        .iter()
        .map(|member| member.plan.drill.minor)
        .collect();
    let mode = mode_or(field, DataMode::Optional);
    let mut union = nested(field, MinorType::Union, mode, Layout::Union(members));
    if !field.metadata().contains_key(metadata::SUB_TYPES) {
        union.drill.sub_types = sub_types;
    }
    Ok(union)
}

/// wire: members are named by their type, in lower case, and all are OPTIONAL
fn member(
    type_id: i8,
    field: &Field,
    union: Place,
    others: &[Member],
) -> Result<Member, EncodeError> {
    let mut plan = plan(field, union.in_list())?;
    let ordinal = ordinal(plan.drill.minor);
    if others.iter().any(|other| other.ordinal == ordinal) {
        return Err(plan.refused(EncodeProblem::NoDrillType {
            reason: "a union has one member of a Drill type",
        }));
    }
    plan.name = plan.drill.minor.as_str_name().to_lowercase();
    plan.nullable = true;
    if plan.drill.minor == MinorType::Map {
        plan.drill.mode = DataMode::Optional;
    }
    Ok(Member {
        type_id,
        ordinal,
        plan,
    })
}

/// The mode that the field asks for, of those two that its layout does not tell apart.
fn mode_or(field: &Field, usual: DataMode) -> DataMode {
    let asked = metadata::mode(field.metadata());
    asked
        .filter(|&mode| mode != DataMode::Repeated)
        .unwrap_or(usual)
}

fn scalar_type(field: &Field) -> Result<DrillType, EncodeProblem> {
    let data_type = expanded(field.data_type());
    let metadata = field.metadata();
    let minor = mapping::drill_scalar_as(data_type, metadata::minor_type(metadata))?;
    let mode = metadata::mode(metadata).filter(|_| minor == MinorType::Null);
    let drill = declared(field, minor, mode.unwrap_or(DataMode::Optional));
    if minor != MinorType::Vardecimal {
        return Ok(drill);
    }
    let (precision, scale) = mapping::vardecimal(data_type)?.unzip();
    Ok(DrillType {
        precision: precision.map(i32::from),
        scale: scale.map(i32::from),
        ..drill
    })
}

/// The type, with what the field's metadata says beyond it.
fn declared(field: &Field, minor: MinorType, mode: DataMode) -> DrillType {
    let number = |key| metadata::number(field.metadata(), key);
    DrillType {
        minor,
        mode,
        width: number(metadata::WIDTH),
        precision: number(metadata::PRECISION),
        scale: number(metadata::SCALE),
        time_zone: number(metadata::TIME_ZONE),
        sub_types: metadata::sub_types(field.metadata()),
    }
}

/// The type of the values behind dictionaries and runs.
fn expanded(data_type: &DataType) -> &DataType {
    match data_type {
        DataType::Dictionary(_, values) => expanded(values),
        DataType::RunEndEncoded(_, values) => expanded(values.data_type()),
        plain => plain,
    }
}
