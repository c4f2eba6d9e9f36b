//! `catch-exceptions`: what the client is shown of an exception, in the form of uWSGI's exceptions catcher. It has all of
//! the request in it, so it is for development only.

use std::fmt::Write as _;

use pyo3::prelude::*;
use pyo3::types::{PyDict, PyString};

use super::traceback::one_line;

/// The text of the response. What cannot be found out is left out.
pub(super) fn page(py: Python<'_>, error: &PyErr, environ: &Bound<'_, PyDict>) -> String {
    let value = error.value(py);
    let text = |object: PyResult<Bound<'_, PyString>>| {
        object.map_or_else(|_| "-Not available-".to_owned(), |text| text.to_string_lossy().into_owned())
    };
    let var = |name: &str| environ.get_item(name).ok().flatten().map(|value| value.to_string()).unwrap_or_default();
    let class = text(error.get_type(py).fully_qualified_name());
    let message = text(value.str());
    let mut page = format!(
        "exceptions catcher for \"{} {}\"\n\nException: {class}: {message}\n\nException class: {class}\n\nException message: \
         {message}\n\nBacktrace:\n",
        var("REQUEST_METHOD"),
        var("REQUEST_URI"),
    );
    if let Err(problem) = add_frames(py, error, &mut page) {
        let _ = writeln!(page, "-Not available- ({})", one_line(py, &problem));
    }
    page.push('\n');
    // Of a copy: a thread of the application's may still change it.
    for (name, value) in environ.copy().iter().flatten() {
        if let (Ok(name), Ok(value)) = (name.cast::<PyString>(), value.cast::<PyString>()) {
            let _ = writeln!(page, "{} = {}", name.to_string_lossy(), value.to_string_lossy());
        }
    }
    page
}

fn add_frames(py: Python<'_>, error: &PyErr, page: &mut String) -> PyResult<()> {
    let frames = py.import("traceback")?.call_method1("extract_tb", (error.traceback(py),))?;
    for frame in frames.try_iter()? {
        let frame = frame?;
        let (file, line) = (frame.getattr("filename")?, frame.getattr("lineno")?);
        let (function, code) = (frame.getattr("name")?, frame.getattr("line")?);
        let _ = writeln!(page, "filename: \"{file}\" line: {line} function: \"{function}\" text/code: \"{code}\"");
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_page_has_the_exception_its_frames_and_the_request() {
        Python::initialize();
        Python::attach(|py| {
            let environ = PyDict::new(py);
            environ.set_item("REQUEST_METHOD", "GET").unwrap();
            environ.set_item("REQUEST_URI", "/x?y").unwrap();
            environ.set_item("wsgi.version", (1, 0)).unwrap();
            let error = py.run(c"def f(): raise ValueError('no')\nf()", None, None).unwrap_err();
            let page = page(py, &error, &environ);
            for part in [
                "exceptions catcher for \"GET /x?y\"",
                "Exception: ValueError: no",
                "Exception class: ValueError",
                "Exception message: no",
                "line: 1 function: \"f\"",
                "REQUEST_URI = /x?y\n",
            ] {
                assert!(page.contains(part), "{part}: {page}");
            }
            assert!(!page.contains("wsgi.version"));
        });
    }
}
