//! Sending what the application returned: a list, an iterable, a file.

use std::fs::File;
use std::io::{Read, Seek, SeekFrom};

use pyo3::prelude::*;
use pyo3::pybacked::PyBackedBytes;
use pyo3::types::{PyBytes, PyList, PyString, PyTuple};
use tracing::error;

use super::active::{CurrentRequest, Progress, ResponseError};
use super::file_wrapper::FileWrapper;
use super::traceback::{self, one_line};
use super::transport::Kept;
use crate::clock::MonotonicNanos;
use rwsgi_protocol::response::{Framing, Plan};

/// Why a response did not come out as it should.
pub(super) enum ResponseFailure {
    /// The application raised.
    Raised(PyErr),
    /// It broke the protocol.
    Response(ResponseError),
}

impl From<PyErr> for ResponseFailure {
    fn from(error: PyErr) -> Self {
        Self::Raised(error)
    }
}

impl From<ResponseError> for ResponseFailure {
    fn from(error: ResponseError) -> Self {
        Self::Response(error)
    }
}

impl From<std::io::Error> for ResponseFailure {
    fn from(error: std::io::Error) -> Self {
        Self::Response(ResponseError::Client(error))
    }
}

/// Keeps a bytes object until the client has taken it.
fn own(bytes: &Bound<'_, PyBytes>) -> Option<Kept> {
    Some(Box::new(PyBackedBytes::from(bytes.clone())))
}

/// Sends what the application returned, and closes it, whatever happens.
pub(super) fn respond(
    py: Python<'_>,
    current: &CurrentRequest,
    result: &Bound<'_, PyAny>,
) -> Result<(), ResponseFailure> {
    // Lists and tuples are what most applications return, and need no closing.
    if let Ok(list) = result.cast_exact::<PyList>() {
        // By far the most common answer: a list of one piece.
        if list.len() == 1
            && let Ok(bytes) = list.get_item(0)?.cast_exact::<PyBytes>()
        {
            return send_one(py, current, bytes);
        }
        return send_whole(py, current, &list.to_tuple());
    }
    if let Ok(tuple) = result.cast_exact::<PyTuple>() {
        return send_whole(py, current, tuple);
    }
    if let Ok(bytes) = result.cast_exact::<PyBytes>() {
        // Not quite the protocol (each item would be a number), but what uWSGI's users may do.
        return send_one(py, current, bytes);
    }
    let sent = send_iterable(py, current, result);
    let closed = match result.getattr_opt("close") {
        Ok(Some(close)) => close.call0().map(drop),
        Ok(None) => Ok(()),
        Err(error) => Err(error),
    };
    match (sent, closed) {
        (Err(failure), Err(error)) => {
            // One of the two is the request's failure; the other must not be lost.
            error!("close() of what the application returned: {}", one_line(py, &error));
            traceback::log(py, &error);
            Err(failure)
        }
        (sent, closed) => sent.and(closed.map_err(ResponseFailure::from)),
    }
}

/// A body that is copied to the kernel without the GIL, bytes: what is smaller is copied sooner than the GIL is back.
const LARGE: usize = 256 * 1024;

fn send_one(py: Python<'_>, current: &CurrentRequest, bytes: &Bound<'_, PyBytes>) -> Result<(), ResponseFailure> {
    let data = bytes.as_bytes();
    current.with(|active| {
        active.times.returned(data.len() as u64);
        // After `write()` the length of this is not the length of the whole.
        let whole = (!matches!(active.progress, Progress::Sending(_))).then_some(data.len() as u64);
        // Rules may make several of it.
        if whole.is_some() && active.routed.is_none() {
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

fn send_whole(py: Python<'_>, current: &CurrentRequest, items: &Bound<'_, PyTuple>) -> Result<(), ResponseFailure> {
    if let [item] = items.as_slice()
        && let Ok(bytes) = item.cast_exact::<PyBytes>()
    {
        return send_one(py, current, bytes);
    }
    let pieces = items.iter().map(|item| body_bytes(&item)).collect::<PyResult<Vec<_>>>()?;
    let slices: Vec<_> = pieces.iter().map(pyo3::types::PyBytesMethods::as_bytes).collect();
    let len = slices.iter().map(|slice| slice.len() as u64).sum();
    current.with(|active| {
        active.times.returned(len);
        let whole = (!matches!(active.progress, Progress::Sending(_))).then_some(len);
        if whole.is_some() && active.routed.is_none() {
            active.transport.announce_last();
        }
        active.send(&slices, whole, &mut |index| own(&pieces[index]))?;
        if whole.is_none() {
            active.end()?;
        }
        Ok(())
    })
}

fn send_iterable(py: Python<'_>, current: &CurrentRequest, result: &Bound<'_, PyAny>) -> Result<(), ResponseFailure> {
    if result.is_instance_of::<PyString>() {
        // What applications for uWSGI return after a WebSocket is often an empty one.
        if current.with(|active| Ok::<_, PyErr>(active.is_upgraded()))? {
            return Ok(());
        }
        let message = "the application returned a str; a WSGI application returns an iterable of bytes";
        return Err(pyo3::exceptions::PyTypeError::new_err(message).into());
    }
    if let Ok(wrapper) = result.cast_exact::<FileWrapper>()
        && send_file(py, current, wrapper.get())?
    {
        return Ok(());
    }
    let mut is_over = false;
    for item in result.try_iter()? {
        let piece = body_bytes(&item?)?;
        let bytes = piece.as_bytes();
        // An empty item is how an application says that it has nothing yet (PEP 3333).
        if bytes.is_empty() {
            continue;
        }
        let is_bodiless = current.with(|active| -> Result<bool, ResponseFailure> {
            if active.goes_on_after(bytes.len()) {
                active.transport.announce_more();
            }
            let all_sent = active.send(&[bytes], None, &mut |_| own(&piece))?;
            // More is to come, or may be, and the client is behind: the application makes it when the client has this.
            if !all_sent && !active.is_whole() {
                let since = MonotonicNanos::now();
                let flushed = py.detach(|| active.transport.flush());
                active.times.waited_since(since);
                flushed?;
            }
            is_over = active.routed.as_ref().is_some_and(|routed| routed.has_all());
            Ok(active.is_bodiless())
        })?;
        // An answer without a body needs none made.
        if is_bodiless {
            return Ok(());
        }
        // A part of a file, whose length rules have taken out of the head.
        if is_over {
            break;
        }
    }
    current.with(|active| active.end().map_err(ResponseFailure::from))
}

/// Whether the file could be left to the system.
fn send_file(py: Python<'_>, current: &CurrentRequest, wrapper: &FileWrapper) -> Result<bool, ResponseFailure> {
    let Some(extent) = wrapper.extent(py) else { return Ok(false) };
    current.with(|active| {
        if !active.rules_leave_body()? {
            return Ok(false);
        }
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
        active.times.returned(len);
        active.progress = Progress::Sending(plan);
        active.head_len = head.len() as u32;
        active.by_file = true;
        active.body_sent = len;
        let len = if plan.framing == Framing::NoBody { 0 } else { len };
        // Reading the disk takes its time.
        py.detach(|| active.transport.send_file(&head, extent.file, extent.offset, len))?;
        active.spare_buffer = head;
        active.spare_buffer.clear();
        Ok(true)
    })
}

/// Ends the response before the application has come to its end: what it still produces goes nowhere.
///
/// # Errors
/// When there is no request, or another thread uses it.
pub(crate) fn end_early(py: Python<'_>, current: &CurrentRequest) -> PyResult<()> {
    current.with(|active| {
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
pub(crate) fn send_part(
    py: Python<'_>,
    current: &CurrentRequest,
    mut file: File,
    offset: u64,
    len: u64,
) -> PyResult<()> {
    current.with(|active| {
        let is_plain = active.rules_leave_body().map_err(|error| active.raise(error))?;
        if is_plain && matches!(active.progress, Progress::Head(_)) {
            let Progress::Head(head) = std::mem::replace(&mut active.progress, Progress::Nothing) else {
                return Ok(());
            };
            let len = head.content_length().map_or(len, |said| said.min(len));
            let (plan, head) = head.finish(active.exchange, Some(len), &active.date);
            active.progress = Progress::Sending(plan);
            active.head_len = head.len() as u32;
            active.by_file = true;
            active.body_sent = len;
            let len = if plan.framing == Framing::NoBody { 0 } else { len };
            return py
                .detach(|| active.transport.send_file(&head, file, offset, len))
                .map(drop)
                .map_err(|error| active.raise(error.into()));
        }
        match active.progress {
            Progress::Sending(Plan { framing: Framing::Length(said), .. }) => {
                let len = len.min(said.saturating_sub(active.body_sent));
                active.body_sent += len;
                active.by_file = true;
                py.detach(|| active.transport.send_file(&[], file, offset, len))
                    .map(drop)
                    .map_err(|error| active.raise(error.into()))
            }
            _ => {
                file.seek(SeekFrom::Start(offset))?;
                let mut piece = Vec::new();
                let mut left = file.take(len);
                while py.detach(|| left.by_ref().take(LARGE as u64).read_to_end(&mut piece))? > 0 {
                    active.send(&[&piece], None, &mut |_| None).map_err(|error| active.raise(error))?;
                    py.detach(|| active.transport.flush()).map_err(|error| active.raise(error.into()))?;
                    piece.clear();
                }
                Ok(())
            }
        }
    })
}

fn body_bytes<'py>(item: &Bound<'py, PyAny>) -> PyResult<Bound<'py, PyBytes>> {
    item.cast::<PyBytes>().cloned().map_err(|_| {
        let kind = item.get_type().name().map(|name| name.to_string()).unwrap_or_default();
        pyo3::exceptions::PyTypeError::new_err(format!("the application produced {kind} where bytes are needed"))
    })
}
