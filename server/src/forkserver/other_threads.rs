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
    let count = std::fs::read_dir("/proc/self/task").map_or(0, |tasks| tasks.count().saturating_sub(1));
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
    let process = Pid::this();
    let tasks = std::fs::read_dir("/proc/self/task").into_iter().flatten().flatten();
    let threads = tasks.filter_map(|task| task.file_name().to_str()?.parse().ok().map(Pid::from_raw));
    let others = threads.filter(|thread| *thread != process);
    others.filter_map(|thread| Some((thread, procfs::thread_status(process, thread).ok()?))).collect()
}
