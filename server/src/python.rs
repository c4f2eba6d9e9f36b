//! The Python extension: how the package `rwsgi` enters [`crate::run`].

use std::ffi::OsString;

use pyo3::prelude::*;

use crate::master::launcher::Launcher;

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
    // The master has no use for Python any more, and its other roles take the GIL themselves when they need it.
    py.detach(|| crate::run(arguments, Launcher::new(program, prefix)))
}
