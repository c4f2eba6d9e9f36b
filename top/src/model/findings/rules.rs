//! The rules: ONE table of name, condition, advice and who tells what it needs. The docs are made from it.
//!
//! The first that holds is what the screen says. A condition has to hold for `after`; once it is told, most conditions are
//! milder, and what was told stays for a while: nothing flickers.

use std::time::Duration;

use super::profiled::Profiled;
use super::track::{Sum, Track};
use super::{AskRoom, load, processes, profiled, requests};
use crate::model::{MemoryTrack, Sample};
use rwsgi_assertions::Teller;

/// What a rule judges.
pub(super) struct Case<'a> {
    pub(super) sample: &'a Sample,
    pub(super) track: &'a Track,
    pub(super) memory: &'a [MemoryTrack],
    pub(super) room: Option<AskRoom>,
    pub(super) profiled: Option<&'a Profiled>,
    /// It was found at the moment before.
    pub(super) told: bool,
    /// For how long its condition has held.
    pub(super) held: Duration,
}

impl Case<'_> {
    /// One of two thresholds: the first to begin with, the second to stay.
    pub(super) fn threshold(&self, begin: f64, stay: f64) -> f64 {
        if self.told { stay } else { begin }
    }

    /// The last ten seconds.
    pub(super) fn recent(&self) -> Sum {
        self.track.over(self.sample.at, Duration::from_secs(10))
    }
}

/// What a rule says.
pub(super) struct RuleMatch {
    pub(super) sentence: String,
    pub(super) evidence: Vec<String>,
    /// In place of the rule's own.
    pub(super) advice: Option<String>,
}

/// A row of the table.
pub(crate) struct Rule {
    /// Its name.
    pub(crate) name: &'static str,
    /// When it holds, for help and docs.
    pub(crate) when: &'static str,
    /// What to do.
    pub(crate) advice: &'static str,
    /// Which servers tell what it needs; of others it says nothing.
    pub(crate) teller: Teller,
    /// A rule before it that says all that it would say; empty for none.
    pub(super) under: &'static str,
    /// For how long it has to hold.
    pub(super) after: Duration,
    pub(super) found: fn(&Case<'_>) -> Option<RuleMatch>,
}

macro_rules! rules {
    ($($name:literal $teller:ident $after:literal $(, under $under:literal)? => $found:path, $when:literal, $advice:literal;)*) => {
        &[$(Rule {
            name: $name, when: $when, advice: $advice, teller: Teller::$teller, under: concat!("" $(, $under)?), after: Duration::from_secs($after),
            found: $found,
        }),*]
    };
}

/// Every rule, the most important first.
pub(crate) const RULES: &[Rule] = rules! {
    "unresponsive" Rwsgi 0 => processes::unresponsive,
        "a worker has shown no sign of life for 5 s",
        "its stacks say where it hangs: rwsgi --stacks";
    "respawn-storm" Both 0 => processes::respawn_storm,
        "3 processes died within a minute; of uWSGI, one worker was started 3 times within a minute",
        "the log says how they ended";
    "harakiri" Both 0 => requests::harakiri,
        "a request was ended within the last minute for running too long",
        "slow requests (slow-request = 5s) have the stacks of what hangs";
    "stuck-thread" Rwsgi 0 => requests::stuck_thread,
        "a request runs for more than 10 s and 20 times the p99 of the last minute's 20 or more requests of its route (or of all, where routes are not told); or every thread is in a request that runs for more than 10 s, and none was completed in the last 10 s",
        "its stack says where it waits: key b, or rwsgi --stacks";
    "errors" Rwsgi 0 => requests::errors,
        "2 % of the last minute's responses, and at least 5, are 5xx, and that is 3 times what it was in the two minutes before; without those, 10 %",
        "the last exceptions are with the routes and the workers";
    "worse-deploy" Both 0 => requests::worse_deploy,
        "within 5 minutes after a reload, the new generation's share of requests that raise is 1 % and 3 times what it was before, by more than 3 standard errors",
        "go back to the version before, or look at the last exceptions";
    "refused" Both 0 => load::refused,
        "a connection or request was refused within the last minute because a queue was full",
        "more workers or threads; a longer queue only delays it";
    "saturated" Both 10 => load::saturated,
        "every thread was in a request at every sample of the last 10 s, the threads were busy for 97 % of it, and requests waited: 50 ms at p95, or in the listen queue at every other sample (uWSGI: at every sample)",
        "more workers, or less work in each request";
    "gil" Rwsgi 10 => load::gil,
        "30 % of the last minute's busy time of workers with several threads waited for Python's global lock, and threads were busy for 30 % of it",
        "more processes rather than threads";
    "queue" Rwsgi 10, under "saturated" => load::queue,
        "of the last 10 s' requests, 20 or more, 5 % waited for 200 ms before a thread took them, though threads were free: busy for less than 97 % of the time",
        "requests come in bursts: more threads or workers take them";
    "slow-route" Rwsgi 10 => requests::slow_route,
        "one route took half of the last minute's busy time, its p95 is over 250 ms and 5 times that of the others, and threads were busy for half of the time",
        "the route's slow requests and profile say what it does";
    "database" Rwsgi 0 => profiled::database,
        "a profile was taken within 5 minutes, half of its 100 or more samples waited for a database, and threads were busy for half of the last minute",
        "fewer or faster queries: the flame graph says which";
    "missing-workers" Both 10 => processes::missing_workers,
        "a worker that is not cheap has had no process for 10 s",
        "the log says why it does not start";
    "memory-growth" Rwsgi 0 => processes::memory_growth,
        "over 10 minutes or more, a worker's memory grew by 10 % and 8 MB, in both halves of that time, and by more than twice the error of the slope, or sooner, over 2 minutes or more, by half and 64 MB and evenly; and reload-on-rss is less than an hour away, or there is none. Before that, key m on a worker says how fast it grows",
        "the memory view (key m) says which types and lines grow";
    "memory-limit" Rwsgi 0 => processes::memory_limit,
        "a worker's memory is at 90 % of reload-on-rss",
        "it is replaced when it gets there: raise the limit, or find what grows";
    "temp-files" Rwsgi 0 => load::temp_files,
        "temporary files take 90 % of temp-size, or a body was refused within the last minute because there was no space",
        "raise temp-size, or bound bodies with limit-post";
    "slow-clients" Rwsgi 0 => load::slow_clients,
        "10 connections, and one for each 100 requests, were closed within the last minute because the client was too slow",
        "a flood of slow clients, or least rates that are too high for yours";
};
