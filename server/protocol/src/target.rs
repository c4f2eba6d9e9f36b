//! The parts of a request target, and the path that an application sees.
//!
//! What may stand in a target: visible ASCII but for `#`, and UTF-8. Bytes beyond ASCII are no part of a URI (RFC
//! 3986), but `curl` and others send them as they were typed, and uWSGI, gunicorn and nginx all take them; they reach
//! the application as PEP 3333 wants them, each byte a latin-1 character. Bytes that are no UTF-8 are refused: nothing
//! current sends them. A fragment is never sent by a client that means well,
//! and servers disagree whether the path ends there (uWSGI's does, its query does not), so it is refused.
//!
//! What becomes of the path: percent escapes are decoded, and then dot segments are resolved, as uWSGI does and as
//! nginx does before it passes a path on; no application ever sees `/../`. Unlike uWSGI, which decodes an invalid
//! escape to a wrong byte, we leave it as it is, like Python's own `urllib`; and unlike uWSGI, which resolves
//! only dots that were sent bare, we resolve `%2e` too (RFC 3986 section 6.2.2.2 has them equal). `%00` in a path is
//! refused, as by nginx: no path has one, and everything in C behind us would see a shorter path.

use super::refusal::Refusal;

/// The pieces of a request target.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Target<'b> {
    /// Host and port of an absolute-form target. It replaces the `Host` header (RFC 9112 section 3.2.2).
    pub authority: Option<&'b str>,
    /// The path as sent, still escaped: begins with a slash, or is `*`.
    pub path: &'b str,
    /// What follows the first question mark; empty without one.
    pub query: &'b str,
}

/// Takes a target that [`super::http::parse`] accepted apart.
#[must_use]
pub fn split(target: &str) -> Target<'_> {
    let (authority, rest) = match after_scheme(target) {
        Some(rest) => {
            let (authority, rest) = rest.split_at(rest.find(['/', '?']).unwrap_or(rest.len()));
            (Some(authority), rest)
        }
        None => (None, target),
    };
    let (path, query) = rest.split_once('?').unwrap_or((rest, ""));
    Target { authority, path: if path.is_empty() { "/" } else { path }, query }
}

/// The path as an application sees it: percent escapes decoded, dot segments resolved. It is `path` itself when there
/// is nothing to do, and else made in `buf`, whose contents are replaced.
#[must_use]
pub fn decode_path<'a>(path: &'a [u8], buf: &'a mut Vec<u8>) -> &'a [u8] {
    let mut before = 0;
    // A dot segment begins after a slash; anything else can stay as it is.
    let plain = path.iter().all(|&byte| {
        let plain = byte != b'%' && !(byte == b'.' && before == b'/');
        before = byte;
        plain
    });
    if plain {
        return path;
    }
    buf.clear();
    percent_decode(path, buf);
    resolve_dot_segments(buf);
    buf
}

/// Appends `raw` to `out` with its percent escapes decoded; what is no valid escape stays as it is.
fn percent_decode(mut raw: &[u8], out: &mut Vec<u8>) {
    out.reserve(raw.len());
    while let Some(at) = raw.iter().position(|&byte| byte == b'%') {
        out.extend_from_slice(&raw[..at]);
        raw = &raw[at..];
        let taken = match *raw {
            [_, high, low, ..] => match (hex(high), hex(low)) {
                (Some(high), Some(low)) => {
                    out.push(high << 4 | low);
                    3
                }
                _ => {
                    out.push(b'%');
                    1
                }
            },
            _ => {
                out.push(b'%');
                1
            }
        };
        raw = &raw[taken..];
    }
    out.extend_from_slice(raw);
}

fn hex(digit: u8) -> Option<u8> {
    char::from(digit).to_digit(16).and_then(|digit| u8::try_from(digit).ok())
}

/// RFC 3986 section 5.2.4, in place, for a path that begins with a slash; others are left alone.
fn resolve_dot_segments(path: &mut Vec<u8>) {
    if path.first() != Some(&b'/') {
        return;
    }
    // path[..written] is resolved, and path[read] is the slash before the next segment. written <= read.
    let (mut read, mut written) = (0, 0);
    while read < path.len() {
        let end = path[read + 1..].iter().position(|&byte| byte == b'/').map_or(path.len(), |at| read + 1 + at);
        let last = end == path.len();
        match &path[read + 1..end] {
            b"." | b".." if last => {
                if path[read + 1..end].len() == 2 {
                    written = path[..written].iter().rposition(|&byte| byte == b'/').unwrap_or(0);
                }
                path[written] = b'/';
                written += 1;
            }
            b"." => {}
            b".." => written = path[..written].iter().rposition(|&byte| byte == b'/').unwrap_or(0),
            _ => {
                path.copy_within(read..end, written);
                written += end - read;
            }
        }
        read = end;
    }
    path.truncate(written);
}

/// The form of a target, RFC 9112 section 3.2.
pub(super) fn check(method: &str, target: &str) -> Result<(), Refusal> {
    if method == "CONNECT" {
        return Err(Refusal { status: 501, reason: "CONNECT is not served here" });
    }
    let bad = |reason| Err(Refusal { status: 400, reason });
    let path = match target.as_bytes() {
        [b'/', ..] => target,
        b"*" if method == "OPTIONS" => return Ok(()),
        _ => match after_scheme(target) {
            Some(rest) => {
                let authority = &rest[..rest.find(['/', '?', '#']).unwrap_or(rest.len())];
                if authority.is_empty() || !is_authority(authority.as_bytes()) {
                    return bad("the request target's host is malformed");
                }
                &rest[authority.len()..]
            }
            None => return bad("the request target is neither a path nor an http URL"),
        },
    };
    let mut rest = path.as_bytes();
    let mut in_path = true;
    while let Some(at) = rest.iter().position(|&byte| matches!(byte, b'%' | b'#' | b'?')) {
        match rest[at] {
            b'#' => return bad("the request target has a fragment"),
            b'%' if in_path && rest[at..].starts_with(b"%00") => return bad("the request target's path has a NUL"),
            b'?' => in_path = false,
            _ => {}
        }
        rest = &rest[at + 1..];
    }
    Ok(())
}

/// What follows `http://` or `https://`.
fn after_scheme(target: &str) -> Option<&str> {
    ["http://", "https://"].into_iter().find_map(|scheme| {
        let (start, rest) = target.split_at_checked(scheme.len())?;
        start.eq_ignore_ascii_case(scheme).then_some(rest)
    })
}

/// Whether `value` is `uri-host [":" port]` (RFC 9110 section 7.2), which may be empty. No user information, no white
/// space, no list: what else a `Host` can hide is meant for somebody's confusion.
pub(super) fn is_authority(value: &[u8]) -> bool {
    let (host, port) = match value {
        [b'[', rest @ ..] => match rest.iter().position(|&byte| byte == b']') {
            // IPv6 and IPvFuture; the application may look closer.
            Some(end) if end > 0 && rest[..end].iter().all(|&byte| byte == b':' || is_host_byte(byte)) => {
                (&rest[..0], &rest[end + 1..])
            }
            _ => return false,
        },
        _ => value.split_at(value.iter().position(|&byte| byte == b':').unwrap_or(value.len())),
    };
    host.iter().all(|&byte| is_host_byte(byte))
        && match port {
            [] => true,
            [b':', digits @ ..] => digits.len() <= 5 && digits.iter().all(u8::is_ascii_digit),
            _ => false,
        }
}

/// unreserved, sub-delims and the percent sign of RFC 3986.
fn is_host_byte(byte: u8) -> bool {
    byte.is_ascii_alphanumeric() || b"-._~!$&'()*+,;=%".contains(&byte)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn a_target_is_taken_apart() {
        for (target, authority, path, query) in [
            ("/", None, "/", ""),
            ("/a/b?x=1&y=%20", None, "/a/b", "x=1&y=%20"),
            ("/a?b?c", None, "/a", "b?c"),
            ("//evil.example/a", None, "//evil.example/a", ""),
            ("http://example.com/a?b", Some("example.com"), "/a", "b"),
            ("HTTPS://example.com:8443", Some("example.com:8443"), "/", ""),
            ("http://[::1]:80?q", Some("[::1]:80"), "/", "q"),
            ("*", None, "*", ""),
        ] {
            assert_eq!(split(target), Target { authority, path, query }, "{target}");
        }
    }

    #[test]
    fn the_forms_of_a_target_are_checked() {
        for (method, target) in [
            ("GET", "/"),
            ("GET", "//"),
            ("GET", "/%2500"),
            ("GET", "/?%00"),
            ("GET", "/a%zz%"),
            ("GET", "/caf\u{e9}"),
            ("GET", "http://example.com"),
            ("GET", "HTTP://example.com:80/a?b"),
            ("OPTIONS", "*"),
            ("OPTIONS", "/"),
        ] {
            assert_eq!(check(method, target), Ok(()), "{method} {target}");
        }
        for (method, target, status) in [
            ("CONNECT", "example.com:443", 501),
            ("GET", "*", 400),
            ("OPTIONS", "*a", 400),
            ("GET", "a", 400),
            ("GET", "?a", 400),
            ("GET", "example.com:80", 400),
            ("GET", "ftp://example.com/", 400),
            ("GET", "http:/a", 400),
            ("GET", "http:///a", 400),
            ("GET", "http://user@example.com/", 400),
            ("GET", "http://a\\b/", 400),
            ("GET", "http://a:b/", 400),
            ("GET", "/a#b", 400),
            ("GET", "/a?b#c", 400),
            ("GET", "http://a#b", 400),
            ("GET", "/%00", 400),
            ("GET", "http://a/b%00c", 400),
        ] {
            assert_eq!(check(method, target).map_err(|refusal| refusal.status), Err(status), "{method} {target}");
        }
    }

    #[test]
    fn an_authority_is_a_host_and_perhaps_a_port() {
        for value in [
            "",
            "a",
            "a:80",
            "a:",
            "a.b-c_d.example",
            "127.0.0.1:8000",
            "[::1]",
            "[::1]:80",
            "[fe80::1%25eth0]",
            "xn--caf-dma",
        ] {
            assert!(is_authority(value.as_bytes()), "{value}");
        }
        for value in [
            "a b",
            "a,b c",
            "a/b",
            "a?b",
            "a#b",
            "u@a",
            "a:b",
            "a:80:80",
            "::1",
            "a:123456",
            "[]",
            "[::1",
            "[::1]x",
            "[a/b]",
            "a\\b",
            "caf\u{e9}",
            "a\tb",
            "<a>",
        ] {
            assert!(!is_authority(value.as_bytes()), "{value}");
        }
    }

    #[test]
    fn a_path_is_decoded_and_its_dot_segments_resolved() {
        for (path, expected) in [
            ("/", &b"/"[..]),
            ("*", b"*"),
            ("/a%20b", b"/a b"),
            ("/caf%C3%A9/%e9", b"/caf\xc3\xa9/\xe9"),
            ("/caf\u{e9}", b"/caf\xc3\xa9"),
            ("/a%2Fb", b"/a/b"),
            ("/a+b", b"/a+b"),
            // Escapes that are none.
            ("/%", b"/%"),
            ("/%4", b"/%4"),
            ("/%zz%41", b"/%zzA"),
            ("/%%41", b"/%A"),
            ("/100%", b"/100%"),
            // Decoded once.
            ("/%2541", b"/%41"),
            // Dots that are names.
            ("/a.b/.c/..d/e../...", b"/a.b/.c/..d/e../..."),
            // Dots that are steps.
            ("/.", b"/"),
            ("/./", b"/"),
            ("/a/.", b"/a/"),
            ("/a/./b", b"/a/b"),
            ("/a/..", b"/"),
            ("/a/../", b"/"),
            ("/a/../b", b"/b"),
            ("/a/b/../../c", b"/c"),
            ("/../../etc/passwd", b"/etc/passwd"),
            ("/a/%2e%2E/b", b"/b"),
            ("/a/..%2f../b", b"/b"),
            ("//a//..//b", b"//a//b"),
        ] {
            assert_eq!(
                decode_path(path.as_bytes(), &mut b"old".to_vec()).escape_ascii().to_string(),
                expected.escape_ascii().to_string(),
                "{path}"
            );
        }
    }

    #[test]
    fn a_plain_path_is_not_copied() {
        let path = b"/static/app.js";
        assert!(std::ptr::eq(decode_path(path, &mut Vec::new()), path));
    }

    proptest! {
        #[test]
        fn no_decoded_path_has_a_dot_segment(path in "/[./a%2eEfF]{0,30}") {
            let mut buf = Vec::new();
            let decoded = decode_path(path.as_bytes(), &mut buf);
            prop_assert_eq!(decoded.first(), Some(&b'/'));
            let dots = decoded.split(|&byte| byte == b'/').any(|segment| segment == b"." || segment == b"..");
            prop_assert!(!dots, "{} -> {}", path, decoded.escape_ascii());
        }

        #[test]
        fn an_escaped_path_reads_back(segments in prop::collection::vec("[^/\0]{0,8}", 1..5)) {
            let plain = segments.iter().map(|segment| format!("/{segment}")).collect::<String>();
            let escaped: String = plain.bytes()
                .map(|byte| if byte == b'/' { "/".into() } else { format!("%{byte:02x}") }).collect();
            prop_assume!(!segments.iter().any(|segment| segment == "." || segment == ".."));
            let mut buf = Vec::new();
            prop_assert_eq!(decode_path(escaped.as_bytes(), &mut buf), plain.as_bytes());
        }
    }
}
