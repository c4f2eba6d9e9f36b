//! `X-Request-Start`: when a proxy before the server took the request, as nginx, Heroku and others write it.

/// Reads the header's value; returns unix µs.
///
/// `1700000000.123` is seconds, `1700000000123` ms and `1700000000123456` µs, each with or without `t=` before it: which one
/// a number is its size says. `None` for anything else. Whether the time is plausible is for the caller to judge: a client
/// can send the header as well.
#[must_use]
pub fn parse(value: &[u8]) -> Option<u64> {
    let value = value.strip_prefix(b"t=").unwrap_or(value);
    let whole = value.iter().position(|byte| *byte == b'.');
    let (whole, fraction) = match whole {
        Some(point) => (&value[..point], &value[point + 1..]),
        None => (value, &[][..]),
    };
    // As many digits of the fraction as are µs.
    let places: usize = match whole.len() {
        10 => 6,
        13 => 3,
        16 => 0,
        _ => return None,
    };
    let is_digits = |digits: &[u8]| digits.iter().all(u8::is_ascii_digit);
    if !is_digits(whole) || !is_digits(fraction) || fraction.len() > 9 {
        return None;
    }
    let digits = whole.iter().chain(fraction.iter().chain(std::iter::repeat(&b'0')).take(places));
    // At most 16 digits.
    Some(digits.fold(0, |number, digit| number * 10 + u64::from(digit - b'0')))
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn what_proxies_write_is_read() {
        for (value, micros) in [
            ("t=1700000000.123", 1_700_000_000_123_000),
            ("1700000000.123", 1_700_000_000_123_000),
            ("1700000000", 1_700_000_000_000_000),
            ("1700000000123", 1_700_000_000_123_000),
            ("t=1700000000123.5", 1_700_000_000_123_500),
            ("t=1700000000123456", 1_700_000_000_123_456),
            ("1700000000.123456789", 1_700_000_000_123_456),
        ] {
            assert_eq!(parse(value.as_bytes()), Some(micros), "{value}");
        }
        for value in ["", "t=", "now", "170000000", "-1700000000", "1700000000.1a", "t=t=1700000000", "1700000000,5"] {
            assert_eq!(parse(value.as_bytes()), None, "{value}");
        }
    }

    proptest! {
        #[test]
        fn any_bytes_are_a_time_or_none(value in prop::collection::vec(any::<u8>(), 0..40)) {
            let _ = parse(&value);
        }
    }
}
