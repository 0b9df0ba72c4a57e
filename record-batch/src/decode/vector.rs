//! One vector: its descriptor, its piece of the body, and the layouts of scalars.
// wire: drill@051b164 exec/vector/src/main/codegen/templates/; golden/user/types

use arrow::{
    array::{ArrayRef, new_empty_array},
    buffer::NullBuffer,
    datatypes::{DataType, Field},
};
use protos::{
    common::{DataMode, MajorType, MinorType},
    shared::SerializedField,
};

use super::{DecodeOptions, count, fixed, nested, variable};
use crate::{
    checked::Region,
    drill_type::{self, DrillType},
    error::{At, VectorError},
    names, validity,
};

pub(super) type Decoded = Result<ArrayRef, At<VectorError>>;

/// A descriptor whose numbers are counts and whose type exists.
pub(super) struct Vector<'a> {
    pub(super) name: &'a str,
    pub(super) minor: MinorType,
    pub(super) mode: DataMode,
    pub(super) value_count: usize,
    pub(super) buffer_length: usize,
    pub(super) children: &'a [SerializedField],
    major: &'a MajorType,
}

impl<'a> Vector<'a> {
    pub(super) fn parse(descriptor: &'a SerializedField) -> Result<Self, At<VectorError>> {
        let name = name(descriptor);
        Self::parse_unnamed(descriptor, name).map_err(|problem| At::from(problem).inside(name))
    }

    fn parse_unnamed(descriptor: &'a SerializedField, name: &'a str) -> Result<Self, VectorError> {
        let Some(major) = &descriptor.major_type else {
            return Err(VectorError::MissingType);
        };
        let (minor, mode) = drill_type::kind(major)?;
        Ok(Self {
            name,
            minor,
            mode,
            value_count: count(descriptor.value_count)?,
            buffer_length: count(descriptor.buffer_length)?,
            children: &descriptor.child,
            major,
        })
    }

    /// All that its type says.
    pub(super) fn drill(&self) -> Result<DrillType, VectorError> {
        DrillType::try_from(self.major)
    }

    /// The child vectors, which must be exactly as many as the layout has.
    pub(super) fn children<const N: usize>(&self) -> Result<&'a [SerializedField; N], VectorError> {
        exactly(self.children)
    }

    pub(super) fn expect_name(&self, expected: &str) -> Result<(), VectorError> {
        if self.name == expected {
            return Ok(());
        }
        Err(VectorError::ChildName {
            expected: expected.to_owned(),
            actual: self.name.to_owned(),
        })
    }

    pub(super) fn expect_count(&self, expected: usize) -> Result<(), VectorError> {
        let actual = self.value_count;
        if actual == expected {
            return Ok(());
        }
        Err(VectorError::ValueCount { expected, actual })
    }

    /// A vector of the layout's own: `$bits$`, `$offsets$`, `types`.
    pub(super) fn expect_helper(
        &self,
        name: &str,
        minor: MinorType,
        values: usize,
    ) -> Result<(), VectorError> {
        self.expect_name(name)?;
        if self.minor != minor || self.mode != DataMode::Required {
            return Err(self.wrong_child());
        }
        self.expect_count(values)
    }

    pub(super) fn wrong_child(&self) -> VectorError {
        let (minor, mode) = (self.minor, self.mode);
        VectorError::ChildType { minor, mode }
    }
}

pub(super) fn name(descriptor: &SerializedField) -> &str {
    let part = descriptor.name_part.as_ref();
    part.and_then(|part| part.name.as_deref())
        .unwrap_or_default()
}

/// Descriptors that must be `N`.
pub(super) fn exactly<const N: usize>(
    children: &[SerializedField],
) -> Result<&[SerializedField; N], VectorError> {
    let actual = children.len();
    children.try_into().map_err(|_| VectorError::ChildCount {
        expected: N,
        actual,
    })
}

/// Decodes a vector that stands for `rows` rows; `field` was derived from its descriptor, and
/// `body` is exactly its own.
pub(super) fn of_rows(
    vector: &Vector<'_>,
    rows: usize,
    field: &Field,
    body: Region<'_>,
    options: &DecodeOptions,
) -> Decoded {
    vector.expect_count(rows)?;
    // wire: without values a vector has no buffers at all; Drill's loader skips what is there.
    if rows == 0 {
        return Ok(new_empty_array(field.data_type()));
    }
    match (field.data_type(), vector.mode) {
        (data_type, _) if data_type.is_nested() => nested::array(vector, field, body, options),
        (DataType::Null, _) => {
            options.expect_justified(rows)?;
            required(vector, &DataType::Null, None, body)
        }
        (data_type, DataMode::Optional) => optional(vector, data_type, body),
        (data_type, _) => required(vector, data_type, None, body),
    }
}

/// Values without a validity of their own, null where `nulls` says so.
fn required(
    vector: &Vector<'_>,
    data_type: &DataType,
    nulls: Option<NullBuffer>,
    body: Region<'_>,
) -> Decoded {
    if !fixed::is_fixed(vector.minor) {
        return variable::array(vector, data_type, nulls, body);
    }
    let [] = vector.children()?;
    Ok(fixed::array(vector, data_type, nulls, body)?)
}

/// `$bits$`, then the values under the column's own name.
fn optional(vector: &Vector<'_>, data_type: &DataType, mut body: Region<'_>) -> Decoded {
    let [bits, values] = vector.children()?;
    let (bits, values) = (Vector::parse(bits)?, Vector::parse(values)?);
    bits.expect_helper(names::BITS, MinorType::Uint1, vector.value_count)?;
    values.expect_name(vector.name)?;
    values.expect_count(vector.value_count)?;
    if values.minor != vector.minor || values.mode == DataMode::Repeated {
        return Err(values.wrong_child().into());
    }
    let nulls = bits_of(&bits, &mut body)?;
    let body = sized(values.buffer_length, body)?;
    required(&values, data_type, nulls, body)
}

pub(super) fn bits_of(
    bits: &Vector<'_>,
    region: &mut Region<'_>,
) -> Result<Option<NullBuffer>, VectorError> {
    let bytes = sized(bits.value_count, region.take(bits.buffer_length)?)?;
    Ok(validity::pack(bytes.bytes()))
}

/// `bytes`, which must be exactly `expected` long.
pub(super) fn sized(expected: usize, bytes: Region<'_>) -> Result<Region<'_>, VectorError> {
    let actual = bytes.len();
    if actual == expected {
        return Ok(bytes);
    }
    Err(VectorError::BufferLength { expected, actual })
}

pub(super) fn unsupported(vector: &Vector<'_>) -> VectorError {
    let (minor, mode) = (vector.minor, vector.mode);
    VectorError::Unsupported { minor, mode }
}
