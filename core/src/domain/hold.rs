//! Limits of the requests that a stand-in pod holds.

use std::fmt;

use super::ValueError;

/// Largest size of one held body.
pub const MAX_BODY: Kibibytes = Kibibytes(64 * 1024);
/// Largest size of all held bodies.
pub const MAX_BODIES: Kibibytes = Kibibytes(1024 * 1024);

/// Limits of the requests that are held while no ServingGroup is ready.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Hold {
    /// Time for which a request is held, in seconds.
    pub timeout: i32,
    /// Number of requests that are held at a time.
    pub max_requests: i32,
    /// Size of one body.
    pub max_body: Kibibytes,
    /// Size of the bodies that are held at a time.
    pub max_bodies: Kibibytes,
    /// Time until the first keep-alive comment of a stream, in seconds.
    pub keep_alive_after: i32,
}

/// A size in KiB.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub struct Kibibytes(pub i32);

impl Kibibytes {
    /// Parses a size such as `512Ki` or `1Mi`.
    ///
    /// # Errors
    /// If the text is no such size, is zero, or is larger than `max`.
    pub fn parse(text: &str, max: Self) -> Result<Self, ValueError> {
        let units = [("Mi", 1024), ("Ki", 1)];
        let parsed = units.iter().find_map(|(unit, size)| {
            let digits = text.strip_suffix(unit)?;
            let is_number =
                (1..=4).contains(&digits.len()) && digits.bytes().all(|byte| byte.is_ascii_digit());
            digits.parse::<i32>().ok().filter(|_| is_number && !digits.starts_with('0'))?.checked_mul(*size)
        });
        parsed
            .filter(|size| (1..=max.0).contains(size))
            .map(Self)
            .ok_or_else(|| ValueError::expected(format!("a size such as 512Ki or 1Mi, from 1Ki to {max}")))
    }

    /// The size in bytes.
    pub fn bytes(self) -> usize {
        usize::try_from(self.0).unwrap_or_default().saturating_mul(1024)
    }

    /// The size in MiB, rounded up.
    pub const fn mebibytes(self) -> i32 {
        (self.0 + 1023) / 1024
    }
}

impl fmt::Display for Kibibytes {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.0 % 1024 == 0 { write!(f, "{}Mi", self.0 / 1024) } else { write!(f, "{}Ki", self.0) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use rstest::rstest;

    #[rstest]
    #[case("1Ki", Some(1))]
    #[case("9999Ki", Some(9999))]
    #[case("1Mi", Some(1024))]
    #[case("64Mi", Some(65_536))]
    #[case("65Mi", None)]
    #[case("0Ki", None)]
    #[case("01Mi", None)]
    #[case("1", None)]
    #[case("1MiB", None)]
    #[case("+1Mi", None)]
    #[case("99999Ki", None)]
    fn reads_sizes(#[case] text: &str, #[case] expected: Option<i32>) {
        assert_eq!(Kibibytes::parse(text, MAX_BODY).ok().map(|size| size.0), expected);
    }

    #[test]
    fn sizes_parse_as_they_are_written() {
        for size in [1, 1023, 1024, 1025, 9999, MAX_BODIES.0].map(Kibibytes) {
            assert_eq!(Kibibytes::parse(&size.to_string(), MAX_BODIES).ok(), Some(size), "{size}");
        }
        assert_eq!(Kibibytes(2).bytes(), 2048);
    }

    #[test]
    fn rounds_up_to_mebibytes() {
        assert_eq!([1, 1024, 1025].map(|kib| Kibibytes(kib).mebibytes()), [1, 1, 2]);
    }
}
