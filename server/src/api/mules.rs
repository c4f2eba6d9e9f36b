//! Messages to mules and farms.

use std::os::fd::{AsFd, AsRawFd, BorrowedFd};
use std::time::{Duration, Instant};

use nix::errno::Errno;
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use nix::sys::socket::{MsgFlags, recv, send};
use pyo3::exceptions::{PyOSError, PyValueError};
use pyo3::prelude::*;
use pyo3::types::{PyBytes, PyInt};
use tracing::warn;

use super::here::{auxiliary, server};
use super::text::Text;
use super::wakeup::Wakeup;
use crate::ipc::AuxiliaryKind;
use crate::share::{ANY_MULE, MuleQueue};
use rwsgi_config::Farm;

pub(super) fn add(module: &Bound<'_, PyModule>) -> PyResult<()> {
    module.add_function(wrap_pyfunction!(mule_id, module)?)?;
    module.add_function(wrap_pyfunction!(mule_msg, module)?)?;
    module.add_function(wrap_pyfunction!(mule_get_msg, module)?)?;
    module.add_function(wrap_pyfunction!(farm_msg, module)?)?;
    module.add_function(wrap_pyfunction!(farm_get_msg, module)?)?;
    module.add_function(wrap_pyfunction!(in_farm, module)?)?;
    Ok(())
}

/// The largest message, bytes: more than the system lets anybody send.
pub(crate) const LARGEST: usize = 4 << 20;

fn mule() -> Option<u32> {
    auxiliary(AuxiliaryKind::Mule)
}

/// The mule's number, from 1; 0 in every other process.
#[pyfunction]
fn mule_id() -> u32 {
    mule().unwrap_or(0)
}

fn farms() -> &'static [Farm] {
    server().map_or(&[], |server| &server.config.between.farms)
}

/// The queue of one mule.
fn queue_of(mule: u32) -> Option<&'static MuleQueue> {
    let server = server()?;
    (1..=server.config.between.mules.len())
        .contains(&(mule as usize))
        .then(|| server.share.queues.get(mule as usize))?
}

/// The queue of a farm, by its place among the farms.
fn queue_of_farm(index: usize) -> Option<&'static MuleQueue> {
    let server = server()?;
    server.share.queues.get(1 + server.config.between.mules.len() + index)
}

fn farm_named(name: &Text) -> Option<&'static MuleQueue> {
    queue_of_farm(farms().iter().position(|farm| farm.name.as_bytes() == name.0)?)
}

/// The queues that this mule takes from: its own, that of all, those of its farms.
pub(crate) fn exits(with_farms: bool) -> Vec<BorrowedFd<'static>> {
    let (Some(mule), Some(server)) = (mule(), server()) else { return Vec::new() };
    let own = queue_of(mule).into_iter().chain(server.share.queues.get(ANY_MULE));
    let farms = farms().iter().enumerate().filter(|(_, farm)| with_farms && farm.mules.contains(&mule));
    own.chain(farms.filter_map(|(index, _)| queue_of_farm(index))).map(|queue| queue.exit.as_fd()).collect()
}

/// Whether the message found space.
fn put(py: Python<'_>, queue: &MuleQueue, message: &[u8]) -> bool {
    let sent = py.detach(|| send(queue.entry.as_raw_fd(), message, MsgFlags::MSG_NOSIGNAL));
    match sent {
        Ok(_) => true,
        Err(Errno::EAGAIN) => {
            warn!("a message to a mule is dropped: too many wait already");
            false
        }
        Err(Errno::EMSGSIZE) => {
            warn!("a message of {} bytes to a mule is dropped: the system takes none so large", message.len());
            false
        }
        Err(error) => {
            warn!("a message to a mule is dropped: {error}");
            false
        }
    }
}

/// Sends a message to the first mule that is free, to one by its number, or to a farm by its name. Whether it found
/// space.
#[pyfunction]
#[pyo3(signature = (message, mule=None, /))]
fn mule_msg(py: Python<'_>, message: Text, mule: Option<&Bound<'_, PyAny>>) -> PyResult<bool> {
    let Some(any) = server().and_then(|server| server.share.queues.get(ANY_MULE)) else {
        return Err(PyValueError::new_err("no mule configured: set mules"));
    };
    let queue = match mule {
        None => any,
        Some(number) if number.is_instance_of::<PyInt>() => match number.extract::<i64>()? {
            0 => any,
            number => u32::try_from(number)
                .ok()
                .and_then(queue_of)
                .ok_or_else(|| PyValueError::new_err("invalid mule number"))?,
        },
        Some(name) => {
            let name = name.extract::<Text>().map_err(|_| PyValueError::new_err("invalid mule"))?;
            farm_named(&name).ok_or_else(|| PyValueError::new_err("unknown farm"))?
        }
    };
    Ok(put(py, queue, &message.0))
}

/// Sends a message to a farm. Nothing happens when there is none of this name, as in uWSGI.
#[pyfunction]
#[pyo3(signature = (farm, message, /))]
fn farm_msg(py: Python<'_>, farm: Text, message: Text) {
    match farm_named(&farm) {
        Some(queue) => {
            put(py, queue, &message.0);
        }
        None => warn!("a message to farm '{}' is dropped: there is none", farm.shown()),
    }
}

/// True when this mule is in the farm, or in any; else None.
#[pyfunction]
#[pyo3(signature = (farm=None, /))]
fn in_farm(farm: Option<Text>) -> Option<bool> {
    let mule = mule()?;
    let is_meant = |known: &&Farm| farm.as_ref().is_none_or(|farm| farm.0 == known.name.as_bytes());
    farms().iter().filter(is_meant).any(|farm| farm.mules.contains(&mule)).then_some(true)
}

/// Waits for a message to this mule; with a timeout in seconds, for no longer: then it is empty.
#[pyfunction]
#[pyo3(signature = (signals=None, farms=None, buffer_size=65536, timeout=-1))]
fn mule_get_msg<'py>(
    py: Python<'py>,
    signals: Option<&Bound<'py, PyAny>>,
    farms: Option<&Bound<'py, PyAny>>,
    buffer_size: usize,
    timeout: i64,
) -> PyResult<Bound<'py, PyBytes>> {
    // Signals have a thread of their own.
    let _ = signals;
    if mule().is_none() {
        return Err(PyValueError::new_err("you can receive mule messages only in a mule !!!"));
    }
    let with_farms = farms.map_or(Ok(true), PyAnyMethods::is_truthy)?;
    take(py, &exits(with_farms), buffer_size, deadline(timeout))
}

/// When so many seconds are over; `None` for never, which a negative number stands for.
fn deadline(seconds: i64) -> Option<Instant> {
    Instant::now().checked_add(Duration::from_secs(u64::try_from(seconds).ok()?))
}

/// Waits for a message to the farms of this mule.
#[pyfunction]
fn farm_get_msg(py: Python<'_>) -> PyResult<Bound<'_, PyBytes>> {
    if mule().is_none() {
        return Err(PyValueError::new_err("you can receive farm messages only in a mule !!!"));
    }
    // Behind its own and that of all.
    let exits = exits(true).split_off(2);
    if exits.is_empty() {
        return Err(PyValueError::new_err("this mule is in no farm"));
    }
    take(py, &exits, 65_536, None)
}

/// Takes the next message from any of these queues.
fn take<'py>(
    py: Python<'py>,
    exits: &[BorrowedFd<'_>],
    buffer_size: usize,
    until: Option<Instant>,
) -> PyResult<Bound<'py, PyBytes>> {
    let mut buffer = vec![0; buffer_size.min(LARGEST)];
    let wakeup = Wakeup::new(py)?;
    loop {
        // One that has come by now would not end the wait.
        py.check_signals()?;
        match py.detach(|| wait_and_receive(exits, wakeup.as_ref(), &mut buffer, until)) {
            Ok(Some(len)) => return Ok(PyBytes::new(py, &buffer[..len])),
            Ok(None) if until.is_some_and(|until| until <= Instant::now()) => return Ok(PyBytes::new(py, b"")),
            Ok(None) | Err(Errno::EINTR) => {}
            Err(error) => return Err(PyOSError::new_err(format!("waiting for a message: {error}"))),
        }
    }
}

/// `None` when there is nothing yet: another mule was faster, or the time is over.
fn wait_and_receive(
    exits: &[BorrowedFd<'_>],
    wakeup: Option<&Wakeup>,
    buffer: &mut [u8],
    until: Option<Instant>,
) -> nix::Result<Option<usize>> {
    let ends = exits.iter().copied().chain(wakeup.map(Wakeup::reader));
    let mut fds: Vec<_> = ends.map(|end| PollFd::new(end, PollFlags::POLLIN)).collect();
    let left = until.map(|until| until.saturating_duration_since(Instant::now()));
    // Rounded up, so that the time is over when this says so.
    let left = left.map(|left| PollTimeout::try_from(left + Duration::from_millis(1)).unwrap_or(PollTimeout::MAX));
    poll(&mut fds, left.unwrap_or(PollTimeout::NONE))?;
    wakeup.inspect(|wakeup| wakeup.clear());
    receive(&fds[..exits.len()], buffer)
}

/// Receives from the first queue that has something, once it was waited for.
pub(crate) fn receive(fds: &[PollFd<'_>], buffer: &mut [u8]) -> nix::Result<Option<usize>> {
    for fd in fds.iter().filter(|fd| fd.any().unwrap_or(false)) {
        match recv(fd.as_fd().as_raw_fd(), buffer, MsgFlags::MSG_DONTWAIT) {
            Ok(len) => return Ok(Some(len)),
            Err(Errno::EAGAIN) => {}
            Err(error) => return Err(error),
        }
    }
    Ok(None)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_wait_may_be_as_long_as_anybody_likes() {
        assert_eq!(deadline(-1), None);
        assert_eq!(deadline(i64::MAX), None, "no clock goes that far");
        assert!(deadline(5).unwrap() > Instant::now());
    }
}
