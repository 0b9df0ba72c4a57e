//! What the engine looks at in a finished plan. Walks never recurse: the plan may be too deep for it.

use datafusion::datasource::physical_plan::{FileGroup, FileScanConfig};
use datafusion::datasource::source::DataSourceExec;
use datafusion::physical_plan::ExecutionPlan;

use super::error::EngineError;
use super::sql::limits::{PLAN_DEPTH_MAX, within};

/// Most files that a message names.
const FILES_NAMED_MAX: usize = 8;

/// Refuses plans that would be polled too deep.
pub(super) fn check_depth(plan: &dyn ExecutionPlan) -> Result<(), EngineError> {
    let deepest = nodes(plan)
        .map(|(_, depth)| depth)
        .max()
        .unwrap_or_default();
    within(deepest, PLAN_DEPTH_MAX, "too deep a plan")
}

/// The files that the plan's scans name; tables that stream name their own.
pub(super) fn files(plan: &dyn ExecutionPlan) -> Vec<String> {
    let mut files = vec![];
    for (node, _) in nodes(plan) {
        let scan = node.downcast_ref::<DataSourceExec>();
        let config = scan.and_then(|scan| scan.data_source().downcast_ref::<FileScanConfig>());
        let groups = config.iter().flat_map(|config| &config.file_groups);
        for file in groups.flat_map(FileGroup::files) {
            let path = format!("/{}", file.object_meta.location);
            if files.len() < FILES_NAMED_MAX && !files.contains(&path) {
                files.push(path);
            }
        }
    }
    files
}

/// All operators with their depth, from 1.
fn nodes(plan: &dyn ExecutionPlan) -> impl Iterator<Item = (&dyn ExecutionPlan, usize)> {
    let mut open = vec![(plan, 1)];
    std::iter::from_fn(move || {
        let (node, depth) = open.pop()?;
        open.extend(
            node.children()
                .into_iter()
                .map(|child| (child.as_ref(), depth + 1)),
        );
        Some((node, depth))
    })
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use arrow::datatypes::Schema;
    use datafusion::physical_plan::coalesce_partitions::CoalescePartitionsExec;
    use datafusion::physical_plan::empty::EmptyExec;

    use super::*;

    fn chain(operators: usize) -> Arc<dyn ExecutionPlan> {
        let leaf: Arc<dyn ExecutionPlan> = Arc::new(EmptyExec::new(Arc::new(Schema::empty())));
        (1..operators).fold(leaf, |plan, _| Arc::new(CoalescePartitionsExec::new(plan)))
    }

    #[test]
    fn plans_are_as_deep_as_the_limit_and_no_deeper() {
        assert!(check_depth(chain(PLAN_DEPTH_MAX).as_ref()).is_ok());
        assert!(check_depth(chain(PLAN_DEPTH_MAX + 1).as_ref()).is_err());
    }
}
