//! One request's state while the application has it, and the Python objects that reach it: `start_response` and its
//! `write` ([`super::start_response`]), `wsgi.input` ([`super::input`]).
//!
//! The objects outlive the request if the application keeps them; they find the state gone then. The state is taken by
//! one thread at a time: an application that uses a request from two threads at once gets an error, not a data race.

use std::io;
use std::sync::{Arc, Mutex, TryLockError};

use pyo3::exceptions::{PyAssertionError, PyBrokenPipeError, PyRuntimeError};
use pyo3::prelude::*;

use super::transport::{Kept, Transport};
use crate::protocol::chunked::{CHUNK_END, ChunkHead, LAST_CHUNK};
use crate::protocol::date::HttpDate;
use crate::protocol::response::{Exchange, Framing, HeadWriter, Plan};

/// A body up to this long is copied behind its head: that costs less than having the kernel gather two pieces, bytes.
const WORTH_JOINING: u64 = 4096;

/// How far the response has come.
#[derive(Debug)]
pub enum Progress {
    /// `start_response` was not called.
    Nothing,
    /// It was called; nothing was sent.
    Head(HeadWriter),
    /// The head was sent.
    Sending(Plan),
}

/// What is wrong with what the application produces.
#[derive(Debug, thiserror::Error)]
pub enum ResponseError {
    /// It produced body bytes before `start_response`.
    #[error("the application produced output before it called start_response")]
    NotStarted,
    /// More bytes than its `Content-Length`.
    #[error("the application produced more than the {0} bytes of its Content-Length; the rest is not sent")]
    TooLong(u64),
    /// Fewer bytes than its `Content-Length`.
    #[error("the application produced {got} of the {said} bytes of its Content-Length; the connection is closed")]
    TooShort {
        /// What the header said.
        said: u64,
        /// What was produced.
        got: u64,
    },
    /// The client is gone or does not read.
    #[error("the client is gone: {0}")]
    Client(#[from] io::Error),
}

/// A request that the application has.
pub struct Active {
    /// The client.
    pub transport: Box<dyn Transport>,
    /// What the framing depends on.
    pub exchange: Exchange,
    /// How far the response has come.
    pub progress: Progress,
    /// The status code; 0 before `start_response`.
    pub status: u16,
    /// Bytes of the body that were sent.
    pub body_sent: u64,
    /// The `Content-Length`, when the application gave more than that; the client gets no more than that.
    pub overrun: Option<u64>,
    /// An exception told the application that the client is gone.
    pub told_gone: bool,
    /// The `Date` of this second.
    pub date: HttpDate,
    /// A buffer for the head, when it is not in use.
    pub spare: Vec<u8>,
}

impl Active {
    /// Sends the head, if it was not, and `pieces` of the body. `body_len` is the length of the whole body, when the
    /// pieces are the whole of it. Returns whether nothing is left to send.
    ///
    /// # Errors
    /// See [`ResponseError`].
    pub fn send(
        &mut self,
        pieces: &[&[u8]],
        body_len: Option<u64>,
        own: &mut dyn FnMut(usize) -> Option<Kept>,
    ) -> Result<bool, ResponseError> {
        let len: u64 = pieces.iter().map(|piece| piece.len() as u64).sum();
        let (plan, head) = match std::mem::replace(&mut self.progress, Progress::Nothing) {
            Progress::Nothing => return Err(ResponseError::NotStarted),
            Progress::Sending(plan) => (plan, None),
            Progress::Head(writer) => {
                if let (Some(said), Some(got)) = (writer.content_length(), body_len)
                    && !self.exchange.head_only
                    && !matches!(self.status, 100..=199 | 204 | 205 | 304)
                    && got < said
                {
                    // Nothing has been sent: the client can still get a correct answer.
                    self.progress = Progress::Head(writer);
                    return Err(ResponseError::TooShort { said, got });
                }
                let (plan, mut head) = writer.finish(self.exchange, body_len, &self.date);
                if let ([piece], Framing::Length(said)) = (pieces, plan.framing)
                    && len == said
                    && len <= WORTH_JOINING
                {
                    head.extend_from_slice(piece);
                    self.body_sent = len;
                    self.progress = Progress::Sending(plan);
                    let all_sent = self.transport.send(&[&head], &mut |_| None);
                    head.clear();
                    self.spare = head;
                    return Ok(all_sent?);
                }
                (plan, Some(head))
            }
        };
        self.progress = Progress::Sending(plan);
        let result = self.send_framed(plan, head.as_deref().unwrap_or_default(), pieces, len, body_len.is_some(), own);
        if let Some(head) = head {
            self.spare = head;
            self.spare.clear();
        }
        result
    }

    fn send_framed(
        &mut self,
        plan: Plan,
        head: &[u8],
        pieces: &[&[u8]],
        len: u64,
        whole: bool,
        own: &mut dyn FnMut(usize) -> Option<Kept>,
    ) -> Result<bool, ResponseError> {
        match plan.framing {
            Framing::NoBody => Ok(self.transport.send(&[head], &mut |_| None)?),
            Framing::Length(said) if self.body_sent + len > said => {
                let mut room = said - self.body_sent;
                let mut parts = vec![head];
                for piece in pieces {
                    let taken = room.min(piece.len() as u64);
                    parts.push(&piece[..taken as usize]);
                    room -= taken;
                }
                self.body_sent = said;
                self.overrun = Some(said);
                self.transport.send(&parts, &mut |_| None)?;
                Err(ResponseError::TooLong(said))
            }
            Framing::Length(_) | Framing::UntilClose => {
                self.body_sent += len;
                if let [piece] = pieces {
                    return Ok(self.transport.send(&[head, piece], &mut |part| own(part.checked_sub(1)?))?);
                }
                let parts: Vec<_> = std::iter::once(&head).chain(pieces).copied().collect();
                Ok(self.transport.send(&parts, &mut |part| own(part.checked_sub(1)?))?)
            }
            // An empty chunk would end the body.
            Framing::Chunked if len == 0 => Ok(self.transport.send(&[head], &mut |_| None)?),
            Framing::Chunked => {
                self.body_sent += len;
                let size = ChunkHead::new(len as usize);
                let end: &[u8] = if whole { b"\r\n0\r\n\r\n" } else { CHUNK_END };
                let mut parts = vec![head, size.as_bytes()];
                parts.extend_from_slice(pieces);
                parts.push(end);
                let count = pieces.len();
                Ok(self.transport.send(&parts, &mut |part| {
                    let piece = part.checked_sub(2)?;
                    if piece < count { own(piece) } else { None }
                })?)
            }
        }
    }

    /// The application has produced everything: sends the head if nothing was sent, and what ends the body.
    ///
    /// # Errors
    /// When it produced less than it said, or never started.
    pub fn end(&mut self) -> Result<(), ResponseError> {
        if !matches!(self.progress, Progress::Sending(_)) {
            self.send(&[], Some(0), &mut |_| None)?;
            return Ok(());
        }
        if let Progress::Sending(plan) = self.progress {
            match plan.framing {
                Framing::Chunked => {
                    self.transport.send(&[LAST_CHUNK], &mut |_| None)?;
                }
                Framing::Length(said) if self.body_sent < said => {
                    return Err(ResponseError::TooShort { said, got: self.body_sent });
                }
                _ => {}
            }
        }
        Ok(())
    }

    /// An error as the exception that the application is given for it.
    pub fn raise(&mut self, error: ResponseError) -> PyErr {
        match error {
            ResponseError::Client(_) => {
                self.told_gone = true;
                PyBrokenPipeError::new_err(error.to_string())
            }
            _ => PyAssertionError::new_err(error.to_string()),
        }
    }

    /// Whether `error` is what [`Active::raise`] told the application of a client that is gone: no fault of anybody's.
    pub fn is_told_gone(&self, py: Python<'_>, error: &PyErr) -> bool {
        self.told_gone && error.is_instance_of::<PyBrokenPipeError>(py)
    }

    /// Whether an answer was begun that has no body, whatever the application produces.
    #[must_use]
    pub fn is_bodiless(&self) -> bool {
        matches!(self.progress, Progress::Sending(Plan { framing: Framing::NoBody, .. }))
    }

    /// Whether the body is complete, so that no more of it needs to be produced.
    #[must_use]
    pub fn is_whole(&self) -> bool {
        match self.progress {
            Progress::Sending(Plan { framing: Framing::Length(said), .. }) => self.body_sent >= said,
            _ => self.is_bodiless(),
        }
    }
}

/// Where the Python objects of a thread find the request, and find nothing between requests.
#[derive(Clone, Default)]
pub struct CurrentRequest(Arc<Mutex<Option<Active>>>);

impl CurrentRequest {
    /// Whether this is another handle of the same.
    #[inline]
    pub(crate) fn is(&self, other: &Self) -> bool {
        Arc::ptr_eq(&self.0, &other.0)
    }

    /// Gives the application a request.
    pub fn put(&self, active: Active) {
        *self.lock() = Some(active);
    }

    /// Takes it away again. Waits for a thread that the application left reading.
    pub fn take(&self, py: Python<'_>) -> Option<Active> {
        match self.0.try_lock() {
            Ok(mut guard) => guard.take(),
            Err(TryLockError::Poisoned(poisoned)) => poisoned.into_inner().take(),
            Err(TryLockError::WouldBlock) => py.detach(|| self.lock().take()),
        }
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, Option<Active>> {
        self.0.lock().unwrap_or_else(std::sync::PoisonError::into_inner)
    }

    /// Does something with the request.
    ///
    /// # Errors
    /// A `RuntimeError` when the request is over, or when another thread uses it.
    pub fn with<T>(&self, f: impl FnOnce(&mut Active) -> PyResult<T>) -> PyResult<T> {
        match self.0.try_lock() {
            Ok(mut guard) => match guard.as_mut() {
                Some(active) => f(active),
                None => Err(PyRuntimeError::new_err("the request is over")),
            },
            Err(TryLockError::Poisoned(_)) => Err(PyRuntimeError::new_err("the request failed")),
            Err(TryLockError::WouldBlock) => {
                Err(PyRuntimeError::new_err("the request is in use by another thread, which must finish first"))
            }
        }
    }
}
