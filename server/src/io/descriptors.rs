//! How many connections a process may have: fewer than it may have descriptors, so that clients never take those that
//! it needs to serve them. And the kernel's table of them.

use std::os::fd::RawFd;

use rustix::io::fcntl_dupfd_cloexec;
use rustix::process::{Resource, getrlimit};
use tracing::warn;

/// Descriptors that a process may need one day without having them open yet.
const SPARE: usize = 16;

/// The most clients that a process takes, and whether it has said that this is too few.
#[derive(Debug)]
pub(crate) struct ClientCap {
    most: usize,
    limit: u64,
    logged: std::sync::atomic::AtomicBool,
}

impl ClientCap {
    /// Of the limit that is in force now (`ulimit -n`), less what is open, and less `reserved`: what the process needs
    /// besides its clients (links, files). At least a quarter of the limit.
    pub(crate) fn new(reserved: usize) -> Self {
        let limit = getrlimit(Resource::Nofile).current.unwrap_or(u64::MAX);
        let open = std::fs::read_dir("/proc/self/fd").map_or(0, Iterator::count);
        Self { most: most_clients(limit, open, reserved), limit, logged: Default::default() }
    }

    /// Whether there is no descriptor for one more than `clients`. Says so in the log the first time.
    #[inline]
    pub(crate) fn is_reached(&self, clients: usize) -> bool {
        clients >= self.most && self.log(clients)
    }

    #[cold]
    fn log(&self, clients: usize) -> bool {
        if !self.logged.swap(true, std::sync::atomic::Ordering::Relaxed) {
            warn!(
                "{clients} connections are open, as many as are taken of the {} descriptors that this process may have: \
                 others wait until one is closed. A larger limit helps ('ulimit -Hn', systemd's LimitNOFILE); this \
                 is said once",
                self.limit
            );
        }
        true
    }
}

/// Files for bodies and responses that do not fit in memory: one descriptor of eight.
pub(crate) fn for_files() -> usize {
    let limit = getrlimit(Resource::Nofile).current.unwrap_or(u64::MAX);
    usize::try_from(limit / 8).unwrap_or(usize::MAX).min(4096)
}

/// The size of the table that [`grow_descriptor_table`] makes, descriptors: 16 kB of the kernel's memory.
const TABLE: RawFd = 2048;

/// Grows the kernel's table of this process's descriptors, while it has one thread. When a process of several threads opens
/// more than its table holds, the kernel waits for a grace period of RCU: that took 15 ms on a busy machine, at 64
/// descriptors and at each doubling, and meanwhile no thread can accept.
pub(crate) fn grow_descriptor_table() {
    let limit = getrlimit(Resource::Nofile).current.and_then(|limit| RawFd::try_from(limit).ok());
    let last = limit.map_or(TABLE, |limit| limit.min(TABLE)) - 1;
    // It grows for a descriptor of that number. If that fails it grows later, as it is needed.
    drop(fcntl_dupfd_cloexec(std::io::stderr(), last));
}

fn most_clients(limit: u64, open: usize, reserved: usize) -> usize {
    let limit = usize::try_from(limit).unwrap_or(usize::MAX);
    limit.saturating_sub(open).saturating_sub(reserved).saturating_sub(SPARE).max(limit / 4).max(1)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn clients_never_take_what_is_reserved_unless_nothing_would_be_left_for_them() {
        assert_eq!(most_clients(1024, 20, 100), 1024 - 20 - 100 - SPARE);
        assert_eq!(most_clients(64, 20, 100), 16);
        assert_eq!(most_clients(u64::MAX, 20, 100), usize::MAX - 120 - SPARE);
        assert_eq!(most_clients(1, 20, 100), 1);
    }

    #[test]
    fn the_table_holds_what_was_asked_for() {
        let size = || {
            let status = std::fs::read_to_string("/proc/thread-self/status").unwrap();
            let line = status.lines().find_map(|line| line.strip_prefix("FDSize:"));
            line.unwrap().trim().parse::<u64>().unwrap()
        };
        let limit = getrlimit(Resource::Nofile).current.unwrap_or(u64::MAX);
        grow_descriptor_table();
        assert!(size() >= limit.min(TABLE as u64), "{} of {limit}", size());
    }

    #[test]
    fn it_is_reached_by_as_many_and_said_once() {
        let cap = ClientCap { most: 2, limit: 64, logged: Default::default() };
        assert!(!cap.is_reached(1) && cap.is_reached(2) && cap.is_reached(3));
    }
}
