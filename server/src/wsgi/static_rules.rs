//! What is sent of a static file: which name is none, which compressed version takes its place, how long caches may keep
//! it, and its type (`--static-skip-ext`, `--static-gzip*`, `--static-expires*`, `--mimefile`).

use std::collections::HashMap;
use std::path::Path;

use regex::bytes::{Regex, RegexBuilder};
use tracing::warn;

use rwsgi_config::{Expires, ExpiresOf, ExpiresSince, ServeMode, StaticConfig};

/// A compressed version of a file: its coding, and what its name has more.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Coding {
    pub(super) name: &'static str,
    pub(super) end: &'static str,
}

/// In the order in which they are looked for, as in uWSGI.
const CODINGS: [Coding; 2] = [Coding { name: "br", end: ".br" }, Coding { name: "gzip", end: ".gz" }];

/// What a rule for `Expires` is compared with.
pub(super) struct Answered<'a> {
    pub(super) real: Option<&'a [u8]>,
    pub(super) path_info: &'a [u8],
    pub(super) uri: &'a [u8],
    pub(super) kind: &'a str,
    /// Unix time of the file's last change, seconds.
    pub(super) modified: i64,
    /// Unix time, seconds.
    pub(super) now: i64,
}

/// The rules, ready to be applied.
pub(super) struct Rules {
    pub(super) index: Vec<String>,
    pub(super) serve_mode: ServeMode,
    skip_ext: Vec<String>,
    has_gzip: bool,
    gzip: rwsgi_config::GzipRules,
    gzip_patterns: Vec<Regex>,
    expires: Vec<(Expires, Option<Regex>)>,
    /// The end of a name, and its type.
    types: HashMap<Box<[u8]>, Box<str>>,
}

impl Rules {
    /// Reads the files of `mimefile`; one that cannot be read is a warning, as in uWSGI.
    pub(super) fn new(config: &StaticConfig) -> Self {
        let mut types = HashMap::new();
        for path in &config.mime_files {
            match std::fs::read_to_string(path) {
                Ok(text) => add_types(&mut types, &text),
                Err(error) => warn!("mimefile: cannot read '{}': {error}: no type is taken from it", path.display()),
            }
        }
        let gzip = config.gzip.clone();
        Self {
            index: config.index.clone(),
            serve_mode: config.serve_mode,
            skip_ext: config.skip_ext.clone(),
            has_gzip: gzip.all
                || [&gzip.beginnings, &gzip.ends, &gzip.patterns].into_iter().any(|rules| !rules.is_empty()),
            gzip_patterns: gzip.patterns.iter().filter_map(|pattern| compile(pattern)).collect(),
            gzip,
            expires: in_order(&config.expires),
            types,
        }
    }

    /// Whether a name is never a file's.
    pub(super) fn skips(&self, name: &[u8]) -> bool {
        self.skip_ext.iter().any(|end| name.ends_with(end.as_bytes()))
    }

    /// Whether any rule looks at the real path of a file.
    pub(super) fn need_real_path(&self) -> bool {
        self.has_gzip
            || !self.skip_ext.is_empty()
            || self.serve_mode != ServeMode::Own
            || self.expires.iter().any(|(rule, _)| rule.of == ExpiresOf::File)
    }

    /// Whether a compressed version of this file may be sent instead.
    pub(super) fn compresses(&self, real: &[u8]) -> bool {
        self.has_gzip
            && (self.gzip.all
                || self.gzip.beginnings.iter().any(|beginning| real.starts_with(beginning.as_bytes()))
                || self.gzip.ends.iter().any(|end| real.ends_with(end.as_bytes()))
                || self.gzip_patterns.iter().any(|pattern| pattern.is_match(real)))
    }

    /// The unix time until which caches may keep the file, seconds.
    pub(super) fn expires(&self, of: &Answered<'_>) -> Option<i64> {
        let (rule, _) = self.expires.iter().find(|(rule, pattern)| {
            let text = match rule.of {
                ExpiresOf::Type => return rule.what == of.kind,
                ExpiresOf::File => of.real.unwrap_or_default(),
                ExpiresOf::PathInfo => of.path_info,
                ExpiresOf::Uri => of.uri,
            };
            pattern.as_ref().is_some_and(|pattern| pattern.is_match(text))
        })?;
        let since = match rule.since {
            ExpiresSince::Now => of.now,
            ExpiresSince::Modified => of.modified,
        };
        since.checked_add(rule.seconds.into())
    }

    /// The type that the files of `mimefile` give this name.
    pub(super) fn type_of(&self, name: &str) -> Option<&str> {
        let (_, end) = name.rsplit_once('.')?;
        self.types.get(end.as_bytes()).map(|kind| &**kind)
    }
}

/// The codings that a client takes (`Accept-Encoding`, RFC 9110 section 12.5.3), in the order in which they are sent.
pub(super) fn accepted(accept: &[u8]) -> impl Iterator<Item = Coding> {
    CODINGS.into_iter().filter(move |coding| {
        accept.split(|&byte| byte == b',').any(|part| {
            let mut parts = part.split(|&byte| byte == b';').map(<[u8]>::trim_ascii);
            let is_it = parts.next().is_some_and(|name| name.eq_ignore_ascii_case(coding.name.as_bytes()));
            let refused = |weight: &[u8]| {
                let digits = weight.strip_prefix(b"q=").or_else(|| weight.strip_prefix(b"Q="));
                digits.is_some_and(|digits| digits.iter().all(|byte| matches!(byte, b'0' | b'.')))
            };
            is_it && !parts.any(refused)
        })
    })
}

/// As uWSGI asks them: by the file, by `PATH_INFO`, by the URI and by the type, and those since now first.
fn in_order(rules: &[Expires]) -> Vec<(Expires, Option<Regex>)> {
    let place = |rule: &Expires| {
        let of = match rule.of {
            ExpiresOf::File => 0,
            ExpiresOf::PathInfo => 1,
            ExpiresOf::Uri => 2,
            ExpiresOf::Type => 3,
        };
        (of, rule.since == ExpiresSince::Modified)
    };
    let mut rules = rules.to_vec();
    rules.sort_by_key(place);
    let compiled = rules.into_iter().map(|rule| {
        let pattern = (rule.of != ExpiresOf::Type).then(|| compile(&rule.what)).flatten();
        (rule, pattern)
    });
    compiled.collect()
}

/// The configuration has checked the patterns.
fn compile(pattern: &str) -> Option<Regex> {
    RegexBuilder::new(pattern).unicode(false).build().ok()
}

/// Adds the lines of a file like `/etc/mime.types`: a type, and the ends of names. The first line that has an end counts.
fn add_types(types: &mut HashMap<Box<[u8]>, Box<str>>, text: &str) {
    for line in text.lines().filter(|line| line.starts_with(|first: char| first.is_ascii_alphanumeric())) {
        let mut words = line.split_ascii_whitespace();
        let Some(kind) = words.next() else { continue };
        for end in words {
            types.entry(end.as_bytes().into()).or_insert_with(|| kind.trim_end_matches(';').into());
        }
    }
}

/// The bytes of a path as WSGI has them: a character each.
pub(super) fn latin(path: &Path) -> String {
    path.as_os_str().as_encoded_bytes().iter().map(|&byte| char::from(byte)).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use rwsgi_config::GzipRules;

    #[test]
    fn a_client_says_which_codings_it_takes() {
        let names = |accept: &str| accepted(accept.as_bytes()).map(|coding| coding.name).collect::<Vec<_>>();
        assert_eq!(names("gzip, deflate, br"), ["br", "gzip"]);
        assert_eq!(names("GZIP;q=0.5"), ["gzip"]);
        for none in ["", "identity", "gzip;q=0", "gzip; q=0.000", "xgzip", "brotli"] {
            assert!(names(none).is_empty(), "{none}");
        }
    }

    #[test]
    fn which_files_have_a_compressed_version_is_said_by_path() {
        let rules = |gzip| Rules::new(&StaticConfig { gzip, ..StaticConfig::default() });
        let one = || vec!["/srv/css".to_owned()];
        let by_beginning = rules(GzipRules { beginnings: one(), ..GzipRules::default() });
        assert!(by_beginning.compresses(b"/srv/css/a") && !by_beginning.compresses(b"/srv/js/a"));
        let by_end = rules(GzipRules { ends: vec![".css".into()], ..GzipRules::default() });
        assert!(by_end.compresses(b"/a.css") && !by_end.compresses(b"/a.js"));
        let by_pattern = rules(GzipRules { patterns: vec![r"\.(css|js)$".into()], ..GzipRules::default() });
        assert!(by_pattern.compresses(b"/a.js") && !by_pattern.compresses(b"/a.jsx"));
        assert!(rules(GzipRules { all: true, ..GzipRules::default() }).compresses(b"/a"));
        assert!(!rules(GzipRules::default()).compresses(b"/a"));
    }

    #[test]
    fn the_first_rule_that_holds_says_when_a_file_expires() {
        let rule = |of, what: &str, seconds, since| Expires { of, what: what.into(), seconds, since };
        let expires = vec![
            rule(ExpiresOf::Type, "text/css", 1, ExpiresSince::Now),
            rule(ExpiresOf::Uri, "^/static/", 2, ExpiresSince::Now),
            rule(ExpiresOf::File, r"\.js$", 3, ExpiresSince::Modified),
            rule(ExpiresOf::File, r"b\.js$", 4, ExpiresSince::Now),
        ];
        let rules = Rules::new(&StaticConfig { expires, ..StaticConfig::default() });
        let at = |real: &str, uri: &str, kind| {
            let (real, uri) = (Some(real.as_bytes()), uri.as_bytes());
            rules.expires(&Answered { real, path_info: b"", uri, kind, modified: 1_000, now: 2_000 })
        };
        assert_eq!(at("/a.css", "/a.css", "text/css"), Some(2_001));
        assert_eq!(at("/a.css", "/static/a.css", "text/css"), Some(2_002));
        assert_eq!(at("/a.js", "/static/a.js", ""), Some(1_003));
        assert_eq!(at("/b.js", "/static/b.js", ""), Some(2_004));
        assert_eq!(at("/c", "/c", ""), None);
    }

    #[test]
    fn types_are_read_as_they_are_in_mime_types() {
        let mut types = HashMap::new();
        add_types(&mut types, "# comment\ntext/x-page\tpage pg\n\napplication/other page\nlonely/type\n");
        assert_eq!(types.len(), 2);
        assert_eq!(&*types[&b"page"[..]], "text/x-page");
    }
}
