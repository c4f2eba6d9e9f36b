//! The parts of a request target, and its form.
//!
//! What may stand in a target: visible ASCII but for `#`, and UTF-8. Bytes beyond ASCII are no part of a URI (RFC
//! 3986), but `curl` and others send them as they were typed, and uWSGI, gunicorn and nginx all take them; they reach
//! the application as PEP 3333 wants them, each byte a latin-1 character. Bytes that are no UTF-8 are refused: nothing
//! current sends them. A fragment is never sent by a client that means well,
//! and servers disagree whether the path ends there (uWSGI's does, its query does not), so it is refused.
//!
//! `%00` in a path is refused, as by nginx: no path has one, and everything in C behind us would see a shorter path.
//!
//! Not here: what becomes of the path ([`super::path`]).

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
}
