//! Native strings: `str` objects whose characters are bytes (PEP 3333, "Unicode Issues").

#![allow(unsafe_code)]

use pyo3::ffi;
use pyo3::prelude::*;
use pyo3::types::PyString;

/// The bytes of a string, each a latin-1 character; `None` when a character is none. Nothing is copied.
#[must_use]
pub(super) fn latin1<'a>(text: &'a Bound<'_, PyString>) -> Option<&'a [u8]> {
    let object = text.as_ptr();
    // SAFETY: `object` is a str that `text` keeps alive. Strings are immutable, so that the bytes stay as they are;
    // kind 1 says that there is one byte to a character and that none is beyond latin-1. `PyUnicode_READY` is needed
    // before Python 3.12 for strings of the legacy API, and does nothing for others.
    unsafe {
        if ffi::PyUnicode_READY(object) != 0 {
            ffi::PyErr_Clear();
            return None;
        }
        if ffi::PyUnicode_KIND(object) != ffi::PyUnicode_1BYTE_KIND {
            return None;
        }
        let len = usize::try_from(ffi::PyUnicode_GET_LENGTH(object)).ok()?;
        Some(std::slice::from_raw_parts(ffi::PyUnicode_DATA(object).cast(), len))
    }
}

/// A string of these bytes, each a latin-1 character.
///
/// # Errors
/// When Python has no memory left.
pub(super) fn from_latin1<'py>(py: Python<'py>, bytes: &[u8]) -> PyResult<Bound<'py, PyString>> {
    // SAFETY: the pointer and length are of one slice, which Python copies; a null result has set an exception.
    unsafe {
        let text = ffi::PyUnicode_DecodeLatin1(bytes.as_ptr().cast(), bytes.len() as ffi::Py_ssize_t, std::ptr::null());
        Ok(Bound::from_owned_ptr_or_err(py, text)?.cast_into_unchecked())
    }
}
