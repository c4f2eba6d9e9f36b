//! The `uwsgi` module, which is `rwsgi` too: what an application can ask of the server.
//!
//! It is made in the fork server before the application is loaded, so that every process that is forked has it, and the
//! callables that the application gave it. What is shared between processes lies in memory that the master made, or
//! goes through the master; a process has nothing here but its own copy of what was registered before its fork.
//!
//! [`names`] is the one table of what uWSGI's module has, and what becomes of each name here. Each of the other modules
//! holds the functions of one concern, and adds them to the module.

mod cache;
pub(crate) mod here;
mod hooks;
mod locks;
mod metrics;
pub(crate) mod mules;
mod names;
mod process;
#[cfg(test)]
mod reference;
mod request;
mod rpc;
mod settings;
pub(crate) mod signals;
pub(crate) mod spool;
mod text;
mod wakeup;
mod websocket;
pub(crate) mod workers;

use pyo3::exceptions::{PyAttributeError, PyNotImplementedError};
use pyo3::prelude::*;
use pyo3::sync::PyOnceLock;
use pyo3::types::{IntoPyDict, PyDict, PyList, PyType};

pub(crate) use self::hooks::{AfterFork, find as hook};
pub(crate) use self::metrics::metric;
pub(crate) use self::wakeup::Wakeup;

use self::names::Standing;
use crate::ipc::Setup;
use crate::wsgi::interpreter;

/// Counts a request in the access log of all processes together, and returns how many that makes.
#[must_use]
pub(crate) fn count_logged() -> u64 {
    here::server().map_or(0, |server| server.share.board.count_logged())
}

/// The module. Importing it again for each call of a hook costs more than what a short one does.
static MODULE: PyOnceLock<Py<PyModule>> = PyOnceLock::new();

/// Makes the module, under both of its names.
///
/// # Errors
/// When Python has no memory left.
pub(crate) fn install(py: Python<'_>, setup: &Setup) -> PyResult<()> {
    let module = make(py, setup)?;
    let _ = MODULE.set(py, module.clone().unbind());
    let modules = py.import("sys")?.getattr("modules")?;
    modules.set_item("uwsgi", &module)?;
    modules.set_item("rwsgi", &module)?;
    // A finder rather than a module: it costs nothing where nobody imports it.
    let code = std::ffi::CString::new(FINDER)?;
    let finder = PyModule::from_code(py, &code, c"rwsgi_finder.py", c"rwsgi_finder")?;
    finder.call_method1("install", (SOURCES.into_py_dict(py)?,))?;
    Ok(())
}

/// Lets `import` find modules whose source is in this program.
const FINDER: &str = include_str!("finder.py");
/// The decorators, and what tells the server of frameworks' routes. The package has them as files too, for imports outside
/// of the server.
const SOURCES: [(&str, &str); 7] = [
    ("uwsgidecorators", include_str!("python/uwsgidecorators.py")),
    ("rwsgi._route", include_str!("python/_route.py")),
    ("rwsgi.bottle", include_str!("python/bottle.py")),
    ("rwsgi.django", include_str!("python/django.py")),
    ("rwsgi.falcon", include_str!("python/falcon.py")),
    ("rwsgi.flask", include_str!("python/flask.py")),
    ("rwsgi.pyramid", include_str!("python/pyramid.py")),
];

fn make<'py>(py: Python<'py>, setup: &Setup) -> PyResult<Bound<'py, PyModule>> {
    let module = PyModule::new(py, "uwsgi")?;
    // A package: the finder has the modules below it.
    module.add("__path__", PyList::empty(py))?;
    module.add("__doc__", "What the application can ask of the server that it runs in.")?;
    settings::add(&module, setup)?;
    process::add(&module)?;
    signals::add(&module)?;
    spool::add(&module, setup)?;
    locks::add(&module)?;
    metrics::add(&module)?;
    cache::add(&module)?;
    mules::add(&module)?;
    rpc::add(&module)?;
    request::add(&module)?;
    workers::add(&module)?;
    websocket::add(&module)?;
    module.add_function(wrap_pyfunction!(__getattr__, &module)?)?;
    Ok(module)
}

/// Called by Python for a name that the module does not have.
#[pyfunction]
fn __getattr__(py: Python<'_>, name: &str) -> PyResult<Py<PyAny>> {
    match names::find(name) {
        Some(Standing::Not(advice)) => {
            Err(not_available(py, &format!("uwsgi.{name} is not available in rwsgi: {advice}"))?)
        }
        _ => Err(PyAttributeError::new_err(format!("module 'uwsgi' has no attribute '{name}'"))),
    }
}

/// An error that is an `AttributeError` too: libraries ask `hasattr(uwsgi, …)` before they use a name.
fn not_available(py: Python<'_>, message: &str) -> PyResult<PyErr> {
    static KIND: PyOnceLock<Py<PyAny>> = PyOnceLock::new();
    let kind = KIND.get_or_try_init(py, || {
        let bases = (py.get_type::<PyNotImplementedError>(), py.get_type::<PyAttributeError>());
        let kind = py.get_type::<PyType>().call1(("NotAvailable", bases, PyDict::new(py)))?;
        Ok::<_, PyErr>(kind.unbind())
    })?;
    Ok(PyErr::from_value(kind.bind(py).call1((message,))?))
}

/// After the fork, and after the application was loaded: in workers, mules and spoolers.
pub(crate) fn after_fork(py: Python<'_>) -> AfterFork {
    // The hook of a mule may be all that the mule ever does.
    let is_worker = here::worker().is_some();
    if !is_worker {
        signals::listen_if_needed(py);
    }
    let next = hooks::run(py, "post_fork_hook");
    if is_worker {
        signals::listen_if_needed(py);
    }
    next
}

/// Before a worker forks a fork server: the application closes what two processes must not share.
pub(crate) fn before_refork(py: Python<'_>) {
    // The worker serves on, whatever the function wants.
    let _ = hooks::run(py, "before_refork");
}

/// The socket that this process's signals come through; -1 when it listens to none.
#[must_use]
pub(crate) fn signal_descriptor() -> std::os::fd::RawFd {
    signals::descriptor()
}

/// Before the process ends by itself: what the application wants to be done then, and what Python does.
pub(crate) fn finish(py: Python<'_>) {
    signals::finish(py);
    // It ends anyway, whatever the hook wants.
    let _ = hooks::run(py, "atexit");
    interpreter::finish(py);
}

#[cfg(test)]
mod tests;
