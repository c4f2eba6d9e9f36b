//! Regular expressions over bytes, as PCRE has them: a byte is a character.

use fancy_regex::{BytesMode, Regex, RegexBuilder};

/// The most backtracking steps of a match. Only patterns with look-around or back-references backtrack, on text that a
/// client chooses.
const BACKTRACKS: usize = 200_000;

/// The longest subject, bytes, of a pattern that may look at all of it again from each of its places. A request of uWSGI's
/// is no longer than half of that, unless `buffer-size` says so.
const LONGEST: usize = 8192;

/// What a pattern found: the whole, and the groups; an empty one for a group that took no part.
pub(crate) type Groups = Vec<Vec<u8>>;

/// A compiled pattern.
#[derive(Debug)]
pub(crate) struct Pattern {
    regex: Regex,
    goes_back: bool,
    /// It begins at every place of the subject, and what it looks for there is not known to end soon.
    is_quadratic: bool,
}

/// The match took too many steps, so that nobody knows whether there is one.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Undecided;

impl Pattern {
    /// Compiles a pattern.
    ///
    /// # Errors
    /// What is wrong with it.
    pub(crate) fn new(text: &str) -> Result<Self, String> {
        match RegexBuilder::new(text).bytes_mode(BytesMode::Ascii).backtrack_limit(BACKTRACKS).build() {
            Ok(regex) => {
                let goes_back = regex::bytes::RegexBuilder::new(text).unicode(false).build().is_err();
                Ok(Self { regex, goes_back, is_quadratic: goes_back && !is_anchored(text) })
            }
            Err(error) => Err(format!("a regular expression, and '{text}' is none: {error}")),
        }
    }

    /// Whether it may go back, so that a match may take its time.
    pub(crate) fn goes_back(&self) -> bool {
        self.goes_back
    }

    fn check(&self, subject: &[u8]) -> Result<(), Undecided> {
        if self.is_quadratic && subject.len() > LONGEST { Err(Undecided) } else { Ok(()) }
    }

    /// Whether it is found.
    pub(crate) fn is_in(&self, subject: &[u8]) -> Result<bool, Undecided> {
        self.check(subject)?;
        self.regex.is_match(subject).map_err(|_| Undecided)
    }

    /// What it finds.
    pub(crate) fn find(&self, subject: &[u8]) -> Result<Option<Groups>, Undecided> {
        self.check(subject)?;
        let found = self.regex.captures(subject).map_err(|_| Undecided)?;
        Ok(found.map(|captures| {
            let groups = captures.iter().take(10);
            groups.map(|group| group.map_or_else(Vec::new, |group| subject[group.range()].to_vec())).collect()
        }))
    }
}

/// Whether it is tried at the beginning of the subject alone.
fn is_anchored(text: &str) -> bool {
    let text = ["(?i)", "(?s)"].iter().fold(text, |text, flag| text.strip_prefix(flag).unwrap_or(text));
    text.starts_with('^') && has_one_branch(text)
}

/// Whether no `|` stands outside of parentheses, as far as one can say without reading classes.
fn has_one_branch(text: &str) -> bool {
    let (mut depth, mut is_escaped) = (0_i32, false);
    text.bytes().all(|byte| {
        let counts = !is_escaped;
        is_escaped = counts && byte == b'\\';
        depth += i32::from(counts && byte == b'(') - i32::from(counts && byte == b')');
        byte != b'|' || depth > 0
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn is_in(pattern: &str, subject: &[u8]) -> bool {
        Pattern::new(pattern).unwrap().is_in(subject).unwrap()
    }

    #[test]
    fn patterns_are_as_people_write_them_for_pcre() {
        assert!(is_in("^kube-probe.*", b"kube-probe/1.27"));
        assert!(!is_in("^(?!/api).*$", b"/api/x"));
        assert!(is_in("^(?!/api).*$", b"/"));
        assert!(is_in(r"^\/static\/(.*)\.(css|js)$", b"/static/a.css"));
        assert!(is_in(r"(?i)\.PHP$", b"/index.php"));
        assert!(is_in(r"^/(\w)\1", b"/aab"));
        assert!(is_in(r"^/a++b", b"/aaab"));
        assert!(is_in("caf\u{e9}", "/caf\u{e9}".as_bytes()));
        assert!(is_in("^/.$", b"/\xff"));
        assert!(is_in("", b""));
    }

    #[test]
    fn groups_are_bytes_and_missing_ones_are_empty() {
        let pattern = Pattern::new("^/(.*)/(x)?(y)").unwrap();
        let groups = pattern.find("/caf\u{e9}\u{2014}/y".as_bytes()).unwrap().unwrap();
        assert_eq!(groups[1], "caf\u{e9}\u{2014}".as_bytes());
        assert_eq!(groups[2], b"");
        assert_eq!(groups[3], b"y");
        assert_eq!(pattern.find(b"/"), Ok(None));
    }

    #[test]
    fn a_pattern_that_explodes_is_given_up_and_not_taken_for_a_miss() {
        let pattern = Pattern::new("^(?=(a+)+$)(b)?").unwrap();
        let subject = [vec![b'a'; 60], vec![b'!']].concat();
        assert!(matches!(pattern.is_in(&subject), Ok(false) | Err(Undecided)));
        let pattern = Pattern::new(r"^(a|aa|\1)+$").unwrap();
        assert_eq!(pattern.is_in(&subject), Err(Undecided));
    }

    #[test]
    fn a_pattern_that_looks_ahead_from_every_place_takes_no_long_subject() {
        let long = vec![b'a'; 60_000];
        for pattern in [r"(?=.*x).*y", r"(?!.*(php|asp)$).*b", r"(\w+)-\1", r"^b|(?=.*x)y"] {
            let pattern = Pattern::new(pattern).unwrap();
            assert_eq!(pattern.is_in(&long), Err(Undecided));
            assert_eq!(pattern.find(&long), Err(Undecided));
            assert_eq!(pattern.is_in(b"aa"), Ok(false));
        }
        for (pattern, found) in [(r"^(?!/api|/static).*$", true), (r"(?i)^(?!A).*$", false), (r"^(a|b)*c", false)] {
            assert_eq!(Pattern::new(pattern).unwrap().is_in(&long), Ok(found), "{pattern}");
        }
    }

    #[test]
    fn what_is_no_pattern_says_so() {
        assert!(Pattern::new("(").unwrap_err().starts_with("a regular expression, and '(' is none: "));
    }
}
