//! How full a server is, in one number.

use crate::Snapshot;

/// Threads in a request and requests that wait, divided by the threads of workers that have a process: 1 when every thread is
/// busy and nothing waits, above 1 when requests wait. `None` without threads.
///
/// It is made of what uWSGI sends as well. Autoscalers multiply it by the number of servers to get how many are needed.
#[must_use]
pub fn saturation(snapshot: &Snapshot) -> Option<f64> {
    let cores = snapshot.workers.iter().filter(|worker| worker.pid > 0).flat_map(|worker| &worker.cores);
    let (mut threads, mut busy) = (0_u64, 0_u64);
    for core in cores {
        threads += 1;
        busy += u64::from(core.in_request > 0);
    }
    // No server has 2^52 of either.
    (threads > 0).then(|| busy.saturating_add(snapshot.listen_queue) as f64 / threads as f64)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{Core, Worker};

    #[test]
    fn what_waits_counts_beyond_all_busy_threads() {
        let worker = |pid, busy: &[u8]| Worker {
            pid,
            cores: busy.iter().map(|&in_request| Core { in_request, ..Core::default() }).collect(),
            ..Worker::default()
        };
        let of = |workers, listen_queue| saturation(&Snapshot { workers, listen_queue, ..Snapshot::default() });
        assert_eq!(of(vec![worker(9, &[1, 0])], 0), Some(0.5));
        assert_eq!(of(vec![worker(9, &[1, 1]), worker(10, &[1, 1])], 6), Some(2.5));
        assert_eq!(of(vec![worker(9, &[1]), worker(0, &[0, 0])], 0), Some(1.0));
        assert_eq!(of(vec![worker(0, &[0])], 3), None);
    }
}
