//! The monitor step by step, on a clock turned by hand.

use std::time::{Duration, Instant};

use membership::NodeAddress;

use super::*;

const BEAT: Duration = Duration::from_secs(1);

fn millis(count: u64) -> Duration {
    Duration::from_millis(count)
}

fn node() -> NodeAddress {
    "node2:31011".parse().unwrap()
}

/// A monitor, its clock, and what it has said.
struct Watched {
    monitor: Monitor,
    now: Instant,
    due: Vec<Due>,
    events: Vec<HealthEvent>,
}

impl Watched {
    fn new() -> Self {
        let now = Instant::now();
        let versions = ("0.1.0".to_owned(), String::new());
        let mut watched = Self {
            monitor: Monitor::new(&BeatOptions::default(), versions, now),
            now,
            due: Vec::new(),
            events: Vec::new(),
        };
        watched.monitor.join(&node(), now);
        watched.collect();
        watched
    }

    /// One that has answered some beats.
    fn up() -> Self {
        let mut watched = Self::new();
        for _ in 0..5 {
            watched.answer(1);
            watched.pass(BEAT);
        }
        watched.answer(1);
        assert_eq!(watched.health(), [Health::Up]);
        watched
    }

    fn collect(&mut self) {
        self.due
            .extend(std::iter::from_fn(|| self.monitor.next_due()));
        let events = std::iter::from_fn(|| self.monitor.next_event());
        self.events.extend(events);
    }

    /// Lets time pass, as a task does that is always in time.
    fn pass(&mut self, time: Duration) {
        let end = self.now + time;
        while self.monitor.deadline() <= end {
            self.now = self.now.max(self.monitor.deadline());
            self.monitor.poll(self.now);
            self.collect();
        }
        self.now = end;
    }

    /// Lets time pass until something happens; how long it took.
    fn pass_until_event(&mut self) -> Duration {
        let start = self.now;
        while self.events.is_empty() {
            self.pass(millis(1));
        }
        self.now.saturating_duration_since(start)
    }

    /// The newest beat is answered by a process.
    fn answer(&mut self, incarnation: u64) {
        let due = self.due.pop().expect("a beat is due");
        self.due.clear();
        let exchange = Exchange {
            sent: self.now,
            sent_unix_us: 0,
            peer_received_unix_us: 0,
            peer_sent_unix_us: 0,
            received: self.now,
        };
        let versions = ("0.1.0", "");
        assert!(
            self.monitor
                .on_answer(&due, &exchange, Some(incarnation), versions)
        );
        self.collect();
    }

    fn refuse(&mut self) {
        let due = self.due.pop().expect("a beat is due");
        self.monitor
            .on_refused(&due, "refused".to_owned(), self.now);
        self.collect();
    }

    /// What it has come to since this was asked last.
    fn health(&mut self) -> Vec<Health> {
        self.events.drain(..).map(|event| event.to).collect()
    }

    fn seen(&self) -> NodeHealth {
        self.monitor.nodes(self.now).pop().unwrap()
    }
}

#[test]
fn a_new_node_is_suspect_until_it_answers_and_down_if_it_never_does() {
    let mut watched = Watched::new();
    assert_eq!(watched.seen().health, Health::Suspect);
    assert_eq!(watched.seen().reason.rule, Rule::Awaited);
    assert_eq!(watched.due.len(), 1, "the first beat is due at once");
    assert_eq!(watched.pass_until_event(), millis(3900));
    assert_eq!(watched.health(), [Health::Down]);
    let reason = watched.seen().reason.to_string();
    assert_eq!(
        reason,
        "silent for 3.9s of 3.9s; beats 1 to 4 are unanswered"
    );
    // It is beaten all the same.
    watched.pass(BEAT);
    watched.answer(1);
    assert_eq!(watched.health(), [Health::Up]);
    assert_eq!(watched.seen().counts.flaps, 0, "it was not up before");
}

#[test]
fn a_silent_node_is_suspect_within_three_beats_and_down_a_second_later() {
    let mut watched = Watched::up();
    let suspect = watched.pass_until_event();
    assert!(suspect > 2 * BEAT && suspect < 3 * BEAT, "{suspect:?}");
    assert_eq!(watched.health(), [Health::Suspect]);
    let reason = watched.seen().reason;
    assert!(matches!(reason.rule, Rule::Unusual { .. }), "{reason:?}");
    let down = suspect + watched.pass_until_event();
    assert!(down > 3 * BEAT && down < 4 * BEAT, "{down:?}");
    assert_eq!(watched.health(), [Health::Down]);
    watched.answer(1);
    assert_eq!(watched.health(), [Health::Up]);
    let counts = watched.seen().counts;
    assert_eq!((counts.suspected, counts.downs, counts.flaps), (1, 1, 1));
}

#[test]
fn anything_that_comes_from_a_node_is_a_sign_of_life() {
    let mut watched = Watched::up();
    for _ in 0..20 {
        watched.pass(BEAT);
        let (at, now) = (watched.now, watched.now + millis(100));
        watched.monitor.on_heard(&node(), at, now);
    }
    assert_eq!(watched.health(), []);
    let counts = watched.seen().counts;
    assert_eq!(counts.answered, 6);
    assert!(
        counts.sent < 20,
        "no more than 8 wait for an answer: {counts:?}"
    );
}

#[test]
fn health_is_that_of_the_process_it_was_found_of() {
    let mut watched = Watched::new();
    assert_eq!(watched.seen().incarnation, None);
    watched.answer(1);
    watched.pass(10 * BEAT);
    let seen = watched.seen();
    assert_eq!((seen.health, seen.incarnation), (Health::Down, Some(1)));
    watched.answer(2);
    let seen = watched.seen();
    assert_eq!((seen.health, seen.incarnation), (Health::Up, Some(2)));
}

#[test]
fn three_refused_connections_are_a_death() {
    let mut watched = Watched::up();
    watched.pass(BEAT);
    watched.refuse();
    assert_eq!(watched.health(), [Health::Suspect]);
    watched.pass(BEAT);
    watched.refuse();
    watched.pass(BEAT);
    watched.refuse();
    assert_eq!(watched.health(), [Health::Down]);
    let reason = watched.seen().reason.to_string();
    assert_eq!(
        reason,
        "refused 3 times: refused; beats 7 to 9 are unanswered"
    );
}

#[test]
fn a_lost_connection_is_tried_again_at_once_but_once_a_turn() {
    let mut watched = Watched::up();
    watched.pass(BEAT);
    let mut lost = 0;
    while let Some(due) = watched.due.pop() {
        watched.monitor.on_lost(&due, watched.now);
        lost += 1;
        watched.pass(millis(1));
    }
    assert_eq!(lost, 2);
    watched.pass(BEAT);
    assert_eq!(watched.due.len(), 1);
}

#[test]
fn another_process_in_its_place_is_a_death_and_no_flap() {
    let mut watched = Watched::up();
    watched.pass(BEAT);
    watched.answer(2);
    let rules: Vec<_> = watched
        .events
        .iter()
        .map(|event| &event.reason.rule)
        .collect();
    assert_eq!(rules, [&Rule::Restarted, &Rule::Answered { sequence: 7 }]);
    assert_eq!(watched.health(), [Health::Down, Health::Up]);
    let counts = watched.seen().counts;
    assert_eq!((counts.restarts, counts.downs, counts.flaps), (1, 1, 0));
}

#[test]
fn a_minute_in_which_this_process_did_not_run_is_nobodys_death() {
    let mut watched = Watched::up();
    watched.pass(millis(500));
    watched.now += Duration::from_mins(1);
    watched.pass(BEAT * 2);
    assert_eq!(watched.health(), []);
    assert!(watched.monitor.stalled() >= Duration::from_secs(59));
    // But a node that says nothing now is dead.
    watched.pass(BEAT * 2);
    assert_eq!(watched.health(), [Health::Suspect, Health::Down]);
}

#[test]
fn versions_that_differ_are_shown() {
    let mut watched = Watched::up();
    assert_eq!(watched.seen().version_mismatch, None);
    watched.pass(BEAT);
    let due = watched.due.pop().unwrap();
    let exchange = Exchange {
        sent: watched.now,
        sent_unix_us: 0,
        peer_received_unix_us: 0,
        peer_sent_unix_us: 0,
        received: watched.now,
    };
    watched
        .monitor
        .on_answer(&due, &exchange, Some(1), ("0.2.0", "DataFusion 55"));
    let mismatch = watched.seen().version_mismatch.unwrap();
    let theirs = ("0.2.0".to_owned(), "DataFusion 55".to_owned());
    assert_eq!(mismatch.theirs, theirs);
}

#[test]
fn an_answer_to_no_beat_changes_nothing() {
    let mut watched = Watched::new();
    let due = watched.due.pop().unwrap();
    let exchange = Exchange {
        sent: watched.now,
        sent_unix_us: 0,
        peer_received_unix_us: 0,
        peer_sent_unix_us: 0,
        received: watched.now,
    };
    let odd = Due {
        sequence: 99,
        ..due.clone()
    };
    assert!(
        !watched
            .monitor
            .on_answer(&odd, &exchange, Some(1), ("", ""))
    );
    assert!(
        watched
            .monitor
            .on_answer(&due, &exchange, Some(1), ("", ""))
    );
    assert!(
        !watched
            .monitor
            .on_answer(&due, &exchange, Some(1), ("", ""))
    );
    assert_eq!(watched.seen().counts.answered, 1);
}

#[test]
fn a_drillbit_is_pinged_when_it_is_idle_and_has_five_minutes() {
    let mut watched = Watched::new();
    let first = watched.due.pop().unwrap();
    watched.monitor.on_drill(&node(), watched.now);
    watched.monitor.on_pong(&first, millis(1), watched.now);
    watched.collect();
    assert_eq!(watched.health(), [Health::Up]);
    watched.pass(Duration::from_secs(149));
    assert_eq!(watched.due, []);
    watched.pass(Duration::from_secs(2));
    assert_eq!(watched.due.len(), 1);
    watched.pass(Duration::from_secs(73));
    assert_eq!(watched.health(), []);
    watched.pass(Duration::from_secs(2));
    assert_eq!(watched.health(), [Health::Suspect]);
    watched.pass(Duration::from_secs(75));
    assert_eq!(watched.health(), [Health::Down]);
    assert!(watched.seen().is_drill);
}

#[test]
fn a_drillbit_whose_connection_ends_is_looked_for_at_once() {
    let mut watched = Watched::new();
    let first = watched.due.pop().unwrap();
    watched.monitor.on_drill(&node(), watched.now);
    watched.monitor.on_pong(&first, millis(1), watched.now);
    watched.pass(Duration::from_secs(10));
    watched.monitor.on_closed(&node(), watched.now);
    watched.pass(millis(1));
    assert_eq!(watched.due.len(), 1);
    assert!(!watched.seen().is_drill, "it may be another process");
}

#[test]
fn a_node_that_has_left_is_forgotten() {
    let mut watched = Watched::new();
    watched.monitor.leave(&node());
    watched.pass(Duration::from_secs(10));
    assert_eq!(watched.health(), []);
    assert_eq!(watched.monitor.health(&node()), None);
}

#[test]
fn why_beats_fail_is_kept_with_the_reason_and_news_once() {
    let mut watched = Watched::new();
    let fail = |watched: &mut Watched, error| {
        let due = watched.due.pop().expect("a beat is due");
        let news = watched.monitor.on_error(&due, error, watched.now);
        let is_news = news.is_some();
        watched.pass(BEAT);
        is_news
    };
    let wrong = "the login was refused";
    assert!(fail(&mut watched, wrong));
    let reason = watched.seen().reason.to_string();
    let awaited = "nothing has come from it yet; last error: the login was refused";
    assert_eq!(reason, awaited);
    assert!(!fail(&mut watched, wrong));
    assert!(fail(&mut watched, "TLS: unknown issuer"));
    watched.pass(BEAT);
    let down = watched.events.pop().unwrap();
    let told = (down.to, down.reason.error.as_deref());
    assert_eq!(told, (Health::Down, Some("TLS: unknown issuer")));
    // What is found out later is shown, too, in bounded space.
    watched.pass(BEAT);
    let long = "\u{e4}".repeat(150);
    assert!(fail(&mut watched, &long));
    assert_eq!(watched.seen().reason.error, Some("\u{e4}".repeat(100)));
    watched.answer(1);
    let up = watched.seen();
    assert_eq!((up.health, up.reason.error), (Health::Up, None));
    watched.pass(BEAT);
    assert!(fail(&mut watched, wrong), "it has answered since");
}
