//! Vectors of vectors, with the validity of what has none of its own pushed down to the members.
// wire: golden/user/complex; drill@051b164 exec/vector/src/main/java/.../vector/complex/

use arrow::{
    array::{Array, ArrayRef, AsArray, Int32Array, UnionArray, new_null_array},
    buffer::NullBuffer,
    compute::take,
};
use protos::{
    common::{DataMode, MajorType, MinorType},
    shared::SerializedField,
};

use super::{
    convert,
    lists::{self, Elements},
    plan::{Member, Plan},
    scalar, variable,
};
use crate::{
    body::{Body, descriptor, helper, saturating},
    drill_type::DrillType,
    error::{EncodeError, EncodeProblem},
    names,
};

type Written = Result<SerializedField, EncodeError>;

pub(super) fn map(
    plan: &Plan,
    members: &[Plan],
    array: &ArrayRef,
    outer: Option<&NullBuffer>,
    body: &mut Body,
) -> Written {
    let start = body.len();
    let nulls = NullBuffer::union(outer, array.nulls());
    let children = columns(
        plan,
        members,
        array.as_struct().columns(),
        nulls.as_ref(),
        body,
    )?;
    Ok(described(plan, array.len(), start, children, body))
}

fn columns(
    plan: &Plan,
    members: &[Plan],
    columns: &[ArrayRef],
    nulls: Option<&NullBuffer>,
    body: &mut Body,
) -> Result<Vec<SerializedField>, EncodeError> {
    let written = members.iter().zip(columns).map(|(member, column)| {
        member
            .write(column, nulls, body)
            .map_err(|error| error.inside(&plan.name))
    });
    written.collect()
}

fn described(
    plan: &Plan,
    rows: usize,
    start: usize,
    children: Vec<SerializedField>,
    body: &Body,
) -> SerializedField {
    descriptor(&plan.name, &plan.drill, rows, body.len() - start, children)
}

/// The rows' elements, none in a null row, which the vector cannot tell from an empty one; their
/// offsets are written.
fn elements(
    plan: &Plan,
    array: &ArrayRef,
    outer: Option<&NullBuffer>,
    body: &mut Body,
) -> Result<(SerializedField, ArrayRef), EncodeError> {
    let nulls = NullBuffer::union(outer, array.nulls());
    let elements = lists::of(array).and_then(|elements| elements.without_null_rows(nulls.as_ref()));
    let Elements { offsets, values } = elements.map_err(|problem| plan.refused(problem))?;
    let offsets =
        variable::push_offsets(&offsets, body).map_err(|problem| plan.refused(problem))?;
    Ok((offsets, values))
}

pub(super) fn repeated_map(
    plan: &Plan,
    members: &[Plan],
    array: &ArrayRef,
    outer: Option<&NullBuffer>,
    body: &mut Body,
) -> Written {
    let start = body.len();
    let (offsets, values) = elements(plan, array, outer, body)?;
    let values = convert::expand(&values).map_err(|problem| plan.refused(problem))?;
    let nulls = values.nulls();
    let members = columns(plan, members, values.as_struct().columns(), nulls, body)?;
    let children = std::iter::once(offsets).chain(members).collect();
    Ok(described(plan, array.len(), start, children, body))
}

pub(super) fn repeated(
    plan: &Plan,
    item: &Plan,
    array: &ArrayRef,
    outer: Option<&NullBuffer>,
    body: &mut Body,
) -> Written {
    let start = body.len();
    let (offsets, values) = elements(plan, array, outer, body)?;
    let data_start = body.len();
    let data = item
        .write(&values, None, body)
        .map_err(|error| error.inside(&plan.name))?;
    let mode = data.major_type.as_ref().map(MajorType::mode);
    if item.is_scalar() && mode == Some(DataMode::Optional) {
        return Err(plan.refused(EncodeProblem::NullElement));
    }
    // wire: golden/user/complex, only repeated text, bytes and decimals say it
    let var_bytes = data
        .child
        .first()
        .filter(|_| is_variable(item.drill.minor))
        .map(|offsets| saturating(body.len() - data_start).saturating_sub(offsets.buffer_length()));
    let mut field = described(plan, array.len(), start, vec![offsets, data], body);
    field.var_byte_length = var_bytes;
    Ok(field)
}

fn is_variable(minor: MinorType) -> bool {
    matches!(
        minor,
        MinorType::Varchar | MinorType::Var16char | MinorType::Varbinary | MinorType::Vardecimal
    )
}

pub(super) fn list(
    plan: &Plan,
    item: &Plan,
    array: &ArrayRef,
    outer: Option<&NullBuffer>,
    body: &mut Body,
) -> Written {
    let start = body.len();
    let Elements { offsets, values } = lists::of(array).map_err(|problem| plan.refused(problem))?;
    let offsets =
        variable::push_offsets(&offsets, body).map_err(|problem| plan.refused(problem))?;
    let nulls = NullBuffer::union(outer, array.nulls());
    let bits = scalar::bits(array.len(), nulls.as_ref(), body);
    let data = if item.is_untyped() && values.is_empty() {
        let untyped = DrillType::new(MinorType::Late, DataMode::Optional);
        descriptor(names::UNTYPED, &untyped, 0, 0, Vec::new())
    } else {
        item.write(&values, None, body)
            .map_err(|error| error.inside(&plan.name))?
    };
    Ok(described(
        plan,
        array.len(),
        start,
        vec![offsets, bits, data],
        body,
    ))
}

pub(super) fn dict(
    plan: &Plan,
    pair: &[Plan; 2],
    array: &ArrayRef,
    outer: Option<&NullBuffer>,
    body: &mut Body,
) -> Written {
    let start = body.len();
    let (offsets, entries) = elements(plan, array, outer, body)?;
    let mut children = vec![offsets];
    for (member, column) in pair.iter().zip(entries.as_struct().columns()) {
        let written = member.write(column, None, body);
        children.push(written.map_err(|error| error.inside(&plan.name))?);
    }
    Ok(described(plan, array.len(), start, children, body))
}

/// A map of the rows' types and a nullable member for each, null in the rows of another type.
pub(super) fn union(
    plan: &Plan,
    members: &[Member],
    array: &ArrayRef,
    outer: Option<&NullBuffer>,
    body: &mut Body,
) -> Written {
    let start = body.len();
    let rows = array.len();
    let union = array.as_union();
    let mut types = vec![0_u8; rows];
    let columns: Vec<_> = members
        .iter()
        .map(|member| {
            let column = member_column(union, member.type_id)?;
            let own = rows_of(union, member.type_id, &column, outer);
            own.valid_indices()
                .for_each(|row| types[row] = member.ordinal.unsigned_abs());
            Ok((column, own))
        })
        .collect::<Result<_, _>>()
        .map_err(|problem| plan.refused(problem))?;
    body.push_vec(types);
    let mut children = vec![helper(names::TYPES, MinorType::Uint1, rows, rows)];
    for (member, (column, own)) in members.iter().zip(&columns) {
        let written = member.plan.write(column, Some(own), body);
        children.push(written.map_err(|error| error.inside(&plan.name))?);
    }
    let map = DrillType::new(MinorType::Map, DataMode::Required);
    let internal = descriptor(names::INTERNAL, &map, rows, body.len() - start, children);
    Ok(described(plan, rows, start, vec![internal], body))
}

/// The member's values, one per row.
fn member_column(union: &UnionArray, type_id: i8) -> Result<ArrayRef, EncodeProblem> {
    let values = union.child(type_id);
    let Some(offsets) = union.offsets() else {
        return Ok(values.clone());
    };
    // Where there is nothing to take, Arrow cannot take nulls of every type either.
    if values.is_empty() {
        return Ok(new_null_array(values.data_type(), union.len()));
    }
    let rows = union.type_ids().iter().zip(offsets.iter());
    let picks: Int32Array = rows
        .map(|(id, &at)| (*id == type_id).then_some(at))
        .collect();
    Ok(take(values, &picks, None)?)
}

/// The rows that are of the member's type and not null.
fn rows_of(
    union: &UnionArray,
    type_id: i8,
    column: &ArrayRef,
    outer: Option<&NullBuffer>,
) -> NullBuffer {
    let typed: NullBuffer = union.type_ids().iter().map(|id| *id == type_id).collect();
    let own = NullBuffer::union(Some(&typed), column.logical_nulls().as_ref());
    NullBuffer::union(own.as_ref(), outer).unwrap_or(typed)
}
