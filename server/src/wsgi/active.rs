//! One request's state while the application has it, and the Python objects that reach it: `start_response` and its
//! `write` ([`super::start_response`]), `wsgi.input` ([`super::input`]).
//!
//! The objects outlive the request if the application keeps them; they find the state gone then. The state is taken by
//! one thread at a time: an application that uses a request from two threads at once gets an error, not a data race.

use std::cell::RefCell;
use std::fs::File;
use std::io::{self, BufRead};
use std::os::fd::OwnedFd;
use std::sync::{Arc, Mutex, MutexGuard, TryLockError, TryLockResult};
#[cfg(Py_GIL_DISABLED)]
use std::time::{Duration, Instant};

use pyo3::exceptions::{PyAssertionError, PyBrokenPipeError, PyRuntimeError};
use pyo3::prelude::*;

use super::response_times::ResponseTimes;
use super::routed::Routed;
use super::transport::{Kept, Transport};
use rwsgi_protocol::SocketProtocol;
use rwsgi_protocol::chunked::{CHUNK_END, ChunkHead, LAST_CHUNK};
use rwsgi_protocol::date::HttpDate;
use rwsgi_protocol::http::Version;
use rwsgi_protocol::response::{Exchange, Framing, HeadWriter, Plan};

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
    /// The application has taken the connection for another protocol: there is no response.
    Upgraded,
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

/// A request that the application has: `T` is the client, of a type that its owner knows and the Python objects need
/// not.
pub struct Active<T: ?Sized = dyn Transport> {
    /// There is a request, and it is not over.
    is_open: bool,
    /// What the framing depends on.
    pub exchange: Exchange,
    /// How far the response has come.
    pub progress: Progress,
    /// The status code; 0 before `start_response`.
    pub status: u16,
    /// Bytes of the body that were sent.
    pub body_sent: u64,
    /// Bytes of the head, once it was sent.
    pub head_len: u32,
    /// How many headers the application gave.
    pub headers: u32,
    /// The body was left to the system, from a file.
    pub by_file: bool,
    /// The `Content-Length`, when the application gave more than that; the client gets no more than that.
    pub overrun: Option<u64>,
    /// An exception told the application that the client is gone.
    pub knows_gone: bool,
    /// The `Date` of this second.
    pub date: HttpDate,
    /// When the application returned.
    pub times: ResponseTimes,
    /// What rules have of the request; `None` when there are no rules.
    pub(super) routed: Option<Box<Routed>>,
    /// A buffer for the head, when it is not in use.
    pub spare_buffer: Vec<u8>,
    /// The client.
    pub transport: T,
}

impl Active {
    /// Sends the head, if it was not, and `pieces` of the body, as rules have them. See [`Self::send_plain`].
    ///
    /// # Errors
    /// See [`ResponseError`].
    #[inline]
    pub fn send(
        &mut self,
        pieces: &[&[u8]],
        body_len: Option<u64>,
        own: &mut dyn FnMut(usize) -> Option<Kept>,
    ) -> Result<bool, ResponseError> {
        if self.routed.is_some() {
            return self.send_routed(pieces, body_len, own);
        }
        self.send_plain(pieces, body_len, own)
    }

    /// Sends the head, if it was not, and `pieces` of the body. `body_len` is the length of the whole body, when the
    /// pieces are the whole of it. Returns whether nothing is left to send.
    ///
    /// # Errors
    /// See [`ResponseError`].
    pub(super) fn send_plain(
        &mut self,
        pieces: &[&[u8]],
        body_len: Option<u64>,
        own: &mut dyn FnMut(usize) -> Option<Kept>,
    ) -> Result<bool, ResponseError> {
        let len: u64 = pieces.iter().map(|piece| piece.len() as u64).sum();
        let (plan, head) = match std::mem::replace(&mut self.progress, Progress::Nothing) {
            Progress::Nothing => return Err(ResponseError::NotStarted),
            Progress::Sending(plan) => (plan, None),
            Progress::Upgraded => {
                // What the application produces after that has nobody to go to.
                self.progress = Progress::Upgraded;
                return Ok(true);
            }
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
                self.head_len = head.len() as u32;
                if let ([piece], Framing::Length(said)) = (pieces, plan.framing)
                    && len == said
                    && len <= WORTH_JOINING
                {
                    head.extend_from_slice(piece);
                    self.body_sent = len;
                    self.progress = Progress::Sending(plan);
                    let all_sent = self.transport.send(&[&head], &mut |_| None);
                    head.clear();
                    self.spare_buffer = head;
                    return Ok(all_sent?);
                }
                (plan, Some(head))
            }
        };
        self.progress = Progress::Sending(plan);
        let result = self.send_framed(plan, head.as_deref().unwrap_or_default(), pieces, len, body_len.is_some(), own);
        if let Some(head) = head {
            self.spare_buffer = head;
            self.spare_buffer.clear();
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
                let mut left = said - self.body_sent;
                let mut parts = vec![head];
                for piece in pieces {
                    let taken = left.min(piece.len() as u64);
                    parts.push(&piece[..taken as usize]);
                    left -= taken;
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
                if let [piece] = pieces {
                    let parts = [head, size.as_bytes(), piece, end];
                    return Ok(self.transport.send(&parts, &mut |part| if part == 2 { own(0) } else { None })?);
                }
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
        if self.routed.is_some() {
            self.end_routed()?;
        }
        if let Progress::Sending(plan) = self.progress {
            match plan.framing {
                Framing::Chunked => {
                    self.transport.send(&[LAST_CHUNK], &mut |_| None)?;
                }
                Framing::Length(said) if self.body_sent < said => {
                    return Err(ResponseError::TooShort { said, got: self.body_sent });
                }
                // What was gathered goes now, and whether it can is told.
                Framing::UntilClose => {
                    self.transport.send(&[], &mut |_| None)?;
                }
                _ => {}
            }
        }
        Ok(())
    }

    /// Takes the client's connection for another protocol than HTTP: there is no response then.
    ///
    /// # Errors
    /// When a response was begun, the client is gone, or its connection cannot be had.
    pub fn upgrade(&mut self) -> io::Result<OwnedFd> {
        match self.progress {
            Progress::Nothing | Progress::Head(_) => {}
            Progress::Sending(_) => return Err(io::Error::other("a response was begun")),
            Progress::Upgraded => return Err(io::Error::other("the connection was taken before")),
        }
        let client = self.transport.take_client()?;
        self.progress = Progress::Upgraded;
        self.status = 101;
        Ok(client)
    }

    /// An error as the exception that the application is given for it.
    pub fn raise(&mut self, error: ResponseError) -> PyErr {
        match error {
            ResponseError::Client(_) => {
                self.knows_gone = true;
                PyBrokenPipeError::new_err(error.to_string())
            }
            _ => PyAssertionError::new_err(error.to_string()),
        }
    }

    /// Whether the application has taken the connection for another protocol.
    #[must_use]
    pub fn is_upgraded(&self) -> bool {
        matches!(self.progress, Progress::Upgraded)
    }

    /// Whether an answer was begun that has no body, whatever the application produces.
    #[must_use]
    pub fn is_bodiless(&self) -> bool {
        matches!(self.progress, Progress::Sending(Plan { framing: Framing::NoBody, .. }))
    }

    /// Whether the body is not complete with `len` more bytes of the application's.
    #[must_use]
    pub(super) fn goes_on_after(&self, len: usize) -> bool {
        let said = match &self.progress {
            Progress::Head(head) => head.content_length(),
            Progress::Sending(Plan { framing: Framing::Length(said), .. }) => Some(*said),
            Progress::Sending(_) => None,
            Progress::Nothing | Progress::Upgraded => return false,
        };
        let then = self.body_sent + len as u64;
        said.is_none_or(|said| said > then)
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
#[derive(Clone)]
pub struct CurrentRequest(Arc<Mutex<Active>>);

thread_local! {
    /// The one that this thread's requests are put in.
    static OF_THREAD: RefCell<Option<CurrentRequest>> = const { RefCell::new(None) };
}

impl CurrentRequest {
    /// Where this thread's requests are found, when it has served any.
    pub(crate) fn of_thread() -> Option<Self> {
        OF_THREAD.with_borrow(Clone::clone)
    }

    /// Does something with the request.
    ///
    /// # Errors
    /// A `RuntimeError` when the request is over, or when another thread uses it; what `f` fails with.
    pub fn with<T, E: From<PyErr>>(&self, f: impl FnOnce(&mut Active) -> Result<T, E>) -> Result<T, E> {
        let refused = |why| Err(PyRuntimeError::new_err(why).into());
        match self.take() {
            Ok(mut active) if active.is_open => f(&mut active),
            Ok(_) => refused("the request is over"),
            Err(TryLockError::Poisoned(_)) => refused("the request failed"),
            Err(TryLockError::WouldBlock) => {
                refused("the request is in use by another thread, which must finish first")
            }
        }
    }
}

#[cfg(not(Py_GIL_DISABLED))]
impl CurrentRequest {
    /// What does not wait is over before another thread executes Python: who finds the request in use would have to wait for
    /// a client.
    #[inline]
    fn take(&self) -> TryLockResult<MutexGuard<'_, Active>> {
        self.0.try_lock()
    }
}

#[cfg(Py_GIL_DISABLED)]
impl CurrentRequest {
    /// How long a thread waits for another that uses the request. What does not wait for a client takes microseconds.
    const PATIENCE: Duration = Duration::from_secs(1);
    const PAUSE: Duration = Duration::from_micros(20);

    #[inline]
    fn take(&self) -> TryLockResult<MutexGuard<'_, Active>> {
        match self.0.try_lock() {
            Err(TryLockError::WouldBlock) => self.await_other(),
            taken => taken,
        }
    }

    /// Another thread uses the request at this moment, which the global lock would not have shown. A thread that waits for
    /// itself (Python's code that is called with the request in use) waits in vain.
    #[cold]
    fn await_other(&self) -> TryLockResult<MutexGuard<'_, Active>> {
        let until = Instant::now() + Self::PATIENCE;
        loop {
            // Not attached: a garbage collection would wait for this thread.
            Python::attach(|py| py.detach(|| std::thread::sleep(Self::PAUSE)));
            match self.0.try_lock() {
                Err(TryLockError::WouldBlock) if Instant::now() < until => {}
                taken => return taken,
            }
        }
    }
}

/// The same place, for its owner: requests are put in and taken out, with their clients.
pub(super) struct RequestPlace<C> {
    active: Arc<Mutex<Active<Lent<C>>>>,
    current: CurrentRequest,
}

impl<C: Transport + 'static> RequestPlace<C> {
    pub(super) fn new() -> Self {
        let active = Arc::new(Mutex::new(Active {
            is_open: false,
            exchange: Exchange {
                protocol: SocketProtocol::Http,
                version: Version::Http11,
                head_only: false,
                keep_alive: false,
            },
            progress: Progress::Nothing,
            status: 0,
            body_sent: 0,
            head_len: 0,
            headers: 0,
            by_file: false,
            overrun: None,
            knows_gone: false,
            date: HttpDate::from_unix(0),
            times: ResponseTimes::default(),
            routed: None,
            spare_buffer: Vec::with_capacity(512),
            transport: Lent { client: None, no_body: io::empty() },
        }));
        let current = CurrentRequest(Arc::<Mutex<Active<Lent<C>>>>::clone(&active));
        Self { active, current }
    }

    /// What the Python objects are given of it.
    pub(super) fn current(&self) -> &CurrentRequest {
        &self.current
    }

    /// Gives the application a request of `client`, on this thread.
    pub(super) fn put(&self, client: Box<C>, exchange: Exchange, date: HttpDate) {
        OF_THREAD.with_borrow_mut(|known| {
            if !known.as_ref().is_some_and(|known| Arc::ptr_eq(&known.0, &self.current.0)) {
                *known = Some(self.current.clone());
            }
        });
        let mut active = self.lock();
        active.is_open = true;
        active.exchange = exchange;
        active.progress = Progress::Nothing;
        active.status = 0;
        active.body_sent = 0;
        active.head_len = 0;
        active.headers = 0;
        active.by_file = false;
        active.overrun = None;
        active.knows_gone = false;
        active.times = ResponseTimes::default();
        active.date = date;
        active.transport.client = Some(client);
    }

    /// Ends the request for the application. Waits for a thread that the application left reading.
    pub(super) fn close(&self, py: Python<'_>) -> MutexGuard<'_, Active<Lent<C>>> {
        let mut active = match self.active.try_lock() {
            Ok(active) => active,
            Err(TryLockError::Poisoned(poisoned)) => poisoned.into_inner(),
            Err(TryLockError::WouldBlock) => {
                // Its holder may wait for the GIL, or stand still for a garbage collection. After this nobody holds it for
                // longer than a look.
                py.detach(|| self.lock().is_open = false);
                self.lock()
            }
        };
        active.is_open = false;
        active
    }

    pub(super) fn lock(&self) -> MutexGuard<'_, Active<Lent<C>>> {
        self.active.lock().unwrap_or_else(|poisoned| {
            // The request that panicked is over; the next one sets every field.
            self.active.clear_poison();
            poisoned.into_inner()
        })
    }
}

/// A client that is lent to the application for a request. Without one the application has none, and nothing is sent or
/// read: see [`CurrentRequest::with`].
pub(super) struct Lent<C> {
    pub(super) client: Option<Box<C>>,
    no_body: io::Empty,
}

fn nobody() -> io::Error {
    io::ErrorKind::NotConnected.into()
}

impl<C: Transport> Transport for Lent<C> {
    fn send(&mut self, parts: &[&[u8]], own: &mut dyn FnMut(usize) -> Option<Kept>) -> io::Result<bool> {
        self.client.as_mut().ok_or_else(nobody)?.send(parts, own)
    }

    fn announce_last(&mut self) {
        if let Some(client) = &mut self.client {
            client.announce_last();
        }
    }

    fn announce_more(&mut self) {
        if let Some(client) = &mut self.client {
            client.announce_more();
        }
    }

    fn gather_no_more(&mut self) {
        if let Some(client) = &mut self.client {
            client.gather_no_more();
        }
    }

    fn send_file(&mut self, head: &[u8], file: File, offset: u64, len: u64) -> io::Result<bool> {
        self.client.as_mut().ok_or_else(nobody)?.send_file(head, file, offset, len)
    }

    fn flush(&mut self) -> io::Result<()> {
        self.client.as_mut().ok_or_else(nobody)?.flush()
    }

    fn take_client(&mut self) -> io::Result<OwnedFd> {
        self.client.as_mut().ok_or_else(nobody)?.take_client()
    }

    fn body(&mut self) -> &mut (dyn BufRead + Send) {
        match &mut self.client {
            Some(client) => client.body(),
            None => &mut self.no_body,
        }
    }

    fn body_at_hand(&self) -> &[u8] {
        self.client.as_ref().map_or(&[], |client| client.body_at_hand())
    }

    fn body_left(&self) -> u64 {
        self.client.as_ref().map_or(0, |client| client.body_left())
    }
}
