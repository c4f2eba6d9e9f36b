//! A thread's cell on the scoreboard, and the router's: what their one writer stores and the master reads.
//!
//! Every field is an atomic that exactly one thread writes, with relaxed loads and stores: no lock prefix, no system
//! call, no allocation. What a reader must see together is kept by `sequence`, which is odd while a request is held.
//! All-zero memory is a valid, empty cell.

use std::sync::atomic::Ordering::{Acquire, Relaxed, Release};
use std::sync::atomic::{AtomicU32, AtomicU64, fence};

use rwsgi_stats::latency;

use crate::protocol::SocketProtocol;

/// How much of a request's head is kept for those who ask what a thread is doing, bytes.
pub const HEAD_KEPT: usize = 2048;
/// Room for a peer's text: `remote_addr remote_port server_addr server_port`, bytes.
pub const PEER_KEPT: usize = 128;

/// Adds to a counter that only the caller writes.
#[inline]
pub(super) fn add(counter: &AtomicU64, amount: u64) {
    counter.store(counter.load(Relaxed).wrapping_add(amount), Relaxed);
}

/// Bytes that one thread writes and another process may read meanwhile: stored by words, so that a reader may see a
/// mixture of two texts, but never undefined behaviour.
#[repr(C)]
pub struct Text<const WORDS: usize> {
    len: AtomicU32,
    words: [AtomicU64; WORDS],
}

impl<const WORDS: usize> Text<WORDS> {
    /// Keeps as much of `bytes` as there is room for.
    #[inline]
    pub fn store(&self, bytes: &[u8]) {
        let bytes = &bytes[..bytes.len().min(WORDS * 8)];
        let (words, rest) = bytes.as_chunks::<8>();
        for (word, place) in words.iter().zip(&self.words) {
            place.store(u64::from_le_bytes(*word), Relaxed);
        }
        if let (false, Some(place)) = (rest.is_empty(), self.words.get(words.len())) {
            let mut word = [0; 8];
            word[..rest.len()].copy_from_slice(rest);
            place.store(u64::from_le_bytes(word), Relaxed);
        }
        self.len.store(bytes.len() as u32, Relaxed);
    }

    /// A copy of what is kept.
    pub fn load(&self) -> Vec<u8> {
        let len = (self.len.load(Relaxed) as usize).min(WORDS * 8);
        let mut bytes: Vec<u8> =
            self.words[..len.div_ceil(8)].iter().flat_map(|word| word.load(Relaxed).to_le_bytes()).collect();
        bytes.truncate(len);
        bytes
    }
}

/// Counters of a latency histogram, laid out as [`rwsgi_stats::latency`] says.
#[repr(C)]
pub struct Latencies {
    /// A bit for each block of counters in which one is in use, so that a reader need not look at all of them.
    touched: AtomicU64,
    counts: [AtomicU64; latency::BUCKETS],
}

/// Counters in a block, as a power of two: a block for each bit, and as small as that allows.
const BLOCK: u32 = latency::BUCKETS.div_ceil(u64::BITS as usize).next_power_of_two().ilog2();

impl Latencies {
    /// Counts one latency, in µs.
    #[inline]
    pub fn record(&self, micros: u64) {
        let index = latency::index_of(micros);
        add(&self.counts[index], 1);
        let (block, touched) = (1 << (index >> BLOCK), self.touched.load(Relaxed));
        if touched & block == 0 {
            self.touched.store(touched | block, Relaxed);
        }
    }

    /// Adds every count to `sums`, which has the same layout, and grows to the highest block in use.
    pub fn add_to(&self, sums: &mut Vec<u64>) {
        let mut touched = self.touched.load(Relaxed);
        let used = ((u64::BITS - touched.leading_zeros()) as usize) << BLOCK;
        if sums.len() < used {
            sums.resize(used, 0);
        }
        while touched != 0 {
            let start = (touched.trailing_zeros() as usize) << BLOCK;
            touched &= touched - 1;
            // The last block may have fewer counters than it has room for.
            for (sum, count) in sums[start..].iter_mut().zip(&self.counts[start..]).take(1 << BLOCK) {
                *sum += count.load(Relaxed);
            }
        }
    }
}

/// The last exception that a thread's application raised.
#[repr(C)]
pub struct ExceptionCell {
    sequence: AtomicU64,
    when: AtomicU64,
    kind: Text<16>,
    message: Text<48>,
    traceback: Text<TRACEBACK_WORDS>,
    request: Text<48>,
}

/// Room for the frames of a traceback, a line each, in words of eight bytes.
const TRACEBACK_WORDS: usize = 128;

/// What is told of an exception.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct ExceptionReport {
    /// Unix µs.
    pub when: u64,
    /// Class name.
    pub kind: String,
    /// Its text.
    pub message: String,
    /// File, line and function of the innermost frames, the innermost first.
    pub traceback: Vec<String>,
    /// Method and URI of the request.
    pub request: String,
}

impl ExceptionCell {
    /// Replaces what is told.
    pub fn store(&self, report: &ExceptionReport) {
        let sequence = self.sequence.load(Relaxed);
        self.sequence.store(sequence + 1, Relaxed);
        fence(Release);
        self.when.store(report.when, Relaxed);
        self.kind.store(report.kind.as_bytes());
        self.message.store(report.message.as_bytes());
        self.traceback.store(frames_that_fit(&report.traceback).as_bytes());
        self.request.store(report.request.as_bytes());
        self.sequence.store(sequence + 2, Release);
    }

    /// What is told; `None` when nothing was ever raised, or when it is just being written.
    pub fn load(&self) -> Option<ExceptionReport> {
        let before = self.sequence.load(Acquire);
        if before == 0 {
            return None;
        }
        let text = |bytes: Vec<u8>| String::from_utf8_lossy(&bytes).into_owned();
        let report = ExceptionReport {
            when: self.when.load(Relaxed),
            kind: text(self.kind.load()),
            message: text(self.message.load()),
            traceback: text(self.traceback.load()).lines().map(str::to_owned).collect(),
            request: text(self.request.load()),
        };
        fence(Acquire);
        (before.is_multiple_of(2) && before == self.sequence.load(Relaxed)).then_some(report)
    }
}

/// The frames as lines, as many whole ones as there is room for; the innermost in any case, cut if it must be.
fn frames_that_fit(frames: &[String]) -> String {
    let mut lines = String::new();
    for frame in frames {
        // A name may hold anything, but a line is a frame.
        let frame = frame.replace(['\n', '\r'], " ");
        if !lines.is_empty() && lines.len() + 1 + frame.len() > TRACEBACK_WORDS * 8 {
            break;
        }
        if !lines.is_empty() {
            lines.push('\n');
        }
        lines.push_str(&frame);
    }
    lines
}

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

/// Counters of one thread.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Counters {
    /// Requests completed.
    pub requests: u64,
    /// Requests in which the application raised an exception.
    pub exceptions: u64,
    /// Requests that could not be read whole.
    pub read_errors: u64,
    /// Responses that could not be sent whole.
    pub write_errors: u64,
    /// Bytes sent.
    pub tx: u64,
    /// Responses by class, 1xx to 5xx.
    pub responses: [u64; 5],
    /// Time in completed requests, ns.
    pub running: u64,
    /// Time waited for Python's global lock, ns.
    pub gil_wait: u64,
}

impl std::ops::AddAssign for Counters {
    fn add_assign(&mut self, other: Self) {
        self.requests += other.requests;
        self.exceptions += other.exceptions;
        self.read_errors += other.read_errors;
        self.write_errors += other.write_errors;
        self.tx += other.tx;
        for (mine, theirs) in self.responses.iter_mut().zip(other.responses) {
            *mine += theirs;
        }
        self.running += other.running;
        self.gil_wait += other.gil_wait;
    }
}

/// A request that a thread holds, as the master sees it.
#[derive(Clone, Debug)]
pub struct HeldRequest {
    /// When it began, monotonic ns.
    pub started: u64,
    /// The form of `head`: the text of an HTTP/1 head, or the variables of a uwsgi packet.
    pub protocol: SocketProtocol,
    /// `remote_addr remote_port server_addr server_port`; empty for a uwsgi packet, which carries its own.
    pub peer: String,
    /// The first [`HEAD_KEPT`] bytes of its head.
    pub head: Vec<u8>,
}

/// One thread of one worker's life.
#[repr(C, align(64))]
pub struct ThreadCell {
    sequence: AtomicU64,
    started: AtomicU64,
    /// `running` when the request in progress began: while a request is held, this is what is told of `running`, so
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
    peer: Text<{ PEER_KEPT / 8 }>,
    head: Text<{ HEAD_KEPT / 8 }>,
    /// Latency of every request, µs.
    pub latency: Latencies,
    /// The last exception.
    pub exception: ExceptionCell,
}

impl ThreadCell {
    /// The thread took a request at `now` (monotonic ns).
    #[inline]
    pub fn begin(&self, now: u64, protocol: SocketProtocol, peer: &[u8], head: &[u8]) {
        let sequence = self.sequence.load(Relaxed);
        // A reader of the request before this one, who sees any of what follows, sees that it has ended.
        fence(Release);
        self.started.store(now, Relaxed);
        self.running_before.store(self.running.load(Relaxed), Relaxed);
        self.protocol.store(protocol as u32, Relaxed);
        self.peer.store(peer);
        self.head.store(head);
        self.sequence.store(sequence | 1, Release);
    }

    /// The request ended at `now`; it had been there to be served since `ready` (both monotonic ns).
    #[inline]
    pub fn finish(&self, now: u64, ready: u64, outcome: Outcome) {
        let took = now.saturating_sub(self.started.load(Relaxed));
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
        self.average.store((self.average.load(Relaxed) + took / 1_000) / 2, Relaxed);
        self.latency.record(now.saturating_sub(ready) / 1_000);
        let sequence = self.sequence.load(Relaxed);
        self.sequence.store((sequence | 1) + 1, Release);
    }

    /// The process of this thread died at `now` (monotonic ns): what it held is over, uncounted.
    ///
    /// Only the master calls this, when no process has the cell any more.
    pub fn abandon(&self, now: u64) {
        let sequence = self.sequence.load(Relaxed);
        if sequence % 2 == 1 {
            // Not added: the process may have died between counting the request and letting go of it.
            let took = now.saturating_sub(self.started.load(Relaxed));
            self.running.store(self.running_before.load(Relaxed) + took, Relaxed);
            self.sequence.store(sequence + 1, Release);
        }
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

    /// The thread waited `nanoseconds` for Python's global lock.
    #[inline]
    pub fn waited_for_gil(&self, nanoseconds: u64) {
        add(&self.gil_wait, nanoseconds);
    }

    /// uWSGI's moving average of the response time, µs.
    pub fn average(&self) -> u64 {
        self.average.load(Relaxed)
    }

    /// The counters, and when the request in progress began (monotonic ns), as they stood at one moment: the time of a
    /// request is either in `running` or in progress, never in both.
    pub fn read(&self) -> (Counters, Option<u64>) {
        loop {
            let before = self.sequence.load(Acquire);
            let started = self.started.load(Relaxed);
            let held = before % 2 == 1;
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
            fence(Acquire);
            // A writer that changes requests a hundred thousand times a second leaves long quiet gaps between two
            // reads of 15 words: this ends after one turn nearly always.
            if before == self.sequence.load(Relaxed) {
                return (counters, held.then_some(started));
            }
        }
    }

    /// The request in progress.
    pub fn held(&self) -> Option<HeldRequest> {
        let before = self.sequence.load(Acquire);
        if before.is_multiple_of(2) {
            return None;
        }
        let request = HeldRequest {
            started: self.started.load(Relaxed),
            protocol: if self.protocol.load(Relaxed) == SocketProtocol::Uwsgi as u32 {
                SocketProtocol::Uwsgi
            } else {
                SocketProtocol::Http
            },
            peer: String::from_utf8_lossy(&self.peer.load()).into_owned(),
            head: self.head.load(),
        };
        fence(Acquire);
        (before == self.sequence.load(Relaxed)).then_some(request)
    }
}

/// What the http router tells: written by the router process alone.
#[repr(C, align(64))]
pub struct RouterCell {
    depth: AtomicU64,
    rejected: AtomicU64,
    connections: AtomicU64,
    /// How long requests waited for a free thread, µs.
    pub waiting: Latencies,
}

impl RouterCell {
    /// So many requests wait for a thread now.
    pub fn set_depth(&self, depth: usize) {
        self.depth.store(depth as u64, Relaxed);
    }

    /// A request was turned away because the queue was full.
    pub fn reject(&self) {
        add(&self.rejected, 1);
    }

    /// So many clients are connected now.
    pub fn set_connections(&self, connections: usize) {
        self.connections.store(connections as u64, Relaxed);
    }

    /// Requests that wait, requests turned away, clients connected.
    pub fn read(&self) -> (u64, u64, u64) {
        (self.depth.load(Relaxed), self.rejected.load(Relaxed), self.connections.load(Relaxed))
    }
}

/// One life of a worker: written by that process alone.
#[repr(C, align(64))]
pub struct WorkerCell {
    accepting: AtomicU32,
}

impl WorkerCell {
    /// Whether the worker takes new requests.
    pub fn set_accepting(&self, accepting: bool) {
        self.accepting.store(accepting.into(), Release);
    }

    /// Whether the worker takes new requests.
    pub fn accepting(&self) -> bool {
        self.accepting.load(Acquire) != 0
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn zeroed() -> Box<ThreadCell> {
        crate::stats::scoreboard::zeroed_cell()
    }

    #[test]
    fn a_request_in_progress_is_seen_and_counted_when_it_ends() {
        let cell = zeroed();
        assert!(cell.held().is_none());
        cell.begin(5_000, SocketProtocol::Http, b"1.2.3.4 5 6.7.8.9 80", b"GET /slow HTTP/1.1\r\n");
        let held = cell.held().unwrap();
        assert_eq!((held.started, held.head.as_slice()), (5_000, b"GET /slow HTTP/1.1\r\n".as_slice()));
        assert_eq!(cell.read().1, Some(5_000));

        cell.finish(2_005_000, 1_000, Outcome { status: 503, exception: true, ..Outcome::default() });
        let (counters, started) = cell.read();
        assert_eq!(started, None);
        assert_eq!((counters.requests, counters.exceptions, counters.running), (1, 1, 2_000_000));
        assert_eq!(counters.responses, [0, 0, 0, 0, 1]);
        let mut sums = vec![0; latency::BUCKETS];
        cell.latency.add_to(&mut sums);
        assert_eq!(latency::from_counts(sums.into_iter().enumerate()).len(), 1);
    }

    #[test]
    fn what_a_dead_worker_held_stays_readable_until_it_is_abandoned() {
        let cell = zeroed();
        cell.begin(1_000, SocketProtocol::Uwsgi, b"", b"head");
        assert!(cell.held().is_some());
        cell.abandon(4_000);
        assert!(cell.held().is_none());
        let (counters, _) = cell.read();
        assert_eq!((counters.requests, counters.running), (0, 3_000));
    }

    #[test]
    fn a_reader_never_sees_a_request_s_time_twice() {
        let cell = zeroed();
        std::thread::scope(|scope| {
            let writer = scope.spawn(|| {
                for start in (0..200_000_000).step_by(1_000) {
                    cell.begin(start, SocketProtocol::Http, b"peer", b"head");
                    cell.finish(start + 1_000, start, Outcome::default());
                }
            });
            while !writer.is_finished() {
                match cell.read() {
                    (counters, Some(started)) => assert_eq!(counters.running, started),
                    (counters, None) => assert_eq!(counters.running, counters.requests * 1_000),
                }
            }
        });
        assert_eq!(cell.read().0.requests, 200_000);
    }

    #[test]
    fn a_text_longer_than_its_room_is_cut() {
        let cell = zeroed();
        cell.begin(0, SocketProtocol::Http, &[b'p'; PEER_KEPT + 9], &[b'h'; HEAD_KEPT + 9]);
        let held = cell.held().unwrap();
        assert_eq!((held.peer.len(), held.head.len()), (PEER_KEPT, HEAD_KEPT));
        for len in [0, 1, 7, 8, 9, 15, 16] {
            cell.begin(0, SocketProtocol::Http, b"", &b"0123456789abcdef"[..len]);
            assert_eq!(cell.held().unwrap().head, &b"0123456789abcdef"[..len]);
        }
    }

    #[test]
    fn the_last_exception_replaces_the_one_before() {
        let cell = zeroed();
        assert_eq!(cell.exception.load(), None);
        for kind in ["ValueError", "KeyError"] {
            cell.exception.store(&ExceptionReport { when: 7, kind: kind.into(), ..ExceptionReport::default() });
        }
        assert_eq!(cell.exception.load().unwrap().kind, "KeyError");
    }

    #[test]
    fn a_traceback_keeps_the_innermost_frames_that_fit_whole() {
        let kept = |traceback: Vec<String>| {
            let cell = zeroed();
            cell.exception.store(&ExceptionReport { when: 7, traceback, ..ExceptionReport::default() });
            cell.exception.load().unwrap().traceback
        };
        let frame = |number: usize, length: usize| format!("{number}{}", "x".repeat(length - 1));
        assert_eq!(kept(vec!["a.py:1 in f".into(), "b.py:2 in\ng".into()]), ["a.py:1 in f", "b.py:2 in g"]);
        assert_eq!(kept(vec![]), Vec::<String>::new());
        let three: Vec<_> = (0..3).map(|number| frame(number, 400)).collect();
        assert_eq!(kept(three.clone()), three[..2]);
        assert_eq!(kept(vec![frame(0, 5_000), frame(1, 9)]), [frame(0, TRACEBACK_WORDS * 8)]);
    }
}
