//! The path that an application sees (`PATH_INFO`), and what to do about a path that two programs could read differently.
//!
//! Such a path is dangerous when a proxy reads it in one way and the application in another: the proxy lets
//! `/x/..%2fadmin` pass because it begins with `/x/`, and the application serves `/admin`. Only the person who runs both
//! knows how they read it, so this is an option, [`PathNormalize`].
//!
//! Percent escapes are decoded once. An invalid escape stays as it is under [`PathNormalize::Keep`], as in Python's own
//! `urllib` (uWSGI decodes it to a wrong byte), and is refused under the others.

use serde::{Deserialize, Serialize};

use super::refusal::Refusal;

/// `--path-normalize`: what becomes of dot segments (`/./`, `/../`) and empty segments (`//`), however they are escaped.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum PathNormalize {
    /// Keep them: the path is decoded, and its segments reach the application as they came.
    #[default]
    Keep,
    /// Do what nginx does before it looks for a `location` (`merge_slashes on`): resolve dot segments and drop empty
    /// segments in the decoded path. A path that leads above the root is refused, and so is an invalid escape.
    Nginx,
    /// Refuse them, and whatever else a proxy may read differently: an escaped slash, a backslash, an invalid escape.
    Reject,
}

const ABOVE_ROOT: Refusal = Refusal::bad("the path leads above its root (path-normalize)");
const BAD_ESCAPE: Refusal = Refusal::bad("the path has an invalid percent escape (path-normalize)");
const NUL: Refusal = Refusal::bad("the path has a NUL (path-normalize)");
const RELATIVE: Refusal =
    Refusal::bad("the path has dot or empty segments and no slash at its beginning (path-normalize)");
const DOT_SEGMENT: Refusal = Refusal::bad("the path has a dot segment (path-normalize)");
const EMPTY_SEGMENT: Refusal = Refusal::bad("the path has an empty segment (path-normalize)");
const ESCAPED_SLASH: Refusal = Refusal::bad("the path has an escaped slash (path-normalize)");
const BACKSLASH: Refusal = Refusal::bad("the path has a backslash (path-normalize)");

/// The path with its percent escapes decoded: `path` itself when it has none, else in `buf`, whose contents are replaced.
#[must_use]
pub fn decode<'a>(path: &'a [u8], buf: &'a mut Vec<u8>) -> &'a [u8] {
    if !path.contains(&b'%') {
        return path;
    }
    buf.clear();
    percent_decode(path, buf);
    buf
}

/// What an application sees of the path of a request target. `path` is escaped, as [`super::target::split`] returns it.
///
/// # Errors
/// The [`Refusal`] to answer the client with; never under [`PathNormalize::Keep`].
pub fn of_target<'a>(how: PathNormalize, path: &'a [u8], buf: &'a mut Vec<u8>) -> Result<&'a [u8], Refusal> {
    if how == PathNormalize::Keep {
        return Ok(decode(path, buf));
    }
    if is_plain(path) {
        return Ok(path);
    }
    if how == PathNormalize::Reject && path.windows(3).any(|three| three.eq_ignore_ascii_case(b"%2f")) {
        return Err(ESCAPED_SLASH);
    }
    buf.clear();
    if !percent_decode(path, buf) {
        return Err(BAD_ESCAPE);
    }
    settle(how, buf)?;
    Ok(buf)
}

/// What an application sees of a path that a proxy has decoded: `PATH_INFO` of a uwsgi packet. Which slashes were escaped
/// is no longer known.
///
/// # Errors
/// As [`of_target`].
pub fn of_packet<'a>(how: PathNormalize, path: &'a [u8], buf: &'a mut Vec<u8>) -> Result<&'a [u8], Refusal> {
    // A percent sign begins no escape here.
    if how == PathNormalize::Keep || is_plain(path) {
        return Ok(path);
    }
    buf.clear();
    buf.extend_from_slice(path);
    settle(how, buf)?;
    Ok(buf)
}

/// Checks whether the path of a request target is served.
///
/// # Errors
/// As [`of_target`].
pub fn check(how: PathNormalize, target: &str) -> Result<(), Refusal> {
    match how {
        PathNormalize::Keep => Ok(()),
        _ => of_target(how, super::target::split(target).path.as_bytes(), &mut Vec::new()).map(drop),
    }
}

/// Whether the path is the same under every [`PathNormalize`]. Most are.
fn is_plain(path: &[u8]) -> bool {
    // A segment begins after a slash, and at the beginning of a path that begins without one.
    let mut before = if path.starts_with(b"/") { 0 } else { b'/' };
    path.iter().all(|&byte| {
        let begins_segment = before == b'/';
        before = byte;
        match byte {
            b'%' | b'\\' | 0 => false,
            b'/' | b'.' => !begins_segment,
            _ => true,
        }
    })
}

fn settle(how: PathNormalize, path: &mut Vec<u8>) -> Result<(), Refusal> {
    if path.contains(&0) {
        return Err(NUL);
    }
    match how {
        PathNormalize::Keep => Ok(()),
        PathNormalize::Nginx if path.starts_with(b"/") => resolve(path),
        PathNormalize::Nginx if segments(path).any(is_special) => Err(RELATIVE),
        PathNormalize::Nginx => Ok(()),
        PathNormalize::Reject if path.contains(&b'\\') => Err(BACKSLASH),
        PathNormalize::Reject => match segments(path).find(|segment| is_special(segment)) {
            None => Ok(()),
            Some(b"") => Err(EMPTY_SEGMENT),
            Some(_) => Err(DOT_SEGMENT),
        },
    }
}

/// The segments without the empty ones before the first slash and after the last, which every path may have.
fn segments(path: &[u8]) -> impl Iterator<Item = &[u8]> {
    let path = path.strip_prefix(b"/").unwrap_or(path);
    let path = path.strip_suffix(b"/").filter(|path| !path.is_empty()).unwrap_or(path);
    path.split(|&byte| byte == b'/').skip(usize::from(path.is_empty()))
}

fn is_special(segment: &[u8]) -> bool {
    matches!(segment, b"" | b"." | b"..")
}

/// Drops empty segments and resolves dot segments, in place, in a path that begins with a slash.
fn resolve(path: &mut Vec<u8>) -> Result<(), Refusal> {
    // path[..written] is resolved and ends in no slash, and path[read] is the slash before the next segment.
    // written <= read.
    let (mut read, mut written) = (0, 0);
    while read < path.len() {
        let end = path[read + 1..].iter().position(|&byte| byte == b'/').map_or(path.len(), |at| read + 1 + at);
        let segment = &path[read + 1..end];
        if is_special(segment) {
            if segment == b".." {
                written = path[..written].iter().rposition(|&byte| byte == b'/').ok_or(ABOVE_ROOT)?;
            }
            if end == path.len() {
                path[written] = b'/';
                written += 1;
            }
        } else {
            path.copy_within(read..end, written);
            written += end - read;
        }
        read = end;
    }
    path.truncate(written);
    Ok(())
}

/// Appends `raw` to `out` with its percent escapes decoded; an invalid escape stays as it is. Returns whether all were
/// valid.
fn percent_decode(mut raw: &[u8], out: &mut Vec<u8>) -> bool {
    let mut all_valid = true;
    out.reserve(raw.len());
    while let Some(at) = raw.iter().position(|&byte| byte == b'%') {
        out.extend_from_slice(&raw[..at]);
        raw = &raw[at..];
        let decoded = match *raw {
            [_, high, low, ..] => hex(high).zip(hex(low)).map(|(high, low)| high << 4 | low),
            _ => None,
        };
        all_valid &= decoded.is_some();
        out.push(decoded.unwrap_or(b'%'));
        raw = &raw[if decoded.is_some() { 3 } else { 1 }..];
    }
    out.extend_from_slice(raw);
    all_valid
}

fn hex(digit: u8) -> Option<u8> {
    char::from(digit).to_digit(16).and_then(|digit| u8::try_from(digit).ok())
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    const EVERY: [PathNormalize; 3] = [PathNormalize::Keep, PathNormalize::Nginx, PathNormalize::Reject];

    fn shown(how: PathNormalize, path: &str) -> String {
        match of_target(how, path.as_bytes(), &mut b"old".to_vec()) {
            Ok(path) => path.escape_ascii().to_string(),
            Err(refusal) => refusal.status.to_string(),
        }
    }

    #[test]
    fn a_path_is_decoded_and_normalised_as_asked_for() {
        for (path, keep, nginx, reject) in [
            ("/", "/", "/", "/"),
            ("*", "*", "*", "*"),
            ("/a%20b", "/a b", "/a b", "/a b"),
            ("/caf%C3%A9/%e9", "/caf\\xc3\\xa9/\\xe9", "/caf\\xc3\\xa9/\\xe9", "/caf\\xc3\\xa9/\\xe9"),
            ("/caf\u{e9}", "/caf\\xc3\\xa9", "/caf\\xc3\\xa9", "/caf\\xc3\\xa9"),
            ("/a%2Fb", "/a/b", "/a/b", "400"),
            ("/a+b", "/a+b", "/a+b", "/a+b"),
            // Escapes that are none.
            ("/%", "/%", "400", "400"),
            ("/%4", "/%4", "400", "400"),
            ("/%zz%41", "/%zzA", "400", "400"),
            ("/%%41", "/%A", "400", "400"),
            // Decoded once.
            ("/%2541", "/%41", "/%41", "/%41"),
            ("/%252e%252e/a", "/%2e%2e/a", "/%2e%2e/a", "/%2e%2e/a"),
            // Dots that are names.
            ("/a.b/.c/..d/e../...", "/a.b/.c/..d/e../...", "/a.b/.c/..d/e../...", "/a.b/.c/..d/e../..."),
            // Dots that are steps.
            ("/.", "/.", "/", "400"),
            ("/a/.", "/a/.", "/a/", "400"),
            ("/a/./b", "/a/./b", "/a/b", "400"),
            ("/a/..", "/a/..", "/", "400"),
            ("/a/../b", "/a/../b", "/b", "400"),
            ("/a/%2e%2E/b", "/a/../b", "/b", "400"),
            ("/..", "/..", "400", "400"),
            ("/x/%2e%2e/..%2fadmin", "/x/../../admin", "400", "400"),
            ("/x/y/%2e%2e/..%2fadmin", "/x/y/../../admin", "/admin", "400"),
            // Empty segments.
            ("/a/", "/a/", "/a/", "/a/"),
            ("//", "//", "/", "400"),
            ("//a", "//a", "/a", "400"),
            ("/a//", "/a//", "/a/", "400"),
            ("/a//../b", "/a//../b", "/b", "400"),
            ("/a/b//..//c", "/a/b//..//c", "/a/c", "400"),
            // Another separator to some.
            ("/a\\..\\b", "/a\\\\..\\\\b", "/a\\\\..\\\\b", "400"),
            ("/a%5cb", "/a\\\\b", "/a\\\\b", "400"),
        ] {
            assert_eq!(EVERY.map(|how| shown(how, path)), [keep, nginx, reject], "{path}");
        }
    }

    #[test]
    fn a_path_of_a_packet_is_not_decoded_again() {
        for (path, nginx, reject) in [
            (&b""[..], Some(&b""[..]), true),
            (b"*", Some(b"*"), true),
            (b"a/b", Some(b"a/b"), true),
            (b"/a%2e%zz", Some(b"/a%2e%zz"), true),
            (b"/a/../b", Some(b"/b"), false),
            (b"/a//b", Some(b"/a/b"), false),
            (b"/a/%/../b", Some(b"/a/b"), false),
            (b"/../b", None, false),
            (b"../b", None, false),
            (b"a/../b", None, false),
            (b"/a\0b", None, false),
            (b"a\\b", Some(b"a\\b"), false),
        ] {
            let mut buf = Vec::new();
            assert_eq!(of_packet(PathNormalize::Keep, path, &mut buf).ok(), Some(path));
            assert_eq!(of_packet(PathNormalize::Nginx, path, &mut buf).ok(), nginx, "{}", path.escape_ascii());
            let passed = of_packet(PathNormalize::Reject, path, &mut buf).ok();
            assert_eq!(passed, reject.then_some(path), "{}", path.escape_ascii());
        }
    }

    #[test]
    fn a_plain_path_is_not_copied() {
        let path = b"/static/app.js";
        for how in EVERY {
            assert!(std::ptr::eq(of_target(how, path, &mut Vec::new()).unwrap(), path));
        }
    }

    /// Segment by segment, as the documentation of nginx has it.
    fn model(decoded: &[u8]) -> Option<Vec<u8>> {
        let mut kept: Vec<&[u8]> = Vec::new();
        let mut is_directory = false;
        for segment in decoded[1..].split(|&byte| byte == b'/') {
            is_directory = is_special(segment);
            match segment {
                b"" | b"." => {}
                b".." => drop(kept.pop()?),
                name => kept.push(name),
            }
        }
        let slash = if is_directory && !kept.is_empty() { "/" } else { "" };
        Some([b"/", &kept.join(&b'/')[..], slash.as_bytes()].concat())
    }

    proptest! {
        #[test]
        fn any_path_is_resolved_as_the_model_does(path in "/([./a]|%2e|%2F|%41){0,30}") {
            let mut decoded = Vec::new();
            prop_assert!(percent_decode(path.as_bytes(), &mut decoded));
            let mut buf = Vec::new();
            let resolved = of_target(PathNormalize::Nginx, path.as_bytes(), &mut buf).ok().map(<[u8]>::to_vec);
            prop_assert_eq!(&resolved, &model(&decoded), "{}", path);
            let again = of_packet(PathNormalize::Nginx, &decoded, &mut buf).ok();
            prop_assert_eq!(again, resolved.as_deref());
        }

        #[test]
        fn what_is_not_refused_is_read_alike_by_all(path in "/([./a\\\\%]|%2e|%2F|%5c|%41|%25){0,20}") {
            let mut buf = Vec::new();
            if let Ok(passed) = of_target(PathNormalize::Reject, path.as_bytes(), &mut buf) {
                for how in [PathNormalize::Keep, PathNormalize::Nginx] {
                    let mut buf = Vec::new();
                    prop_assert_eq!(of_target(how, path.as_bytes(), &mut buf), Ok(passed));
                }
            }
        }

        #[test]
        fn no_bytes_are_too_strange(path in prop::collection::vec(any::<u8>(), 0..50)) {
            for how in EVERY {
                let _ = of_target(how, &path, &mut Vec::new());
                let _ = of_packet(how, &path, &mut Vec::new());
            }
        }

        #[test]
        fn an_escaped_path_reads_back(segments in prop::collection::vec("[^/\0]{0,8}", 1..5)) {
            let plain = segments.iter().map(|segment| format!("/{segment}")).collect::<String>();
            let escaped: String = plain.bytes()
                .map(|byte| if byte == b'/' { "/".into() } else { format!("%{byte:02x}") }).collect();
            let mut buf = Vec::new();
            prop_assert_eq!(decode(escaped.as_bytes(), &mut buf), plain.as_bytes());
        }
    }
}
