//! The data plane: record batches from fragment to fragment, under credits, within budgets.
