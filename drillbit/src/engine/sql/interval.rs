//! Drill's INTERVAL literals as the two kinds that Drill has: months, or days and milliseconds.

use datafusion::sql::sqlparser::ast::{DateTimeField, Interval};

/// The value of a literal.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum IntervalValue {
    /// INTERVAL YEAR TO MONTH.
    Months(i32),
    /// INTERVAL DAY TO SECOND.
    DayTime {
        /// Whole days.
        days: i32,
        /// Milliseconds of the day.
        millis: i32,
    },
}

impl IntervalValue {
    /// Reads `text` by the literal's fields; `None` if it has another form.
    pub(super) fn read(text: &str, interval: &Interval) -> Option<Self> {
        let leading = interval.leading_field.as_ref().and_then(Unit::of)?;
        let last = match &interval.last_field {
            Some(field) => Unit::of(field)?,
            None => leading,
        };
        let text = text.trim();
        let (sign, text) = match text.strip_prefix('-') {
            Some(rest) => (-1, rest),
            None => (1, text.strip_prefix('+').unwrap_or(text)),
        };
        let amounts = amounts(text, leading, last)?;
        if leading.is_calendar() {
            months(sign, &amounts)
        } else {
            day_time(sign, &amounts)
        }
    }

    /// The literal as text and the Arrow type to cast it to.
    pub(super) fn to_cast(self) -> (String, &'static str) {
        match self {
            Self::Months(months) => (format!("{months} months"), "Interval(YearMonth)"),
            Self::DayTime { days, millis } => (
                format!("{days} days {millis} milliseconds"),
                "Interval(DayTime)",
            ),
        }
    }
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
enum Unit {
    Year,
    Quarter,
    Month,
    Week,
    Day,
    Hour,
    Minute,
    Second,
}

impl Unit {
    fn of(field: &DateTimeField) -> Option<Self> {
        Some(match field {
            DateTimeField::Year | DateTimeField::Years => Self::Year,
            DateTimeField::Quarter => Self::Quarter,
            DateTimeField::Month | DateTimeField::Months => Self::Month,
            DateTimeField::Week(None) | DateTimeField::Weeks => Self::Week,
            DateTimeField::Day | DateTimeField::Days => Self::Day,
            DateTimeField::Hour | DateTimeField::Hours => Self::Hour,
            DateTimeField::Minute | DateTimeField::Minutes => Self::Minute,
            DateTimeField::Second | DateTimeField::Seconds => Self::Second,
            _ => return None,
        })
    }

    fn is_calendar(self) -> bool {
        self <= Self::Month
    }

    /// The units of `self TO last`, in the order of the literal's numbers.
    fn until(self, last: Self) -> Option<Vec<Self>> {
        const CALENDAR: [Unit; 2] = [Unit::Year, Unit::Month];
        const CLOCK: [Unit; 4] = [Unit::Day, Unit::Hour, Unit::Minute, Unit::Second];
        if self == last {
            return Some(vec![self]);
        }
        let order: &[Self] = if self.is_calendar() {
            &CALENDAR
        } else {
            &CLOCK
        };
        let from = order.iter().position(|unit| *unit == self)?;
        let to = order.iter().position(|unit| *unit == last)?;
        order.get(from..=to).map(<[Self]>::to_vec)
    }
}

/// Pairs the numbers of the literal (`3 04:05:06.789`) with their units; seconds in milliseconds.
fn amounts(text: &str, leading: Unit, last: Unit) -> Option<Vec<(Unit, i64)>> {
    let units = leading.until(last)?;
    let numbers: Vec<&str> = text.split(['-', ' ', ':']).collect();
    if numbers.len() != units.len() {
        return None;
    }
    let read = |(unit, number): (Unit, &str)| match unit {
        Unit::Second => Some((unit, milliseconds(number)?)),
        _ if number.bytes().all(|byte| byte.is_ascii_digit()) => Some((unit, number.parse().ok()?)),
        _ => None,
    };
    units.into_iter().zip(numbers).map(read).collect()
}

fn milliseconds(text: &str) -> Option<i64> {
    let (whole, fraction) = text.split_once('.').unwrap_or((text, ""));
    let digits = |text: &str| text.bytes().all(|byte| byte.is_ascii_digit());
    if whole.is_empty() || !digits(whole) || !digits(fraction) {
        return None;
    }
    let fraction: i64 = format!("{fraction:0<3}").get(..3)?.parse().ok()?;
    whole
        .parse::<i64>()
        .ok()?
        .checked_mul(1000)?
        .checked_add(fraction)
}

fn months(sign: i64, amounts: &[(Unit, i64)]) -> Option<IntervalValue> {
    let months = amounts.iter().try_fold(0_i64, |sum, (unit, amount)| {
        let factor = match unit {
            Unit::Year => 12,
            Unit::Quarter => 3,
            _ => 1,
        };
        sum.checked_add(amount.checked_mul(factor)?)
    })?;
    i32::try_from(sign * months).ok().map(IntervalValue::Months)
}

fn day_time(sign: i64, amounts: &[(Unit, i64)]) -> Option<IntervalValue> {
    const DAY: i64 = 24 * 60 * 60 * 1000;
    let total = amounts.iter().try_fold(0_i64, |sum, (unit, amount)| {
        let factor = match unit {
            Unit::Week => 7 * DAY,
            Unit::Day => DAY,
            Unit::Hour => 60 * 60 * 1000,
            Unit::Minute => 60 * 1000,
            _ => 1,
        };
        sum.checked_add(amount.checked_mul(factor)?)
    })?;
    let total = sign * total;
    let days = i32::try_from(total / DAY).ok()?;
    let millis = i32::try_from(total % DAY).ok()?;
    Some(IntervalValue::DayTime { days, millis })
}

#[cfg(test)]
mod tests {
    use super::*;
    use datafusion::sql::sqlparser::ast::{Expr, Value};

    fn read(
        text: &str,
        leading: DateTimeField,
        last: Option<DateTimeField>,
    ) -> Option<IntervalValue> {
        let interval = Interval {
            value: Box::new(Expr::value(Value::Null)),
            leading_field: Some(leading),
            leading_precision: None,
            last_field: last,
            fractional_seconds_precision: None,
        };
        IntervalValue::read(text, &interval)
    }

    #[test]
    fn years_and_months_become_months() {
        use DateTimeField::{Month, Year};
        assert_eq!(
            read("1-2", Year, Some(Month)),
            Some(IntervalValue::Months(14))
        );
        assert_eq!(read("-1", Year, None), Some(IntervalValue::Months(-12)));
        assert_eq!(read("1", Year, Some(Month)), None);
    }

    #[test]
    fn days_to_seconds_keep_milliseconds() {
        use DateTimeField::{Day, Hour, Second};
        let expected = IntervalValue::DayTime {
            days: 3,
            millis: 14_706_789,
        };
        assert_eq!(read("3 04:05:06.789", Day, Some(Second)), Some(expected));
        assert_eq!(
            read("-1", Day, None),
            Some(IntervalValue::DayTime {
                days: -1,
                millis: 0
            })
        );
        assert_eq!(
            read("25", Hour, None),
            Some(IntervalValue::DayTime {
                days: 1,
                millis: 3_600_000
            })
        );
        assert_eq!(read("x", Hour, None), None);
        assert_eq!(read("99999999999999999999", Day, None), None);
    }
}
