//! The interpreter: started (when this program embeds it), pointed at the application, settled before forking.

use std::path::Path;

use anyhow::Context;
use pyo3::prelude::*;

use super::{gaps, traceback};
use crate::local_time::ZONE;
use rwsgi_config::Config;

/// Starts Python, unless this code was loaded by a running one. `home` is a virtual environment to run in.
///
/// # Errors
/// When Python cannot start, or `home` holds no virtual environment.
pub fn start(home: Option<&Path>) -> anyhow::Result<()> {
    embed::start(home)
}

/// Sets `sys.path`, `sys.argv` and the standard streams up for the application.
///
/// # Errors
/// When Python raises; none of these calls does in a sound installation.
pub fn prepare(py: Python<'_>, config: &Config) -> anyhow::Result<()> {
    let sys = py.import("sys")?;
    // By this name applications tell that they run in a server.
    sys.setattr(
        "argv",
        std::iter::once("uwsgi").chain(config.python.argv.iter().map(String::as_str)).collect::<Vec<_>>(),
    )?;
    if let Some(executable) = &config.python.executable {
        sys.setattr("executable", executable.as_os_str())?;
    }
    let environ = py.import("os")?.getattr("environ")?;
    if config.python.optimize > 0 {
        // It was set for this interpreter, not for what the application starts.
        environ.call_method1("pop", (OPTIMIZE, py.None()))?;
    }
    for name in &config.unenv {
        environ.call_method1("pop", (name, py.None()))?;
    }
    for (name, value) in &config.env {
        environ.set_item(name, value)?;
    }
    if config.env.iter().map(|(name, _)| name).chain(&config.unenv).any(|name| name == ZONE) {
        // It was read when the interpreter started.
        py.import("time")?.call_method0("tzset")?;
    }
    // What the application prints belongs into the log now, not when a buffer of 8 kB is full.
    for name in ["stdout", "stderr"] {
        let stream = sys.getattr(name)?;
        if !stream.is_none() {
            use pyo3::types::IntoPyDict;
            let how = [("line_buffering", true)].into_py_dict(py)?;
            if config.logs.is_routed() {
                // `print` writes a line in pieces. Loggers take lines, and the pieces of two processes would make one.
                how.set_item("write_through", false)?;
            }
            stream.call_method("reconfigure", (), Some(&how))?;
        }
    }
    let directory = std::env::current_dir().context("cannot read the working directory")?;
    let path = sys.getattr("path")?;
    for entry in std::iter::once(&directory).chain(&config.pythonpath) {
        let entry = directory.join(entry);
        path.call_method1("insert", (0, entry.as_os_str()))?;
    }
    super::loaders::alias(py, &config.python.aliases).context("pymodule-alias")?;
    Ok(())
}

/// The variable by which an interpreter that is started learns how to optimize.
pub(crate) const OPTIMIZE: &str = "PYTHONOPTIMIZE";

/// Imports a module beside the application, or runs a file. A failure is logged, and the worker serves without it.
pub fn import(py: Python<'_>, name: &str) {
    let imported = if name.ends_with(".py") {
        py.import("runpy").and_then(|runpy| runpy.call_method1("run_path", (name,)).map(drop))
    } else {
        py.import(name).map(drop)
    };
    if let Err(raised) = imported {
        tracing::error!("import: '{name}' cannot be imported:");
        traceback::log(py, &raised);
    }
}

/// What is left to do before the first fork: garbage goes, and what stays is moved out of the collector's sight, so
/// that its passes do not write to pages that the workers share. Neither do new objects, where there are several `workers`.
///
/// # Errors
/// When a finalizer that the application set raises.
pub fn settle(py: Python<'_>, workers: u32) -> PyResult<()> {
    let gc = py.import("gc")?;
    gc.call_method0("collect")?;
    gc.call_method0("freeze")?;
    // What is left in a buffer would be printed by every worker.
    flush(py)?;
    if workers > 1 {
        gaps::fill(py);
    }
    Ok(())
}

/// Version of the interpreter, as `3.11.2`; `3.14.2t` for a build without the global lock.
#[must_use]
pub fn version(py: Python<'_>) -> String {
    let version = py.version_info();
    let build = if cfg!(Py_GIL_DISABLED) { "t" } else { "" };
    format!("{}.{}.{}{build}", version.major, version.minor, version.patch)
}

/// Python's global lock: whether threads execute Python one at a time.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct GlobalLock {
    /// They do.
    pub(crate) is_on: bool,
}

impl Default for GlobalLock {
    fn default() -> Self {
        Self { is_on: true }
    }
}

impl GlobalLock {
    /// Looks again: in a build that can do without it, `PYTHON_GIL=1` or an extension module may have turned it on.
    #[inline]
    pub(crate) fn look(&mut self, py: Python<'_>) {
        if cfg!(Py_GIL_DISABLED) {
            let asked = py.import("sys").and_then(|sys| sys.call_method0("_is_gil_enabled")?.extract());
            // A build that does not say has it on.
            self.is_on = asked.unwrap_or(true);
        }
    }
}

/// Says so where the global lock is on in a build that can do without it.
pub(crate) fn tell_of_lock(py: Python<'_>) {
    let mut lock = GlobalLock::default();
    lock.look(py);
    if cfg!(Py_GIL_DISABLED) && lock.is_on {
        tracing::info!(
            "Python's global lock is on, so that the threads of a worker take turns: PYTHON_GIL=1 is set, or an extension \
             module needs it, which Python has named in a RuntimeWarning"
        );
    }
}

pub(crate) fn flush(py: Python<'_>) -> PyResult<()> {
    for stream in ["stdout", "stderr"] {
        let stream = py.import("sys")?.getattr(stream)?;
        if !stream.is_none() {
            stream.call_method0("flush")?;
        }
    }
    Ok(())
}

/// What Python does when a program ends: waits for the application's threads that are no daemons, and for the work that
/// its executors hold; runs what was registered with `atexit`; flushes what was printed. Objects are not torn down, as
/// the process is about to end.
pub fn finish(py: Python<'_>) {
    let run = || -> PyResult<()> {
        // An application that never imported it has no threads to wait for.
        let modules = py.import("sys")?.getattr("modules")?;
        if let Ok(threading) = modules.get_item("threading") {
            tell_of_threads(&threading)?;
            threading.call_method0("_shutdown")?;
        }
        py.import("atexit")?.call_method0("_run_exitfuncs")?;
        flush(py)
    };
    if let Err(error) = run() {
        traceback::log(py, &error);
    }
}

/// A worker that seems to hang on its way out says what it waits for.
fn tell_of_threads(threading: &Bound<'_, PyAny>) -> PyResult<()> {
    let main = threading.call_method0("main_thread")?;
    let mut names = Vec::new();
    for thread in threading.call_method0("enumerate")?.try_iter()? {
        let thread = thread?;
        if !thread.getattr("daemon")?.is_truthy()? && !thread.is(&main) {
            names.push(thread.getattr("name")?.str()?.to_string_lossy().into_owned());
        }
    }
    if !names.is_empty() {
        tracing::info!("waiting for threads of the application that are no daemons: {}", names.join(", "));
    }
    Ok(())
}

/// Starting an interpreter of our own.
#[allow(unsafe_code)]
mod embed {
    use std::ffi::{CStr, CString};
    use std::os::unix::ffi::OsStrExt;
    use std::path::Path;
    use std::sync::{Mutex, PoisonError};

    use anyhow::{Context, bail};
    use pyo3::ffi;

    /// Two threads that start it at once would both find it not started.
    static STARTING: Mutex<()> = Mutex::new(());

    pub(super) fn start(home: Option<&Path>) -> anyhow::Result<()> {
        let _alone = STARTING.lock().unwrap_or_else(PoisonError::into_inner);
        // SAFETY: may be called at any time.
        if unsafe { ffi::Py_IsInitialized() } != 0 {
            return Ok(());
        }
        // The interpreter finds its library, and a virtual environment its site-packages, by the program's name.
        let program = match home {
            Some(home) => home.join("bin/python"),
            None => env!("RWSGI_PYTHON").into(),
        };
        if home.is_some() && !program.exists() {
            bail!("home: '{}' does not exist: is this a virtual environment?", program.display());
        }
        let name = CString::new(program.as_os_str().as_bytes()).context("home: contains a NUL byte")?;
        // SAFETY: Python is not initialized, and no other thread starts it. The configuration is initialized before it
        // is used, cleared once, and not used after; `name` outlives the call that copies it.
        unsafe {
            let mut config = std::mem::MaybeUninit::<ffi::PyConfig>::uninit();
            ffi::PyConfig_InitPythonConfig(config.as_mut_ptr());
            let config = config.assume_init_mut();
            config.parse_argv = 0;
            // The worker decides what signals mean.
            config.install_signal_handlers = 0;
            let program_name = &raw mut config.program_name;
            let mut status = ffi::PyConfig_SetBytesString(config, program_name, name.as_ptr());
            if ffi::PyStatus_Exception(status) == 0 {
                status = ffi::Py_InitializeFromConfig(config);
            }
            ffi::PyConfig_Clear(config);
            if ffi::PyStatus_Exception(status) != 0 {
                let reason = if status.err_msg.is_null() { c"no reason given" } else { CStr::from_ptr(status.err_msg) };
                bail!("Python cannot start: {}", reason.to_string_lossy());
            }
            // Initialization leaves the GIL with this thread; `Python::attach` takes it when it is wanted.
            ffi::PyEval_SaveThread();
        }
        Ok(())
    }
}
