//! Seeded schedules: calls, answers, refusals, cancels, deadlines, cuts of the stream at any byte, and sudden ends.
//!
//! Whatever happens, every call ends exactly once, requests start in the order of their calls, and nothing is left.

use std::time::Duration;

use rand::{Rng, SeedableRng, rngs::StdRng};
use tokio::sync::oneshot::{Receiver, error::TryRecvError};

use super::pair::Pair;
use crate::{
    connection::Outcome,
    error::{CallError, CloseReason, RpcFailure},
    ledger::Ledger,
};

const SCHEDULES: u64 = 500;
const STEPS: u32 = 200;

struct Simulation {
    random: StdRng,
    pair: Pair,
    calls: Vec<Receiver<Outcome>>,
    ended: u64,
    /// Bytes on the way, and those in front of them that have arrived.
    to_server: Vec<u8>,
    to_client: Vec<u8>,
}

impl Simulation {
    fn new(seed: u64) -> Self {
        Self {
            random: StdRng::seed_from_u64(seed),
            pair: Pair::default(),
            calls: Vec::new(),
            ended: 0,
            to_server: Vec::new(),
            to_client: Vec::new(),
        }
    }

    fn step(&mut self) {
        let pair = &mut self.pair;
        match self.random.random_range(0..8) {
            0 | 1 => {
                let deadline = self
                    .random
                    .random_bool(0.3)
                    .then_some(Duration::from_secs(2));
                self.calls
                    .extend(pair.try_call("x", deadline).ok().map(|(_, call)| call));
            }
            2 if !pair.server.requests.is_empty() => pair.echo(),
            3 if !pair.server.requests.is_empty() => {
                let (ticket, ..) = pair.server.requests.pop_back().unwrap();
                let failure = RpcFailure::new(protos::error::ErrorType::System, "no");
                pair.server.connection.fail(&ticket, &failure, pair.now);
            }
            4 if !self.calls.is_empty() => {
                let index = self.random.random_range(0..self.calls.len());
                // What a dropped `PendingAnswer` does.
                let _ = self.calls[index].try_recv().map(|_| self.ended += 1);
            }
            5 => {
                pair.now += Duration::from_millis(self.random.random_range(0..1000));
                pair.client.timeout(pair.now);
                pair.server.timeout(pair.now);
            }
            _ => self.move_bytes(),
        }
    }

    fn move_bytes(&mut self) {
        let pair = &mut self.pair;
        self.to_server.extend(pair.client.send(pair.now));
        self.to_client.extend(pair.server.send(pair.now));
        let cut = self.random.random_range(0..=self.to_server.len());
        pair.server
            .receive(&self.to_server.drain(..cut).collect::<Vec<_>>(), pair.now);
        let cut = self.random.random_range(0..=self.to_client.len());
        pair.client
            .receive(&self.to_client.drain(..cut).collect::<Vec<_>>(), pair.now);
    }

    fn end(mut self) -> (u64, u64) {
        let reason = CloseReason::PeerClosed { mid_frame: false };
        assert_eq!(
            (self.pair.client.reason(), self.pair.server.reason()),
            (None, None)
        );
        let ids: Vec<_> = self
            .pair
            .server
            .requests
            .iter()
            .map(|(ticket, ..)| ticket.id)
            .collect();
        assert!(ids.is_sorted(), "{ids:?}");
        self.pair.client.close(reason.clone(), self.pair.now);
        self.pair.server.close(reason, self.pair.now);
        for call in &mut self.calls {
            match call.try_recv() {
                Ok(
                    Ok(_) | Err(CallError::Lost(_) | CallError::Timeout(_) | CallError::Remote(_)),
                ) => {
                    self.ended += 1;
                }
                // Taken out before.
                Err(TryRecvError::Closed) => {}
                other => panic!("a call did not end: {other:?}"),
            }
        }
        assert_eq!(self.ended, self.calls.len() as u64);
        self.pair.assert_all_requests_counted();
        let stats = self.pair.client.connection.stats();
        let ledgers = [
            self.pair.client.ledger.clone(),
            self.pair.server.ledger.clone(),
        ];
        // Unfinished frames go with their connection.
        drop(self.pair);
        assert!(ledgers.iter().all(Ledger::is_zero), "{ledgers:?}");
        (stats.calls_answered, stats.bytes_sent)
    }
}

fn run(seed: u64) -> (u64, u64) {
    let mut simulation = Simulation::new(seed);
    (0..STEPS).for_each(|_| simulation.step());
    simulation.end()
}

#[test]
fn every_call_ends_once_under_any_schedule() {
    let answered: u64 = (0..SCHEDULES).map(|seed| run(seed).0).sum();
    assert!(answered > SCHEDULES, "the schedules do too little");
}

#[test]
fn the_same_seed_gives_the_same_run() {
    assert_eq!(run(42), run(42));
}
