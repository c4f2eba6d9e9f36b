//! `traceparent`: which trace a request belongs to (W3C Trace Context, level 1).

/// Bytes of the header's value in version 00.
pub const TEXT_LEN: usize = 55;

/// What the header says.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Traceparent {
    /// The trace; never 0.
    pub trace: u128,
    /// The caller's span; never 0.
    pub parent: u64,
    /// The caller may have recorded its part of the trace.
    pub sampled: bool,
}

impl Traceparent {
    /// Reads the header's value; `None` for what is invalid, which is to be treated as if there were no header.
    ///
    /// Of a later version, what version 00 has is read, and what follows it is passed over, as the specification has it.
    #[must_use]
    pub fn parse(value: &[u8]) -> Option<Self> {
        let (known, rest) = value.split_first_chunk::<TEXT_LEN>()?;
        let (version, trace, parent, flags) = (&known[..2], &known[3..35], &known[36..52], &known[53..]);
        if [known[2], known[35], known[52]] != *b"---" {
            return None;
        }
        let version = hex(version)?;
        let is_whole = match version {
            0 => rest.is_empty(),
            0xff => false,
            _ => matches!(rest, [] | [b'-', ..]),
        };
        let (trace, parent, flags) = (hex(trace)?, hex(parent)?, hex(flags)?);
        if !is_whole || trace == 0 || parent == 0 {
            return None;
        }
        // 16 digits.
        Some(Self { trace, parent: parent as u64, sampled: flags & 1 == 1 })
    }

    /// The header's value, in version 00.
    #[must_use]
    pub fn text(&self) -> [u8; TEXT_LEN] {
        let mut text = *b"00-00000000000000000000000000000000-0000000000000000-00";
        write_hex(self.trace, &mut text[3..35]);
        write_hex(self.parent.into(), &mut text[36..52]);
        text[54] = b'0' + u8::from(self.sampled);
        text
    }
}

/// Lower-case digits, no others: at most 32.
fn hex(digits: &[u8]) -> Option<u128> {
    digits.iter().try_fold(0, |number: u128, digit| {
        let value = match digit {
            b'0'..=b'9' => digit - b'0',
            b'a'..=b'f' => digit - b'a' + 10,
            _ => return None,
        };
        Some(number << 4 | u128::from(value))
    })
}

/// Writes the last digits of a number, as many as there is space for.
pub fn write_hex(mut number: u128, to: &mut [u8]) {
    for digit in to.iter_mut().rev() {
        *digit = b"0123456789abcdef"[(number & 15) as usize];
        number >>= 4;
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    const VALID: &str = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01";

    #[test]
    fn what_the_specification_calls_valid_is_read() {
        let read = Traceparent::parse(VALID.as_bytes()).unwrap();
        let expected =
            Traceparent { trace: 0x0af7651916cd43dd8448eb211c80319c, parent: 0xb7ad6b7169203331, sampled: true };
        assert_eq!(read, expected);
        assert_eq!(read.text(), VALID.as_bytes());
        for (value, sampled) in [
            (VALID.replace("-01", "-00"), false),
            // Flags that level 1 does not know.
            (VALID.replace("-01", "-03"), true),
            (VALID.replace("-01", "-fe"), false),
            // A version that is not known yet.
            (VALID.replacen("00", "01", 1), true),
            (VALID.replacen("00", "cc", 1) + "-what-the-future-will-be-like", true),
        ] {
            assert_eq!(Traceparent::parse(value.as_bytes()).map(|read| read.sampled), Some(sampled), "{value}");
        }
    }

    #[test]
    fn what_it_calls_invalid_is_not() {
        for value in [
            "",
            "00",
            &VALID[..54],
            &format!("{VALID}-"),
            &format!("{VALID}-00"),
            &format!("{VALID} "),
            &VALID.to_ascii_uppercase(),
            &VALID.replacen("00", "ff", 1),
            &(VALID.replacen("00", "cc", 1) + ".what"),
            &VALID.replace('-', "_"),
            &VALID.replace("0af7651916cd43dd8448eb211c80319c", &"0".repeat(32)),
            &VALID.replace("b7ad6b7169203331", &"0".repeat(16)),
            &VALID.replace("b7ad", "b7.d"),
            &VALID.replace("-01", "-0g"),
        ] {
            assert_eq!(Traceparent::parse(value.as_bytes()), None, "{value}");
        }
    }

    proptest! {
        #[test]
        fn what_is_written_is_read_as_the_same(trace in 1..u128::MAX, parent in 1..u64::MAX, sampled: bool) {
            let written = Traceparent { trace, parent, sampled };
            prop_assert_eq!(Traceparent::parse(&written.text()), Some(written));
        }

        #[test]
        fn any_bytes_are_refused_or_read(value in prop::collection::vec(any::<u8>(), 0..70)) {
            let _ = Traceparent::parse(&value);
        }
    }
}
