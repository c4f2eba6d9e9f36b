//! Rules for requests and responses, as the threads of a worker have them.

use std::sync::Arc;

use pyo3::prelude::*;
use tracing::warn;

use crate::api;
use crate::ids::WorkerId;
use crate::wsgi::routing::Routing;
use crate::wsgi::rules::SharedRules;
use rwsgi_config::Config;
use rwsgi_routing::Effect;

/// Compiles what is configured; `None` for nothing.
///
/// # Errors
/// When a rule cannot be compiled, which the configuration's check has done before.
pub(super) fn compile(config: &Config) -> anyhow::Result<Option<Arc<SharedRules>>> {
    if config.routing.is_empty() {
        return Ok(None);
    }
    let shared = SharedRules::compile(config).map_err(|problem| anyhow::anyhow!("rules: {problem}"))?;
    Ok(Some(Arc::new(shared)))
}

/// The rules of one thread.
///
/// # Errors
/// When Python has no memory left.
pub(super) fn of_thread(
    py: Python<'_>,
    worker: WorkerId,
    rules: &Option<Arc<SharedRules>>,
    config: &Config,
) -> PyResult<Option<Routing>> {
    rules.as_ref().map(|rules| Routing::new(py, worker.get(), Arc::clone(rules), config, act)).transpose()
}

fn act(py: Python<'_>, effect: &Effect) {
    let done = match effect {
        Effect::Signal(number) => api::signals::raise(py, *number),
        Effect::Harakiri(seconds) => api::workers::set_user_harakiri(py, i32::try_from(*seconds).unwrap_or(i32::MAX)),
        _ => Ok(()),
    };
    if let Err(problem) = done {
        warn!("a rule's action failed: {problem}");
    }
}
