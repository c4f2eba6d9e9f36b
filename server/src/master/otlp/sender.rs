//! The thread that sends: a lane for each signal, so that one which the collector does not take holds up no other.

use std::sync::Arc;
use std::time::{Duration, Instant};

use opentelemetry_proto::tonic::collector::logs::v1::ExportLogsServiceRequest;
use opentelemetry_proto::tonic::collector::metrics::v1::ExportMetricsServiceRequest;
use opentelemetry_proto::tonic::collector::trace::v1::ExportTraceServiceRequest;
use opentelemetry_proto::tonic::logs::v1::{ResourceLogs, ScopeLogs};
use opentelemetry_proto::tonic::metrics::v1::{ResourceMetrics, ScopeMetrics};
use opentelemetry_proto::tonic::trace::v1::{ResourceSpans, ScopeSpans};
use prost::Message;
use rwsgi_stats::{Shown, Snapshot};
use tracing::{info, warn};

use super::client::{Client, Outcome};
use super::lines::{self, Line};
use super::metrics::Metrics;
use super::shared::{BATCH, MOST_BYTES, Shared, Waiting};
use super::target::scope;
use super::{Signal, spans};
use crate::clock::Clock;
use crate::stats::traces::TraceReport;

/// How long items are gathered for one export.
const GATHER: Duration = Duration::from_secs(1);
/// After a line, what belongs to it comes within this time.
const SETTLES: Duration = Duration::from_millis(200);
/// How long an export may take.
const TIMEOUT: Duration = Duration::from_secs(10);
/// The first and the longest wait before an export is tried again, when the collector names no other.
const FIRST_DELAY: Duration = Duration::from_secs(1);
const LONGEST_DELAY: Duration = Duration::from_secs(15);
/// After this time an export that was never taken makes space for newer ones.
const LASTS: Duration = Duration::from_secs(300);
/// Between two lines of the log about one signal.
const SAY_EVERY: Duration = Duration::from_secs(60);

/// See the module.
pub(super) struct Sender {
    client: Client,
    shared: Arc<Shared>,
    lanes: [Lane; 3],
    metrics: Metrics,
    shown: Shown,
    with_routes: bool,
}

/// What is being sent of one signal.
struct Lane {
    signal: Signal,
    batch: Option<Batch>,
    /// It is not tried before.
    not_before: Instant,
    delay: Duration,
    /// The collector has not taken the last one, and the log says so.
    is_failing: bool,
    /// At the end: it is not tried again.
    is_given_up: bool,
    /// What was dropped and not said, and why.
    unsaid: (u64, String),
    /// When the log said something of it last.
    said: Option<Instant>,
}

/// An export, ready to be sent.
struct Batch {
    body: Vec<u8>,
    items: u64,
    made: Instant,
}

impl Lane {
    fn new(signal: Signal) -> Self {
        Self {
            signal,
            batch: None,
            not_before: Instant::now(),
            delay: FIRST_DELAY,
            is_failing: false,
            is_given_up: false,
            unsaid: (0, String::new()),
            said: None,
        }
    }

    fn lose(&mut self, shared: &Shared, items: u64, why: &str) {
        if items > 0 {
            shared.count(self.signal, 0, items);
            self.unsaid.0 += items;
            self.unsaid.1.clear();
            self.unsaid.1.push_str(why);
        }
    }

    fn may_say(&self, now: Instant) -> bool {
        self.said.is_none_or(|said| now >= said + SAY_EVERY)
    }

    /// Says what was dropped, once in a while.
    fn say(&mut self, now: Instant) {
        let (items, why) = &mut self.unsaid;
        warn!("otlp: {items} {} dropped: {why}", self.signal.items());
        (*items, self.said) = (0, Some(now));
    }
}

impl Sender {
    pub(super) fn new(client: Client, shared: Arc<Shared>, shown: Shown, with_routes: bool) -> Self {
        let lanes = Signal::ALL.map(Lane::new);
        Self { client, shared, lanes, metrics: Metrics::default(), shown, with_routes }
    }

    /// Sends until the server ends.
    pub(super) fn run(mut self) {
        loop {
            let until = self.fill();
            for lane in Signal::ALL {
                self.send(lane, until);
            }
            let now = Instant::now();
            for lane in &mut self.lanes {
                if lane.unsaid.0 > 0 && (lane.may_say(now) || until.is_some()) {
                    lane.say(now);
                }
            }
            match until {
                Some(until) if now >= until || !self.is_due(true) => return self.finish(),
                Some(_) => {}
                None => self.shared.wait(|waiting| self.next(waiting)),
            }
        }
    }

    /// Takes what is due from what waits. Returns until when the server waits for the last of it, when it ends.
    fn fill(&mut self) -> Option<Instant> {
        let mut waiting = self.shared.waiting();
        let until = waiting.until;
        let (dropped_traces, dropped_lines) = (waiting.traces.take_dropped(), waiting.lines.take_dropped());
        let lost = std::mem::take(&mut waiting.lost);
        let takes =
            |lane: &Lane, waiting: &Waiting| lane.batch.is_none() && is_due(lane.signal, waiting, until.is_some());
        let [traces, metrics, logs] = &mut self.lanes;
        let reports = if takes(traces, &waiting) { waiting.traces.take(BATCH) } else { Vec::new() };
        let lines = if takes(logs, &waiting) { waiting.lines.take(BATCH) } else { Vec::new() };
        let snapshot = waiting.snapshot.take();
        drop(waiting);
        let shared = &self.shared;
        traces.lose(shared, dropped_traces, "the collector takes them too slowly, and 8 MB wait");
        traces.lose(shared, lost, "more ended at once than a thread keeps for the exporter (64)");
        logs.lose(shared, dropped_lines, "the collector takes them too slowly, and 8 MB wait");
        if let (Some(_), Some(_)) = (&snapshot, &metrics.batch) {
            // It says what the one before would have said; that one was not lost to those who read sums.
            metrics.batch = None;
        }
        if !reports.is_empty() {
            let items = reports.len() as u64;
            let body = self.encode_traces(&reports);
            self.lanes[Signal::Traces as usize].batch = Some(Batch { body, items, made: Instant::now() });
        }
        if let Some(snapshot) = snapshot {
            let body = self.encode_metrics(&snapshot);
            self.lanes[Signal::Metrics as usize].batch = Some(Batch { body, items: 1, made: Instant::now() });
        }
        if !lines.is_empty() {
            let items = lines.len() as u64;
            let body = self.encode_lines(&lines);
            self.lanes[Signal::Logs as usize].batch = Some(Batch { body, items, made: Instant::now() });
        }
        until
    }

    fn encode_traces(&self, reports: &[TraceReport]) -> Vec<u8> {
        let clock = Clock::default();
        let of = |report| spans::of(report, clock, self.shown, self.with_routes);
        let spans =
            ScopeSpans { scope: scope(), spans: reports.iter().flat_map(of).collect(), ..ScopeSpans::default() };
        let resource = Some(self.client.target().resource.clone());
        let all = ResourceSpans { resource, scope_spans: vec![spans], ..ResourceSpans::default() };
        ExportTraceServiceRequest { resource_spans: vec![all] }.encode_to_vec()
    }

    fn encode_metrics(&mut self, snapshot: &Snapshot) -> Vec<u8> {
        let metrics = ScopeMetrics { scope: scope(), metrics: self.metrics.of(snapshot), ..ScopeMetrics::default() };
        let resource = Some(self.client.target().resource.clone());
        let all = ResourceMetrics { resource, scope_metrics: vec![metrics], ..ResourceMetrics::default() };
        ExportMetricsServiceRequest { resource_metrics: vec![all] }.encode_to_vec()
    }

    fn encode_lines(&self, lines: &[Line]) -> Vec<u8> {
        let log_records = lines.iter().map(lines::record_of).collect();
        let logs = ScopeLogs { scope: scope(), log_records, ..ScopeLogs::default() };
        let resource = Some(self.client.target().resource.clone());
        let all = ResourceLogs { resource, scope_logs: vec![logs], ..ResourceLogs::default() };
        ExportLogsServiceRequest { resource_logs: vec![all] }.encode_to_vec()
    }

    /// Sends what a lane has, when it is time.
    fn send(&mut self, signal: Signal, until: Option<Instant>) {
        let lane = &mut self.lanes[signal as usize];
        let now = Instant::now();
        let Some(batch) = &lane.batch else { return };
        if until.is_none() && now < lane.not_before || lane.is_given_up {
            return;
        }
        let within = until.map_or(TIMEOUT, |until| until.saturating_duration_since(now).min(TIMEOUT));
        let outcome = match within.is_zero() {
            true => Outcome::Later { after: None, why: "the server ends".into() },
            false => self.client.post(signal, &batch.body, within),
        };
        let (items, url) = (batch.items, self.client.url(signal));
        let now = Instant::now();
        match outcome {
            Outcome::Taken { rejected, said } => {
                lane.batch = None;
                lane.delay = FIRST_DELAY;
                let rejected = rejected.min(items);
                self.shared.count(signal, items - rejected, 0);
                lane.lose(&self.shared, rejected, &format!("the collector at {url} has rejected them: {said}"));
                if std::mem::take(&mut lane.is_failing) {
                    info!("otlp: the collector at {url} takes {signal} again");
                }
            }
            Outcome::Refused(why) => {
                lane.batch = None;
                lane.lose(&self.shared, items, &format!("the collector at {url} refuses them: {why}"));
            }
            Outcome::Later { why, .. } if until.is_some() => {
                lane.is_given_up = true;
                lane.batch = None;
                lane.lose(
                    &self.shared,
                    items,
                    &format!("the server ends, and the collector at {url} takes none: {why}"),
                );
            }
            Outcome::Later { after, why } => {
                let wait = wait_of(after, lane.delay);
                lane.delay = (lane.delay * 2).min(LONGEST_DELAY);
                lane.not_before = now + wait;
                if !lane.is_failing && lane.may_say(now) {
                    lane.is_failing = true;
                    lane.said = Some(now);
                    let limit = MOST_BYTES >> 20;
                    warn!(
                        "otlp: the collector at {url} does not take {signal}: {why}: trying again, and {limit} MB at most wait"
                    );
                }
                if now.duration_since(batch.made) > LASTS {
                    lane.batch = None;
                    lane.lose(&self.shared, items, &format!("the collector at {url} does not take them: {why}"));
                }
            }
        }
    }

    /// Whether something can be sent: at the end, all that there is.
    fn is_due(&self, ends: bool) -> bool {
        let waiting = self.shared.waiting();
        let has = |lane: &Lane| !lane.is_given_up && (lane.batch.is_some() || is_due(lane.signal, &waiting, ends));
        self.lanes.iter().any(has)
    }

    /// When there is something to do, if nothing comes; `None` for never.
    fn next(&self, waiting: &Waiting) -> Option<Instant> {
        let now = Instant::now();
        let of_lane = |lane: &Lane| {
            let sends = match &lane.batch {
                Some(_) => Some(lane.not_before),
                None => due(lane.signal, waiting, now),
            };
            let says = lane.said.filter(|_| lane.unsaid.0 > 0).map(|said| said + SAY_EVERY);
            sends.into_iter().chain(says).min()
        };
        let comes = (waiting.until.is_some() || waiting.snapshot.is_some()).then_some(now);
        self.lanes.iter().filter_map(of_lane).chain(comes).min()
    }

    /// What was not sent is lost.
    fn finish(mut self) {
        let [traces, lines] = {
            let waiting = self.shared.waiting();
            [waiting.traces.len(), waiting.lines.len()].map(|count| count as u64)
        };
        let now = Instant::now();
        for (lane, waits) in self.lanes.iter_mut().zip([traces, 0, lines]) {
            let items = waits + lane.batch.take().map_or(0, |batch| batch.items);
            lane.lose(&self.shared, items, "the server ends, and the collector has not taken them in time");
            if lane.unsaid.0 > 0 {
                lane.say(now);
            }
        }
    }
}

/// When what waits of a signal is to be exported: at once when it is enough for an export; `None` when nothing waits.
fn due(signal: Signal, waiting: &Waiting, now: Instant) -> Option<Instant> {
    let (count, since) = match signal {
        Signal::Traces => (waiting.traces.len(), waiting.traces.since()),
        Signal::Logs => (waiting.lines.len(), waiting.lines.since()),
        Signal::Metrics => return waiting.snapshot.is_some().then_some(now),
    };
    let since = since?;
    Some(match signal {
        _ if count >= BATCH => now,
        Signal::Logs => (since + GATHER).max(waiting.lines.newest() + SETTLES).min(since + GATHER * 2),
        _ => since + GATHER,
    })
}

/// Whether it is due now; at the end, all is.
fn is_due(signal: Signal, waiting: &Waiting, ends: bool) -> bool {
    let now = Instant::now();
    due(signal, waiting, now).is_some_and(|due| ends || due <= now)
}

/// How long an export waits that is to be tried again. No collector is asked without a pause, whatever it says: a date
/// that its clock calls the future may be over by ours.
fn wait_of(after: Option<Duration>, delay: Duration) -> Duration {
    after.map_or_else(|| jittered(delay), |after| after.max(FIRST_DELAY))
}

/// From half of it to all of it: many servers must not come back at once.
fn jittered(delay: Duration) -> Duration {
    let mut byte = [0];
    // Without it all is well but that.
    let _ = getrandom::fill(&mut byte);
    delay / 2 + delay * u32::from(byte[0]) / 512
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn no_collector_is_asked_again_without_a_pause() {
        let delay = Duration::from_secs(8);
        assert_eq!(wait_of(Some(Duration::ZERO), delay), FIRST_DELAY);
        assert_eq!(wait_of(Some(Duration::from_secs(100)), delay), Duration::from_secs(100));
        assert!((delay / 2..=delay).contains(&wait_of(None, delay)));
    }
}
