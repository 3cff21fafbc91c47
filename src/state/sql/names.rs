//! A set of names that is hashed at compile time, from a text that lists them.
//!
//! A lookup costs one hash over at most 24 bytes and, nearly always, one comparison; nothing is built at start.

/// Longest list of names, in bytes: positions in it are kept as 16 bits.
const LIST_MAX: usize = u16::MAX as usize;

/// Names of lower-case ASCII, separated by blanks or line ends. `SLOTS` is a power of two above their number.
pub(super) struct NameSet<const SLOTS: usize> {
    list: &'static [u8],
    /// Where in `list` a name begins, plus one; 0 is a free slot.
    slots: [u16; SLOTS],
}

impl<const SLOTS: usize> NameSet<SLOTS> {
    /// To be called in a `const` or `static` only: the assertions then fail the build, not the proxy.
    #[expect(
        clippy::indexing_slicing,
        clippy::cast_possible_truncation,
        reason = "runs at compile time, where an index out of range is a compile error"
    )]
    pub(super) const fn new(list: &'static str) -> Self {
        let list = list.as_bytes();
        assert!(list.len() < LIST_MAX && SLOTS.is_power_of_two());
        let mut slots = [0_u16; SLOTS];
        let mut rest = list;
        while let Some((&first, after)) = rest.split_first() {
            if is_blank(first) {
                rest = after;
                continue;
            }
            let mut len = 1;
            while len < rest.len() && !is_blank(rest[len]) {
                len += 1;
            }
            let (name, after) = rest.split_at(len);
            let mut slot = hash(name) & (SLOTS - 1);
            while slots[slot] != 0 {
                slot = (slot + 1) & (SLOTS - 1);
            }
            slots[slot] = (list.len() - rest.len() + 1) as u16;
            rest = after;
        }
        Self { list, slots }
    }

    /// Whether `name`, in any mixture of ASCII cases, is in the set.
    #[cfg(test)]
    fn contains(&self, name: &[u8]) -> bool {
        self.contains_hashed(name, hash(name))
    }

    /// The same, with the [`hash`] of the name.
    pub(super) fn contains_hashed(&self, name: &[u8], hash: usize) -> bool {
        let mut slot = hash & (SLOTS - 1);
        while let Some(start) = self.slots.get(slot).and_then(|&slot| slot.checked_sub(1)) {
            let entry = self.list.get(usize::from(start)..).unwrap_or_default();
            if let Some((same, rest)) = entry.split_at_checked(name.len())
                && rest.first().is_none_or(|&byte| is_blank(byte))
                && same.eq_ignore_ascii_case(name)
            {
                return true;
            }
            slot = (slot + 1) & (SLOTS - 1);
        }
        false
    }
}

const fn is_blank(byte: u8) -> bool {
    byte == b' ' || byte == b'\n'
}

/// Takes the first, the middle and the last eight bytes. `| 0x20` makes letters of both cases equal.
pub(super) const fn hash(name: &[u8]) -> usize {
    const FOLD: u64 = 0x2020_2020_2020_2020;
    const MIX: u64 = 0x9e37_79b9_7f4a_7c15;
    let (head, tail) = match (name.first_chunk::<8>(), name.last_chunk::<8>()) {
        (Some(head), Some(tail)) => (u64::from_le_bytes(*head), u64::from_le_bytes(*tail)),
        _ => match (name.first_chunk::<4>(), name.last_chunk::<4>()) {
            (Some(head), Some(tail)) => {
                (u32::from_le_bytes(*head) as u64, u32::from_le_bytes(*tail) as u64)
            }
            _ => match name {
                [a, rest @ .., b] => (*a as u64, (*b as u64) << 8 | rest.len() as u64),
                [a] => (*a as u64, 0),
                [] => (0, 0),
            },
        },
    };
    let (_, middle) = name.split_at(name.len() / 2);
    let middle = match middle.first_chunk::<8>() {
        Some(middle) => u64::from_le_bytes(*middle) | FOLD,
        None => 0,
    };
    let mixed = ((head | FOLD) ^ (name.len() as u64)).wrapping_mul(MIX)
        ^ (tail | FOLD).rotate_left(29)
        ^ middle;
    (mixed.wrapping_mul(MIX) >> 40) as usize
}

#[cfg(test)]
mod tests {
    use super::*;

    static COLOURS: NameSet<8> =
        NameSet::new("red green\nblue  ultramarine_blue_of_the_old_masters");

    #[test]
    fn a_name_is_found_in_any_case_and_nothing_else_is() {
        for name in ["red", "GREEN", "Blue", "ultramarine_blue_of_the_OLD_masters"] {
            assert!(COLOURS.contains(name.as_bytes()), "{name}");
        }
        for name in
            ["", "r", "re", "redd", "gree", "red green", "ultramarine_blue_of_the_new_masters"]
        {
            assert!(!COLOURS.contains(name.as_bytes()), "{name}");
        }
    }
}
