//! What fragments do: how long they take, how they end, and whether they listen.

use std::{
    collections::{BTreeMap, BTreeSet},
    time::Duration,
};

use protos::{error::ErrorType, id::FragmentId};
use rand::{Rng, rngs::StdRng};
use rpc_bus::RpcFailure;

pub(super) type Ending = Result<(), Box<RpcFailure>>;

/// One fragment's character.
#[derive(Clone, Debug)]
pub(super) struct Behaviour {
    pub(super) start_after: Duration,
    pub(super) start: Ending,
    /// `None`: it runs until it is cancelled.
    pub(super) end_after: Option<Duration>,
    pub(super) end: Ending,
    /// `None`: it does not listen.
    pub(super) cancel_after: Option<Duration>,
}

impl Behaviour {
    pub(super) fn draw(random: &mut StdRng) -> Self {
        let millis = |random: &mut StdRng, max| Duration::from_millis(random.random_range(0..max));
        let ending = |random: &mut StdRng, probability| {
            if random.random_bool(probability) {
                let failure = RpcFailure::new(ErrorType::DataRead, "drawn");
                return Err(Box::new(failure));
            }
            Ok(())
        };
        Self {
            start_after: millis(random, 300),
            start: ending(random, 0.01),
            end_after: random.random_bool(0.9).then(|| millis(random, 5000)),
            end: ending(random, 0.01),
            cancel_after: random.random_bool(0.8).then(|| millis(random, 300)),
        }
    }
}

/// The engine of one start of a node.
#[derive(Debug, Default)]
pub(super) struct Engine {
    pub(super) live: BTreeMap<FragmentId, Behaviour>,
    /// Those that have ended by themselves and well.
    pub(super) finished: BTreeSet<FragmentId>,
    started: BTreeSet<FragmentId>,
}

impl Engine {
    pub(super) fn start(&mut self, id: FragmentId, behaviour: Behaviour) {
        assert!(self.started.insert(id), "{id} was started twice");
        self.live.insert(id, behaviour);
    }
}
