//! What `processes = auto` and limits in percent come to in the container, or on the machine, that this server runs in.

use rustix::thread::sched_getaffinity;
use tracing::{info, warn};

use crate::cgroup::ControlGroup;
use crate::procfs;
use rwsgi_config::{Config, Percent};

/// Puts numbers in the place of what follows the container. What was chosen, and why, is logged.
pub(crate) fn settle(config: &mut Config) {
    if config.container.auto_processes {
        let (processes, why) = choose_processes(ControlGroup::find().cpus(), processors());
        info!("processes = auto: {processes}, for {why}");
        set_processes(config, processes);
    }
    settle_limits(config);
}

/// Puts bytes in the place of percent: for each worker, where it is that many.
pub(crate) fn settle_limits(config: &mut Config) {
    let container = &config.container;
    let given = [container.reload_on_rss, container.evil_reload_on_rss, container.cheaper_soft, container.cheaper_hard];
    if given.iter().all(Option::is_none) {
        return;
    }
    let limit = ControlGroup::find().memory_limit();
    let Some(memory) = Memory::of(limit, procfs::machine_memory()) else {
        warn!("neither a control group nor /proc/meminfo has a limit of memory: those in percent are not in force");
        return;
    };
    let workers = config.processes.max(1);
    let limits = [
        ("reload-on-rss", container.reload_on_rss, &mut config.reload_on_rss),
        ("evil-reload-on-rss", container.evil_reload_on_rss, &mut config.evil_reload_on_rss),
    ];
    for (option, percent, bytes) in limits {
        let Some(percent) = percent else { continue };
        // The sum of all workers is what the kernel compares with its limit.
        let share = percent.of(memory.bytes) / u64::from(workers);
        info!("{option} = {percent}: {} for each of {workers} workers, of {memory}", megabytes(share));
        *bytes = Some(share);
    }
    let of_all = |option: &str, percent: Percent| {
        let bytes = percent.of(memory.bytes);
        info!("{option} = {percent}: {} for all workers, of {memory}", megabytes(bytes));
        bytes
    };
    if let Some(percent) = container.cheaper_soft {
        config.cheaper.rss_limit_soft = of_all("cheaper-rss-limit-soft", percent);
    }
    if let Some(percent) = container.cheaper_hard {
        config.cheaper.rss_limit_hard = of_all("cheaper-rss-limit-hard", percent);
    }
}

/// So many workers, and what depends on that.
fn set_processes(config: &mut Config, processes: u32) {
    config.processes = processes;
    if let Some(fewest) = config.cheaper.workers.take_if(|fewest| *fewest >= processes) {
        info!("cheaper = {fewest} has no effect with {processes} workers: all of them run");
    }
    let initial = config.cheaper.initial.map(|initial| initial.clamp(config.cheaper.workers.unwrap_or(1), processes));
    config.cheaper.initial = initial;
}

/// How many workers, by a quota of processors and by the processors that may be used; and why.
fn choose_processes(quota: Option<f64>, usable: u32) -> (u32, String) {
    // A quota is above 0, and the cast ends at the largest number.
    match quota.map(|quota| (quota, quota.ceil() as u32)) {
        Some((quota, whole)) if whole < usable => {
            (whole.max(1), format!("the control group may use {quota} processors"))
        }
        _ => {
            let quota = if quota.is_none() { " (the control group has no lower quota)" } else { "" };
            (usable.clamp(1, 10_000), format!("this process may run on {usable} processors{quota}"))
        }
    }
}

/// Processors that this process may run on.
fn processors() -> u32 {
    // Of more processors than the mask has space for the standard library knows.
    sched_getaffinity(None).map_or_else(
        |_| std::thread::available_parallelism().map_or(1, |count| u32::try_from(count.get()).unwrap_or(u32::MAX)),
        |mask| mask.count(),
    )
}

/// The memory that limits in percent are of.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Memory {
    bytes: u64,
    is_machine: bool,
}

impl Memory {
    /// The control group's, where that is a limit at all.
    fn of(limit: Option<u64>, machine: Option<u64>) -> Option<Self> {
        let limit = limit.filter(|limit| machine.is_none_or(|machine| *limit < machine));
        let bytes = limit.or(machine)?;
        Some(Self { bytes, is_machine: limit.is_none() })
    }
}

impl std::fmt::Display for Memory {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let whose = if self.is_machine {
            "the machine has (no control group has a lower limit)"
        } else {
            "the control group may use"
        };
        write!(f, "the {} that {whose}", megabytes(self.bytes))
    }
}

fn megabytes(bytes: u64) -> String {
    format!("{} MB", bytes >> 20)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_quota_is_rounded_up_and_the_processors_that_may_be_used_are_the_most() {
        let of = |quota, usable| choose_processes(quota, usable).0;
        assert_eq!([of(Some(0.1), 8), of(Some(1.0), 8), of(Some(1.5), 8), of(Some(7.2), 8)], [1, 1, 2, 8]);
        assert_eq!([of(Some(64.0), 8), of(None, 8), of(None, 0), of(Some(1e300), 4)], [8, 8, 1, 4]);
        assert_eq!(choose_processes(Some(1.5), 8).1, "the control group may use 1.5 processors");
        assert!(choose_processes(None, 8).1.contains("8 processors (the control group has no lower quota)"));
        assert_eq!(choose_processes(Some(16.0), 8).1, "this process may run on 8 processors");
    }

    #[test]
    fn memory_is_the_groups_unless_the_machine_has_less() {
        let of = |limit, machine| Memory::of(limit, machine).map(|memory| (memory.bytes, memory.is_machine));
        assert_eq!(of(Some(5), Some(9)), Some((5, false)));
        assert_eq!(of(Some(50), Some(9)), Some((9, true)));
        assert_eq!(of(None, Some(9)), Some((9, true)));
        assert_eq!(of(Some(5), None), Some((5, false)));
        assert_eq!(of(None, None), None);
    }

    #[test]
    fn fewer_workers_than_cheaper_asks_for_are_all_that_run() {
        let mut config = Config { processes: 8, ..Config::default() };
        (config.cheaper.workers, config.cheaper.initial) = (Some(2), Some(6));
        set_processes(&mut config, 4);
        assert_eq!((config.processes, config.cheaper.workers, config.cheaper.initial), (4, Some(2), Some(4)));
        set_processes(&mut config, 2);
        assert_eq!((config.cheaper.workers, config.cheaper.initial), (None, Some(2)));
    }
}
