//! The functions of the module that concern the request that this thread serves.

use std::fs::File;
use std::os::fd::RawFd;

use nix::sys::socket::{Shutdown, shutdown};
use pyo3::exceptions::PyRuntimeError;
use pyo3::prelude::*;
use pyo3::types::PyBytes;
use tracing::warn;

use super::here::{server, worker};
use super::text::Text;
use crate::descriptor::duplicate;
use crate::ids::ThreadIndex;
use crate::stats::route_text::RouteText;
use crate::wsgi::active::CurrentRequest;
use crate::wsgi::respond;
use crate::wsgi::serving::{self, CurrentConnection, LineChoice, Notes};
use crate::wsgi::websocket;

pub(super) fn add(module: &Bound<'_, PyModule>) -> PyResult<()> {
    module.add_function(wrap_pyfunction!(request_id, module)?)?;
    module.add_function(wrap_pyfunction!(connection_fd, module)?)?;
    module.add_function(wrap_pyfunction!(ready_fd, module)?)?;
    module.add_function(wrap_pyfunction!(set_logvar, module)?)?;
    module.add_function(wrap_pyfunction!(get_logvar, module)?)?;
    module.add_function(wrap_pyfunction!(set_route, module)?)?;
    module.add_function(wrap_pyfunction!(log_this_request, module)?)?;
    module.add_function(wrap_pyfunction!(disconnect, module)?)?;
    module.add_function(wrap_pyfunction!(sendfile, module)?)?;
    Ok(())
}

fn connection() -> PyResult<CurrentConnection> {
    serving::connection().ok_or_else(serves_none)
}

fn current() -> PyResult<CurrentRequest> {
    serving::current().ok_or_else(serves_none)
}

fn serves_none() -> PyErr {
    PyRuntimeError::new_err("this thread serves no request")
}

fn note(change: impl FnOnce(&mut Notes)) -> PyResult<()> {
    connection()?;
    serving::note(change);
    Ok(())
}

/// How many requests this thread of this process has served before.
#[pyfunction]
fn request_id() -> u64 {
    let (Some(thread), Some((_, slot)), Some(server)) = (serving::thread(), worker(), server()) else { return 0 };
    let cell = server.scoreboard.thread(slot, ThreadIndex::new(thread));
    cell.read().map_or(0, |thread| thread.counters.requests)
}

/// The descriptor of the request's connection; behind the http router, that of its link. A request that asks for WebSocket
/// gets its client's own: from then on there can be no HTTP response.
#[pyfunction]
fn connection_fd(py: Python<'_>) -> PyResult<RawFd> {
    let connection = connection()?;
    if connection.is_link && websocket::is_offered() {
        websocket::connection_fd(py, &current()?)
    } else {
        // What the application sends there itself comes after all that it has given us before. That the client is gone it
        // finds itself.
        if let Some(current) = serving::current() {
            let _ = current.with(|active| {
                active.transport.gather_no_more();
                Ok::<_, PyErr>(py.detach(|| active.transport.flush())?)
            });
        }
        Ok(connection.fd)
    }
}

/// The descriptor that was waited for: -1, for there is no asynchronous mode.
#[pyfunction]
fn ready_fd() -> RawFd {
    -1
}

/// Adds something to the request's line in the log.
#[pyfunction]
#[pyo3(signature = (name, value, /))]
fn set_logvar(name: Text, value: Text) -> PyResult<()> {
    if name.0 == b"route" {
        name_route(&value.0);
    }
    note(|notes| notes.set_variable(name.0, value.0))
}

/// Says which route the request is of, for the stats; the last one counts. Does nothing in a thread that serves none.
#[pyfunction]
#[pyo3(signature = (name, /))]
fn set_route(name: Text) {
    name_route(&name.0);
}

/// Where the name of the request's route is kept: in its thread's cell, so that others see it while the request runs.
fn name_route(name: &[u8]) {
    let of_worker = || Some((worker()?.1, server()?, serving::thread()?, serving::connection()?));
    if let (Some((slot, server, thread, _)), Some(name)) = (of_worker(), RouteText::named(name)) {
        server.scoreboard.thread(slot, ThreadIndex::new(thread)).route_name.store(name.as_bytes());
    }
}

/// What was added; None when nothing was.
#[pyfunction]
#[pyo3(signature = (name, /))]
fn get_logvar(py: Python<'_>, name: Text) -> Option<Bound<'_, PyBytes>> {
    serving::noted(|notes| {
        let found = notes.variables.iter().find(|(known, _)| *known == name.0);
        found.map(|(_, value)| PyBytes::new(py, value))
    })
}

/// Logs the request although requests are not logged.
#[pyfunction]
fn log_this_request() -> PyResult<()> {
    note(|notes| {
        // A rule that keeps it out of the log is stronger, as in uWSGI.
        if notes.line == LineChoice::AsConfigured {
            notes.line = LineChoice::Logged;
        }
    })
}

/// Ends the response here: the client has all of it, and the application goes on.
#[pyfunction]
fn disconnect(py: Python<'_>) -> PyResult<()> {
    let CurrentConnection { fd, is_link } = connection()?;
    respond::end_early(py, &current()?)?;
    if !is_link {
        // The client may be gone already.
        let _ = shutdown(fd, Shutdown::Write);
    }
    Ok(())
}

/// Sends a file, or a part of it, after the response was started: True, or None when it cannot be opened.
#[pyfunction]
#[pyo3(signature = (what, chunk=0, pos=0, filesize=0, /))]
fn sendfile(py: Python<'_>, what: &Bound<'_, PyAny>, chunk: u64, pos: u64, filesize: u64) -> PyResult<Option<bool>> {
    // The kernel chooses how much it sends at once.
    let _ = chunk;
    let file = match what.extract::<Text>() {
        Ok(name) => {
            let name = name.shown().into_owned();
            py.detach(|| File::open(&name)).map_err(|error| format!("'{name}': {error}"))
        }
        Err(_) => {
            let fd: RawFd = what.call_method0("fileno").and_then(|fd| fd.extract()).or_else(|_| what.extract())?;
            duplicate(fd).map(File::from).map_err(|error| format!("descriptor {fd}: {error}"))
        }
    };
    let opened = file.and_then(|file| match file.metadata() {
        Ok(metadata) => Ok((file, metadata.len())),
        Err(error) => Err(error.to_string()),
    });
    let (file, size) = match opened {
        Ok(opened) => opened,
        Err(problem) => {
            warn!("uwsgi.sendfile: {problem}");
            return Ok(None);
        }
    };
    let left = size.saturating_sub(pos);
    let len = if filesize == 0 { left } else { filesize.min(left) };
    respond::send_part(py, &current()?, file, pos, len)?;
    Ok(Some(true))
}
