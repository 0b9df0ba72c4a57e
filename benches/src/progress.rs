//! What a benchmark is doing, on stderr: a running clock on a terminal, and a line per step everywhere.

use std::time::Duration;

use anyhow::Result;
use indicatif::{ProgressBar, ProgressStyle};

/// The clock of one benchmark.
#[derive(Debug)]
pub(crate) struct Progress {
    bar: ProgressBar,
}

impl Progress {
    /// Starts the clock.
    pub(crate) fn new() -> Self {
        let style = ProgressStyle::with_template("{spinner} {elapsed} {msg}")
            .expect("invariant: the template is valid");
        let bar = ProgressBar::new_spinner().with_style(style);
        bar.enable_steady_tick(Duration::from_millis(200));
        Self { bar }
    }

    /// Says what begins now.
    pub(crate) fn begin(&self, what: &str) {
        self.bar.set_message(what.to_owned());
        self.note(what);
    }

    /// A line that stays, whether or not stderr is a terminal.
    pub(crate) fn note(&self, line: &str) {
        self.bar.suspend(|| eprintln!("{line}"));
    }

    /// What was started, or `None` after saying loudly which variants are missing for what reason.
    pub(crate) fn left_out_if_missing<T>(&self, variants: &str, started: Result<T>) -> Option<T> {
        started
            .inspect_err(|missing| self.note(&format!("LEFT OUT: {variants}: {missing:#}")))
            .ok()
    }
}

impl Drop for Progress {
    fn drop(&mut self) {
        self.bar.finish_and_clear();
    }
}
