//! [`SegmentId`] and its file name. No other file knows how segments are called.

use std::fmt;

/// Number of a segment of one data directory; grows with time, never used again.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct SegmentId(pub u64);

impl SegmentId {
    /// The one after this.
    pub const fn next(self) -> Self {
        Self(self.0 + 1)
    }

    /// Name of the finished file.
    pub fn file_name(self) -> String {
        format!("{:016x}.seg", self.0)
    }

    /// Name while the header is being written.
    pub fn temporary_name(self) -> String {
        format!("{:016x}.new", self.0)
    }

    /// The segment that a file of this name is.
    pub fn parse(name: &str) -> Option<Self> {
        let digits = name.strip_suffix(".seg")?;
        if digits.len() != 16 || digits.bytes().any(|b| b.is_ascii_uppercase()) {
            return None;
        }
        u64::from_str_radix(digits, 16).ok().map(Self)
    }

    /// Whether `name` is what a crash during creation leaves behind.
    pub fn is_temporary(name: &str) -> bool {
        name.ends_with(".new")
    }
}

impl fmt::Display for SegmentId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:x}", self.0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_round_trip_and_others_are_not_segments() {
        let id = SegmentId(0xabc);
        assert_eq!(SegmentId::parse(&id.file_name()), Some(id));
        for other in ["LOCK", "abc.seg", "0000000000000abc.new", "000000000000ZZZZ.seg"] {
            assert_eq!(SegmentId::parse(other), None);
        }
        assert!(SegmentId::is_temporary(&id.temporary_name()));
    }
}
