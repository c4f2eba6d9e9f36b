//! The cell of a worker's thread: the request that it holds, and its counters.

use std::sync::atomic::Ordering::{Acquire, Relaxed, Release};
use std::sync::atomic::{AtomicU32, AtomicU64, fence};

use super::corrupt::Corrupt;
use super::counters::{Counters, add};
use super::errors::ErrorCells;
use super::exception::ExceptionCell;
use super::latencies::{Latencies, LatencyCounts};
use super::phases::{PhaseCell, PhaseCounts};
use super::slow::SlowRing;
use super::text::SharedText;
use crate::clock::MonotonicNanos;
use crate::stats::route_text::ROUTE_MAX;
use rwsgi_protocol::SocketProtocol;

/// How much of a request's head is kept for those who ask what a thread is doing, bytes.
pub const HEAD_KEPT: usize = 2048;
/// Space for a peer's text: `remote_addr remote_port server_addr server_port`, bytes.
pub const PEER_KEPT: usize = 128;

/// Reads after which a cell that keeps changing is corrupt. A worker that serves a hundred thousand
/// requests a second leaves long quiet gaps between two looks at 15 words: the first one is good nearly always.
const LOOKS: usize = 1_000;

/// How a request ended.
#[derive(Clone, Copy, Debug, Default)]
pub struct Outcome {
    /// Status code that was sent; 0 when none was.
    pub status: u16,
    /// The application raised an exception.
    pub exception: bool,
    /// The response could not be sent whole.
    pub write_error: bool,
}

/// A request that a thread holds, as the master sees it.
#[derive(Clone, Debug)]
pub struct HeldRequest {
    /// When it began.
    pub started: MonotonicNanos,
    /// The form of `head`: the text of an HTTP/1 head, or the variables of a uwsgi packet.
    pub protocol: SocketProtocol,
    /// `remote_addr remote_port server_addr server_port`; empty for a uwsgi packet, which carries its own.
    pub peer: String,
    /// The first [`HEAD_KEPT`] bytes of its head.
    pub head: Vec<u8>,
    /// What the application has called its route so far; empty for nothing.
    pub route_name: Vec<u8>,
}

/// What a thread's cell said at one moment.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct ThreadSample {
    /// The counters. The time of a request is either in `running` or in progress, never in both.
    pub counters: Counters,
    /// When the request in progress began.
    pub started: Option<MonotonicNanos>,
    /// uWSGI's moving average of the response time, µs.
    pub average: u64,
}

/// One thread of one worker process.
#[repr(C, align(64))]
pub struct ThreadCell {
    sequence: AtomicU64,
    started: AtomicU64,
    /// `running` when the request in progress began: while a request is held, this is what is shown of `running`, so
    /// that a reader who comes while the request is just being counted does not see its time twice.
    running_before: AtomicU64,
    running: AtomicU64,
    requests: AtomicU64,
    exceptions: AtomicU64,
    read_errors: AtomicU64,
    write_errors: AtomicU64,
    tx: AtomicU64,
    responses: [AtomicU64; 5],
    gil_wait: AtomicU64,
    average: AtomicU64,
    protocol: AtomicU32,
    /// What the application calls the route of the request in progress, or of the last one; empty for nothing.
    pub route_name: SharedText<{ ROUTE_MAX / 8 }>,
    peer: SharedText<{ PEER_KEPT / 8 }>,
    head: SharedText<{ HEAD_KEPT / 8 }>,
    latency: Latencies,
    /// The last exception.
    pub exception: ExceptionCell,
    /// How long the phases of its requests took.
    pub phases: PhaseCell,
    /// Its slow requests, for the master.
    pub slow: SlowRing,
    /// All of them, by class.
    pub errors: ErrorCells,
}

/// What the thread does, which is the only writer.
impl ThreadCell {
    /// The thread took a request at `now`.
    #[inline]
    pub fn begin(&self, now: MonotonicNanos, protocol: SocketProtocol, peer: &[u8], head: &[u8]) {
        let sequence = self.sequence.load(Relaxed);
        // A reader of the request before this one, who sees any of what follows, sees that it has ended.
        fence(Release);
        self.started.store(now.as_nanos(), Relaxed);
        self.running_before.store(self.running.load(Relaxed), Relaxed);
        self.protocol.store(protocol as u32, Relaxed);
        self.route_name.clear();
        self.peer.store(peer);
        self.head.store(head);
        self.sequence.store(sequence | 1, Release);
    }

    /// The request ended at `now`; it had been there to be served since `ready`.
    #[inline]
    pub fn finish(&self, now: MonotonicNanos, ready: MonotonicNanos, outcome: Outcome) {
        let took = now.nanos_since(MonotonicNanos::from_nanos(self.started.load(Relaxed)));
        // A reader of the time before this request, who sees any of what follows, sees that it has begun.
        fence(Release);
        add(&self.running, took);
        add(&self.requests, 1);
        if let Some(class) = (outcome.status / 100).checked_sub(1).and_then(|class| self.responses.get(class as usize))
        {
            add(class, 1);
        }
        for (happened, counter) in [(outcome.exception, &self.exceptions), (outcome.write_error, &self.write_errors)] {
            if happened {
                add(counter, 1);
            }
        }
        self.average.store(self.average.load(Relaxed).wrapping_add(took / 1_000) / 2, Relaxed);
        self.latency.record(now.nanos_since(ready) / 1_000);
        let sequence = self.sequence.load(Relaxed);
        self.sequence.store((sequence | 1).wrapping_add(1), Release);
    }

    /// A request was refused before it reached the application: it counts as one that could not be read.
    pub fn read_error(&self) {
        add(&self.read_errors, 1);
    }

    /// The client of a response that was complete did not take it whole.
    pub fn write_error(&self) {
        add(&self.write_errors, 1);
    }

    /// `bytes` were handed to the kernel.
    #[inline]
    pub fn sent(&self, bytes: usize) {
        add(&self.tx, bytes as u64);
    }

    /// The thread waited for Python's global lock between these moments.
    #[inline]
    pub fn waited_for_gil(&self, since: MonotonicNanos, until: MonotonicNanos) {
        add(&self.gil_wait, until.nanos_since(since));
    }
}

/// What another thread of its process asks.
impl ThreadCell {
    /// When the request in progress began; `None` for none.
    pub fn busy_since(&self) -> Option<MonotonicNanos> {
        let held = self.sequence.load(Acquire) % 2 == 1;
        held.then(|| MonotonicNanos::from_nanos(self.started.load(Relaxed)))
    }
}

/// What the master does.
impl ThreadCell {
    /// The process of this thread died at `now`: what it held is over, uncounted. For when no process has the cell any
    /// more.
    pub fn abandon(&self, now: MonotonicNanos) {
        let sequence = self.sequence.load(Relaxed);
        if sequence % 2 == 1 {
            // Not added: the process may have died between counting the request and releasing it.
            let took = now.nanos_since(MonotonicNanos::from_nanos(self.started.load(Relaxed)));
            self.running.store(self.running_before.load(Relaxed).saturating_add(took), Relaxed);
            self.sequence.store(sequence.wrapping_add(1), Release);
        }
    }

    /// What the cell says, as it stood at one moment.
    ///
    /// # Errors
    /// When no thread of a worker's has written that.
    pub fn read(&self) -> Result<ThreadSample, Corrupt> {
        let sample = (0..LOOKS).find_map(|_| self.look()).ok_or(Corrupt::Unsteady)?;
        let now = MonotonicNanos::now();
        Corrupt::refuse_future(now, sample.started)?;
        Corrupt::refuse_beyond(now, &[sample.average])?;
        sample.counters.refuse_impossible(now)?;
        if sample.started.is_some() {
            protocol_of(self.protocol.load(Relaxed))?;
        }
        Ok(sample)
    }

    /// `None` when the cell changed meanwhile.
    fn look(&self) -> Option<ThreadSample> {
        let before = self.sequence.load(Acquire);
        let held = before % 2 == 1;
        let started = MonotonicNanos::from_nanos(self.started.load(Relaxed));
        let counters = Counters {
            requests: self.requests.load(Relaxed),
            exceptions: self.exceptions.load(Relaxed),
            read_errors: self.read_errors.load(Relaxed),
            write_errors: self.write_errors.load(Relaxed),
            tx: self.tx.load(Relaxed),
            responses: self.responses.each_ref().map(|class| class.load(Relaxed)),
            running: if held { &self.running_before } else { &self.running }.load(Relaxed),
            gil_wait: self.gil_wait.load(Relaxed),
        };
        let average = self.average.load(Relaxed);
        fence(Acquire);
        let unchanged = before == self.sequence.load(Relaxed);
        unchanged.then_some(ThreadSample { counters, started: held.then_some(started), average })
    }

    /// Latency of every request, in place of what `counts` holds.
    ///
    /// # Errors
    /// When that is more than one for each request.
    pub fn read_latencies(&self, counts: &mut LatencyCounts) -> Result<(), Corrupt> {
        counts.clear();
        self.latency.add_to(counts);
        fence(Acquire);
        // One is counted on both sides, in some order, between two ends of requests.
        let most = self.requests.load(Relaxed).saturating_add(1);
        if counts.total() <= most { Ok(()) } else { Err(Corrupt::Counters) }
    }

    /// Adds the phases of every request to `sums`, for a thread that had served so many when it was [read](Self::read).
    ///
    /// # Errors
    /// When that is more than one for each request; some of it may have been added.
    pub fn add_phases(&self, requests: u64, sums: &mut PhaseCounts) -> Result<(), Corrupt> {
        self.phases.add_to(requests, || self.requests.load(Relaxed), sums)
    }

    /// The request in progress.
    pub fn held(&self) -> Option<HeldRequest> {
        let before = self.sequence.load(Acquire);
        if before.is_multiple_of(2) {
            return None;
        }
        let request = HeldRequest {
            started: MonotonicNanos::from_nanos(self.started.load(Relaxed)),
            protocol: protocol_of(self.protocol.load(Relaxed)).ok()?,
            peer: self.peer.load_text(),
            head: self.head.load(),
            route_name: self.route_name.load(),
        };
        fence(Acquire);
        (before == self.sequence.load(Relaxed)).then_some(request)
    }
}

pub(in crate::stats) fn protocol_of(stored: u32) -> Result<SocketProtocol, Corrupt> {
    let known = [SocketProtocol::Http, SocketProtocol::Uwsgi];
    known.into_iter().find(|protocol| *protocol as u32 == stored).ok_or(Corrupt::Protocol)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::shared_memory::zeroed;
    use crate::stats::cell::PhaseNanos;

    const fn at(nanoseconds: u64) -> MonotonicNanos {
        MonotonicNanos::from_nanos(nanoseconds)
    }

    #[test]
    fn a_request_in_progress_is_seen_and_counted_when_it_ends() {
        let cell = zeroed::<ThreadCell>();
        assert!(cell.held().is_none());
        cell.begin(at(5_000), SocketProtocol::Http, b"1.2.3.4 5 6.7.8.9 80", b"GET /slow HTTP/1.1\r\n");
        let held = cell.held().unwrap();
        assert_eq!((held.started, held.head.as_slice()), (at(5_000), b"GET /slow HTTP/1.1\r\n".as_slice()));
        assert_eq!(cell.read().unwrap().started, Some(at(5_000)));

        cell.finish(at(2_005_000), at(1_000), Outcome { status: 503, exception: true, ..Outcome::default() });
        let ThreadSample { counters, started, average } = cell.read().unwrap();
        assert_eq!((started, average), (None, 1_000));
        assert_eq!((counters.requests, counters.exceptions, counters.running), (1, 1, 2_000_000));
        assert_eq!(counters.responses, [0, 0, 0, 0, 1]);
        let mut counts = LatencyCounts::default();
        cell.read_latencies(&mut counts).unwrap();
        assert_eq!(counts.total(), 1);
    }

    #[test]
    fn phases_that_are_counted_while_they_are_read_are_believed() {
        let cell = zeroed::<ThreadCell>();
        let before = cell.read().unwrap().counters.requests;
        let took = PhaseNanos { application: 1_000, ..PhaseNanos::default() };
        for _ in 0..5 {
            cell.begin(at(0), SocketProtocol::Http, b"", b"");
            cell.finish(at(1_000), at(0), Outcome::default());
            cell.phases.record(&took);
        }
        assert_eq!(cell.add_phases(before, &mut PhaseCounts::default()), Ok(()));
        cell.phases.record(&took);
        cell.phases.record(&took);
        assert_eq!(cell.add_phases(5, &mut PhaseCounts::default()), Err(Corrupt::Counters));
    }

    #[test]
    fn what_a_dead_worker_held_stays_readable_until_it_is_abandoned() {
        let cell = zeroed::<ThreadCell>();
        cell.begin(at(1_000), SocketProtocol::Uwsgi, b"", b"head");
        assert!(cell.held().is_some());
        cell.abandon(at(4_000));
        assert!(cell.held().is_none());
        let counters = cell.read().unwrap().counters;
        assert_eq!((counters.requests, counters.running), (0, 3_000));
    }

    #[test]
    fn a_reader_never_sees_a_request_s_time_twice() {
        let cell = zeroed::<ThreadCell>();
        std::thread::scope(|scope| {
            let writer = scope.spawn(|| {
                for start in (0..200_000_000).step_by(1_000) {
                    cell.begin(at(start), SocketProtocol::Http, b"peer", b"head");
                    cell.finish(at(start + 1_000), at(start), Outcome::default());
                }
            });
            while !writer.is_finished() {
                match cell.read().unwrap() {
                    ThreadSample { counters, started: Some(started), .. } => {
                        assert_eq!(counters.running, started.as_nanos());
                    }
                    ThreadSample { counters, started: None, .. } => {
                        assert_eq!(counters.running, counters.requests * 1_000);
                    }
                }
            }
        });
        assert_eq!(cell.read().unwrap().counters.requests, 200_000);
    }

    #[test]
    fn a_text_longer_than_its_room_is_cut() {
        let cell = zeroed::<ThreadCell>();
        cell.begin(at(0), SocketProtocol::Http, &[b'p'; PEER_KEPT + 9], &[b'h'; HEAD_KEPT + 9]);
        let held = cell.held().unwrap();
        assert_eq!((held.peer.len(), held.head.len()), (PEER_KEPT, HEAD_KEPT));
        for len in [0, 1, 7, 8, 9, 15, 16] {
            cell.begin(at(0), SocketProtocol::Http, b"", &b"0123456789abcdef"[..len]);
            assert_eq!(cell.held().unwrap().head, &b"0123456789abcdef"[..len]);
        }
    }

    #[test]
    fn what_no_thread_writes_is_refused() {
        let future = at(u64::MAX);
        let refused = |spoil: fn(&ThreadCell), why| {
            let cell = zeroed::<ThreadCell>();
            cell.begin(at(1_000), SocketProtocol::Http, b"", b"");
            assert!(cell.read().is_ok());
            spoil(&cell);
            assert_eq!(cell.read(), Err(why));
        };
        refused(|cell| cell.started.store(u64::MAX, Relaxed), Corrupt::Future);
        refused(|cell| cell.protocol.store(2, Relaxed), Corrupt::Protocol);
        refused(|cell| cell.requests.store(u64::MAX, Relaxed), Corrupt::Counters);
        refused(|cell| cell.running_before.store(u64::MAX, Relaxed), Corrupt::Counters);
        refused(|cell| cell.exceptions.store(2, Relaxed), Corrupt::Counters);
        refused(|cell| cell.responses[1].store(2, Relaxed), Corrupt::Counters);
        refused(|cell| cell.tx.store(u64::MAX, Relaxed), Corrupt::Counters);
        let cell = zeroed::<ThreadCell>();
        (0..2).for_each(|_| cell.latency.record(1));
        assert_eq!(cell.read_latencies(&mut LatencyCounts::default()), Err(Corrupt::Counters));
        // The worker itself goes on, whatever it finds in its cell.
        let cell = zeroed::<ThreadCell>();
        for counter in [&cell.sequence, &cell.average, &cell.running, &cell.requests, &cell.running_before] {
            counter.store(u64::MAX, Relaxed);
        }
        cell.begin(future, SocketProtocol::Http, b"", b"");
        cell.abandon(future);
        cell.finish(future, at(0), Outcome::default());
        assert!(cell.read().is_err());
    }

    #[test]
    fn a_cell_that_never_stands_still_is_refused_in_the_end() {
        let cell = zeroed::<ThreadCell>();
        let stop = std::sync::atomic::AtomicBool::new(false);
        std::thread::scope(|scope| {
            for _ in 0..2 {
                scope.spawn(|| {
                    while !stop.load(Relaxed) {
                        cell.sequence.fetch_add(1, Relaxed);
                    }
                });
            }
            // However it ends, it ends.
            assert!((0..1_000).all(|_| matches!(cell.read(), Ok(_) | Err(Corrupt::Unsteady))));
            stop.store(true, Relaxed);
        });
    }
}
