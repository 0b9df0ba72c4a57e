//! Profiles of fragments as changes: a field that is not set has not changed, an operator that is named is given whole.

use std::{iter, mem::size_of};

use prost::Message;
use protos::shared::{
    DrillPbError, FragmentState, MetricValue, MinorFragmentProfile, OperatorProfile, ParsingError,
    StackTraceElementWrapper, StreamProfile,
};
use thiserror::Error;

/// Most operators of a fragment.
const OPERATORS_MAX: usize = 1000;
/// Most memory that is kept of a fragment's profile, in bytes: some hundred operators with all that Drill counts of them
/// take half of it.
const PROFILE_BYTES_MAX: usize = 256 * 1024;

/// A node says more of a fragment than is kept.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
pub(crate) enum ProfileTooLarge {
    #[error("expected a profile of at most {OPERATORS_MAX} operators, found {0}")]
    Operators(usize),
    #[error("expected a profile that takes at most {PROFILE_BYTES_MAX} bytes, found {0}")]
    Bytes(usize),
}

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
///
/// # Errors
///
/// That would be too large: of `known` nothing is left but its number and its state, which may be a new one.
pub(crate) fn apply(
    known: &mut MinorFragmentProfile,
    delta: MinorFragmentProfile,
) -> Result<(), ProfileTooLarge> {
    // Each is looked for among those that are known.
    let state = delta.state.or(known.state);
    let judged = of_operators(delta.operator_profile.len()).and_then(|()| {
        add(known, delta);
        judge(known)
    });
    if judged.is_err() {
        *known = MinorFragmentProfile {
            state,
            minor_fragment_id: known.minor_fragment_id,
            ..MinorFragmentProfile::default()
        };
    }
    judged
}

fn add(known: &mut MinorFragmentProfile, delta: MinorFragmentProfile) {
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

fn judge(profile: &MinorFragmentProfile) -> Result<(), ProfileTooLarge> {
    of_operators(profile.operator_profile.len())?;
    let operators = profile.operator_profile.iter().map(operator_bytes);
    let error = profile.error.as_ref().map(error_bytes);
    let endpoint = profile.endpoint.as_ref().map(Message::encoded_len);
    match operators.chain(error).chain(endpoint).sum() {
        bytes if bytes > PROFILE_BYTES_MAX => Err(ProfileTooLarge::Bytes(bytes)),
        _ => Ok(()),
    }
}

fn of_operators(count: usize) -> Result<(), ProfileTooLarge> {
    match count {
        0..=OPERATORS_MAX => Ok(()),
        _ => Err(ProfileTooLarge::Operators(count)),
    }
}

// Empty messages take memory although they have no bytes on the wire.
fn operator_bytes(operator: &OperatorProfile) -> usize {
    size_of::<OperatorProfile>()
        + operator.input_profile.len() * size_of::<StreamProfile>()
        + operator.metric.len() * size_of::<MetricValue>()
        + operator.operator_type_name().len()
}

fn error_bytes(error: &DrillPbError) -> usize {
    let exceptions = iter::successors(error.exception.as_ref(), |it| it.cause.as_deref());
    let frames: usize = exceptions.map(|it| it.stack_trace.len()).sum();
    error.encoded_len()
        + frames * size_of::<StackTraceElementWrapper>()
        + error.parsing_error.len() * size_of::<ParsingError>()
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
                    apply(&mut known, delta).unwrap();
                }
                None => silent += 1,
            }
            assert_eq!(known, current);
        }
        assert!(told > 500 && silent > 20, "{told} {silent}");
    }

    fn with_operators(ids: std::ops::Range<i32>) -> MinorFragmentProfile {
        let operator = |id| OperatorProfile {
            operator_id: Some(id),
            ..OperatorProfile::default()
        };
        MinorFragmentProfile {
            operator_profile: ids.map(operator).collect(),
            ..MinorFragmentProfile::default()
        }
    }

    #[test]
    fn a_profile_does_not_grow_without_end() {
        let base = || MinorFragmentProfile {
            minor_fragment_id: Some(4),
            state: Some(FragmentState::Running.into()),
            ..MinorFragmentProfile::default()
        };
        let mut known = base();
        for id in 0..1000 {
            apply(&mut known, with_operators(id..id + 1)).unwrap();
        }
        apply(&mut known, with_operators(0..1000)).unwrap();
        let more = apply(&mut known, with_operators(1000..1001));
        assert_eq!(more, Err(ProfileTooLarge::Operators(1001)));
        assert_eq!(known, base(), "it is given up");
        let many = apply(&mut known, with_operators(0..1_000_000));
        assert_eq!(many, Err(ProfileTooLarge::Operators(1_000_000)));
    }

    #[test]
    fn a_profile_of_few_operators_does_not_grow_without_end_either() {
        let metrics = OperatorProfile {
            metric: vec![MetricValue::default(); 20_000],
            ..OperatorProfile::default()
        };
        let inputs = OperatorProfile {
            input_profile: vec![StreamProfile::default(); 20_000],
            ..OperatorProfile::default()
        };
        let name = OperatorProfile {
            operator_type_name: Some("x".repeat(300_000)),
            ..OperatorProfile::default()
        };
        let of_operator = |operator| MinorFragmentProfile {
            operator_profile: vec![operator],
            ..MinorFragmentProfile::default()
        };
        let error = MinorFragmentProfile {
            error: Some(DrillPbError {
                message: Some("x".repeat(300_000)),
                ..DrillPbError::default()
            }),
            ..MinorFragmentProfile::default()
        };
        let large = [metrics, inputs, name].map(of_operator);
        for delta in large.into_iter().chain([error]) {
            let mut known = with_operators(0..1);
            let ended = MinorFragmentProfile {
                state: Some(FragmentState::Failed.into()),
                ..delta
            };
            let refused = apply(&mut known, ended);
            assert!(matches!(refused, Err(ProfileTooLarge::Bytes(_))));
            assert_eq!(known.state(), FragmentState::Failed);
            assert!(known.operator_profile.is_empty() && known.error.is_none());
        }
    }
}
