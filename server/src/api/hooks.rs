//! Functions that the application assigns to the module, as in `uwsgi.atexit = f`, and what they decide.

use pyo3::exceptions::PySystemExit;
use pyo3::prelude::*;
use tracing::error;

use super::MODULE;
use crate::wsgi::traceback;

/// What a process does when its hooks of the fork have run.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[must_use]
pub(crate) enum AfterFork {
    /// Its work.
    Work,
    /// It ends with this status, by the will of the application (`sys.exit()`). Nobody ordered it
    /// to, so a status of 0 does not mean that its end was wanted.
    Exit(i32),
}

/// The function of this name, if the application has assigned one.
///
/// # Errors
/// When Python has no memory left.
pub(crate) fn find<'py>(py: Python<'py>, name: &str) -> PyResult<Option<Bound<'py, PyAny>>> {
    let Some(module) = MODULE.get(py) else { return Ok(None) };
    let hook = module.bind(py).dict().get_item(name)?;
    Ok(hook.filter(PyAnyMethods::is_callable))
}

/// Calls the function of this name, if there is one. What it raises is logged, and the process goes on; but for
/// `SystemExit`, which asks for the end.
pub(super) fn run(py: Python<'_>, name: &str) -> AfterFork {
    let called = find(py, name).and_then(|hook| hook.map(|hook| hook.call0()).transpose());
    let Err(raised) = called else { return AfterFork::Work };
    if raised.is_instance_of::<PySystemExit>(py) {
        return AfterFork::Exit(exit_status(name, raised.value(py)));
    }
    error!("uwsgi.{name} raised:");
    traceback::log(py, &raised);
    AfterFork::Work
}

/// As Python itself has it: `sys.exit()` is 0, a number itself, and anything else 1, after it was shown.
fn exit_status(hook: &str, exit: &Bound<'_, PyAny>) -> i32 {
    let Ok(code) = exit.getattr("code") else { return 1 };
    if code.is_none() {
        return 0;
    }
    match code.extract::<i64>() {
        // The system takes the lowest byte alone.
        Ok(code) => (code & 0xff) as i32,
        Err(_) => {
            error!("uwsgi.{hook}: {code}");
            1
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_process_exits_with_the_status_that_python_would() {
        crate::wsgi::interpreter::start(None).unwrap();
        Python::attach(|py| {
            let exit = |code: &str| {
                let code = std::ffi::CString::new(code).unwrap();
                let code = py.eval(&code, None, None).unwrap();
                exit_status("atexit", py.get_type::<PySystemExit>().call1((code,)).unwrap().as_any())
            };
            assert_eq!(exit("None"), 0);
            assert_eq!(exit("7"), 7);
            assert_eq!(exit("True"), 1);
            assert_eq!(exit("-1"), 255);
            assert_eq!(exit("'no database'"), 1);
        });
    }
}
