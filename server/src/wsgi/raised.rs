//! What an application raised, as the log and the stats show it.

use std::collections::VecDeque;

use pyo3::prelude::*;
use pyo3::types::PyTraceback;

/// What an application raised.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Raised {
    /// Class name.
    pub kind: String,
    /// Its text.
    pub message: String,
    /// File, line and function of the innermost frames, at most [`FRAMES`], the innermost first.
    pub traceback: Vec<String>,
}

impl Raised {
    /// Of an exception.
    pub(super) fn of(py: Python<'_>, error: &PyErr) -> Self {
        let kind = error.get_type(py).name().map(|name| name.to_string()).unwrap_or_default();
        let message = error.value(py).str().map(|text| text.to_string_lossy().into_owned()).unwrap_or_default();
        let traceback = error.traceback(py).and_then(|traceback| innermost(&traceback).ok()).unwrap_or_default();
        Self { kind, message, traceback }
    }
}

/// Frames of a traceback that are kept: enough to see who called what failed, few enough for the scoreboard.
const FRAMES: usize = 5;

fn innermost(traceback: &Bound<'_, PyTraceback>) -> PyResult<Vec<String>> {
    let mut last = VecDeque::with_capacity(FRAMES + 1);
    let mut next = Some(traceback.clone().into_any());
    while let Some(entry) = next {
        next = entry.getattr("tb_next")?.extract()?;
        last.push_front(entry);
        last.truncate(FRAMES);
    }
    let line = |entry: &Bound<'_, PyAny>| {
        let code = entry.getattr("tb_frame")?.getattr("f_code")?;
        let (file, name) = (code.getattr("co_filename")?, code.getattr("co_name")?);
        Ok(format!("{file}:{} in {name}", entry.getattr("tb_lineno")?))
    };
    last.iter().map(line).collect()
}
