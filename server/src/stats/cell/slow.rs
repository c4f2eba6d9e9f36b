//! Slow requests: what a thread tells the master of each that it has ended, and what tells it which are slow.

use std::sync::atomic::Ordering::{Acquire, Relaxed, Release, SeqCst};
use std::sync::atomic::{AtomicU32, AtomicU64, fence};

use super::exception::ExceptionReport;
use super::phases::PhaseNanos;
use super::text::SharedText;
use super::thread::{HEAD_KEPT, HeldRequest, PEER_KEPT, protocol_of};
use crate::clock::MonotonicNanos;
use crate::stats::route_text::ROUTE_MAX;
use rwsgi_protocol::SocketProtocol;

/// Slow requests of a thread that wait for the master. It is told of the first at once.
const RECORDS: usize = 4;

/// What all threads read at each request, and the master writes.
#[repr(C, align(64))]
pub struct SlowControl {
    /// A request that takes longer is slow, ns.
    threshold: AtomicU64,
    /// The master sleeps as long as no request begins: who begins one wakes it.
    sleeps: AtomicU32,
}

impl SlowControl {
    /// From now on a request is slow when it takes longer than that, ns; `None` for never.
    pub fn set_threshold(&self, nanos: Option<u64>) {
        self.threshold.store(nanos.unwrap_or(u64::MAX), Relaxed);
    }

    /// Whether a request that took so long is slow.
    #[inline]
    pub fn is_slow(&self, nanos: u64) -> bool {
        nanos > self.threshold.load(Relaxed)
    }

    /// The master wants to be woken by the next request that begins, or does not.
    pub fn set_sleeps(&self, sleeps: bool) {
        self.sleeps.store(sleeps.into(), SeqCst);
    }

    /// A request has begun: whether the master is to be woken for it. One of those who ask is told so.
    #[inline]
    pub fn wakes(&self) -> bool {
        self.sleeps.load(Relaxed) != 0 && self.sleeps.swap(0, SeqCst) != 0
    }
}

/// How a slow request ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum SlowEnd {
    /// As others do.
    Done,
    /// `harakiri` has answered it.
    Harakiri,
}

/// A slow request that has ended.
#[derive(Clone, Debug)]
pub struct SlowReport {
    /// As it was held; `started` says which of the thread's it was.
    pub request: HeldRequest,
    /// Where its time went.
    pub phases: PhaseNanos,
    /// The status that was sent; 0 for none.
    pub status: u16,
    /// How it ended.
    pub end: SlowEnd,
    /// Resident memory of the process then, bytes; 0 when unknown.
    pub rss: u64,
    /// What the application raised, empty for nothing: class name and text.
    pub exception: [String; 2],
}

/// What is written of a slow request that the head and the peer's text of a thread's cell do not say.
pub struct SlowEntry<'a> {
    /// When its thread took it.
    pub started: MonotonicNanos,
    /// Of the head.
    pub protocol: SocketProtocol,
    /// The text of its ends.
    pub peer: &'a [u8],
    /// Its head.
    pub head: &'a [u8],
    /// Where its time went.
    pub phases: PhaseNanos,
    /// The status that was sent.
    pub status: u16,
    /// How it ended.
    pub end: SlowEnd,
    /// Resident memory now, bytes.
    pub rss: u64,
    /// What the application raised.
    pub exception: Option<&'a ExceptionReport>,
    /// What the application has called its route; empty for nothing.
    pub route_name: &'a [u8],
}

/// The slow requests of a thread that wait for the master, the newest over the oldest.
#[repr(C)]
pub struct SlowRing {
    /// How many were ever written.
    written: AtomicU64,
    records: [SlowRecord; RECORDS],
}

#[repr(C)]
struct SlowRecord {
    /// Twice its number, and one more while it is written.
    sequence: AtomicU64,
    started: AtomicU64,
    phases: [AtomicU64; 5],
    rss: AtomicU64,
    protocol: AtomicU32,
    status: AtomicU32,
    end: AtomicU32,
    peer: SharedText<{ PEER_KEPT / 8 }>,
    head: SharedText<{ HEAD_KEPT / 8 }>,
    kind: SharedText<16>,
    message: SharedText<48>,
    route_name: SharedText<{ ROUTE_MAX / 8 }>,
}

/// What came of looking for slow requests of a thread.
#[derive(Debug, Default)]
pub struct SlowTaken {
    /// The oldest first.
    pub reports: Vec<SlowReport>,
    /// How many were written over before they could be read.
    pub lost: u64,
}

impl SlowRing {
    /// Writes down a request. Only the cell's thread does.
    pub fn write(&self, entry: &SlowEntry<'_>) {
        let number = self.written.load(Relaxed).wrapping_add(1);
        let record = &self.records[(number % RECORDS as u64) as usize];
        record.sequence.store(number.wrapping_mul(2).wrapping_add(1), Relaxed);
        fence(Release);
        record.store(entry);
        record.sequence.store(number.wrapping_mul(2), Release);
        self.written.store(number, Release);
    }

    /// How many were ever written.
    #[must_use]
    pub fn written(&self) -> u64 {
        self.written.load(Acquire)
    }

    /// Those after the first `taken`, which counts them. `requests` says how many requests the thread has served: it is
    /// asked after a look, so that it has counted all that are found.
    pub fn take(&self, taken: &mut u64, requests: impl FnOnce() -> u64) -> SlowTaken {
        let written = self.written();
        // More than it has served: nobody knows who wrote that. What comes after it counts again.
        if written < *taken || written > requests() {
            *taken = written;
            return SlowTaken::default();
        }
        let first = (*taken).max(written.saturating_sub(RECORDS as u64));
        let reports: Vec<_> = (first + 1..=written).filter_map(|number| self.read(number)).collect();
        let lost = (written - *taken) - reports.len() as u64;
        *taken = written;
        SlowTaken { reports, lost }
    }

    fn read(&self, number: u64) -> Option<SlowReport> {
        let record = &self.records[(number % RECORDS as u64) as usize];
        let before = record.sequence.load(Acquire);
        let report = record.load();
        fence(Acquire);
        let is_it = before == number.wrapping_mul(2) && before == record.sequence.load(Relaxed);
        report.filter(|_| is_it)
    }
}

impl SlowRecord {
    fn store(&self, entry: &SlowEntry<'_>) {
        let PhaseNanos { queue, body, gil, application, write } = entry.phases;
        self.started.store(entry.started.as_nanos(), Relaxed);
        for (place, nanos) in self.phases.iter().zip([queue, body, gil, application, write]) {
            place.store(nanos, Relaxed);
        }
        self.rss.store(entry.rss, Relaxed);
        self.protocol.store(entry.protocol as u32, Relaxed);
        self.status.store(entry.status.into(), Relaxed);
        self.end.store((entry.end == SlowEnd::Harakiri).into(), Relaxed);
        self.peer.store(entry.peer);
        self.head.store(entry.head);
        let (kind, message) = entry.exception.map_or(("", ""), |raised| (&raised.kind, &raised.message));
        self.kind.store(kind.as_bytes());
        self.message.store(message.as_bytes());
        self.route_name.store(entry.route_name);
    }

    /// `None` for what no thread writes.
    fn load(&self) -> Option<SlowReport> {
        let now = MonotonicNanos::now();
        let started = MonotonicNanos::from_nanos(self.started.load(Relaxed));
        let [queue, body, gil, application, write] = self.phases.each_ref().map(|place| place.load(Relaxed));
        let phases = PhaseNanos { queue, body, gil, application, write };
        // A queue is as long as a client has said, at most an hour.
        const HOUR: u64 = 3_600_000_000_000;
        let total = [queue, body, gil, application, write].into_iter().fold(0, u64::saturating_add);
        (started <= now && total <= now.as_nanos().saturating_add(HOUR)).then_some(())?;
        Some(SlowReport {
            request: HeldRequest {
                started,
                protocol: protocol_of(self.protocol.load(Relaxed)).ok()?,
                peer: self.peer.load_text(),
                head: self.head.load(),
                route_name: self.route_name.load(),
            },
            phases,
            status: u16::try_from(self.status.load(Relaxed)).ok()?,
            end: if self.end.load(Relaxed) == 0 { SlowEnd::Done } else { SlowEnd::Harakiri },
            rss: self.rss.load(Relaxed),
            exception: [self.kind.load_text(), self.message.load_text()],
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::shared_memory::zeroed;

    fn write(ring: &SlowRing, number: u64) {
        ring.write(&SlowEntry {
            started: MonotonicNanos::from_nanos(number),
            protocol: SocketProtocol::Http,
            peer: b"127.0.0.1 1 127.0.0.1 2",
            head: b"GET / HTTP/1.1\r\n\r\n",
            phases: PhaseNanos { application: 5, ..PhaseNanos::default() },
            status: 200,
            end: SlowEnd::Done,
            rss: 4096,
            exception: None,
            route_name: b"/",
        });
    }

    fn numbers(taken: &SlowTaken) -> Vec<u64> {
        taken.reports.iter().map(|report| report.request.started.as_nanos()).collect()
    }

    #[test]
    fn each_is_taken_once_and_those_that_were_written_over_are_counted() {
        let ring = zeroed::<SlowRing>();
        let mut taken = 0;
        assert!(ring.take(&mut taken, || 0).reports.is_empty());
        (1..=3).for_each(|number| write(&ring, number));
        let first = ring.take(&mut taken, || 3);
        assert_eq!((numbers(&first), first.lost), (vec![1, 2, 3], 0));
        assert_eq!((first.reports[0].request.route_name.as_slice(), first.reports[0].rss), (&b"/"[..], 4096));
        (4..=9).for_each(|number| write(&ring, number));
        let next = ring.take(&mut taken, || 9);
        assert_eq!((numbers(&next), next.lost), (vec![6, 7, 8, 9], 2));
        assert!(ring.take(&mut taken, || 9).reports.is_empty());
    }

    #[test]
    fn what_no_thread_writes_is_not_taken() {
        let ring = zeroed::<SlowRing>();
        let mut taken = 0;
        ring.written.store(u64::MAX, Relaxed);
        assert_eq!(ring.take(&mut taken, || 9).lost, 0);
        let ring = zeroed::<SlowRing>();
        let mut taken = 0;
        write(&ring, u64::MAX);
        let found = ring.take(&mut taken, || 9);
        assert_eq!((found.reports.len(), found.lost), (0, 1), "from the future");
    }

    #[test]
    fn one_of_those_who_begin_wakes_the_master_that_sleeps() {
        let control = zeroed::<SlowControl>();
        assert!(!control.wakes());
        control.set_sleeps(true);
        assert!(control.wakes() && !control.wakes());
        control.set_threshold(Some(5));
        assert!(control.is_slow(6) && !control.is_slow(5));
        control.set_threshold(None);
        assert!(!control.is_slow(u64::MAX));
    }
}
