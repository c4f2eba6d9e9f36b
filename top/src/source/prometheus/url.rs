//! `prometheus://` addresses: where it is, and which of its servers are meant.

use std::fmt;
use std::str::FromStr;

use rwsgi_stats::Address;
use thiserror::Error;

/// What rates are of, where nothing else is said: it has to hold two scrapes, which are usually 15 or 30 s apart.
const USUAL_WINDOW: &str = "1m";

/// A Prometheus, and which of its servers are meant.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Prometheus {
    /// Host and port.
    pub(super) address: Address,
    /// What stands before `/api/v1`: empty, or with a leading slash.
    pub(super) prefix: String,
    matchers: Vec<Matcher>,
    /// A duration in its notation.
    pub(super) window: String,
}

#[derive(Clone, Debug, PartialEq, Eq)]
struct Matcher {
    label: String,
    operator: &'static str,
    value: String,
}

/// What is no [`Prometheus`].
#[derive(Clone, Debug, Error, PartialEq, Eq)]
#[error("'{input}': {reason}; expected prometheus://host:9090/?job=app (also label=~regex, label!=value, window=5m)")]
pub(crate) struct PrometheusError {
    input: String,
    reason: String,
}

impl FromStr for Prometheus {
    type Err = PrometheusError;

    fn from_str(input: &str) -> Result<Self, Self::Err> {
        let error = |reason: &str| PrometheusError { input: input.to_owned(), reason: reason.to_owned() };
        let rest = input.strip_prefix("prometheus://").ok_or_else(|| error("it does not begin with prometheus://"))?;
        let (place, query) = rest.split_once('?').unwrap_or((rest, ""));
        let (authority, path) = place.find('/').map_or((place, ""), |slash| place.split_at(slash));
        if authority.contains('@') {
            return Err(error("a user and a password are not sent"));
        }
        let has_port = authority.rsplit_once(':').is_some_and(|(_, port)| !port.ends_with(']'));
        let with_port = if has_port { authority.to_owned() } else { format!("{authority}:9090") };
        let address: Address = with_port.parse().map_err(|why: rwsgi_stats::AddressError| error(&why.to_string()))?;
        if authority.is_empty() || !matches!(address, Address::Tcp { .. }) {
            return Err(error("it has no host"));
        }
        if path.contains(|c: char| c.is_whitespace() || c.is_control()) {
            return Err(error("its path has blanks"));
        }
        let mut prometheus = Self {
            address,
            prefix: path.trim_end_matches('/').to_owned(),
            matchers: Vec::new(),
            window: USUAL_WINDOW.to_owned(),
        };
        for parameter in query.split('&').filter(|parameter| !parameter.is_empty()) {
            let text = decode(parameter).ok_or_else(|| error("a part after % is not UTF-8"))?;
            if let Some(window) = text.strip_prefix("window=") {
                if !is_duration(window) {
                    return Err(error("window is not a duration, such as 30s or 5m"));
                }
                window.clone_into(&mut prometheus.window);
                continue;
            }
            let matcher = matcher(&text).ok_or_else(|| error(&format!("'{text}' is not label=value")))?;
            prometheus.matchers.push(matcher);
        }
        Ok(prometheus)
    }
}

/// A matcher as PromQL has it, but without quotes.
fn matcher(text: &str) -> Option<Matcher> {
    let end = text.find(|c: char| !(c.is_ascii_alphanumeric() || c == '_'))?;
    let (label, rest) = text.split_at(end);
    let operator = ["=~", "!=", "!~", "="].into_iter().find(|operator| rest.starts_with(operator))?;
    if label.is_empty() || label.starts_with(|c: char| c.is_ascii_digit()) {
        return None;
    }
    Some(Matcher { label: label.to_owned(), operator, value: rest[operator.len()..].to_owned() })
}

fn is_duration(text: &str) -> bool {
    let unit = text.trim_start_matches(|c: char| c.is_ascii_digit());
    unit.len() < text.len() && ["s", "m", "h", "d"].contains(&unit)
}

impl fmt::Display for Prometheus {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "prometheus://{}{}/", self.address, self.prefix)?;
        for (number, Matcher { label, operator, value }) in self.matchers.iter().enumerate() {
            write!(f, "{}{label}{operator}{value}", if number == 0 { '?' } else { '&' })?;
        }
        Ok(())
    }
}

impl Prometheus {
    /// The matchers as PromQL has them, with braces.
    pub(super) fn selector(&self) -> String {
        let matcher = |Matcher { label, operator, value }: &Matcher| {
            let value = value.replace('\\', r"\\").replace('"', "\\\"").replace('\n', r"\n");
            format!("{label}{operator}\"{value}\"")
        };
        format!("{{{}}}", self.matchers.iter().map(matcher).collect::<Vec<_>>().join(","))
    }
}

/// As forms and URLs have it.
pub(super) fn encode(text: &str) -> String {
    let mut encoded = String::with_capacity(text.len() * 2);
    for byte in text.bytes() {
        if byte.is_ascii_alphanumeric() || b"-._~".contains(&byte) {
            encoded.push(byte.into());
        } else {
            encoded += &format!("%{byte:02X}");
        }
    }
    encoded
}

fn decode(text: &str) -> Option<String> {
    let mut bytes = Vec::with_capacity(text.len());
    let mut rest = text.as_bytes();
    while let Some((&first, after)) = rest.split_first() {
        let digits = after.get(..2).and_then(|digits| std::str::from_utf8(digits).ok());
        let coded = digits.filter(|_| first == b'%').and_then(|digits| u8::from_str_radix(digits, 16).ok());
        // What is no code stands for itself: regular expressions are typed as they are.
        bytes.push(coded.unwrap_or(first));
        rest = if coded.is_some() { &after[2..] } else { after };
    }
    String::from_utf8(bytes).ok()
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn parameters_are_matchers() {
        for (input, selector, prefix) in [
            ("prometheus://mon:9090", "{}", ""),
            ("prometheus://mon/?job=app", r#"{job="app"}"#, ""),
            (
                "prometheus://mon/prom/?job=app&env=~prod.*&dc!=x&rack!~a|b",
                r#"{job="app",env=~"prod.*",dc!="x",rack!~"a|b"}"#,
                "/prom",
            ),
            ("prometheus://mon?job=a%20b%22c", r#"{job="a b\"c"}"#, ""),
            (r"prometheus://mon?path=\d+", r#"{path="\\d+"}"#, ""),
        ] {
            let prometheus: Prometheus = input.parse().unwrap();
            assert_eq!((prometheus.selector().as_str(), prometheus.prefix.as_str()), (selector, prefix), "{input}");
        }
        let printed = "prometheus://mon/?job=app&window=5m".parse::<Prometheus>().unwrap().to_string();
        assert_eq!(printed, "prometheus://mon:9090/?job=app");
    }

    #[test]
    fn what_cannot_be_asked_is_refused() {
        for (input, told) in [
            ("prometheus://", "it has no host"),
            ("prometheus://mon:x", "not a number"),
            ("prometheus://me:secret@mon", "not sent"),
            ("prometheus://mon/?job", "'job' is not label=value"),
            ("prometheus://mon/?job}or up{a=b", "is not label=value"),
            ("prometheus://mon/?9a=b", "is not label=value"),
            ("prometheus://mon/?window=5m])or(up", "not a duration"),
            ("prometheus://mon/a b", "blanks"),
        ] {
            let error = input.parse::<Prometheus>().unwrap_err().to_string();
            assert!(error.contains(told), "{input}: {error}");
        }
    }

    proptest! {
        #[test]
        fn what_is_encoded_reads_back(text in "\\PC{0,40}") {
            prop_assert_eq!(decode(&encode(&text)), Some(text));
        }

        #[test]
        fn no_value_ends_its_quotes(value in "\\PC{0,40}") {
            let input = format!("prometheus://mon/?a={}", encode(&value));
            let selector = input.parse::<Prometheus>().unwrap().selector();
            let inner = selector.strip_prefix("{a=\"").and_then(|rest| rest.strip_suffix("\"}"));
            // A value that begins with ~ makes an operator of the two.
            if let Some(inner) = inner {
                let unescaped = inner.replace(r"\\", "").replace("\\\"", "");
                prop_assert!(!unescaped.contains('"'), "{}", selector);
            }
        }
    }
}
