//! Whether a walk finds in this Python what Python itself says: asked once, before processes are forked, for what a
//! table says of another build would be wrong without a sign.

#![allow(unsafe_code)]

use std::ops::Range;
use std::sync::OnceLock;

use pyo3::ffi;
use pyo3::prelude::*;
use pyo3::types::{IntoPyDict, PyCFunction};

use super::answer::parse_frames;
use super::area::Readiness;
use super::handler::walk_here;
use super::layouts;
use super::own_memory::OwnMemory;
use super::walk::{End, Python as Walked};
use rwsgi_stats::control::Frame;

/// What was found out.
struct Checked {
    readiness: Readiness,
    python: Option<Walked>,
    /// Where `_PyRuntime` is.
    runtime: Range<usize>,
}

static CHECKED: OnceLock<Checked> = OnceLock::new();

unsafe extern "C" {
    static _PyRuntime: u8;
}

/// Calls of each kind: a method, over several lines, in a generator that a comprehension runs, and of a name that is not
/// ASCII. That is given by hand: in the source it would have Python load its table of all characters.
const STACK: &std::ffi::CStr = c"
class Check:
    def outer(self, call):
        return list(
            self.inner(call, [number for number in range(3)])
            for _ in range(1)
        )[0]

    def inner(self, call, numbers):
        try:
            return (lambda:
                call(
                    numbers,
                ))()
        finally:
            del numbers

code = Check.inner.__code__
name = {'co_qualname' if hasattr(code, 'co_qualname') else 'co_name': 'prüfung'}
Check.inner.__code__ = code.replace(**name)
found = Check().outer(call)
";

/// Finds out whether this Python's stacks can be read. Afterwards all processes that are forked know it.
pub(crate) fn run(py: Python<'_>) {
    CHECKED.get_or_init(|| {
        OwnMemory::settle();
        let version = py.version_info();
        let Some(layout) = layouts::of(version.major, version.minor, cfg!(Py_GIL_DISABLED)) else {
            return Checked { readiness: Readiness::UnknownPython, python: None, runtime: 0..0 };
        };
        let python = Walked {
            layout,
            code_type: (&raw const ffi::PyCode_Type).addr(),
            text_type: (&raw const ffi::PyUnicode_Type).addr(),
        };
        let start = (&raw const _PyRuntime).addr();
        let agrees = agrees(py, python).unwrap_or(false);
        Checked {
            readiness: if agrees { Readiness::Frames } else { Readiness::OtherBuild },
            python: agrees.then_some(python),
            runtime: start..start + layout.runtime,
        }
    });
}

/// What this process says of itself.
pub(super) fn readiness() -> Readiness {
    CHECKED.get().map_or(Readiness::UnknownPython, |checked| checked.readiness)
}

/// How frames are walked, if they can be.
pub(super) fn python() -> Option<&'static Walked> {
    CHECKED.get()?.python.as_ref()
}

/// Where the global lock lies.
pub(super) fn runtime() -> Range<usize> {
    CHECKED.get().map_or(0..0, |checked| checked.runtime.clone())
}

/// Whether a walk and Python say the same of a stack of all kinds of frames.
fn agrees(py: Python<'_>, python: Walked) -> PyResult<bool> {
    let call = PyCFunction::new_closure(py, None, None, move |args, _| -> PyResult<bool> {
        let py = args.py();
        let (bytes, end) = walk_here(&python);
        let expected = frames_of(py)?;
        Ok(end == End::Whole && parse_frames(&bytes).is_some_and(|found| found == expected))
    })?;
    let globals = [("call", call)].into_py_dict(py)?;
    py.run(STACK, Some(&globals), None)?;
    globals.as_any().get_item("found")?.extract()
}

/// The present thread's frames, as Python says.
fn frames_of(py: Python<'_>) -> PyResult<Vec<Frame>> {
    let mut frame = py.import("sys")?.call_method0("_getframe")?;
    let mut frames = Vec::new();
    while !frame.is_none() {
        let code = frame.getattr("f_code")?;
        let name = code.getattr("co_qualname").or_else(|_| code.getattr("co_name"))?;
        frames.push(Frame {
            function: name.extract()?,
            file: code.getattr("co_filename")?.extract()?,
            line: frame.getattr("f_lineno")?.extract::<Option<u32>>()?.unwrap_or(0),
        });
        frame = frame.getattr("f_back")?;
    }
    Ok(frames)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn this_python_s_stacks_can_be_read() {
        Python::initialize();
        Python::attach(|py| {
            run(py);
            assert_eq!(readiness(), Readiness::Frames, "{}", Python::version_str());
        });
    }
}
