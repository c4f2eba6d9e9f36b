//! Requests by route: what is known of a request at its end goes to the table of its process.

use std::sync::{Mutex, PoisonError};

use nix::unistd::Pid;

use super::state::Worker;
use crate::clock::MonotonicNanos;
use crate::procfs::Statm;
use crate::stats::cell::ExceptionReport;
use crate::stats::route_text::{ROUTE_MAX, RouteText};
use crate::stats::routes::{Finished, RouteTable};
use crate::wsgi::serving::Notes;

use super::worker_thread::WorkerThread;

/// Memory is looked at around one request in this time, ns: so that a busy worker pays next to nothing.
const MEMORY_EVERY: u64 = 10_000_000;

/// What a thread measures for the routes of its requests.
#[derive(Debug, Default)]
pub(super) struct RouteMeter {
    /// How long the present batch of events waited for Python's global lock, ns, until a request is charged with it.
    gil_wait: u64,
    /// In a worker of one thread, where memory grows because of the request that is served.
    memory: Option<MemoryMeter>,
}

#[derive(Debug)]
struct MemoryMeter {
    statm: Statm,
    due: MonotonicNanos,
    /// Resident memory before the present request, bytes, when it is looked at.
    before: Option<u64>,
}

impl RouteMeter {
    pub(super) fn new(worker: &Worker) -> Self {
        let measures = worker.routes.is_some() && worker.config.threads == 1;
        // Where there is no /proc, there are no samples.
        let statm = measures.then(|| Statm::open(Pid::this()).ok()).flatten();
        let memory = statm.map(|statm| MemoryMeter { statm, due: MonotonicNanos::from_nanos(0), before: None });
        Self { gil_wait: 0, memory }
    }

    /// Python's global lock was waited for between these moments, before a batch of events.
    #[inline]
    pub(super) fn waited(&mut self, since: MonotonicNanos, until: MonotonicNanos) {
        self.gil_wait = until.nanos_since(since);
    }

    /// A request begins.
    #[inline]
    pub(super) fn begin(&mut self, now: MonotonicNanos) {
        if let Some(memory) = &mut self.memory
            && now >= memory.due
        {
            memory.look(now);
        }
    }

    /// By how much memory has grown since the request began, when that is looked at.
    #[inline]
    fn grown(&mut self) -> Option<i64> {
        let memory = self.memory.as_mut()?;
        memory.before.take().and_then(|before| memory.grown(before))
    }
}

impl MemoryMeter {
    #[cold]
    fn look(&mut self, now: MonotonicNanos) {
        self.due = now.after_nanos(MEMORY_EVERY);
        // The application may have closed the descriptor, and another may have the number: no sample then.
        self.before = self.statm.read().ok().map(|size| size.resident);
    }

    #[cold]
    fn grown(&self, before: u64) -> Option<i64> {
        self.statm.read().ok().map(|size| size.resident.cast_signed().wrapping_sub(before.cast_signed()))
    }
}

/// A request, as its route needs it.
pub(super) struct RouteRequest<'a> {
    pub(super) method: &'a [u8],
    pub(super) target: &'a [u8],
    pub(super) status: u16,
    pub(super) started: MonotonicNanos,
    /// Bytes that its response has.
    pub(super) sent: u64,
    pub(super) exception: Option<&'a ExceptionReport>,
    pub(super) notes: Option<&'a Notes>,
}

impl WorkerThread {
    /// Counts a request that has ended now.
    #[inline]
    pub(super) fn count_route(&mut self, request: &RouteRequest<'_>) {
        let memory_growth = self.meter.grown();
        let gil_wait = std::mem::take(&mut self.meter.gil_wait);
        let Some(routes) = &self.worker.routes else { return };
        let noted = request.notes.and_then(Notes::route);
        let cell = self.cell();
        let name = if noted.is_none() && cell.route_name.is_empty() { None } else { self.route_name(noted) };
        // Threads hold Python's lock here, so that this one is free; where Python has none it is held for a moment.
        let mut table = routes.lock().unwrap_or_else(PoisonError::into_inner);
        table.count(&Finished {
            name: name.as_ref(),
            method: request.method,
            target: request.target,
            status: request.status,
            took: self.now.nanos_since(request.started),
            latency: self.now.nanos_since(self.ready.min(request.started)) / 1_000,
            tx: request.sent,
            gil_wait,
            memory_growth,
            exception: request.exception,
            now: self.now,
        });
    }

    /// What the application has called the route: it may have said so in a call, or in what is noted of the request.
    #[cold]
    pub(super) fn route_name(&self, noted: Option<&[u8]>) -> Option<RouteText> {
        let mut bytes = [0; ROUTE_MAX];
        let len = self.cell().route_name.copy_to(&mut bytes);
        RouteText::named(&bytes[..len]).or_else(|| RouteText::named(noted?))
    }
}

/// In a child that is no worker: what it counts is its own.
pub(super) fn detach(routes: Option<&Mutex<RouteTable>>) {
    // Whoever holds it is no thread of this process.
    if let Some(Ok(table)) = routes.map(Mutex::try_lock) {
        table.detach();
    }
}
