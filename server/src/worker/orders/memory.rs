//! Reports of a worker's memory. What Python knows, Python code says (`memory.py`); what the kernel knows is in `smaps`.

use std::collections::HashMap;
use std::sync::{Mutex, PoisonError};

use pyo3::prelude::*;
use pyo3::sync::PyOnceLock;
use pyo3::types::{PyList, PyTuple};

use crate::ipc::calls::OrderOutcome;
use crate::ipc::worker_order::WorkerOrderKind;
use crate::procfs::{PageUse, own_pages};
use crate::wsgi::traceback;
use rwsgi_config::Config;
use rwsgi_stats::control::{MemoryReport, MemoryRow};

/// The longest name of a row, bytes.
const LONGEST_NAME: usize = 200;

/// The pages of this worker before its first request. Of its own process: a worker that is forked from a worker has it
/// set again.
static AT_START: Mutex<Option<PageUse>> = Mutex::new(None);

/// Takes note of the pages that this process has before its first request. Once for each process, a millisecond for
/// 100 MB.
pub(in crate::worker) fn remember_start() {
    *AT_START.lock().unwrap_or_else(PoisonError::into_inner) = own_pages().ok();
}

fn at_start() -> Option<PageUse> {
    *AT_START.lock().unwrap_or_else(PoisonError::into_inner)
}

/// A report that Python makes; `tell_cost` says before what it costs.
pub(super) fn report(py: Python<'_>, kind: WorkerOrderKind, tell_cost: impl FnOnce(String)) -> OrderOutcome {
    let function = match kind {
        WorkerOrderKind::Types => "types",
        WorkerOrderKind::TraceStart => "trace_start",
        WorkerOrderKind::Trace => "trace",
        WorkerOrderKind::TraceStop => "trace_stop",
        WorkerOrderKind::Savings | WorkerOrderKind::Refork => return Err("no report is made of this".to_owned()),
    };
    let made = module(py).and_then(|module| {
        if kind == WorkerOrderKind::Types {
            tell_cost(module.call_method0("types_cost")?.extract()?);
        }
        let made = match kind {
            WorkerOrderKind::Trace => module.call_method1(function, (wrap_pyfunction!(group, py)?,)),
            _ => module.call_method0(function),
        };
        read(&made?)
    });
    made.map_err(|raised| refusal(py, &raised))
}

/// What tracemalloc has recorded, by the stack of frames, with how many and how many bytes. Equal stacks are one object.
#[pyfunction]
fn group(traces: &Bound<'_, PyAny>) -> PyResult<Vec<(Py<PyAny>, u64, u64)>> {
    let traces = traces.cast::<PyList>()?;
    let mut stacks: HashMap<usize, (Py<PyAny>, u64, u64)> = HashMap::new();
    for trace in traces.iter() {
        // Domain, bytes, frames, and from Python 3.9 on how many frames there were.
        let trace = trace.cast_into::<PyTuple>()?;
        let (size, frames) = (trace.get_item(1)?.extract::<u64>()?, trace.get_item(2)?);
        let (_, count, bytes) = stacks.entry(frames.as_ptr().addr()).or_insert_with(|| (frames.clone().unbind(), 0, 0));
        *count += 1;
        *bytes += size;
    }
    Ok(stacks.into_values().collect())
}

/// Whether this process records where memory is allocated.
///
/// # Errors
/// When Python raises, which it has no reason to.
pub(super) fn is_tracing(py: Python<'_>) -> PyResult<bool> {
    module(py)?.call_method0("is_tracing")?.extract()
}

fn module(py: Python<'_>) -> PyResult<&Bound<'_, PyModule>> {
    static MODULE: PyOnceLock<Py<PyModule>> = PyOnceLock::new();
    let module = MODULE.get_or_try_init(py, || {
        let code = std::ffi::CString::new(include_str!("memory.py"))?;
        PyModule::from_code(py, &code, c"rwsgi_memory.py", c"rwsgi_memory").map(Bound::unbind)
    })?;
    Ok(module.bind(py))
}

fn refusal(py: Python<'_>, raised: &PyErr) -> String {
    let is_refused =
        module(py).and_then(|module| module.getattr("Refused")).is_ok_and(|refused| raised.is_instance(py, &refused));
    if is_refused { raised.value(py).to_string() } else { traceback::one_line(py, raised) }
}

type Row = (String, u64, Option<u64>, u64, Option<u64>);

fn read(made: &Bound<'_, PyAny>) -> PyResult<MemoryReport> {
    let (rows, note): (Vec<Row>, String) = made.extract()?;
    let growth = |now: u64, before: Option<u64>| before.map_or(0, |before| now as i64 - before as i64);
    let rows = rows.into_iter().map(|(mut name, count, count_before, bytes, bytes_before)| {
        // The end of a path says more than its beginning.
        while name.len() > LONGEST_NAME {
            name.remove(0);
        }
        let (count_growth, bytes_growth) = (growth(count, count_before), growth(bytes, bytes_before));
        MemoryRow { name, count, count_growth, bytes, bytes_growth }
    });
    Ok(MemoryReport { note, rows: rows.collect(), ..MemoryReport::default() })
}

/// What could be saved, by the kernel's count of this process's pages.
pub(super) fn savings(py: Python<'_>, config: &Config) -> OrderOutcome {
    let now = own_pages().map_err(|error| format!("/proc/self/smaps_rollup cannot be read: {error}"))?;
    let frozen = module(py).and_then(|module| module.call_method0("frozen")?.extract::<u64>());
    let frozen = frozen.map_err(|raised| traceback::one_line(py, &raised))?;
    Ok(tell_savings(now, at_start(), frozen, config.lazy_apps, config.processes))
}

fn tell_savings(now: PageUse, start: Option<PageUse>, frozen: u64, is_lazy: bool, processes: u32) -> MemoryReport {
    let row = |name: &str, bytes: u64, growth: i64, count: u64| MemoryRow {
        name: name.to_owned(),
        count,
        bytes,
        bytes_growth: growth,
        ..MemoryRow::default()
    };
    let grown = |of: fn(&PageUse) -> u64| start.map_or(0, |start| of(&now) as i64 - of(&start) as i64);
    let private_growth = grown(|pages| pages.private);
    // What this process has for itself that another worker has too, had it been there before the fork.
    let by_preloading = if is_lazy { start.map_or(0, |start| start.private) } else { 0 };
    let unshared = start.map_or(0, |start| start.shared_anonymous().saturating_sub(now.shared_anonymous()));
    let rows = vec![
        row("recycling this worker", private_growth.max(0) as u64, 0, 0),
        row("refork, for each other worker at most", private_growth.max(0) as u64, 0, 0),
        row("loading before the fork, without lazy-apps, for each worker but one at most", by_preloading, 0, 0),
        row("gc.freeze before the fork: done, objects that the collector leaves alone", 0, 0, frozen),
        row("pages of before the fork that it has copied since", unshared, 0, 0),
        row("pages of before the fork that it still shares", now.shared_anonymous(), 0, 0),
        row("private pages", now.private, private_growth, 0),
        row("shared pages", now.shared, grown(|pages| pages.shared), 0),
        row("resident (rss)", now.resident, grown(|pages| pages.resident), 0),
        row("proportional (pss)", now.proportional, grown(|pages| pages.proportional), 0),
    ];
    let lazy = if is_lazy { "on" } else { "off" };
    let since = if start.is_some() {
        "growth is since the worker served its first request"
    } else {
        "what it had at its start is not known, so nothing is said of growth"
    };
    let note = format!(
        "of {processes} workers, lazy-apps {lazy}; from /proc/self/smaps_rollup: recycling gives back what is private now \
         and was not at the start, and comes again with the requests that need it; pages of before the fork are Anonymous \
         less Private_Dirty; {since}"
    );
    MemoryReport { note, rows, ..MemoryReport::default() }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn python<T>(run: impl FnOnce(Python<'_>) -> T) -> T {
        crate::wsgi::interpreter::start(None).unwrap();
        Python::attach(run)
    }

    #[test]
    fn a_type_that_grows_is_named_with_its_growth() {
        python(|py| {
            let report = |py| report(py, WorkerOrderKind::Types, |cost| assert!(cost.contains("objects"), "{cost}"));
            let first = report(py).unwrap();
            assert!(first.note.contains("ask again"), "{}", first.note);
            let code = c"type('Leaked', (list,), {'__module__': 'shop'})";
            let kind = py.eval(code, None, None).unwrap();
            let _kept: Vec<_> = (0..20_000).map(|_| kind.call1(((1, 2, 3),)).unwrap()).collect();
            let second = report(py).unwrap();
            let row = second.rows.iter().find(|row| row.name == "shop.Leaked").unwrap();
            assert_eq!((row.count, row.count_growth), (20_000, 20_000));
            assert!(row.bytes_growth > 20_000 * 24, "{row:?}");
        });
    }

    #[test]
    fn lines_that_allocate_are_named_while_they_are_traced() {
        python(|py| {
            let ask = |kind| report(py, kind, |_| ());
            let refused = ask(WorkerOrderKind::Trace).unwrap_err();
            assert!(refused.contains("trace-start"), "{refused}");
            assert!(ask(WorkerOrderKind::TraceStart).unwrap().note.contains("10 to 20 times"));
            assert!(ask(WorkerOrderKind::TraceStart).unwrap_err().contains("already"));
            assert!(is_tracing(py).unwrap());
            let code = c"def leak():\n    return [bytes(1000) for _ in range(1000)]\nkept = leak()\n";
            let _kept = PyModule::from_code(py, code, c"/srv/leak.py", c"leak").unwrap();
            let report = ask(WorkerOrderKind::Trace).unwrap();
            let row = report.rows.iter().find(|row| row.name == "/srv/leak.py:2").unwrap();
            assert!(row.bytes > 1_000_000, "{row:?}");
            ask(WorkerOrderKind::TraceStop).unwrap();
            assert!(!is_tracing(py).unwrap());
            assert!(ask(WorkerOrderKind::TraceStop).is_err());
        });
    }

    #[test]
    fn savings_are_differences_of_what_the_kernel_counted() {
        let pages = |private, anonymous, private_dirty| PageUse {
            resident: 100,
            proportional: 60,
            private,
            shared: 50,
            anonymous,
            private_dirty,
        };
        let (start, now) = (pages(10, 40, 10), pages(30, 60, 50));
        let of = |report: &MemoryReport, name: &str| {
            report.rows.iter().find(|row| row.name.starts_with(name)).unwrap().bytes
        };
        let report = tell_savings(now, Some(start), 7, false, 4);
        assert_eq!(of(&report, "recycling"), 20);
        assert_eq!(of(&report, "loading"), 0);
        assert_eq!(of(&report, "pages of before the fork that it has copied"), 20);
        assert_eq!(of(&tell_savings(now, Some(start), 7, true, 4), "loading"), 10);
        let unknown = tell_savings(now, None, 7, true, 4);
        assert_eq!((of(&unknown, "recycling"), of(&unknown, "loading")), (0, 0));
        assert!(unknown.note.contains("not known"));
    }
}
