//! Units of time.

pub(crate) const NANOS_PER_MILLI: i64 = 1_000_000;
pub(crate) const MICROS_PER_MILLI: i64 = 1_000;
pub(crate) const MILLIS_PER_SECOND: i64 = 1_000;
pub(crate) const MILLIS_PER_DAY: i64 = 86_400_000;
