//! [`Codec`]: how one chunk is stored. [`Compression`]: what a file system wants for new chunks.
//!
//! Only names and numbers; the work is done in `cairn-codec`, which storage nodes do not have.

use std::{fmt, str::FromStr};

use crate::{Malformed, pb};

/// Highest level of Zstandard that can be asked for: beyond it, memory grows and little is gained.
pub const ZSTD_LEVEL_MAX: u8 = 19;
/// Level of Zstandard when none is given.
pub const ZSTD_LEVEL_DEFAULT: u8 = 3;

/// How the stored bytes of a chunk become its content.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub enum Codec {
    /// They are the content.
    #[default]
    Plain,
    /// One LZ4 block without a header.
    Lz4,
    /// One Zstandard frame.
    Zstd,
}

impl Codec {
    /// As it stands on the wire and on disk.
    pub const fn number(self) -> u32 {
        match self {
            Self::Plain => 0,
            Self::Lz4 => 1,
            Self::Zstd => 2,
        }
    }

    /// One lower-case word.
    pub const fn word(self) -> &'static str {
        match self {
            Self::Plain => "plain",
            Self::Lz4 => "lz4",
            Self::Zstd => "zstd",
        }
    }
}

impl TryFrom<u32> for Codec {
    type Error = Malformed;

    fn try_from(number: u32) -> Result<Self, Malformed> {
        match number {
            0 => Ok(Self::Plain),
            1 => Ok(Self::Lz4),
            2 => Ok(Self::Zstd),
            other => Err(Malformed::new(
                "chunk reference",
                format!("codec {other} is not known to this release: use a newer one"),
            )),
        }
    }
}

/// What a client does with a chunk before it stores it.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Compression {
    /// Nothing.
    #[default]
    Off,
    /// LZ4: little processor time, moderate gain.
    Lz4,
    /// Zstandard at this level, 1 to [`ZSTD_LEVEL_MAX`].
    Zstd(u8),
}

impl fmt::Display for Compression {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Off => f.write_str("off"),
            Self::Lz4 => f.write_str("lz4"),
            Self::Zstd(level) => write!(f, "zstd:{level}"),
        }
    }
}

impl FromStr for Compression {
    type Err = String;

    /// # Errors
    /// A sentence that says what can be given.
    fn from_str(text: &str) -> Result<Self, String> {
        let level = |level: &str| level.parse().ok().filter(|n| (1..=ZSTD_LEVEL_MAX).contains(n));
        match text.split_once(':') {
            None if text == "off" => Ok(Self::Off),
            None if text == "lz4" => Ok(Self::Lz4),
            None if text == "zstd" => Ok(Self::Zstd(ZSTD_LEVEL_DEFAULT)),
            Some(("zstd", number)) if level(number).is_some() => {
                Ok(Self::Zstd(level(number).unwrap_or(ZSTD_LEVEL_DEFAULT)))
            }
            None | Some(_) => Err(format!(
                "{text:?} is no compression: give off, lz4, zstd or zstd:LEVEL \
                 with a level from 1 to {ZSTD_LEVEL_MAX}"
            )),
        }
    }
}

impl From<Compression> for pb::Compression {
    fn from(compression: Compression) -> Self {
        let (codec, level) = match compression {
            Compression::Off => (Codec::Plain, 0),
            Compression::Lz4 => (Codec::Lz4, 0),
            Compression::Zstd(level) => (Codec::Zstd, level),
        };
        Self { codec: codec.number(), level: level.into() }
    }
}

impl From<&pb::Compression> for Compression {
    /// What only a newer release knows is off: to store a chunk as it is, is always right.
    fn from(wire: &pb::Compression) -> Self {
        match Codec::try_from(wire.codec) {
            Ok(Codec::Plain) | Err(_) => Self::Off,
            Ok(Codec::Lz4) => Self::Lz4,
            Ok(Codec::Zstd) => {
                let level = u8::try_from(wire.level).unwrap_or(ZSTD_LEVEL_MAX);
                Self::Zstd(level.clamp(1, ZSTD_LEVEL_MAX))
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_shown_can_be_given() {
        for compression in
            [Compression::Off, Compression::Lz4, Compression::Zstd(1), Compression::Zstd(19)]
        {
            assert_eq!(compression.to_string().parse(), Ok(compression));
            assert_eq!(Compression::from(&pb::Compression::from(compression)), compression);
        }
        assert_eq!("zstd".parse(), Ok(Compression::Zstd(ZSTD_LEVEL_DEFAULT)));
        for wrong in ["", "on", "gzip", "zstd:", "zstd:0", "zstd:20", "zstd:-1", "lz4:3", "ZSTD"] {
            let why = wrong.parse::<Compression>().unwrap_err();
            assert!(why.contains("lz4") && why.contains("19"), "{why}");
        }
    }

    #[test]
    fn what_only_a_newer_release_knows_is_off_to_write_and_refused_to_read() {
        let newer = pb::Compression { codec: 3, level: 900 };
        assert_eq!(Compression::from(&newer), Compression::Off);
        let high = pb::Compression { codec: 2, level: 900 };
        assert_eq!(Compression::from(&high), Compression::Zstd(ZSTD_LEVEL_MAX));
        let why = Codec::try_from(3).unwrap_err().to_string();
        assert!(why.contains("codec 3"), "{why}");
        for codec in [Codec::Plain, Codec::Lz4, Codec::Zstd] {
            assert_eq!(Codec::try_from(codec.number()), Ok(codec));
        }
    }
}
