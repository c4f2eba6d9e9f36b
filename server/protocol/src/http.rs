//! A request head, read from bytes by RFC 9112 with nothing let pass that two programs could read differently.
//!
//! `httparse` finds the pieces; everything that decides where a request ends, and so whether a proxy in front of us
//! sees the same requests as we do, is checked here. Where RFC 9112 lets a recipient be lenient (a bare LF as a line
//! end, a `Content-Length` said twice, one beside `Transfer-Encoding`), we refuse: leniency that differs from the
//! proxy's is how requests are smuggled.
//!
//! Not here: the body's bytes ([`super::chunked`]), the parts of the target ([`super::target`]), which headers reach
//! the application.

use std::mem::MaybeUninit;

pub use super::refusal::{
    BODY_TOO_LARGE, OTHER_HOST, OVERLOADED, Refusal, SERVER_GONE, TIMED_OUT, TOO_SLOW, WORKER_LOST, refusal_response,
};
use super::target;
pub use super::version::Version;

/// The most header lines that a head may have; one with more is refused with 431.
pub const MAX_HEADERS: usize = 128;

/// Empty lines that are skipped before the request line. RFC 9112 section 2.2 asks for at least one: old clients sent
/// one after a body.
const MAX_EMPTY_LINES: usize = 4;

/// Space for [`parse`] to put the headers in. It needs no initialization: `[const { MaybeUninit::uninit() }; _]`.
pub type HeaderBuf<'b> = [MaybeUninit<httparse::Header<'b>>; MAX_HEADERS];

/// How the request's body is framed, RFC 9112 section 6.3.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum BodyLength {
    /// Neither `Content-Length` nor `Transfer-Encoding`: no body.
    None,
    /// `Content-Length`, bytes.
    Length(u64),
    /// `Transfer-Encoding: chunked`.
    Chunked,
}

/// A request head that passed every check.
#[derive(Debug)]
pub struct Head<'h, 'b> {
    /// A token, in the client's case: methods are case-sensitive.
    pub method: &'b str,
    /// Origin-form, absolute-form, or `*` for OPTIONS. Visible ASCII and UTF-8, no fragment. See [`target::split`].
    pub target: &'b str,
    /// HTTP/1.0 or HTTP/1.1.
    pub version: Version,
    /// In order. Names are tokens in the client's case, values are trimmed and free of controls but for tabs.
    pub headers: &'h [httparse::Header<'b>],
    /// How the body that follows is framed.
    pub body: BodyLength,
    /// Whether the client wants the connection kept after the response.
    pub keep_alive: bool,
    /// Whether the client asks for another protocol on this connection (`Connection: upgrade`).
    pub upgrade: bool,
    /// Whether the client waits for `100 Continue` before it sends the body.
    pub expect_continue: bool,
    /// The first `X-Request-Start`, as it came; empty when there is none. See [`super::request_start`].
    pub request_start: &'b [u8],
    /// Where the request line begins, bytes: empty lines before it are passed over.
    pub start: usize,
    /// Bytes of the head, from the first of the input to the end of the empty line.
    pub len: usize,
}

/// Sent to a client that waits before it sends its body (`Expect: 100-continue`).
pub const CONTINUE: &[u8] = b"HTTP/1.1 100 Continue\r\n\r\n";

/// Reads a request head at the start of `bytes`.
///
/// `Ok(None)` says that it is not complete yet; call again with more bytes at the end. `max_head` is the most bytes
/// that the head may have (`buffer-size`). Nothing is allocated or copied.
///
/// # Errors
/// The [`Refusal`] that the client is to be answered with. It can come before the head is complete.
pub fn parse<'h, 'b>(
    bytes: &'b [u8],
    headers: &'h mut HeaderBuf<'b>,
    max_head: usize,
) -> Result<Option<Head<'h, 'b>>, Refusal> {
    let Some(start) = skip_empty_lines(bytes)? else { return Ok(None) };
    // Not beyond: the answer must not depend on how much came at once.
    let within = bytes.get(start..bytes.len().min(max_head)).unwrap_or_default();
    let mut request = httparse::Request::new(&mut []);
    let len = match request.parse_with_uninit_headers(within, headers) {
        Ok(httparse::Status::Complete(len)) => start + len,
        Ok(httparse::Status::Partial) if bytes.len() > max_head => return Err(too_long(within)),
        Ok(httparse::Status::Partial) => return Ok(None),
        Err(error) => return Err(refusal_of(error, within)),
    };
    let (Some(method), Some(target), Some(minor)) = (request.method, request.path, request.version) else {
        return Err(Refusal::bad("the request line is malformed"));
    };
    let headers: &'h [httparse::Header<'b>] = request.headers;
    let version = if minor == 0 { Version::Http10 } else { Version::Http11 };

    check_line_ends(&bytes[..len], headers)?;
    target::check(method, target)?;
    let Fields { body, keep_alive, upgrade, expect_continue, request_start } = read_fields(headers, version)?;
    Ok(Some(Head {
        method,
        target,
        version,
        headers,
        body,
        keep_alive,
        upgrade,
        expect_continue,
        request_start,
        start,
        len,
    }))
}

/// Whether what has come of a request says that it is a HEAD, whose answer has no body.
#[must_use]
pub fn is_head(bytes: &[u8]) -> bool {
    matches!(skip_empty_lines(bytes), Ok(Some(start)) if bytes[start..].starts_with(b"HEAD "))
}

/// Whether `bytes` may hold a complete head, given that the first `seen` of them did not.
///
/// A head ends in CR LF CR LF. Asking this before [`parse`] keeps a client that sends byte by byte from costing a
/// parse of everything before for each of them.
#[must_use]
pub fn may_be_complete(bytes: &[u8], seen: usize) -> bool {
    bytes[seen.saturating_sub(3)..].windows(4).any(|four| four == b"\r\n\r\n")
}

/// Where the request line starts, or `None` when that is not known yet.
fn skip_empty_lines(bytes: &[u8]) -> Result<Option<usize>, Refusal> {
    let mut start = 0;
    loop {
        match &bytes[start..] {
            [] | [b'\r'] => return Ok(None),
            [b'\r', b'\n', ..] if start < 2 * MAX_EMPTY_LINES => start += 2,
            [b'\r' | b'\n', ..] => return Err(Refusal::bad("bad or too many empty lines before the request line")),
            _ => return Ok(Some(start)),
        }
    }
}

fn too_long(within: &[u8]) -> Refusal {
    if within.contains(&b'\n') {
        Refusal { status: 431, reason: "the request head is longer than this server takes" }
    } else {
        Refusal { status: 414, reason: "the request line is longer than this server takes" }
    }
}

fn refusal_of(error: httparse::Error, from_request_line: &[u8]) -> Refusal {
    match error {
        httparse::Error::TooManyHeaders => Refusal { status: 431, reason: "the request has too many headers" },
        httparse::Error::HeaderName => {
            Refusal::bad("a header name is malformed (white space before the colon, a folded line, or a bad character)")
        }
        httparse::Error::HeaderValue => Refusal::bad("a header value has a control character or a bad line end"),
        httparse::Error::NewLine => Refusal::bad("a line does not end in CR LF"),
        httparse::Error::Version => {
            // The line need not be complete: the version is refused at its first wrong byte.
            let line = from_request_line.split(|&byte| byte == b'\r').next().unwrap_or_default();
            match line.split(|&byte| byte == b' ').nth(2).and_then(|version| version.strip_prefix(b"HTTP/")) {
                Some([b'0' | b'2'..=b'9', ..] | [b'1', b'.', b'0'..=b'9', ..]) => {
                    Refusal { status: 505, reason: "this server speaks HTTP/1.0 and HTTP/1.1" }
                }
                _ => Refusal::bad("the protocol version is malformed"),
            }
        }
        httparse::Error::Token | httparse::Error::Status => Refusal::bad("the request line is malformed"),
    }
}

/// `httparse` takes a bare LF for a line end. Every line must have had its CR.
///
/// It suffices to look before each header name and at the end: `httparse` refuses a CR that has no LF after it, and
/// nothing but a line end can stand before a name.
fn check_line_ends(head: &[u8], headers: &[httparse::Header<'_>]) -> Result<(), Refusal> {
    let base = head.as_ptr() as usize;
    let ends_before = |at: usize| at >= 2 && head.get(at - 2..at) == Some(b"\r\n");
    let lines = headers.iter().all(|header| ends_before((header.name.as_ptr() as usize).wrapping_sub(base)));
    if lines && head.ends_with(b"\r\n\r\n") { Ok(()) } else { Err(Refusal::bad("a line does not end in CR LF")) }
}

/// What the headers say of the message's framing and of the connection.
struct Fields<'b> {
    body: BodyLength,
    keep_alive: bool,
    upgrade: bool,
    expect_continue: bool,
    request_start: &'b [u8],
}

fn read_fields<'b>(headers: &[httparse::Header<'b>], version: Version) -> Result<Fields<'b>, Refusal> {
    let mut host = false;
    let mut length = None;
    let mut chunked = false;
    let mut close = false;
    let mut keep_alive = version == Version::Http11;
    let mut upgrade = false;
    let mut expect_continue = false;
    let mut request_start = &[][..];
    for header in headers {
        // By length first: most headers are none of these.
        let is = |name: &str| header.name.eq_ignore_ascii_case(name);
        match header.name.len() {
            4 if is("host") => {
                if host {
                    return Err(Refusal::bad("repeated Host"));
                }
                if !target::is_authority(header.value) {
                    return Err(Refusal::bad("Host is not a host name or address"));
                }
                host = true;
            }
            // RFC 9110 section 10.1.1: an HTTP/1.0 client's expectation is ignored.
            6 if version == Version::Http11 && is("expect") => {
                if !header.value.eq_ignore_ascii_case(b"100-continue") {
                    return Err(Refusal { status: 417, reason: "the only expectation known here is 100-continue" });
                }
                expect_continue = true;
            }
            10 if is("connection") => {
                for option in header.value.split(|&byte| byte == b',') {
                    let option = option.trim_ascii();
                    close |= option.eq_ignore_ascii_case(b"close");
                    keep_alive |= option.eq_ignore_ascii_case(b"keep-alive");
                    upgrade |= option.eq_ignore_ascii_case(b"upgrade");
                }
            }
            14 if is("content-length") => {
                if length.is_some() {
                    return Err(Refusal::bad("repeated Content-Length"));
                }
                length = Some(parse_length(header.value)?);
            }
            15 if request_start.is_empty() && is("x-request-start") => request_start = header.value,
            17 if is("transfer-encoding") => {
                if version == Version::Http10 {
                    return Err(Refusal::bad("Transfer-Encoding in HTTP/1.0"));
                }
                if chunked {
                    return Err(Refusal::bad("repeated Transfer-Encoding"));
                }
                if !header.value.eq_ignore_ascii_case(b"chunked") {
                    return Err(Refusal { status: 501, reason: "the only Transfer-Encoding known here is chunked" });
                }
                chunked = true;
            }
            _ => {}
        }
    }
    if !host && version == Version::Http11 {
        return Err(Refusal::bad("HTTP/1.1 without Host"));
    }
    let body = match (length, chunked) {
        (Some(_), true) => return Err(Refusal::bad("Content-Length with Transfer-Encoding")),
        (None, true) => BodyLength::Chunked,
        (Some(length), false) => BodyLength::Length(length),
        (None, false) => BodyLength::None,
    };
    let expect_continue = expect_continue && !matches!(body, BodyLength::None | BodyLength::Length(0));
    Ok(Fields { body, keep_alive: keep_alive && !close, upgrade, expect_continue, request_start })
}

/// Digits alone: no sign, no list, no white space, nothing that does not fit 64 bits.
pub(super) fn parse_length(value: &[u8]) -> Result<u64, Refusal> {
    const BAD: Refusal = Refusal::bad("Content-Length is not a number");
    if value.is_empty() {
        return Err(BAD);
    }
    value.iter().try_fold(0u64, |length, &byte| {
        if !byte.is_ascii_digit() {
            return Err(BAD);
        }
        length
            .checked_mul(10)
            .and_then(|length| length.checked_add(u64::from(byte - b'0')))
            .ok_or(Refusal::bad("Content-Length is too large"))
    })
}

#[cfg(test)]
mod tests;
