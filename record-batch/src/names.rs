//! The names of the vectors inside vectors, spelled as Drill checks them.
// wire: drill@051b164 exec/vector/src/main/java/.../vector/; golden/user/complex

/// Validity: one byte per row.
pub(crate) const BITS: &str = "$bits$";
/// Starts of the rows in the vector that follows, and the end of the last.
pub(crate) const OFFSETS: &str = "$offsets$";
/// Elements of a row's array.
pub(crate) const DATA: &str = "$data$";
/// Elements of a row's array that are of several types.
pub(crate) const UNION: &str = "$union$";
/// Elements of a row's array whose type was never found.
pub(crate) const UNTYPED: &str = "[DEFAULT]";
/// The dictionaries of a row's array.
pub(crate) const INNER: &str = "$inner$";
/// Keys of a dictionary.
pub(crate) const KEY: &str = "key";
/// Values of a dictionary.
pub(crate) const VALUE: &str = "value";
/// The only child of a union, a map.
pub(crate) const INTERNAL: &str = "internal";
/// The types of a union's rows, the first member of [`INTERNAL`].
pub(crate) const TYPES: &str = "types";
