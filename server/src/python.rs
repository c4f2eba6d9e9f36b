//! The Python extension: how the package `rwsgi` enters [`crate::run`], in a Python or before it.

#![allow(unsafe_code)]

use std::ffi::OsString;
use std::panic::catch_unwind;

use nix::sys::signal::{SigHandler, Signal, signal};
use pyo3::ffi;
use pyo3::prelude::*;

use crate::master::launcher::{FORKSERVER_ROLE, Launcher};
use crate::unused_python;
use crate::without_python::{self, Entry};

/// The extension module inside the package. It needs no global lock: docs/free-threading.md says what stands in its place.
#[pymodule(gil_used = false)]
mod _rwsgi {
    #[pymodule_export]
    use super::main;
}

/// Runs the server with these arguments (the program's name first); returns its exit status. `program` and `prefix` are
/// the command that enters this function again.
#[pyfunction]
fn main(py: Python<'_>, arguments: Vec<OsString>, program: OsString, prefix: Vec<OsString>) -> i32 {
    without_python::forget();
    // The master has no use for Python any more, and its other roles take the GIL themselves when they need it.
    py.detach(|| crate::run(arguments, Launcher::new(program, prefix)))
}

/// Called when the library is loaded, which is before `main` of the program where it is preloaded.
#[used]
#[unsafe(link_section = ".init_array")]
static ENTER: extern "C" fn() = enter;

/// Runs the server here, in a process that was told so, and ends it.
extern "C" fn enter() {
    // SAFETY: may be called at any time. A Python that imports the extension is there already.
    if unsafe { ffi::Py_IsInitialized() } != 0 {
        return;
    }
    let Some(entry) = Entry::take() else { return };
    let [broken_pipe, too_large, interrupt] = [Signal::SIGPIPE, Signal::SIGXFSZ, Signal::SIGINT];
    // As Python does at its start, and as it leaves Ctrl-C to us.
    for (number, action) in
        [(broken_pipe, SigHandler::SigIgn), (too_large, SigHandler::SigIgn), (interrupt, SigHandler::SigDfl)]
    {
        // SAFETY: neither is a handler of ours.
        let _ = unsafe { signal(number, action) };
    }
    // As the system names a process that it starts by the command's name.
    let _ = nix::sys::prctl::set_name(c"rwsgi");
    let mut launcher = Launcher::new(entry.program.clone(), vec![entry.launch().into()]);
    launcher.library = Some(entry.library);
    if !entry.arguments.iter().any(|argument| argument == FORKSERVER_ROLE) {
        // SAFETY: all but the fork server run no Python, and what is entered here never returns to the program, which is one.
        // Nobody has started a thread yet.
        unsafe { unused_python::forget() };
    }
    // A panic has been told of already, and there is nobody to pass it on to.
    std::process::exit(catch_unwind(|| crate::run(entry.arguments, launcher)).unwrap_or(101));
}
