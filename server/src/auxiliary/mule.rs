//! A mule: a process beside the workers that does what it is sent, or runs a program of the application's own.

use std::sync::atomic::AtomicBool;
use std::sync::atomic::Ordering::Relaxed;

use anyhow::{Context, bail};
use nix::errno::Errno;
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use pyo3::exceptions::{PyRuntimeError, PySystemExit};
use pyo3::prelude::*;
use pyo3::types::{IntoPyDict, PyBytes, PyCFunction, PyTuple};
use tracing::{error, info};

use super::work::Work;
use crate::api::{self, Wakeup, mules};
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
    let Some(wakeup) = Wakeup::new(py)? else {
        return Err(PyRuntimeError::new_err("a mule's main thread handles no signals"));
    };
    while !is_leaving() && !work.end.has_come() {
        wakeup.arm(py)?;
        py.check_signals()?;
        let received = py.detach(|| {
            let mut fds: Vec<_> = exits.iter().map(|exit| PollFd::new(*exit, PollFlags::POLLIN)).collect();
            fds.extend(work.end.poll_fds());
            fds.push(PollFd::new(wakeup.reader(), PollFlags::POLLIN));
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
