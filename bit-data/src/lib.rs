//! The data plane: record batches from fragment to fragment, under credits, within budgets.

mod merge;
mod spill;

pub use merge::{Merge, MergeError, MergeKeyError, MergeOptions, SortKey};
pub use spill::{
    SpillDir, SpillError, SpillOpenError, SpillOptions, SpillReader, SpillRecord, SpillWriter,
};
