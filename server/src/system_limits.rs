//! What the system is asked for a process: priority, descriptors, processors, memory that is never swapped
//! (`--prio`, `--max-fd`, `--cpu-affinity`, `--limit-nproc`, `--never-swap`). What it refuses is a warning, as in uWSGI:
//! the server can serve without.

use nix::sys::mman::{MlockAllFlags, mlockall};
use nix::sys::resource::{Resource, setrlimit};
use nix::unistd::{SysconfVar, sysconf};
use rustix::process::setpriority_process;
use rustix::thread::{CpuSet, sched_setaffinity};
use tracing::{info, warn};

use crate::ids::WorkerId;
use rwsgi_config::SystemConfig;

/// For the master, before it drops root's privileges: what it asks for holds for all that come of it.
pub(crate) fn of_master(config: &SystemConfig) {
    if let Some(nice) = config.prio {
        match setpriority_process(None, nice) {
            Ok(()) => info!("prio: every process runs with nice value {nice}"),
            Err(error) => warn!("prio: cannot set nice value {nice}: {error}: only root can go below the present one"),
        }
    }
    if let Some(limit) = config.max_fd
        && let Err(error) = setrlimit(Resource::RLIMIT_NOFILE, limit.into(), limit.into())
    {
        warn!("max-fd: cannot allow {limit} descriptors: {error}: start as root, or raise systemd's LimitNOFILE=");
    }
    lock_memory(config);
}

/// For any process that another has started or forked: a lock of its memory is not inherited.
pub(crate) fn lock_memory(config: &SystemConfig) {
    if config.never_swap
        && let Err(error) = mlockall(MlockAllFlags::MCL_CURRENT | MlockAllFlags::MCL_FUTURE)
    {
        warn!("never-swap: cannot lock the memory: {error}: raise systemd's LimitMEMLOCK=");
    }
}

/// Limits what a process that runs the application may start, once it has all its threads: the server's own processes and
/// threads are not held back, of which there are more than uWSGI has.
pub(crate) fn limit_processes(config: &SystemConfig) {
    if let Some(limit) = config.limit_nproc
        && let Err(error) = setrlimit(Resource::RLIMIT_NPROC, limit.into(), limit.into())
    {
        warn!("limit-nproc: cannot limit the processes to {limit}: {error}");
    }
}

/// Binds a worker to its processors.
pub(crate) fn bind_worker(config: &SystemConfig, worker: WorkerId) {
    let Some(count) = config.cpu_affinity else { return };
    let online = sysconf(SysconfVar::_NPROCESSORS_ONLN).ok().flatten().and_then(|online| u32::try_from(online).ok());
    let mut set = CpuSet::new();
    let wanted = processors(worker.get(), count, online.unwrap_or(1).max(1));
    for processor in wanted.iter().filter(|processor| **processor < CpuSet::MAX_CPU as u32) {
        set.set(*processor as usize);
    }
    match sched_setaffinity(None, &set) {
        Ok(()) => info!("worker {worker}: bound to processors {wanted:?}"),
        Err(error) => warn!("cpu-affinity: worker {worker} cannot be bound to processors {wanted:?}: {error}"),
    }
}

/// The processors of a worker, as uWSGI chooses them.
fn processors(worker: u32, count: u32, online: u32) -> Vec<u32> {
    let first = (worker - 1).wrapping_mul(count) % online;
    (0..count.min(online)).map(|next| (first + next) % online).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn workers_get_the_next_processors_round_about() {
        assert_eq!(processors(1, 1, 4), [0]);
        assert_eq!(processors(3, 2, 4), [0, 1]);
        assert_eq!(processors(2, 3, 4), [3, 0, 1]);
        assert_eq!(processors(7, 100, 2), [0, 1]);
    }
}
