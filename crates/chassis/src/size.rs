//! Numbers of bytes in settings: `"15 MiB"`, or a whole number.

use std::fmt::{self, Formatter};

use bytesize::ByteSize;
use serde::de::{Error, Unexpected, Visitor};
use serde::{Deserialize, Deserializer, Serialize, Serializer};

const UNITS: [(u64, &str); 3] = [(1 << 30, "GiB"), (1 << 20, "MiB"), (1 << 10, "KiB")];

/// A number of bytes that is written as exactly as it was read: what is printed may be given back.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Size(u64);

impl Size {
    /// So many bytes.
    #[must_use]
    pub const fn bytes(bytes: u64) -> Self {
        Self(bytes)
    }

    /// So many times 1,048,576 bytes.
    #[must_use]
    pub const fn mib(count: u64) -> Self {
        Self(count << 20)
    }

    /// The number of bytes.
    #[must_use]
    pub const fn as_u64(self) -> u64 {
        self.0
    }

    /// In the largest unit of which it is a whole number.
    fn whole(self) -> Option<(u64, &'static str)> {
        let unit = UNITS.iter().find(|(unit, _)| self.0 >= *unit && self.0.is_multiple_of(*unit));
        unit.map(|(unit, name)| (self.0 / unit, *name))
    }
}

impl Serialize for Size {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        match self.whole() {
            Some(_) => serializer.collect_str(self),
            None => serializer.serialize_u64(self.0),
        }
    }
}

impl fmt::Display for Size {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.whole() {
            Some((count, unit)) => write!(f, "{count} {unit}"),
            None => write!(f, "{} bytes", self.0),
        }
    }
}

impl<'de> Deserialize<'de> for Size {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_any(Reader)
    }
}

struct Reader;

impl Visitor<'_> for Reader {
    type Value = Size;

    fn expecting(&self, f: &mut Formatter<'_>) -> std::fmt::Result {
        f.write_str("a number of bytes such as 15 MiB or 16384000")
    }

    fn visit_u64<E: Error>(self, bytes: u64) -> Result<Size, E> {
        Ok(Size(bytes))
    }

    fn visit_i64<E: Error>(self, bytes: i64) -> Result<Size, E> {
        u64::try_from(bytes).map(Size).map_err(|_| E::invalid_value(Unexpected::Signed(bytes), &self))
    }

    fn visit_str<E: Error>(self, text: &str) -> Result<Size, E> {
        let size = text.parse::<ByteSize>().map_err(|_| E::invalid_value(Unexpected::Str(text), &self))?;
        Ok(Size(size.as_u64()))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[derive(Debug, PartialEq, Serialize, Deserialize)]
    struct Holder {
        size: Size,
    }

    #[test]
    fn what_is_written_reads_back_to_the_byte() {
        for (bytes, text) in [
            (16_384_000, "size = \"16000 KiB\"\n"),
            (15 << 20, "size = \"15 MiB\"\n"),
            (1 << 30, "size = \"1 GiB\"\n"),
            (1_000_001, "size = 1000001\n"),
            (0, "size = 0\n"),
        ] {
            let holder = Holder { size: Size::bytes(bytes) };
            assert_eq!(toml::to_string(&holder).expect("writes"), text);
            assert_eq!(toml::from_str::<Holder>(text).expect("reads"), holder);
        }
        assert_eq!(toml::from_str::<Holder>("size = '15 MiB'").expect("reads").size, Size::mib(15));
        for bad in ["size = 'much'", "size = -1", "size = 1.5", "size = ''", "size = '-1 MiB'"] {
            let error = toml::from_str::<Holder>(bad).expect_err(bad).to_string();
            assert!(error.contains("a number of bytes such as 15 MiB"), "{bad}: {error}");
        }
    }
}
