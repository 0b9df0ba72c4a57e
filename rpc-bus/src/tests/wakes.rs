//! No wake-up is lost between a driver and those who queue something for it: every order of what they do under the locks,
//! up to a length.
//!
//! All that the two sides share is behind a lock, so that the order in which the locks are taken is all that threads can
//! differ in.

use std::{
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    task::Wake,
    thread,
    time::Instant,
};

use bytes::Bytes;

use super::{call_on, link_with_requests};
use crate::{
    lanes::Transmit,
    link::{Link, Turn},
    metrics::Ticket,
};

/// Longest order that is tried: as many as there are ways to choose so often among [`STEPS`].
const LENGTH: u32 = 5;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Step {
    /// The driver, if it is awake, takes what is queued, or falls asleep.
    Drive,
    /// The driver, if it is awake, changes the connection: bytes came, or time passed.
    Receive,
    /// The task of the handlers begins to start requests.
    Begin,
    /// It answers one; outside of a turn that is some other task.
    Answer,
    /// Another thread answers one, whatever turn there is.
    AnswerElsewhere,
    /// The task has started its share.
    End,
    /// Somebody makes a call.
    Call,
}

const STEPS: [Step; 7] = [
    Step::Drive,
    Step::Receive,
    Step::Begin,
    Step::Answer,
    Step::AnswerElsewhere,
    Step::End,
    Step::Call,
];

#[derive(Default)]
struct Wakes(AtomicU64);

impl Wake for Wakes {
    fn wake(self: Arc<Self>) {
        self.0.fetch_add(1, Ordering::Relaxed);
    }
}

struct Scene<'a> {
    link: &'a Link,
    tickets: Vec<Ticket>,
    turn: Option<Turn<'a>>,
    wakes: Arc<Wakes>,
    /// How often it was woken when it fell asleep; `None` while it is awake.
    asleep: Option<u64>,
}

impl Scene<'_> {
    fn play(&mut self, step: Step) {
        match step {
            Step::Drive => self.drive(),
            Step::Receive if self.is_awake() => drop(self.link.step(|_| ())),
            Step::Receive => {}
            Step::Begin => self.begin(),
            Step::Answer => self.answer(),
            Step::AnswerElsewhere => thread::scope(|scope| {
                let (link, ticket) = (self.link, self.tickets.pop());
                scope.spawn(move || answer(link, ticket));
            }),
            Step::End => drop(self.turn.take()),
            Step::Call => self.call(),
        }
    }

    fn is_awake(&mut self) -> bool {
        if self.asleep != Some(self.wakes.0.load(Ordering::Relaxed)) {
            self.asleep = None;
        }
        self.asleep.is_none()
    }

    /// As the driver does: what it takes is written, and it asks again; only then does it sleep.
    fn drive(&mut self) {
        if self.is_awake() && !self.take() {
            self.asleep = Some(self.wakes.0.load(Ordering::Relaxed));
        }
    }

    /// Whether anything was queued.
    fn take(&self) -> bool {
        let mut out = Transmit::default();
        let waker = Arc::clone(&self.wakes).into();
        drop(self.link.drain(&waker, |connection| {
            connection.transmit(&mut out);
            !out.is_empty()
        }));
        !out.is_empty()
    }

    fn begin(&mut self) {
        if self.turn.is_none() {
            self.turn = Some(self.link.turn());
        }
    }

    fn answer(&mut self) {
        answer(self.link, self.tickets.pop());
    }

    fn call(&self) {
        call_on(self.link);
    }
}

fn answer(link: &Link, ticket: Option<Ticket>) {
    if let Some(ticket) = ticket {
        link.reply(ticket, 1, (Bytes::new().into(), Vec::new()), Instant::now());
    }
}

fn play(order: &[Step]) {
    let (link, tickets) = link_with_requests(i32::try_from(order.len()).unwrap());
    let mut scene = Scene {
        link: &link,
        tickets,
        turn: None,
        wakes: Arc::default(),
        asleep: None,
    };
    for &step in order {
        scene.play(step);
    }
    // A turn that goes on still owes its wake-up.
    scene.turn = None;
    if !scene.is_awake() {
        assert!(!scene.take(), "asleep beside queued frames: {order:?}");
    }
}

#[test]
fn a_driver_never_sleeps_beside_what_is_queued() {
    for length in 1..=LENGTH {
        for mut choice in 0..STEPS.len().pow(length) {
            let order = (0..length).map(|_| {
                let step = STEPS[choice % STEPS.len()];
                choice /= STEPS.len();
                step
            });
            play(&order.collect::<Vec<_>>());
        }
    }
}
