//! Signals: numbers from 0 to 255 that are raised by the application, by timers, by the calendar and by files, and
//! handled by a function of the application in the process that it was registered for.
//!
//! The master decides who handles a signal; a process that has handlers listens to it in a thread of
//! its own, so that a slow handler holds up no request.

use std::io;
use std::os::fd::{AsFd, AsRawFd, OwnedFd};
use std::sync::atomic::{AtomicI32, Ordering};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::thread::JoinHandle;

use nix::errno::Errno;
use nix::sys::socket::{MsgFlags, Shutdown, recv, send, shutdown};
use pyo3::exceptions::{PyOSError, PyValueError};
use pyo3::prelude::*;
use pyo3::sync::PyOnceLock;
use pyo3::types::{PyBytes, PyDict};
use tracing::{error, warn};

use super::here::{ServerContext, role, server};
use super::text::Text;
use crate::ipc::calls::{self, CallPacket, CallRequest};
use crate::ipc::schedule::{Cron, When};
use crate::ipc::target::Target;
use crate::ipc::{Role, channel};
use crate::wsgi::{threads, traceback};

pub(super) fn add(module: &Bound<'_, PyModule>) -> PyResult<()> {
    module.add_function(wrap_pyfunction!(register_signal, module)?)?;
    module.add_function(wrap_pyfunction!(signal_registered, module)?)?;
    module.add_function(wrap_pyfunction!(signal, module)?)?;
    module.add_function(wrap_pyfunction!(signal_wait, module)?)?;
    module.add_function(wrap_pyfunction!(signal_received, module)?)?;
    module.add_function(wrap_pyfunction!(add_timer, module)?)?;
    module.add_function(wrap_pyfunction!(add_rb_timer, module)?)?;
    module.add_function(wrap_pyfunction!(add_cron, module)?)?;
    module.add_function(wrap_pyfunction!(add_file_monitor, module)?)?;
    Ok(())
}

/// The handlers by their signals' numbers: what the application registered in this process, or before it was forked. A
/// dictionary of Python's, and not a table behind a mutex: whatever goes from it may run code of the application's,
/// which may let other threads run, or come here again.
static HANDLERS: PyOnceLock<Py<PyDict>> = PyOnceLock::new();

fn handlers(py: Python<'_>) -> &Bound<'_, PyDict> {
    HANDLERS.get_or_init(py, || PyDict::new(py).unbind()).bind(py)
}

/// Whether this process listens to signals. No thread may wait for it that has the interpreter's lock.
static SIGNAL_THREAD: Mutex<SignalThread> = Mutex::new(SignalThread::None);

enum SignalThread {
    /// Not so far.
    None,
    /// A thread listens to the socket.
    Runs { socket: Arc<OwnedFd>, thread: JoinHandle<()> },
    /// It does no more: the process is about to end.
    Over,
}

/// The same socket, for a child, where a lock may be held by a thread that is not there.
static DESCRIPTOR: AtomicI32 = AtomicI32::new(-1);
/// How many signals this process has handled, and the last 256 of them.
static HANDLED: Mutex<(u64, [u8; 256])> = Mutex::new((0, [0; 256]));
static HANDLED_CHANGED: Condvar = Condvar::new();

thread_local! {
    /// What this thread waited for last.
    static RECEIVED: std::cell::Cell<i32> = const { std::cell::Cell::new(0) };
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Sends the master a packet.
pub(super) fn send_to_master(py: Python<'_>, what: CallRequest) -> PyResult<()> {
    let Some(server) = server() else { return Err(PyOSError::new_err("there is no server around")) };
    let message = CallPacket { generation: server.generation, what };
    py.detach(|| calls::send(server.calls.as_fd(), &message, None))
        .map_err(|error| PyOSError::new_err(format!("the master cannot be reached: {error}")))
}

/// Has the processes of `target` handle a signal with a function, which is called with the signal's number.
#[pyfunction]
#[pyo3(signature = (signal, target, handler, /))]
fn register_signal(signal: u8, target: Text, handler: &Bound<'_, PyAny>) -> PyResult<()> {
    let py = handler.py();
    let text = target.shown();
    let Some(target) = Target::parse(&text) else {
        return Err(PyValueError::new_err(format!("unable to register signal: '{text}' is no target")));
    };
    let handlers = handlers(py);
    if role().is_none() && handlers.contains(signal)? {
        return Err(PyValueError::new_err(format!("unable to register signal: {signal} is registered already")));
    }
    handlers.set_item(signal, handler)?;
    send_to_master(py, CallRequest::Register { signal, target })?;
    // Before the fork there is nobody to listen; what is forked listens when there is something to listen for.
    if role().is_some() { listen(py) } else { Ok(()) }
}

/// True when the signal has a handler here, else None.
#[pyfunction]
#[pyo3(signature = (signal, /))]
fn signal_registered(py: Python<'_>, signal: u8) -> PyResult<Option<bool>> {
    Ok(handlers(py).contains(signal)?.then_some(true))
}

/// Raises a signal for a rule.
///
/// # Errors
/// When the master cannot be reached.
pub(crate) fn raise(py: Python<'_>, signal: u8) -> PyResult<()> {
    send_to_master(py, CallRequest::Raise(signal))
}

/// Raises a signal.
#[pyfunction]
#[pyo3(signature = (signal, remote=None, /))]
fn signal(py: Python<'_>, signal: u8, remote: Option<Text>) -> PyResult<()> {
    if remote.is_some() {
        let message = "signals to other servers are not available in rwsgi: send a request there";
        return Err(pyo3::exceptions::PyNotImplementedError::new_err(message));
    }
    send_to_master(py, CallRequest::Raise(signal))
}

/// Waits until this process has handled the signal, or any.
#[pyfunction]
#[pyo3(signature = (signal=None, /))]
fn signal_wait<'py>(py: Python<'py>, signal: Option<u8>) -> PyResult<Bound<'py, PyBytes>> {
    let seen = lock(&HANDLED).0;
    if role().is_some() {
        listen(py)?;
    }
    loop {
        let found = py.detach(|| {
            let handled = lock(&HANDLED);
            // Not forever: Python must see signals of the system's.
            let pause = std::time::Duration::from_millis(500);
            let handled = match HANDLED_CHANGED.wait_timeout_while(handled, pause, |handled| handled.0 == seen) {
                Ok((handled, _)) => handled,
                Err(poisoned) => poisoned.into_inner().0,
            };
            let (count, last) = &*handled;
            (seen..*count).map(|nth| last[(nth % 256) as usize]).find(|number| signal.is_none_or(|one| one == *number))
        });
        py.check_signals()?;
        if let Some(number) = found {
            RECEIVED.set(number.into());
            return Ok(PyBytes::new(py, b""));
        }
    }
}

/// The signal that this thread waited for last; 0 when it has not.
#[pyfunction]
fn signal_received() -> i32 {
    RECEIVED.get()
}

fn every(seconds: u32, times: u32, rb: bool) -> PyResult<When> {
    if seconds == 0 {
        return Err(PyValueError::new_err("unable to add timer: it needs at least one second"));
    }
    Ok(When::Every { seconds, times, rb })
}

/// Raises a signal every N seconds.
#[pyfunction]
#[pyo3(signature = (signal, seconds, /))]
fn add_timer(py: Python<'_>, signal: u8, seconds: u32) -> PyResult<()> {
    send_to_master(py, CallRequest::Schedule { signal, when: every(seconds, 0, false)? })
}

/// Raises a signal every N seconds, N times, or forever.
#[pyfunction]
#[pyo3(signature = (signal, seconds, iterations=0, /))]
fn add_rb_timer(py: Python<'_>, signal: u8, seconds: u32, iterations: u32) -> PyResult<()> {
    send_to_master(py, CallRequest::Schedule { signal, when: every(seconds, iterations, true)? })
}

/// Raises a signal at times of the calendar.
#[pyfunction]
#[pyo3(signature = (signal, minute, hour, day, month, week, /))]
fn add_cron(py: Python<'_>, signal: u8, minute: i32, hour: i32, day: i32, month: i32, week: i32) -> PyResult<bool> {
    send_to_master(py, CallRequest::Schedule { signal, when: When::Cron(Cron { minute, hour, day, month, week }) })?;
    Ok(true)
}

/// Raises a signal when a file, or a file in a directory, changes.
#[pyfunction]
#[pyo3(signature = (signal, path, /))]
fn add_file_monitor(py: Python<'_>, signal: u8, path: Text) -> PyResult<()> {
    let path = std::path::absolute(path.shown().as_ref())?.to_string_lossy().into_owned();
    send_to_master(py, CallRequest::Watch { signal, path })
}

/// The socket that signals come through; -1 before there is one.
pub(super) fn descriptor() -> std::os::fd::RawFd {
    DESCRIPTOR.load(Ordering::Relaxed)
}

/// After the fork: listens if there is something to listen for.
pub(super) fn listen_if_needed(py: Python<'_>) {
    if !handlers(py).is_empty()
        && let Err(error) = listen(py)
    {
        error!("signals will not be handled here: {error}");
    }
}

/// Listens to signals, from now on, in a thread.
fn listen(py: Python<'_>) -> PyResult<()> {
    py.detach(|| {
        let mut listener = lock(&SIGNAL_THREAD);
        if let (Some(role), Some(server), SignalThread::None) = (role(), server(), &*listener) {
            *listener = start(role, server)?;
        }
        Ok::<_, io::Error>(())
    })
    .map_err(PyOSError::new_err)
}

fn start(role: Role, server: &ServerContext) -> io::Result<SignalThread> {
    let (ours, theirs) = channel()?;
    let message = CallPacket { generation: server.generation, what: CallRequest::Listen(role) };
    calls::send(server.calls.as_fd(), &message, Some(theirs.as_fd()))?;
    let ours = Arc::new(ours);
    let socket = Arc::clone(&ours);
    DESCRIPTOR.store(ours.as_raw_fd(), Ordering::Relaxed);
    let name = match role {
        Role::Worker { worker, .. } => format!("rwsgi w{worker}sig"),
        Role::Auxiliary(_) => "rwsgi sig".to_owned(),
    };
    let thread = threads::builder(name).spawn(move || handle_all(&socket))?;
    Ok(SignalThread::Runs { socket: ours, thread })
}

fn handle_all(socket: &OwnedFd) {
    let mut number = [0];
    loop {
        match recv(socket.as_raw_fd(), &mut number, MsgFlags::empty()) {
            Err(Errno::EINTR) => continue,
            Ok(1) => {}
            // Leaving, or the master is gone.
            _ => return,
        }
        Python::attach(|py| handle(py, number[0]));
        {
            let mut handled = lock(&HANDLED);
            let at = (handled.0 % 256) as usize;
            handled.1[at] = number[0];
            handled.0 += 1;
        }
        HANDLED_CHANGED.notify_all();
        // A process that is gone needs no answer.
        let _ = send(socket.as_raw_fd(), &number, MsgFlags::MSG_NOSIGNAL);
    }
}

fn handle(py: Python<'_>, signal: u8) {
    // A lookup of a number in a dictionary cannot fail.
    let Some(handler) = handlers(py).get_item(signal).ok().flatten() else {
        warn!("signal {signal} has no handler in this process: register it before the fork, or in each process");
        return;
    };
    if let Err(raised) = handler.call1((signal,)) {
        error!("the handler of signal {signal} raised:");
        traceback::log(py, &raised);
    }
}

/// Before the process ends: the handler that runs comes to its end, and no further one begins.
pub(super) fn finish(py: Python<'_>) {
    py.detach(|| {
        // The handler may want to register another: it finds that it is too late for that, and nobody waits for it.
        let listener = std::mem::replace(&mut *lock(&SIGNAL_THREAD), SignalThread::Over);
        if let SignalThread::Runs { socket, thread } = listener {
            // The master has closed its end, if this fails.
            let _ = shutdown(socket.as_raw_fd(), Shutdown::Read);
            // A thread that panicked has said so.
            let _ = thread.join();
        }
    });
}
