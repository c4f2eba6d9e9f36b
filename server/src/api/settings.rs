//! The module's constants: the version, and the server's options.

use pyo3::prelude::*;
use pyo3::types::{PyBytes, PyDict, PyList};

use crate::ids::GenerationNumber;
use crate::ipc::Setup;
use rwsgi_config::is_off;

/// The uWSGI whose module this one is like.
const LIKE: (u32, u32, u32) = (2, 0, 31);
/// Ours, as uWSGI would have it of a build of somebody's own.
const CUSTOM: &str = concat!("rwsgi-", env!("CARGO_PKG_VERSION"));

pub(super) fn add(module: &Bound<'_, PyModule>, setup: &Setup) -> PyResult<()> {
    let py = module.py();
    let bytes = |text: &str| PyBytes::new(py, text.as_bytes());
    let config = &setup.config;
    let (base, major, minor) = LIKE;
    module.add("version", bytes(&format!("{base}.{major}.{minor}-{CUSTOM}")))?;
    module.add("version_info", (base, major, minor, 0, bytes(CUSTOM)))?;
    let hostname = nix::unistd::gethostname().unwrap_or_default();
    module.add("hostname", bytes(&hostname.to_string_lossy()))?;
    if let Some(pidfile) = &config.pidfile {
        module.add("pidfile", bytes(&pidfile.to_string_lossy()))?;
    }
    module.add("numproc", config.processes)?;
    module.add("has_threads", 1)?;
    module.add("cores", config.threads)?;
    module.add("loop", py.None())?;
    module.add("unbit", py.None())?;
    module.add("opt", options(py, &config.given)?)?;
    if let Some(mode) = &config.mode {
        module.add("mode", bytes(mode))?;
    }
    let magic = PyDict::new(py);
    for (character, value) in &config.magic {
        magic.set_item(bytes(&character.to_string()), bytes(value))?;
    }
    module.add("magic_table", magic)?;
    module.add("sockets", PyList::new(py, setup.listeners.iter().map(|listener| listener.fd.number()))?)?;
    module.add("buffer_size", config.buffer_size)?;
    module.add("started_on", setup.started_at.as_secs())?;
    module.add("applications", py.None())?;
    module.add("is_a_reload", setup.generation > Some(GenerationNumber::FIRST))?;
    Ok(())
}

/// What is always in force here. Monitoring agents look for these, and refuse to work or warn where they find none.
const ALWAYS: [&str; 4] = ["enable-threads", "master", "py-call-uwsgi-fork-hooks", "single-interpreter"];

/// As uWSGI gives them in Python 3: a name's last value, or True when it was given none.
fn options<'py>(py: Python<'py>, given: &[(String, String)]) -> PyResult<Bound<'py, PyDict>> {
    let options = PyDict::new(py);
    for name in ALWAYS {
        options.set_item(name, true)?;
    }
    let given = given.iter().filter(|(name, value)| !(ALWAYS.contains(&&**name) && is_off(value)));
    for (name, value) in given {
        match value.as_str() {
            "" => options.set_item(name, true)?,
            value => options.set_item(name, PyBytes::new(py, value.as_bytes()))?,
        }
    }
    Ok(options)
}
