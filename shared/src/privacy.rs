//! What may be shown of a request: one rule for the server's stats, its log and `rtop`.
//!
//! A variable with a secret name is not shown. A URL is shown with the names of its query's arguments, but without their
//! values and without its user and password.

use std::borrow::Cow;

use serde::{Deserialize, Serialize};

/// A variable with one of these in its name is not shown.
const SECRET_WORDS: [&[u8]; 9] =
    [b"TOKEN", b"KEY", b"SECRET", b"CERT", b"PASS", b"AUTH", b"COOKIE", b"SESSION", b"CSRF"];
/// Shown instead of a secret.
const HIDDEN: char = '…';
/// Bytes. Longer text before `=` is not a name, but a value that ends with `=`, as base64 does.
const LONGEST_NAME: usize = 40;

/// Which secrets of requests are shown (`show-request`).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Shown {
    /// Variables with secret names: cookies, authorization, keys.
    pub headers: bool,
    /// Values of the query's arguments, and users and passwords in URLs.
    pub queries: bool,
}

impl Shown {
    /// Everything is shown.
    pub const ALL: Self = Self { headers: true, queries: true };

    /// The values of `show-request`.
    pub const WORDS: [(&str, Self); 3] = [
        ("headers", Self { headers: true, queries: false }),
        ("queries", Self { headers: false, queries: true }),
        ("all", Self::ALL),
    ];

    /// Shows what either of the two shows.
    #[must_use]
    pub fn and(self, other: Self) -> Self {
        Self { headers: self.headers || other.headers, queries: self.queries || other.queries }
    }

    /// A variable of a request as it is shown; `None` when it is not. Names are those of CGI.
    #[must_use]
    pub fn variable<'a>(self, name: &str, value: &'a str) -> Option<Cow<'a, str>> {
        if !self.headers && is_secret(name) {
            return None;
        }
        Some(match Content::of(name) {
            _ if self.queries => Cow::Borrowed(value),
            Content::Query if value.is_empty() => Cow::Borrowed(value),
            Content::Query => Cow::Owned(hide_values(value)),
            Content::Target => hide_in_url(value, true),
            Content::Other => hide_in_url(value, false),
        })
    }

    /// A request target, or a line that ends with one, as it is shown.
    #[must_use]
    pub fn target(self, target: &str) -> Cow<'_, str> {
        if self.queries { Cow::Borrowed(target) } else { hide_in_url(target, true) }
    }

    /// A text that may hold URLs, as it is shown.
    #[must_use]
    pub fn text(self, text: &str) -> Cow<'_, str> {
        if self.queries || !(text.contains('?') || text.contains("//")) {
            return Cow::Borrowed(text);
        }
        let mut shown = String::with_capacity(text.len());
        let ends_url = |character: char| character.is_whitespace() || "\"'`<>".contains(character);
        for piece in text.split_inclusive(ends_url) {
            let url = piece.strip_suffix(ends_url).unwrap_or(piece);
            // Text with `#` or a mail address in it is not a URL yet.
            let is_url = url.contains('?') || url.contains("//");
            shown.push_str(&if is_url { hide_in_url(url, false) } else { Cow::Borrowed(url) });
            shown.push_str(&piece[url.len()..]);
        }
        Cow::Owned(shown)
    }
}

/// What a variable holds.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Content {
    /// A query, without its question mark.
    Query,
    /// A request target, which may be a host alone.
    Target,
    /// Anything; it may be a URL.
    Other,
}

impl Content {
    fn of(name: &str) -> Self {
        let ends_with = |end: &str| {
            let at = name.len().checked_sub(end.len());
            at.is_some_and(|at| name.as_bytes()[at..].eq_ignore_ascii_case(end.as_bytes()))
        };
        match name {
            _ if ends_with("QUERY_STRING") => Self::Query,
            _ if ["REQUEST_URI", "HTTP_HOST"].iter().any(|target| name.eq_ignore_ascii_case(target)) => Self::Target,
            _ => Self::Other,
        }
    }
}

/// Whether a variable's name is one of a secret.
fn is_secret(name: &str) -> bool {
    let name = name.as_bytes();
    (0..name.len()).any(|start| {
        let rest = &name[start..];
        let starts_with = |word: &&[u8]| rest.len() >= word.len() && rest[..word.len()].eq_ignore_ascii_case(word);
        matches!(rest[0].to_ascii_uppercase(), b'T' | b'K' | b'S' | b'C' | b'P' | b'A')
            && SECRET_WORDS.iter().any(starts_with)
    })
}

/// A URL without its secrets. `may_be_host`: text without a scheme and a slash is a host.
fn hide_in_url(url: &str, may_be_host: bool) -> Cow<'_, str> {
    if !(url.contains(['?', '#', '@']) || url.contains("//")) {
        return Cow::Borrowed(url);
    }
    let end = url.find(['?', '#']).unwrap_or(url.len());
    let (mut place, rest) = url.split_at(end);
    let mut shown = String::with_capacity(url.len());
    if may_be_host && !place.contains('/') {
        let host = place.rfind(' ').map_or(0, |blank| blank + 1);
        shown.push_str(&place[..host]);
        place = hide_userinfo(&place[host..], userinfo_end(&place[host..]), &mut shown);
    }
    // A value may hold several URLs.
    while let Some(slashes) = place.find("//") {
        let (before, behind) = place.split_at(slashes + 2);
        shown.push_str(before);
        let end = userinfo_end(behind);
        let end = if before.ends_with("://") { end.or_else(|| password_end(behind, rest)) } else { end };
        place = hide_userinfo(behind, end, &mut shown);
    }
    shown.push_str(place);
    let (query, fragment) = rest.split_once('#').map_or((rest, None), |(query, fragment)| (query, Some(fragment)));
    if let Some(query) = query.strip_prefix('?') {
        shown.push('?');
        shown.push_str(&hide_values(query));
    }
    if let Some(fragment) = fragment {
        shown.push('#');
        shown.extend((!fragment.is_empty()).then_some(HIDDEN));
    }
    Cow::Owned(shown)
}

/// Adds [`HIDDEN`] for a user and a password that end at `end`, and returns the text behind them.
fn hide_userinfo<'a>(text: &'a str, end: Option<usize>, shown: &mut String) -> &'a str {
    shown.extend(end.map(|_| HIDDEN));
    &text[end.unwrap_or(0)..]
}

/// The position of `@` in an authority and what follows it.
fn userinfo_end(authority: &str) -> Option<usize> {
    authority[..authority.find('/').unwrap_or(authority.len())].rfind('@')
}

/// The end of a user and password when the password holds a character that ends an authority, or when the text is cut off
/// in it. A URL may not have such a password, but database URLs do. `rest` is the text behind the path.
fn password_end(place: &str, rest: &str) -> Option<usize> {
    let authority = &place[..place.find('/').unwrap_or(place.len())];
    let (_, port) = authority.split_once(':').filter(|_| !authority.starts_with('['))?;
    let goes_on = authority.len() == place.len() && rest.contains('@');
    let is_password = goes_on || !port.bytes().all(|byte| byte.is_ascii_digit());
    is_password.then(|| place.rfind('@').unwrap_or(authority.len()))
}

/// The arguments of a query without their values. An argument without `=` may be a value, and is not shown.
fn hide_values(query: &str) -> String {
    let mut shown = String::with_capacity(query.len());
    for (place, argument) in query.split('&').enumerate() {
        if place > 0 {
            shown.push('&');
        }
        match argument.split_once('=') {
            Some((name, _)) if name.len() <= LONGEST_NAME => {
                shown.push_str(name);
                shown.push('=');
                shown.push(HIDDEN);
            }
            None if argument.is_empty() => {}
            _ => shown.push(HIDDEN),
        }
    }
    shown
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    const NOTHING: Shown = Shown { headers: false, queries: false };

    #[test]
    fn variables_with_secret_names_are_not_shown() {
        for name in [
            "HTTP_COOKIE",
            "http_authorization",
            "HTTP_PROXY_AUTHORIZATION",
            "HTTP_X_API_KEY",
            "HTTP_X_CSRF",
            "SSL_CLIENT_CERT",
            "SSL_SESSION_ID",
            "REMOTE_PASSWD",
            "HTTP_X_SECRET",
            "TOKEN",
        ] {
            assert_eq!(NOTHING.variable(name, "x"), None, "{name}");
            assert_eq!(Shown::ALL.variable(name, "x").unwrap(), "x");
        }
        for name in ["REMOTE_USER", "HTTP_HOST", "PATH_INFO", "HTTP_KEEP_ALIVE", "HTTP_ACCEPT", "HTTP_USER_AGENT", ""] {
            assert_eq!(NOTHING.variable(name, "x").unwrap(), "x", "{name}");
        }
    }

    #[test]
    fn of_a_query_the_names_are_shown() {
        for (name, value, shown) in [
            ("QUERY_STRING", "a=1&b=%20&c", "a=…&b=…&…"),
            ("QUERY_STRING", "", ""),
            ("REDIRECT_QUERY_STRING", "a=1=2&&", "a=…&&"),
            ("REQUEST_URI", "/x?a=/y?b=1", "/x?a=…"),
            ("REQUEST_URI", "/x?", "/x?"),
            ("REQUEST_URI", "/x", "/x"),
            ("REQUEST_URI", "/@x/a@b", "/@x/a@b"),
            ("REQUEST_URI", "http://u:p@host:1/x?a=b#c", "http://…@host:1/x?a=…#…"),
            ("REQUEST_URI", "u:p@host:443", "…@host:443"),
            ("HTTP_HOST", "u:p@host", "…@host"),
            ("HTTP_REFERER", "https://a@host/x@y?code=1", "https://…@host/x@y?code=…"),
            ("HTTP_X_ORIGINAL_URI", "/x?a=b", "/x?a=…"),
            ("REMOTE_USER", "bob@example.org", "bob@example.org"),
            ("PATH_INFO", "/x?a=b", "/x?a=…"),
            ("PATH_INFO", "/x y?a b=c", "/x y?a b=…"),
            // Names of packets may be spelled otherwise.
            ("query_string", "a=1", "a=…"),
            ("request_uri", "u:p@host:443", "…@host:443"),
            ("HTTP_LINK", "<https://a/x>; a, <https://u:p@b/>", "<https://a/x>; a, <https://…@b/>"),
            ("HTTP_X_URL", "redis://u:p#q@host:1/x", "redis://…#…"),
            ("HTTP_X_URL", "redis://u:p/q@host:1/x", "redis://…@host:1/x"),
            ("HTTP_X_URL", "redis://:1#q@host:1/x", "redis://…#…"),
            ("HTTP_X_URL", "http://[::1]:80/a:b@c", "http://[::1]:80/a:b@c"),
            ("HTTP_X_URL", "http://host:/x", "http://host:/x"),
            ("PATH_INFO", "/a//b:c", "/a//b:c"),
            // Cut.
            ("REQUEST_URI", "http://u:p", "http://…"),
        ] {
            assert_eq!(NOTHING.variable(name, value).unwrap(), shown, "{name}={value}");
        }
        let token = format!("{}=", "A".repeat(43));
        assert_eq!(NOTHING.target(&format!("/x?{token}")), "/x?…");
        assert_eq!(NOTHING.target("GET http://u:p@host/x?a=b"), "GET http://…@host/x?a=…");
        assert_eq!(NOTHING.target("CONNECT u:p@host:1"), "CONNECT …@host:1");
    }

    #[test]
    fn urls_in_a_text_are_shown_without_values() {
        let text = "GET of 'https://u:p@host/x?a=1&b=2' failed (why? bob@example.org knows #12)";
        let shown = "GET of 'https://…@host/x?a=…&b=…' failed (why? bob@example.org knows #12)";
        assert_eq!(NOTHING.text(text), shown);
        assert_eq!(NOTHING.text("back to https://host/x#token=1"), "back to https://host/x#…");
        assert_eq!(
            NOTHING.text("no postgres://u:p#1@host/x, cut: postgres://u:p"),
            "no postgres://…#… cut: postgres://…"
        );
        assert_eq!(Shown::ALL.text(text), text);
    }

    proptest! {
        #[test]
        fn no_value_is_shown_and_what_is_shown_stays(
            arguments in prop::collection::vec(("[a-z]{0,9}", "[0-9=%?/+ ]{0,9}"), 0..5),
            user in prop::option::of("[0-9]{0,5}(:[0-9]{0,5})?"),
        ) {
            let query: Vec<_> = arguments.iter().map(|(name, value)| format!("{name}={value}")).collect();
            let user = user.map_or(String::new(), |user| user + "@");
            let url = format!("http://{user}host/path?{}", query.join("&"));
            let shown = NOTHING.target(&url).into_owned();
            prop_assert!(!shown.contains(|c: char| c.is_ascii_digit()), "{}", shown);
            prop_assert_eq!(NOTHING.target(&shown), shown.as_str());
            prop_assert_eq!(Shown::ALL.target(&url), url.as_str());
        }

        #[test]
        fn any_text_is_taken(name in ".{0,20}", text in ".{0,60}") {
            for shown in [NOTHING, Shown::ALL] {
                let _ = (shown.variable(&name, &text), shown.target(&text), shown.text(&text));
            }
        }
    }
}
