//! What the server reads of a certificate (RFC 5280), of any version: its subject, its key, and until when it is valid.
//! Nothing is verified here.

use std::fmt::Write;

/// A part of a certificate: its tag, its content, and what follows it.
type Part<'a> = (u8, &'a [u8], &'a [u8]);

const SEQUENCE: u8 = 0x30;
const SET: u8 = 0x31;
const OID: u8 = 0x06;
const VERSION: u8 = 0xa0;
const UTC_TIME: u8 = 0x17;
const GENERALIZED_TIME: u8 = 0x18;

/// What is read of a certificate.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Certificate<'a> {
    subject: &'a [u8],
    not_after: Part<'a>,
    /// With its tag and length.
    public_key: &'a [u8],
}

impl<'a> Certificate<'a> {
    /// Finds the parts in a certificate's DER; `None` where it is not one.
    #[must_use]
    pub fn parse(der: &'a [u8]) -> Option<Self> {
        let inner = of_tag(der, SEQUENCE)?.0;
        let mut rest = of_tag(inner, SEQUENCE)?.0;
        if rest.first() == Some(&VERSION) {
            rest = part(rest)?.2;
        }
        let (_serial, _, rest) = part(rest)?;
        let (_algorithm, rest) = of_tag(rest, SEQUENCE)?;
        let (_issuer, rest) = of_tag(rest, SEQUENCE)?;
        let (validity, rest) = of_tag(rest, SEQUENCE)?;
        let (subject, rest) = of_tag(rest, SEQUENCE)?;
        let (_, behind) = of_tag(rest, SEQUENCE)?;
        let public_key = &rest[..rest.len() - behind.len()];
        let (_not_before, _, times) = part(validity)?;
        Some(Self { subject, not_after: part(times)?, public_key })
    }

    /// The DER of its `SubjectPublicKeyInfo`.
    #[must_use]
    pub fn public_key(&self) -> &'a [u8] {
        self.public_key
    }

    /// The last moment at which it is valid, seconds since 1970; `None` for what is no time.
    #[must_use]
    pub fn not_after(&self) -> Option<i64> {
        let (tag, text, _) = self.not_after;
        let text = std::str::from_utf8(text).ok()?.strip_suffix('Z')?;
        let (year, rest) = match tag {
            UTC_TIME => {
                let (year, rest) = text.split_at_checked(2)?;
                let year = digits(year)?;
                (if year < 50 { 2000 + year } else { 1900 + year }, rest)
            }
            GENERALIZED_TIME => {
                let (year, rest) = text.split_at_checked(4)?;
                (digits(year)?, rest)
            }
            _ => return None,
        };
        if rest.len() != 10 || !rest.is_ascii() {
            return None;
        }
        let at = |at: usize| digits(&rest[at..at + 2]);
        let (month, day, hour, minute, second) = (at(0)?, at(2)?, at(4)?, at(6)?, at(8)?);
        ((1..=12).contains(&month) && (1..=31).contains(&day) && hour < 24 && minute < 60 && second < 61)
            .then(|| ((days(year, month, day) * 24 + hour) * 60 + minute) * 60 + second)
    }

    /// The subject as OpenSSL's `X509_NAME_oneline` writes it: `/C=DE/O=Example/CN=name`.
    #[must_use]
    pub fn subject(&self) -> Option<String> {
        let mut text = String::new();
        let mut names = self.subject;
        while !names.is_empty() {
            let (mut set, rest) = of_tag(names, SET)?;
            names = rest;
            while !set.is_empty() {
                let (pair, rest) = of_tag(set, SEQUENCE)?;
                set = rest;
                let (oid, value) = of_tag(pair, OID)?;
                let (tag, value, _) = part(value)?;
                let _ = write!(text, "/{}=", name_of(oid));
                add_value(&mut text, tag, value);
            }
        }
        Some(text)
    }
}

/// What a name's part is called in short.
fn name_of(oid: &[u8]) -> String {
    let name = match oid {
        [0x55, 0x04, kind] => match kind {
            3 => "CN",
            4 => "SN",
            5 => "serialNumber",
            6 => "C",
            7 => "L",
            8 => "ST",
            9 => "street",
            10 => "O",
            11 => "OU",
            12 => "title",
            42 => "GN",
            46 => "dnQualifier",
            _ => "",
        },
        [0x2a, 0x86, 0x48, 0x86, 0xf7, 0x0d, 0x01, 0x09, 0x01] => "emailAddress",
        [0x09, 0x92, 0x26, 0x89, 0x93, 0xf2, 0x2c, 0x64, 0x01, 0x19] => "DC",
        [0x09, 0x92, 0x26, 0x89, 0x93, 0xf2, 0x2c, 0x64, 0x01, 0x01] => "UID",
        _ => "",
    };
    if name.is_empty() { dotted(oid) } else { name.to_owned() }
}

fn dotted(oid: &[u8]) -> String {
    let mut text = String::new();
    let mut number = 0_u64;
    for &byte in oid {
        number = number.wrapping_shl(7) | u64::from(byte & 0x7f);
        if byte & 0x80 == 0 {
            if text.is_empty() {
                let first = (number / 40).min(2);
                let _ = write!(text, "{first}.{}", number - first * 40);
            } else {
                let _ = write!(text, ".{number}");
            }
            number = 0;
        }
    }
    text
}

/// Adds a string's bytes; what is not printable is escaped, as OpenSSL does. Two-byte characters are written as one.
fn add_value(text: &mut String, tag: u8, value: &[u8]) {
    const BMP_STRING: u8 = 0x1e;
    let bytes: Vec<u8> = match tag {
        BMP_STRING => {
            let units = value.chunks_exact(2).map(|two| u16::from_be_bytes([two[0], two[1]]));
            char::decode_utf16(units).map(|char| char.unwrap_or('?')).collect::<String>().into_bytes()
        }
        _ => value.to_vec(),
    };
    for byte in bytes {
        match byte {
            b' '..=b'~' => text.push(char::from(byte)),
            _ => drop(write!(text, "\\x{byte:02X}")),
        }
    }
}

fn of_tag(bytes: &[u8], wanted: u8) -> Option<(&[u8], &[u8])> {
    let (tag, content, rest) = part(bytes)?;
    (tag == wanted).then_some((content, rest))
}

/// The first part of some DER.
fn part(bytes: &[u8]) -> Option<Part<'_>> {
    let (&tag, rest) = bytes.split_first()?;
    let (&first, rest) = rest.split_first()?;
    let (len, rest) = match first {
        0..=0x7f => (usize::from(first), rest),
        0x81..=0x84 => {
            let (digits, rest) = rest.split_at_checked(usize::from(first & 0x7f))?;
            (digits.iter().fold(0, |len, &digit| len << 8 | usize::from(digit)), rest)
        }
        _ => return None,
    };
    let (content, rest) = rest.split_at_checked(len)?;
    Some((tag, content, rest))
}

fn digits(text: &str) -> Option<i64> {
    text.bytes().all(|byte| byte.is_ascii_digit()).then(|| text.parse().ok())?
}

/// Days since 1970 of a date in the Gregorian calendar.
fn days(year: i64, month: i64, day: i64) -> i64 {
    // Years that begin in March end with the day that some have.
    let (year, month) = if month > 2 { (year, month - 3) } else { (year - 1, month + 9) };
    let leaps = year / 4 - year / 100 + year / 400;
    year * 365 + leaps + (month * 153 + 2) / 5 + day - 1 - 719_468
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn der(tag: u8, parts: &[&[u8]]) -> Vec<u8> {
        let content = parts.concat();
        let len = content.len();
        let head = if len < 0x80 { vec![tag, len as u8] } else { vec![tag, 0x82, (len >> 8) as u8, len as u8] };
        [head, content].concat()
    }

    fn certificate(not_after: &[u8], subject: &[&[u8]]) -> Vec<u8> {
        let not_before = der(UTC_TIME, &[b"200101000000Z"]);
        let validity = der(SEQUENCE, &[&not_before, not_after]);
        let (version, serial) = (der(VERSION, &[&[2, 1, 2]]), der(2, &[&[7]]));
        let (empty, subject) = (der(SEQUENCE, &[]), der(SEQUENCE, subject));
        let inner = der(SEQUENCE, &[&version, &serial, &empty, &empty, &validity, &subject, &empty]);
        der(SEQUENCE, &[&inner, &empty])
    }

    fn name(oid: &[u8], tag: u8, value: &[u8]) -> Vec<u8> {
        der(SET, &[&der(SEQUENCE, &[&der(OID, &[oid]), &der(tag, &[value])])])
    }

    #[test]
    fn a_subject_is_one_line_as_openssl_writes_it() {
        let parts = [
            name(&[0x55, 4, 6], 0x13, b"DE"),
            name(&[0x55, 4, 10], 0x0c, "Größe & \"Co\"".as_bytes()),
            name(&[0x55, 4, 3], 0x1e, &[0, b'a', 0, b'b']),
            name(&[0x2a, 0x86, 0x48, 0x86, 0xf7, 0x0d, 1, 9, 1], 0x16, b"a@b"),
            name(&[0x2b, 6, 1, 4], 0x0c, b"x"),
        ];
        let bytes = certificate(&der(UTC_TIME, &[b"300101000000Z"]), &parts.each_ref().map(Vec::as_slice));
        let subject = Certificate::parse(&bytes).unwrap().subject().unwrap();
        assert_eq!(subject, r#"/C=DE/O=Gr\xC3\xB6\xC3\x9Fe & "Co"/CN=ab/emailAddress=a@b/1.3.6.1.4=x"#);
    }

    #[test]
    fn the_end_of_a_certificate_is_a_time() {
        let end = |tag, text: &str| {
            let bytes = certificate(&der(tag, &[text.as_bytes()]), &[]);
            Certificate::parse(&bytes).unwrap().not_after()
        };
        assert_eq!(end(UTC_TIME, "700101000000Z"), Some(0));
        assert_eq!(end(UTC_TIME, "260228235959Z"), Some(1_772_323_199));
        assert_eq!(end(GENERALIZED_TIME, "20000229120000Z"), Some(951_825_600));
        assert_eq!(end(GENERALIZED_TIME, "99991231235959Z"), Some(253_402_300_799));
        for wrong in ["", "Z", "261328235959Z", "26022823595Z", "26022823é959Z", "260228235959+0100"] {
            assert_eq!(end(UTC_TIME, wrong), None, "{wrong}");
        }
        assert_eq!(end(2, "260228235959Z"), None);
    }

    proptest! {
        #[test]
        fn no_bytes_panic(bytes in prop::collection::vec(any::<u8>(), 0..200), cut in 0..300_usize, at in 0..300_usize) {
            let look = |bytes: &[u8]| Certificate::parse(bytes).map(|found| (found.subject(), found.not_after()));
            look(&bytes);
            let mut whole = certificate(&der(UTC_TIME, &[b"300101000000Z"]), &[&name(&[0x55, 4, 3], 0x0c, b"name")]);
            whole.truncate(cut.min(whole.len()));
            look(&whole);
            if let (Some(byte), Some(&new)) = (whole.get_mut(at), bytes.first()) {
                *byte = new;
                look(&whole);
            }
        }
    }
}
