//! Rules about load: threads, queues, the global lock, temporary files, slow clients.

use super::profiled;
use super::rules::{Case, RuleMatch};
use super::track::Sum;
use crate::format;

/// A share as a whole percentage.
pub(super) fn percent(share: f64) -> String {
    format!("{:.0} %", share * 100.0)
}

pub(super) fn saturated(case: &Case<'_>) -> Option<RuleMatch> {
    // Nearly always not: nothing is added up for it.
    if !case.told && !case.track.is_full() {
        return None;
    }
    let (recent, totals) = (case.recent(), &case.sample.totals);
    let cores = totals.cores;
    if cores == 0 || recent.moments < 3 {
        return None;
    }
    let full = recent.full as f64 / recent.moments as f64;
    let utilization = recent.utilization();
    let p95 = recent.waiting.quantile(0.95);
    let waits = p95.is_some_and(|p95| p95 as f64 >= case.threshold(50_000.0, 25_000.0));
    let waited = recent.waited as f64 / recent.moments as f64;
    let holds = match utilization {
        Some(utilization) => {
            full >= case.threshold(1.0, 0.8)
                && utilization >= case.threshold(0.97, 0.9)
                && (waits || waited >= case.threshold(0.5, 0.3))
        }
        // What it did between two samples is not known: every sample has to say so.
        None => recent.moments >= 5 && full >= case.threshold(1.0, 0.8) && waited >= case.threshold(1.0, 0.8),
    };
    if !holds {
        return None;
    }
    let mut parts = vec![format!("{cores} of {cores} threads busy for {}", format::seconds(case.held.as_secs()))];
    let mut evidence = vec![format!(
        "threads that were in a request at the last {} samples: all of {cores} at {}",
        recent.moments, recent.full
    )];
    if let Some(utilization) = utilization {
        evidence.push(format!("busy time of the last 10 s: {} of all threads'", percent(utilization)));
    }
    if let Some(p95) = p95.filter(|_| waits) {
        parts.push(format!("queue p95 {}", format::micros(p95)));
        evidence.push(format!("waiting in the queue: p95 {} of {}", format::micros(p95), recent.waiting.total()));
    } else {
        parts.push(format!("{} wait", totals.queue));
        evidence.push(format!("samples at which something waited: {} of {}", recent.waited, recent.moments));
    }
    let minute = case.track.minute();
    // What runs and does not end is in no route yet: then those that did end do not say where the time goes.
    let is_known = |minute: &&Sum| minute.busy.is_none_or(|(busy, _)| minute.routes_busy as f64 >= busy * 500_000.0);
    let top = minute.filter(is_known).and_then(Sum::top_route).filter(|(_, _, share)| *share >= 0.3);
    if let Some((route, window, share)) = top {
        parts.push(format!("{} of the time in `{route}`", percent(share)));
        let p95 = window.latency.map_or_else(String::new, |latency| format!(", p95 {}", format::micros(latency.p95)));
        evidence.push(format!("`{route}` in the last minute: {} requests{p95}", window.requests));
    } else if let Some((function, share)) = profiled::hottest(case).filter(|(_, share)| *share >= 0.3) {
        parts.push(format!("{} of the time in {function}", percent(share)));
        evidence.push("where the time goes is from the last profile".to_owned());
    }
    let advice = more_workers(case, &mut evidence);
    Some(RuleMatch { sentence: parts.join(", "), evidence, advice })
}

/// What memory says of more workers; `None` when it is not known.
fn more_workers(case: &Case<'_>, evidence: &mut Vec<String>) -> Option<String> {
    let workers = || case.sample.snapshot.workers.iter().filter(|worker| worker.pid > 0);
    let mut own: Vec<u64> = workers().filter_map(|worker| worker.uss.filter(|uss| *uss > 0)).collect();
    own.sort_unstable();
    let each = *own.get(own.len() / 2)?;
    let room = case.room?(&case.sample.snapshot)?;
    // Not the last tenth: caches of files live there.
    let fit = room.bytes / 10 * 9 / each;
    evidence.push(format!(
        "memory: {} are there ({}), a tenth of it left alone; a worker has {} of its own (USS, the median of {})",
        format::size(room.bytes),
        room.told_by,
        format::size(each),
        own.len()
    ));
    Some(match fit {
        0 => "no more workers fit into memory: less work in each request, or another machine".to_owned(),
        1 => "1 more worker fits into memory".to_owned(),
        101.. => "more than 100 more workers fit into memory".to_owned(),
        fit => format!("{fit} more workers fit into memory"),
    })
}

pub(super) fn gil(case: &Case<'_>) -> Option<RuleMatch> {
    let minute = case.track.minute()?;
    let ((busy, _), waited, utilization) = (minute.busy?, minute.gil?, minute.utilization()?);
    if busy <= 0.0 || minute.all.requests < 20 || minute.seconds < 5.0 || utilization < case.threshold(0.3, 0.2) {
        return None;
    }
    let share = (waited / busy).min(1.0);
    if share < case.threshold(0.3, 0.2) {
        return None;
    }
    let workers = &case.sample.snapshot.workers;
    let (processes, threads) = (workers.iter().filter(|worker| worker.pid > 0).count(), case.sample.totals.cores);
    Some(RuleMatch {
        sentence: format!(
            "{} of the busy time waits for Python's global lock, in {processes} processes of {threads} threads together",
            percent(share)
        ),
        evidence: vec![
            format!("waited for the lock in the last minute: {waited:.1} s of {busy:.1} s in requests"),
            format!("threads were busy for {} of it", percent(utilization)),
        ],
        advice: None,
    })
}

pub(super) fn queue(case: &Case<'_>) -> Option<RuleMatch> {
    let recent = case.recent();
    let (p95, total) = (recent.waiting.quantile(0.95)?, recent.waiting.total());
    if total < 20 || (p95 as f64) < case.threshold(200_000.0, 100_000.0) {
        return None;
    }
    let utilization = recent.utilization().filter(|utilization| *utilization < 0.97)?;
    Some(RuleMatch {
        sentence: format!(
            "requests wait for a thread: queue p95 {}, though threads are busy for {} of the time",
            format::micros(p95),
            percent(utilization)
        ),
        evidence: vec![
            format!("waited in the last 10 s: p95 {} of {total}", format::micros(p95)),
            format!("wait now: {} of {}", case.sample.totals.queue, case.sample.totals.queue_capacity),
        ],
        advice: None,
    })
}

pub(super) fn refused(case: &Case<'_>) -> Option<RuleMatch> {
    let minute = case.track.minute()?;
    if minute.refused == 0 {
        return None;
    }
    let capacity = case.sample.totals.queue_capacity;
    Some(RuleMatch {
        sentence: format!(
            "{} connections or requests were refused in the last minute: a queue was full",
            minute.refused
        ),
        evidence: vec![
            format!("refused since the start: {}", case.sample.totals.queue_errors),
            format!("wait now: {} of {capacity}", case.sample.totals.queue),
        ],
        advice: None,
    })
}

pub(super) fn temp_files(case: &Case<'_>) -> Option<RuleMatch> {
    let files = case.sample.snapshot.temp_files.as_ref()?;
    let refused = case.track.minute().map_or(0, |minute| minute.temp_refused);
    let share = if files.limit > 0 { files.bytes as f64 / files.limit as f64 } else { 0.0 };
    if refused == 0 && share < case.threshold(0.9, 0.8) {
        return None;
    }
    let mut sentence = format!("temporary files take {}", format::size(files.bytes));
    if files.limit > 0 {
        sentence += &format!(" of {}", format::size(files.limit));
    }
    if refused > 0 {
        sentence += &format!(", and {refused} bodies were refused in the last minute");
    }
    let evidence = vec![format!("in {}", files.dir), format!("bodies refused since the start: {}", files.refused)];
    Some(RuleMatch { sentence, evidence, advice: None })
}

pub(super) fn slow_clients(case: &Case<'_>) -> Option<RuleMatch> {
    let minute = case.track.minute()?;
    let (closed, requests) = (minute.slow_clients, minute.all.requests);
    if (closed as f64) < case.threshold(10.0, 5.0) || closed.saturating_mul(100) < requests {
        return None;
    }
    Some(RuleMatch {
        sentence: format!("{closed} connections were closed in the last minute because the client was too slow"),
        evidence: vec![format!("requests completed in the same time: {requests}")],
        advice: None,
    })
}
