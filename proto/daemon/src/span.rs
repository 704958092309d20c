//! [`Span`]: a length of time as people write it.

use std::{fmt, str::FromStr, time::Duration};

use thiserror::Error;

/// A length of time: `14d`, `336h` and `1209600` are the same; `0` often means never.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub struct Span(pub Duration);

/// What is no [`Span`].
#[derive(Clone, Copy, Debug, PartialEq, Eq, Error)]
#[error("not a length of time; write for example 90s, 15m, 12h or 14d")]
pub struct SpanError;

/// Units, the longest first.
const UNITS: [(&str, u64); 4] = [("d", 86_400), ("h", 3_600), ("m", 60), ("s", 1)];

impl Span {
    /// So many days.
    pub const fn days(n: u64) -> Self {
        Self(Duration::from_secs(n * 86_400))
    }
}

impl FromStr for Span {
    type Err = SpanError;

    fn from_str(text: &str) -> Result<Self, SpanError> {
        let digits = text.find(|c: char| !c.is_ascii_digit()).unwrap_or(text.len());
        let (number, unit) = text.split_at(digits);
        let seconds = match unit.trim_start() {
            "" => Some(1),
            unit => UNITS.iter().find(|(name, _)| *name == unit).map(|(_, seconds)| *seconds),
        };
        let number: u64 = number.parse().map_err(|_| SpanError)?;
        let seconds = seconds.and_then(|unit| number.checked_mul(unit)).ok_or(SpanError)?;
        Ok(Self(Duration::from_secs(seconds)))
    }
}

impl fmt::Display for Span {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let seconds = self.0.as_secs();
        let whole =
            UNITS.iter().find(|(_, unit)| seconds >= *unit && seconds.is_multiple_of(*unit));
        match whole {
            Some((name, unit)) => write!(f, "{}{name}", seconds / unit),
            None => f.write_str("0"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn spans_are_read_and_shown_as_people_write_them() {
        for (text, seconds, shown) in [
            ("14d", 1_209_600, "14d"),
            ("336h", 1_209_600, "14d"),
            ("90s", 90, "90s"),
            ("90", 90, "90s"),
            ("15 m", 900, "15m"),
            ("0", 0, "0"),
        ] {
            let span: Span = text.parse().unwrap();
            assert_eq!((span.0.as_secs(), span.to_string().as_str()), (seconds, shown));
        }
        for wrong in
            ["", "d", "-1d", "1.5h", "3w", "99999999999999999999d", "18446744073709551615d"]
        {
            assert_eq!(wrong.parse::<Span>(), Err(SpanError), "{wrong}");
        }
    }
}
