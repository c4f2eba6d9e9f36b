//! The pattern of a path: `{}` in the place of its variable parts, so that requests for the same thing of different
//! users, orders and files are of one route. It is decided by the form of each segment alone, without decoding: nothing
//! is known of the application. What looks like a number, a token or a long text never stays in a pattern, so that no
//! secret of a path is shown; and a pattern's pattern is itself.

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
        for (nth, segment) in path_of(target).split(|byte| *byte == b'/').enumerate() {
            // Before the first slash there is nothing but in targets like `*`.
            let slash: &[u8] = if nth == 0 { b"" } else { b"/" };
            let is_rest = segment == &REST[1..] || nth > SEGMENTS;
            if is_rest || !text.push_segment(slash, segment) {
                // There is always space for it.
                text.push(REST, 0);
                break;
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
    fn push_segment(&mut self, slash: &[u8], segment: &[u8]) -> bool {
        // Matrix parameters (`;jsessionid=…`) are a query of another kind.
        let segment = segment.split(|byte| *byte == b';').next().unwrap_or_default();
        let (stem, extension) = split_extension(segment);
        let (stem, extension) = if is_variable(stem) { (&b"{}"[..], extension) } else { (segment, &b""[..]) };
        let before = self.len;
        let fits = [slash, stem, extension].into_iter().all(|part| self.push(part, REST.len()));
        if !fits {
            self.len = before;
        }
        fits
    }
}

/// The path of a request target, still escaped, without the query.
#[must_use]
#[inline]
pub fn path_of(target: &[u8]) -> &[u8] {
    let path = if let Some(b'/') = target.first() { target } else { after_authority(target) };
    let end = path.iter().position(|byte| matches!(byte, b'?' | b'#')).unwrap_or(path.len());
    &path[..end]
}

/// Of a target such as `http://host/path`, what follows the host.
#[cold]
fn after_authority(target: &[u8]) -> &[u8] {
    let Some(scheme) = target.windows(3).position(|three| three == b"://") else { return target };
    let rest = &target[scheme + 3..];
    &rest[rest.iter().position(|byte| matches!(byte, b'/' | b'?' | b'#')).unwrap_or(rest.len())..]
}

/// A segment without what looks like a file name's end, and that, with its dot.
fn split_extension(segment: &[u8]) -> (&[u8], &[u8]) {
    let Some(dot) = segment.iter().rposition(|byte| *byte == b'.').filter(|dot| *dot > 0) else {
        return (segment, b"");
    };
    let (stem, extension) = segment.split_at(dot);
    let is_extension = (2..=6).contains(&extension.len())
        && extension[1].is_ascii_lowercase()
        && extension[1..].iter().all(|byte| byte.is_ascii_lowercase() || byte.is_ascii_digit())
        && extension.iter().filter(|byte| byte.is_ascii_digit()).count() <= 1;
    // The end of an address is none of a file.
    if is_extension && !stem.contains(&b'@') { (stem, extension) } else { (segment, b"") }
}

/// Letters and digits in a row.
#[derive(Default)]
struct Run {
    digits: usize,
    lower: usize,
    upper: usize,
    /// Letters beyond `f`.
    beyond_hex: usize,
    /// The first letter is the only large one so far.
    is_capitalized: bool,
}

impl Run {
    fn add(&mut self, byte: u8) {
        self.is_capitalized =
            if self.len() == 0 { byte.is_ascii_uppercase() } else { self.is_capitalized && !byte.is_ascii_uppercase() };
        match byte {
            b'0'..=b'9' => self.digits += 1,
            b'a'..=b'z' => self.lower += 1,
            _ => self.upper += 1,
        }
        if !byte.is_ascii_hexdigit() {
            self.beyond_hex += 1;
        }
    }

    fn len(&self) -> usize {
        self.digits + self.lower + self.upper
    }

    /// Whether it is no word that a programmer would write in a route.
    fn is_variable(&self) -> bool {
        let (len, letters) = (self.len(), self.lower + self.upper);
        let mixes_cases = self.lower > 0 && self.upper > 0 && !self.is_capitalized;
        letters == 0
            // `oauth2`, `i18n` and `v1` are words.
            || self.digits > 2
            || (self.digits > 0 && (len > 7 || mixes_cases))
            || len > 23
            || (self.beyond_hex == 0 && len > 7)
            // Unlike `getUserById`, base64 has as many letters of one case as of the other.
            || (len > 15 && self.upper * 10 >= len * 3 && self.lower * 10 >= len * 3)
    }
}

fn is_variable(stem: &[u8]) -> bool {
    if stem.len() > SEGMENT_MAX {
        return true;
    }
    if is_version(stem) {
        return false;
    }
    let (mut runs, mut with_digits, mut run) = (0, 0, Run::default());
    for byte in stem.iter().chain(b"-") {
        match byte {
            b'0'..=b'9' | b'a'..=b'z' | b'A'..=b'Z' => run.add(*byte),
            b'-' | b'_' | b'.' | b'+' | b',' | b':' | b'!' | b'(' | b')' | b'*' | b'$' | b'\'' => {
                if run.len() > 0 {
                    if run.is_variable() {
                        return true;
                    }
                    runs += 1;
                    with_digits += usize::from(run.digits > 0);
                    run = Run::default();
                }
            }
            // `@` of an address or a user, `~` of a user, `=` of a parameter, `%` of whatever is escaped: names of things.
            _ => return true,
        }
    }
    // `terms-and-conditions` is a route, `how-to-name-all-things` a title.
    runs > 4 || with_digits > 1
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

        #[test]
        fn no_token_survives(token in "[a-zA-Z0-9_-]{32,80}", digits in "[a-z]{0,4}[0-9]{3,20}[a-zA-Z0-9]{0,20}") {
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
