//! The options of uWSGI 2.0 that are no rows of ours, and what to do instead of using them. Together with the option
//! table this is every option that uWSGI 2.0 has, in its core and in all the plugins of its source.
//!
//! The names are data, a family a purpose. A name that becomes an option of ours moves to the option table.

mod processes;
mod requests;

/// What becomes of an option of uWSGI's.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Verdict {
    /// Accepted without a word: what it asks for is so, or nothing depends on it.
    Needless,
    /// Not available: a warning, because the server can serve without it.
    Never,
    /// Not available, and without it the server would serve something else, or unprotected: an error.
    Refused,
}

/// Options of one purpose.
pub(crate) struct Family {
    pub(crate) title: &'static str,
    pub(crate) verdict: Verdict,
    /// What to use instead, or why it needs no doing.
    pub(crate) advice: &'static str,
    /// Names of options that take no value.
    pub(crate) flags: &'static [&'static str],
    /// Names of options that take a value.
    pub(crate) values: &'static [&'static str],
    /// Names of options whose value may be left out.
    pub(crate) optional: &'static [&'static str],
}

impl Family {
    /// All of its names.
    pub(crate) fn names(&self) -> impl Iterator<Item = &'static str> {
        self.flags.iter().chain(self.values).chain(self.optional).copied()
    }
}

/// The title of the routers that uWSGI starts beside a server for others.
pub(crate) const OTHER_ROUTERS: &str = "Routers for other servers";

/// The short names of options below.
pub(crate) const SHORTS: [(char, &str); 5] =
    [('c', "cgi-mode"), ('v', "max-vars"), ('r', "reaper"), ('A', "sharedarea"), ('J', "test")];

/// Names of ours that are not uWSGI 2.0's.
pub(crate) const OWN: &[&str] = &[
    "uwsgi",
    "access-log-format",
    "brutal-reload-on-term",
    "check",
    "else",
    "end",
    "gc-stats",
    "ienv",
    "no-new-privs",
    "path-normalize",
    "show-request",
    "slow-request",
    "slow-request-log",
    "spooler-job-limit",
    "stacks",
    "stats-http-cors",
    "temp-dir",
    "temp-size",
    "body-min-rate",
    "control",
    "drain-delay",
    "probe",
    "ready-saturation",
    "response-min-rate",
    "min-rate-grace",
    "route-stats",
    "metrics-compat",
    "metrics-no-routes",
    "otlp",
    "otlp-attributes",
    "otlp-ca",
    "otlp-endpoint",
    "otlp-headers",
    "otlp-interval",
    "otlp-logs",
    "otlp-metrics",
    "otlp-parent",
    "otlp-sample",
    "otlp-service-name",
    "otlp-traces",
    // Of uWSGI after 2.0.
    "statsd-all-gauges",
    "statsd-no-workers",
    "emperor-tyrant-initgroups",
    // Of Datadog's plugin for uWSGI.
    "dogstatsd-all-gauges",
    "dogstatsd-extra-tags",
    "dogstatsd-no-workers",
    "dogstatsd-whitelist-metric",
];

/// The family of an option of uWSGI's.
pub(crate) fn find(name: &str) -> Option<&'static Family> {
    families().find(|family| family.names().any(|known| known == name))
}

/// Every family, in the order in which the page lists them.
pub(crate) fn families() -> impl Iterator<Item = &'static Family> {
    processes::FAMILIES.iter().chain(requests::FAMILIES)
}
