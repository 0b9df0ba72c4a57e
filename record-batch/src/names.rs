//! The names of the vectors inside vectors, spelled as Drill checks them.
// wire: drill@051b164 exec/vector/src/main/java/.../vector/; golden/user/complex

/// Validity: one byte per row.
pub(crate) const BITS: &str = "$bits$";
/// Starts of the rows in the vector that follows, and the end of the last.
pub(crate) const OFFSETS: &str = "$offsets$";
