//! Drill's column type, parsed once from the all-optional protobuf into a total value.

use protos::common::{DataMode, MajorType, MinorType};

use crate::error::VectorError;

/// Everything that Drill's `MajorType` says about a vector. `None` means absent on the wire, which
/// is not the same as zero: descriptors are written back exactly as they came.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct DrillType {
    /// What the values are.
    pub minor: MinorType,
    /// Nullable, never null, or an array per row.
    pub mode: DataMode,
    /// Width in bytes of Drill's fixed-length character types; informative.
    pub width: Option<i32>,
    /// Digits of a decimal, characters of a string.
    pub precision: Option<i32>,
    /// Digits after the point.
    pub scale: Option<i32>,
    /// Never used by Drill's vectors; carried through.
    pub time_zone: Option<i32>,
    /// The types that a UNION may hold.
    pub sub_types: Vec<MinorType>,
}

impl DrillType {
    /// A type that says nothing beyond its kind and mode.
    #[must_use]
    pub const fn new(minor: MinorType, mode: DataMode) -> Self {
        Self {
            minor,
            mode,
            width: None,
            precision: None,
            scale: None,
            time_zone: None,
            sub_types: Vec::new(),
        }
    }

    /// The same type in another mode.
    #[must_use]
    pub fn with_mode(&self, mode: DataMode) -> Self {
        Self {
            mode,
            ..self.clone()
        }
    }
}

impl TryFrom<&MajorType> for DrillType {
    type Error = VectorError;

    fn try_from(major: &MajorType) -> Result<Self, VectorError> {
        let (minor, mode) = kind(major)?;
        Ok(Self {
            minor,
            mode,
            width: major.width,
            precision: major.precision,
            scale: major.scale,
            time_zone: major.time_zone,
            sub_types: major
                .sub_type
                .iter()
                .map(|&number| minor_type(number))
                .collect::<Result<_, _>>()?,
        })
    }
}

impl From<&DrillType> for MajorType {
    fn from(drill: &DrillType) -> Self {
        Self {
            minor_type: Some(drill.minor as i32),
            mode: Some(drill.mode as i32),
            width: drill.width,
            precision: drill.precision,
            scale: drill.scale,
            time_zone: drill.time_zone,
            sub_type: drill.sub_types.iter().map(|&minor| minor as i32).collect(),
        }
    }
}

/// What the values are, and their mode. Everything else is looked at only where a schema is made.
pub(crate) fn kind(major: &MajorType) -> Result<(MinorType, DataMode), VectorError> {
    let Some(number) = major.minor_type else {
        return Err(VectorError::MissingType);
    };
    let (minor, number) = (minor_type(number)?, major.mode.unwrap_or_default());
    let mode = DataMode::try_from(number);
    let mode = mode.map_err(|_| VectorError::UnknownMode { number })?;
    Ok((minor, mode))
}

/// The type's place among Drill's types, which a union's rows are marked with. It is the number on
/// the wire less the numbers below it that no type has.
// wire: drill@051b164 exec/vector/src/main/codegen/templates/UnionVector.java
pub(crate) fn ordinal(minor: MinorType) -> i8 {
    let number = minor as i32;
    let gaps = [2, 27, 28, 35, 36]
        .into_iter()
        .filter(|&gap| gap < number)
        .count();
    i8::try_from(number).unwrap_or(i8::MAX) - i8::try_from(gaps).unwrap_or(0)
}

fn minor_type(number: i32) -> Result<MinorType, VectorError> {
    MinorType::try_from(number).map_err(|_| VectorError::UnknownType { number })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_type_keeps_what_was_absent_absent() {
        let major = MajorType {
            minor_type: Some(MinorType::Varchar as i32),
            mode: Some(DataMode::Required as i32),
            precision: Some(0),
            ..MajorType::default()
        };
        let drill = DrillType::try_from(&major).unwrap();
        assert_eq!(drill.precision, Some(0));
        assert_eq!(MajorType::from(&drill), major);
    }

    #[test]
    fn ordinals_have_no_gaps() {
        let all = (0..100).filter_map(|number| MinorType::try_from(number).ok());
        let ordinals: Vec<_> = all.map(ordinal).collect();
        assert_eq!(ordinals, (0..40).collect::<Vec<_>>());
        assert_eq!(ordinal(MinorType::Varchar), 23);
        assert_eq!(ordinal(MinorType::Vardecimal), 38);
    }

    #[test]
    fn unknown_numbers_are_refused() {
        let unknown = MajorType {
            minor_type: Some(2),
            ..MajorType::default()
        };
        assert_eq!(
            DrillType::try_from(&unknown),
            Err(VectorError::UnknownType { number: 2 })
        );
        assert_eq!(
            DrillType::try_from(&MajorType::default()),
            Err(VectorError::MissingType)
        );
    }
}
