//! Credits, stepped by hand.

use super::*;

const SIZES: WindowSizes = WindowSizes {
    bytes_min: 1_000,
    bytes: 4_000,
    bytes_max: 16_000,
    overrun_bytes: 4_000,
    starved_min: STARVED_MIN,
};

fn window() -> (ReceiveWindow, Instant) {
    let now = Instant::now();
    (ReceiveWindow::new(SIZES, now), now)
}

#[test]
fn one_batch_may_overrun_and_no_more() {
    let (mut window, now) = window();
    let mut sender = SendCredit::new(window.granted_bytes());
    for cost in [3_999, 3_000] {
        assert!(sender.may_send());
        sender.on_sent(cost);
        assert_eq!(window.on_received(cost, now), Ok(()));
    }
    assert!(!sender.may_send());
    let beyond = BeyondCredit {
        received_bytes: 6_999,
        limit_bytes: 4_000,
    };
    assert_eq!(window.on_received(1, now), Err(beyond));
    assert_eq!(window.reserved_bytes(), 8_000);
}

#[test]
fn limits_only_grow_whatever_order_they_come_in() {
    let mut sender = SendCredit::new(10);
    for limit in [30, 20, 30, 0] {
        sender.raise(limit);
    }
    assert_eq!(
        sender,
        SendCredit {
            limit_bytes: 30,
            sent_bytes: 0
        }
    );
}

#[test]
fn the_limit_is_raised_once_half_of_the_window_is_taken() {
    let (mut window, now) = window();
    let mut raises = Vec::new();
    for _ in 0..16 {
        window.on_received(500, now).expect("within the credit");
        raises.extend(window.on_taken(500, now, |_| false));
    }
    assert_eq!(raises, [6_500, 9_000, 11_500]);
}

#[test]
fn a_stream_with_nothing_queued_has_its_least_credit() {
    for cost in 1..5_000 {
        let (mut window, now) = window();
        for _ in 0..20 {
            window.on_received(cost, now).expect("within the credit");
            window.on_taken(cost, now, |_| false);
            assert!(window.granted_bytes - window.taken_bytes >= SIZES.bytes_min);
        }
    }
}

/// Takes batches, of which the last of each round overruns the limit, as a sender with a round trip of `rtt` would send
/// them.
fn drive(window: &mut ReceiveWindow, mut now: Instant, rtt: Duration, rounds: usize) -> Instant {
    for _ in 0..rounds {
        let granted = window.granted_bytes();
        while window.received_bytes < granted {
            window.on_received(700, now).expect("within the credit");
            window.on_taken(700, now, |growth| growth.helps(rtt));
        }
        window.on_starved(now);
        now += rtt;
    }
    now
}

#[test]
fn a_long_link_gets_a_larger_window_and_a_short_one_does_not() {
    let (mut short, now) = window();
    drive(&mut short, now, Duration::from_micros(100), 100);
    assert_eq!(short.window_bytes(), 4_000);
    let (mut long, now) = window();
    drive(&mut long, now, Duration::from_millis(20), 100);
    assert_eq!(long.window_bytes(), 16_000);
}

#[test]
fn a_slow_sender_is_no_reason_for_a_larger_window() {
    let (mut window, mut now) = window();
    for _ in 0..100 {
        window.on_starved(now);
        now += Duration::from_millis(50);
        window.on_received(500, now).expect("within the credit");
        window.on_taken(500, now, |_| true);
    }
    assert_eq!(window.window_bytes(), 4_000);
}

#[test]
fn a_window_without_room_in_the_budget_stays() {
    let (mut window, mut now) = window();
    for _ in 0..10 {
        let granted = window.granted_bytes();
        while window.received_bytes < granted {
            window.on_received(500, now).expect("within the credit");
            window.on_taken(500, now, |_| false);
        }
        window.on_starved(now);
        now += Duration::from_millis(20);
    }
    assert_eq!(window.window_bytes(), 4_000);
}

#[test]
fn a_larger_window_that_nobody_needs_shrinks_again() {
    let (mut window, now) = window();
    let now = drive(&mut window, now, Duration::from_millis(20), 100);
    drive(&mut window, now, Duration::ZERO, 1_000);
    assert_eq!(window.window_bytes(), 4_000);
}

#[test]
fn only_a_window_that_comes_in_a_few_round_trips_is_too_small() {
    let growth = |received_bytes, millis| Growth {
        more_bytes: 4_000,
        window_bytes: 4_000,
        received_bytes,
        span: Duration::from_millis(millis),
    };
    let round_trip = Duration::from_millis(20);
    // Half a window in one round trip, in four, and in five.
    assert!(growth(2_000, 20).helps(round_trip));
    assert!(growth(2_000, 80).helps(round_trip));
    assert!(!growth(2_000, 100).helps(round_trip));
    assert!(!growth(2_000, 20).helps(Duration::from_micros(100)));
    assert!(
        growth(u64::MAX, u64::MAX).helps(Duration::MAX),
        "no overflow"
    );
}
