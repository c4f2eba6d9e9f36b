//! What a process knows of itself: its number, its memory, its name, its log.

use std::io::Write;
use std::os::fd::RawFd;

use nix::libc;
use pyo3::prelude::*;

use super::here::{auxiliary, server, worker};
use super::text::Text;
use crate::ipc::AuxiliaryKind;
use crate::procfs;
use crate::procname;
use crate::stats::clock;

pub(super) fn add(module: &Bound<'_, PyModule>) -> PyResult<()> {
    module.add_function(wrap_pyfunction!(worker_id, module)?)?;
    module.add_function(wrap_pyfunction!(i_am_the_spooler, module)?)?;
    module.add_function(wrap_pyfunction!(masterpid, module)?)?;
    module.add_function(wrap_pyfunction!(log, module)?)?;
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
    worker().map_or(0, |(number, _)| number)
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

/// Writes a line to the server's log.
#[pyfunction]
#[pyo3(signature = (line, /))]
fn log(py: Python<'_>, line: Text) -> bool {
    let mut line = line.0;
    line.push(b'\n');
    // A log that cannot be written to is no reason to fail; whoever reads it may be slow.
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
    clock::unix_micros()
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
#[allow(unsafe_code)]
fn is_connected(fd: RawFd) -> bool {
    let mut error: libc::c_int = 0;
    let mut len = size_of::<libc::c_int>() as libc::socklen_t;
    // SAFETY: both pointers are to locals that live through the call; a descriptor that is none gives an error.
    let asked =
        unsafe { libc::getsockopt(fd, libc::SOL_SOCKET, libc::SO_ERROR, (&raw mut error).cast(), &raw mut len) };
    if asked != 0 || error != 0 {
        return false;
    }
    let mut poll = libc::pollfd { fd, events: libc::POLLRDHUP, revents: 0 };
    // SAFETY: one entry, which lives through the call.
    let ready = unsafe { libc::poll(&raw mut poll, 1, 0) };
    ready == 0
}

/// Closes a descriptor.
#[pyfunction]
#[pyo3(signature = (fd, /))]
#[allow(unsafe_code)]
fn close(fd: RawFd) {
    // SAFETY: what the application owns is its own to close, as with `os.close`.
    unsafe { libc::close(fd) };
}
