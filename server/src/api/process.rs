//! What a process knows of itself: its number, its memory, its name, its log.

use std::io::Write;
use std::os::fd::{AsFd, RawFd};

use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use nix::sys::socket::{getsockopt, sockopt};
use pyo3::exceptions::PyOSError;
use pyo3::prelude::*;

use super::here::{auxiliary, server, worker};
use super::text::Text;
use crate::clock::UnixMicros;
use crate::descriptor::duplicate;
use crate::ipc::AuxiliaryKind;
use crate::ipc::calls::{self, CallPacket, CallRequest};
use crate::procfs;
use crate::procname;

pub(super) fn add(module: &Bound<'_, PyModule>) -> PyResult<()> {
    module.add_function(wrap_pyfunction!(worker_id, module)?)?;
    module.add_function(wrap_pyfunction!(i_am_the_spooler, module)?)?;
    module.add_function(wrap_pyfunction!(masterpid, module)?)?;
    module.add_function(wrap_pyfunction!(log, module)?)?;
    module.add_function(wrap_pyfunction!(alarm, module)?)?;
    module.add_function(wrap_pyfunction!(mem, module)?)?;
    module.add_function(wrap_pyfunction!(micros, module)?)?;
    module.add_function(wrap_pyfunction!(setprocname, module)?)?;
    module.add_function(wrap_pyfunction!(is_connected, module)?)?;
    module.add_function(wrap_pyfunction!(close, module)?)?;
    Ok(())
}

/// The worker's number, from 1; 0 in every other process.
#[pyfunction]
fn worker_id() -> u32 {
    worker().map_or(0, |(number, _)| number.get())
}

/// True in a spooler, else None.
#[pyfunction]
fn i_am_the_spooler() -> Option<bool> {
    auxiliary(AuxiliaryKind::Spooler).map(|_| true)
}

/// The process id of the master.
#[pyfunction]
fn masterpid() -> i32 {
    server().map_or(0, |server| server.master.as_raw())
}

/// Raises an alarm by its name. One that is not there raises nothing, as in uWSGI, and neither does a message that is
/// too long.
#[pyfunction]
#[pyo3(signature = (name, text, /))]
fn alarm(name: Text, text: Text) -> PyResult<()> {
    let Some(server) = server() else { return Ok(()) };
    if text.0.len() > server.config.alarms.message_size as usize {
        return Ok(());
    }
    let [name, text] = [name, text].map(|text| String::from_utf8_lossy(&text.0).into_owned());
    if !server.config.alarms.alarms.iter().any(|alarm| alarm.name == name) {
        return Ok(());
    }
    let packet = CallPacket { generation: server.generation, what: CallRequest::Alarm { name, text } };
    Ok(calls::send(server.calls.as_fd(), &packet, None)?)
}

/// Writes a line to the server's log.
#[pyfunction]
#[pyo3(signature = (line, /))]
fn log(py: Python<'_>, line: Text) -> bool {
    let mut line = line.0;
    line.push(b'\n');
    // A log that cannot be written to is no reason to fail. Its reader may be slow.
    py.detach(|| drop(std::io::stderr().write_all(&line)));
    true
}

/// Resident memory and address space of this process, bytes.
#[pyfunction]
fn mem() -> PyResult<(u64, u64)> {
    let size = procfs::own_memory()?;
    Ok((size.resident, size.mapped))
}

/// Microseconds since 1970.
#[pyfunction]
fn micros() -> u64 {
    UnixMicros::now().as_micros()
}

/// Changes what `ps` shows for this process; a name longer than about 1000 bytes is cut.
#[pyfunction]
#[pyo3(signature = (name, /))]
fn setprocname(name: Text) {
    procname::set(&name.shown());
}

/// Whether the other end of a socket is still there.
#[pyfunction]
#[pyo3(signature = (fd, /))]
fn is_connected(fd: RawFd) -> bool {
    let Ok(socket) = duplicate(fd) else { return false };
    let has_failed = getsockopt(&socket, sockopt::SocketError) != Ok(0);
    let mut fds = [PollFd::new(socket.as_fd(), PollFlags::from_bits_retain(nix::libc::POLLRDHUP))];
    !has_failed && poll(&mut fds, PollTimeout::ZERO) == Ok(0)
}

/// Closes a descriptor.
#[pyfunction]
#[pyo3(signature = (fd, /))]
fn close(py: Python<'_>, fd: RawFd) -> PyResult<()> {
    match py.import("os")?.call_method1("close", (fd,)) {
        // uWSGI says nothing of one that is not open.
        Err(error) if error.is_instance_of::<PyOSError>(py) => Ok(()),
        closed => closed.map(drop),
    }
}
