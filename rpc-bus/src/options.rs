//! What a connection may take, and how long it waits.

use std::{sync::Arc, time::Duration};

use protos::Plane;
use thiserror::Error;

use crate::{capabilities::Capabilities, frame::FRAME_BYTES_LIMIT};

const KIB: usize = 1024;
const MIB: usize = 1024 * KIB;
/// Plans and profiles, no record batches.
const CONTROL_FRAME_BYTES_MAX: usize = 64 * MIB;

/// Limits and times of one connection.
#[derive(Clone, Debug, PartialEq)]
pub struct ConnectionOptions {
    /// Largest inbound frame before the handshake is done, in bytes, length prefix excluded. Default 64 KiB.
    pub handshake_frame_bytes_max: usize,
    /// Largest inbound frame afterwards, in bytes. User server 16 MiB, control 64 MiB, others 256 MiB.
    /// Worst-case memory of a connection is this, `write_queue_bytes_max` and `reply_queue_bytes_max`.
    pub frame_bytes_max: usize,
    /// How long connecting the socket may take. Default 10 s.
    pub connect_timeout: Duration,
    /// How long the peer may take for the handshake. Default 10 s.
    pub handshake_timeout: Duration,
    /// How long nothing may be received before the connection is closed. User 30 s, bit 300 s; `None`: for ever.
    pub idle_timeout: Option<Duration>,
    /// How long nothing is received before this side sends PING. The PONG must come within the rest of
    /// `idle_timeout`, or, without one, within the same time again. Clients: half of the idle timeout; servers `None`,
    /// they only answer, as Drill's.
    pub ping_interval: Option<Duration>,
    /// Between our own nodes: regular PINGs in place of `idle_timeout` and `ping_interval`. Default `None`: Drill's way.
    pub beats: Option<Beats>,
    /// How often PING is sent while reading is paused, without asking for its PONG. Default 10 s.
    pub paused_ping_interval: Duration,
    /// Requests of the peer that may wait for their answer; one more fails at once with a RESOURCE error. Default 1024;
    /// 65,536 for the client of the user plane.
    pub requests_in_flight_max: usize,
    /// Bytes of requests that may wait for their start before reading pauses until the handler has caught up. `None`,
    /// the default: reading never pauses for it. 4 MiB for the client of the user plane, so that what a real Drill
    /// sends without limit is counted by the handler before more of it is read.
    pub mailbox_bytes_max: Option<usize>,
    /// Calls of this side that may wait for their answer, given up ones included; one more fails. Default 65,536.
    pub calls_in_flight_max: usize,
    /// Bytes of requests that may wait to be written; senders wait for room. Default 1 MiB. One frame may overrun it.
    pub write_queue_bytes_max: usize,
    /// Bytes of replies that may wait to be written; a peer that asks for more without reading is closed.
    /// Default 16 MiB.
    pub reply_queue_bytes_max: usize,
    /// The socket's send buffer, in bytes; the kernel may give less. What is in flight then stays in the cache: large
    /// bodies cost a third less than with the megabytes that the kernel grows it to. `None` leaves it to the kernel:
    /// for links whose rate times round trip is more than this. Default 512 KiB.
    pub send_buffer_bytes: Option<usize>,
    /// How long a closing connection may take to write what is queued. Default 1 s.
    pub linger_timeout: Duration,
    /// What this side offers to peers of our own kind in its handshakes; `None`, the default: nothing, as Drill.
    pub capabilities: Option<Arc<Capabilities>>,
}

impl ConnectionOptions {
    /// The side that accepts on `plane`.
    #[must_use]
    pub fn server(plane: Plane) -> Self {
        match plane {
            Plane::User => Self::user_server(),
            Plane::Control => Self {
                frame_bytes_max: CONTROL_FRAME_BYTES_MAX,
                ..Self::bit_server()
            },
            Plane::Data => Self::bit_server(),
        }
    }

    /// The side that connects on `plane`.
    #[must_use]
    pub fn client(plane: Plane) -> Self {
        match plane {
            Plane::User => Self::user_client(),
            Plane::Control => Self {
                frame_bytes_max: CONTROL_FRAME_BYTES_MAX,
                ..Self::bit()
            },
            Plane::Data => Self::bit(),
        }
    }

    /// Server side of the user plane.
    // wire: drill@051b164 exec/java-exec/.../drill-module.conf: drill.exec.rpc.user.timeout
    #[must_use]
    pub fn user_server() -> Self {
        Self {
            frame_bytes_max: 16 * MIB,
            ping_interval: None,
            ..Self::with_idle_timeout(Duration::from_secs(30))
        }
    }

    /// Client side of the user plane.
    #[must_use]
    pub fn user_client() -> Self {
        Self {
            // A real Drill sends batches whether they are acknowledged or not, and a refused one fails its query.
            requests_in_flight_max: 65_536,
            mailbox_bytes_max: Some(4 * MIB),
            ..Self::with_idle_timeout(Duration::from_secs(30))
        }
    }

    /// The side of the data plane that connects; on the control plane frames are shorter.
    // wire: drill@051b164 exec/java-exec/.../drill-module.conf: drill.exec.rpc.bit.timeout
    #[must_use]
    pub fn bit() -> Self {
        Self::with_idle_timeout(Duration::from_mins(5))
    }

    /// The side of the data plane that accepts; on the control plane frames are shorter.
    #[must_use]
    pub fn bit_server() -> Self {
        Self {
            ping_interval: None,
            ..Self::bit()
        }
    }

    fn with_idle_timeout(idle_timeout: Duration) -> Self {
        Self {
            handshake_frame_bytes_max: 64 * KIB,
            frame_bytes_max: 256 * MIB,
            connect_timeout: Duration::from_secs(10),
            handshake_timeout: Duration::from_secs(10),
            idle_timeout: Some(idle_timeout),
            ping_interval: Some(idle_timeout / 2),
            beats: None,
            paused_ping_interval: Duration::from_secs(10),
            requests_in_flight_max: 1024,
            mailbox_bytes_max: None,
            calls_in_flight_max: 65_536,
            write_queue_bytes_max: MIB,
            reply_queue_bytes_max: 16 * MIB,
            send_buffer_bytes: Some(512 * KIB),
            linger_timeout: Duration::from_secs(1),
            capabilities: None,
        }
    }

    /// Checks how the values relate.
    ///
    /// # Errors
    ///
    /// Two values contradict each other, or one can never work.
    pub fn validate(&self) -> Result<(), OptionsError> {
        let frames = self.handshake_frame_bytes_max..=FRAME_BYTES_LIMIT;
        if !frames.contains(&self.frame_bytes_max) {
            return Err(OptionsError::FrameBytes {
                min: self.handshake_frame_bytes_max,
                max: FRAME_BYTES_LIMIT,
                actual: self.frame_bytes_max,
            });
        }
        for (name, value) in [
            ("handshake_frame_bytes_max", self.handshake_frame_bytes_max),
            ("requests_in_flight_max", self.requests_in_flight_max),
            ("calls_in_flight_max", self.calls_in_flight_max),
            ("write_queue_bytes_max", self.write_queue_bytes_max),
            ("reply_queue_bytes_max", self.reply_queue_bytes_max),
            ("mailbox_bytes_max", self.mailbox_bytes_max.unwrap_or(1)),
            ("send_buffer_bytes", self.send_buffer_bytes.unwrap_or(1)),
        ] {
            if value == 0 {
                return Err(OptionsError::Zero { name });
            }
        }
        self.validate_times()
    }

    fn validate_times(&self) -> Result<(), OptionsError> {
        let beats = self.beats.map(|beats| beats.interval.max(beats.patience()));
        for (name, time) in [
            ("connect_timeout", Some(self.connect_timeout)),
            ("handshake_timeout", Some(self.handshake_timeout)),
            ("idle_timeout", self.idle_timeout),
            ("ping_interval", self.ping_interval),
            ("paused_ping_interval", Some(self.paused_ping_interval)),
            ("beats.interval", beats),
            // It may be 0.
            (
                "linger_timeout",
                Some(self.linger_timeout.max(Duration::from_nanos(1))),
            ),
        ] {
            match time {
                Some(Duration::ZERO) => return Err(OptionsError::Zero { name }),
                Some(actual) if actual > TIME_MAX => {
                    return Err(OptionsError::TooLong { name, actual });
                }
                _ => {}
            }
        }
        if let Some(Beats { missed_max, .. }) = self.beats
            && missed_max < Beats::MISSED_MIN
        {
            return Err(OptionsError::TooFewBeats {
                min: Beats::MISSED_MIN,
                actual: missed_max,
            });
        }
        let (Some(ping), Some(idle)) = (self.ping_interval, self.idle_timeout) else {
            return Ok(());
        };
        if ping >= idle {
            return Err(OptionsError::PingInterval {
                ping_interval: ping,
                idle_timeout: idle,
            });
        }
        Ok(())
    }
}

/// Longest time of any option: far more than anybody waits for, and nothing that no clock reaches.
pub(crate) const TIME_MAX: Duration = Duration::from_hours(365 * 24);

/// A heartbeat that goes on whether or not anything else does, so that round trips are known and a dead peer is found
/// within `missed_max` intervals. Any byte from the peer counts as an answer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Beats {
    /// Time between two PINGs.
    pub interval: Duration,
    /// Beats without a sign of life after which the peer is dead; at least 3, since one lost or late beat is no death.
    pub missed_max: u32,
}

impl Beats {
    /// Fewest beats that may be missed.
    pub const MISSED_MIN: u32 = 3;

    /// Checks that they can work.
    ///
    /// # Errors
    ///
    /// The interval is zero, or a peer would be dead too soon.
    pub fn validate(self) -> Result<(), OptionsError> {
        let options = ConnectionOptions {
            beats: Some(self),
            ..ConnectionOptions::bit()
        };
        options.validate_times()
    }

    /// How long a peer may be silent.
    pub(crate) fn patience(self) -> Duration {
        self.interval.saturating_mul(self.missed_max)
    }
}

impl Default for Beats {
    fn default() -> Self {
        Self {
            interval: Duration::from_secs(1),
            missed_max: Self::MISSED_MIN,
        }
    }
}

/// Options that contradict each other.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
#[non_exhaustive]
pub enum OptionsError {
    /// The frame limit is below that of the handshake, or above what Drill can read.
    #[error("frame_bytes_max is {actual}, expected {min} to {max}")]
    FrameBytes {
        /// Smallest value.
        min: usize,
        /// Largest value.
        max: usize,
        /// The value.
        actual: usize,
    },
    /// A limit or a time of zero.
    #[error("{name} must not be 0")]
    Zero {
        /// Name of the option.
        name: &'static str,
    },
    /// A time that no clock may reach.
    #[error("{name} is {actual:?}, expected at most {TIME_MAX:?}, a year")]
    TooLong {
        /// Name of the option.
        name: &'static str,
        /// The value.
        actual: Duration,
    },
    /// A peer would be dead after a beat or two.
    #[error("beats.missed_max is {actual}, expected at least {min}")]
    TooFewBeats {
        /// Smallest value.
        min: u32,
        /// The value.
        actual: u32,
    },
    /// The connection would be idle before it is pinged.
    #[error("ping_interval {ping_interval:?} is not below idle_timeout {idle_timeout:?}")]
    PingInterval {
        /// The interval.
        ping_interval: Duration,
        /// The timeout.
        idle_timeout: Duration,
    },
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    #[test]
    fn the_presets_are_valid() {
        for plane in Plane::ALL {
            for options in [
                ConnectionOptions::server(plane),
                ConnectionOptions::client(plane),
            ] {
                assert_eq!(options.validate(), Ok(()));
            }
        }
    }

    #[test]
    fn each_plane_has_its_frame_limit_and_only_clients_ping() {
        let limits = Plane::ALL.map(|plane| {
            let (server, client) = (
                ConnectionOptions::server(plane),
                ConnectionOptions::client(plane),
            );
            assert!(server.ping_interval.is_none() && client.ping_interval.is_some());
            [server.frame_bytes_max / MIB, client.frame_bytes_max / MIB]
        });
        assert_eq!(limits, [[16, 256], [64, 64], [256, 256]]);
    }

    #[test]
    fn a_time_of_zero_is_refused() {
        let never_still = Beats {
            interval: Duration::ZERO,
            ..Beats::default()
        };
        let options = ConnectionOptions {
            beats: Some(never_still),
            ..ConnectionOptions::bit()
        };
        let name = "beats.interval";
        assert_eq!(options.validate(), Err(OptionsError::Zero { name }));
        let options = ConnectionOptions {
            paused_ping_interval: Duration::ZERO,
            ..ConnectionOptions::bit()
        };
        let name = "paused_ping_interval";
        assert_eq!(options.validate(), Err(OptionsError::Zero { name }));
    }

    #[test]
    fn a_time_that_no_clock_reaches_is_refused() {
        let patient = Beats {
            interval: Duration::MAX / 2,
            ..Beats::default()
        };
        let bit = ConnectionOptions::bit;
        for (name, options) in [
            (
                "beats.interval",
                ConnectionOptions {
                    beats: Some(patient),
                    ..bit()
                },
            ),
            (
                "idle_timeout",
                ConnectionOptions {
                    idle_timeout: Some(Duration::MAX),
                    ..bit()
                },
            ),
            (
                "linger_timeout",
                ConnectionOptions {
                    linger_timeout: Duration::MAX,
                    ..bit()
                },
            ),
        ] {
            let refused = options.validate().unwrap_err();
            assert!(matches!(refused, OptionsError::TooLong { name: of, .. } if of == name));
        }
    }

    #[test]
    fn contradictions_are_refused() {
        let bit = ConnectionOptions::bit;
        let small = ConnectionOptions {
            frame_bytes_max: 1,
            ..bit()
        };
        assert!(matches!(
            small.validate(),
            Err(OptionsError::FrameBytes { actual: 1, .. })
        ));
        let zero = ConnectionOptions {
            calls_in_flight_max: 0,
            ..bit()
        };
        assert_eq!(
            zero.validate(),
            Err(OptionsError::Zero {
                name: "calls_in_flight_max"
            })
        );
        let hasty = Beats {
            missed_max: 2,
            ..Beats::default()
        };
        let hasty = ConnectionOptions {
            beats: Some(hasty),
            ..bit()
        };
        assert_eq!(
            hasty.validate(),
            Err(OptionsError::TooFewBeats { min: 3, actual: 2 })
        );
        let late = ConnectionOptions {
            ping_interval: Some(Duration::from_mins(5)),
            ..bit()
        };
        assert!(matches!(
            late.validate(),
            Err(OptionsError::PingInterval { .. })
        ));
    }
}
