//! Rules about processes: those that hang, die, are missing or grow.

use std::time::Duration;

use super::rules::{Case, RuleMatch};
use crate::format;
use crate::model::MemoryPoint;

/// How long a worker must be silent.
const SILENT: u64 = 5_000_000;
/// A slope over less time than this is a start, and no leak,
const LEAST: Duration = Duration::from_secs(600);
/// unless it is very steep and even for so long.
const STEEP: Duration = Duration::from_secs(120);

pub(super) fn unresponsive(case: &Case<'_>) -> Option<RuleMatch> {
    let workers = &case.sample.snapshot.workers;
    let silent =
        workers.iter().filter(|worker| worker.pid > 0 && worker.unresponsive_for.is_some_and(|time| time >= SILENT));
    let silent: Vec<_> = silent.collect();
    let longest = silent.iter().max_by_key(|worker| worker.unresponsive_for)?;
    let time = format::micros(longest.unresponsive_for.unwrap_or(0));
    let sentence = match silent.len() {
        1 => format!("worker {} has shown no sign of life for {time}", longest.id),
        many => format!("{many} of {} workers have shown no sign of life, one for {time}", workers.len()),
    };
    let line = |worker: &&rwsgi_stats::Worker| {
        let time = format::micros(worker.unresponsive_for.unwrap_or(0));
        format!("worker {} (pid {}): {time}", worker.id, worker.pid)
    };
    Some(RuleMatch { sentence, evidence: silent.iter().map(line).collect(), advice: None })
}

pub(super) fn respawn_storm(case: &Case<'_>) -> Option<RuleMatch> {
    let minute = case.track.minute()?;
    let workers = &case.sample.snapshot.workers;
    let (died, worst) = match &minute.crashes {
        Some(crashes) => {
            (crashes.values().copied().fold(0, u64::saturating_add), crashes.iter().max_by_key(|(_, count)| **count))
        }
        None => (0, None),
    };
    if let Some((worker, count)) = worst.filter(|_| died as f64 >= case.threshold(3.0, 1.0)) {
        return Some(RuleMatch {
            sentence: format!("{died} worker processes died in the last minute"),
            evidence: vec![format!("most often worker {worker}: {count} times")],
            advice: None,
        });
    }
    if minute.crashes.is_some() {
        return None;
    }
    // It does not tell why: a reload starts each once.
    let pairs = workers.iter().zip(&case.sample.workers);
    let (worker, rates) = pairs.max_by_key(|(_, rates)| rates.respawned)?;
    if (rates.respawned as f64) < case.threshold(3.0, 2.0) {
        return None;
    }
    Some(RuleMatch {
        sentence: format!("worker {} was started {} times within a minute", worker.id, rates.respawned),
        evidence: vec![format!("started since the server's start: {} times", worker.respawn_count)],
        advice: None,
    })
}

pub(super) fn missing_workers(case: &Case<'_>) -> Option<RuleMatch> {
    let workers = &case.sample.snapshot.workers;
    // uWSGI has 0 for one that never ran.
    let missing = workers.iter().filter(|worker| worker.id > 0 && worker.pid <= 0 && worker.status != "cheap");
    let missing: Vec<String> = missing.map(|worker| worker.id.to_string()).collect();
    if missing.is_empty() {
        return None;
    }
    let verb = if missing.len() == 1 { "has" } else { "have" };
    Some(RuleMatch {
        sentence: format!(
            "{} of {} workers {verb} had no process for {}",
            missing.len(),
            workers.len(),
            format::seconds(case.held.as_secs())
        ),
        evidence: vec![format!("without a process, and not cheap: {}", missing.join(", "))],
        advice: None,
    })
}

/// How fast memory grows.
struct Slope {
    /// Bytes an hour.
    per_hour: f64,
    /// Its standard error.
    error: f64,
}

/// By least squares.
fn slope(points: &[MemoryPoint]) -> Option<Slope> {
    let n = points.len() as f64;
    let first = points.first()?.at;
    let hours = |point: &MemoryPoint| point.at.since(first).as_secs_f64() / 3_600.0;
    let (mean_x, mean_y) =
        (points.iter().map(hours).sum::<f64>() / n, points.iter().map(|point| point.rss as f64).sum::<f64>() / n);
    let variance: f64 = points.iter().map(|point| (hours(point) - mean_x).powi(2)).sum();
    if points.len() < 5 || variance <= 0.0 {
        return None;
    }
    let covariance: f64 = points.iter().map(|point| (hours(point) - mean_x) * (point.rss as f64 - mean_y)).sum();
    let per_hour = covariance / variance;
    let rest = |point: &MemoryPoint| point.rss as f64 - mean_y - per_hour * (hours(point) - mean_x);
    let error = (points.iter().map(|point| rest(point).powi(2)).sum::<f64>() / (n - 2.0) / variance).sqrt();
    Some(Slope { per_hour, error })
}

/// Whether memory grew by half and by much, from each point to the next, and at the end about as fast as at the beginning: a
/// start has a large step, and a cache that fills slows down.
fn is_steep(points: &[MemoryPoint]) -> bool {
    let rate = |from: &MemoryPoint, to: &MemoryPoint| {
        (to.rss as f64 - from.rss as f64) / to.at.since(from.at).as_secs_f64().max(1.0)
    };
    let (third, last) = (points.len() / 3, points.len().saturating_sub(1));
    if third == 0 {
        return false;
    }
    let (first, grown) = (&points[0], points[last].rss.saturating_sub(points[0].rss));
    let mean = rate(first, &points[last]);
    let mut steps = points.windows(2).map(|pair| rate(&pair[0], &pair[1]));
    let is_even = steps.all(|step| step > 0.0 && step < 3.0 * mean)
        && rate(&points[last - third], &points[last]) >= 0.8 * rate(first, &points[third]);
    grown >= 64 << 20 && grown >= first.rss / 2 && is_even
}

pub(super) fn memory_growth(case: &Case<'_>) -> Option<RuleMatch> {
    let limit = case.sample.snapshot.limits.map_or(0, |limits| limits.reload_on_rss);
    let tracks = case.sample.snapshot.workers.iter().zip(case.memory);
    let growing = tracks.filter(|(worker, _)| worker.pid > 0).filter_map(|(worker, track)| {
        let points: Vec<MemoryPoint> = track.points(case.sample.at).copied().collect();
        let (first, last) = (points.first()?, points.last()?);
        let grown = last.rss.saturating_sub(first.rss);
        let over = last.at.since(first.at);
        if (over < LEAST && !(over >= STEEP && is_steep(&points))) || grown < 8 << 20 || grown < first.rss / 10 {
            return None;
        }
        let (whole, half) = (slope(&points)?, slope(&points[points.len() / 2..])?);
        // What slows down is a start, or a cache that fills.
        let steady = half.per_hour - 2.0 * half.error > 0.0 && half.per_hour > whole.per_hour / 2.0;
        let certain = whole.per_hour - 2.0 * whole.error > 0.0;
        (steady && certain).then_some((worker, whole, grown, over))
    });
    let growing: Vec<_> = growing.collect();
    let (worker, slope, grown, over) = growing.iter().max_by(|a, b| a.1.per_hour.total_cmp(&b.1.per_hour))?;
    let reached = (limit > 0).then(|| limit.saturating_sub(worker.rss) as f64 / slope.per_hour * 3_600.0);
    if reached.is_some_and(|seconds| seconds > case.threshold(3_600.0, 5_400.0)) {
        return None;
    }
    let size = |bytes: f64| format::size(bytes.max(0.0) as u64);
    let mut sentence =
        format!("worker {} grows by {} ± {} an hour", worker.id, size(slope.per_hour), size(2.0 * slope.error));
    if let Some(seconds) = reached {
        sentence +=
            &format!(", and reaches reload-on-rss of {} in {}", format::size(limit), format::seconds(seconds as u64));
    }
    let mut evidence = vec![
        format!(
            "its memory in the last {}: {} more, now {}",
            format::seconds(over.as_secs()),
            format::size(*grown),
            format::size(worker.rss)
        ),
        format!("workers that grow steadily: {} of {}", growing.len(), case.sample.snapshot.workers.len()),
    ];
    let routes = case.sample.snapshot.routes.iter().flatten().filter(|route| route.memory_samples > 0);
    if let Some(route) = routes.max_by_key(|route| route.memory_growth).filter(|route| route.memory_growth > 0) {
        let each = route.memory_growth as f64 / route.memory_samples as f64;
        evidence.push(format!("most of it in requests of `{}`: {} each", route.route, size(each)));
    }
    Some(RuleMatch { sentence, evidence, advice: None })
}

pub(super) fn memory_limit(case: &Case<'_>) -> Option<RuleMatch> {
    let limit = case.sample.snapshot.limits.map_or(0, |limits| limits.reload_on_rss);
    let workers = case.sample.snapshot.workers.iter().filter(|worker| worker.pid > 0);
    let near = workers.filter(|worker| limit > 0 && worker.rss as f64 >= limit as f64 * case.threshold(0.9, 0.85));
    let near: Vec<_> = near.collect();
    let most = near.iter().max_by_key(|worker| worker.rss)?;
    let line = |worker: &&rwsgi_stats::Worker| {
        format!("worker {}: {} of {}", worker.id, format::size(worker.rss), format::size(limit))
    };
    Some(RuleMatch {
        sentence: format!(
            "worker {} has {} of the {} at which it is replaced (reload-on-rss)",
            most.id,
            format::size(most.rss),
            format::size(limit)
        ),
        evidence: near.iter().map(line).collect(),
        advice: None,
    })
}
