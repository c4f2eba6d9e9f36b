//! The call: a request goes in, the application runs, its response goes out, and whatever it does wrong becomes a line
//! in the log and a correct answer or a closed connection.

use std::collections::VecDeque;

use std::fs::File;
use std::io::{Read, Seek, SeekFrom};

use pyo3::prelude::*;
use pyo3::pybacked::PyBackedBytes;
use pyo3::types::{PyBytes, PyList, PyString, PyTraceback, PyTuple};
use tracing::error;

use super::application::one_line;
use super::environ::EnvironBuilder;
use super::exchange::{Active, Progress, ResponseError, Shared};
use super::file_wrapper::FileWrapper;
use super::input::Input;
use super::start_response::{StartResponse, raised as raised_of};
use super::transport::{Kept, Transport};
use crate::api::request;
use crate::protocol::date::HttpDate;
use crate::protocol::http::Head;
use crate::protocol::link::Peer;
use crate::protocol::response::{Exchange, Framing, HeadWriter, Plan};
use crate::protocol::uwsgi;

/// A request's head, in the form that it came in.
pub enum RequestHead<'a> {
    /// HTTP, and what is known of the connection.
    Http {
        /// The head.
        head: &'a Head<'a, 'a>,
        /// The connection's ends.
        peer: Peer<'a>,
        /// Length of the body, if there is one.
        body_len: Option<u64>,
    },
    /// A uwsgi packet.
    Uwsgi(&'a uwsgi::Packet<'a>),
}

/// What an application raised.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Raised {
    /// Class name.
    pub kind: String,
    /// Its text.
    pub message: String,
    /// File, line and function of the innermost frames, at most [`FRAMES`], the innermost first.
    pub traceback: Vec<String>,
}

/// A request that the application is done with.
pub struct Served {
    /// The client, with whatever is still to be sent.
    pub transport: Box<dyn Transport>,
    /// The status code that was sent; 0 when none was.
    pub status: u16,
    /// Whether the connection may stay.
    pub keep_alive: bool,
    /// What the application raised, if it did.
    pub raised: Option<Raised>,
    /// The client went away before the response was complete.
    pub client_gone: bool,
    /// A response was begun whose end is that of the connection, and did not come to its end: closing as usual would
    /// make it look whole.
    pub broken_off: bool,
}

/// Calls the application for one thread.
pub struct Gateway {
    application: Py<PyAny>,
    environ: EnvironBuilder,
    objects: Objects,
    date: HttpDate,
    spare: Vec<u8>,
}

/// What the application is given of a request, used again as long as it keeps none of it.
struct Objects {
    shared: Shared,
    start_response: Py<StartResponse>,
    input: Py<Input>,
}

impl Objects {
    fn new(py: Python<'_>) -> PyResult<Self> {
        let shared = Shared::default();
        let start_response = Py::new(py, StartResponse::new(py, &shared)?)?;
        let input = Py::new(py, Input::new(&shared))?;
        Ok(Self { shared, start_response, input })
    }

    fn are_ours_alone(&self, py: Python<'_>) -> bool {
        let write = self.start_response.get().write();
        [self.start_response.as_ptr(), write.as_ptr(), self.input.as_ptr()]
            .into_iter()
            .all(|object| is_ours_alone(py, object))
    }
}

#[allow(unsafe_code)]
fn is_ours_alone(_py: Python<'_>, object: *mut pyo3::ffi::PyObject) -> bool {
    // SAFETY: the caller owns a reference, so that the object lives; the GIL is held.
    unsafe { pyo3::ffi::Py_REFCNT(object) == 1 }
}

/// Why a response did not come out as it should.
enum Failure {
    /// The application raised.
    Raised(PyErr),
    /// It broke the protocol.
    Response(ResponseError),
}

impl From<PyErr> for Failure {
    fn from(error: PyErr) -> Self {
        Self::Raised(error)
    }
}

impl From<ResponseError> for Failure {
    fn from(error: ResponseError) -> Self {
        Self::Response(error)
    }
}

impl From<std::io::Error> for Failure {
    fn from(error: std::io::Error) -> Self {
        Self::Response(ResponseError::Client(error))
    }
}

impl Gateway {
    /// For one thread of a server with this many threads and processes.
    ///
    /// # Errors
    /// When Python has no memory left.
    pub fn new(py: Python<'_>, application: Py<PyAny>, multithread: bool, multiprocess: bool) -> PyResult<Self> {
        Ok(Self {
            application,
            environ: EnvironBuilder::new(py, multithread, multiprocess)?,
            objects: Objects::new(py)?,
            date: crate::protocol::date::now(),
            spare: Vec::with_capacity(512),
        })
    }

    /// Sets the time that `Date` tells, unix seconds.
    pub fn set_time(&mut self, seconds: u64) {
        self.date = HttpDate::from_unix(seconds);
    }

    /// Has the application answer a request.
    ///
    /// # Errors
    /// Only when Python itself fails (no memory); the request is lost then, and the caller should give up.
    pub fn serve(
        &mut self,
        py: Python<'_>,
        request: &RequestHead<'_>,
        exchange: Exchange,
        transport: Box<dyn Transport>,
    ) -> PyResult<Served> {
        if !self.objects.are_ours_alone(py) {
            self.objects = Objects::new(py)?;
        }
        let Objects { shared, start_response, input } = &self.objects;
        let environ = match request {
            RequestHead::Http { head, peer, body_len } => self.environ.http(py, head, peer, *body_len, input)?,
            RequestHead::Uwsgi(packet) => self.environ.uwsgi(py, packet, input)?,
        };
        request::reach(shared);
        shared.put(Active {
            transport,
            exchange,
            progress: Progress::Nothing,
            status: 0,
            body_sent: 0,
            date: self.date,
            spare: std::mem::take(&mut self.spare),
        });
        let failure = match self.application.bind(py).call1((environ, start_response)) {
            Ok(result) => respond(py, shared, &result).err(),
            Err(error) => Some(Failure::Raised(error)),
        };
        let Some(mut active) = shared.take(py) else {
            return Err(pyo3::exceptions::PySystemError::new_err("a request vanished while it was served"));
        };
        let mut served_ok = failure.is_none();
        let mut raised = None;
        let mut client_gone = false;
        match failure {
            None => {}
            Some(Failure::Response(ResponseError::Client(_))) => client_gone = true,
            Some(Failure::Response(response_error)) => {
                error!("{}: {response_error}", describe(request));
                raised = Some(Raised {
                    kind: "ResponseError".into(),
                    message: response_error.to_string(),
                    ..Raised::default()
                });
            }
            Some(Failure::Raised(python_error)) => {
                if is_client_gone(py, &python_error) {
                    client_gone = true;
                } else {
                    error!("{}: {}", describe(request), one_line(py, &python_error));
                    python_error.display(py);
                    raised = Some(report(py, &python_error));
                }
            }
        }
        if !served_ok && !client_gone && !matches!(active.progress, Progress::Sending(_)) {
            served_ok = answer_500(&mut active);
        }
        let keep_alive = served_ok && matches!(active.progress, Progress::Sending(plan) if plan.keep_alive);
        let sent = matches!(active.progress, Progress::Sending(_));
        let broken_off =
            !served_ok && matches!(active.progress, Progress::Sending(Plan { framing: Framing::UntilClose, .. }));
        self.spare = active.spare;
        Ok(Served {
            transport: active.transport,
            status: if sent { active.status } else { 0 },
            keep_alive,
            raised,
            client_gone,
            broken_off,
        })
    }
}

/// A request in a line of the log.
fn describe(request: &RequestHead<'_>) -> String {
    match request {
        RequestHead::Http { head, .. } => format!("{} {}", head.method, head.target),
        RequestHead::Uwsgi(packet) => {
            let var = |name: &[u8]| {
                let value = packet.vars().filter(|(found, _)| *found == name).last();
                value.map(|(_, value)| String::from_utf8_lossy(value).into_owned()).unwrap_or_default()
            };
            format!("{} {}", var(b"REQUEST_METHOD"), var(b"REQUEST_URI"))
        }
    }
}

/// Nothing was sent: the client can be told that something went wrong.
fn answer_500(active: &mut Active) -> bool {
    const BODY: &[u8] = b"Internal Server Error\n";
    let mut buffer = std::mem::take(&mut active.spare);
    buffer.clear();
    let Ok(mut head) = HeadWriter::new(b"500 Internal Server Error", buffer) else { return false };
    if head.header(b"Content-Type", b"text/plain; charset=utf-8").is_err() {
        return false;
    }
    active.status = 500;
    active.progress = Progress::Head(head);
    active.send(&[BODY], Some(BODY.len() as u64), &mut |_| None).is_ok()
}

/// The exception that `write()` raises when the client is gone comes back through the application.
fn is_client_gone(py: Python<'_>, error: &PyErr) -> bool {
    error.is_instance_of::<pyo3::exceptions::PyBrokenPipeError>(py)
        && error.value(py).to_string().starts_with("the client is gone")
}

fn report(py: Python<'_>, error: &PyErr) -> Raised {
    let kind = error.get_type(py).name().map(|name| name.to_string()).unwrap_or_default();
    let message = error.value(py).str().map(|text| text.to_string_lossy().into_owned()).unwrap_or_default();
    let traceback = error.traceback(py).and_then(|traceback| innermost(&traceback).ok()).unwrap_or_default();
    Raised { kind, message, traceback }
}

/// Frames that are told of a traceback: enough to see who called what failed, few enough for the scoreboard.
const FRAMES: usize = 5;

fn innermost(traceback: &Bound<'_, PyTraceback>) -> PyResult<Vec<String>> {
    let mut last = VecDeque::with_capacity(FRAMES + 1);
    let mut next = Some(traceback.clone().into_any());
    while let Some(entry) = next {
        next = entry.getattr("tb_next")?.extract()?;
        last.push_front(entry);
        last.truncate(FRAMES);
    }
    let told = |entry: &Bound<'_, PyAny>| {
        let code = entry.getattr("tb_frame")?.getattr("f_code")?;
        let (file, name) = (code.getattr("co_filename")?, code.getattr("co_name")?);
        Ok(format!("{file}:{} in {name}", entry.getattr("tb_lineno")?))
    };
    last.iter().map(told).collect()
}

/// Keeps a bytes object until the client has taken it.
fn own(bytes: &Bound<'_, PyBytes>) -> Option<Kept> {
    Some(Box::new(PyBackedBytes::from(bytes.clone())))
}

/// Sends what the application returned, and closes it, whatever happens.
fn respond(py: Python<'_>, shared: &Shared, result: &Bound<'_, PyAny>) -> Result<(), Failure> {
    // Lists and tuples are what most applications return, and need no closing.
    if let Ok(list) = result.cast_exact::<PyList>() {
        // By far the most common answer: a list of one piece.
        if list.len() == 1
            && let Ok(bytes) = list.get_item(0)?.cast_exact::<PyBytes>()
        {
            return send_one(py, shared, bytes);
        }
        return send_whole(py, shared, &list.to_tuple());
    }
    if let Ok(tuple) = result.cast_exact::<PyTuple>() {
        return send_whole(py, shared, tuple);
    }
    if let Ok(bytes) = result.cast_exact::<PyBytes>() {
        // Not quite the protocol (each item would be a number), but what uWSGI's users may do.
        return send_one(py, shared, bytes);
    }
    let sent = send_iterable(py, shared, result);
    let closed = match result.getattr_opt("close") {
        Ok(Some(close)) => close.call0().map(drop),
        Ok(None) => Ok(()),
        Err(error) => Err(error),
    };
    match (sent, closed) {
        (Err(failure), Err(error)) => {
            // One of the two is the request's failure; the other must not be lost.
            error!("close() of what the application returned: {}", one_line(py, &error));
            error.display(py);
            Err(failure)
        }
        (sent, closed) => sent.and(closed.map_err(Failure::from)),
    }
}

/// A body that is copied to the kernel without the GIL, bytes: what is smaller is copied sooner than the GIL is back.
const LARGE: usize = 256 * 1024;

fn send_one(py: Python<'_>, shared: &Shared, bytes: &Bound<'_, PyBytes>) -> Result<(), Failure> {
    let data = bytes.as_bytes();
    with(shared, |active| {
        // After `write()` the length of this is not the length of the whole.
        let whole = (!matches!(active.progress, Progress::Sending(_))).then_some(data.len() as u64);
        if whole.is_some() {
            active.transport.announce_last();
        }
        if data.len() < LARGE {
            active.send(&[data], whole, &mut |_| own(bytes))?;
        } else {
            let mut kept = own(bytes);
            py.detach(|| active.send(&[data], whole, &mut |_| kept.take()))?;
        }
        if whole.is_none() {
            active.end()?;
        }
        Ok(())
    })
}

fn send_whole(py: Python<'_>, shared: &Shared, items: &Bound<'_, PyTuple>) -> Result<(), Failure> {
    if let [item] = items.as_slice()
        && let Ok(bytes) = item.cast_exact::<PyBytes>()
    {
        return send_one(py, shared, bytes);
    }
    let pieces = items.iter().map(|item| body_bytes(&item)).collect::<PyResult<Vec<_>>>()?;
    let slices: Vec<_> = pieces.iter().map(pyo3::types::PyBytesMethods::as_bytes).collect();
    let len = slices.iter().map(|slice| slice.len() as u64).sum();
    with(shared, |active| {
        let whole = (!matches!(active.progress, Progress::Sending(_))).then_some(len);
        if whole.is_some() {
            active.transport.announce_last();
        }
        active.send(&slices, whole, &mut |index| own(&pieces[index]))?;
        if whole.is_none() {
            active.end()?;
        }
        Ok(())
    })
}

fn send_iterable(py: Python<'_>, shared: &Shared, result: &Bound<'_, PyAny>) -> Result<(), Failure> {
    if result.is_instance_of::<PyString>() {
        let message = "the application returned a str; a WSGI application returns an iterable of bytes";
        return Err(pyo3::exceptions::PyTypeError::new_err(message).into());
    }
    if let Ok(wrapper) = result.cast_exact::<FileWrapper>()
        && send_file(py, shared, wrapper.get())?
    {
        return Ok(());
    }
    for item in result.try_iter()? {
        let piece = body_bytes(&item?)?;
        let bytes = piece.as_bytes();
        // An empty item is how an application says that it has nothing yet (PEP 3333).
        if bytes.is_empty() {
            continue;
        }
        let is_bodiless = with(shared, |active| {
            let all_sent = active.send(&[bytes], None, &mut |_| own(&piece))?;
            // More is to come, or may be: the client must have this before the application makes the next.
            if !all_sent && !active.is_whole() {
                py.detach(|| active.transport.flush())?;
            }
            Ok(active.is_bodiless())
        })?;
        // An answer without a body needs none made.
        if is_bodiless {
            return Ok(());
        }
    }
    with(shared, |active| active.end().map_err(Failure::from))
}

/// Whether the file could be left to the system.
fn send_file(py: Python<'_>, shared: &Shared, wrapper: &FileWrapper) -> Result<bool, Failure> {
    let Some(extent) = wrapper.extent(py) else { return Ok(false) };
    with(shared, |active| {
        let Progress::Head(head) = &active.progress else { return Ok(false) };
        let len = head.content_length().unwrap_or(extent.len);
        if len > extent.len || active.exchange.head_only {
            // The ordinary way says what is wrong with it.
            return Ok(false);
        }
        let (plan, head) = match std::mem::replace(&mut active.progress, Progress::Nothing) {
            Progress::Head(head) => head.finish(active.exchange, Some(len), &active.date),
            other => {
                active.progress = other;
                return Ok(false);
            }
        };
        active.progress = Progress::Sending(plan);
        active.body_sent = len;
        let len = if plan.framing == Framing::NoBody { 0 } else { len };
        // Reading the disk takes its time.
        py.detach(|| active.transport.send_file(&head, extent.file, extent.offset, len))?;
        active.spare = head;
        active.spare.clear();
        Ok(true)
    })
}

/// Ends the response before the application has come to its end: what it still produces goes nowhere.
///
/// # Errors
/// When there is no request, or another thread uses it.
pub(crate) fn end_early(py: Python<'_>, shared: &Shared) -> PyResult<()> {
    shared.with(|active| {
        // A response that is not whole is seen to be none by its client; one that is gone needs nothing.
        let ended = active.end().is_ok();
        let _ = py.detach(|| active.transport.flush());
        if let Progress::Sending(plan) = &mut active.progress {
            plan.framing = Framing::NoBody;
            plan.keep_alive &= ended;
        }
        Ok(())
    })
}

/// Sends a part of a file as the body, or as the next of the body.
///
/// # Errors
/// When the response was not started, or the client is gone.
pub(crate) fn send_part(py: Python<'_>, shared: &Shared, mut file: File, offset: u64, len: u64) -> PyResult<()> {
    shared.with(|active| {
        if let Progress::Head(head) = std::mem::replace(&mut active.progress, Progress::Nothing) {
            let len = head.content_length().map_or(len, |said| said.min(len));
            let (plan, head) = head.finish(active.exchange, Some(len), &active.date);
            active.progress = Progress::Sending(plan);
            active.body_sent = len;
            let len = if plan.framing == Framing::NoBody { 0 } else { len };
            return py.detach(|| active.transport.send_file(&head, file, offset, len)).map(drop).map_err(client_gone);
        }
        match active.progress {
            Progress::Sending(Plan { framing: Framing::Length(said), .. }) => {
                let len = len.min(said.saturating_sub(active.body_sent));
                active.body_sent += len;
                py.detach(|| active.transport.send_file(&[], file, offset, len)).map(drop).map_err(client_gone)
            }
            _ => {
                file.seek(SeekFrom::Start(offset))?;
                let mut piece = Vec::new();
                let mut left = file.take(len);
                while py.detach(|| left.by_ref().take(LARGE as u64).read_to_end(&mut piece))? > 0 {
                    active.send(&[&piece], None, &mut |_| None).map_err(raised_of)?;
                    py.detach(|| active.transport.flush()).map_err(client_gone)?;
                    piece.clear();
                }
                Ok(())
            }
        }
    })
}

fn client_gone(error: std::io::Error) -> PyErr {
    raised_of(ResponseError::Client(error))
}

fn body_bytes<'py>(item: &Bound<'py, PyAny>) -> PyResult<Bound<'py, PyBytes>> {
    item.cast::<PyBytes>().cloned().map_err(|_| {
        let kind = item.get_type().name().map(|name| name.to_string()).unwrap_or_default();
        pyo3::exceptions::PyTypeError::new_err(format!("the application produced {kind} where bytes are needed"))
    })
}

/// The request's state, which is there as long as this module runs.
fn with<T>(shared: &Shared, f: impl FnOnce(&mut Active) -> Result<T, Failure>) -> Result<T, Failure> {
    let mut outcome = None;
    shared.with(|active| {
        outcome = Some(f(active));
        Ok(())
    })?;
    match outcome {
        Some(outcome) => outcome,
        None => Err(pyo3::exceptions::PySystemError::new_err("the request is not there").into()),
    }
}
