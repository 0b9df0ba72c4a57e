//! Time, for those who wait for room.

use std::{sync::Arc, time::Duration};

use tokio::time::{Instant, sleep};

use super::{
    queue::Queue,
    room::Room,
    worker::{Job, RETRY_AFTER, Worker},
};

/// Has those asked again for whom nobody gives anything back, as long as there are some. If it is dropped before that, its
/// runtime has ended, and they are told.
pub(super) struct Watch {
    room: Arc<Room<Queue>>,
    worker: Arc<Worker>,
    /// How often all are asked, so that they see how long they have waited.
    ask_every: Duration,
    is_done: bool,
}

impl Watch {
    pub(super) fn new(room: Arc<Room<Queue>>, worker: Arc<Worker>, room_timeout: Duration) -> Self {
        Self {
            room,
            worker,
            ask_every: room_timeout / 4,
            is_done: false,
        }
    }

    pub(super) async fn run(mut self) {
        let mut asked_at = Instant::now();
        loop {
            sleep(RETRY_AFTER).await;
            let is_everybody = asked_at.elapsed() >= self.ask_every;
            if !self.room.ask_again(is_everybody) {
                break;
            }
            if is_everybody {
                asked_at = Instant::now();
            }
            if self.room.has_to_tell() {
                // There: they may have something to encode.
                self.worker.tell(Job::TellOfRoom(Arc::clone(&self.room)));
            }
        }
        self.is_done = true;
    }
}

impl Drop for Watch {
    fn drop(&mut self) {
        if !self.is_done {
            self.room.close();
        }
    }
}
