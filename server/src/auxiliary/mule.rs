//! A mule: a process beside the workers that does what it is sent, or runs a program of the application's own.

use std::os::fd::{AsFd, AsRawFd, OwnedFd};
use std::sync::atomic::AtomicBool;
use std::sync::atomic::Ordering::Relaxed;

use anyhow::{Context, bail};
use nix::errno::Errno;
use nix::fcntl::OFlag;
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use nix::unistd::pipe2;
use pyo3::exceptions::PySystemExit;
use pyo3::prelude::*;
use pyo3::types::{IntoPyDict, PyBytes, PyCFunction, PyTuple};
use tracing::{error, info};

use super::work::Work;
use crate::api::{self, mules};
use crate::wsgi::{application, interpreter, traceback};

/// The mule handles a message, and leaves when it has.
static IS_BUSY: AtomicBool = AtomicBool::new(false);
/// The mule was told to leave.
static IS_LEAVING: AtomicBool = AtomicBool::new(false);
/// The mule's work is over, and its end must not be disturbed: who signals a group of processes signals twice.
static IS_ENDING: AtomicBool = AtomicBool::new(false);

/// Whether the mule was told to leave.
pub(super) fn is_leaving() -> bool {
    IS_LEAVING.load(Relaxed)
}

/// From now on SIGTERM has no effect: the mule's work is over.
pub(super) fn leave_in_peace() {
    IS_ENDING.store(true, Relaxed);
}

/// Before anything of the application's runs: SIGTERM ends it as `sys.exit()` does, so that a loop without end comes to
/// one, and what it has in `finally` is done. A message that is being handled is finished first.
///
/// # Errors
/// When Python refuses.
pub(super) fn prepare(py: Python<'_>, work: &Work) -> PyResult<()> {
    let leave = PyCFunction::new_closure(py, None, None, |_: &Bound<'_, PyTuple>, _| {
        IS_LEAVING.store(true, Relaxed);
        if IS_BUSY.load(Relaxed) || IS_ENDING.load(Relaxed) { Ok(()) } else { Err(PySystemExit::new_err(0)) }
    })?;
    let signal = py.import("signal")?;
    signal.call_method1("signal", (signal.getattr("SIGTERM")?, leave))?;
    // With lazy-apps nobody has loaded the functions that mules are for.
    if !work.is_loaded
        && let Err(failure) = application::load(py, &work.config)
    {
        error!("{}: {failure}", work.who);
    }
    Ok(())
}

/// Works until it is told to leave.
///
/// # Errors
/// When what it runs comes to an end, or what was inherited cannot be used.
pub(super) fn run(py: Python<'_>, work: &Work) -> anyhow::Result<()> {
    let mules = &work.config.between.mules;
    let program = mules.get(work.who.number as usize - 1).context("it is not configured any more")?;
    let outcome = match program {
        Some(program) => run_program(py, work, program),
        None => handle_messages(py, work),
    };
    leave_in_peace();
    match outcome {
        Err(raised) if raised.is_instance_of::<PySystemExit>(py) && is_leaving() => Ok(()),
        Err(raised) => {
            error!("{}: {}", work.who, traceback::one_line(py, &raised));
            traceback::log(py, &raised);
            bail!("{} has failed", work.who)
        }
        Ok(()) if program.is_none() || is_leaving() => Ok(()),
        Ok(()) => bail!("{}: '{}' has come to its end", work.who, program.as_deref().unwrap_or_default()),
    }
}

fn run_program(py: Python<'_>, work: &Work, program: &str) -> PyResult<()> {
    info!("{} runs '{program}'", work.who);
    if program.ends_with(".py") {
        let name = [("run_name", "__main__")];
        let name = name.into_py_dict(py)?;
        return py.import("runpy")?.call_method("run_path", (program,), Some(&name)).map(drop);
    }
    match program.split_once(':') {
        Some((module, function)) => py.import(module)?.getattr(function)?.call0().map(drop),
        None => py.import(program).map(drop),
    }
}

fn handle_messages(py: Python<'_>, work: &Work) -> PyResult<()> {
    let mut buffer = vec![0; mules::LARGEST];
    let exits = mules::exits(true);
    let wakeup = Wakeup::new(py)?;
    while !is_leaving() && !work.end.has_come() {
        wakeup.arm(py)?;
        py.check_signals()?;
        let received = py.detach(|| {
            let mut fds: Vec<_> = exits.iter().map(|exit| PollFd::new(*exit, PollFlags::POLLIN)).collect();
            fds.extend(work.end.poll_fds());
            fds.push(PollFd::new(wakeup.reader.as_fd(), PollFlags::POLLIN));
            poll(&mut fds, PollTimeout::NONE)?;
            wakeup.clear();
            mules::receive(&fds[..exits.len()], &mut buffer)
        });
        match received {
            Ok(Some(len)) => {
                IS_BUSY.store(true, Relaxed);
                handle(py, work, &buffer[..len]);
                IS_BUSY.store(false, Relaxed);
            }
            Ok(None) | Err(Errno::EINTR) => {}
            Err(error) => return Err(std::io::Error::from(error).into()),
        }
    }
    Ok(())
}

/// A pipe that Python writes to when a signal comes: one that comes between a look for signals and the wait for messages
/// ends the wait.
struct Wakeup {
    reader: OwnedFd,
    writer: OwnedFd,
    set: Py<PyAny>,
}

impl Wakeup {
    fn new(py: Python<'_>) -> PyResult<Self> {
        let flags = OFlag::O_CLOEXEC | OFlag::O_NONBLOCK;
        let (reader, writer) = pipe2(flags).map_err(std::io::Error::from)?;
        Ok(Self { reader, writer, set: py.import("signal")?.getattr("set_wakeup_fd")?.unbind() })
    }

    /// From now on it is written to. A hook of the application's may have taken it away (an event loop does).
    fn arm(&self, py: Python<'_>) -> PyResult<()> {
        let quietly = [("warn_on_full_buffer", false)].into_py_dict(py)?;
        self.set.call(py, (self.writer.as_raw_fd(),), Some(&quietly)).map(drop)
    }

    fn clear(&self) {
        // What is left wakes once more.
        let _ = nix::unistd::read(&self.reader, &mut [0; 64]);
    }
}

impl Drop for Wakeup {
    fn drop(&mut self) {
        Python::attach(|py| {
            // Python must not write to what its number stands for next. It cannot fail in the thread that has set it.
            let _ = self.set.call1(py, (-1,));
        });
    }
}

fn handle(py: Python<'_>, work: &Work, message: &[u8]) {
    let handled = api::hook(py, "mule_msg_hook").and_then(|hook| match hook {
        Some(hook) => hook.call1((PyBytes::new(py, message),)).map(drop),
        None => {
            info!("{} received a message of {} bytes; assign uwsgi.mule_msg_hook", work.who, message.len());
            Ok(())
        }
    });
    if let Err(raised) = handled {
        error!("{}: handling a message raised {}", work.who, traceback::one_line(py, &raised));
        traceback::log(py, &raised);
    }
    let _ = interpreter::flush(py);
}
