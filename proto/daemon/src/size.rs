//! [`Size`]: a number of bytes as people write it.

use std::{fmt, str::FromStr};

use thiserror::Error;

/// A number of bytes: `65536`, `64KiB`, `64K` and `64k` are the same, `1.5G` is none.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub struct Size(pub u64);

/// What is no [`Size`].
#[derive(Clone, Copy, Debug, PartialEq, Eq, Error)]
pub enum SizeError {
    /// Not a number and a unit.
    #[error("not a number of bytes; write for example 67108864, 64MiB or 64M")]
    Form,
    /// More than 64 bits hold.
    #[error("more bytes than there can be")]
    TooLarge,
}

/// Units, the largest first; each is 1024 of the next.
const UNITS: [(&str, u32); 4] = [("TiB", 40), ("GiB", 30), ("MiB", 20), ("KiB", 10)];

impl Size {
    /// `count` MiB.
    pub const fn mib(count: u64) -> Self {
        Self(count << 20)
    }

    /// As the length of something in memory.
    pub fn in_memory(self) -> usize {
        usize::try_from(self.0).unwrap_or(usize::MAX)
    }
}

impl FromStr for Size {
    type Err = SizeError;

    fn from_str(text: &str) -> Result<Self, SizeError> {
        let digits = text.find(|c: char| !c.is_ascii_digit()).unwrap_or(text.len());
        let (number, unit) = text.split_at(digits);
        let shift = shift(unit.trim_start()).ok_or(SizeError::Form)?;
        if number.is_empty() {
            return Err(SizeError::Form);
        }
        let number: u64 = number.parse().map_err(|_| SizeError::TooLarge)?;
        number.checked_mul(1 << shift).map(Self).ok_or(SizeError::TooLarge)
    }
}

fn shift(unit: &str) -> Option<u32> {
    let unit = unit.to_ascii_lowercase();
    if matches!(&unit[..], "" | "b") {
        return Some(0);
    }
    UNITS.iter().find_map(|(name, shift)| {
        let name = name.to_ascii_lowercase();
        (unit == name || unit == name[..1]).then_some(*shift)
    })
}

impl fmt::Display for Size {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let whole = |shift: u32| self.0 >= 1 << shift && self.0.trailing_zeros() >= shift;
        match UNITS.iter().find(|(_, shift)| whole(*shift)) {
            Some((name, shift)) => write!(f, "{}{name}", self.0 >> shift),
            None => write!(f, "{}", self.0),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_people_write_is_understood() {
        for (text, bytes) in [
            ("0", 0),
            ("65536", 65_536),
            ("7b", 7),
            ("64KiB", 65_536),
            ("64 kib", 65_536),
            ("64k", 65_536),
            ("128M", 128 << 20),
            ("1GiB", 1 << 30),
            ("2t", 2 << 40),
        ] {
            assert_eq!(text.parse(), Ok(Size(bytes)), "{text}");
        }
    }

    #[test]
    fn nonsense_and_excess_are_refused() {
        for text in ["", "M", "-1", "1.5G", "12 parsecs", "1KB", "ten"] {
            assert_eq!(text.parse::<Size>(), Err(SizeError::Form), "{text}");
        }
        for text in ["99999999999999999999", "99999999T"] {
            assert_eq!(text.parse::<Size>(), Err(SizeError::TooLarge), "{text}");
        }
    }

    #[test]
    fn what_is_shown_can_be_read_again() {
        for bytes in [0, 1, 1023, 1024, 1025, 128 << 20, 3 << 30, u64::MAX] {
            assert_eq!(Size(bytes).to_string().parse(), Ok(Size(bytes)));
        }
        assert_eq!(Size::mib(128).to_string(), "128MiB");
        assert_eq!(Size(1025).to_string(), "1025");
    }
}
