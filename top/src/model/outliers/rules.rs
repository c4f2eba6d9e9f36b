//! The rules: ONE table of name, condition and advice, the most severe first. The docs are made from it.

use std::time::Duration;

use super::compared::Group;
use super::onset::Onset;
use super::track::Track;
use super::{alone, compared};
use crate::model::fleet::Tracked;
use crate::source::Monotonic;

/// What a rule judges: one server among its peers.
pub(super) struct Case<'a> {
    pub(super) server: &'a Tracked,
    pub(super) track: &'a Track,
    pub(super) group: &'a Group,
    pub(super) at: Monotonic,
    /// It was found at the moment before.
    pub(super) told: bool,
}

impl Case<'_> {
    /// One of two thresholds: the first to begin with, the second to stay.
    pub(super) fn threshold(&self, begin: f64, stay: f64) -> f64 {
        if self.told { stay } else { begin }
    }
}

/// What a rule says.
pub(super) struct Said {
    /// What follows the server's name.
    pub(super) sentence: String,
    pub(super) evidence: Vec<String>,
    pub(super) weight: f64,
    pub(super) onset: Onset,
}

/// A row of the table.
#[derive(Debug)]
pub(crate) struct Rule {
    /// Its name.
    pub(crate) name: &'static str,
    /// When it holds, for help and docs.
    pub(crate) when: &'static str,
    /// What to do.
    pub(crate) advice: &'static str,
    /// It compares with peers, of which there must be enough.
    pub(crate) needs_peers: bool,
    /// It is a fact and no measurement: it is told at once, and no longer than it holds.
    pub(crate) is_exact: bool,
    /// For how long it has to hold.
    pub(super) after: Duration,
    pub(super) found: fn(&Case<'_>) -> Option<Said>,
}

macro_rules! rules {
    ($($name:literal $kind:ident $after:literal => $found:path, $when:literal, $advice:literal;)*) => {
        &[$(Rule {
            name: $name, when: $when, advice: $advice, needs_peers: rules!(@peers $kind), is_exact: rules!(@exact $kind),
            after: Duration::from_secs($after), found: $found,
        }),*]
    };
    (@peers compared) => { true };
    (@peers mismatch) => { true };
    (@peers $other:ident) => { false };
    (@exact compared) => { false };
    (@exact $other:ident) => { true };
}

/// Every rule, the most severe first.
pub(crate) const RULES: &[Rule] = rules! {
    "dead" alone 0 => alone::dead,
        "the server cannot be read",
        "look whether it runs, and whether its stats address is the one that is asked";
    "restart-loop" alone 0 => alone::restart_loop,
        "the server was restarted 3 times within 10 minutes",
        "its log says how it ended: journalctl -u, kubectl logs --previous";
    "silent" alone 10 => alone::silent,
        "the server has been asked and has not answered for 10 s",
        "its machine is overloaded, or the network between is slow";
    "errors" compared 5 => compared::errors,
        "2 % of its requests, and at least 5, failed (5xx; exceptions, of uWSGI), and that is 3 times its peers' share, by more than 5 standard errors and 5 times what its peers are apart",
        "its log and its last exceptions (enter) say why";
    "slow" compared 5 => compared::slow,
        "its median or p99 (uWSGI: its mean) is twice that of its peers and 5 ms more, beyond what so few requests tell (p99: 300 requests, median: 50) and beyond 5 times what its peers are apart",
        "what is different there: its code, its machine, what it waits for (enter, then P: a profile)";
    "saturated" compared 5 => compared::saturated,
        "its busy threads and waiting requests are 90 % of its threads, and its peers' half of that",
        "the load balancer gives it too much, or its requests take too long";
    "memory" compared 5 => compared::memory,
        "its memory is twice that of its peers, 64 MB more, and beyond 5 times what its peers are apart",
        "enter, then m: which worker grows; reload-on-rss bounds it";
    "reload-hangs" alone 0 => alone::reload_hangs,
        "its workers have served more than one generation for 5 minutes",
        "the new generation does not become ready, or a canary was left: rwsgi ctl status";
    "version" mismatch 0 => alone::version,
        "three quarters of its peers run one version, and it runs another",
        "a rollout that goes on, or one that has left it out";
    "generation" mismatch 0 => alone::generation,
        "three quarters of its peers serve one generation, and it serves another, though it started when they did",
        "a reload that goes on, or one that has left it out";
};
