//! What the server's threads lack of what Python's own have, and what gevent's replacements need where there are several.

use std::thread::Builder;

use pyo3::prelude::*;
use rustix::process::{Resource, getrlimit};
use tracing::warn;

use super::traceback;

/// The least stack of a thread that runs Python: what processes have by default.
const LEAST_STACK: usize = 8 << 20;

/// Makes a thread that will run Python. Its stack is as large as the process's own (`ulimit -s`), or [`LEAST_STACK`]. Rust's
/// default is a quarter of that: functions of Python's that are written in C, such as `sorted` with a `key` that sorts, would
/// come to its end before Python raises `RecursionError`.
pub(crate) fn builder(name: String) -> Builder {
    let limit = getrlimit(Resource::Stack).current.and_then(|limit| usize::try_from(limit).ok());
    Builder::new().name(name).stack_size(limit.unwrap_or(0).max(LEAST_STACK))
}

/// Begins a thread that `threading` has not started. What watches every thread (coverage, debuggers, profilers) watches this
/// one too: the application has set it while it was loaded, or after the fork.
pub(crate) fn begin(py: Python<'_>) {
    let hooked = || -> PyResult<()> {
        let sys = py.import("sys")?;
        // An application that never imported it has set nothing there.
        let Ok(threading) = sys.getattr("modules")?.get_item("threading") else { return Ok(()) };
        for (hook, set) in [("_trace_hook", "settrace"), ("_profile_hook", "setprofile")] {
            let hook = threading.getattr(hook)?;
            if !hook.is_none() {
                sys.call_method1(set, (hook,))?;
            }
        }
        Ok(())
    };
    if let Err(raised) = hooked() {
        warn!("a thread runs without what threading.settrace() or threading.setprofile() has set:");
        traceback::log(py, &raised);
    }
}

/// What the threads that Python has started here, beside the first, are called.
///
/// # Errors
/// When Python raises.
pub(crate) fn names(py: Python<'_>) -> PyResult<Vec<String>> {
    // An application that never imported it has started none.
    let Ok(threading) = py.import("sys")?.getattr("modules")?.get_item("threading") else { return Ok(Vec::new()) };
    let main = threading.call_method0("main_thread")?;
    let mut names = Vec::new();
    for thread in threading.call_method0("enumerate")?.try_iter()? {
        let thread = thread?;
        if !thread.is(&main) {
            names.push(thread.getattr("name")?.str()?.to_string_lossy().into_owned());
        }
    }
    Ok(names)
}

/// Whether the application has replaced the threads of the standard library by gevent's greenlets.
///
/// # Errors
/// When gevent has no word for it.
pub(crate) fn are_greenlets(py: Python<'_>) -> PyResult<bool> {
    let Ok(monkey) = py.import("sys")?.getattr("modules")?.get_item("gevent.monkey") else { return Ok(false) };
    monkey.call_method1("is_module_patched", ("threading",))?.is_truthy()
}

/// Gives the worker's first thread the hub that gevent's replacements wait in, before there are other threads. The first hub
/// imports what others find imported: of two that import it at the same time, each would wait for the other.
pub(crate) fn prepare_hub(py: Python<'_>) {
    let prepared = || -> PyResult<()> {
        if are_greenlets(py)? {
            let gevent = py.import("gevent")?;
            // One that is older than the fork shares its descriptors with the other workers'.
            gevent.call_method0("reinit")?;
            gevent.call_method0("get_hub")?;
        }
        Ok(())
    };
    if let Err(raised) = prepared() {
        warn!("gevent cannot be prepared for the worker's threads:");
        traceback::log(py, &raised);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_thread_begins_with_what_is_set_for_every_thread() {
        crate::wsgi::interpreter::start(None).unwrap();
        std::thread::spawn(|| {
            Python::attach(|py| {
                let threading = py.import("threading").unwrap();
                let sys = py.import("sys").unwrap();
                let watch = py.eval(c"lambda *event: None", None, None).unwrap();
                threading.call_method1("setprofile", (&watch,)).unwrap();
                begin(py);
                assert!(sys.call_method0("getprofile").unwrap().is(&watch));
                threading.call_method1("setprofile", (py.None(),)).unwrap();
                sys.call_method1("setprofile", (py.None(),)).unwrap();
            });
        })
        .join()
        .unwrap();
    }
}
