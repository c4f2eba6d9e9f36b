//! OpenTelemetry: exports metrics, traces of requests and lines of the log by OTLP over HTTP (`--otlp-endpoint`).
//!
//! Two threads beside the loop. One *gathers* traced requests: it takes them from the rings into which the workers write
//! them ([`crate::stats::traces`]). The other *sends* ([`sender`]): it encodes what waits in bounded queues ([`shared`])
//! and waits for the collector. The loop gives a snapshot every so often, and the thread of the log its lines; neither
//! waits for anything.

mod client;
mod ended;
mod lines;
mod metrics;
mod queue;
mod sender;
mod shared;
mod spans;
mod target;
mod values;

use std::fmt;
use std::os::fd::BorrowedFd;
use std::sync::atomic::AtomicBool;
use std::sync::atomic::Ordering::{Acquire, Relaxed, Release};
use std::sync::{Arc, mpsc};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use anyhow::Context;
use rwsgi_stats::{OtlpCounts, Snapshot};
use tokio::sync::oneshot;
use tracing::{info, warn};

use self::client::Client;
use self::sender::Sender;
use self::shared::Shared;
use self::target::Target;
use super::events::{Event, Events};
use crate::loggers::LineCopy;
use crate::stats::scoreboard::Layout;
use crate::stats::snapshot::{Purpose, SnapshotRequest};
use crate::stats::traces::{TraceMemory, TraceReader};
use rwsgi_config::Config;

/// How often the rings of traced requests are looked at while there are any.
const LOOK: Duration = Duration::from_millis(200);
/// How often they are looked at while there are none: a process may be killed when it is about to wake who sleeps.
const LOOK_AGAIN: Duration = Duration::from_secs(10);
/// How long the server's end waits for the collector.
const LAST: Duration = Duration::from_secs(3);
/// What more it waits for the thread.
const GRACE: Duration = Duration::from_millis(500);

/// What is exported.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Signal {
    Traces,
    Metrics,
    Logs,
}

impl Signal {
    const ALL: [Self; 3] = [Self::Traces, Self::Metrics, Self::Logs];

    /// As in the paths of OTLP.
    fn name(self) -> &'static str {
        match self {
            Self::Traces => "traces",
            Self::Metrics => "metrics",
            Self::Logs => "logs",
        }
    }

    /// What is counted of it.
    fn items(self) -> &'static str {
        match self {
            Self::Traces => "traced requests",
            Self::Metrics => "exports of metrics",
            Self::Logs => "lines of the log",
        }
    }
}

impl fmt::Display for Signal {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

/// The exporter.
pub(super) struct Otlp {
    shared: Arc<Shared>,
    /// Until the threads are started.
    sender: Option<Sender>,
    traces: Option<Arc<TraceMemory>>,
    gatherer: Option<(JoinHandle<()>, Arc<AtomicBool>)>,
    /// Has nothing, and its other end is gone when the sender is.
    done: Option<mpsc::Receiver<()>>,
}

impl Otlp {
    /// The exporter of this configuration, which does nothing yet; `None` when nothing is exported. Certificates are read
    /// with the rights that the server is started with.
    ///
    /// # Errors
    /// When the file of certificates cannot be read, or has none.
    pub(super) fn new(config: &Config) -> anyhow::Result<Option<Self>> {
        let otlp = &config.otlp;
        if !otlp.is_on() {
            return Ok(None);
        }
        let client = Client::new(Target::new(otlp, |name| std::env::var(name).ok())?)?;
        let signals = [(otlp.traces, Signal::Traces), (otlp.metrics, Signal::Metrics), (otlp.logs, Signal::Logs)];
        for (_, signal) in signals.into_iter().filter(|(is_on, _)| *is_on) {
            info!("otlp: {signal} are exported to {}", client.url(signal));
        }
        let shared = Arc::new(Shared::new());
        let sender = Sender::new(client, Arc::clone(&shared), config.show_request, config.routes.most > 0);
        Ok(Some(Self { shared, sender: Some(sender), traces: None, gatherer: None, done: None }))
    }

    /// Who takes lines of the log, when they are exported.
    pub(super) fn line_copy(&self, config: &Config) -> Option<LineCopy> {
        let shared = Arc::clone(&self.shared);
        config.otlp.logs.then(|| Box::new(move |line: &[u8]| shared.add_line(line)) as LineCopy)
    }

    /// Starts its threads, and the task that asks for snapshots.
    ///
    /// # Errors
    /// When the system has no memory or threads left.
    pub(super) fn start(&mut self, config: &Config, layout: Layout, events: &Events) -> anyhow::Result<()> {
        let Some(sender) = self.sender.take() else { return Ok(()) };
        let (done, is_done) = mpsc::channel::<()>();
        let sends = move || {
            let _done = done;
            sender.run();
        };
        std::thread::Builder::new().name("rwsgi otlp".into()).spawn(sends).context("otlp: cannot start its thread")?;
        self.done = Some(is_done);
        if config.otlp.traces {
            let memory = TraceMemory::create(layout.slots, layout.threads);
            let memory = Arc::new(memory.context("otlp: cannot create the memory for traced requests")?);
            self.traces = Some(Arc::clone(&memory));
            let ends = Arc::new(AtomicBool::new(false));
            let (shared, is_over) = (Arc::clone(&self.shared), Arc::clone(&ends));
            let gather = move || gather(&shared, &memory, &is_over);
            let thread = std::thread::Builder::new().name("rwsgi traces".into()).spawn(gather);
            self.gatherer = Some((thread.context("otlp: cannot start its thread")?, ends));
        }
        if config.otlp.metrics {
            self.give_snapshots(Duration::from_secs(config.otlp.interval.into()), events.clone());
        }
        Ok(())
    }

    fn give_snapshots(&self, every: Duration, events: Events) {
        let shared = Arc::clone(&self.shared);
        tokio::task::spawn_local(async move {
            loop {
                tokio::time::sleep(every).await;
                let (answer, snapshot) = oneshot::channel();
                let asked = SnapshotRequest { purpose: Purpose::Metrics, answer };
                // The loop is gone only when the process is about to be.
                let (Ok(()), Ok(snapshot)) = (events.send(Event::Stats(asked)).await, snapshot.await) else { return };
                shared.set_snapshot(Box::new(snapshot));
            }
        });
    }

    /// The memory of traced requests, to be inherited by workers; `None` when none are traced.
    pub(super) fn trace_memory(&self) -> Option<BorrowedFd<'_>> {
        self.traces.as_ref().map(|memory| memory.memory())
    }

    /// What was exported and what was lost.
    pub(super) fn describe(&self) -> OtlpCounts {
        let of = |signal| {
            let counts = self.shared.counts(signal);
            (counts.exported.load(Relaxed), counts.dropped.load(Relaxed))
        };
        let [(traces, traces_dropped), (metrics, metrics_dropped), (logs, logs_dropped)] = Signal::ALL.map(of);
        OtlpCounts { traces, traces_dropped, metrics, metrics_dropped, logs, logs_dropped }
    }

    /// Sends what waits, and a last snapshot, within a time.
    pub(super) fn finish(self, snapshot: Option<Snapshot>) {
        if let (Some((gatherer, ends)), Some(memory)) = (self.gatherer, &self.traces) {
            ends.store(true, Release);
            memory.wake();
            // It only looks at memory.
            let _ = gatherer.join();
        }
        if let Some(snapshot) = snapshot {
            self.shared.set_snapshot(Box::new(snapshot));
        }
        self.shared.end_by(Instant::now() + LAST);
        let Some(done) = self.done else { return };
        // One that still waits for an answer, or for a name, ends with the process.
        if done.recv_timeout(LAST + GRACE) == Err(mpsc::RecvTimeoutError::Timeout) {
            warn!("otlp: the server ends, and the collector does not answer: what waits for it is lost");
        }
    }
}

/// Takes traced requests from the rings until the server ends.
fn gather(shared: &Shared, memory: &TraceMemory, ends: &AtomicBool) {
    let mut reader = TraceReader::new(memory);
    let mut look = || {
        let (reports, lost) = reader.take(memory);
        let has_any = !reports.is_empty() || lost > 0;
        shared.add_traces(reports, lost);
        has_any
    };
    loop {
        let wakes = memory.wakes();
        let is_over = ends.load(Acquire);
        if look() {
            if is_over {
                return;
            }
            memory.sleep(wakes, Some(LOOK));
            continue;
        }
        if is_over {
            return;
        }
        // Whoever writes from now on wakes this thread; who wrote just before is seen at another look.
        memory.set_sleeps(true);
        if !look() {
            memory.sleep(wakes, Some(LOOK_AGAIN));
        }
        memory.set_sleeps(false);
    }
}
