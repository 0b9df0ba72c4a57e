//! What a benchmark is expected to show, judged on medians.

use std::fmt;

/// One expectation.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Target {
    /// Case of the number.
    pub(crate) case: &'static str,
    /// Unit of the number.
    pub(crate) unit: &'static str,
    /// Who is measured.
    pub(crate) variant: &'static str,
    /// Whom the number is divided by; `None` judges the number itself.
    pub(crate) base: Option<&'static str>,
    /// Where the number or ratio has to be.
    pub(crate) bound: Bound,
    /// Where the ratio to another variant may be instead.
    pub(crate) or_ratio: Option<(&'static str, Bound)>,
    /// Where to aim beyond `bound`.
    pub(crate) stretch: Option<Bound>,
}

/// Where a number has to be.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Bound {
    /// This or more.
    AtLeast(f64),
    /// This or less.
    AtMost(f64),
}

impl Target {
    /// About the number itself.
    pub(crate) const fn number(
        case: &'static str,
        unit: &'static str,
        variant: &'static str,
        bound: Bound,
    ) -> Self {
        Self {
            case,
            unit,
            variant,
            base: None,
            bound,
            or_ratio: None,
            stretch: None,
        }
    }

    /// About the ratio to the number of `base`.
    pub(crate) const fn ratio(
        case: &'static str,
        unit: &'static str,
        variant: &'static str,
        base: &'static str,
        bound: Bound,
    ) -> Self {
        Self {
            base: Some(base),
            ..Self::number(case, unit, variant, bound)
        }
    }

    /// Also met if the ratio to `base` is where `bound` says.
    pub(crate) const fn or_ratio(self, base: &'static str, bound: Bound) -> Self {
        Self {
            or_ratio: Some((base, bound)),
            ..self
        }
    }

    /// Where to aim.
    pub(crate) const fn stretch(self, bound: Bound) -> Self {
        Self {
            stretch: Some(bound),
            ..self
        }
    }

    /// What there is to say, if `median` knows the medians of variants for this case and unit.
    pub(crate) fn verdict(&self, median: impl Fn(&str) -> Option<f64>) -> String {
        let Some(number) = median(self.variant) else {
            return "not measured".to_owned();
        };
        let ratio = |base| Some(number / median(base)?);
        let Some(value) = self.base.map_or(Some(number), ratio) else {
            return "not measured".to_owned();
        };
        let other = self
            .or_ratio
            .and_then(|(base, bound)| Some((ratio(base)?, bound)));
        let met = self.bound.holds(value) || other.is_some_and(|(ratio, bound)| bound.holds(ratio));
        let verdict = if met { "met" } else { "MISSED" };
        let other = other.map_or_else(String::new, |(ratio, _)| format!(" ({} x)", show(ratio)));
        let stretch = self.stretch.map_or_else(String::new, |stretch| {
            let reached = if stretch.holds(value) {
                "reached"
            } else {
                "not reached"
            };
            format!(", stretch {stretch} {reached}")
        });
        format!("{verdict}: {}{other}{stretch}", show(value))
    }
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
        let Self {
            case,
            unit,
            variant,
            bound,
            ..
        } = self;
        write!(f, "{case} {unit} of {variant} {bound}")?;
        if let Some(base) = self.base {
            write!(f, " x {base}")?;
        }
        self.or_ratio
            .map_or(Ok(()), |(base, bound)| write!(f, " or {bound} x {base}"))
    }
}

/// Four significant digits or whole numbers, whichever is shorter to read.
pub(crate) fn show(value: f64) -> String {
    if value >= 1000.0 {
        format!("{value:.0}")
    } else {
        format!("{value:.3}")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn medians(variant: &str) -> Option<f64> {
        [("ours", 3.0), ("base", 2.0), ("other", 6.0)]
            .into_iter()
            .find_map(|(name, median)| (name == variant).then_some(median))
    }

    #[test]
    fn a_bound_holds_at_its_own_value() {
        assert!(Bound::AtLeast(1.25).holds(1.25) && !Bound::AtLeast(1.25).holds(1.24));
        assert!(Bound::AtMost(0.2).holds(0.2) && !Bound::AtMost(0.2).holds(0.21));
    }

    #[test]
    fn a_target_is_about_a_ratio_or_about_the_number_itself() {
        let most = Bound::AtMost(2.0);
        let number = Target::number("c", "ms", "ours", most);
        assert_eq!(number.verdict(medians), "MISSED: 3.000");
        let ratio = |base| Target::ratio("c", "ms", "ours", base, most);
        assert_eq!(ratio("base").verdict(medians), "met: 1.500");
        assert_eq!(ratio("nobody").verdict(medians), "not measured");
        let ours = Target::number("c", "ms", "nobody", most);
        assert_eq!(ours.verdict(medians), "not measured");
    }

    #[test]
    fn one_of_two_bounds_is_enough() {
        let target = Target::number("c", "ms", "ours", Bound::AtMost(2.0));
        let either = |bound| {
            target
                .or_ratio("other", Bound::AtMost(bound))
                .verdict(medians)
        };
        assert_eq!(either(0.5), "met: 3.000 (0.500 x)");
        assert_eq!(either(0.4), "MISSED: 3.000 (0.500 x)");
    }

    #[test]
    fn where_to_aim_is_told_apart_from_what_has_to_be() {
        let target = Target::number("c", "ms", "ours", Bound::AtMost(4.0));
        let aim = |most| target.stretch(Bound::AtMost(most)).verdict(medians);
        assert_eq!(aim(3.0), "met: 3.000, stretch <= 3 reached");
        assert_eq!(aim(1.0), "met: 3.000, stretch <= 1 not reached");
    }
}
