//! Pieces that one thread has gathered, and sending them from another.

use std::io;
use std::os::fd::OwnedFd;
use std::sync::atomic::AtomicU64;
use std::sync::atomic::Ordering::SeqCst;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use rustix::io::Errno;
use rustix::net::{SendFlags, send};

use super::HELD;
use crate::clock::MonotonicNanos;

/// Bytes that are gathered before their thread sends them itself.
pub(super) const MOST: usize = 16 * 1024;
/// The longest until a socket that was full is tried again, ns. A client that does not read is tried less and less often.
const LONGEST_PAUSE: u64 = 32_000_000;
/// The length before each piece on a link, bytes.
const FRAME: usize = 4;

/// What one thread has gathered.
#[derive(Default)]
pub(super) struct Gathered {
    /// When the other thread is to send it, monotonic ns; 0 when nothing is here.
    due: AtomicU64,
    pieces: Mutex<Pieces>,
}

#[derive(Default)]
struct Pieces {
    bytes: Vec<u8>,
    /// How many of them the socket took.
    gone: usize,
    socket: Option<Arc<OwnedFd>>,
    /// The socket was full: how long until it is tried again, ns. 0 when it was not.
    pause: u64,
    /// Bytes that the other thread has sent and nobody knows of yet.
    sent: u64,
    /// Why the other thread could send no more.
    failure: Option<io::Error>,
}

/// What came of a piece.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Added {
    /// It is the first: the other thread has to know.
    Begun,
    /// It is there.
    More,
    /// It was not taken: what is here is to be sent first.
    Full,
}

/// What was gathered and not sent yet.
#[derive(Debug, Default)]
pub(in crate::worker) struct Taken {
    bytes: Vec<u8>,
    gone: usize,
    /// Bytes that the other thread has sent since the last time.
    pub(in crate::worker) sent: u64,
    /// Why it could send no more.
    pub(in crate::worker) failure: Option<io::Error>,
}

impl Taken {
    /// What is to be sent.
    pub(in crate::worker) fn rest(&self) -> &[u8] {
        &self.bytes[self.gone..]
    }
}

impl Gathered {
    fn lock(&self) -> MutexGuard<'_, Pieces> {
        self.pieces.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// When it is to be sent; 0 when nothing is here.
    pub(super) fn due(&self) -> u64 {
        self.due.load(SeqCst)
    }

    /// Adds a piece of `len` bytes, which came now. With `framed` all that is sent at once is one frame of a link.
    ///
    /// # Errors
    /// When the other thread has found that the client is gone.
    pub(super) fn add(
        &self,
        socket: &Arc<OwnedFd>,
        framed: bool,
        parts: &[&[u8]],
        len: usize,
        now: MonotonicNanos,
    ) -> io::Result<Added> {
        let mut pieces = self.lock();
        if let Some(failure) = pieces.failure.take() {
            return Err(failure);
        }
        if pieces.pause > 0 || pieces.bytes.len() + len > MOST {
            return Ok(Added::Full);
        }
        let begins = pieces.bytes.is_empty();
        if begins {
            // Whatever was here before: bytes go to the socket that they came with.
            if !pieces.socket.as_ref().is_some_and(|known| Arc::ptr_eq(known, socket)) {
                pieces.socket = Some(Arc::clone(socket));
            }
            if framed {
                pieces.bytes.extend_from_slice(&[0; FRAME]);
            }
        }
        parts.iter().for_each(|part| pieces.bytes.extend_from_slice(part));
        if framed {
            let len = (pieces.bytes.len() - FRAME) as u32;
            pieces.bytes[..FRAME].copy_from_slice(&len.to_le_bytes());
        }
        if begins {
            self.due.store(now.after_nanos(HELD).as_nanos(), SeqCst);
        }
        Ok(if begins { Added::Begun } else { Added::More })
    }

    /// Takes back what was added to nothing, when there is nobody to send it.
    pub(super) fn withdraw(&self) {
        let mut pieces = self.lock();
        self.due.store(0, SeqCst);
        pieces.bytes.clear();
    }

    /// Takes what is here, to be sent by its own thread.
    pub(super) fn take(&self) -> Taken {
        let mut pieces = self.lock();
        self.due.store(0, SeqCst);
        pieces.pause = 0;
        Taken {
            bytes: std::mem::take(&mut pieces.bytes),
            gone: std::mem::take(&mut pieces.gone),
            sent: std::mem::take(&mut pieces.sent),
            failure: pieces.failure.take(),
        }
    }

    /// Gives back the memory of what was taken.
    pub(super) fn give_back(&self, mut taken: Taken) {
        taken.bytes.clear();
        self.lock().bytes = taken.bytes;
    }

    /// Forgets all, and the socket.
    pub(super) fn clear(&self) {
        let mut pieces = self.lock();
        self.due.store(0, SeqCst);
        pieces.bytes.clear();
        let memory = std::mem::take(&mut pieces.bytes);
        *pieces = Pieces { bytes: memory, ..Pieces::default() };
    }

    /// For the other thread: sends what is due. Returns when it is to come again; 0 when nothing is left here.
    pub(super) fn send_due(&self, now: MonotonicNanos) -> u64 {
        let due = self.due();
        if due == 0 || due > now.as_nanos() {
            return due;
        }
        let mut pieces = self.lock();
        // Its own thread may have sent it meanwhile, and begun anew.
        let due = self.due();
        if due == 0 || due > now.as_nanos() {
            return due;
        }
        let due = pieces.send(now);
        self.due.store(due, SeqCst);
        due
    }

    /// Sends what is here, as far as the socket takes it, without the other thread.
    pub(super) fn send_early(&self, now: MonotonicNanos) {
        let mut pieces = self.lock();
        if self.due() != 0 {
            let due = pieces.send(now);
            self.due.store(due, SeqCst);
        }
    }
}

impl Pieces {
    /// Sends what the socket takes. Returns when to try again; 0 when nothing is left.
    fn send(&mut self, now: MonotonicNanos) -> u64 {
        let Some(socket) = &self.socket else { return 0 };
        loop {
            match send(socket, &self.bytes[self.gone..], SendFlags::NOSIGNAL | SendFlags::DONTWAIT) {
                Ok(count) => {
                    self.gone += count;
                    self.sent += count as u64;
                }
                Err(Errno::INTR) => continue,
                Err(Errno::AGAIN) => {}
                Err(error) => {
                    self.failure = Some(error.into());
                    self.gone = self.bytes.len();
                }
            }
            break;
        }
        if self.gone == self.bytes.len() {
            self.bytes.clear();
            (self.gone, self.pause) = (0, 0);
            return 0;
        }
        self.pause = (self.pause * 2).clamp(HELD, LONGEST_PAUSE);
        now.after_nanos(self.pause).as_nanos()
    }
}
