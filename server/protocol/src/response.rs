//! A response head, built once into a buffer that is used again, and how the body after it ends.
//!
//! [`HeadWriter`] takes what an application gave to `start_response` and checks it: a byte that would end a line early
//! is an error, never sent. [`plan`] is the decision about framing and keep-alive, a pure function of the request and
//! what is known of the response.
//!
//! Headers about the connection are the server's (PEP 3333, "Other HTTP Features"): an application that sends one gets
//! an error, as from wsgiref and waitress, with one exception that programs written for uWSGI use: `Connection: close`
//! is a wish that is granted, `Connection: keep-alive` one that is the default anyway.

use thiserror::Error;

use super::date::HttpDate;
use super::socket_protocol::SocketProtocol;
use super::version::Version;

/// What the framing of a response depends on, of the request.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Exchange {
    /// What is spoken.
    pub protocol: SocketProtocol,
    /// The client's version.
    pub version: Version,
    /// Whether the method is HEAD: a head as for GET, and no body.
    pub head_only: bool,
    /// Whether the client and the server both would keep the connection.
    pub keep_alive: bool,
}

/// How the end of the body is marked.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Framing {
    /// There is no body; what the application produces is dropped.
    NoBody,
    /// Exactly this many bytes.
    Length(u64),
    /// In chunks.
    Chunked,
    /// By closing the connection.
    UntilClose,
}

/// What [`plan`] decided.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Plan {
    /// How the end of the body is marked.
    pub framing: Framing,
    /// Whether the connection stays after the response.
    pub keep_alive: bool,
    /// The `Content-Length` line, if there is to be one.
    pub content_length: Option<u64>,
    /// The `Connection` line, if there is to be one.
    pub connection: Option<&'static str>,
}

/// How a response is framed (RFC 9112 section 6.3, RFC 9110 section 8.6) and whether its connection stays.
///
/// `content_length` is what the application said; `body_len` is what the server knows, when the body is already whole.
#[must_use]
pub fn plan(exchange: Exchange, status: u16, content_length: Option<u64>, body_len: Option<u64>) -> Plan {
    let http = exchange.protocol == SocketProtocol::Http;
    let (framing, content_length) = match status {
        // No body, and a length would be wrong.
        100..=199 | 204 => (Framing::NoBody, None),
        // No body, ever: RFC 9110 section 15.3.6.
        205 => (Framing::NoBody, Some(0)),
        // No body; a length is that of the body there would have been, so that only the application knows it.
        304 => (Framing::NoBody, content_length),
        // Likewise, but a body that was made is the one there would have been. An empty one was likely left out.
        _ if exchange.head_only => (Framing::NoBody, content_length.or(body_len.filter(|&len| len > 0))),
        _ => match content_length.or(body_len) {
            Some(length) => (Framing::Length(length), Some(length)),
            None if http && exchange.version == Version::Http11 => (Framing::Chunked, None),
            None => (Framing::UntilClose, None),
        },
    };
    // After a 1xx a client awaits another response, which never comes.
    let keep_alive = http && exchange.keep_alive && framing != Framing::UntilClose && status >= 200;
    let connection = match (http, exchange.version, keep_alive) {
        (true, Version::Http11, false) => Some("close"),
        (true, Version::Http10, true) => Some("keep-alive"),
        _ => None,
    };
    Plan { framing, keep_alive, content_length, connection }
}

/// What is wrong with an application's status or headers.
#[derive(Clone, Debug, Error, PartialEq, Eq)]
pub enum HeadError {
    /// Not three digits from 100, a space and a reason without controls.
    #[error("the status '{0}' is not a number of three digits, a space and a reason")]
    Status(String),
    /// Not a token.
    #[error("'{0}' is not a header name")]
    Name(String),
    /// A control character, which would end the line or be refused by clients.
    #[error("the value of the header '{0}' has a control character")]
    Value(String),
    /// A header about the connection.
    #[error("the header '{0}' is about the connection, which is the server's affair (PEP 3333, hop-by-hop headers)")]
    HopByHop(String),
    /// Not a number, or two of them.
    #[error("Content-Length is repeated or not a number: '{0}'")]
    ContentLength(String),
}

/// Headers that an application must not send: those of Python's `wsgiref.util.is_hop_by_hop`, and `Trailer`, which is
/// the registered name of one that it misspells.
const HOP_BY_HOP: [&[u8]; 8] = [
    b"keep-alive",
    b"proxy-authenticate",
    b"proxy-authorization",
    b"te",
    b"trailer",
    b"trailers",
    b"transfer-encoding",
    b"upgrade",
];

/// A header: its name and its value.
pub type Field = (Vec<u8>, Vec<u8>);

/// Writes one response head into a buffer that it owns until [`HeadWriter::finish`]: an application may take its time
/// between `start_response` and its first byte, or start again.
#[derive(Debug)]
pub struct HeadWriter {
    out: Vec<u8>,
    status: u16,
    headers: u32,
    content_length: Option<u64>,
    has_date: bool,
    close: bool,
}

impl HeadWriter {
    /// Begins a head at the end of `out` with the application's status, such as `404 Not Found`, latin-1.
    ///
    /// # Errors
    /// [`HeadError::Status`].
    pub fn new(status: &[u8], mut out: Vec<u8>) -> Result<Self, HeadError> {
        let number = match status {
            [hundreds @ b'1'..=b'9', tens @ b'0'..=b'9', ones @ b'0'..=b'9', reason @ ..]
                if matches!(reason, [] | [b' ', ..]) && is_text(reason) =>
            {
                [hundreds, tens, ones].into_iter().fold(0, |number, digit| number * 10 + u16::from(digit - b'0'))
            }
            _ => return Err(HeadError::Status(latin1(status))),
        };
        out.extend_from_slice(b"HTTP/1.1 ");
        out.extend_from_slice(status);
        // The space after the number is there even when the reason is not.
        out.extend_from_slice(if status.len() == 3 { b" \r\n" } else { b"\r\n" });
        Ok(Self { out, status: number, headers: 0, content_length: None, has_date: false, close: false })
    }

    /// Begins a head for when nothing else can be said.
    #[must_use]
    pub fn internal_error() -> Self {
        let out = b"HTTP/1.1 500 Internal Server Error\r\n".to_vec();
        Self { out, status: 500, headers: 0, content_length: None, has_date: false, close: false }
    }

    /// Adds a header of the application's, latin-1.
    ///
    /// # Errors
    /// See [`HeadError`]; nothing was written of this header then.
    pub fn header(&mut self, name: &[u8], value: &[u8]) -> Result<(), HeadError> {
        if !is_name(name) {
            return Err(HeadError::Name(latin1(name)));
        }
        if !is_text(value) {
            return Err(HeadError::Value(latin1(name)));
        }
        self.headers += 1;
        let is = |other: &[u8]| name.eq_ignore_ascii_case(other);
        // Lengths first: most headers have none of these.
        match name.len() {
            4 if is(b"date") => self.has_date = true,
            10 if is(b"connection") => {
                let value = value.trim_ascii();
                if value.eq_ignore_ascii_case(b"close") {
                    self.close = true;
                } else if !value.eq_ignore_ascii_case(b"keep-alive") {
                    return Err(HeadError::HopByHop(latin1(name)));
                }
                return Ok(());
            }
            // As nearly all write it, first: that is two comparisons.
            14 if name == b"Content-Length" || is(b"content-length") => {
                let value = value.trim_ascii();
                let (None, Some(length)) = (self.content_length, number(value)) else {
                    return Err(HeadError::ContentLength(latin1(value)));
                };
                // Written by finish, which knows whether there is to be one.
                self.content_length = Some(length);
                return Ok(());
            }
            2 | 7 | 8 | 10 | 17..=19 if HOP_BY_HOP.iter().any(|hop| is(hop)) => {
                return Err(HeadError::HopByHop(latin1(name)));
            }
            _ => {}
        }
        self.out.extend_from_slice(name);
        self.out.extend_from_slice(b": ");
        self.out.extend_from_slice(value);
        self.out.extend_from_slice(b"\r\n");
        Ok(())
    }

    /// What the application said of its body's length, so far.
    #[must_use]
    pub fn content_length(&self) -> Option<u64> {
        self.content_length
    }

    /// How many headers the application gave.
    #[must_use]
    pub fn headers(&self) -> u32 {
        self.headers
    }

    /// The status code.
    #[must_use]
    pub fn status(&self) -> u16 {
        self.status
    }

    /// The status line's text and the headers so far, for whoever makes another head of them.
    #[must_use]
    pub fn parts(&self) -> (Vec<u8>, Vec<Field>) {
        // Nothing in here has a line end of its own: every value was checked.
        let mut lines = self.out.split(|&byte| byte == b'\n').map(|line| line.strip_suffix(b"\r").unwrap_or(line));
        let status = lines.next().and_then(|line| line.get(9..)).unwrap_or_default().trim_ascii_end().to_vec();
        let fields = lines.filter_map(|line| {
            let colon = line.iter().position(|&byte| byte == b':')?;
            Some((line[..colon].to_vec(), line.get(colon + 2..)?.to_vec()))
        });
        let mut fields: Vec<_> = fields.collect();
        if let Some(length) = self.content_length {
            fields.push((b"Content-Length".to_vec(), length.to_string().into_bytes()));
        }
        if self.close {
            fields.push((b"Connection".to_vec(), b"close".to_vec()));
        }
        (status, fields)
    }

    /// Decides on the framing and completes the head with the lines that follow from it. `body_len` is the length of
    /// the body when it is already whole.
    pub fn finish(mut self, mut exchange: Exchange, body_len: Option<u64>, date: &HttpDate) -> (Plan, Vec<u8>) {
        exchange.keep_alive &= !self.close;
        let plan = plan(exchange, self.status, self.content_length, body_len);
        if !self.has_date {
            self.out.extend_from_slice(b"Date: ");
            self.out.extend_from_slice(date.as_bytes());
            self.out.extend_from_slice(b"\r\n");
        }
        if let Some(length) = plan.content_length {
            self.out.extend_from_slice(b"Content-Length: ");
            self.out.extend_from_slice(itoa::Buffer::new().format(length).as_bytes());
            self.out.extend_from_slice(b"\r\n");
        }
        if plan.framing == Framing::Chunked {
            self.out.extend_from_slice(b"Transfer-Encoding: chunked\r\n");
        }
        if let Some(connection) = plan.connection {
            self.out.extend_from_slice(b"Connection: ");
            self.out.extend_from_slice(connection.as_bytes());
            self.out.extend_from_slice(b"\r\n");
        }
        self.out.extend_from_slice(b"\r\n");
        (plan, self.out)
    }
}

/// tchar of RFC 9110 section 5.6.2.
fn is_token(byte: u8) -> bool {
    const TOKEN: [bool; 256] = {
        let mut table = [false; 256];
        let mut byte = 0;
        while byte < 128 {
            table[byte] = (byte as u8).is_ascii_alphanumeric();
            byte += 1;
        }
        let marks = b"!#$%&'*+-.^_`|~";
        let mut at = 0;
        while at < marks.len() {
            table[marks[at] as usize] = true;
            at += 1;
        }
        table
    };
    TOKEN[usize::from(byte)]
}

/// Not empty, and all of it [`is_token`]. Most names are of letters and hyphens.
fn is_name(bytes: &[u8]) -> bool {
    let letters = |word: u64| {
        let lower = word | each(0x20);
        // The highest bit of each byte tells. None carries into the next, unless one was no ASCII, which is refused.
        let from_a = lower.wrapping_add(each(0x80 - b'a'));
        let past_z = lower.wrapping_add(each(0x7f - b'z'));
        let hyphen = each(0x80).wrapping_sub(word ^ each(b'-'));
        ((from_a & !past_z) | hyphen) & !word & each(0x80) == each(0x80)
    };
    !bytes.is_empty() && all(bytes, letters, is_token)
}

/// Field content: no control but a tab.
fn is_text(bytes: &[u8]) -> bool {
    let no_controls = |word: u64| {
        let delete = word ^ each(0x7f);
        let low = word.wrapping_sub(each(b' ')) & !word;
        let zero = delete.wrapping_sub(each(1)) & !delete;
        (low | zero) & each(0x80) == 0
    };
    all(bytes, no_controls, |byte| byte == b'\t' || (byte >= b' ' && byte != 0x7f))
}

/// Whether each byte is `one`. Eight at once are asked first, with a question that also may be answered no for some that
/// are: each header is looked at here, at each response.
#[inline]
fn all(bytes: &[u8], eight: impl Fn(u64) -> bool, one: impl Fn(u8) -> bool) -> bool {
    let are = |bytes: &[u8; 8]| eight(u64::from_ne_bytes(*bytes)) || bytes.iter().all(|&byte| one(byte));
    let Some(last) = bytes.last_chunk() else { return bytes.iter().all(|&byte| one(byte)) };
    let mut rest = bytes;
    while let Some((first, behind)) = rest.split_first_chunk() {
        if !are(first) {
            return false;
        }
        rest = behind;
    }
    // Some of these may have been looked at.
    rest.is_empty() || are(last)
}

/// Eight times the same byte.
const fn each(byte: u8) -> u64 {
    u64::from_ne_bytes([byte; 8])
}

/// A number of decimal digits and nothing else.
fn number(digits: &[u8]) -> Option<u64> {
    let add = |number: u64, &digit: &u8| {
        let digit = digit.is_ascii_digit().then(|| u64::from(digit - b'0'))?;
        number.checked_mul(10)?.checked_add(digit)
    };
    if digits.is_empty() { None } else { digits.iter().try_fold(0, add) }
}

/// For messages: each byte a character, as the application wrote them.
fn latin1(bytes: &[u8]) -> String {
    bytes.iter().copied().map(char::from).flat_map(char::escape_default).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    const HTTP11: Exchange =
        Exchange { protocol: SocketProtocol::Http, version: Version::Http11, head_only: false, keep_alive: true };
    const HTTP10: Exchange = Exchange { version: Version::Http10, ..HTTP11 };
    const UWSGI: Exchange = Exchange { protocol: SocketProtocol::Uwsgi, ..HTTP11 };
    const HEAD: Exchange = Exchange { head_only: true, ..HTTP11 };

    #[test]
    fn framing_follows_from_request_and_response() {
        use Framing::{Chunked, Length, NoBody, UntilClose};
        let closing = |exchange| Exchange { keep_alive: false, ..exchange };
        let plan_of =
            |framing, keep_alive, content_length, connection| Plan { framing, keep_alive, content_length, connection };
        for (exchange, status, said, known, expected) in [
            // A length that the application said.
            (HTTP11, 200, Some(5), None, plan_of(Length(5), true, Some(5), None)),
            (HTTP11, 200, Some(5), Some(5), plan_of(Length(5), true, Some(5), None)),
            (closing(HTTP11), 200, Some(5), None, plan_of(Length(5), false, Some(5), Some("close"))),
            (HTTP10, 200, Some(5), None, plan_of(Length(5), true, Some(5), Some("keep-alive"))),
            (closing(HTTP10), 200, Some(5), None, plan_of(Length(5), false, Some(5), None)),
            (UWSGI, 200, Some(5), None, plan_of(Length(5), false, Some(5), None)),
            // A length that the server knows.
            (HTTP11, 200, None, Some(7), plan_of(Length(7), true, Some(7), None)),
            (HTTP11, 404, None, Some(0), plan_of(Length(0), true, Some(0), None)),
            (HTTP10, 200, None, Some(7), plan_of(Length(7), true, Some(7), Some("keep-alive"))),
            (UWSGI, 200, None, Some(7), plan_of(Length(7), false, Some(7), None)),
            // No length: chunked where it is understood.
            (HTTP11, 200, None, None, plan_of(Chunked, true, None, None)),
            (closing(HTTP11), 200, None, None, plan_of(Chunked, false, None, Some("close"))),
            (HTTP10, 200, None, None, plan_of(UntilClose, false, None, None)),
            (UWSGI, 200, None, None, plan_of(UntilClose, false, None, None)),
            (Exchange { version: Version::Http10, ..UWSGI }, 200, None, None, plan_of(UntilClose, false, None, None)),
            // HEAD.
            (HEAD, 200, Some(5), Some(0), plan_of(NoBody, true, Some(5), None)),
            (HEAD, 200, None, Some(0), plan_of(NoBody, true, None, None)),
            (HEAD, 200, None, Some(9), plan_of(NoBody, true, Some(9), None)),
            (HEAD, 200, None, None, plan_of(NoBody, true, None, None)),
            // Statuses without a body, whatever the application says.
            (HTTP11, 204, Some(5), Some(5), plan_of(NoBody, true, None, None)),
            (HTTP11, 204, None, None, plan_of(NoBody, true, None, None)),
            (HTTP10, 204, None, None, plan_of(NoBody, true, None, Some("keep-alive"))),
            (HTTP11, 205, Some(5), Some(5), plan_of(NoBody, true, Some(0), None)),
            (HTTP11, 304, Some(5), Some(0), plan_of(NoBody, true, Some(5), None)),
            (HTTP11, 304, None, Some(0), plan_of(NoBody, true, None, None)),
            (HTTP11, 101, None, None, plan_of(NoBody, false, None, Some("close"))),
            (UWSGI, 304, None, None, plan_of(NoBody, false, None, None)),
        ] {
            assert_eq!(plan(exchange, status, said, known), expected, "{exchange:?} {status} {said:?} {known:?}");
        }
    }

    fn written(status: &str, headers: &[(&str, &str)], exchange: Exchange, body_len: Option<u64>) -> String {
        let mut head = HeadWriter::new(status.as_bytes(), b"before".to_vec()).unwrap();
        for (name, value) in headers {
            head.header(name.as_bytes(), value.as_bytes()).unwrap();
        }
        let (_, out) = head.finish(exchange, body_len, &HttpDate::from_unix(0));
        String::from_utf8(out).unwrap()
    }

    #[test]
    fn a_head_has_the_applications_lines_and_then_the_servers() {
        assert_eq!(
            written(
                "200 OK",
                &[("Content-Type", "text/plain"), ("Set-Cookie", "a"), ("Set-Cookie", "b")],
                HTTP11,
                Some(3)
            ),
            "beforeHTTP/1.1 200 OK\r\nContent-Type: text/plain\r\nSet-Cookie: a\r\nSet-Cookie: b\r\n\
             Date: Thu, 01 Jan 1970 00:00:00 GMT\r\nContent-Length: 3\r\n\r\n"
        );
        assert_eq!(
            written("299 ", &[("DATE", "today")], HTTP11, None),
            "beforeHTTP/1.1 299 \r\nDATE: today\r\nTransfer-Encoding: chunked\r\n\r\n"
        );
        assert_eq!(
            written("204", &[("Date", "d"), ("content-length", "0"), ("connection", "Close")], HTTP11, None),
            "beforeHTTP/1.1 204 \r\nDate: d\r\nConnection: close\r\n\r\n"
        );
        assert_eq!(
            written(
                "200 OK",
                &[("Date", "d"), ("Connection", "keep-alive"), ("Content-Length", " 18446744073709551615")],
                HTTP10,
                None
            ),
            "beforeHTTP/1.1 200 OK\r\nDate: d\r\nContent-Length: 18446744073709551615\r\nConnection: keep-alive\r\n\r\n"
        );
    }

    #[test]
    fn a_status_that_is_none_is_an_error() {
        for status in ["", "20", "2000 OK", "abc Bad", "099 Low", "200OK", "200\tOK", "200 OK\r\nX: 1", "200 \0"] {
            let error = HeadWriter::new(status.as_bytes(), Vec::new()).unwrap_err();
            assert!(matches!(error, HeadError::Status(_)), "{status:?}");
        }
    }

    #[test]
    fn a_header_that_would_break_the_head_is_an_error_and_writes_nothing() {
        type Kind = fn(String) -> HeadError;
        let cases: [(&[u8], &[u8], Kind); 20] = [
            (b"", b"x", HeadError::Name),
            (b"A B", b"x", HeadError::Name),
            (b"A:", b"x", HeadError::Name),
            (b"A\r\nB", b"x", HeadError::Name),
            (b"\xe9", b"x", HeadError::Name),
            (b"A", b"x\r\nB: y", HeadError::Value),
            (b"A", b"x\ny", HeadError::Value),
            (b"A", b"x\0", HeadError::Value),
            (b"A", b"\x7f", HeadError::Value),
            (b"Transfer-Encoding", b"chunked", HeadError::HopByHop),
            (b"keep-alive", b"1", HeadError::HopByHop),
            (b"TE", b"x", HeadError::HopByHop),
            (b"Trailer", b"x", HeadError::HopByHop),
            (b"Upgrade", b"websocket", HeadError::HopByHop),
            (b"Proxy-Authenticate", b"x", HeadError::HopByHop),
            (b"Connection", b"Upgrade", HeadError::HopByHop),
            (b"Content-Length", b"", HeadError::ContentLength),
            (b"Content-Length", b"-1", HeadError::ContentLength),
            (b"Content-Length", b"5, 5", HeadError::ContentLength),
            (b"Content-Length", b"18446744073709551616", HeadError::ContentLength),
        ];
        for (name, value, kind) in cases {
            let mut head = HeadWriter::new(b"200 OK", Vec::new()).unwrap();
            let error = head.header(name, value).unwrap_err();
            let shown = if kind(String::new()) == HeadError::ContentLength(String::new()) { value } else { name };
            assert_eq!(error, kind(latin1(shown)));
            assert_eq!(head.out, b"HTTP/1.1 200 OK\r\n");
        }
        let mut head = HeadWriter::new(b"200 OK", Vec::new()).unwrap();
        head.header(b"Content-Length", b"5").unwrap();
        assert_eq!(head.header(b"Content-Length", b"5"), Err(HeadError::ContentLength("5".into())));
    }

    #[test]
    fn a_byte_counts_the_same_wherever_it_stands() {
        for (len, at) in (1..=25).flat_map(|len| (0..len).map(move |at| (len, at))) {
            for byte in 0..=255 {
                for around in [b'a', b'Z', b'-', b'1'] {
                    let mut bytes = vec![around; len];
                    bytes[at] = byte;
                    let token = byte.is_ascii_alphanumeric() || b"!#$%&'*+-.^_`|~".contains(&byte);
                    assert_eq!(is_name(&bytes), token, "{bytes:?}");
                    assert_eq!(is_text(&bytes), byte == b'\t' || !byte.is_ascii_control(), "{bytes:?}");
                }
                // Two that are not alike, side by side.
                let mut bytes = vec![b'a'; len + 1];
                bytes[at] = byte;
                bytes[at + 1] = byte ^ 0x80;
                assert!(!is_name(&bytes), "{bytes:?}");
            }
        }
        assert!(!is_name(b""));
        assert!(is_text(b""));
    }

    #[test]
    fn headers_of_the_connection_are_refused_however_they_are_written() {
        for name in HOP_BY_HOP {
            for name in [name.to_ascii_lowercase(), name.to_ascii_uppercase()] {
                let mut head = HeadWriter::new(b"200 OK", Vec::new()).unwrap();
                assert_eq!(head.header(&name, b"x"), Err(HeadError::HopByHop(latin1(&name))));
            }
        }
        for name in [&b"content-LENGTH"[..], b"Content-Length"] {
            let mut head = HeadWriter::new(b"200 OK", Vec::new()).unwrap();
            head.header(name, b"007").unwrap();
            assert_eq!(head.content_length(), Some(7));
        }
    }

    #[test]
    fn a_head_can_be_taken_apart() {
        let mut head = HeadWriter::new(b"204", Vec::new()).unwrap();
        for (name, value) in [("A", "b: c"), ("Content-Length", "5"), ("Empty", ""), ("Connection", "close")] {
            head.header(name.as_bytes(), value.as_bytes()).unwrap();
        }
        let (status, fields) = head.parts();
        assert_eq!(status, b"204");
        let fields: Vec<_> = fields.iter().map(|(name, value)| [name.as_slice(), b"=", value].concat()).collect();
        assert_eq!(fields, [&b"A=b: c"[..], b"Empty=", b"Content-Length=5", b"Connection=close"]);
    }

    #[test]
    fn latin_1_values_pass_as_they_are() {
        let mut head = HeadWriter::new(b"200 \xe9", Vec::new()).unwrap();
        head.header(b"X", b"caf\xe9\ttab").unwrap();
        assert_eq!(head.out, b"HTTP/1.1 200 \xe9\r\nX: caf\xe9\ttab\r\n");
    }
}
