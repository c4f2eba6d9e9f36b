//! What the application is told of the trace that its request belongs to.

use pyo3::intern;
use pyo3::prelude::*;
use pyo3::types::{PyDict, PyString};
use rwsgi_protocol::traceparent::TEXT_LEN;

/// The `traceparent` of a traced request, in the place of what its client has sent: what the application records is below
/// the server's span then.
#[derive(Clone, Copy, Debug)]
pub(crate) struct TraceHeader {
    /// Its value.
    pub(crate) text: [u8; TEXT_LEN],
    /// The trace begins here: what the client's `tracestate` says is of another.
    pub(crate) begins_trace: bool,
}

impl TraceHeader {
    /// Puts it into the environ.
    ///
    /// # Errors
    /// When Python has no memory left.
    #[cold]
    pub(super) fn put(&self, py: Python<'_>, environ: &Bound<'_, PyDict>) -> PyResult<()> {
        let text = self.text.map(char::from).iter().collect::<String>();
        environ.set_item(intern!(py, "HTTP_TRACEPARENT"), PyString::new(py, &text))?;
        let state = intern!(py, "HTTP_TRACESTATE");
        if self.begins_trace && environ.contains(state)? {
            environ.del_item(state)?;
        }
        Ok(())
    }
}
