//! `gc-stats`: counts and times Python's garbage collections, through `gc.callbacks`.

use std::sync::Arc;
use std::sync::atomic::AtomicU64;
use std::sync::atomic::Ordering::Relaxed;

use pyo3::prelude::*;
use pyo3::types::PyDict;

use crate::clock::MonotonicNanos;
use crate::ids::SlotId;
use crate::stats::scoreboard::Scoreboard;

/// What Python calls at the beginning and the end of each collection: there is one at a time.
#[pyclass(frozen)]
struct Watch {
    scoreboard: Arc<Scoreboard>,
    slot: SlotId,
    /// When the one under way began, monotonic ns; 0 for none.
    began: AtomicU64,
}

#[pymethods]
impl Watch {
    #[pyo3(name = "__call__")]
    fn call(&self, phase: &str, info: &Bound<'_, PyDict>) -> PyResult<()> {
        let now = MonotonicNanos::now();
        if phase == "start" {
            self.began.store(now.as_nanos(), Relaxed);
            return Ok(());
        }
        let began = self.began.swap(0, Relaxed);
        if phase == "stop" && began != 0 {
            let number = |name| PyResult::Ok(info.get_item(name)?.and_then(|count| count.extract().ok()).unwrap_or(0));
            let (generation, collected) = (number("generation")? as usize, number("collected")?);
            let took = now.nanos_since(MonotonicNanos::from_nanos(began));
            self.scoreboard.worker(self.slot).count_collection(generation, took, collected);
        }
        Ok(())
    }
}

/// From now on this process counts them.
///
/// # Errors
/// When Python refuses.
pub(super) fn watch(py: Python<'_>, scoreboard: &Arc<Scoreboard>, slot: SlotId) -> PyResult<()> {
    let callbacks = py.import("gc")?.getattr("callbacks")?;
    // A process of a reforked generation has that of the worker that it was forked from.
    for other in callbacks.try_iter()?.collect::<PyResult<Vec<_>>>()? {
        if other.is_instance_of::<Watch>() {
            callbacks.call_method1("remove", (other,))?;
        }
    }
    let watch = Watch { scoreboard: Arc::clone(scoreboard), slot, began: AtomicU64::new(0) };
    callbacks.call_method1("append", (Py::new(py, watch)?,))?;
    Ok(())
}
