//! Alerts: one list, from one sample and what came before it, against thresholds.

use std::time::Duration;

use super::{History, Sample};
use crate::format;
use crate::source::Monotonic;

/// When something is worth a look. All can be set in the configuration file.
#[derive(Clone, Copy, Debug, PartialEq, serde::Deserialize)]
#[serde(default, deny_unknown_fields)]
pub(crate) struct Thresholds {
    /// The queue is filled to this share of its capacity.
    pub(crate) queue: f64,
    /// A worker's memory is this share of its limit.
    pub(crate) memory: f64,
    /// A request is older than this share of harakiri.
    pub(crate) request_age: f64,
    /// Where harakiri is not known: a request is older than this many seconds.
    pub(crate) request_seconds: u64,
    /// A worker was started this often within a minute.
    pub(crate) respawns: u64,
    /// At least this share of the last minute's requests raised, and twice that of the minutes before.
    pub(crate) error_rate: f64,
    /// A worker's p95 is this many times the median of all workers.
    pub(crate) slow_worker: f64,
}

impl Default for Thresholds {
    fn default() -> Self {
        Self {
            queue: 0.8,
            memory: 0.9,
            request_age: 0.5,
            request_seconds: 30,
            respawns: 3,
            error_rate: 0.01,
            slow_worker: 3.0,
        }
    }
}

/// A percentile of fewer requests than this says nothing of a worker.
const ENOUGH: f64 = 20.0;

/// Something that deserves a look.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Alert {
    /// The worker (its place) that it is about; `None` when it is the server.
    pub(crate) worker: Option<usize>,
    /// What it is, in a line.
    pub(crate) text: String,
}

/// All alerts of a moment.
pub(crate) fn alerts(sample: &Sample, history: &History, thresholds: &Thresholds) -> Vec<Alert> {
    let mut found = Vec::new();
    queue(sample, thresholds, &mut found);
    errors(sample, history, thresholds, &mut found);
    let limits = sample.snapshot.limits.unwrap_or_default();
    let median = median_p95(sample);
    for (place, (worker, rates)) in sample.snapshot.workers.iter().zip(&sample.workers).enumerate() {
        let mut add = |text: String| {
            found.push(Alert { worker: Some(place), text: format!("worker {}: {text}", worker.id) });
        };
        for (name, bytes, limit) in
            [("RSS", worker.rss, limits.reload_on_rss), ("VSZ", worker.vsz, limits.reload_on_as)]
        {
            if limit > 0 && bytes as f64 >= limit as f64 * thresholds.memory {
                add(format!("{name} {} is near its limit of {}", format::size(bytes), format::size(limit)));
            }
        }
        let age = Sample::oldest_request(worker).and_then(|core| core.req_info.elapsed).unwrap_or(0);
        let oldest = match limits.harakiri {
            0 => thresholds.request_seconds.saturating_mul(1_000_000),
            seconds => (seconds as f64 * 1e6 * thresholds.request_age) as u64,
        };
        if age > oldest {
            let until = match limits.harakiri {
                0 => String::new(),
                seconds => format!("; harakiri is at {}", format::seconds(seconds)),
            };
            add(format!("a request has run for {}{until}", format::micros(age)));
        }
        if rates.respawned >= thresholds.respawns {
            add(format!("started {} times within a minute", rates.respawned));
        }
        if let (Some(latency), Some(median)) = (rates.latency, median)
            && rates.rps.unwrap_or(0.0) * sample.window.unwrap_or(0.0) >= ENOUGH
            && latency.p95 as f64 > median as f64 * thresholds.slow_worker
        {
            let (p95, median) = (format::micros(latency.p95), format::micros(median));
            add(format!("p95 {p95}, where the median of the workers is {median}"));
        }
    }
    found
}

fn queue(sample: &Sample, thresholds: &Thresholds, found: &mut Vec<Alert>) {
    let totals = &sample.totals;
    if totals.queue_capacity > 0 && totals.queue as f64 >= totals.queue_capacity as f64 * thresholds.queue {
        let text = format!("the queue holds {} of {}", totals.queue, totals.queue_capacity);
        found.push(Alert { worker: None, text });
    }
}

/// The last minute's share of requests that raised, against the five minutes before.
fn errors(sample: &Sample, history: &History, thresholds: &Thresholds, found: &mut Vec<Alert>) {
    let share = |from: Monotonic, to: Monotonic| {
        let points =
            history.points().iter().rev().skip_while(|point| point.at > to).take_while(|point| point.at > from);
        let (mut errors, mut requests) = (0.0, 0.0);
        for point in points {
            errors += f64::from(point.exceptions.unwrap_or(0.0));
            requests += f64::from(point.rps.unwrap_or(0.0));
        }
        (requests > 0.0).then(|| errors / requests)
    };
    let now = sample.at;
    let minute = now.before(Duration::from_secs(60));
    let before = share(minute.before(Duration::from_secs(300)), minute);
    // Without anything before it, a rate is not known to have risen.
    let (Some(last), Some(before)) = (share(minute, now), before) else { return };
    if last >= thresholds.error_rate && last > 2.0 * before {
        let text = format!(
            "{}% of the last minute's requests raised, {}% before",
            format::percent(last),
            format::percent(before)
        );
        found.push(Alert { worker: None, text });
    }
}

/// The median of the workers' p95, when there are enough of them to tell an outlier.
fn median_p95(sample: &Sample) -> Option<u64> {
    let mut all: Vec<u64> =
        sample.workers.iter().filter_map(|rates| rates.latency).map(|latency| latency.p95).collect();
    all.sort_unstable();
    (all.len() >= 3).then(|| all[all.len() / 2])
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::{Percentiles, Rates, Totals};
    use rwsgi_stats::{Core, Limits, RequestInfo, Snapshot, Worker};

    fn sample(change: impl FnOnce(&mut Sample)) -> Vec<String> {
        let worker = |id| Worker { id, rss: 50 << 20, cores: vec![Core::default()], ..Worker::default() };
        let latency = Some(Percentiles { p50: 900, p95: 2_000, p99: 3_000, max: 4_000 });
        let mut sample = Sample {
            at: Monotonic::from_micros(1_000_000_000),
            snapshot: Snapshot {
                workers: (1..=4).map(worker).collect(),
                limits: Some(Limits { harakiri: 20, reload_on_rss: 200 << 20, ..Limits::default() }),
                ..Snapshot::default()
            },
            workers: vec![Rates { latency, rps: Some(50.0), ..Rates::default() }; 4],
            window: Some(1.0),
            totals: Totals { queue_capacity: 100, ..Totals::default() },
            ..Sample::default()
        };
        change(&mut sample);
        let found = alerts(&sample, &History::default(), &Thresholds::default());
        found.into_iter().map(|alert| alert.text).collect()
    }

    #[test]
    fn a_pool_that_is_well_gives_no_cause() {
        assert!(sample(|_| {}).is_empty());
    }

    #[test]
    fn each_cause_is_told_with_its_numbers() {
        for (found, told) in [
            (sample(|r| r.totals.queue = 85), "the queue holds 85 of 100"),
            (sample(|r| r.snapshot.workers[1].rss = 190 << 20), "worker 2: RSS 190.0M is near its limit of 200.0M"),
            (sample(|r| r.workers[2].respawned = 4), "worker 3: started 4 times within a minute"),
            (
                sample(|r| r.workers[3].latency = Some(Percentiles { p95: 9_000, ..Percentiles::default() })),
                "worker 4: p95 9.00ms, where the median of the workers is 2.00ms",
            ),
            (
                sample(|r| {
                    let core = &mut r.snapshot.workers[0].cores[0];
                    core.in_request = 1;
                    core.req_info = RequestInfo { elapsed: Some(11_000_000), ..RequestInfo::default() };
                }),
                "worker 1: a request has run for 11.0s; harakiri is at 20s",
            ),
        ] {
            assert_eq!(found, [told]);
        }
    }

    #[test]
    fn a_worker_with_a_request_or_two_is_not_called_slow() {
        let told = sample(|r| {
            r.workers[3].latency = Some(Percentiles { p95: 9_000, ..Percentiles::default() });
            r.workers[3].rps = Some(2.0);
        });
        assert!(told.is_empty(), "{told:?}");
    }

    #[test]
    fn errors_that_rise_are_told_and_errors_that_were_always_there_are_not() {
        let told = |raised: fn(u64) -> f64| {
            let mut history = History::default();
            for second in 0..400 {
                let totals = Totals { rps: Some(100.0), exception_rate: Some(raised(second)), ..Totals::default() };
                history.push(&mut Sample {
                    at: Monotonic::from_micros(second * 1_000_000),
                    totals,
                    ..Sample::default()
                });
            }
            let now = Sample { at: Monotonic::from_micros(399_000_000), ..Sample::default() };
            alerts(&now, &history, &Thresholds::default()).len()
        };
        assert_eq!(told(|second| if second > 350 { 5.0 } else { 0.0 }), 1);
        assert_eq!(told(|_| 5.0), 0);
        assert_eq!(told(|_| 0.0), 0);
    }
}
