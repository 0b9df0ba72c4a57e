//! What every benchmark can be told on the command line.

use anyhow::{Result, bail};

/// Arguments of one benchmark.
#[derive(clap::Args, Clone, Debug)]
pub(crate) struct Settings {
    /// Counted rounds; each runs every variant once.
    #[arg(long, default_value_t = 5, value_parser = clap::value_parser!(u32).range(1..))]
    pub(crate) rounds: u32,
    /// Prints one JSON object a line instead of a table.
    #[arg(long)]
    pub(crate) json: bool,
    /// Reports this case only.
    #[arg(long, value_name = "NAME")]
    case: Option<String>,
    /// The variant that ratios are to.
    #[arg(long, value_name = "VARIANT")]
    pub(crate) base: Option<String>,
}

impl Settings {
    /// Whether `case` is to be reported.
    pub(crate) fn wants(&self, case: &str) -> bool {
        self.case.as_deref().is_none_or(|wanted| wanted == case)
    }

    /// Fails if a case was named that is none of `cases`.
    pub(crate) fn check(&self, cases: &[&str]) -> Result<()> {
        match &self.case {
            Some(case) if !cases.contains(&case.as_str()) => {
                bail!("no case {case}; there are: {}", cases.join(", "))
            }
            _ => Ok(()),
        }
    }
}
