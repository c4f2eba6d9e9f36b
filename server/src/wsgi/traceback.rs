//! Exceptions of the application in the log: as part of a line of the server, and as a traceback.

use std::fmt::Write as _;
use std::io::Write as _;

use pyo3::prelude::*;
use pyo3::types::PyString;

use crate::log_text::Escaping;

/// An exception as `ValueError: text`.
#[must_use]
pub fn one_line(py: Python<'_>, error: &PyErr) -> String {
    let kind = error.get_type(py).name().map(|name| name.to_string()).unwrap_or_default();
    let text = error.value(py).str().map(|text| text.to_string_lossy().into_owned()).unwrap_or_default();
    format!("{kind}: {text}").trim_end_matches([' ', ':']).to_owned()
}

/// Writes the traceback to `sys.stderr`, as Python does, with each line indented by two blanks and its control characters
/// escaped: a text of several lines does not look like a line of the server. Does not end the process, as printing a
/// `SystemExit` would.
pub fn log(py: Python<'_>, error: &PyErr) {
    // Python shows even an exception whose `__str__` raises. This fails only when memory is short.
    let Ok(text) = format(py, error) else { return error.display(py) };
    let written = py.import("sys").and_then(|sys| {
        let stream = sys.getattr("stderr")?;
        stream.call_method1("write", (&text,))?;
        stream.call_method0("flush")
    });
    if written.is_err() {
        // The application has replaced `sys.stderr` by something that does not take text.
        let _ = std::io::stderr().write_all(text.as_bytes());
    }
}

fn format(py: Python<'_>, error: &PyErr) -> PyResult<String> {
    let raised = (error.get_type(py), error.value(py), error.traceback(py));
    let pieces = py.import("traceback")?.call_method1("format_exception", raised)?;
    let mut text = String::new();
    for piece in pieces.try_iter()? {
        let piece = piece?;
        let piece = piece.cast::<PyString>()?.to_string_lossy();
        for line in piece.trim_end_matches('\n').split('\n') {
            // Writing to a String cannot fail.
            let _ = if line.is_empty() { Ok(()) } else { write!(Escaping(&mut text), "  {line}") };
            text.push('\n');
        }
    }
    Ok(text)
}

#[cfg(test)]
mod tests {
    use super::*;
    use pyo3::exceptions::PyValueError;

    #[test]
    fn no_line_of_a_traceback_begins_as_one_of_the_log() {
        Python::initialize();
        Python::attach(|py| {
            let raised = PyValueError::new_err("a\n2026-01-01 forged\x1b[2J");
            let text = format(py, &raised).unwrap();
            assert_eq!(text, "  ValueError: a\n  2026-01-01 forged\\x1b[2J\n");
            assert_eq!(one_line(py, &raised), "ValueError: a\n2026-01-01 forged\x1b[2J");
        });
    }
}
