//! The threads that the application has started while it was loaded. A fork does not take them along, but it copies the
//! locks that they hold, and nothing in the new process ever releases these. So each fork waits until they are at rest.
//!
//! Between two forks they do not run: the fork server keeps the GIL while it waits for orders.

use std::time::{Duration, Instant};

use nix::unistd::Pid;
use pyo3::Python;
use tracing::warn;

use crate::procfs;
use crate::wsgi::threads;

/// How long a fork waits for threads that never rest.
const PATIENCE: Duration = Duration::from_millis(250);

/// How long no thread may have run, to be taken as at rest.
const PAUSE: Duration = Duration::from_millis(2);

/// Says that they do not run in the workers.
pub(super) fn warn_of_them(py: Python<'_>) {
    let count = procfs::further_threads().map_or(0, |threads| threads.len());
    if count > 0 {
        let names = threads::names(py).unwrap_or_default();
        warn!(
            "the application has started threads while it was loaded ({}{}{}): they do not run in the workers; monitoring \
             agents start theirs again there; start others when they are first needed, or have every worker load the \
             application with lazy-apps",
            count,
            if names.is_empty() { "" } else { ": " },
            names.join(", "),
        );
    }
}

/// Lets them run until each waits for something, and has not run for 2 ms: then none of them is in the middle of a
/// calculation with a lock held. One that never rests delays a fork by 250 ms; one that waits with a lock held is not found.
pub(super) fn let_them_rest(py: Python<'_>) {
    let deadline = Instant::now() + PATIENCE;
    let mut before = others();
    while !before.is_empty() && Instant::now() < deadline {
        py.detach(|| std::thread::sleep(PAUSE));
        let now = others();
        if now == before && now.iter().all(|(_, thread)| thread.state == 'S') {
            return;
        }
        before = now;
    }
}

/// Every thread but the one that asks, which is the first.
fn others() -> Vec<(Pid, procfs::ThreadStatus)> {
    let others = procfs::further_threads().unwrap_or_default().into_iter();
    others.filter_map(|thread| Some((thread, procfs::thread_status(Pid::this(), thread).ok()?))).collect()
}
