//! Finding and importing the application.

use std::path::Path;

use pyo3::prelude::*;
use pyo3::types::PyDict;
use thiserror::Error;

use super::interpreter;
use super::loaders;
use super::static_files::StaticFiles;
use super::traceback::{self, one_line};
use rwsgi_config::{AppSource, Config};

/// Why there is no application. Printing it once is enough: a traceback was printed before, when there is one.
#[derive(Debug, Error)]
pub enum LoadError {
    /// The file cannot be read.
    #[error("no application: wsgi-file: cannot read '{path}': {error}")]
    File {
        /// As configured.
        path: String,
        /// Why.
        error: std::io::Error,
    },
    /// Importing raised.
    #[error("no application: {source_name} cannot be imported: {error}")]
    Import {
        /// The module or file.
        source_name: String,
        /// The exception, in one line.
        error: String,
    },
    /// What loads it is not installed.
    #[error("no application: {option} needs the package {package}: pip install {package}")]
    NoPackage {
        /// The option that needs it.
        option: &'static str,
        /// Its name in the package index.
        package: &'static str,
    },
    /// The module has no such name.
    #[error("no application: {source_name} has no '{callable}': name it with --callable")]
    Missing {
        /// The module or file.
        source_name: String,
        /// The name that was looked for.
        callable: String,
    },
    /// The name is not a callable.
    #[error("no application: '{callable}' of {source_name} is a {kind}, which cannot be called")]
    NotCallable {
        /// The module or file.
        source_name: String,
        /// The name that was looked for.
        callable: String,
        /// Its type.
        kind: String,
    },
}

/// Imports the application, and those that are mounted beside it, and returns one callable; before them, what `import`
/// names. Prints the traceback when one raises.
///
/// # Errors
/// When there is no application.
pub fn load(py: Python<'_>, config: &Config) -> Result<Py<PyAny>, LoadError> {
    for module in &config.import {
        interpreter::import(py, module);
    }
    loaders::alias(py, &config.python.later_aliases).map_err(|error| failed(py, "post-pymodule-alias", &error))?;
    let application = if !config.mounts.is_empty() {
        load_mounts(py, config)?
    } else if config.app.is_none() {
        loaders::no_application(py).map_err(|error| failed(py, "no application", &error))?
    } else {
        load_one(py, &config.app, &config.callable, config)?
    };
    if config.static_map.is_empty() && config.check_static.is_empty() && !config.static_files.docroot {
        return Ok(application);
    }
    let wrapped = StaticFiles::new(py, application, config).and_then(|wrapped| Py::new(py, wrapped));
    wrapped.map(Py::into_any).map_err(|error| failed(py, "static-map", &error))
}

fn load_mounts(py: Python<'_>, config: &Config) -> Result<Py<PyAny>, LoadError> {
    let default = match &config.app {
        app if app.is_none() => None,
        app => Some(load_one(py, app, &config.callable, config)?),
    };
    let mounted = config.mounts.iter().map(|mount| {
        let callable = mount.callable.as_deref().unwrap_or(&config.callable);
        Ok((mount.prefix.as_str(), load_one(py, &mount.app, callable, config)?))
    });
    let mounted = mounted.collect::<Result<Vec<_>, LoadError>>()?;
    // As with uWSGI, the first application is asked for whatever is mounted nowhere.
    let first = mounted.first().filter(|_| !config.no_default_app).map(|(_, first)| first.clone_ref(py));
    let default = default.or(first);
    let dispatcher = own_module(py, MOUNTS, c"rwsgi_mounts").and_then(|module| {
        module.getattr("dispatcher")?.call1((default, mounted, config.manage_script_name, config.ignore_script_name))
    });
    dispatcher.map(Bound::unbind).map_err(|error| failed(py, "mount", &error))
}

fn failed(py: Python<'_>, option: &str, error: &PyErr) -> LoadError {
    LoadError::Import { source_name: option.into(), error: one_line(py, error) }
}

/// Gives requests to mounted applications. Costs a call for each request, and only where something is mounted.
const MOUNTS: &str = include_str!("mounts.py");

fn own_module<'py>(py: Python<'py>, source: &str, name: &std::ffi::CStr) -> PyResult<Bound<'py, PyModule>> {
    let source = std::ffi::CString::new(source)?;
    PyModule::from_code(py, &source, name, name)
}

fn load_one(py: Python<'_>, app: &AppSource, callable_name: &str, config: &Config) -> Result<Py<PyAny>, LoadError> {
    let (source_name, module) = match app {
        AppSource::File(path) => (format!("'{}'", path.display()), load_file(py, path)?),
        AppSource::Module(name) => (format!("module '{name}'"), py.import(name.as_str())),
        AppSource::Eval(code) => ("the code of eval".into(), loaders::eval(py, code)),
        AppSource::Paste(uri) => {
            return made(py, "paste", "PasteDeploy", "paste.deploy", uri, loaders::paste(py, uri, config));
        }
        AppSource::Pecan(file) => return made(py, "pecan", "pecan", "pecan", file, loaders::pecan(py, file)),
    };
    let raised = |error: PyErr| {
        let one_line = one_line(py, &error);
        traceback::log(py, &error);
        LoadError::Import { source_name: source_name.clone(), error: one_line }
    };
    let module = module.map_err(raised)?;
    // uWSGI calls what is written with parentheses: `create_app()`.
    let (name, is_factory) = match callable_name.strip_suffix("()") {
        Some(name) => (name, true),
        None => (callable_name, false),
    };
    let missing = || LoadError::Missing { source_name: source_name.clone(), callable: name.into() };
    let mut callable = module.into_any();
    for part in name.split('.') {
        callable = callable.getattr(part).map_err(|_| missing())?;
    }
    if is_factory {
        callable = callable.call0().map_err(raised)?;
    }
    if !callable.is_callable() {
        let kind = callable.get_type().name().map(|name| name.to_string()).unwrap_or_default();
        return Err(LoadError::NotCallable { source_name, callable: name.into(), kind });
    }
    Ok(callable.unbind())
}

/// What a framework's loader has made of `source`. `module` is what `package` is imported by.
fn made(
    py: Python<'_>,
    option: &'static str,
    package: &'static str,
    module: &str,
    source: &str,
    application: PyResult<Bound<'_, PyAny>>,
) -> Result<Py<PyAny>, LoadError> {
    let error = match application {
        Ok(application) => return Ok(application.unbind()),
        Err(error) => error,
    };
    let missing = error.value(py).getattr("name").and_then(|name| name.extract::<String>()).unwrap_or_default();
    // `paste` alone is missing where no package of that namespace is installed.
    let is_missing = !missing.is_empty() && (module == missing || module.starts_with(&format!("{missing}.")));
    if error.is_instance_of::<pyo3::exceptions::PyModuleNotFoundError>(py) && is_missing {
        return Err(LoadError::NoPackage { option, package });
    }
    let one_line = one_line(py, &error);
    traceback::log(py, &error);
    Err(LoadError::Import { source_name: format!("{option} '{source}'"), error: one_line })
}

/// Runs a file as a module, under the name that uWSGI gives it, so that what the application pickled stays readable.
fn load_file<'py>(py: Python<'py>, path: &Path) -> Result<PyResult<Bound<'py, PyModule>>, LoadError> {
    let display = path.display().to_string();
    let source = std::fs::read(path).map_err(|error| LoadError::File { path: display.clone(), error })?;
    let stem = display.strip_suffix(".py").unwrap_or(&display);
    let name = format!("uwsgi_file_{}", stem.replace(['.', '/'], "_"));
    let run = || {
        let absolute = std::path::absolute(path)?;
        let module = PyModule::new(py, &name)?;
        module.setattr("__file__", absolute.as_os_str())?;
        let modules = py.import("sys")?.getattr("modules")?.cast_into::<PyDict>()?;
        modules.set_item(&name, &module)?;
        // Compiling the bytes, not text, lets Python read the file's own encoding line.
        let builtins = py.import("builtins")?;
        let code = builtins.call_method1("compile", (source.as_slice(), absolute.as_os_str(), "exec"))?;
        builtins.call_method1("exec", (code, module.dict()))?;
        Ok(module)
    };
    Ok(run())
}
