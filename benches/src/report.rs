//! What a benchmark measured: medians with minimum and maximum, as a table or as JSON lines.

use std::collections::BTreeMap;

use serde_json::json;

use crate::target::{Target, show};

/// Stands for the variant with the largest median, whichever that is.
pub(crate) const BEST: &str = "the best";

/// Which number: one row of the table.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Key {
    /// Name of the case, for example `1M-rows`.
    pub(crate) case: &'static str,
    /// Unit of the number, for example `rows_s`.
    pub(crate) unit: &'static str,
    /// Who was measured, for example `jdbc-ours`.
    pub(crate) variant: &'static str,
}

/// The samples of one benchmark.
#[derive(Debug)]
pub(crate) struct Report {
    bench: &'static str,
    samples: BTreeMap<Key, Vec<f64>>,
}

/// Median with the ends of the range.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) struct Summary {
    /// Smallest sample.
    pub(crate) min: f64,
    /// Middle sample; the mean of both middle ones when their number is even.
    pub(crate) median: f64,
    /// Largest sample.
    pub(crate) max: f64,
    /// Number of samples.
    pub(crate) rounds: usize,
}

impl Report {
    /// An empty report of the benchmark `bench`.
    pub(crate) fn new(bench: &'static str) -> Self {
        Self {
            bench,
            samples: BTreeMap::new(),
        }
    }

    /// Adds one sample.
    pub(crate) fn add(&mut self, key: Key, value: f64) {
        self.samples.entry(key).or_default().push(value);
    }

    /// Adds one sample of each unit.
    pub(crate) fn add_all(
        &mut self,
        (case, variant): (&'static str, &'static str),
        samples: impl IntoIterator<Item = (&'static str, f64)>,
    ) {
        for (unit, value) in samples {
            let key = Key {
                case,
                unit,
                variant,
            };
            self.add(key, value);
        }
    }

    /// Prints a table; each variant's median is also shown as a ratio to that of `base`.
    pub(crate) fn print_table(&self, base: &str) {
        println!(
            "{:<22} {:<15} {:<16} {:>10} {:>10} {:>10} {:>7}",
            "case", "unit", "variant", "min", "median", "max", "ratio"
        );
        for (key, samples) in &self.samples {
            let summary = Summary::of(samples);
            println!(
                "{:<22} {:<15} {:<16} {:>10} {:>10} {:>10} {:>7}",
                key.case,
                key.unit,
                key.variant,
                show(summary.min),
                show(summary.median),
                show(summary.max),
                self.ratio(key, summary.median, base)
            );
        }
        println!("ratio: median to that of {base}, same case and unit");
    }

    /// Prints one JSON object a line and variant.
    pub(crate) fn print_json(&self) {
        for (key, samples) in &self.samples {
            let summary = Summary::of(samples);
            println!(
                "{}",
                json!({
                    "bench": self.bench, "case": key.case, "variant": key.variant, "unit": key.unit,
                    "min": summary.min, "median": summary.median, "max": summary.max,
                    "rounds": summary.rounds,
                })
            );
        }
    }

    /// Prints which of `targets` are met; those without a number are not judged.
    pub(crate) fn print_verdicts(&self, targets: &[Target]) {
        for target in targets {
            let verdict = target.verdict(|variant| self.median(target.case, target.unit, variant));
            println!("target: {target}: {verdict}");
        }
    }

    fn median(&self, case: &str, unit: &str, variant: &str) -> Option<f64> {
        let wanted = |key: &Key| variant == BEST || key.variant == variant;
        let same = |key: &Key| key.case == case && key.unit == unit && wanted(key);
        let all = self.samples.iter().filter(|(key, _)| same(key));
        all.map(|(_, samples)| Summary::of(samples).median)
            .max_by(f64::total_cmp)
    }

    fn ratio(&self, key: &Key, median: f64, base: &str) -> String {
        self.median(key.case, key.unit, base).map_or_else(
            || "-".to_owned(),
            |of_base| format!("{:.2}", median / of_base),
        )
    }
}

impl Summary {
    /// Summarises `samples`, of which there is at least one.
    pub(crate) fn of(samples: &[f64]) -> Self {
        let mut sorted = samples.to_vec();
        sorted.sort_by(f64::total_cmp);
        let (low, high) = (sorted[(sorted.len() - 1) / 2], sorted[sorted.len() / 2]);
        Self {
            min: sorted[0],
            median: f64::midpoint(low, high),
            max: sorted[sorted.len() - 1],
            rounds: sorted.len(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_median_of_an_even_number_is_between_the_middle_two() {
        let summary = Summary::of(&[4.0, 1.0, 3.0, 2.0]);
        assert_eq!(
            summary,
            Summary {
                min: 1.0,
                median: 2.5,
                max: 4.0,
                rounds: 4
            }
        );
    }

    #[test]
    fn the_best_is_whoever_has_the_largest_median() {
        let mut report = Report::new("compression");
        for (variant, value) in [("none", 1.0), ("lz4", 3.0), ("zstd", 2.0)] {
            report.add_all(("c", variant), [("GB_s", value)]);
        }
        assert_eq!(report.median("c", "GB_s", BEST), Some(3.0));
        assert_eq!(report.median("c", "cpu_s_GB", BEST), None);
    }

    #[test]
    fn ratios_are_to_the_base_of_the_same_case_and_unit() {
        let mut report = Report::new("user");
        let key = |unit, variant| Key {
            case: "c",
            unit,
            variant,
        };
        report.add(key("ms", "base"), 2.0);
        report.add(key("ms", "other"), 3.0);
        report.add(key("rows_s", "other"), 3.0);
        assert_eq!(report.ratio(&key("ms", "other"), 3.0, "base"), "1.50");
        assert_eq!(report.ratio(&key("rows_s", "other"), 3.0, "base"), "-");
    }
}
