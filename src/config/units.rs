//! Durations (`"1h30m"`) and sizes (`"1GiB"`) as an operator writes them. Pure text, no settings.

use std::fmt;
use std::time::Duration;

/// Units of a duration, longest first, in milliseconds.
const DURATION_UNITS: [(&str, u64); 5] =
    [("d", 86_400_000), ("h", 3_600_000), ("m", 60_000), ("s", 1_000), ("ms", 1)];

/// Units of a size, largest first, in bytes. `"GB"` is refused: half the world means another number by it.
const SIZE_UNITS: [(&str, u64); 4] =
    [("GiB", 1 << 30), ("MiB", 1 << 20), ("KiB", 1 << 10), ("B", 1)];

/// A number of bytes.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct ByteSize(pub u64);

impl ByteSize {
    /// The number of bytes.
    #[must_use]
    pub const fn bytes(self) -> u64 {
        self.0
    }
}

impl fmt::Display for ByteSize {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write_in_units(f, self.0, &SIZE_UNITS)
    }
}

/// Reads `"500ms"`, `"120s"`, `"30m"`, `"24h"`, `"7d"`, a sum such as `"1h30m"`, or a plain number of seconds.
///
/// `None`: it is none of these, or longer than 2^64 milliseconds.
pub(super) fn duration(text: &str) -> Option<Duration> {
    if is_number(text) {
        return text.parse().ok().map(Duration::from_secs);
    }
    sum(text, &DURATION_UNITS).map(Duration::from_millis)
}

/// Reads `"16KiB"`, `"1GiB"`, a sum of such, or a plain number of bytes.
///
/// `None`: it is none of these, or 2^64 bytes or more.
pub(super) fn size(text: &str) -> Option<ByteSize> {
    if is_number(text) {
        return text.parse().ok().map(ByteSize);
    }
    sum(text, &SIZE_UNITS).map(ByteSize)
}

/// Writes a duration as [`duration`] reads it.
pub(super) struct InWords(pub Duration);

impl fmt::Display for InWords {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.0.is_zero() {
            return f.write_str("0s");
        }
        let millis = u64::try_from(self.0.as_millis()).unwrap_or(u64::MAX);
        write_in_units(f, millis, &DURATION_UNITS)
    }
}

fn is_number(text: &str) -> bool {
    !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_digit())
}

/// Adds up terms of a number and a unit; at least one.
fn sum(text: &str, units: &[(&str, u64)]) -> Option<u64> {
    let mut total = 0_u64;
    let mut rest = text;
    loop {
        let (number, after) = split_where(rest, |c| !c.is_ascii_digit());
        let (unit, after) = split_where(after, |c| c.is_ascii_digit());
        let (_, each) = units.iter().find(|(name, _)| *name == unit)?;
        let term = number.parse::<u64>().ok()?.checked_mul(*each)?;
        total = total.checked_add(term)?;
        if after.is_empty() {
            return Some(total);
        }
        rest = after;
    }
}

/// Splits before the first character that `ends` the first part.
fn split_where(text: &str, ends: impl Fn(char) -> bool) -> (&str, &str) {
    text.split_at(text.find(ends).unwrap_or(text.len()))
}

/// Writes `amount` as a whole number of the largest unit that divides it.
fn write_in_units(f: &mut fmt::Formatter<'_>, amount: u64, units: &[(&str, u64)]) -> fmt::Result {
    let fits = |(_, each): &&(&str, u64)| amount >= *each && amount.is_multiple_of(*each);
    match units.iter().find(fits) {
        Some((unit, each)) => write!(f, "{}{unit}", amount / each),
        None => write!(f, "{amount}"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn durations_have_units_sums_and_plain_seconds() {
        let millis = |text| duration(text).map(|read| read.as_millis());
        for (text, expected) in [
            ("0", 0),
            ("0s", 0),
            ("120", 120_000),
            ("120s", 120_000),
            ("500ms", 500),
            ("30m", 1_800_000),
            ("24h", 86_400_000),
            ("2d", 172_800_000),
            ("1h30m", 5_400_000),
            ("1m500ms", 60_500),
        ] {
            assert_eq!(millis(text), Some(expected), "{text}");
        }
    }

    #[test]
    fn what_is_no_duration_is_refused() {
        for text in [
            "",
            "s",
            "-1s",
            "1.5h",
            "1h30",
            "1 h",
            "1H",
            "1min",
            "\u{0663}s",
            "1\u{e9}",
            "18446744073709551616",
            "99999999999999999d",
        ] {
            assert_eq!(duration(text), None, "{text}");
        }
    }

    #[test]
    fn sizes_are_in_powers_of_two_and_gigabytes_are_refused() {
        assert_eq!(size("1GiB"), Some(ByteSize(1 << 30)));
        assert_eq!(size("16KiB"), Some(ByteSize(16_384)));
        assert_eq!(size("1MiB1B"), Some(ByteSize(1_048_577)));
        assert_eq!(size("4096"), Some(ByteSize(4_096)));
        for text in ["", "GiB", "1GB", "1G", "-1B", "99999999999GiB"] {
            assert_eq!(size(text), None, "{text}");
        }
    }

    #[test]
    fn what_is_written_is_read_back() {
        for millis in [0, 1, 999, 1_000, 90_000, 3_600_000, 86_400_000, 90_061_001] {
            let written = InWords(Duration::from_millis(millis)).to_string();
            assert_eq!(duration(&written), Some(Duration::from_millis(millis)), "{written}");
        }
        for bytes in [0, 1, 1_023, 1_024, 1_536, 1 << 20, 3 << 30] {
            let written = ByteSize(bytes).to_string();
            assert_eq!(size(&written), Some(ByteSize(bytes)), "{written}");
        }
    }
}
