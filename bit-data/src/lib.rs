//! The data plane: record batches from fragment to fragment, under credits, within budgets.

mod merge;

pub use merge::{Merge, MergeError, MergeKeyError, MergeOptions, SortKey};
