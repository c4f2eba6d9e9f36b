//! The small pieces of a stream, gathered so that one call sends many of them. PEP 3333 allows that another thread transmits
//! a block while the application makes the next.
//!
//! The first piece is sent at once, and so is each that comes [`APART`] after the one before: a slow stream is never held
//! up. What comes faster is put into the buffer of its thread ([`gathered`]). The thread sends it itself when it is
//! [`gathered::MOST`] bytes, and before anything else that it sends. When the application pauses, another thread sends it
//! ([`sender`]): no piece waits longer than [`HELD`]. What the thread does with a connection is in [`stream`].
//!
//! **Order**: only the thread that has the request adds to its buffer; a buffer that is taken, or is being sent, is locked.
//! While something is in the buffer, nothing waits in the connection's `Unsent`.
//!
//! **Forks**: before a fork the sender ends, so that no lock of it is held and no thread is missed, and what is gathered is
//! sent. After it the sender begins again if a client has not taken all, or when there is something new. In a child the
//! buffers are the parent's to send: there nothing is gathered and nothing is sent of them.

mod forks;
mod gathered;
mod sender;
mod stream;

use std::sync::Arc;
use std::sync::atomic::AtomicBool;
use std::sync::atomic::Ordering::{Acquire, Release};

pub(super) use self::forks::watch_forks;
use self::gathered::Gathered;
pub(super) use self::gathered::Taken;
use self::sender::Sender;
pub(super) use self::stream::{Stream, enter};
use crate::clock::MonotonicNanos;

/// How long a piece may be held, ns.
const HELD: u64 = 1_000_000;
/// A piece that comes so long after the one before is sent at once, ns. One that is gathered may need another thread to
/// wake, which costs as much as a few calls: it pays when some more come until it is sent.
const APART: u64 = 250_000;

/// The streams of a worker.
pub(super) struct Streams {
    /// Those of its threads, by number.
    gathered: Box<[Gathered]>,
    sender: Sender,
    /// This is a child that the application has forked.
    is_child: AtomicBool,
}

impl Streams {
    pub(super) fn new(threads: u32) -> Arc<Self> {
        let gathered = (0..threads).map(|_| Gathered::default()).collect();
        Arc::new(Self { gathered, sender: Sender::default(), is_child: AtomicBool::new(false) })
    }

    /// In a child that the application has forked: what was gathered is its parent's to send.
    pub(super) fn detach(&self) {
        self.is_child.store(true, Release);
    }

    fn is_child(&self) -> bool {
        self.is_child.load(Acquire)
    }

    /// Sends what is gathered and ends the thread that sends, if there is one: a fork would not take it along. It begins again
    /// when it is needed.
    pub(super) fn end_sender(&self) {
        // A child has no such thread, and its lock may have been another thread's.
        if !self.is_child() {
            self.sender.end();
            // So that it need not begin again for what is here.
            let now = MonotonicNanos::now();
            self.gathered.iter().for_each(|gathered| gathered.send_early(now));
        }
    }
}

#[cfg(test)]
mod tests;
