//! A line on standard error that shows that something is going on.

use std::time::Duration;

use indicatif::{HumanBytes, HumanCount, ProgressBar, ProgressStyle};

/// Redraws between batches, so that waiting for the first one shows, too.
const TICK: Duration = Duration::from_millis(100);

/// Whether there is somebody to show it to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Audience {
    /// Standard error is a terminal and the results do not scroll by on it anyway.
    Present,
    Absent,
}

/// Rows, bytes and seconds of one statement; gone when dropped.
pub(crate) struct Progress(Option<ProgressBar>);

impl Progress {
    pub(crate) fn begin(audience: Audience) -> Self {
        Self((audience == Audience::Present).then(spinner))
    }

    /// Rows of this statement, bytes written by the whole run.
    pub(crate) fn show(&self, rows: u64, bytes: u64) {
        if let Some(bar) = &self.0 {
            bar.set_message(format!(
                "{} rows, {} written",
                HumanCount(rows),
                HumanBytes(bytes)
            ));
        }
    }
}

impl Drop for Progress {
    fn drop(&mut self) {
        if let Some(bar) = &self.0 {
            bar.finish_and_clear();
        }
    }
}

fn spinner() -> ProgressBar {
    let style = ProgressStyle::with_template("{spinner} {elapsed} {msg}");
    let bar = ProgressBar::new_spinner().with_message("waiting for the first rows");
    bar.set_style(style.unwrap_or_else(|_| ProgressStyle::default_spinner()));
    bar.enable_steady_tick(TICK);
    bar
}
