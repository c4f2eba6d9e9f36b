//! Jobs for the spooler: `spool()` and what belongs to it, and calling the function that a job is for. As uWSGI has it.

use std::ffi::OsStr;
use std::path::{Path, PathBuf};
use std::time::Duration;

use pyo3::exceptions::PyValueError;
use pyo3::prelude::*;
use pyo3::types::{PyBytes, PyDict, PyInt, PyTuple};

use super::here::server;
use super::hooks;
use crate::ipc::Setup;
use crate::spooler::job::{Job, NotAJob, head};
use crate::spooler::jobs_in;
use crate::spooler::write::{Order, write};
use crate::stats::cell::{SpoolerCell, Verdict};
use crate::wsgi::traceback;

/// The job is done.
const SPOOL_OK: i64 = -2;
/// It is to be tried again.
const SPOOL_RETRY: i64 = -1;
/// It is not for this process.
const SPOOL_IGNORE: i64 = 0;

pub(super) fn add(module: &Bound<'_, PyModule>, setup: &Setup) -> PyResult<()> {
    module.add("SPOOL_OK", SPOOL_OK)?;
    module.add("SPOOL_RETRY", SPOOL_RETRY)?;
    module.add("SPOOL_IGNORE", SPOOL_IGNORE)?;
    let directories: Vec<_> = setup.config.spooler.all_directories().collect();
    // As in uWSGI: applications ask whether the name is there to learn whether there is a spooler.
    if directories.is_empty() {
        return Ok(());
    }
    let py = module.py();
    module.add("spoolers", PyTuple::new(py, directories.into_iter().map(|path| path_bytes(py, path)))?)?;
    let spool = wrap_pyfunction!(spool, module)?;
    module.add("send_to_spooler", &spool)?;
    module.add_function(spool)?;
    module.add_function(wrap_pyfunction!(spooler_jobs, module)?)?;
    module.add_function(wrap_pyfunction!(spooler_get_task, module)?)?;
    module.add_function(wrap_pyfunction!(spooler_pid, module)?)?;
    module.add_function(wrap_pyfunction!(spooler_pids, module)?)?;
    module.add_function(wrap_pyfunction!(set_spooler_frequency, module)?)?;
    Ok(())
}

fn path_bytes<'py>(py: Python<'py>, path: &Path) -> Bound<'py, PyBytes> {
    use std::os::unix::ffi::OsStrExt;
    PyBytes::new(py, path.as_os_str().as_bytes())
}

/// What the names that mean something say of a job.
#[derive(Debug, Default)]
struct Wishes {
    directory: Option<PathBuf>,
    priority: Option<u64>,
    at: Option<Duration>,
}

impl Wishes {
    /// # Errors
    /// What is wrong with a value.
    fn note(&mut self, name: &[u8], value: &[u8]) -> Result<(), String> {
        use std::os::unix::ffi::OsStrExt;
        let text = String::from_utf8_lossy(value);
        match name {
            b"spooler" if !value.is_empty() => self.directory = Some(OsStr::from_bytes(value).into()),
            b"priority" if !value.is_empty() => {
                let number = text.parse().map_err(|_| format!("priority must be a number, not '{text}'"))?;
                self.priority = Some(number);
            }
            b"at" => {
                let seconds = text.parse::<f64>().map_err(|_| format!("at must be unix seconds, not '{text}'"))?;
                // What is past may run now.
                self.at = (seconds > 0.0)
                    .then(|| Duration::try_from_secs_f64(seconds))
                    .transpose()
                    .map_err(|_| format!("at must be unix seconds, not '{text}'"))?;
            }
            _ => {}
        }
        Ok(())
    }
}

/// Queues a job for the spooler: a dictionary of bytes. It is safe on the disk when this returns its file's name.
///
/// `b"body"` may be as large as `spooler-job-limit` allows, all else together 64 kB. `b"priority"` (a number: lower ones
/// first), `b"at"` (unix seconds: not before) and `b"spooler"` (the directory) say how it is to be run.
#[pyfunction]
#[pyo3(signature = (*args, **kwargs))]
fn spool<'py>(
    py: Python<'py>,
    args: &Bound<'py, PyTuple>,
    kwargs: Option<&Bound<'py, PyDict>>,
) -> PyResult<Bound<'py, PyBytes>> {
    let no_dictionary = || PyValueError::new_err("The argument of spooler callable must be a dictionary");
    let vars = match (args.get_item(0), kwargs) {
        (Ok(first), _) => first.cast_into::<PyDict>().map_err(|_| no_dictionary())?,
        (Err(_), Some(kwargs)) => kwargs.clone(),
        (Err(_), None) => PyDict::new(py),
    };
    let mut named = Vec::new();
    let mut body = None;
    // Of a copy: what makes bytes of a value is the application's, and may change it, as another thread may.
    for (name, value) in vars.copy()? {
        let name = name.cast_into::<PyBytes>().map_err(|_| only_bytes())?;
        if name.as_bytes() == b"body"
            && let Ok(value) = value.cast::<PyBytes>()
        {
            body = Some(value.clone());
            continue;
        }
        named.push((name, as_bytes(&value)?));
    }
    let borrowed: Vec<_> = named.iter().map(|(name, value)| (name.as_bytes(), value.as_bytes())).collect();
    let body = body.as_ref().map(PyBytesMethods::as_bytes).unwrap_or_default();
    let file =
        queue(py, &borrowed, body).map_err(|why| PyValueError::new_err(format!("unable to spool job: {why}")))?;
    Ok(path_bytes(py, &file))
}

fn directories() -> impl Iterator<Item = &'static Path> {
    server().into_iter().flat_map(|server| server.config.spooler.all_directories())
}

fn only_bytes() -> PyErr {
    PyValueError::new_err("spooler callable dictionary must contains only bytes")
}

/// What uWSGI takes for bytes: them, and what can be made into them, but no numbers and no text.
fn as_bytes<'py>(value: &Bound<'py, PyAny>) -> PyResult<Bound<'py, PyBytes>> {
    if let Ok(bytes) = value.cast::<PyBytes>() {
        return Ok(bytes.clone());
    }
    if value.is_instance_of::<PyInt>() {
        return Err(only_bytes());
    }
    let made = value.py().get_type::<PyBytes>().call1((value,)).map_err(|_| only_bytes())?;
    Ok(made.cast_into::<PyBytes>()?)
}

fn queue(py: Python<'_>, vars: &[(&[u8], &[u8])], body: &[u8]) -> Result<PathBuf, String> {
    let mut directories = directories();
    let mut wishes = Wishes::default();
    for (name, value) in vars {
        wishes.note(name, value)?;
    }
    let directory = match &wishes.directory {
        None => directories.next(),
        Some(wanted) => directories.find(|directory| *directory == wanted),
    };
    let directory = directory.ok_or_else(|| match &wishes.directory {
        Some(wanted) => format!("no spooler works in '{}'", wanted.display()),
        None => "there is no spooler".to_owned(),
    })?;
    let head = head(vars).map_err(|_| {
        let size: usize = vars.iter().map(|(name, value)| 4 + name.len() + value.len()).sum();
        format!("its values are {size} bytes and may be 65535: put what is large into 'body'")
    })?;
    let size = (head.len() + body.len()) as u64;
    if let Some(limit) = server().map(|server| &server.config.spooler).filter(|spooler| !spooler.takes(size)) {
        return Err(NotAJob::TooLarge { size, limit: limit.job_limit }.to_string());
    }
    let order = Order { head: &head, body, priority: wishes.priority, at: wishes.at };
    // Syncing takes a while.
    py.detach(|| write(directory, &order))
        .map_err(|error| format!("'{}' cannot be written to: {error}", directory.display()))
}

/// The files of the jobs that wait or run.
#[pyfunction]
fn spooler_jobs(py: Python<'_>) -> PyResult<Vec<Bound<'_, PyBytes>>> {
    let mut jobs = Vec::new();
    for directory in directories() {
        jobs.extend(jobs_in(directory)?.iter().map(|job| path_bytes(py, job)));
    }
    Ok(jobs)
}

/// What a job's file says, as its function would get it; None when there is no such job.
#[pyfunction]
#[pyo3(signature = (path, /))]
fn spooler_get_task<'py>(py: Python<'py>, path: &str) -> PyResult<Option<Bound<'py, PyDict>>> {
    let is_allowed = |size| server().is_none_or(|server| server.config.spooler.takes(size));
    let size = std::fs::metadata(path).map(|metadata| metadata.len());
    let read = size.ok().filter(|size| is_allowed(*size)).and_then(|_| std::fs::read(path).ok());
    let read = read.and_then(|bytes| Job::read(bytes).ok());
    read.map(|job| describe(py, path.as_bytes(), &job)).transpose()
}

/// The process id of the first spooler.
#[pyfunction]
fn spooler_pid() -> i32 {
    spooler_pids().first().copied().unwrap_or(0)
}

/// The process ids of all spoolers; 0 for one that has none.
#[pyfunction]
fn spooler_pids() -> Vec<i32> {
    let pid = |cell: &SpoolerCell| cell.pid().map_or(0, nix::unistd::Pid::as_raw);
    server().map(|server| server.scoreboard.spoolers().map(pid).collect()).unwrap_or_default()
}

/// Sets how often directories are looked through for jobs that went unnoticed, and jobs that failed are tried again.
#[pyfunction]
#[pyo3(signature = (seconds, /))]
fn set_spooler_frequency(seconds: u32) -> bool {
    for cell in server().iter().flat_map(|server| server.scoreboard.spoolers()) {
        cell.set_frequency(seconds);
    }
    true
}

/// Calls the function that the application has set as `uwsgi.spooler`. Prints the traceback when it raises.
pub(crate) fn run(py: Python<'_>, task: &[u8], job: &Job) -> Verdict {
    let called = hooks::find(py, "spooler").and_then(|function| match function {
        Some(function) => function.call1((describe(py, task, job)?,)).map(Some),
        None => Ok(None),
    });
    match called {
        Ok(None) => Verdict::Ignored,
        // Anything but a number is an error of the function's, and those are tried again.
        Ok(Some(returned)) => match returned.cast::<PyInt>().ok().and_then(|number| number.extract().ok()) {
            Some(SPOOL_OK) => Verdict::Done,
            Some(SPOOL_IGNORE) => Verdict::Ignored,
            _ => Verdict::Retry,
        },
        Err(raised) => {
            traceback::log(py, &raised);
            Verdict::Failed
        }
    }
}

/// A job as Python sees it: names and values are bytes, those of the server's own are under names that are text.
fn describe<'py>(py: Python<'py>, task: &[u8], job: &Job) -> PyResult<Bound<'py, PyDict>> {
    let described = PyDict::new(py);
    described.set_item("spooler_task_name", PyBytes::new(py, task))?;
    for (name, value) in job.vars() {
        described.set_item(PyBytes::new(py, name), PyBytes::new(py, value))?;
    }
    if !job.body().is_empty() {
        described.set_item("body", PyBytes::new(py, job.body()))?;
    }
    Ok(described)
}
