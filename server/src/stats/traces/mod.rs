//! Traced requests on their way from the workers to the exporter in the master: a ring for each thread of each worker
//! process, in a memory file of its own, which is there only when requests are traced.
//!
//! A thread writes a record when its request has ended, with no lock and, as a rule, no system call; when the ring is
//! full, the record is dropped and counted. The exporter looks some times a second as long as there are any. When there
//! are none it sleeps, and the next record wakes it; so does a ring that is half full. A ring is not cleared when its
//! process has ended: what is in it is still taken, and the next process of the slot goes on there.

use std::os::fd::{BorrowedFd, OwnedFd};
use std::sync::atomic::Ordering::{AcqRel, Acquire, Relaxed, Release, SeqCst};
use std::sync::atomic::{AtomicU32, AtomicU64, fence};
use std::time::Duration;

use nix::errno::Errno;
use rustix::thread::futex;
use rustix::time::Timespec;

use super::cell::{ExceptionReport, HEAD_KEPT, HeldRequest, PEER_KEPT, PhaseNanos, SharedText, add, protocol_of};
use super::route_text::ROUTE_MAX;
use crate::clock::MonotonicNanos;
use crate::ids::{SlotId, ThreadIndex};
use crate::procfs;
use crate::shared_memory::{Shareable, SharedMemory};
use rwsgi_protocol::SocketProtocol;

/// Records that wait in a thread's ring.
const RECORDS: u64 = 64;
/// The exporter is woken when there are as many.
const HURRY: u64 = RECORDS / 2;
/// An hour, ns: no phase of a request is longer.
const HOUR: u64 = 3_600_000_000_000;

/// The numbers of a traced request.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct TraceIds {
    /// The trace; never 0.
    pub trace: u128,
    /// The caller's span; 0 for none.
    pub parent: u64,
    /// The request's span.
    pub span: u64,
    /// The span of the application's call, which is the parent of what the application records itself.
    pub application: u64,
}

/// How a traced request ended.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum TraceEnd {
    /// As others do.
    #[default]
    Done,
    /// `harakiri` has answered it.
    Harakiri,
    /// Its client was gone before it had the response.
    ClientGone,
    /// Its process died.
    Died,
}

impl TraceEnd {
    const ALL: [Self; 4] = [Self::Done, Self::Harakiri, Self::ClientGone, Self::Died];
}

/// What is written of a request.
pub struct TraceEntry<'a> {
    /// Its numbers.
    pub ids: TraceIds,
    /// When its thread took it.
    pub started: MonotonicNanos,
    /// Where its time went.
    pub phases: PhaseNanos,
    /// Of the head.
    pub protocol: SocketProtocol,
    /// The text of its ends.
    pub peer: &'a [u8],
    /// Its head.
    pub head: &'a [u8],
    /// What the application has called its route; empty for nothing.
    pub route_name: &'a [u8],
    /// The status that was sent; 0 for none.
    pub status: u16,
    /// Bytes of the response's body.
    pub body: u64,
    /// How it ended.
    pub end: TraceEnd,
    /// What the application raised.
    pub exception: Option<&'a ExceptionReport>,
    /// The worker.
    pub worker: u32,
    /// Its process.
    pub pid: u32,
    /// The thread.
    pub thread: u32,
}

/// A traced request that has ended.
#[derive(Clone, Debug)]
pub struct TraceReport {
    /// Its numbers.
    pub ids: TraceIds,
    /// As it was held.
    pub request: HeldRequest,
    /// Where its time went.
    pub phases: PhaseNanos,
    /// The status that was sent; 0 for none.
    pub status: u16,
    /// Bytes of the response's body.
    pub body: u64,
    /// How it ended.
    pub end: TraceEnd,
    /// What the application raised: class name, text and frames; empty for nothing.
    pub exception: [String; 3],
    /// The worker, its process, and the thread.
    pub server: [u32; 3],
}

impl TraceReport {
    /// About how much memory it takes, bytes.
    #[must_use]
    pub fn size(&self) -> usize {
        let HeldRequest { peer, head, route_name, .. } = &self.request;
        let texts = self.exception.iter().map(String::len).sum::<usize>();
        size_of::<Self>() + peer.len() + head.len() + route_name.len() + texts
    }
}

/// The first page: how the exporter is woken.
#[repr(C, align(64))]
pub(crate) struct TraceHead {
    /// Changes whenever the exporter is to look.
    wake: AtomicU32,
    /// It sleeps until somebody wakes it.
    sleeps: AtomicU32,
}

impl TraceHead {
    fn ring(&self) {
        self.wake.fetch_add(1, SeqCst);
        // It cannot fail; and when it does, the exporter looks later.
        let _ = futex::wake(&self.wake, futex::Flags::empty(), 1);
    }
}

#[repr(C, align(64))]
pub(crate) struct TraceRing {
    /// How many were ever written. The thread's.
    written: AtomicU64,
    /// How many were dropped. The thread's.
    dropped: AtomicU64,
    /// The numbers of the request in progress. The thread's.
    open: OpenIds,
    /// How many were taken. The exporter's.
    taken: AtomicU64,
    records: [TraceRecord; RECORDS as usize],
}

#[repr(C)]
struct OpenIds {
    /// When it began, ns; 0 for none.
    started: AtomicU64,
    ids: [AtomicU64; 5],
}

#[repr(C)]
struct TraceRecord {
    ids: [AtomicU64; 5],
    started: AtomicU64,
    phases: [AtomicU64; 5],
    body: AtomicU64,
    protocol: AtomicU32,
    status: AtomicU32,
    end: AtomicU32,
    server: [AtomicU32; 3],
    peer: SharedText<{ PEER_KEPT / 8 }>,
    head: SharedText<{ HEAD_KEPT / 8 }>,
    route_name: SharedText<{ ROUTE_MAX / 8 }>,
    kind: SharedText<16>,
    message: SharedText<48>,
    frames: SharedText<64>,
}

fn store_ids(places: &[AtomicU64; 5], ids: &TraceIds) {
    let words = [(ids.trace >> 64) as u64, ids.trace as u64, ids.parent, ids.span, ids.application];
    places.iter().zip(words).for_each(|(place, word)| place.store(word, Relaxed));
}

/// `None` for what are no numbers of a trace, as in memory that nobody has written: a collector may refuse all that is sent
/// with them.
fn load_ids(places: &[AtomicU64; 5]) -> Option<TraceIds> {
    let [high, low, parent, span, application] = places.each_ref().map(|place| place.load(Relaxed));
    let ids = TraceIds { trace: u128::from(high) << 64 | u128::from(low), parent, span, application };
    (ids.trace != 0 && span != 0 && application != 0).then_some(ids)
}

impl TraceRecord {
    fn store(&self, entry: &TraceEntry<'_>) {
        let PhaseNanos { queue, body, gil, application, write } = entry.phases;
        store_ids(&self.ids, &entry.ids);
        self.started.store(entry.started.as_nanos(), Relaxed);
        for (place, nanos) in self.phases.iter().zip([queue, body, gil, application, write]) {
            place.store(nanos, Relaxed);
        }
        self.body.store(entry.body, Relaxed);
        self.protocol.store(entry.protocol as u32, Relaxed);
        self.status.store(entry.status.into(), Relaxed);
        self.end.store(entry.end as u32, Relaxed);
        for (place, number) in self.server.iter().zip([entry.worker, entry.pid, entry.thread]) {
            place.store(number, Relaxed);
        }
        self.peer.store(entry.peer);
        self.head.store(entry.head);
        self.route_name.store(entry.route_name);
        self.kind.clear();
        if let Some(raised) = entry.exception {
            self.kind.store(raised.kind.as_bytes());
            self.message.store(raised.message.as_bytes());
            self.frames.store(raised.traceback.join("\n").as_bytes());
        }
    }

    /// `None` for what no thread writes.
    fn load(&self) -> Option<TraceReport> {
        let now = MonotonicNanos::now();
        let started = MonotonicNanos::from_nanos(self.started.load(Relaxed));
        let [queue, body, gil, application, write] = self.phases.each_ref().map(|place| place.load(Relaxed));
        let total = [queue, body, gil, application, write].into_iter().fold(0, u64::saturating_add);
        (started <= now && total <= now.as_nanos().saturating_add(HOUR)).then_some(())?;
        let end = self.end.load(Relaxed);
        let kind = self.kind.load_text();
        let [message, frames] = match kind.is_empty() {
            true => Default::default(),
            false => [self.message.load_text(), self.frames.load_text()],
        };
        Some(TraceReport {
            ids: load_ids(&self.ids)?,
            request: HeldRequest {
                started,
                protocol: protocol_of(self.protocol.load(Relaxed)).ok()?,
                peer: self.peer.load_text(),
                head: self.head.load(),
                route_name: self.route_name.load(),
            },
            phases: PhaseNanos { queue, body, gil, application, write },
            status: u16::try_from(self.status.load(Relaxed)).ok()?,
            body: self.body.load(Relaxed),
            end: TraceEnd::ALL.into_iter().find(|known| *known as u32 == end)?,
            exception: [kind, message, frames],
            server: self.server.each_ref().map(|number| number.load(Relaxed)),
        })
    }
}

impl TraceRing {
    /// A traced request begins. Only the ring's thread does this.
    fn begin(&self, started: MonotonicNanos, ids: &TraceIds) {
        store_ids(&self.open.ids, ids);
        self.open.started.store(started.as_nanos(), Release);
    }

    /// Writes down a request that has ended; returns how many wait then, `None` when it was dropped.
    fn write(&self, entry: &TraceEntry<'_>) -> Option<u64> {
        self.open.started.store(0, Relaxed);
        let written = self.written.load(Relaxed);
        let waiting = written.wrapping_sub(self.taken.load(Acquire));
        if waiting >= RECORDS {
            add(&self.dropped, 1);
            return None;
        }
        self.records[(written % RECORDS) as usize].store(entry);
        self.written.store(written.wrapping_add(1), Release);
        Some(waiting + 1)
    }

    /// For the exporter: takes all that wait.
    fn take(&self, seen: &mut Seen, to: &mut Vec<TraceReport>) {
        let (written, dropped) = (self.written.load(Acquire), self.dropped.load(Relaxed));
        // It may have any value when the application writes there.
        seen.lost += dropped.checked_sub(seen.dropped).filter(|lost| *lost < u64::from(u32::MAX)).unwrap_or(1);
        seen.dropped = dropped;
        if written.wrapping_sub(seen.taken) > RECORDS {
            seen.taken = written;
            seen.lost += 1;
        }
        while seen.taken != written {
            match self.records[(seen.taken % RECORDS) as usize].load() {
                Some(report) => to.push(report),
                None => seen.lost += 1,
            }
            seen.taken = seen.taken.wrapping_add(1);
        }
        self.taken.store(written, Release);
    }

    /// The numbers of the request that began then and has not ended.
    fn open(&self, started: MonotonicNanos) -> Option<TraceIds> {
        let is_it = started.as_nanos() != 0 && self.open.started.load(Acquire) == started.as_nanos();
        is_it.then(|| load_ids(&self.open.ids)).flatten()
    }
}

#[derive(Clone, Copy, Debug, Default)]
struct Seen {
    taken: u64,
    dropped: u64,
    lost: u64,
}

/// Where things are, bytes.
#[derive(Clone, Copy, Debug)]
struct Places {
    slots: usize,
    slot: usize,
}

impl Places {
    fn of(threads: u32) -> Self {
        let page = procfs::page_size();
        let slot = (threads as usize * size_of::<TraceRing>()).next_multiple_of(page);
        Self { slots: size_of::<TraceHead>().next_multiple_of(page), slot }
    }
}

/// All rings, for the master. Nothing of them takes memory before it is used.
#[derive(Debug)]
pub(crate) struct TraceMemory {
    memory: SharedMemory,
    places: Places,
    slots: u32,
    threads: u32,
}

impl TraceMemory {
    /// Empty rings for so many slots of so many threads. There may be none: the exporter is woken by the same head.
    ///
    /// # Errors
    /// When the system has no memory or descriptors left.
    pub(crate) fn create(slots: u32, threads: u32) -> nix::Result<Self> {
        let places = Places::of(threads);
        let memory = SharedMemory::create(c"rwsgi-traces", places.slots + slots as usize * places.slot)?;
        Ok(Self { memory, places, slots, threads })
    }

    /// The memory file, to be inherited by workers.
    pub(crate) fn memory(&self) -> BorrowedFd<'_> {
        self.memory.file()
    }

    fn head(&self) -> &TraceHead {
        self.memory.at(0)
    }

    fn ring(&self, slot: SlotId, thread: ThreadIndex) -> &TraceRing {
        let start = self.places.slots + slot.index() * self.places.slot;
        self.memory.at(start + thread.index() * size_of::<TraceRing>())
    }

    /// The numbers of the traced request that a thread began then and has not ended.
    pub(crate) fn open(&self, slot: SlotId, thread: ThreadIndex, started: MonotonicNanos) -> Option<TraceIds> {
        let exists = slot.get() < self.slots && thread.get() < self.threads;
        exists.then(|| self.ring(slot, thread).open(started)).flatten()
    }

    /// Wakes the exporter.
    pub(crate) fn wake(&self) {
        self.head().ring();
    }

    /// How often it was woken, for [`Self::sleep`].
    pub(crate) fn wakes(&self) -> u32 {
        self.head().wake.load(SeqCst)
    }

    /// Sleeps until it is woken or the time is over, unless it was woken since it `had` been that often.
    pub(crate) fn sleep(&self, had: u32, longest: Option<Duration>) {
        let timeout = longest.and_then(|longest| Timespec::try_from(longest).ok());
        // Whatever it returns for: the caller looks.
        let _ = futex::wait(&self.head().wake, futex::Flags::empty(), had, timeout.as_ref());
    }

    /// From now on the next record of any thread wakes it, or none does.
    pub(crate) fn set_sleeps(&self, sleeps: bool) {
        self.head().sleeps.store(sleeps.into(), SeqCst);
        fence(SeqCst);
    }
}

/// What the exporter has taken of all rings.
#[derive(Debug)]
pub(crate) struct TraceReader(Vec<Seen>);

impl TraceReader {
    pub(crate) fn new(memory: &TraceMemory) -> Self {
        Self(vec![Seen::default(); memory.slots as usize * memory.threads as usize])
    }

    /// Takes all that waits; returns it, and how many were lost.
    pub(crate) fn take(&mut self, memory: &TraceMemory) -> (Vec<TraceReport>, u64) {
        let mut reports = Vec::new();
        let mut lost = 0;
        let threads = memory.threads.max(1);
        for (index, seen) in (0..).zip(&mut self.0) {
            let ring = memory.ring(SlotId::new(index / threads), ThreadIndex::new(index % threads));
            ring.take(seen, &mut reports);
            lost += std::mem::take(&mut seen.lost);
        }
        (reports, lost)
    }
}

/// The rings of a worker's process.
#[derive(Debug)]
pub(crate) struct TraceCells {
    head: SharedMemory,
    rings: SharedMemory,
    threads: u32,
}

impl TraceCells {
    /// Maps those of a slot, and the head, of the memory that the master has made.
    ///
    /// # Errors
    /// When the file cannot be mapped, or is too small.
    pub(crate) fn map(file: &OwnedFd, slot: SlotId, threads: u32) -> nix::Result<Self> {
        let places = Places::of(threads);
        let start = places.slots + slot.index() * places.slot;
        let copy = || file.try_clone().map_err(|error| error.raw_os_error().map_or(Errno::EMFILE, Errno::from_raw));
        Ok(Self {
            head: SharedMemory::map(copy()?, places.slots)?,
            rings: SharedMemory::map_part(copy()?, start..start + places.slot)?,
            threads,
        })
    }

    /// From now on what this process writes is its own: for a child that is no worker.
    pub(crate) fn detach(&self) {
        self.head.detach();
        self.rings.detach();
    }

    fn ring(&self, thread: ThreadIndex) -> &TraceRing {
        assert!(thread.get() < self.threads, "thread {thread} of {}", self.threads);
        self.rings.at(thread.index() * size_of::<TraceRing>())
    }

    /// A traced request of a thread begins.
    pub(crate) fn begin(&self, thread: ThreadIndex, started: MonotonicNanos, ids: &TraceIds) {
        self.ring(thread).begin(started, ids);
    }

    /// Writes down a request of a thread that has ended, and wakes the exporter if need be.
    pub(crate) fn write(&self, thread: ThreadIndex, entry: &TraceEntry<'_>) {
        let waiting = self.ring(thread).write(entry);
        // Either it is seen by who is about to sleep, or that is seen here.
        fence(SeqCst);
        let head: &TraceHead = self.head.at(0);
        let is_first = head.sleeps.load(SeqCst) != 0 && head.sleeps.swap(0, AcqRel) != 0;
        if is_first || waiting == Some(HURRY) {
            head.ring();
        }
    }
}

#[allow(unsafe_code)]
mod shareable {
    use super::{Shareable, TraceHead, TraceRing};

    // SAFETY: atomics alone, of which every byte belongs to one or is padding that nobody reads.
    unsafe impl Shareable for TraceHead {}
    // SAFETY: as above.
    unsafe impl Shareable for TraceRing {}
}

#[cfg(test)]
mod tests;
