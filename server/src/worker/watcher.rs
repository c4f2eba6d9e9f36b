//! A small thread of a worker, without Python, that hands over connections: those that become ready while every thread of
//! the worker has been in one request for some time. It takes them from the worker's epoll set as a free thread would, and
//! puts them into the queue of all workers, from which the kernel wakes one that is free. Where a worker is busy again and
//! again and another is not, one goes at a time, so that what has gone from there comes back.
//!
//! It is started by the first request that could keep a connection waiting, sleeps without a timer while there is none,
//! and ends before this process forks. All that it asks of the threads is in their cells of the scoreboard already, so
//! that a request pays for one load.

use std::os::fd::AsFd;
use std::sync::Arc;
use std::sync::PoisonError;
use std::sync::atomic::Ordering::{Acquire, Relaxed, Release, SeqCst};
use std::thread::{self, Builder};
use std::time::Duration;

use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use nix::sys::epoll::{EpollEvent, EpollTimeout};
use nix::sys::signal::{SigSet, SigmaskHow};
use nix::unistd::{Pid, gettid};
use tracing::{error, warn};

use super::connection::Wait;
use super::kind::Kind;
use super::peers::Peers;
use super::state::{TOKEN_LISTENER, TOKEN_STOP, Worker};
use super::stop;
use crate::clock::MonotonicNanos;
use crate::ids::SlotId;
use crate::procfs;

/// A request that has taken so long keeps others waiting, ns. Much less than that is a thread that did not get the processor.
const LONG: u64 = 3_000_000;
/// How often it looks while there are requests: each look costs a wake-up.
const TICK: Duration = Duration::from_millis(5);
/// Looks at which a thread was free, before it sleeps.
const QUIET: u32 = 20;
/// The longest wait for a connection to be ready, ms: the threads may be free by then. One that stays in requests for hours,
/// as with WebSockets, has it wake up so often.
const READY: u16 = 100;
/// Before it looks again at what is ready and cannot go: at first, and in the end. That may be so as long as a request takes,
/// when its client has sent more, or is gone.
const PAUSE: Duration = Duration::from_millis(1);
const LONGEST_PAUSE: Duration = Duration::from_millis(8);
/// Connections that are taken in a row.
const EVENTS: usize = 16;
/// Looks at this worker and another before both are compared.
const LOOKS: u32 = 16;
/// In so many of them this worker must have been busy, and the other free.
const MOST_LOOKS: u32 = 12;
/// Slots that are tried for the next other.
const PROBES: u32 = 16;
const STACK: usize = 128 * 1024;

/// What the threads do.
enum Load {
    /// One is free, or there is nothing to wait for them.
    Free,
    /// All are in requests, and one has begun a moment ago.
    Busy,
    /// All have been in the same requests for a long time.
    Stuck,
}

/// Whether this worker is busy while another is not, over some looks at both.
#[derive(Default)]
struct Balance {
    peer: u32,
    looks: u32,
    busy: u32,
    free: u32,
}

impl Balance {
    /// Looks once, at this worker and at one of the others.
    fn looks_uneven(&mut self, worker: &Worker, is_busy: bool) -> bool {
        if self.looks == LOOKS {
            let is_uneven = self.busy >= MOST_LOOKS && self.free >= MOST_LOOKS;
            *self = Self { peer: self.next(worker), ..Self::default() };
            return is_uneven;
        }
        self.looks += 1;
        self.busy += u32::from(is_busy);
        let slot = SlotId::new(self.peer);
        let is_free = self.peer < worker.scoreboard.layout().slots
            && slot != worker.slot
            && worker.scoreboard.worker(slot).accepting()
            && worker.scoreboard.threads(slot).any(|cell| cell.busy_since().is_none());
        self.free += u32::from(is_free);
        false
    }

    /// The slot of the next worker that accepts, or where to look for it the next time.
    fn next(&self, worker: &Worker) -> u32 {
        let slots = worker.scoreboard.layout().slots;
        let mut next = (1..=PROBES).map(|step| (self.peer + step) % slots);
        let accepts = |slot: &u32| {
            let slot = SlotId::new(*slot);
            slot != worker.slot && worker.scoreboard.worker(slot).accepting()
        };
        next.find(accepts).unwrap_or((self.peer + PROBES) % slots)
    }
}

impl Worker {
    /// Whether there are connections beside those that the threads may have.
    #[inline]
    pub(super) fn may_keep_waiting(&self) -> bool {
        self.open.load(Relaxed) > self.config.threads as usize
    }

    /// Wakes the watcher, or starts it.
    #[cold]
    pub(super) fn wake_watcher(self: &Arc<Self>, peers: &Peers) {
        if !peers.is_asleep.swap(false, SeqCst) {
            return;
        }
        let mut watcher = peers.watcher.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(watcher) = &*watcher {
            return watcher.thread().unpark();
        }
        // Not in a child of the application.
        if !stop::is_worker() {
            return;
        }
        let worker = Arc::clone(self);
        let builder = Builder::new().name(format!("rwsgi w{}peer", self.id)).stack_size(STACK);
        // Signals are for the threads that run Python: they interrupt what they wait for.
        let before = SigSet::all().thread_swap_mask(SigmaskHow::SIG_BLOCK);
        let started = builder.spawn(move || worker.watch_threads());
        if let Ok(before) = before {
            let _ = before.thread_set_mask();
        }
        match started {
            Ok(thread) => *watcher = Some(thread),
            // It is not tried again.
            Err(failure) => warn!("worker {}: connections are not handed over to other workers: {failure}", self.id),
        }
    }

    /// Ends the watcher. The next request that may keep others waiting starts it again.
    pub(super) fn end_watcher(&self) {
        let Some(peers) = &self.peers else { return };
        // A child of the application has none, and nobody unlocks there what another thread had locked.
        if !stop::is_worker() {
            return;
        }
        let mut watcher = peers.watcher.lock().unwrap_or_else(PoisonError::into_inner);
        let Some(thread) = watcher.take() else { return };
        peers.ends.store(true, Release);
        // It waits in one of two ways.
        thread.thread().unpark();
        let _ = peers.end_event.write(1);
        if thread.join().is_err() {
            error!("worker {}: its watcher panicked", self.id);
        }
        procfs::await_end(Pid::from_raw(peers.number.load(Relaxed)));
        let _ = peers.end_event.read();
        peers.ends.store(false, Release);
        peers.is_asleep.store(true, Release);
    }

    fn watch_threads(&self) {
        let Some(peers) = &self.peers else { return };
        peers.number.store(gettid().as_raw(), Relaxed);
        let mut quiet = 0;
        let mut pause = PAUSE;
        let mut balance = Balance::default();
        while !peers.ends.load(Acquire) {
            let load = self.load();
            if balance.looks_uneven(self, !matches!(load, Load::Free)) {
                self.hand_over_ready(peers, 1);
            }
            match load {
                Load::Free => {
                    pause = PAUSE;
                    quiet += 1;
                    match quiet.cmp(&QUIET) {
                        std::cmp::Ordering::Less => thread::park_timeout(TICK),
                        std::cmp::Ordering::Equal => {
                            // A request that began at this moment may not have seen it: one more look, when it must
                            // have been seen.
                            peers.is_asleep.store(true, SeqCst);
                            thread::park_timeout(TICK);
                        }
                        std::cmp::Ordering::Greater => {
                            // Unless it was woken during that look.
                            if peers.is_asleep.load(SeqCst) {
                                thread::park();
                            }
                            quiet = 0;
                        }
                    }
                    continue;
                }
                Load::Busy => {
                    pause = PAUSE;
                    thread::park_timeout(TICK);
                }
                Load::Stuck if self.hand_over(peers) => pause = PAUSE,
                Load::Stuck => {
                    thread::park_timeout(pause);
                    pause = (pause * 2).min(LONGEST_PAUSE);
                }
            }
            if quiet >= QUIET {
                peers.is_asleep.store(false, SeqCst);
            }
            quiet = 0;
        }
    }

    fn load(&self) -> Load {
        if self.may_keep_waiting() { self.load_of(self.slot) } else { Load::Free }
    }

    /// What the threads of a worker process do.
    fn load_of(&self, slot: SlotId) -> Load {
        let mut latest = MonotonicNanos::from_nanos(0);
        for cell in self.scoreboard.threads(slot) {
            match cell.busy_since() {
                Some(since) => latest = latest.max(since),
                None => return Load::Free,
            }
        }
        if MonotonicNanos::now().nanos_since(latest) < LONG { Load::Busy } else { Load::Stuck }
    }

    /// Hands over what is ready, or becomes so in a short time. False when something is ready and nothing of it went.
    fn hand_over(&self, peers: &Peers) -> bool {
        // Not by waiting for events: the kernel would wake this worker alone, as one that is free, for what others could
        // take.
        let mut set = [self.epoll.0.as_fd(), peers.end_event.as_fd()].map(|fd| PollFd::new(fd, PollFlags::POLLIN));
        let is_ready = matches!(poll(&mut set, PollTimeout::from(READY)), Ok(1..)) && set[0].any() == Some(true);
        if !is_ready || !matches!(self.load(), Load::Stuck) {
            return true;
        }
        self.has_peers() && self.hand_over_ready(peers, EVENTS)
    }

    /// Hands over what is ready now; whether any of it went.
    fn hand_over_ready(&self, peers: &Peers, most: usize) -> bool {
        let mut events = [EpollEvent::empty(); EVENTS];
        let count = self.epoll.wait(&mut events[..most], EpollTimeout::ZERO).unwrap_or(0);
        let mut any = false;
        for event in &events[..count] {
            match event.data() {
                // It was said once, to this thread, and is for another.
                TOKEN_STOP => self.leave(),
                // What comes to listeners, or from other workers, waits for whoever is free first.
                TOKEN_LISTENER.. => {}
                fd => any |= self.try_to_hand_over(peers, fd as usize),
            }
        }
        any
    }

    /// The slots of other workers that take connections.
    pub(super) fn accepting_others(&self) -> impl Iterator<Item = SlotId> {
        let others = (0..self.scoreboard.layout().slots).map(SlotId::new).filter(|slot| *slot != self.slot);
        others.filter(|slot| self.scoreboard.worker(*slot).accepting())
    }

    /// Whether another worker takes connections and will do so soon. Where all are busy for long, each keeps its own.
    fn has_peers(&self) -> bool {
        self.accepting_others().any(|slot| !matches!(self.load_of(slot), Load::Stuck))
    }

    /// Hands over a connection that is ready, if it can go; whether it went.
    fn try_to_hand_over(&self, peers: &Peers, fd: usize) -> bool {
        let Some(connection) = self.connections.take(fd) else { return false };
        let may_go = connection.is_idle() && matches!(connection.kind, Kind::Client(_));
        if may_go && peers.send(&connection).is_ok() {
            // Closing is not enough: another process has it too.
            let _ = self.epoll.delete(&*connection.socket);
            drop(connection);
            self.closed();
            return true;
        }
        let wait = connection.armed.unwrap_or(Wait::Read);
        if let Err(connection) = self.arm(connection, wait) {
            let _ = self.epoll.delete(&*connection.socket);
            drop(connection);
            self.closed();
        }
        false
    }
}
