//! Profiles of fragments as changes: a field that is not set has not changed, an operator that is named is given whole.

use protos::shared::{FragmentState, MinorFragmentProfile, OperatorProfile};

/// Calls a macro with all fields that are given one by one.
macro_rules! scalars {
    ($each:ident) => {
        $each!(
            state,
            error,
            start_time,
            end_time,
            memory_used,
            max_memory_used,
            endpoint,
            last_update,
            last_progress
        )
    };
}

/// What has to be said to somebody who knows `known`, so that they know `current`; `None` if that is nothing.
pub(crate) fn changes(
    known: &MinorFragmentProfile,
    current: &MinorFragmentProfile,
) -> Option<MinorFragmentProfile> {
    let mut delta = MinorFragmentProfile::default();
    macro_rules! take {
        ($($field:ident),+) => {
            $(if current.$field != known.$field {
                delta.$field.clone_from(&current.$field);
            })+
        };
    }
    scalars!(take);
    let is_known = |operator: &&OperatorProfile| known.operator_profile.contains(operator);
    let operators = current.operator_profile.iter();
    delta.operator_profile = operators.filter(|it| !is_known(it)).cloned().collect();
    if delta == MinorFragmentProfile::default() {
        return None;
    }
    delta.minor_fragment_id = current.minor_fragment_id;
    Some(delta)
}

/// Adds to `known` what has changed.
pub(crate) fn apply(known: &mut MinorFragmentProfile, delta: MinorFragmentProfile) {
    macro_rules! take {
        ($($field:ident),+) => {
            $(if delta.$field.is_some() {
                known.$field = delta.$field;
            })+
        };
    }
    scalars!(take);
    known.minor_fragment_id = delta.minor_fragment_id.or(known.minor_fragment_id);
    for operator in delta.operator_profile {
        let mut operators = known.operator_profile.iter_mut();
        match operators.find(|it| it.operator_id == operator.operator_id) {
            Some(place) => *place = operator,
            None => known.operator_profile.push(operator),
        }
    }
}

/// Whether a fragment in this state has ended.
pub(crate) fn is_final(state: FragmentState) -> bool {
    matches!(
        state,
        FragmentState::Finished | FragmentState::Cancelled | FragmentState::Failed
    )
}

#[cfg(test)]
mod tests {
    use rand::{Rng, SeedableRng, rngs::StdRng};

    use super::*;

    /// Operators are numbered, and never go away.
    fn moved_on(before: &MinorFragmentProfile, random: &mut StdRng) -> MinorFragmentProfile {
        let mut after = before.clone();
        if random.random_bool(0.5) {
            after.memory_used = Some(random.random_range(0..1000));
        }
        if random.random_bool(0.3) {
            after.state = Some(random.random_range(0..7));
        }
        if random.random_bool(0.1) {
            after.end_time = Some(random.random_range(0..1000));
        }
        for operator in &mut after.operator_profile {
            if random.random_bool(0.3) {
                operator.process_nanos = Some(random.random());
            }
        }
        if after.operator_profile.len() < 3 && random.random_bool(0.2) {
            let next = i32::try_from(after.operator_profile.len()).expect("few");
            after.operator_profile.push(OperatorProfile {
                operator_id: Some(next),
                ..OperatorProfile::default()
            });
        }
        after
    }

    #[test]
    fn whoever_is_told_all_changes_knows_the_whole() {
        let mut random = StdRng::seed_from_u64(1);
        let mut current = MinorFragmentProfile {
            minor_fragment_id: Some(4),
            ..MinorFragmentProfile::default()
        };
        let mut known = current.clone();
        let (mut told, mut silent) = (0, 0);
        for _ in 0..1000 {
            current = moved_on(&current, &mut random);
            match changes(&known, &current) {
                Some(delta) => {
                    told += 1;
                    assert_eq!(delta.minor_fragment_id, Some(4));
                    apply(&mut known, delta);
                }
                None => silent += 1,
            }
            assert_eq!(known, current);
        }
        assert!(told > 500 && silent > 20, "{told} {silent}");
    }
}
