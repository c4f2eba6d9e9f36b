//! A connection's side: whether a piece of the present response is gathered.

use std::cell::RefCell;
use std::io;
use std::os::fd::OwnedFd;
use std::sync::Arc;

use super::gathered::{Added, Gathered, MOST, Taken};
use super::{APART, Streams};
use crate::clock::MonotonicNanos;
use crate::ids::ThreadIndex;

thread_local! {
    /// The streams of the worker whose thread this is, and where its own are gathered.
    static OF_THREAD: RefCell<Option<(Arc<Streams>, usize)>> = const { RefCell::new(None) };
}

/// The present thread is one of the worker's.
pub(in crate::worker) fn enter(streams: &Arc<Streams>, thread: ThreadIndex) {
    OF_THREAD.set(Some((Arc::clone(streams), thread.get() as usize)));
}

/// What a response has of it.
pub(in crate::worker) struct Stream {
    /// What is sent next is a piece, and the application makes more.
    pub(in crate::worker) more: bool,
    /// Nothing is gathered, for the application may send to the socket itself.
    pub(in crate::worker) alone: bool,
    /// When the last piece was dealt with; the beginning of time when there was none.
    last: MonotonicNanos,
    /// Where its pieces are gathered, once one was.
    place: Option<Place>,
}

impl Default for Stream {
    fn default() -> Self {
        Self { more: false, alone: false, last: MonotonicNanos::from_nanos(0), place: None }
    }
}

/// The thread's buffer, as long as a response uses it.
struct Place {
    streams: Arc<Streams>,
    thread: usize,
}

impl Place {
    fn of_thread() -> Option<Self> {
        OF_THREAD.with_borrow(|known| {
            let (streams, thread) = known.as_ref()?;
            (*thread < streams.gathered.len()).then(|| Self { streams: Arc::clone(streams), thread: *thread })
        })
    }

    /// `None` in a child that the application has forked.
    fn gathered(&self) -> Option<&Gathered> {
        (!self.streams.is_child()).then(|| &self.streams.gathered[self.thread])
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        if let Some(gathered) = self.gathered() {
            gathered.clear();
        }
    }
}

impl Stream {
    /// Gathers a piece of `len` bytes that the socket could be sent now. Returns whether that was done; if not, the piece is
    /// to be sent, after what [`Self::take`] gives.
    ///
    /// # Errors
    /// When the client is gone.
    pub(in crate::worker) fn gather(
        &mut self,
        socket: &Arc<OwnedFd>,
        framed: bool,
        parts: &[&[u8]],
        len: usize,
    ) -> io::Result<bool> {
        if len >= MOST || self.alone {
            return Ok(false);
        }
        let now = MonotonicNanos::now();
        if now.nanos_since(self.last) >= APART {
            return Ok(false);
        }
        if self.place.is_none() {
            self.place = Place::of_thread();
        }
        let Some(place) = &self.place else { return Ok(false) };
        let Some(gathered) = place.gathered().filter(|_| !place.streams.sender.has_failed()) else { return Ok(false) };
        match gathered.add(socket, framed, parts, len, now)? {
            Added::Full => return Ok(false),
            Added::More => {}
            Added::Begun => {
                place.streams.begun();
                if place.streams.sender.has_failed() {
                    gathered.withdraw();
                    return Ok(false);
                }
            }
        }
        self.last = now;
        Ok(true)
    }

    /// A piece was sent at once, and the application makes more.
    pub(in crate::worker) fn sent_at_once(&mut self) {
        self.last = MonotonicNanos::now();
    }

    /// What was gathered, if anything was, to be sent before what comes.
    #[inline]
    pub(in crate::worker) fn take(&mut self) -> Option<Taken> {
        Some(self.place.as_ref()?.gathered()?.take())
    }

    /// The response is over, and nothing of it is left here.
    #[inline]
    pub(in crate::worker) fn end(&mut self) {
        (self.more, self.alone) = (false, false);
        self.last = MonotonicNanos::from_nanos(0);
        if self.place.is_some() {
            self.place = None;
        }
    }

    /// Gives back the memory of what was taken.
    pub(in crate::worker) fn give_back(&mut self, taken: Taken) {
        if let Some(gathered) = self.place.as_ref().and_then(Place::gathered) {
            gathered.give_back(taken);
        }
    }
}
