//! Where the time of a request went, and what the master is told of one that was slow.

use super::worker_thread::WorkerThread;
use crate::clock::MonotonicNanos;
use crate::procfs;
use crate::stats::cell::{ExceptionReport, PhaseNanos, SlowEnd, SlowEntry};
use rwsgi_protocol::{SocketProtocol, request_start};

/// The longest wait that a proxy is believed to tell of, µs: clocks of two machines differ, and clients may send anything.
const LONGEST_WAIT: u64 = 3_600_000_000;

/// What a request has waited before a thread took it, as its connection knows it.
#[derive(Clone, Copy, Debug)]
pub(super) struct Waits {
    /// When the http router had all of it; 0 on the workers' own sockets.
    pub(super) since: MonotonicNanos,
    /// How long its body took to come, ns.
    pub(super) gathered: u64,
}

impl Default for Waits {
    fn default() -> Self {
        Self { since: MonotonicNanos::from_nanos(0), gathered: 0 }
    }
}

/// How a request ended, for the one who asks whether it was slow.
pub(super) struct Ended<'a> {
    pub(super) started: MonotonicNanos,
    pub(super) protocol: SocketProtocol,
    pub(super) peer: &'a str,
    /// Its head, as the scoreboard keeps it.
    pub(super) head: &'a [u8],
    pub(super) status: u16,
    /// `harakiri` has answered it.
    pub(super) is_harakiri: bool,
    pub(super) exception: Option<&'a ExceptionReport>,
}

impl WorkerThread {
    /// What a request had waited that a thread takes at `started`, and whose proxy says this of it.
    #[inline]
    pub(super) fn waited(&self, started: MonotonicNanos, waits: Waits, request_start: &[u8]) -> PhaseNanos {
        // What came during the batch was not there when that was.
        let ready = self.ready.max(waits.since);
        let gil = self.batch_began.nanos_since(ready);
        // On a worker's own socket nobody knows of any time before it was ready.
        let came = if waits.since.as_nanos() == 0 { ready } else { waits.since };
        let queue = started.nanos_since(came).saturating_sub(gil);
        let mut waited = PhaseNanos { queue, body: waits.gathered, gil, ..PhaseNanos::default() };
        if !request_start.is_empty() {
            waited.queue += self.waited_before(started, &waited, request_start);
        }
        waited
    }

    /// How long a request waited on its way from the proxy that says when it took it, ns: before all that we know of.
    #[cold]
    fn waited_before(&self, started: MonotonicNanos, waited: &PhaseNanos, request_start: &[u8]) -> u64 {
        let came = MonotonicNanos::from_nanos(started.as_nanos().saturating_sub(waited.total()));
        let came = self.clock.unix_at(came).as_micros();
        let took = request_start::parse(request_start).and_then(|proxy| came.checked_sub(proxy));
        took.filter(|micros| *micros <= LONGEST_WAIT).unwrap_or(0) * 1_000
    }

    /// Tells the master of a slow request.
    #[cold]
    pub(super) fn tell_slow(&self, phases: &PhaseNanos, ended: &Ended<'_>) {
        let Ended { started, protocol, peer, head, status, is_harakiri, exception } = *ended;
        let cell = self.cell();
        cell.slow.write(&SlowEntry {
            started,
            protocol,
            peer: peer.as_bytes(),
            head,
            phases: *phases,
            status,
            end: if is_harakiri { SlowEnd::Harakiri } else { SlowEnd::Done },
            rss: procfs::own_memory().map_or(0, |size| size.resident),
            exception,
            route_name: &cell.route_name.load(),
        });
        self.tell_of_slow();
    }

    /// The master sleeps until a request begins, and one has.
    #[cold]
    pub(super) fn wake_for_slow(&self) {
        self.worker.notices.tell_slow();
    }

    fn tell_of_slow(&self) {
        if self.worker.scoreboard.worker(self.worker.slot).tells() {
            self.worker.notices.tell_slow();
        }
    }
}
