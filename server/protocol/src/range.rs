//! The header `Range`, RFC 9110 section 14.2: one part of a representation, in bytes.
//!
//! A malformed header is ignored, and so is one with several parts or another unit, as the section allows.

/// What a header `Range` asks for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Wanted {
    /// Nothing that this server supports: the whole is sent.
    Whole,
    /// `len` bytes from `first`, all within the representation.
    Part {
        /// Counted from 0.
        first: u64,
        /// Bytes, at least 1.
        len: u64,
    },
    /// Bytes beyond the end.
    Unsatisfiable,
}

/// Reads the header for a representation of `size` bytes.
pub(super) fn read(header: &[u8], size: u64) -> Wanted {
    let Some((first, last)) = positions(header) else { return Wanted::Whole };
    if first.is_empty() {
        let len = number(last).min(size);
        return match len {
            // The last bytes of an empty file are all of it.
            0 if number(last) > 0 => Wanted::Whole,
            0 => Wanted::Unsatisfiable,
            _ => Wanted::Part { first: size - len, len },
        };
    }
    if !last.is_empty() && is_less(last, first) {
        return Wanted::Whole;
    }
    let (first, last) = (number(first), if last.is_empty() { u64::MAX } else { number(last) });
    if first >= size {
        return Wanted::Unsatisfiable;
    }
    Wanted::Part { first, len: last.min(size - 1) - first + 1 }
}

/// The digits before and after the hyphen, of which one may be missing.
fn positions(header: &[u8]) -> Option<(&[u8], &[u8])> {
    let (unit, set) = header.split_at_checked(b"bytes=".len())?;
    if !unit.eq_ignore_ascii_case(b"bytes=") {
        return None;
    }
    let set = set.trim_ascii();
    let (first, last) = set.split_at(set.iter().position(|&byte| byte == b'-')?);
    let last = &last[1..];
    let digits = |part: &[u8]| part.iter().all(u8::is_ascii_digit);
    (digits(first) && digits(last) && !(first.is_empty() && last.is_empty())).then_some((first, last))
}

/// The number that the digits give, at most [`u64::MAX`].
fn number(digits: &[u8]) -> u64 {
    digits.iter().fold(0u64, |number, &digit| number.saturating_mul(10).saturating_add(u64::from(digit - b'0')))
}

/// Compares two numbers of any length.
fn is_less(digits: &[u8], than: &[u8]) -> bool {
    let significant = |digits: &'_ [u8]| digits.iter().position(|&digit| digit != b'0').unwrap_or(digits.len());
    let (digits, than) = (&digits[significant(digits)..], &than[significant(than)..]);
    (digits.len(), digits) < (than.len(), than)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn parts_are_read_as_the_standard_has_them() {
        let part = |first, len| Wanted::Part { first, len };
        for (header, size, expected) in [
            ("bytes=0-9", 100, part(0, 10)),
            ("BYTES= 0-9\t", 100, part(0, 10)),
            ("bytes=90-", 100, part(90, 10)),
            ("bytes=-10", 100, part(90, 10)),
            ("bytes=-1000", 100, part(0, 100)),
            ("bytes=50-1000", 100, part(50, 50)),
            ("bytes=99-99", 100, part(99, 1)),
            ("bytes=100-", 100, Wanted::Unsatisfiable),
            ("bytes=-0", 100, Wanted::Unsatisfiable),
            ("bytes=0-", 0, Wanted::Unsatisfiable),
            ("bytes=-0", 0, Wanted::Unsatisfiable),
            ("bytes=-5", 0, Wanted::Whole),
            ("bytes=9-0", 100, Wanted::Whole),
            ("bytes=100-0", 100, Wanted::Whole),
            ("bytes=-", 100, Wanted::Whole),
            ("bytes=", 100, Wanted::Whole),
            ("bytes=0-9,20-29", 100, Wanted::Whole),
            ("bytes=0--9", 100, Wanted::Whole),
            ("bytes=+0-9", 100, Wanted::Whole),
            ("bytes=a-9", 100, Wanted::Whole),
            ("lines=0-9", 100, Wanted::Whole),
            ("", 100, Wanted::Whole),
        ] {
            assert_eq!(read(header.as_bytes(), size), expected, "{header} of {size}");
        }
    }

    #[test]
    fn digits_without_end_are_a_very_large_number() {
        let many = "9".repeat(5_000);
        for (header, expected) in [
            (format!("bytes={many}-"), Wanted::Unsatisfiable),
            (format!("bytes=0-{many}"), Wanted::Part { first: 0, len: 100 }),
            (format!("bytes=-{many}"), Wanted::Part { first: 0, len: 100 }),
            (format!("bytes={many}-{many}"), Wanted::Unsatisfiable),
            (format!("bytes={many}-{many}0"), Wanted::Unsatisfiable),
            (format!("bytes={many}0-{many}"), Wanted::Whole),
            (format!("bytes={}7-8", "0".repeat(5_000)), Wanted::Part { first: 7, len: 2 }),
        ] {
            assert_eq!(read(header.as_bytes(), 100), expected, "{} bytes", header.len());
        }
        assert_eq!(read(b"bytes=0-", u64::MAX), Wanted::Part { first: 0, len: u64::MAX });
    }

    proptest! {
        #[test]
        fn any_range_of_numbers_is_read_as_the_bytes_that_it_names(
            first in prop::option::of(0u128..40), last in prop::option::of(0u128..40), large in any::<bool>(), size in 0u64..30,
        ) {
            let larger = |number: u128| if large { number << 80 } else { number };
            let (first, last) = (first.map(larger), last.map(larger));
            let text = |number: Option<u128>| number.map(|number| number.to_string()).unwrap_or_default();
            let wanted = read(format!("bytes={}-{}", text(first), text(last)).as_bytes(), size);
            let named = |at: &u64| match (first, last) {
                (None, Some(suffix)) => u128::from(*at) + suffix >= u128::from(size),
                (Some(first), last) => (first..=last.unwrap_or(u128::MAX)).contains(&u128::from(*at)),
                (None, None) => false,
            };
            let bytes: Vec<u64> = (0..size).filter(named).collect();
            match (first, last) {
                (None, None) => prop_assert_eq!(wanted, Wanted::Whole),
                (Some(first), Some(last)) if last < first => prop_assert_eq!(wanted, Wanted::Whole),
                (None, Some(1..)) if size == 0 => prop_assert_eq!(wanted, Wanted::Whole),
                _ if bytes.is_empty() => prop_assert_eq!(wanted, Wanted::Unsatisfiable),
                _ => prop_assert_eq!(wanted, Wanted::Part { first: bytes[0], len: bytes.len() as u64 }),
            }
        }

        #[test]
        fn no_header_is_too_strange(
            header in prop_oneof![
                prop::collection::vec(any::<u8>(), 0..40),
                "bytes=[-0-9, a]{0,30}".prop_map(String::into_bytes),
            ],
            size in any::<u64>(),
        ) {
            if let Wanted::Part { first, len } = read(&header, size) {
                prop_assert!(len > 0 && first.checked_add(len).is_some_and(|end| end <= size));
            }
        }
    }
}
