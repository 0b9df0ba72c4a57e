//! Who is alive: when to PING, when to give up.
//!
//! Any byte from the peer is a sign of life. A PING goes out after `interval` without one; its PONG may take `patience`,
//! counted from when the PING has left, and again from every byte that moves in either direction. With [`Beats`] a PING
//! goes out at every beat, and a peer without a sign of life for some beats is dead.

use std::{
    collections::VecDeque,
    time::{Duration, Instant},
};

use tokio::sync::oneshot;

use crate::{
    error::CloseReason,
    options::{Beats, ConnectionOptions},
};

/// PINGs at beats that may wait for their PONG; no more are sent while bytes alone show that the peer lives.
const PINGS_MAX: usize = 64;

/// Where the round-trip time of a PING goes, if somebody asked.
pub(crate) type PingCompletion = oneshot::Sender<Result<Duration, CloseReason>>;

#[derive(Debug)]
pub(crate) struct Heartbeat {
    interval: Option<Duration>,
    idle_timeout: Option<Duration>,
    beats: Option<Beats>,
    next_beat: Instant,
    paused_interval: Duration,
    /// Oldest first; PONGs carry no id, so they are matched in this order.
    pings: VecDeque<Ping>,
    last_received: Instant,
    /// When a write that had had to wait went on: then the peer's side takes bytes.
    last_progress: Instant,
    /// While reading is paused: when the next PING is due.
    paused: Option<Instant>,
}

#[derive(Debug)]
struct Ping {
    departure: Departure,
    completion: Option<PingCompletion>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Departure {
    Queued(Instant),
    Leaving(Instant),
    Left(Instant),
}

/// What is due.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Beat {
    Ping,
    Idle(Duration),
    NoPong(Duration),
}

impl Heartbeat {
    pub(crate) fn new(options: &ConnectionOptions, now: Instant) -> Self {
        Self {
            interval: options.ping_interval,
            idle_timeout: options.idle_timeout,
            beats: options.beats,
            next_beat: now,
            paused_interval: options.paused_ping_interval,
            pings: VecDeque::new(),
            last_received: now,
            last_progress: now,
            paused: None,
        }
    }

    /// The peer cannot keep the time limit and has said so.
    pub(crate) fn never_idle(&mut self) {
        self.idle_timeout = None;
    }

    /// The peer is known to be one that regular PINGs are for.
    pub(crate) fn begin(&mut self, beats: Beats) {
        self.beats = Some(beats);
    }

    pub(crate) fn on_received(&mut self, now: Instant) {
        self.last_received = now;
    }

    /// When anything came from the peer last, or the connection began.
    pub(crate) fn last_received(&self) -> Instant {
        self.last_received
    }

    pub(crate) fn on_write_progress(&mut self, now: Instant) {
        self.last_progress = now;
    }

    pub(crate) fn pause(&mut self, now: Instant) {
        self.paused.get_or_insert(now);
    }

    pub(crate) fn resume(&mut self, now: Instant) {
        if self.paused.take().is_some() {
            // What came in meanwhile lies unread in the socket.
            self.last_received = now;
        }
    }

    pub(crate) fn is_paused(&self) -> bool {
        self.paused.is_some()
    }

    /// A PING was queued.
    pub(crate) fn on_ping(&mut self, completion: Option<PingCompletion>, now: Instant) {
        self.pings.push_back(Ping {
            departure: Departure::Queued(now),
            completion,
        });
    }

    /// A beat has come; whether the one before was missed, and whether to send PING.
    pub(crate) fn on_beat(&mut self, now: Instant) -> (bool, bool) {
        if let Some(due) = &mut self.paused {
            *due = now + self.paused_interval;
        }
        let Some(beats) = self.beats else {
            return (false, true);
        };
        let last_beat = self.next_beat.checked_sub(beats.interval);
        let missed = last_beat.is_some_and(|beat| self.last_sign() < beat);
        self.next_beat = now + beats.interval;
        (missed, self.pings.len() < PINGS_MAX)
    }

    /// Everything that was queued on the control lane is on its way to the socket.
    pub(crate) fn on_leaving(&mut self) {
        for ping in self.pings.iter_mut().rev() {
            let Departure::Queued(at) = ping.departure else {
                break;
            };
            ping.departure = Departure::Leaving(at);
        }
    }

    /// Everything that was on its way has been taken by the socket.
    pub(crate) fn on_left(&mut self, now: Instant) {
        for ping in &mut self.pings {
            if let Departure::Leaving(_) = ping.departure {
                ping.departure = Departure::Left(now);
            }
        }
    }

    /// Matches a PONG with the oldest PING; `None` if there is none.
    pub(crate) fn on_pong(&mut self, now: Instant) -> Option<(Duration, Option<PingCompletion>)> {
        let ping = self.pings.pop_front()?;
        let round_trip = match ping.departure {
            Departure::Left(at) => now.saturating_duration_since(at),
            Departure::Queued(_) | Departure::Leaving(_) => Duration::ZERO,
        };
        Some((round_trip, ping.completion))
    }

    /// What is due at `now`.
    pub(crate) fn due(&self, now: Instant) -> Option<Beat> {
        let (at, beat) = self.next()?;
        (at <= now).then_some(beat)
    }

    /// When [`Self::due`] will have something.
    pub(crate) fn next_timeout(&self) -> Option<Instant> {
        self.next().map(|(at, _)| at)
    }

    pub(crate) fn drain(&mut self) -> impl Iterator<Item = PingCompletion> {
        std::mem::take(&mut self.pings)
            .into_iter()
            .filter_map(|ping| ping.completion)
    }

    fn next(&self) -> Option<(Instant, Beat)> {
        if let Some(due) = self.paused {
            return Some((due, Beat::Ping));
        }
        if let Some(beats) = self.beats {
            let dead = self.last_sign() + beats.patience();
            return Some(if dead <= self.next_beat {
                (dead, Beat::NoPong(beats.patience()))
            } else {
                (self.next_beat, Beat::Ping)
            });
        }
        if let Some(ping) = self.pings.front() {
            return self.pong_deadline(ping);
        }
        match (self.interval, self.idle_timeout) {
            (Some(interval), _) => Some((self.last_received + interval, Beat::Ping)),
            (None, Some(idle)) => Some((self.last_received + idle, Beat::Idle(idle))),
            (None, None) => None,
        }
    }

    fn pong_deadline(&self, ping: &Ping) -> Option<(Instant, Beat)> {
        let patience = match (self.idle_timeout, self.interval) {
            (Some(idle), interval) => idle.saturating_sub(interval.unwrap_or_default()),
            (None, interval) => interval?,
        };
        // A PING that does not leave shows that the socket takes nothing: only progress helps then.
        let (Departure::Left(left) | Departure::Queued(left) | Departure::Leaving(left)) =
            ping.departure;
        Some((
            left.max(self.last_sign()) + patience,
            Beat::NoPong(patience),
        ))
    }

    fn last_sign(&self) -> Instant {
        self.last_received.max(self.last_progress)
    }
}
