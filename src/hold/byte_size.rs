//! Sizes with a unit.

use std::{fmt, str::FromStr};

/// Units, the largest first.
const UNITS: [(&str, usize); 3] = [("GiB", 1 << 30), ("MiB", 1 << 20), ("KiB", 1 << 10)];

/// A number of bytes, at least 1, such as `64MiB`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ByteSize(usize);

impl ByteSize {
    /// The number of bytes.
    pub const fn bytes(self) -> usize {
        self.0
    }
}

/// Text that is no size.
#[derive(Debug, PartialEq, Eq, thiserror::Error)]
#[error("expected a size of at least one byte, such as 512KiB, 1MiB or 1GiB")]
pub struct ByteSizeError;

impl FromStr for ByteSize {
    type Err = ByteSizeError;

    fn from_str(text: &str) -> Result<Self, ByteSizeError> {
        let unit = UNITS.iter().find_map(|(unit, size)| Some((text.strip_suffix(unit)?, *size)));
        let (number, unit) = unit.unwrap_or((text, 1));
        if !number.bytes().all(|digit| digit.is_ascii_digit()) {
            return Err(ByteSizeError);
        }
        let number: usize = number.parse().map_err(|_| ByteSizeError)?;
        number.checked_mul(unit).filter(|bytes| *bytes > 0).map(Self).ok_or(ByteSizeError)
    }
}

impl fmt::Display for ByteSize {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let unit = UNITS.into_iter().find(|(_, size)| self.0.is_multiple_of(*size)).unwrap_or(("", 1));
        write!(f, "{}{}", self.0 / unit.1, unit.0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sizes_parse_to_what_they_display() {
        for (text, bytes) in [("1MiB", 1 << 20), ("64KiB", 65_536), ("2GiB", 1 << 31), ("100", 100)] {
            let size: ByteSize = text.parse().unwrap();
            assert_eq!((size.bytes(), size.to_string().as_str()), (bytes, text));
        }
        for text in ["", "0", "0MiB", "MiB", "-1", "+1", "1MB", "1.5MiB", "99999999999GiB", " 1"] {
            assert_eq!(text.parse::<ByteSize>(), Err(ByteSizeError), "{text}");
        }
    }
}
