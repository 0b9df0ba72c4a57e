//! What becomes of one Arrow field. A plan is made once per schema ([`super::planning`]) and writes
//! the column's vectors batch by batch.

use arrow::{
    array::{Array, ArrayRef, new_empty_array},
    buffer::NullBuffer,
    datatypes::DataType,
};
use protos::{common::MinorType, shared::SerializedField};

use super::{convert, nested, scalar};
use crate::{
    body::Body,
    drill_type::DrillType,
    error::{EncodeError, EncodeProblem},
};

/// The way of one field to the wire.
#[derive(Clone, Debug)]
pub(super) struct Plan {
    /// The vector's name: the column's, or the one that the layout gives it.
    pub(super) name: String,
    /// The field's type, as batches must bring it.
    pub(super) source: DataType,
    /// Whether a scalar is OPTIONAL also in a batch without nulls.
    pub(super) nullable: bool,
    /// The vector's type; the mode of a scalar is decided batch by batch.
    pub(super) drill: DrillType,
    pub(super) layout: Layout,
}

/// The layouts of Drill's vectors.
#[derive(Clone, Debug)]
pub(super) enum Layout {
    Scalar,
    Map(Vec<Plan>),
    RepeatedMap(Vec<Plan>),
    /// Scalars, arrays or dictionaries.
    Repeated(Box<Plan>),
    List(Box<Plan>),
    /// Key and value.
    Dict(Box<[Plan; 2]>),
    Union(Vec<Member>),
}

/// A type that a union's rows may have.
#[derive(Clone, Debug)]
pub(super) struct Member {
    /// Arrow's number of the type in this union.
    pub(super) type_id: i8,
    /// Drill's, in every union.
    pub(super) ordinal: i8,
    pub(super) plan: Plan,
}

impl Plan {
    /// Appends the column's vectors to `body` and describes them. Rows that are null in `outer`,
    /// the surrounding map or union, are null here.
    pub(super) fn write(
        &self,
        array: &ArrayRef,
        outer: Option<&NullBuffer>,
        body: &mut Body,
    ) -> Result<SerializedField, EncodeError> {
        let source = array;
        let array = self
            .plain(source)
            .map_err(|problem| self.refused(problem))?;
        match &self.layout {
            Layout::Scalar => convert::to_wire_form(&array, self.drill.minor)
                .and_then(|array| scalar::write(self, &array, outer, body))
                .map_err(|problem| self.refused(problem)),
            Layout::Map(members) => nested::map(self, members, &array, outer, body),
            Layout::RepeatedMap(members) => {
                nested::repeated_map(self, members, &array, outer, body)
            }
            Layout::Repeated(item) => nested::repeated(self, item, &array, outer, body),
            Layout::List(item) => nested::list(self, item, &array, outer, body),
            Layout::Dict(pair) => nested::dict(self, pair, &array, outer, body),
            Layout::Union(members) => {
                // A union has no validity, so that of a dictionary around it is not in `array`.
                let nulls = NullBuffer::union(outer, source.logical_nulls().as_ref());
                nested::union(self, members, &array, nulls.as_ref(), body)
            }
        }
    }

    /// The descriptor of the column without rows.
    pub(super) fn empty(&self) -> Result<SerializedField, EncodeError> {
        self.write(&new_empty_array(&self.source), None, &mut Body::default())
    }

    pub(super) fn is_scalar(&self) -> bool {
        matches!(self.layout, Layout::Scalar)
    }

    /// Whether the field says nothing about its values but that there are none.
    pub(super) fn is_untyped(&self) -> bool {
        self.source == DataType::Null && self.drill.minor != MinorType::Null
    }

    /// The problem as one of this column.
    pub(super) fn refused(&self, problem: EncodeProblem) -> EncodeError {
        EncodeError::column(&self.name, &self.source, problem)
    }

    /// The array without dictionaries and runs around it.
    fn plain(&self, array: &ArrayRef) -> Result<ArrayRef, EncodeProblem> {
        if array.data_type().equals_datatype(&self.source) {
            return convert::expand(array);
        }
        Err(EncodeProblem::Mismatch {
            expected: self.source.clone(),
            actual: array.data_type().clone(),
        })
    }
}
