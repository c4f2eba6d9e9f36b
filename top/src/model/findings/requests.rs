//! Rules about requests: what fails, what hangs, what takes the time.

use std::time::Duration;

use rwsgi_stats::{Core, RequestInfo, Worker};

use super::load::percent;
use super::rules::{Case, RuleMatch};
use super::track::{Outcomes, Sum};
use crate::format;
use crate::model::{Counts, RouteWindow, Sample};

/// A percentile of fewer requests than this says nothing.
const ENOUGH: u64 = 20;

pub(super) fn harakiri(case: &Case<'_>) -> Option<RuleMatch> {
    let minute = case.track.minute()?;
    let ended = minute.harakiri;
    if ended == 0 {
        return None;
    }
    let limit = case.sample.snapshot.limits.map_or(0, |limits| limits.harakiri);
    let than = if limit > 0 { format!("longer than {}", format::seconds(limit)) } else { "too long".to_owned() };
    let requests = if ended == 1 { "1 request was".to_owned() } else { format!("{ended} requests were") };
    Some(RuleMatch {
        sentence: format!("{requests} ended in the last minute for running {than}"),
        evidence: vec![format!("harakiri since the start: {}", case.sample.totals.harakiri)],
        advice: None,
    })
}

/// From when on a request may be called stuck, µs.
const STUCK: u64 = 10_000_000;
/// Requests that are listed.
const LISTED: usize = 5;

/// A request that runs.
struct Running<'a> {
    worker: &'a Worker,
    core: &'a Core,
    /// µs.
    age: u64,
}

impl Running<'_> {
    fn route(&self) -> Option<&str> {
        self.core.req_info.route.as_deref().filter(|route| !route.is_empty())
    }

    fn line(&self) -> String {
        let RequestInfo { method, uri, .. } = &self.core.req_info;
        let what = |part: &Option<String>| part.clone().unwrap_or_default();
        let (worker, core) = (self.worker, self.core.id);
        format!("worker {} (pid {}), core {core}: {} {}", worker.id, worker.pid, what(method), what(uri))
    }
}

pub(super) fn stuck_thread(case: &Case<'_>) -> Option<RuleMatch> {
    let workers = case.sample.snapshot.workers.iter().filter(|worker| worker.pid > 0);
    let cores = workers.flat_map(|worker| worker.cores.iter().map(move |core| (worker, core)));
    let running = cores.filter(|(_, core)| core.in_request != 0);
    let long = running.filter_map(|(worker, core)| {
        Some(Running { worker, core, age: core.req_info.elapsed.filter(|age| *age >= STUCK)? })
    });
    let mut long: Vec<Running<'_>> = long.collect();
    long.sort_by_key(|running| std::cmp::Reverse(running.age));
    // A stream that is meant to last hides no other.
    nothing_ends(case, &long).or_else(|| long.iter().find_map(|running| unusual(case, running)))
}

/// Every thread is in a request that has run for long, and none has ended meanwhile.
fn nothing_ends(case: &Case<'_>, long: &[Running<'_>]) -> Option<RuleMatch> {
    let cores = case.sample.totals.cores;
    let oldest = long.first()?;
    let silent = case.track.without_requests(case.sample.at);
    if long.len() < 2 || (long.len() as u64) < cores || silent < Duration::from_micros(STUCK) {
        return None;
    }
    let mut routes: Vec<(&str, usize)> = Vec::new();
    for route in long.iter().filter_map(Running::route) {
        match routes.iter_mut().find(|(known, _)| *known == route) {
            Some((_, count)) => *count += 1,
            None => routes.push((route, 1)),
        }
    }
    let most = routes.into_iter().max_by_key(|(_, count)| *count);
    let of = most.map_or_else(String::new, |(route, count)| format!(", {count} of them of `{route}`"));
    let line = |running: &Running<'_>| format!("{}, for {}", running.line(), format::micros(running.age));
    let mut evidence: Vec<String> = long.iter().take(LISTED).map(line).collect();
    evidence.push(format!("requests completed in the last {}: none", format::seconds(silent.as_secs())));
    Some(RuleMatch {
        sentence: format!(
            "no request has ended for {}: all {cores} threads are in requests{of}, the oldest for {}",
            format::seconds(silent.as_secs()),
            format::micros(oldest.age)
        ),
        evidence,
        advice: None,
    })
}

/// A request that has run for much longer than those of its route do.
fn unusual(case: &Case<'_>, running: &Running<'_>) -> Option<RuleMatch> {
    let minute = case.track.minute()?;
    let (whose, latency, count) = match running.route() {
        Some(route) => {
            let window = minute.routes.get(route)?;
            (format!("of `{route}`"), window.counts.quantile(0.99)?, window.counts.total())
        }
        None => {
            let all = all_latency(case)?;
            ("of all".to_owned(), all.quantile(0.99)?, all.total())
        }
    };
    if count < ENOUGH || running.age < latency.saturating_mul(20) {
        return None;
    }
    Some(RuleMatch {
        sentence: format!(
            "a request has run for {}, where 99 % {whose} take at most {}",
            format::micros(running.age),
            format::micros(latency)
        ),
        evidence: vec![
            running.line(),
            format!("p99 {whose} in the last minute: {} of {count} requests", format::micros(latency)),
        ],
        advice: None,
    })
}

/// Latencies of the sample's window: there is no more where routes are not told.
fn all_latency(case: &Case<'_>) -> Option<Counts> {
    if case.sample.snapshot.routes.is_some() { None } else { case.sample.totals.latency.clone() }
}

pub(super) fn errors(case: &Case<'_>) -> Option<RuleMatch> {
    // Where status codes are not told, there are none.
    let told = |sample: &Sample| sample.snapshot.workers.iter().any(|worker| worker.responses.is_some());
    let minute = case.track.minute().filter(|_| told(case.sample))?;
    let Outcomes { requests, errors, .. } = minute.all;
    if errors < 5 || requests == 0 {
        return None;
    }
    let before = case.track.before_minute(case.sample.at).all;
    let known = before.requests >= ENOUGH;
    let (share, then) = (errors as f64 / requests as f64, before.errors as f64 / before.requests.max(1) as f64);
    let holds = if known {
        share >= case.threshold(0.02, 0.01) && share >= case.threshold(3.0, 1.5) * then
    } else {
        share >= case.threshold(0.1, 0.05)
    };
    if !holds {
        return None;
    }
    let mut sentence = format!("{} of the last minute's responses are 5xx ({errors} of {requests})", percent(share));
    let mut evidence = Vec::new();
    if known {
        evidence.push(format!("in the minutes before: {} of {}", before.errors, before.requests));
    }
    if let Some((route, window)) = minute.routes.iter().max_by_key(|(_, window)| window.errors)
        && window.errors.saturating_mul(2) >= errors
    {
        sentence += &format!(", {} of them of `{route}`", percent((window.errors as f64 / errors as f64).min(1.0)));
        evidence.push(format!("`{route}`: {} of {} requests", window.errors, window.requests));
    }
    if let Some(generation) = guilty_generation(minute) {
        sentence += &format!(", nearly all of generation {generation}");
    }
    for (generation, outcomes) in &minute.generations {
        evidence.push(format!("generation {generation}: {} of {} requests", outcomes.errors, outcomes.requests));
    }
    evidence.extend(last_exception(case.sample));
    Some(RuleMatch { sentence, evidence, advice: None })
}

/// Of several generations that serve, the one that nearly all errors are of.
fn guilty_generation(minute: &Sum) -> Option<u32> {
    let serving = minute.generations.iter().filter(|(_, outcomes)| outcomes.requests > 0);
    if serving.clone().count() < 2 {
        return None;
    }
    let (generation, outcomes) = serving.max_by_key(|(_, outcomes)| outcomes.errors)?;
    (outcomes.errors as f64 >= minute.all.errors as f64 * 0.9).then_some(*generation)
}

/// The last exception of all workers, in a line.
fn last_exception(sample: &Sample) -> Option<String> {
    let known = sample.snapshot.workers.iter().filter_map(|worker| worker.last_exception.as_ref());
    let last = known.max_by_key(|exception| exception.when)?;
    Some(format!("the last exception: {}: {} at {}", last.kind, last.message, last.location))
}

pub(super) fn worse_deploy(case: &Case<'_>) -> Option<RuleMatch> {
    let deploy = case.track.deploy?;
    let age = case.sample.at.since(deploy.at);
    let (before, since) = (deploy.before, deploy.since);
    if age > Duration::from_secs(300) || before.requests < ENOUGH || since.requests < ENOUGH || since.exceptions < 3 {
        return None;
    }
    let (then, now) =
        (before.exceptions as f64 / before.requests as f64, since.exceptions as f64 / since.requests as f64);
    let (many, few) = (since.requests as f64, before.requests as f64);
    let pooled = (before.exceptions as f64 + since.exceptions as f64) / (many + few);
    let error = (pooled * (1.0 - pooled) * (1.0 / many + 1.0 / few)).sqrt();
    if now < case.threshold(0.01, 0.005) || now < case.threshold(3.0, 1.5) * then || now - then < 3.0 * error {
        return None;
    }
    let mut evidence = vec![
        format!("before: {} of {} requests raised", before.exceptions, before.requests),
        format!(
            "since: {} of {}; the standard error of the difference is {}",
            since.exceptions,
            since.requests,
            percent(error)
        ),
    ];
    evidence.extend(last_exception(case.sample));
    Some(RuleMatch {
        sentence: format!(
            "{} of the requests raise since generation {} began to serve {} ago, {} before",
            tenths(now),
            deploy.generation,
            format::seconds(age.as_secs()),
            tenths(then)
        ),
        evidence,
        advice: None,
    })
}

/// A share as a percentage with a decimal.
fn tenths(share: f64) -> String {
    format!("{} %", format::percent(share))
}

pub(super) fn slow_route(case: &Case<'_>) -> Option<RuleMatch> {
    let minute = case.track.minute()?;
    let (route, window, share) = minute.top_route()?;
    let p95 = window.latency?.p95;
    let mut others = RouteWindow::default();
    minute.routes.iter().filter(|(name, _)| *name != route).for_each(|(_, window)| others.add(window));
    let other = others.latency?.p95;
    let holds = minute.utilization()? >= case.threshold(0.5, 0.4)
        && share >= case.threshold(0.5, 0.4)
        && p95 as f64 >= case.threshold(250_000.0, 150_000.0)
        && p95 as f64 >= case.threshold(5.0, 3.0) * other as f64
        && window.requests >= 5
        && others.requests >= ENOUGH
        && minute.seconds >= 5.0;
    if !holds {
        return None;
    }
    let requests = minute.all.requests.max(window.requests).max(1);
    Some(RuleMatch {
        sentence: format!(
            "`{route}` takes {} of the time with {} of the requests: p95 {}, of the others {}",
            percent(share),
            percent(window.requests as f64 / requests as f64),
            format::micros(p95),
            format::micros(other)
        ),
        evidence: vec![
            format!("`{route}` in the last minute: {} requests, {} busy", window.requests, format::micros(window.busy)),
            format!("all routes: {} requests, {} busy", requests, format::micros(minute.routes_busy)),
            format!("threads were busy for {} of the time", percent(minute.utilization().unwrap_or(0.0))),
        ],
        advice: None,
    })
}
