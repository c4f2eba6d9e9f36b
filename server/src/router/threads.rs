//! Which thread serves next: the free threads of all workers, and the choice among them.
//!
//! The worker with the fewest busy threads is taken, so that two requests do not share one interpreter's lock while another
//! worker idles, and before all a worker that begins with what it is sent; among equals the one that served last, whose memory is still in the processor's caches.

use super::keyed::Key;

/// A worker process with at least one link.
#[derive(Debug)]
struct WorkerThreads {
    /// Its process id: a worker and its successor have the same number while they overlap.
    pid: i32,
    links: usize,
    /// Threads that do not begin with what they were sent.
    stalled: usize,
    /// Free threads, the last used at the end.
    idle: Vec<Key>,
}

/// All workers' threads.
#[derive(Debug, Default)]
pub(super) struct Threads {
    /// Those that got a request last are first: so a request looks at the workers that are busy, and not at a thousand idle
    /// ones behind them.
    workers: Vec<WorkerThreads>,
}

impl Threads {
    /// A new thread of the process `pid`, not free yet.
    pub(super) fn add(&mut self, pid: i32) {
        match self.worker(pid) {
            Some(worker) => worker.links += 1,
            None => self.workers.push(WorkerThreads { pid, links: 1, stalled: 0, idle: Vec::new() }),
        }
    }

    /// The thread is free.
    pub(super) fn release(&mut self, pid: i32, link: Key) {
        if let Some(worker) = self.worker(pid) {
            worker.idle.push(link);
        }
    }

    /// The thread is gone, free or not.
    pub(super) fn remove(&mut self, pid: i32, link: Key) {
        if let Some(worker) = self.worker(pid) {
            worker.links -= 1;
            worker.idle.retain(|idle| *idle != link);
            if worker.links == 0 {
                self.workers.retain(|worker| worker.pid != pid);
            }
        }
    }

    /// Takes a free thread, if there is one.
    pub(super) fn take(&mut self) -> Option<Key> {
        let mut best = None;
        for (at, worker) in self.workers.iter().enumerate().filter(|(_, worker)| !worker.idle.is_empty()) {
            let price = (worker.stalled, worker.links - worker.idle.len());
            if best.is_none_or(|(least, _)| price < least) {
                best = Some((price, at));
                if price == (0, 0) {
                    break;
                }
            }
        }
        let (_, at) = best?;
        self.workers[..=at].rotate_right(1);
        self.workers[0].idle.pop()
    }

    /// A thread of the process does not begin with what it was sent.
    pub(super) fn stall(&mut self, pid: i32) {
        if let Some(worker) = self.worker(pid) {
            worker.stalled += 1;
        }
    }

    /// It goes on.
    pub(super) fn go_on(&mut self, pid: i32) {
        if let Some(worker) = self.worker(pid) {
            worker.stalled = worker.stalled.saturating_sub(1);
        }
    }

    /// Whether a thread of another process is free, which begins with what it is sent.
    pub(super) fn has_free_elsewhere(&self, pid: i32) -> bool {
        self.workers.iter().any(|worker| worker.pid != pid && worker.stalled == 0 && !worker.idle.is_empty())
    }

    /// How often a thread is among the free ones.
    #[cfg(test)]
    pub(super) fn count(&self, link: Key) -> usize {
        self.workers.iter().flat_map(|worker| &worker.idle).filter(|idle| **idle == link).count()
    }

    fn worker(&mut self, pid: i32) -> Option<&mut WorkerThreads> {
        self.workers.iter_mut().find(|worker| worker.pid == pid)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn link(number: u64) -> Key {
        Key::from_bits(number)
    }

    /// Two workers of two threads: 10 and 11 of process 1, 20 and 21 of process 2.
    fn two_workers() -> Threads {
        let mut threads = Threads::default();
        for (pid, number) in [(1, 10), (1, 11), (2, 20), (2, 21)] {
            threads.add(pid);
            threads.release(pid, link(number));
        }
        threads
    }

    #[test]
    fn the_worker_with_the_fewest_busy_threads_is_taken() {
        let mut threads = two_workers();
        let first = threads.take().unwrap();
        let second = threads.take().unwrap();
        assert_ne!(first.to_bits() / 10, second.to_bits() / 10, "one each, before any gets two");
        assert!(threads.take().is_some() && threads.take().is_some());
        assert_eq!(threads.take(), None);
    }

    #[test]
    fn among_equals_the_one_that_served_last_serves_again() {
        let mut threads = two_workers();
        let first = threads.take().unwrap();
        let pid = if first.to_bits() < 20 { 1 } else { 2 };
        threads.release(pid, first);
        for _ in 0..5 {
            assert_eq!(threads.take(), Some(first));
            threads.release(pid, first);
        }
    }

    #[test]
    fn a_request_looks_at_no_more_workers_than_are_busy() {
        let mut threads = Threads::default();
        for pid in 1..=1_000 {
            threads.add(pid);
            threads.release(pid, link(pid as u64));
        }
        // Of each of the others one is taken as often as it is given back.
        for round in 0..50 {
            let busy: Vec<_> = (0..8).map(|_| threads.take().unwrap()).collect();
            let looked_at = threads.workers.iter().position(|worker| !worker.idle.is_empty()).unwrap();
            assert_eq!(looked_at, 8, "round {round}");
            assert!(busy.iter().all(|key| key.to_bits() <= 8), "those that served before serve again: {busy:?}");
            busy.into_iter().for_each(|key| threads.release(key.to_bits() as i32, key));
        }
    }

    #[test]
    fn a_worker_that_does_not_begin_is_the_last_to_be_taken() {
        let mut threads = two_workers();
        threads.stall(1);
        assert!(threads.has_free_elsewhere(1) && !threads.has_free_elsewhere(2));
        let taken: Vec<_> = std::iter::from_fn(|| threads.take()).map(Key::to_bits).collect();
        assert_eq!(taken, [21, 20, 11, 10]);
        threads.go_on(1);
        threads.release(1, link(10));
        assert!(threads.has_free_elsewhere(2));
    }

    #[test]
    fn a_thread_that_is_gone_is_not_given_out() {
        let mut threads = two_workers();
        threads.remove(1, link(10));
        threads.remove(1, link(11));
        threads.remove(2, link(21));
        assert_eq!(threads.take(), Some(link(20)));
        assert_eq!(threads.take(), None);
        threads.remove(2, link(20));
        assert!(threads.workers.is_empty());
        threads.release(2, link(20));
        assert_eq!(threads.take(), None);
    }
}
