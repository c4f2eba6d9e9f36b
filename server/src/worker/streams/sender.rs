//! The thread that sends what was gathered when the application pauses. It runs no Python. There is one at most, from the
//! first piece on that is gathered, and it sleeps while nothing is.

use std::io;
use std::sync::atomic::Ordering::{Acquire, Relaxed, Release, SeqCst};
use std::sync::atomic::{AtomicBool, AtomicI32};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread::{Builder, JoinHandle, park, park_timeout};
use std::time::Duration;

use nix::sys::signal::{SigSet, SigmaskHow, Signal};
use nix::unistd::{Pid, gettid};
use tracing::warn;

use super::gathered::Gathered;
use super::{HELD, Streams};
use crate::clock::MonotonicNanos;
use crate::{procfs, stacks};

/// It makes one call after another; a signal's handler has its place too.
const STACK: usize = 256 * 1024;

/// See the module.
pub(super) struct Sender {
    /// It must be woken when something is gathered: it sleeps without end, or is not there.
    asleep: AtomicBool,
    /// Something was gathered since it looked.
    used: AtomicBool,
    ends: AtomicBool,
    /// It could not be started.
    failed: AtomicBool,
    /// What the system calls it.
    number: AtomicI32,
    thread: Mutex<Option<JoinHandle<()>>>,
}

impl Default for Sender {
    fn default() -> Self {
        let no = || AtomicBool::new(false);
        Self {
            asleep: AtomicBool::new(true),
            used: no(),
            ends: no(),
            failed: no(),
            number: AtomicI32::new(0),
            thread: Mutex::default(),
        }
    }
}

impl Sender {
    /// Whether nobody would send what is gathered.
    pub(super) fn has_failed(&self) -> bool {
        self.failed.load(Relaxed)
    }

    #[cfg(test)]
    pub(super) fn sleeps(&self) -> bool {
        self.asleep.load(SeqCst)
    }

    /// Ends the thread.
    pub(super) fn end(&self) {
        let mut thread = self.thread.lock().unwrap_or_else(PoisonError::into_inner);
        let Some(handle) = thread.take() else { return };
        self.ends.store(true, Release);
        handle.thread().unpark();
        let _ = handle.join();
        procfs::await_end(Pid::from_raw(self.number.load(Acquire)));
        self.ends.store(false, Release);
        self.asleep.store(true, SeqCst);
    }
}

impl Streams {
    /// Something was gathered where nothing was: the sender has to know.
    pub(super) fn begun(self: &Arc<Self>) {
        self.sender.used.store(true, Relaxed);
        // Either this sees that it sleeps, or it sees what was gathered: both write first and read then.
        if self.sender.asleep.load(SeqCst) && self.sender.asleep.swap(false, SeqCst) {
            self.wake();
        }
    }

    /// After a fork: what a client has not taken has a sender again. Otherwise there is none: Python may look for threads now.
    pub(super) fn begin_again(self: &Arc<Self>) {
        if !self.is_child() && self.gathered.iter().any(|gathered| gathered.due() != 0) {
            self.begun();
        }
    }

    #[cold]
    fn wake(self: &Arc<Self>) {
        let mut thread = self.sender.thread.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(handle) = &*thread {
            return handle.thread().unpark();
        }
        match start(self) {
            Ok(handle) => *thread = Some(handle),
            Err(failure) => {
                if !self.sender.failed.swap(true, Relaxed) {
                    warn!("cannot start a thread that sends streams ({failure}): each of their pieces is sent alone");
                }
            }
        }
    }

    /// What the sender does.
    fn run(&self) {
        self.sender.number.store(gettid().as_raw(), Release);
        stacks::handler::leave_small_stack();
        while !self.sender.ends.load(Acquire) {
            let now = MonotonicNanos::now();
            let next = self.gathered.iter().map(|gathered| gathered.send_due(now)).filter(|due| *due != 0).min();
            match next {
                Some(due) if due <= now.after_nanos(HELD).as_nanos() => {
                    park_timeout(MonotonicNanos::from_nanos(due).since(now));
                }
                // A client that does not read. Another thread's pieces do not wait for it.
                Some(due) => self.sleep(due),
                // More may come soon. To be woken costs the serving thread more than this costs.
                None if self.sender.used.swap(false, Relaxed) => park_timeout(Duration::from_nanos(HELD)),
                None => self.sleep(u64::MAX),
            }
        }
    }

    /// Sleeps until something is gathered where nothing was, and no longer than until `end`.
    fn sleep(&self, end: u64) {
        self.sender.asleep.store(true, SeqCst);
        // What was gathered a moment ago has woken nobody.
        let is_missed = |gathered: &Gathered| (1..end).contains(&gathered.due());
        if !self.gathered.iter().any(is_missed) {
            while self.sender.asleep.load(SeqCst) && !self.sender.ends.load(Acquire) {
                if end == u64::MAX {
                    park();
                    continue;
                }
                let now = MonotonicNanos::now();
                if now.as_nanos() >= end {
                    break;
                }
                park_timeout(MonotonicNanos::from_nanos(end).since(now));
            }
        }
        self.sender.asleep.store(false, SeqCst);
    }
}

/// Starts the thread. Signals of the process are for its other threads; it answers only who asks for stacks.
fn start(streams: &Arc<Streams>) -> io::Result<JoinHandle<()>> {
    let blocked: SigSet = Signal::iterator().collect();
    let before = blocked.thread_swap_mask(SigmaskHow::SIG_BLOCK)?;
    let streams = Arc::clone(streams);
    let started = Builder::new().name("rwsgi streams".into()).stack_size(STACK).spawn(move || streams.run());
    before.thread_set_mask()?;
    started
}
