//! The uwsgi protocol's request: one packet of variables, as nginx's `uwsgi_pass` sends it. The body follows it bare.
//!
//! A packet is a modifier byte, the size of the variables (16 bits, little-endian), a second modifier, and then for
//! each variable the length of its name, the name, the length of its value and the value (lengths like the size).
//! <https://uwsgi-docs.readthedocs.io/en/latest/Protocol.html>
//!
//! Not here: what the variables mean.

use thiserror::Error;

use super::http;

/// Bytes before the variables.
pub const HEADER_LEN: usize = 4;

/// A whole packet, its variables already checked.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Packet<'b> {
    vars: &'b [u8],
}

/// Why a packet is not served. There is no answer to give: the peer does not speak our protocol.
#[derive(Clone, Copy, Debug, Error, PartialEq, Eq)]
pub enum PacketError {
    /// The packet is for another plugin of uWSGI's, or (the usual case) HTTP was sent to a uwsgi socket: "G" of "GET"
    /// is 71.
    #[error(
        "a uwsgi packet with modifier1 {modifier1} instead of 0 (HTTP is not spoken here; for that, use http-socket \
         or http)"
    )]
    Modifier {
        /// The first byte.
        modifier1: u8,
    },
    /// More variables than `buffer-size` has space for.
    #[error("a uwsgi packet of {size} bytes does not fit in {max} bytes (raise buffer-size)")]
    TooLarge {
        /// What the packet said, bytes.
        size: usize,
        /// What there is space for, bytes.
        max: usize,
    },
    /// A packet without variables: nothing to serve.
    #[error("an empty uwsgi packet")]
    Empty,
    /// A length that reaches beyond the packet.
    #[error("a uwsgi packet whose variables do not add up to its size")]
    Malformed,
    /// A `CONTENT_LENGTH` that is not digits alone: another reader could see another body.
    #[error("a uwsgi packet whose CONTENT_LENGTH is not a number")]
    ContentLength,
}

/// Reads the packet at the start of `bytes`; `Ok(None)` while it is incomplete. `max` is the most bytes of variables
/// (`buffer-size`).
///
/// # Errors
/// See [`PacketError`]. All but `Malformed` come as soon as the first four bytes are there.
pub fn parse(bytes: &[u8], max: usize) -> Result<Option<Packet<'_>>, PacketError> {
    if let Some(&modifier1 @ 1..) = bytes.first() {
        return Err(PacketError::Modifier { modifier1 });
    }
    let [_, low, high, _modifier2, rest @ ..] = bytes else { return Ok(None) };
    let size = usize::from(u16::from_le_bytes([*low, *high]));
    if size == 0 {
        return Err(PacketError::Empty);
    }
    if size > max {
        return Err(PacketError::TooLarge { size, max });
    }
    let Some(vars) = rest.get(..size) else { return Ok(None) };
    Vars::of(vars).ok_or(PacketError::Malformed)?;
    Ok(Some(Packet { vars }))
}

impl<'b> Packet<'b> {
    /// Bytes of the packet; the body begins after them.
    #[must_use]
    #[expect(clippy::len_without_is_empty, reason = "a packet is never empty")]
    pub fn len(&self) -> usize {
        HEADER_LEN + self.vars.len()
    }

    /// Bytes of the body that follows: the last `CONTENT_LENGTH`, or 0 when there is none or it is empty.
    ///
    /// # Errors
    /// [`PacketError::ContentLength`] for anything but digits.
    pub fn content_length(&self) -> Result<u64, PacketError> {
        match self.vars().filter(|(name, _)| *name == b"CONTENT_LENGTH").last() {
            None | Some((_, [])) => Ok(0),
            Some((_, value)) => http::parse_length(value).map_err(|_| PacketError::ContentLength),
        }
    }

    /// Names and values in order; a name may come twice, and the later value is the one meant.
    #[must_use]
    pub fn vars(&self) -> Vars<'b> {
        Vars { rest: self.vars }
    }
}

/// Iterates over names and values.
#[derive(Clone, Debug, Default)]
pub struct Vars<'b> {
    rest: &'b [u8],
}

impl<'b> Vars<'b> {
    /// The variables that `bytes` are; `None` when they do not add up.
    #[must_use]
    pub fn of(bytes: &'b [u8]) -> Option<Self> {
        let mut unread = Self { rest: bytes };
        while unread.next().is_some() {}
        unread.rest.is_empty().then_some(Self { rest: bytes })
    }
}

impl<'b> Iterator for Vars<'b> {
    type Item = (&'b [u8], &'b [u8]);

    #[inline]
    fn next(&mut self) -> Option<Self::Item> {
        let (name, rest) = string(self.rest)?;
        let (value, rest) = string(rest)?;
        self.rest = rest;
        Some((name, value))
    }
}

/// A string with its length before it, and what follows.
#[inline]
fn string(bytes: &[u8]) -> Option<(&[u8], &[u8])> {
    let (len, rest) = bytes.split_first_chunk()?;
    rest.split_at_checked(usize::from(u16::from_le_bytes(*len)))
}

/// Appends a packet with these variables. For clients: tests and benchmarks.
///
/// # Errors
/// `TooLarge` when a string or the whole does not fit 16 bits; `out` is then as it was.
pub fn encode(vars: &[(&[u8], &[u8])], out: &mut Vec<u8>) -> Result<(), PacketError> {
    let size = vars.iter().map(|(name, value)| 4 + name.len() + value.len()).sum();
    let max = usize::from(u16::MAX);
    let fits = |len: usize| u16::try_from(len).map_err(|_| PacketError::TooLarge { size, max });
    let [low, high] = fits(size)?.to_le_bytes();
    out.extend_from_slice(&[0, low, high, 0]);
    for text in vars.iter().flat_map(|(name, value)| [name, value]) {
        // Not larger than the whole.
        out.extend_from_slice(&fits(text.len())?.to_le_bytes());
        out.extend_from_slice(text);
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn packet(vars: &[(&[u8], &[u8])]) -> Vec<u8> {
        let mut out = Vec::new();
        encode(vars, &mut out).unwrap();
        out
    }

    #[test]
    fn a_packet_of_nginx_is_read() {
        let bytes = b"\x00\x1f\x00\x00\x0e\x00REQUEST_METHOD\x03\x00GET\x06\x00HTTP_X\x00\x00body";
        let packet = parse(bytes, 4096).unwrap().unwrap();
        assert_eq!(&bytes[packet.len()..], b"body");
        assert_eq!(
            packet.vars().collect::<Vec<_>>(),
            [(&b"REQUEST_METHOD"[..], &b"GET"[..]), (&b"HTTP_X"[..], &b""[..])]
        );
    }

    #[test]
    fn an_incomplete_packet_asks_for_more() {
        let bytes = packet(&[(b"A", b"1"), (b"B", b"22")]);
        for end in 0..bytes.len() {
            assert_eq!(parse(&bytes[..end], 4096), Ok(None), "{end}");
        }
    }

    #[test]
    fn what_is_no_request_is_refused() {
        assert_eq!(parse(b"GET / HTTP/1.1\r\n", 4096), Err(PacketError::Modifier { modifier1: b'G' }));
        assert_eq!(parse(b"\x05\x00\x00\x00", 4096), Err(PacketError::Modifier { modifier1: 5 }));
        assert_eq!(parse(b"\x00\x00\x00\x00", 4096), Err(PacketError::Empty));
        assert_eq!(parse(b"\x00\x01\x10\x00", 4096), Err(PacketError::TooLarge { size: 4097, max: 4096 }));
        for vars in [&b"\x01"[..], b"\x01\x00A", b"\x01\x00A\x02\x00B", b"\x01\x00A\x01\x00B\x00", b"\xff\xffA"] {
            let bytes = [&[0, vars.len() as u8, 0, 0], vars].concat();
            assert_eq!(parse(&bytes, 4096), Err(PacketError::Malformed), "{}", vars.escape_ascii());
        }
    }

    #[test]
    fn a_length_is_digits_alone() {
        let length = |said: &[&[u8]]| {
            let vars: Vec<_> = said.iter().map(|value| (&b"CONTENT_LENGTH"[..], *value)).collect();
            let bytes = packet(&[&[(&b"A"[..], &b"1"[..])], &vars[..]].concat());
            parse(&bytes, 4096).unwrap().unwrap().content_length()
        };
        for (said, expected) in [(&[][..], 0), (&[&b""[..]][..], 0), (&[b"5"], 5), (&[b"1", b"0042"], 42)] {
            assert_eq!(length(said), Ok(expected));
        }
        for said in [&b"+5"[..], b"-5", b" 5", b"5 ", b"5,5", b"0x5", b"5\0", b"\xd9\xa5", b"18446744073709551616"] {
            assert_eq!(length(&[b"7", said]), Err(PacketError::ContentLength), "{}", said.escape_ascii());
        }
    }

    #[test]
    fn a_packet_that_fits_no_length_is_not_written() {
        let mut out = vec![1];
        let long = vec![b'x'; 70_000];
        assert!(encode(&[(b"A", &long)], &mut out).is_err());
        assert_eq!(out, [1]);
    }

    proptest! {
        #[test]
        fn what_is_written_reads_back(
            vars in prop::collection::vec(
                (prop::collection::vec(any::<u8>(), 0..30), prop::collection::vec(any::<u8>(), 0..300)), 1..20),
            body in prop::collection::vec(any::<u8>(), 0..20),
        ) {
            let vars: Vec<_> = vars.iter().map(|(name, value)| (name.as_slice(), value.as_slice())).collect();
            let mut bytes = packet(&vars);
            let len = bytes.len();
            bytes.extend_from_slice(&body);
            let read = parse(&bytes, 65_535).unwrap().unwrap();
            prop_assert_eq!(read.len(), len);
            prop_assert_eq!(read.vars().collect::<Vec<_>>(), vars);
        }

        #[test]
        fn no_bytes_are_too_strange(mut bytes in prop::collection::vec(any::<u8>(), 1..200)) {
            bytes[0] = 0;
            if let Ok(Some(packet)) = parse(&bytes, 65_535) {
                prop_assert!(packet.vars().count() > 0);
            }
        }
    }
}
