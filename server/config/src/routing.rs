//! Rules for requests and responses, and what is done to the heads of all responses.

use std::path::PathBuf;

use rwsgi_protocol::response::HeadWriter;
use rwsgi_routing::{Fault, Phase, RuleText, Subject, Test};
use serde::{Deserialize, Serialize};

use super::Config;
use super::row::Kind::Custom;
use super::row::ROUTING;
use super::row::Row;
use super::value;

/// What rules and header options ask for. All of it is compiled in each worker.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct RoutingConfig {
    /// `--route*`, `--error-route*`, `--response-route*` and `--final-route*`, in order, checked.
    pub rules: Vec<RuleText>,
    /// `--add-header`: names and values that every response gets.
    pub add_headers: Vec<(String, String)>,
    /// `--del-header`: names of headers of the application's that are left out.
    pub del_headers: Vec<String>,
    /// `--collect-header`, `--pull-header`: headers of the application's that become variables for later rules.
    pub collect_headers: Vec<CollectHeader>,
    /// `--error-page-403`, `-404` and `-500`: files for responses of the server's own, in order.
    pub error_pages: Vec<(u16, PathBuf)>,
}

/// A header of the application's that becomes a variable.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct CollectHeader {
    /// Its name, in any case of letters.
    pub header: String,
    /// The variable.
    pub variable: String,
    /// The header is not sent.
    pub pulled: bool,
}

impl RoutingConfig {
    /// Whether there is nothing to do.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        *self == Self::default()
    }

    /// What cannot be had together with mounted applications.
    pub(super) fn conflict(&self, has_mounts: bool) -> Option<String> {
        let rule = self.rules.iter().find(|rule| has_mounts && rule.action() == "setapp")?;
        let advice = "setscriptname and setpathinfo choose one by its mount";
        Some(format!("'{}': the action setapp cannot choose between mounted applications: {advice}", rule.text))
    }
}

fn add_rule(config: &mut Config, phase: Phase, test: Test, text: &str) -> Result<(), String> {
    let rule = RuleText { phase, test, text: text.into() };
    match rule.check() {
        Ok(()) => {}
        Err(Fault::LeftOut(warning)) => {
            config.lose(warning);
            return Ok(());
        }
        Err(Fault::Refused(expected)) => return Err(expected),
    }
    if matches!(phase, Phase::Response | Phase::Final) && matches!(rule.action(), "remheader" | "delheader") {
        let advice = "write it in a route-run, or as del-header";
        config.warnings.push(format!("{} comes too late here for the application's headers: {advice}", rule.action()));
    }
    config.routing.rules.push(rule);
    Ok(())
}

fn add_header(config: &mut Config, text: &str) -> Result<(), String> {
    let (name, value) = text.split_once(':').unwrap_or((text, ""));
    let (name, value) = (name.trim(), value.trim());
    // One that no client would understand, or that would contradict how the body is sent, is none to refuse to start for.
    let tried =
        HeadWriter::new(b"200 OK", Vec::new()).and_then(|mut head| head.header(name.as_bytes(), value.as_bytes()));
    match tried {
        Ok(()) => config.routing.add_headers.push((name.into(), value.into())),
        Err(problem) => config.warnings.push(format!("the header is left out: {problem}")),
    }
    Ok(())
}

fn collect_header(config: &mut Config, text: &str, pulled: bool) -> Result<(), String> {
    let (header, variable) = text.split_once(' ').ok_or("HEADER VARIABLE")?;
    let (header, variable) = (header.into(), variable.trim().into());
    config.routing.collect_headers.push(CollectHeader { header, variable, pulled });
    Ok(())
}

fn error_page(config: &mut Config, status: u16, text: &str) -> Result<(), String> {
    config.routing.error_pages.push((status, value::path(text)?));
    Ok(())
}

/// The rows of one phase.
macro_rules! phase_rows {
    ($prefix:literal, $phase:expr, $what:literal) => {
        [
            rule_row!(
                $prefix,
                "route",
                $phase,
                Test::Pattern(Subject::Path),
                "PATTERN ACTION",
                concat!($what, " whose PATH_INFO matches a regular expression")
            ),
            rule_row!(
                $prefix,
                "route-uri",
                $phase,
                Test::Pattern(Subject::Uri),
                "PATTERN ACTION",
                concat!($what, " whose REQUEST_URI matches")
            ),
            rule_row!(
                $prefix,
                "route-host",
                $phase,
                Test::Pattern(Subject::Host),
                "PATTERN ACTION",
                concat!($what, " whose Host matches")
            ),
            rule_row!(
                $prefix,
                "route-qs",
                $phase,
                Test::Pattern(Subject::Query),
                "PATTERN ACTION",
                concat!($what, " whose query string matches")
            ),
            rule_row!(
                $prefix,
                "route-remote-addr",
                $phase,
                Test::Pattern(Subject::RemoteAddr),
                "PATTERN ACTION",
                concat!($what, " whose client's address matches")
            ),
            rule_row!(
                $prefix,
                "route-user-agent",
                $phase,
                Test::Pattern(Subject::UserAgent),
                "PATTERN ACTION",
                concat!($what, " whose User-Agent matches")
            ),
            rule_row!(
                $prefix,
                "route-remote-user",
                $phase,
                Test::Pattern(Subject::RemoteUser),
                "PATTERN ACTION",
                concat!($what, " whose REMOTE_USER matches")
            ),
            rule_row!(
                $prefix,
                "route-referer",
                $phase,
                Test::Pattern(Subject::Referer),
                "PATTERN ACTION",
                concat!($what, " whose Referer matches")
            ),
            rule_row!(
                $prefix,
                "route-if",
                $phase,
                Test::If,
                "CONDITION ACTION",
                concat!($what, " for which a condition holds")
            ),
            rule_row!(
                $prefix,
                "route-if-not",
                $phase,
                Test::IfNot,
                "CONDITION ACTION",
                concat!($what, " for which a condition does not hold")
            ),
            rule_row!($prefix, "route-run", $phase, Test::Run, "ACTION", concat!($what)),
            rule_row!($prefix, "route-label", $phase, Test::Label, "NAME", "A place among these rules for goto"),
        ]
    };
}

/// The row of one option.
macro_rules! rule_row {
    ($prefix:literal, $name:literal, $phase:expr, $test:expr, $takes:literal, $help:expr) => {
        Row {
            names: &[concat!($prefix, $name)],
            kind: Custom(|config, text| add_rule(config, $phase, $test, text)),
            takes: $takes,
            help: $help,
            ..ROUTING
        }
    };
}

/// The row of one option for a status.
macro_rules! status_row {
    ($prefix:literal, $phase:expr, $what:literal) => {
        rule_row!($prefix, "route-status", $phase, Test::Status, "STATUS ACTION", concat!($what, " with this status"))
    };
}

pub(crate) static REQUEST_ROWS: &[Row] = &phase_rows!("", Phase::Request, "Before the application: acts on requests");
pub(crate) static ERROR_ROWS: &[Row] =
    &phase_rows!("error-", Phase::Error, "When a response has its status: acts on those to requests");
pub(crate) static RESPONSE_ROWS: &[Row] =
    &phase_rows!("response-", Phase::Response, "When a response's head is ready: acts on those to requests");
pub(crate) static FINAL_ROWS: &[Row] =
    &phase_rows!("final-", Phase::Final, "When a response was sent: acts on those to requests");

#[rustfmt::skip]
pub(crate) static ROWS: &[Row] = &[
    status_row!("error-", Phase::Error, "When a response has its status: acts on those"),
    status_row!("response-", Phase::Response, "When a response's head is ready: acts on those"),
    status_row!("final-", Phase::Final, "When a response was sent: acts on those"),
    Row { names: &["add-header"], kind: Custom(add_header), takes: "NAME: VALUE",
          help: "Adds a header to every response", ..ROUTING },
    Row { names: &["del-header", "rem-header"], takes: "NAME",
          kind: Custom(|config, name| { config.routing.del_headers.push(name.trim().into()); Ok(()) }),
          help: "Leaves out a header of the application's", ..ROUTING },
    Row { names: &["collect-header", "response-header-collect"], takes: "HEADER VARIABLE",
          kind: Custom(|config, text| collect_header(config, text, false)),
          help: "Makes a header of the application's a variable for response-route and final-route", ..ROUTING },
    Row { names: &["pull-header"], takes: "HEADER VARIABLE", kind: Custom(|config, text| collect_header(config, text, true)),
          help: "The same, and the header is not sent", ..ROUTING },
    Row { names: &["error-page-403"], takes: "FILE", kind: Custom(|config, file| error_page(config, 403, file)),
          help: "HTML for the server's own responses with this status; the first file that is there counts", ..ROUTING },
    Row { names: &["error-page-404"], takes: "FILE", kind: Custom(|config, file| error_page(config, 404, file)),
          help: "The same for 404", ..ROUTING },
    Row { names: &["error-page-500"], takes: "FILE", kind: Custom(|config, file| error_page(config, 500, file)),
          help: "The same for 500, also where the application raises", ..ROUTING },
];

#[cfg(test)]
mod tests {
    use super::*;

    /// What an option's value comes to.
    fn set(name: &str, value: &str) -> Result<RoutingConfig, String> {
        let mut config = Config::default();
        let row = crate::options::find(name).unwrap_or_else(|| panic!("{name} is an option"));
        row.set(&mut config, value).map(|()| config.routing)
    }

    #[test]
    fn every_option_of_uwsgi_for_rules_is_here() {
        for prefix in ["", "error-", "response-", "final-"] {
            for rest in ["", "-host", "-uri", "-qs", "-remote-addr", "-user-agent", "-remote-user", "-referer"] {
                let routing = set(&format!("{prefix}route{rest}"), "^x log:y").unwrap();
                assert_eq!(routing.rules.len(), 1);
            }
            for (rest, text) in [("-if", "eq:a;b log:"), ("-if-not", "eq:a;b log:"), ("-run", "log:"), ("-label", "x")]
            {
                assert_eq!(set(&format!("{prefix}route{rest}"), text).unwrap().rules.len(), 1);
            }
            assert_eq!(crate::options::find(&format!("{prefix}route-status")).is_some(), !prefix.is_empty());
        }
    }

    #[test]
    fn a_rule_that_is_none_is_an_error_that_says_what_was_expected() {
        let error = set("route", "^/x ldapauth:x").unwrap_err();
        assert!(error.starts_with("expected an action (donotlog, "), "{error}");
        assert!(error.contains("'ldapauth' is an action of uWSGI's that is not here"), "{error}");
        assert_eq!(set("response-route-run", "cachestore:key=x").unwrap(), RoutingConfig::default());
    }

    #[test]
    fn headers_are_read() {
        assert_eq!(
            set("add-header", "Connection: close").unwrap().add_headers,
            [("Connection".into(), "close".into())]
        );
        assert_eq!(set("add-header", "Transfer-Encoding: chunked").unwrap().add_headers, []);
        assert_eq!(set("add-header", "no header at all").unwrap().add_headers, []);
        assert_eq!(set("rem-header", "Server").unwrap().del_headers, ["Server"]);
        let collected = set("pull-header", "X-SSE-Server SSE_SERVER").unwrap().collect_headers.remove(0);
        assert_eq!(
            (collected.header.as_str(), collected.variable.as_str(), collected.pulled),
            ("X-SSE-Server", "SSE_SERVER", true)
        );
        assert!(set("collect-header", "X").is_err());
    }

    #[test]
    fn an_application_is_not_chosen_where_several_are_mounted() {
        let routing = set("route-run", "setapp:/x").unwrap();
        assert_eq!(routing.conflict(false), None);
        assert!(routing.conflict(true).is_some());
    }
}
