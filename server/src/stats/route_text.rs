//! The pattern of a path: `{}` in the place of its variable parts, so that requests for the same thing of different
//! users, orders and files are of one route. The form of each segment decides, without decoding, because nothing is
//! known of the application. What looks like a number, a token or a long text never stays in a pattern, so that no
//! secret of a path is shown. The pattern of a pattern is the same pattern.

/// The longest text of a route, bytes.
pub const ROUTE_MAX: usize = 120;
/// Segments that are told apart; `…` stands for all that follow.
const SEGMENTS: usize = 10;
/// A longer segment is variable, whatever it looks like.
const SEGMENT_MAX: usize = 31;
/// What stands for the rest of a path.
const REST: &[u8] = "/…".as_bytes();

/// The text of a route: UTF-8 without control characters, at most [`ROUTE_MAX`] bytes.
#[derive(Clone, Copy)]
pub struct RouteText {
    len: usize,
    bytes: [u8; ROUTE_MAX],
}

impl RouteText {
    const EMPTY: Self = Self { len: 0, bytes: [0; ROUTE_MAX] };

    /// A name that the application gave, as far as there is space for it; `None` for an empty one.
    #[must_use]
    pub fn named(name: &[u8]) -> Option<Self> {
        let mut text = Self::EMPTY;
        for character in String::from_utf8_lossy(name).trim().chars() {
            let character = if character.is_control() { ' ' } else { character };
            if !text.push(character.encode_utf8(&mut [0; 4]).as_bytes(), 0) {
                break;
            }
        }
        (text.len > 0).then_some(text)
    }

    /// The pattern of a request target, or of a path. Its query is never in it.
    #[must_use]
    pub fn pattern_of(target: &[u8]) -> Self {
        let mut text = Self::EMPTY;
        let mut rest = if let Some(b'/') = target.first() { target } else { after_authority(target) };
        for nth in 0.. {
            let segment = Segment::first_of(rest);
            // Before the first slash there is nothing but in targets like `*`.
            let slash: &[u8] = if nth == 0 { b"" } else { b"/" };
            if nth > SEGMENTS || segment.text == &REST[1..] || !text.push_segment(slash, &segment) {
                // There is always space for it.
                text.push(REST, 0);
                break;
            }
            match rest.get(segment.end) {
                Some(b'/') => rest = &rest[segment.end + 1..],
                _ => break,
            }
        }
        if text.len == 0 {
            text.push(b"/", 0);
        }
        text
    }

    /// The text.
    #[must_use]
    #[inline]
    pub fn as_bytes(&self) -> &[u8] {
        &self.bytes[..self.len]
    }

    /// The text.
    #[must_use]
    pub fn as_str(&self) -> &str {
        // Made of whole characters.
        str::from_utf8(self.as_bytes()).unwrap_or_default()
    }

    /// Adds bytes, if `spare` bytes are left after them.
    fn push(&mut self, bytes: &[u8], spare: usize) -> bool {
        let Some(space) = self.bytes.get_mut(self.len..self.len + bytes.len()) else { return false };
        if self.len + bytes.len() + spare > ROUTE_MAX {
            return false;
        }
        space.copy_from_slice(bytes);
        self.len += bytes.len();
        true
    }

    /// Adds a segment, if the mark for the rest still has space after it.
    fn push_segment(&mut self, slash: &[u8], segment: &Segment<'_>) -> bool {
        let (stem, extension): (&[u8], &[u8]) = match segment.is_variable {
            true => (b"{}", &segment.text[segment.stem..]),
            false => (segment.text, b""),
        };
        let before = self.len;
        let fits = [slash, stem, extension].into_iter().all(|part| self.push(part, REST.len()));
        if !fits {
            self.len = before;
        }
        fits
    }
}

/// Of a target such as `http://host/path`, what follows the host.
#[cold]
fn after_authority(target: &[u8]) -> &[u8] {
    let Some(scheme) = target.windows(3).position(|three| three == b"://") else { return target };
    let rest = &target[scheme + 3..];
    &rest[rest.iter().position(|byte| matches!(byte, b'/' | b'?' | b'#')).unwrap_or(rest.len())..]
}

/// What a byte is in a segment.
const END: u8 = 1;
const SEPARATOR: u8 = 2;
const PARAMETERS: u8 = 3;
const OTHER: u8 = 4;

/// For letters and digits 0, for others what they are. `@` of an address or a user, `~` of a user, `=` of a parameter, `%` of
/// whatever is escaped belong to names of things.
static KINDS: [u8; 256] = {
    let mut kinds = [OTHER; 256];
    let mut byte = 0;
    while byte < 256 {
        kinds[byte] = match byte as u8 {
            b'0'..=b'9' | b'a'..=b'z' | b'A'..=b'Z' => 0,
            b'/' | b'?' | b'#' => END,
            b';' => PARAMETERS,
            b'-' | b'_' | b'.' | b'+' | b',' | b':' | b'!' | b'(' | b')' | b'*' | b'$' | b'\'' => SEPARATOR,
            _ => OTHER,
        };
        byte += 1;
    }
    kinds
};

/// What a letter or digit adds to the counts of a [`Run`], a byte for each of them.
static WEIGHTS: [u32; 256] = {
    let mut weights = [0; 256];
    let mut byte = 0;
    while byte < 256 {
        weights[byte] = match byte as u8 {
            b'0'..=b'9' => 1,
            b'a'..=b'f' => 1 << 8,
            b'A'..=b'F' => 1 << 16,
            b'g'..=b'z' => 1 << 8 | 1 << 24,
            b'G'..=b'Z' => 1 << 16 | 1 << 24,
            _ => 0,
        };
        byte += 1;
    }
    weights
};

/// What stands between two slashes.
struct Segment<'b> {
    /// Without matrix parameters (`;jsessionid=…`), which are a query of another kind.
    text: &'b [u8],
    /// How long it is without what looks like a file name's end.
    stem: usize,
    /// Where it ends in what it was taken from, with all that belongs to it.
    end: usize,
    is_variable: bool,
}

impl<'b> Segment<'b> {
    /// The one at the beginning of a path.
    fn first_of(path: &'b [u8]) -> Self {
        let (mut word, mut run, mut at) = (Word::default(), Run::default(), 0);
        // Where the last dot is, and what was known there.
        let mut dot = (0, word);
        let kind = loop {
            let Some(byte) = path.get(at) else { break END };
            let kind = KINDS[usize::from(*byte)];
            if kind == 0 {
                run.counts = run.counts.wrapping_add(WEIGHTS[usize::from(*byte)]);
            } else if kind == SEPARATOR {
                word.add(run, path, at);
                run = Run { counts: 0, start: at + 1 };
                if *byte == b'.' {
                    dot = (at, word);
                }
            } else if kind == OTHER {
                word.is_variable = true;
                word.is_address |= *byte == b'@';
                run = Run { counts: 0, start: at + 1 };
            } else {
                break kind;
            }
            at += 1;
        };
        let text = &path[..at];
        let end = match kind {
            PARAMETERS => path.iter().position(|byte| matches!(byte, b'/' | b'?' | b'#')).unwrap_or(path.len()),
            _ => at,
        };
        // The end of an address is none of a file.
        let has_extension = dot.0 > 0 && is_extension(&text[dot.0..]) && !dot.1.is_address;
        let (stem, word) = if has_extension {
            dot
        } else {
            word.add(run, path, at);
            (at, word)
        };
        let is_variable = stem > SEGMENT_MAX || (word.is_named_by_data() && !is_version(&text[..stem]));
        Self { text, stem, end, is_variable }
    }
}

/// A file name's end, with its dot.
fn is_extension(end: &[u8]) -> bool {
    (2..=6).contains(&end.len())
        && end[1].is_ascii_lowercase()
        && end[1..].iter().all(|byte| byte.is_ascii_lowercase() || byte.is_ascii_digit())
        && end.iter().filter(|byte| byte.is_ascii_digit()).count() <= 1
}

/// Runs between separators.
#[derive(Clone, Copy, Default)]
struct Word {
    runs: u32,
    with_digits: u32,
    is_variable: bool,
    is_address: bool,
}

impl Word {
    #[inline]
    fn add(&mut self, run: Run, path: &[u8], end: usize) {
        if run.counts != 0 {
            self.runs += 1;
            self.with_digits += u32::from(run.digits() > 0);
            self.is_variable |= run.is_variable(path, end);
        }
    }

    /// `terms-and-conditions` is a route, `how-to-name-all-things` a title.
    fn is_named_by_data(self) -> bool {
        self.is_variable || self.runs > 4 || self.with_digits > 1
    }
}

/// Letters and digits in a row. Its counts are those of at most [`SEGMENT_MAX`] bytes: a longer segment is variable anyway.
#[derive(Clone, Copy, Default)]
struct Run {
    /// A byte each: digits, small letters, large ones, letters beyond `f`.
    counts: u32,
    start: usize,
}

impl Run {
    fn digits(self) -> u32 {
        self.counts & 0xff
    }

    /// Whether it is no word that a programmer would write in a route.
    #[inline]
    fn is_variable(self, path: &[u8], end: usize) -> bool {
        let [digits, lower, upper, beyond_hex] = self.counts.to_le_bytes().map(u32::from);
        let (letters, len) = (lower + upper, digits + lower + upper);
        letters == 0
            // `oauth2`, `i18n` and `v1` are words.
            || digits > 2
            || (digits > 0 && (len > 7 || (lower > 0 && upper > 0 && !is_capitalized(&path[self.start..end]))))
            || len > 23
            || (beyond_hex == 0 && len > 7)
            // Unlike `getUserById`, base64 has as many letters of one case as of the other.
            || (len > 15 && upper * 10 >= len * 3 && lower * 10 >= len * 3)
    }
}

/// The first letter alone is a large one.
#[cold]
fn is_capitalized(run: &[u8]) -> bool {
    run.iter().position(u8::is_ascii_uppercase) == Some(0) && !run[1..].iter().any(u8::is_ascii_uppercase)
}

/// `v2`, `v1.1`.
fn is_version(stem: &[u8]) -> bool {
    let [b'v' | b'V', first, rest @ ..] = stem else { return false };
    first.is_ascii_digit() && rest.len() < 5 && rest.iter().all(|byte| byte.is_ascii_digit() || *byte == b'.')
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn pattern(target: &str) -> String {
        RouteText::pattern_of(target.as_bytes()).as_str().to_owned()
    }

    #[test]
    fn paths_of_real_applications_become_patterns() {
        for (target, expected) in [
            ("/", "/"),
            ("", "/"),
            ("*", "*"),
            ("/users/42/orders", "/users/{}/orders"),
            ("/users/42/orders/", "/users/{}/orders/"),
            ("/users/42?token=abc", "/users/{}"),
            ("/search?q=/a/b", "/search"),
            ("http://example.com/users/7", "/users/{}"),
            ("http://example.com?x=1", "/"),
            ("/users/42.json", "/users/{}.json"),
            ("/users/me", "/users/me"),
            ("/api/v1/items/9", "/api/v1/items/{}"),
            ("/api/v1.1/items", "/api/v1.1/items"),
            ("/oauth2/token", "/oauth2/token"),
            ("/i18n/setlang/", "/i18n/setlang/"),
            ("/accounts/2fa/verify", "/accounts/2fa/verify"),
            ("/o/3fa85f64-5717-4562-b3fc-2c963f66afa6/edit", "/o/{}/edit"),
            ("/blob/d41d8cd98f00b204e9800998ecf8427e", "/blob/{}"),
            ("/commit/deadbeef", "/commit/{}"),
            ("/archive/2024-05-17/", "/archive/{}/"),
            ("/archive/2024/05/17/", "/archive/{}/{}/{}/"),
            ("/reset/MQ/c9h2pl-4fd1cd9d5c8b1ae1/", "/reset/MQ/{}/"),
            ("/verify/eyJhbGciOiJIUzI1NiIsInR5cCI6IkpXVCJ9", "/verify/{}"),
            ("/t/QmFzZVNpeHR5Rm91clRleHQ", "/t/{}"),
            ("/t/AbCdEfGhIjKlMnOpQr", "/t/{}"),
            ("/u/someone@example.com/mail", "/u/{}/mail"),
            ("/@someone/status", "/{}/status"),
            ("/~someone/", "/{}/"),
            ("/watch/dQw4w9WgXcQ", "/watch/{}"),
            ("/blog/how-to-name-all-things", "/blog/{}"),
            ("/terms-and-conditions", "/terms-and-conditions"),
            ("/static/app.3f9a8b7c.js", "/static/{}.js"),
            ("/static/css/main.css", "/static/css/main.css"),
            ("/apple-touch-icon-120x120.png", "/{}.png"),
            ("/.well-known/security.txt", "/.well-known/security.txt"),
            ("/.env", "/.env"),
            ("/wp-login.php", "/wp-login.php"),
            ("/wiki/Caf%C3%A9", "/wiki/{}"),
            ("/login;jsessionid=1A2B3C", "/login"),
            ("/odata/Users(42)", "/odata/{}"),
            ("/geo/48.2082,16.3738", "/geo/{}"),
            ("/v1/models/gemini:predict", "/v1/models/gemini:predict"),
            ("/api/getUserById/3", "/api/getUserById/{}"),
            ("/pneumonoultramicroscopicsilicovolcanoconiosis", "/{}"),
            ("//double//slash", "//double//slash"),
            ("/a/b/c/d/e/f/g/h/i/j/k/l", "/a/b/c/d/e/f/g/h/i/j/…"),
        ] {
            assert_eq!(pattern(target), expected, "{target}");
        }
    }

    #[test]
    fn names_are_cut_between_characters_and_have_no_control_characters() {
        let named = |name: &str| RouteText::named(name.as_bytes()).map(|text| text.as_str().to_owned());
        assert_eq!(named(" orders.views\n.export "), Some("orders.views .export".into()));
        assert_eq!(named(" \t "), None);
        assert_eq!(named(&"ä".repeat(70)), Some("ä".repeat(60)));
        assert_eq!(named(&("x".to_owned() + &"ä".repeat(70))), Some("x".to_owned() + &"ä".repeat(59)));
        assert_eq!(RouteText::named(b"\xff").unwrap().as_str(), "\u{fffd}");
    }

    fn targets() -> impl Strategy<Value = Vec<u8>> {
        let segment = prop_oneof![
            "[a-z]{0,12}",
            "[a-zA-Z0-9_.;{}-]{0,40}",
            "[0-9]{1,9}",
            "(\\{\\}|…|\\{\\}\\.json|v1\\.2)",
            "\\PC{0,8}"
        ];
        let segments = prop::collection::vec(segment, 0..16);
        prop_oneof![
            segments.prop_map(|segments| format!("/{}", segments.join("/")).into_bytes()),
            prop::collection::vec(any::<u8>(), 0..300)
        ]
    }

    proptest! {
        #[test]
        fn a_pattern_is_bounded_and_its_pattern_is_itself(target in targets()) {
            let once = RouteText::pattern_of(&target);
            prop_assert!(!once.as_str().is_empty() && once.as_bytes().len() <= ROUTE_MAX);
            prop_assert!(!once.as_str().contains(char::is_control));
            let twice = RouteText::pattern_of(once.as_bytes());
            prop_assert_eq!(once.as_str(), twice.as_str());
        }

        // `v2024` is a version, and stays.
        #[test]
        fn no_token_survives(token in "[a-zA-Z0-9_-]{32,80}", digits in "[a-uw-z]{0,4}[0-9]{3,20}[a-zA-Z0-9]{0,20}") {
            for secret in [token, digits] {
                for target in [format!("/a/{secret}"), format!("/{secret}/b?x"), format!("/reset/{secret}.json")] {
                    let text = pattern(&target);
                    prop_assert!(!text.contains(&secret), "{}", text);
                }
            }
        }

        #[test]
        fn a_uuid_a_hash_or_an_address_never_survives(
            uuid in "[0-9a-f]{8}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{12}",
            hash in "[0-9a-f]{8,64}",
            address in "[a-z.]{1,20}@[a-z]{1,10}\\.[a-z]{2,3}",
        ) {
            prop_assert_eq!(pattern(&format!("/x/{uuid}/y")), "/x/{}/y");
            prop_assert_eq!(pattern(&format!("/x/{hash}")), "/x/{}");
            let text = pattern(&format!("/x/{address}"));
            prop_assert!(!text.contains('@'), "{}", text);
        }

        #[test]
        fn any_name_is_a_bounded_text_or_none(name in prop::collection::vec(any::<u8>(), 0..300)) {
            if let Some(text) = RouteText::named(&name) {
                prop_assert!(!text.as_str().is_empty() && !text.as_str().contains(char::is_control));
            }
        }
    }
}
