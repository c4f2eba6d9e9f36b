//! Applications that a framework's own loader makes (`paste`, `pecan`), that the configuration holds (`eval`), or that
//! are not there; and other names for modules.

use std::path::Path;

use pyo3::prelude::*;
use pyo3::types::{IntoPyDict, PyDict};

use super::traceback;
use rwsgi_config::{Alias, Config};

/// What PasteDeploy makes of `uri`, as `config:/etc/app.ini#name`. Sets up logging before, if it is asked to.
///
/// # Errors
/// What PasteDeploy raises.
pub(super) fn paste<'py>(py: Python<'py>, uri: &str, config: &Config) -> PyResult<Bound<'py, PyAny>> {
    if config.python.paste_logger
        && let Err(error) = set_up_logging(py, uri)
    {
        // As with uWSGI the application serves all the same.
        tracing::error!("paste-logger: '{uri}' does not set up logging:");
        traceback::log(py, &error);
    }
    let here = std::env::current_dir()?;
    let relative_to = [("relative_to", here.as_os_str())].into_py_dict(py)?;
    py.import("paste.deploy")?.call_method("loadapp", (uri,), Some(&relative_to))
}

fn set_up_logging(py: Python<'_>, uri: &str) -> PyResult<()> {
    let Some(file) = uri.strip_prefix("config:") else { return Ok(()) };
    let file = std::path::absolute(file.split('#').next().unwrap_or_default())?;
    let defaults = PyDict::new(py);
    defaults.set_item("here", file.parent().map(Path::as_os_str))?;
    defaults.set_item("__file__", file.as_os_str())?;
    py.import("logging.config")?.call_method1("fileConfig", (file.as_os_str(), defaults))?;
    Ok(())
}

/// What Pecan makes of its configuration file.
///
/// # Errors
/// What Pecan raises.
pub(super) fn pecan<'py>(py: Python<'py>, file: &str) -> PyResult<Bound<'py, PyAny>> {
    py.import("pecan.deploy")?.call_method1("deploy", (file,))
}

/// Runs code as a module, of the name that uWSGI gives it.
///
/// # Errors
/// What the code raises.
pub(super) fn eval<'py>(py: Python<'py>, code: &str) -> PyResult<Bound<'py, PyModule>> {
    let name = "uwsgi_eval_config";
    let module = PyModule::new(py, name)?;
    py.import("sys")?.getattr("modules")?.set_item(name, &module)?;
    let builtins = py.import("builtins")?;
    let code = builtins.call_method1("compile", (code, name, "exec"))?;
    builtins.call_method1("exec", (code, module.dict()))?;
    Ok(module)
}

/// Answers what no static file answers, where no application is to be served.
///
/// # Errors
/// None in a sound installation.
pub(super) fn no_application(py: Python<'_>) -> PyResult<Py<PyAny>> {
    let module = PyModule::from_code(py, NO_APPLICATION, c"rwsgi_no_application", c"rwsgi_no_application")?;
    Ok(module.getattr("application")?.unbind())
}

const NO_APPLICATION: &std::ffi::CStr = c"
def application(environ, start_response):
    print('no application to answer', environ['REQUEST_METHOD'], repr(environ['PATH_INFO']), file=environ['wsgi.errors'])
    start_response('500 Internal Server Error', [('Content-Type', 'text/plain')])
    return [b'Internal Server Error']
";

/// Gives modules other names.
///
/// # Errors
/// What the module raises.
pub(super) fn alias(py: Python<'_>, aliases: &[Alias]) -> PyResult<()> {
    let modules = py.import("sys")?.getattr("modules")?;
    for Alias { name, module } in aliases {
        if module.contains('/') {
            let util = py.import("importlib.util")?;
            let spec = util.call_method1("spec_from_file_location", (name, module))?;
            let made = util.call_method1("module_from_spec", (&spec,))?;
            modules.set_item(name, &made)?;
            spec.getattr("loader")?.call_method1("exec_module", (made,))?;
        } else {
            modules.set_item(name, py.import(module.as_str())?)?;
        }
    }
    Ok(())
}
