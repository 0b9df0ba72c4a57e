//! One way of a connection: bytes are taken, are on their way for a while, and are delivered.

use std::{
    io,
    sync::atomic::{AtomicU64, Ordering},
    time::Duration,
};

use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::tcp::{ReadHalf, WriteHalf},
    sync::{Semaphore, mpsc, watch},
    time::{Instant, sleep_until},
};

use crate::{
    connection::Wires,
    faults::{Cut, End, Faults, Flow, Way},
};

/// Bytes that may be on their way: what a network holds is little.
const BYTES_MAX: usize = 256 * 1024;
/// More than this is no timer's fault, and not made up for.
const LATE_MAX: Duration = Duration::from_millis(20);
/// Bytes that share one draw of chance.
const DRAW_BYTES: u64 = 1024;

/// Bytes on their way.
struct Piece {
    bytes: Vec<u8>,
    /// When they arrive.
    due: Instant,
}

/// Passes on what comes until its end, and the end too. An error is how both ways are to end.
pub(crate) async fn run(
    wires: &Wires,
    way: Way,
    from: ReadHalf<'_>,
    to: WriteHalf<'_>,
) -> Result<(), End> {
    // Bounded by `room`.
    let (sender, pieces) = mpsc::unbounded_channel();
    let room = Semaphore::new(BYTES_MAX);
    let intake = Intake {
        from,
        room: &room,
        faults: wires.faults(way),
        seed: wires.seed(way),
        taken: 0,
        last_due: Instant::now(),
    };
    let outlet = Outlet {
        to,
        room: &room,
        faults: wires.faults(way),
        passed: wires.passed(way),
        delivered: 0,
        free: Instant::now(),
        late: Duration::ZERO,
    };
    tokio::try_join!(intake.run(sender), outlet.run(pieces)).map(|_| ())
}

struct Intake<'a> {
    from: ReadHalf<'a>,
    room: &'a Semaphore,
    faults: watch::Receiver<Faults>,
    seed: u64,
    taken: u64,
    last_due: Instant,
}

impl Intake<'_> {
    async fn run(mut self, pieces: mpsc::UnboundedSender<Piece>) -> Result<(), End> {
        let mut bytes = Vec::new();
        loop {
            let faults = settled(&mut self.faults).await;
            bytes.resize(faults.piece_bytes_max.clamp(1, BYTES_MAX), 0);
            let read = tokio::select! {
                biased;
                _ = self.faults.changed() => continue,
                read = self.from.read(&mut bytes) => read,
            };
            match read {
                Ok(0) | Err(_) => return self.end(read).await,
                Ok(_) if faults.flow == Flow::Lost => {}
                Ok(count) => {
                    let piece = self.piece(&bytes[..count], &faults);
                    self.take_room(count).await;
                    // Fails where nobody delivers any more, who then has said why.
                    let _ = pieces.send(piece);
                }
            }
        }
    }

    async fn take_room(&self, bytes: usize) {
        let bytes = u32::try_from(bytes).unwrap_or(u32::MAX);
        // Never closed.
        if let Ok(taken) = self.room.acquire_many(bytes).await {
            taken.forget();
        }
    }

    fn piece(&mut self, bytes: &[u8], faults: &Faults) -> Piece {
        let draw = mix(self.seed ^ (self.taken / DRAW_BYTES));
        let jitter = faults.jitter.mul_f64(share(draw));
        self.taken += bytes.len() as u64;
        self.last_due = self.last_due.max(Instant::now() + faults.latency + jitter);
        Piece {
            bytes: bytes.to_vec(),
            due: self.last_due,
        }
    }

    /// The sender has ended its way; that is passed on, unless it is lost as everything is.
    async fn end(&mut self, read: io::Result<usize>) -> Result<(), End> {
        flowing(&mut self.faults).await;
        read.map(|_| ()).map_err(|_| End::Reset)
    }
}

struct Outlet<'a> {
    to: WriteHalf<'a>,
    room: &'a Semaphore,
    faults: watch::Receiver<Faults>,
    passed: &'a AtomicU64,
    delivered: u64,
    /// When the rate allows more.
    free: Instant,
    /// How much later than that it went on the last time: timers are coarse, and what they lose is made up for.
    late: Duration,
}

impl Outlet<'_> {
    async fn run(mut self, mut pieces: mpsc::UnboundedReceiver<Piece>) -> Result<(), End> {
        while let Some(piece) = pieces.recv().await {
            sleep_until(piece.due).await;
            let faults = settled(&mut self.faults).await;
            self.room.add_permits(piece.bytes.len());
            if faults.flow != Flow::Lost {
                self.deliver(piece.bytes, &faults).await?;
            }
        }
        self.to.shutdown().await.map_err(|_| End::Reset)
    }

    async fn deliver(&mut self, mut bytes: Vec<u8>, faults: &Faults) -> Result<(), End> {
        let cut = faults
            .cut
            .filter(|cut| cut.after_bytes <= self.delivered + bytes.len() as u64);
        if let Some(Cut { after_bytes, .. }) = cut {
            bytes.truncate(offset(after_bytes.saturating_sub(self.delivered)));
        }
        if let Some(bit) = faults.flip_bit {
            self.flip(&mut bytes, bit);
        }
        self.to.write_all(&bytes).await.map_err(|_| End::Reset)?;
        self.delivered += bytes.len() as u64;
        self.passed.fetch_add(bytes.len() as u64, Ordering::Relaxed);
        if let Some(Cut { end, .. }) = cut {
            return Err(end);
        }
        self.keep_rate(bytes.len(), faults.bytes_per_s).await;
        Ok(())
    }

    fn flip(&self, bytes: &mut [u8], bit: u64) {
        let byte = (bit / 8).checked_sub(self.delivered).map(offset);
        if let Some(byte) = byte.and_then(|byte| bytes.get_mut(byte)) {
            *byte ^= 1 << (bit % 8);
        }
    }

    async fn keep_rate(&mut self, bytes: usize, bytes_per_s: Option<u32>) {
        let Some(rate) = bytes_per_s else { return };
        let nanos = bytes as u64 * 1_000_000_000 / u64::from(rate.max(1));
        let began = Instant::now() - self.late.min(LATE_MAX);
        self.free = self.free.max(began) + Duration::from_nanos(nanos);
        sleep_until(self.free).await;
        self.late = self.free.elapsed();
    }
}

/// The faults, once bytes are not stalled.
async fn settled(faults: &mut watch::Receiver<Faults>) -> Faults {
    let settled = |faults: &Faults| faults.flow != Flow::Stalled;
    match faults.wait_for(settled).await {
        Ok(faults) => *faults,
        Err(_) => Faults::default(),
    }
}

/// Waits until bytes pass.
async fn flowing(faults: &mut watch::Receiver<Faults>) {
    // Fails only when the proxy is gone, and with it this connection.
    let _ = faults.wait_for(|faults| faults.flow == Flow::Passing).await;
}

/// An offset within what is in memory.
fn offset(bytes: u64) -> usize {
    usize::try_from(bytes).unwrap_or(usize::MAX)
}

/// A number that looks like chance and follows from `seed` alone (the finaliser of splitmix64).
pub(crate) fn mix(seed: u64) -> u64 {
    let z = seed.wrapping_add(0x9e37_79b9_7f4a_7c15);
    let z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    let z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    z ^ (z >> 31)
}

/// A number from 0 to 1, 1 excluded.
fn share(draw: u64) -> f64 {
    f64::from(u32::try_from(draw >> 32).unwrap_or_default()) / (f64::from(u32::MAX) + 1.0)
}
