//! Texts with placeholders: `$0` to `$9` for what the rule's pattern found, `${VAR}` for a variable, `${qs[name]}` and
//! the like for what a function makes of its argument.
//!
//! uWSGI replaces in two passes, so that a client's `${HTTP_COOKIE}` in what `$1` stands for is replaced too. Here what
//! a client sends is never read as a placeholder.

use std::time::{Duration, SystemTime, UNIX_EPOCH};

use base64::Engine as _;

use super::visit::Visit;

/// The functions of placeholders, and what they stand for.
pub const FUNCTIONS: &[(&str, &str)] = &[
    ("cookie", "the cookie of that name"),
    ("qs", "the argument of that name in the query string, still encoded"),
    ("time", "`unix`: seconds, `micros`: microseconds, since 1970"),
    ("httptime", "the date in that many seconds, as headers have it"),
    ("mime", "the type of the file that the variable of that name names, from `/etc/mime.types`"),
    ("uwsgi", "`wid`, `pid`, `uuid`, `status`, `rtime` (µs), `rsize` (bytes), `sor` (µs since 1970), `lq` (always 0)"),
    ("base64", "the variable of that name in base64"),
    ("hex", "the variable of that name in hexadecimal"),
    ("upper", "the variable of that name in capital letters"),
    ("lower", "the variable of that name in small letters"),
];

/// Functions of plugins of uWSGI's that are not here.
const NOT_HERE: [&str; 5] = ["geoip", "math", "metric", "xattr", "xattr2"];

#[derive(Clone, Debug, PartialEq, Eq)]
enum Part {
    Text(Vec<u8>),
    Group(usize),
    /// What is between the braces.
    Placeholder(Vec<Part>),
}

/// A text with placeholders.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Template {
    parts: Vec<Part>,
}

impl Template {
    /// The text of an action, where `$1` stands for what the pattern found.
    ///
    /// # Errors
    /// When it needs a function that is not here.
    pub(crate) fn new(text: &str) -> Result<Self, String> {
        Self::read(text.as_bytes(), true)
    }

    /// The text of a condition, where there is no pattern.
    ///
    /// # Errors
    /// As [`Self::new`].
    pub(crate) fn without_groups(text: &str) -> Result<Self, String> {
        Self::read(text.as_bytes(), false)
    }

    fn read(text: &[u8], has_groups: bool) -> Result<Self, String> {
        let mut template = Self { parts: read_parts(text, has_groups) };
        if has_groups && text.ends_with(b"$") && !text.ends_with(b"$$") {
            template.drop_last_dollar();
        }
        template.check()?;
        Ok(template)
    }

    /// uWSGI's first pass loses a dollar sign at the end.
    fn drop_last_dollar(&mut self) {
        if let Some(Part::Text(last)) = self.parts.last_mut()
            && last.last() == Some(&b'$')
        {
            last.pop();
        }
    }

    fn check(&self) -> Result<(), String> {
        for part in &self.parts {
            if let Part::Placeholder(inner) = part
                && let [Part::Text(key), ..] = inner.as_slice()
                && let Some((function, _)) = split_function(key)
                && let Some(missing) = NOT_HERE.iter().find(|known| known.as_bytes() == function)
            {
                let here: Vec<_> = FUNCTIONS.iter().map(|(name, _)| *name).collect();
                return Err(format!("placeholders that are here: ${{{missing}[…]}} is not ({})", here.join(", ")));
            }
        }
        Ok(())
    }

    /// Whether it refers to what the pattern found.
    pub(crate) fn has_groups(&self) -> bool {
        fn any(parts: &[Part]) -> bool {
            parts.iter().any(|part| match part {
                Part::Text(_) => false,
                Part::Group(_) => true,
                Part::Placeholder(inner) => any(inner),
            })
        }
        any(&self.parts)
    }

    /// The text, if it has no placeholder.
    #[cfg(test)]
    fn constant(&self) -> Option<&[u8]> {
        match self.parts.as_slice() {
            [] => Some(&[]),
            [Part::Text(text)] => Some(text),
            _ => None,
        }
    }

    /// Whether it has the request's path.
    pub(crate) fn has_path(&self) -> bool {
        self.parts.iter().any(|part| match part {
            Part::Placeholder(inner) => inner.iter().any(|part| {
                let is_in = |text: &[u8], name: &[u8]| text.windows(name.len()).any(|found| found == name);
                matches!(part, Part::Text(text) if is_in(text, b"PATH_INFO") || is_in(text, b"REQUEST_URI"))
            }),
            Part::Text(_) | Part::Group(_) => false,
        })
    }

    /// How many components of the path that was written in the configuration are `..`.
    pub(crate) fn parents(&self) -> usize {
        let mut written = Vec::new();
        for part in &self.parts {
            match part {
                Part::Text(text) => written.extend_from_slice(text),
                // A name, so that what stands beside it is none of its own.
                Part::Group(_) | Part::Placeholder(_) => written.push(b'x'),
            }
        }
        parents(&written)
    }

    /// The text with its placeholders replaced.
    pub(crate) fn render(&self, visit: &Visit, groups: &[Vec<u8>]) -> Vec<u8> {
        let mut out = Vec::new();
        render_into(&mut out, &self.parts, visit, groups);
        out
    }
}

/// How many components of a path are `..`.
pub(crate) fn parents(path: &[u8]) -> usize {
    path.split(|byte| *byte == b'/').filter(|component| *component == b"..").count()
}

fn push_text(parts: &mut Vec<Part>, bytes: &[u8]) {
    match parts.last_mut() {
        _ if bytes.is_empty() => {}
        Some(Part::Text(text)) => text.extend_from_slice(bytes),
        _ => parts.push(Part::Text(bytes.to_vec())),
    }
}

fn read_parts(text: &[u8], has_groups: bool) -> Vec<Part> {
    let (mut parts, mut at) = (Vec::new(), 0);
    while let Some(byte) = text.get(at) {
        match (byte, text.get(at + 1)) {
            (b'$', Some(digit @ b'0'..=b'9')) if has_groups => {
                parts.push(Part::Group(usize::from(digit - b'0')));
                at += 2;
            }
            (b'$', Some(b'{')) => {
                let inside = &text[at + 2..];
                let Some(len) = inside.iter().position(|byte| *byte == b'}') else {
                    push_text(&mut parts, b"${");
                    parts.extend(read_parts(inside, has_groups));
                    return parts;
                };
                let key = if has_groups { read_groups(&inside[..len]) } else { vec![Part::Text(inside[..len].into())] };
                parts.push(Part::Placeholder(key));
                at += 2 + len + 1;
            }
            // A dollar sign takes the next one with it.
            (b'$', Some(other)) => {
                push_text(&mut parts, &[b'$', *other]);
                at += 2;
            }
            (other, _) => {
                push_text(&mut parts, &[*other]);
                at += 1;
            }
        }
    }
    parts
}

/// The name between braces, where only `$1` stands for something.
fn read_groups(text: &[u8]) -> Vec<Part> {
    let (mut parts, mut at) = (Vec::new(), 0);
    while at < text.len() {
        if let [b'$', digit @ b'0'..=b'9', ..] = &text[at..] {
            parts.push(Part::Group(usize::from(digit - b'0')));
            at += 2;
        } else {
            push_text(&mut parts, &text[at..=at]);
            at += 1;
        }
    }
    parts
}

fn render_into(out: &mut Vec<u8>, parts: &[Part], visit: &Visit, groups: &[Vec<u8>]) {
    for part in parts {
        match part {
            Part::Text(text) => out.extend_from_slice(text),
            Part::Group(number) => out.extend_from_slice(groups.get(*number).map_or(&[], Vec::as_slice)),
            Part::Placeholder(inner) => {
                if let [Part::Text(key)] = inner.as_slice() {
                    replace(out, key, visit);
                } else {
                    let mut key = Vec::new();
                    render_into(&mut key, inner, visit, groups);
                    replace(out, &key, visit);
                }
            }
        }
    }
}

/// `name[argument]`
fn split_function(key: &[u8]) -> Option<(&[u8], &[u8])> {
    let bracket = key.iter().position(|byte| *byte == b'[')?;
    Some((&key[..bracket], key[bracket + 1..].strip_suffix(b"]")?))
}

fn replace(out: &mut Vec<u8>, key: &[u8], visit: &Visit) {
    let variables = &visit.variables;
    let Some((function, argument)) = split_function(key) else {
        out.extend_from_slice(variables.get(key).unwrap_or_default());
        return;
    };
    let variable = || variables.get(argument).unwrap_or_default();
    match function {
        b"cookie" => out.extend_from_slice(variables.cookie(argument).unwrap_or_default()),
        b"qs" => out.extend_from_slice(variables.argument(argument).unwrap_or_default()),
        b"mime" => out.extend_from_slice(super::mime::of(variable()).unwrap_or_default().as_bytes()),
        b"uwsgi" => out.extend_from_slice(visit.facts.named(argument).as_bytes()),
        b"time" => out.extend_from_slice(time(argument).as_bytes()),
        b"httptime" => {
            let later = Duration::from_secs(number(argument).max(0).unsigned_abs().min(1 << 33));
            out.extend_from_slice(httpdate::fmt_http_date(SystemTime::now() + later).as_bytes());
        }
        b"base64" => out.extend_from_slice(base64::engine::general_purpose::STANDARD.encode(variable()).as_bytes()),
        b"hex" => out.extend(variable().iter().flat_map(|byte| format!("{byte:02x}").into_bytes())),
        b"upper" => out.extend(variable().iter().map(u8::to_ascii_uppercase)),
        b"lower" => out.extend(variable().iter().map(u8::to_ascii_lowercase)),
        // As in uWSGI: a variable may have brackets in its name.
        _ => out.extend_from_slice(variables.get(key).unwrap_or_default()),
    }
}

fn time(argument: &[u8]) -> String {
    let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    match argument {
        b"unix" => since.as_secs().to_string(),
        b"micros" => since.as_micros().to_string(),
        _ => String::new(),
    }
}

/// A number as C's `strtol` reads it: blanks, a sign, and the digits that follow, or 0.
pub(crate) fn number(text: &[u8]) -> i64 {
    let text = text.trim_ascii_start();
    let (is_negative, digits) = match text {
        [b'-', digits @ ..] => (true, digits),
        [b'+', digits @ ..] | digits => (false, digits),
    };
    let size = digits
        .iter()
        .take_while(|byte| byte.is_ascii_digit())
        .fold(0_i64, |number, byte| number.saturating_mul(10).saturating_add(i64::from(byte - b'0')));
    if is_negative { -size } else { size }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn rendered(text: &str, groups: &[&str]) -> String {
        let mut visit = Visit::default();
        visit.variables.came_with(b"HTTP_HOST", b"example.org");
        visit.variables.came_with(b"REQUEST_URI", b"/a?b=c");
        visit.variables.came_with(b"QUERY_STRING", b"b=c");
        visit.variables.came_with(b"HTTP_COOKIE", b"sid=1");
        visit.variables.came_with(b"PATH_INFO", b"/a/b.css");
        visit.facts.status = 404;
        let groups: Vec<_> = groups.iter().map(|group| group.as_bytes().to_vec()).collect();
        String::from_utf8(Template::new(text).unwrap().render(&visit, &groups)).unwrap()
    }

    #[test]
    fn placeholders_are_replaced_as_in_uwsgi() {
        for (text, expected) in [
            ("https://${HTTP_HOST}${REQUEST_URI}", "https://example.org/a?b=c"),
            ("/new/$1/$2?$0", "/new/one/?whole"),
            ("${HTTP_$1}", ""),
            ("${HTTP_$3}", "example.org"),
            ("${qs[b]} ${cookie[sid]} ${qs[none]}|", "c 1 |"),
            ("${uwsgi[status]}", "404"),
            ("${base64[HTTP_HOST]} ${hex[QUERY_STRING]} ${upper[HTTP_HOST]}", "ZXhhbXBsZS5vcmc= 623d63 EXAMPLE.ORG"),
            ("$x $$1 $${HTTP_HOST} ${", "$x $$1 $${HTTP_HOST} ${"),
            ("price$", "price"),
            ("${UNSET}", ""),
            ("", ""),
        ] {
            assert_eq!(rendered(text, &["whole", "one", "", "HOST"]), expected, "{text}");
        }
        let times = rendered("${time[unix]}", &[]).parse::<u64>().unwrap();
        assert!(times > 1_600_000_000);
        assert!(rendered("${httptime[3600]}", &[]).ends_with(" GMT"));
    }

    #[test]
    fn what_a_client_sends_is_no_placeholder() {
        assert_eq!(rendered("<$1>", &["", "${HTTP_COOKIE} $0"]), "<${HTTP_COOKIE} $0>");
    }

    #[test]
    fn functions_of_plugins_are_refused_by_name() {
        assert!(Template::new("${geoip[country_code]}").unwrap_err().contains("${geoip[…]} is not (cookie, qs, "));
    }

    #[test]
    fn numbers_are_as_strtol_reads_them() {
        for (text, expected) in
            [("12", 12), (" -3x", -3), ("+4", 4), ("x", 0), ("", 0), ("99999999999999999999", i64::MAX)]
        {
            assert_eq!(number(text.as_bytes()), expected);
        }
    }

    proptest! {
        #[test]
        fn any_text_is_a_template_and_renders(text in ".{0,40}", group in ".{0,10}") {
            if let Ok(template) = Template::new(&text) {
                let _ = template.render(&Visit::default(), &[group.into_bytes()]);
            }
        }

        #[test]
        fn text_without_a_dollar_sign_stays(text in "[^$]{0,40}") {
            let template = Template::new(&text).unwrap();
            prop_assert_eq!(template.constant(), Some(text.as_bytes()));
        }
    }
}
