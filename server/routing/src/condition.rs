//! The conditions of `route-if` and its like, by name.

use std::net::{Ipv4Addr, Ipv6Addr};
use std::os::unix::ffi::OsStrExt as _;
use std::os::unix::fs::PermissionsExt as _;
use std::path::Path;

use super::pattern::{Groups, Pattern};
use super::template::{Template, number};
use super::visit::Visit;

/// The conditions: their names, and when they hold.
pub const CONDITIONS: &[(&[&str], &str)] = &[
    (&["eq", "equal", "isequal", "=="], "`A;B`: both are the same"),
    (&["startswith"], "`A;B`: A begins with B"),
    (&["endswith"], "`A;B`: A ends with B"),
    (&["contains", "contain"], "`A;B`: B is somewhere in A"),
    (&["regexp", "re"], "`A;PATTERN`: the pattern is found in A; the action's `$1` is its first group"),
    (&["empty"], "`A`: it is empty, or a variable that is not set"),
    (&["ishigher", ">"], "`A;B`: the number A is higher than B"),
    (&["ishigherequal", ">="], "`A;B`: it is higher or the same"),
    (&["islower", "<"], "`A;B`: it is lower"),
    (&["islowerequal", "<="], "`A;B`: it is lower or the same"),
    (&["ipv4in"], "`A;NET`: the address A is in the network NET, as in `${REMOTE_ADDR};10.0.0.0/8`"),
    (&["ipv6in"], "`A;NET`: the same for IPv6"),
    (&["exists"], "`PATH`: there is such a file or directory"),
    (&["isfile"], "`PATH`: it is a file"),
    (&["isdir"], "`PATH`: it is a directory"),
    (&["islink"], "`PATH`: it is a symbolic link"),
    (&["isexec"], "`PATH`: it may be executed"),
];

/// Conditions that depend on what is not here.
const NOT_HERE: [&str; 2] = ["incache", "lord"];

/// How two texts are compared.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Comparison {
    Equal,
    StartsWith,
    EndsWith,
    Contains,
    Higher,
    HigherEqual,
    Lower,
    LowerEqual,
    InNet4,
    InNet6,
}

/// What is asked of a path.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Question {
    Exists,
    File,
    Directory,
    Link,
    Executable,
}

/// A condition.
#[derive(Debug)]
pub(crate) enum Condition {
    Compare(Comparison, Template, Template),
    Found(Template, Pattern),
    Empty(Template),
    Path(Question, Template),
    /// It lacks its second part: uWSGI takes it for one that does not hold.
    Never,
}

/// What became of a condition.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Outcome {
    Holds(Groups),
    HoldsNot,
    /// Nobody can say: the request must not go on.
    Undecided,
}

impl Condition {
    /// Reads `name:argument`.
    ///
    /// # Errors
    /// What was expected.
    pub(crate) fn parse(text: &str) -> Result<Self, String> {
        let (name, argument) = text.split_once(':').ok_or("CONDITION:ARGUMENT ACTION:ARGUMENT")?;
        let Some((names, _)) = CONDITIONS.iter().find(|(names, _)| names.contains(&name)) else {
            let known: Vec<_> = CONDITIONS.iter().map(|(names, _)| names[0]).collect();
            let what = if NOT_HERE.contains(&name) { "is a condition of uWSGI's that is not here" } else { "is none" };
            return Err(format!("a condition ({}), and '{name}' {what}", known.join(", ")));
        };
        let compare = |comparison| match argument.split_once(';') {
            Some((left, right)) => {
                let (left, right) = (Template::without_groups(left)?, Template::without_groups(right)?);
                Ok(Self::Compare(comparison, left, right))
            }
            None => Ok(Self::Never),
        };
        let path = |question| Ok(Self::Path(question, Template::without_groups(argument)?));
        match names[0] {
            "eq" => compare(Comparison::Equal),
            "startswith" => compare(Comparison::StartsWith),
            "endswith" => compare(Comparison::EndsWith),
            "contains" => compare(Comparison::Contains),
            "ishigher" => compare(Comparison::Higher),
            "ishigherequal" => compare(Comparison::HigherEqual),
            "islower" => compare(Comparison::Lower),
            "islowerequal" => compare(Comparison::LowerEqual),
            "ipv4in" => compare(Comparison::InNet4),
            "ipv6in" => compare(Comparison::InNet6),
            "regexp" => match argument.split_once(';') {
                Some((text, pattern)) => Ok(Self::Found(Template::without_groups(text)?, Pattern::new(pattern)?)),
                None => Ok(Self::Never),
            },
            "exists" => path(Question::Exists),
            "isfile" => path(Question::File),
            "isdir" => path(Question::Directory),
            "islink" => path(Question::Link),
            "isexec" => path(Question::Executable),
            _ => Ok(Self::Empty(Template::without_groups(argument)?)),
        }
    }

    /// Whether it asks the disk, or takes its time for another reason.
    pub(crate) fn may_take_time(&self) -> bool {
        match self {
            Self::Path(..) => true,
            Self::Found(_, pattern) => pattern.goes_back(),
            _ => false,
        }
    }

    /// Whether it looks at the request's path.
    pub(crate) fn looks_at_path(&self) -> bool {
        match self {
            Self::Compare(_, left, right) => left.has_path() || right.has_path(),
            Self::Found(text, _) | Self::Empty(text) | Self::Path(_, text) => text.has_path(),
            Self::Never => false,
        }
    }

    /// Whether it holds.
    pub(crate) fn holds(&self, visit: &Visit) -> Outcome {
        let holds = match self {
            Self::Compare(comparison, left, right) => {
                let (left, right) = (left.render(visit, &[]), right.render(visit, &[]));
                match compare(*comparison, &left, &right) {
                    Some(holds) => holds,
                    None => return Outcome::Undecided,
                }
            }
            Self::Found(text, pattern) => match pattern.find(&text.render(visit, &[])) {
                Ok(Some(groups)) => return Outcome::Holds(groups),
                Ok(None) => false,
                Err(_) => return Outcome::Undecided,
            },
            Self::Empty(text) => text.render(visit, &[]).is_empty(),
            Self::Path(question, path) => ask(*question, &path.render(visit, &[])),
            Self::Never => false,
        };
        if holds { Outcome::Holds(Vec::new()) } else { Outcome::HoldsNot }
    }
}

/// `None` for an address that is too long to be one: uWSGI ends the request then.
fn compare(comparison: Comparison, left: &[u8], right: &[u8]) -> Option<bool> {
    Some(match comparison {
        Comparison::Equal => left == right,
        Comparison::StartsWith => left.starts_with(right),
        Comparison::EndsWith => left.ends_with(right),
        Comparison::Contains => right.is_empty() || left.windows(right.len()).any(|part| part == right),
        Comparison::Higher => number(left) > number(right),
        Comparison::HigherEqual => number(left) >= number(right),
        Comparison::Lower => number(left) < number(right),
        Comparison::LowerEqual => number(left) <= number(right),
        Comparison::InNet4 if left.len() > 15 || right.len() > 18 => return None,
        Comparison::InNet6 if left.len() > 39 || right.len() > 43 => return None,
        Comparison::InNet4 => {
            in_net(left, right, 32, |text| Some(u128::from(text.parse::<Ipv4Addr>().ok()?.to_bits())))
        }
        Comparison::InNet6 => in_net(left, right, 128, |text| Some(text.parse::<Ipv6Addr>().ok()?.to_bits())),
    })
}

fn in_net(address: &[u8], net: &[u8], bits: u32, read: fn(&str) -> Option<u128>) -> bool {
    let is_inside = || {
        let (address, net) = (std::str::from_utf8(address).ok()?, std::str::from_utf8(net).ok()?);
        let (net, prefix) = match net.split_once('/') {
            Some((net, prefix)) => {
                (net, u32::try_from(number(prefix.as_bytes())).ok().filter(|prefix| *prefix <= bits)?)
            }
            None => (net, bits),
        };
        let differing = read(address)? ^ read(net)?;
        Some(differing.checked_shr(bits - prefix).unwrap_or(0) == 0)
    };
    is_inside().unwrap_or(false)
}

fn ask(question: Question, path: &[u8]) -> bool {
    let path = Path::new(std::ffi::OsStr::from_bytes(path));
    let found = match question {
        Question::Link => std::fs::symlink_metadata(path),
        _ => std::fs::metadata(path),
    };
    found.is_ok_and(|about| match question {
        Question::Exists => true,
        Question::File => about.is_file(),
        Question::Directory => about.is_dir(),
        Question::Link => about.is_symlink(),
        Question::Executable => about.permissions().mode() & 0o111 != 0,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn outcome(text: &str) -> Outcome {
        let mut visit = Visit::default();
        visit.variables.came_with(b"REMOTE_ADDR", b"10.1.2.3");
        visit.variables.came_with(b"HTTP_X_FORWARDED_PROTO", b"http");
        visit.variables.came_with(b"QUERY_STRING", b"a=12");
        Condition::parse(text).unwrap().holds(&visit)
    }

    #[test]
    fn conditions_hold_as_in_uwsgi() {
        for (text, holds) in [
            ("eq:${HTTP_X_FORWARDED_PROTO};http", true),
            ("equal:${HTTP_X_FORWARDED_PROTO};https", false),
            ("==:a;a", true),
            ("eq:a", false),
            ("startswith:${REMOTE_ADDR};10.", true),
            ("endswith:${REMOTE_ADDR};.3", true),
            ("endswith:3;10.1.2.3", false),
            ("contains:${REMOTE_ADDR};1.2", true),
            ("contain:${REMOTE_ADDR};9", false),
            ("empty:${HTTP_AUTHORIZATION}", true),
            ("empty:${REMOTE_ADDR}", false),
            ("ishigher:${qs[a]};2", true),
            (">:2;12", false),
            ("ishigherequal:2;2", true),
            ("islower:2;12", true),
            ("<=:3;2", false),
            ("ipv4in:${REMOTE_ADDR};10.0.0.0/8", true),
            ("ipv4in:${REMOTE_ADDR};10.1.2.0/24", true),
            ("ipv4in:${REMOTE_ADDR};10.1.2.4", false),
            ("ipv4in:${REMOTE_ADDR};0.0.0.0/0", true),
            ("ipv4in:${REMOTE_ADDR};10.0.0.0/33", false),
            ("ipv4in:::1;10.0.0.0/8", false),
            ("ipv6in:fd00::1;fd00::/8", true),
            ("ipv6in:fe00::1;fd00::/8", false),
            ("ipv6in:::1;::/0", true),
            ("exists:/", true),
            ("isdir:/proc", true),
            ("isfile:/proc", false),
            ("isfile:/proc/self/status", true),
            ("islink:/proc/self", true),
            ("isexec:/proc/self/status", false),
            ("isexec:/proc/self/exe", true),
        ] {
            assert_eq!(outcome(text) == Outcome::Holds(Vec::new()), holds, "{text}");
        }
        assert_eq!(outcome("ipv4in:${REMOTE_ADDR}.10.20.30;10.0.0.0/8"), Outcome::Undecided);
        let Outcome::Holds(groups) = outcome("regexp:${REMOTE_ADDR};^(\\d+)\\.") else { panic!("it is found") };
        assert_eq!(groups, [b"10.".to_vec(), b"10".to_vec()]);
    }

    #[test]
    fn others_are_refused_by_name() {
        let error = Condition::parse("incache:x").unwrap_err();
        assert!(error.starts_with("a condition (eq, startswith, "), "{error}");
        assert!(error.ends_with("and 'incache' is a condition of uWSGI's that is not here"), "{error}");
        assert!(Condition::parse("nonsense:x").unwrap_err().ends_with("and 'nonsense' is none"));
    }
}
