//! Errors by SQLSTATE class: the first two characters of the code, from PostgreSQL's own list.
//!
//! Source: <https://www.postgresql.org/docs/current/errcodes-appendix.html>

use super::value::Counter;

/// The classes of PostgreSQL, in order; every other class is counted as `other`.
pub(super) const CLASSES: [&str; 43] = [
    "00", "01", "02", "03", "08", "09", "0A", "0B", "0F", "0L", "0P", "0Z", "10", "20", "21", "22",
    "23", "24", "25", "26", "27", "28", "2B", "2D", "2F", "34", "38", "39", "3B", "3D", "3F", "40",
    "42", "44", "53", "54", "55", "57", "58", "F0", "HV", "P0", "XX",
];

/// One counter per SQLSTATE class.
#[derive(Debug)]
pub struct SqlStateClasses {
    classes: [Counter; CLASSES.len()],
    other: Counter,
}

impl SqlStateClasses {
    pub(super) fn new() -> Self {
        Self { classes: std::array::from_fn(|_| Counter::default()), other: Counter::default() }
    }

    /// The counter of the class of `code`, as it came in an `ErrorResponse`, right or wrong.
    pub fn of(&self, code: &[u8]) -> &Counter {
        let class = code.get(..2).unwrap_or_default();
        let known = CLASSES.binary_search_by(|name| name.as_bytes().cmp(class)).ok();
        known.and_then(|index| self.classes.get(index)).unwrap_or(&self.other)
    }

    pub(super) fn at(&self, index: usize) -> &Counter {
        self.classes.get(index).unwrap_or(&self.other)
    }

    pub(super) fn other(&self) -> &Counter {
        &self.other
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_class_is_found_by_a_code_of_it() {
        let errors = SqlStateClasses::new();
        for class in CLASSES {
            errors.of(format!("{class}000").as_bytes()).one();
        }
        for (index, class) in CLASSES.iter().enumerate() {
            assert_eq!(errors.at(index).get(), 1, "{class}");
        }
        assert_eq!(errors.other().get(), 0);
    }

    #[test]
    fn a_code_that_is_not_of_postgresql_is_counted_as_other() {
        let errors = SqlStateClasses::new();
        for code in [&b""[..], b"4", b"ZZ999", b"\xff\xff", b"0a000"] {
            errors.of(code).one();
        }
        assert_eq!(errors.other().get(), 5);
    }
}
