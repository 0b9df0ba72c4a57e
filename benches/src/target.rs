//! What a benchmark is expected to show, judged on medians.

use std::fmt;

/// One expectation.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Target {
    /// Case and unit of the number.
    pub(crate) case: &'static str,
    /// Unit of the number.
    pub(crate) unit: &'static str,
    /// Who is measured.
    pub(crate) variant: &'static str,
    /// Whom the number is divided by; `None` judges the number itself.
    pub(crate) base: Option<&'static str>,
    /// Where the number or ratio has to be.
    pub(crate) bound: Bound,
}

/// Where a number has to be.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Bound {
    /// This or more.
    AtLeast(f64),
    /// This or less.
    AtMost(f64),
}

impl Bound {
    /// Whether `value` is where it has to be.
    pub(crate) fn holds(self, value: f64) -> bool {
        match self {
            Self::AtLeast(least) => value >= least,
            Self::AtMost(most) => value <= most,
        }
    }
}

impl fmt::Display for Bound {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::AtLeast(least) => write!(f, ">= {least}"),
            Self::AtMost(most) => write!(f, "<= {most}"),
        }
    }
}

impl fmt::Display for Target {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            f,
            "{} {} of {} {}",
            self.case, self.unit, self.variant, self.bound
        )?;
        self.base.map_or(Ok(()), |base| write!(f, " x {base}"))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_bound_holds_at_its_own_value() {
        assert!(Bound::AtLeast(1.25).holds(1.25) && !Bound::AtLeast(1.25).holds(1.24));
        assert!(Bound::AtMost(0.2).holds(0.2) && !Bound::AtMost(0.2).holds(0.21));
    }
}
