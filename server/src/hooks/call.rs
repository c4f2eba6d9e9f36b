//! Hooks that call Python.

use anyhow::{Context, anyhow, ensure};
use pyo3::prelude::*;
use rwsgi_config::hooks::Target;

use crate::wsgi::traceback;

/// Calls a callable of a module. What it raises is logged with its traceback.
pub(super) fn call(py: Python<'_>, target: &Target) -> anyhow::Result<()> {
    let name = &target.name;
    let (module, function) =
        name.rsplit_once([':', '.']).with_context(|| format!("'{name}' names no module, as in module.function"))?;
    let called = || -> PyResult<Option<i64>> {
        let callable = py.import(module)?.getattr(function)?;
        let returned = match &target.argument {
            None => callable.call0(),
            Some(number) if target.is_number => callable.call1((number.trim().parse::<i64>().unwrap_or(0),)),
            Some(text) => callable.call1((text,)),
        }?;
        if target.returns { returned.extract() } else { Ok(None) }
    };
    let returned = called().map_err(|raised| {
        traceback::log(py, &raised);
        anyhow!("{}", traceback::one_line(py, &raised))
    })?;
    ensure!(returned.unwrap_or(0) == 0, "it returned {}", returned.unwrap_or(0));
    Ok(())
}

/// Raises an alarm as the application would.
pub(super) fn alarm(py: Python<'_>, name: &str, text: &str) -> anyhow::Result<()> {
    let raised = py.import("uwsgi").and_then(|uwsgi| uwsgi.call_method1("alarm", (name, text)));
    raised.map(drop).map_err(|error| anyhow!("{}", traceback::one_line(py, &error)))
}

/// Sets a variable for this process and what it starts.
pub(super) fn put_variable(py: Python<'_>, name: &str, value: &str) -> PyResult<()> {
    py.import("os")?.getattr("environ")?.set_item(name, value)
}
