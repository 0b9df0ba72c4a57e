//! Rounds: variants in turn, a line for every number, and a report of all of them.

use anyhow::{Context, Result, ensure};

use crate::progress::Progress;
use crate::report::Report;
use crate::rpc::threads::ThreadOptions;
use crate::settings::Settings;

/// A number, behind its unit.
pub(crate) type Sample = (&'static str, f64);

/// Arguments of a benchmark whose variants are chosen on the command line.
#[derive(clap::Args, Clone, Debug)]
pub(crate) struct Chosen {
    #[command(flatten)]
    pub(crate) settings: Settings,
    /// Runs these variants only; several with commas between them.
    #[arg(long, value_name = "NAMES", value_delimiter = ',')]
    variants: Vec<String>,
    #[command(flatten)]
    pub(crate) threads: ThreadOptions,
}

impl Chosen {
    pub(crate) fn wants(&self, variant: &str) -> bool {
        self.variants.is_empty() || self.variants.iter().any(|wanted| wanted == variant)
    }

    /// Starts those of `variants` that are wanted; what cannot run here is left out.
    pub(crate) fn start<T>(
        &self,
        variants: &[&'static str],
        progress: &Progress,
        start: impl Fn(&'static str) -> Result<T>,
    ) -> Result<Vec<(&'static str, T)>> {
        for wanted in &self.variants {
            let known = variants.contains(&wanted.as_str());
            ensure!(
                known,
                "no variant {wanted}; there are: {}",
                variants.join(", ")
            );
        }
        let wanted = variants.iter().filter(|name| self.wants(name));
        let started = wanted.filter_map(|&name| {
            let started = progress.left_out_if_missing(name, start(name))?;
            Some((name, started))
        });
        Ok(started.collect())
    }
}

/// What has been measured so far.
pub(crate) struct Rounds {
    pub(crate) progress: Progress,
    report: Report,
}

impl Rounds {
    /// Of the benchmark `bench`; its clock runs from now on.
    pub(crate) fn of(bench: &'static str) -> Self {
        Self {
            progress: Progress::new(),
            report: Report::new(bench),
        }
    }

    /// Runs `round` as often as is asked for.
    pub(crate) fn run(
        mut self,
        settings: &Settings,
        mut round: impl FnMut(&mut Self) -> Result<()>,
    ) -> Result<Report> {
        for number in 1..=settings.rounds {
            let what = format!("round {number} of {}", settings.rounds);
            self.progress.begin(&what);
            round(&mut self)?;
        }
        Ok(self.report)
    }

    /// Measures `case` with every variant in turn.
    pub(crate) fn put<T, S: AsRef<[Sample]>>(
        &mut self,
        case: &'static str,
        variants: &mut [(&'static str, T)],
        mut measure: impl FnMut(&'static str, &mut T) -> Result<S>,
    ) -> Result<()> {
        for (name, variant) in &mut *variants {
            let measured = measure(name, variant).context(*name)?;
            self.add(case, name, measured.as_ref());
        }
        // Whoever follows a variant that leaves the machine busy shall not always be the same.
        variants.rotate_left(1);
        Ok(())
    }

    /// Adds numbers, and shows them.
    pub(crate) fn add(&mut self, case: &'static str, variant: &'static str, samples: &[Sample]) {
        let numbers: Vec<_> = samples
            .iter()
            .map(|(unit, value)| format!("{unit} {value:>10.3}"))
            .collect();
        let line = format!("  {case:<20} {variant:<16} {}", numbers.join("  "));
        self.progress.note(&line);
        self.report
            .add_all((case, variant), samples.iter().copied());
    }
}
