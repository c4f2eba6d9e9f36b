//! What the kernel says of the control group (cgroup) that this process is in: a container's limits, how near they are, and
//! processes killed for want of memory. Version 2, and of version 1 the controllers `memory` and `cpu`.

mod groups;

use std::fs::OpenOptions;
use std::io::Read;
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use nix::fcntl::OFlag;
use rwsgi_stats::{Cgroup, Pressure};

use self::groups::Groups;

/// For tests: a directory that is taken for the one of the group, with files of version 2. Nothing of them is shown but their
/// numbers.
const ROOT: &str = "RWSGI_CGROUP_ROOT";
/// How long what was read is good for.
const FRESH: Duration = Duration::from_secs(1);
/// The most that is read of a file, bytes: `memory.stat` has about 2000.
const MOST: u64 = 64 << 10;
/// From here on a limit of version 1 is none: it has no word for that.
const NO_LIMIT: u64 = 1 << 60;

/// The control group of this process.
#[derive(Debug)]
pub(crate) struct ControlGroup {
    groups: Groups,
    /// `/proc/self/cgroup`, as it was when they were found; `None` where a variable says where they are.
    membership: Option<String>,
    last: Option<(Instant, Option<Cgroup>)>,
}

/// What limits the processors of a group.
#[derive(Clone, Copy, Debug, PartialEq)]
struct Quota {
    /// Processors.
    cpus: f64,
    /// The level of the group whose limit it is.
    level: usize,
}

impl ControlGroup {
    /// Finds it. What is not there is looked for again.
    pub(crate) fn find() -> Self {
        match std::env::var_os(ROOT).filter(|root| !root.is_empty()) {
            Some(root) => Self { groups: Groups::only(root.into()), membership: None, last: None },
            None => {
                let mut group = Self { groups: Groups::default(), membership: Some(String::new()), last: None };
                group.look_again();
                group
            }
        }
    }

    /// A supervisor may move the process after it has started it.
    fn look_again(&mut self) {
        let Some(before) = &mut self.membership else { return };
        let now = read(Path::new("/proc/self/cgroup")).unwrap_or_default();
        if now != *before {
            // Somebody else's mount may have a name that is no text.
            let mounts = std::fs::read("/proc/self/mountinfo").unwrap_or_default();
            self.groups = Groups::find(&now, &String::from_utf8_lossy(&mounts));
            *before = now;
        }
    }

    /// What is known of it, at most a second old; `None` where there is none.
    pub(crate) fn sample(&mut self, now: Instant) -> Option<Cgroup> {
        if let Some((at, cgroup)) = &self.last
            && now.saturating_duration_since(*at) < FRESH
        {
            return cgroup.clone();
        }
        self.look_again();
        let cgroup = self.read();
        self.last = Some((now, cgroup.clone()));
        cgroup
    }

    fn read(&self) -> Option<Cgroup> {
        let quota = self.quota();
        let usage = self.usage();
        if usage.is_none() && quota.is_none() {
            return None;
        }
        let (memory, memory_limit) = usage.unwrap_or_default();
        let (throttled, throttled_time) = self.throttled(quota.map_or(0, |quota| quota.level));
        Some(Cgroup {
            memory,
            memory_limit,
            cpus: quota.map(|quota| quota.cpus),
            throttled,
            throttled_time,
            oom_kills: self.oom_kills().unwrap_or(0),
            cpu_pressure: self.pressure("cpu.pressure"),
            memory_pressure: self.pressure("memory.pressure"),
            io_pressure: self.pressure("io.pressure"),
        })
    }

    /// Memory in use and the most that may be, bytes: both of the group whose limit is the lowest on the way up, or of its own
    /// where none has one. What is in use is without what the kernel can drop at once.
    fn usage(&self) -> Option<(u64, Option<u64>)> {
        let of = |levels: &[PathBuf], limit: &str, used: &str, droppable: &str, none: u64| {
            let limits = levels.iter().map(|level| number(level, limit).filter(|bytes| *bytes < none));
            let lowest = limits.enumerate().filter_map(|(level, bytes)| Some((bytes?, level))).min();
            let level = levels.get(lowest.map_or(0, |(_, level)| level))?;
            let used = number(level, used)?;
            let stat = read(&level.join("memory.stat")).unwrap_or_default();
            let used = used.saturating_sub(value_of(&stat, droppable).unwrap_or(0));
            Some((used, lowest.map(|(bytes, _)| bytes)))
        };
        let Groups { unified, memory, .. } = &self.groups;
        of(unified, "memory.max", "memory.current", "inactive_file", u64::MAX)
            .or_else(|| of(memory, "memory.limit_in_bytes", "memory.usage_in_bytes", "total_inactive_file", NO_LIMIT))
    }

    /// The most memory that the group may use, bytes; `None` for no limit.
    pub(crate) fn memory_limit(&self) -> Option<u64> {
        self.usage()?.1
    }

    /// The processors that the group may use; `None` for no limit.
    pub(crate) fn cpus(&self) -> Option<f64> {
        self.quota().map(|quota| quota.cpus)
    }

    fn quota(&self) -> Option<Quota> {
        let lowest = |levels: &[PathBuf], cpus: fn(&Path) -> Option<f64>| {
            let quotas = levels.iter().enumerate().filter_map(|(level, path)| Some(Quota { cpus: cpus(path)?, level }));
            quotas.min_by(|a, b| a.cpus.total_cmp(&b.cpus))
        };
        lowest(&self.groups.unified, quota_of_2).or_else(|| lowest(&self.groups.cpu, quota_of_1))
    }

    /// Periods in which the group of this level was stopped, and for how long, µs.
    fn throttled(&self, level: usize) -> (u64, u64) {
        let of = |levels: &[PathBuf], time: &str| {
            let stat = read(&levels.get(level)?.join("cpu.stat"))?;
            Some((value_of(&stat, "nr_throttled")?, value_of(&stat, time)?))
        };
        let of_1 = || of(&self.groups.cpu, "throttled_time").map(|(periods, nanos)| (periods, nanos / 1000));
        of(&self.groups.unified, "throttled_usec").or_else(of_1).unwrap_or_default()
    }

    /// Processes of the group itself, and of groups in it, that the kernel has killed for want of memory, wherever the limit
    /// was; `None` where it does not say.
    pub(crate) fn oom_kills(&self) -> Option<u64> {
        let of = |levels: &[PathBuf], file: &str| value_of(&read(&levels.first()?.join(file))?, "oom_kill");
        of(&self.groups.unified, "memory.events").or_else(|| of(&self.groups.memory, "memory.oom_control"))
    }

    fn pressure(&self, file: &str) -> Option<Pressure> {
        let text = read(&self.groups.unified.first()?.join(file))?;
        let total = |kind: &str| {
            let line = text.lines().find_map(|line| line.strip_prefix(kind))?;
            line.split(' ').find_map(|field| field.strip_prefix("total="))?.parse().ok()
        };
        // Older kernels say nothing of `full` for processors.
        Some(Pressure { some: total("some ")?, full: total("full ").unwrap_or(0) })
    }
}

/// `cpu.max` is a quota and a period, or `max` and a period.
fn quota_of_2(level: &Path) -> Option<f64> {
    let text = read(&level.join("cpu.max"))?;
    let (quota, period) = text.trim_end().split_once(' ')?;
    share(quota.parse().ok()?, period.parse().ok()?)
}

/// Version 1 has a quota of -1 for none.
fn quota_of_1(level: &Path) -> Option<f64> {
    share(number(level, "cpu.cfs_quota_us")?, number(level, "cpu.cfs_period_us")?)
}

fn share(quota: u64, period: u64) -> Option<f64> {
    (quota > 0 && period > 0).then(|| quota as f64 / period as f64)
}

/// A file with one number.
fn number(level: &Path, file: &str) -> Option<u64> {
    read(&level.join(file))?.trim_end().parse().ok()
}

/// The number after this key, in lines of a key and a number.
fn value_of(text: &str, key: &str) -> Option<u64> {
    text.lines().find_map(|line| line.strip_prefix(key)?.strip_prefix(' '))?.trim_end().parse().ok()
}

/// A plain file's text. Of what is no such file nothing is read: it could hold the caller up.
fn read(path: &Path) -> Option<String> {
    let flags = (OFlag::O_NONBLOCK | OFlag::O_NOCTTY).bits();
    let file = OpenOptions::new().read(true).custom_flags(flags).open(path).ok()?;
    let mut text = String::new();
    file.metadata().ok()?.is_file().then_some(())?;
    file.take(MOST).read_to_string(&mut text).ok()?;
    Some(text)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn directory(files: &[(&str, &str)]) -> tempfile::TempDir {
        let directory = tempfile::tempdir().unwrap();
        write(directory.path(), files);
        directory
    }

    fn write(directory: &Path, files: &[(&str, &str)]) {
        std::fs::create_dir_all(directory).unwrap();
        for (name, text) in files {
            std::fs::write(directory.join(name), text).unwrap();
        }
    }

    fn of(groups: Groups) -> ControlGroup {
        ControlGroup { groups, membership: None, last: None }
    }

    #[test]
    fn a_group_of_version_2_is_described() {
        let top = directory(&[
            ("memory.current", "500000\n"),
            ("memory.max", "1048576\n"),
            ("memory.stat", "anon 300000\ninactive_file 100000\nactive_file 5\n"),
            ("memory.events", "low 0\noom 2\noom_kill 3\noom_group_kill 0\n"),
            ("cpu.max", "150000 100000\n"),
            ("cpu.stat", "usage_usec 9\nnr_periods 7\nnr_throttled 4\nthrottled_usec 5600\n"),
            ("cpu.pressure", "some avg10=0.00 avg60=0.00 avg300=0.00 total=12\n"),
            ("io.pressure", "some avg10=1.00 avg60=0.00 avg300=0.00 total=7\nfull avg10=0.00 total=5\n"),
        ]);
        let group = of(Groups::only(top.path().into()));
        let expected = Cgroup {
            memory: 400_000,
            memory_limit: Some(1 << 20),
            cpus: Some(1.5),
            throttled: 4,
            throttled_time: 5600,
            oom_kills: 3,
            cpu_pressure: Some(Pressure { some: 12, full: 0 }),
            memory_pressure: None,
            io_pressure: Some(Pressure { some: 7, full: 5 }),
        };
        assert_eq!(group.read(), Some(expected));
    }

    #[test]
    fn the_lowest_limit_on_the_way_up_counts_with_what_is_used_of_it() {
        let top = directory(&[("memory.max", "max\n"), ("cpu.max", "max 100000\n")]);
        let slice = top.path().join("slice");
        let limits = [("memory.max", "1000\n"), ("memory.current", "900\n"), ("cpu.max", "50000 100000\n")];
        write(&slice, &limits);
        write(&slice, &[("cpu.stat", "nr_throttled 1\nthrottled_usec 2\n")]);
        let own = slice.join("app");
        let files = [("memory.max", "2000\n"), ("memory.current", "100\n"), ("cpu.max", "200000 100000\n")];
        write(&own, &files);
        let mut group = of(Groups { unified: vec![own, slice, top.path().into()], ..Groups::default() });
        assert_eq!(group.usage(), Some((900, Some(1000))));
        assert_eq!((group.cpus(), group.throttled(1)), (Some(0.5), (1, 2)));
        group.groups.unified.remove(1);
        assert_eq!((group.usage(), group.cpus()), (Some((100, Some(2000))), Some(2.0)));
    }

    #[test]
    fn a_group_of_version_1_is_described() {
        let memory = directory(&[
            ("memory.usage_in_bytes", "5000\n"),
            ("memory.limit_in_bytes", "9223372036854771712\n"),
            ("memory.stat", "inactive_file 1\ntotal_inactive_file 1000\n"),
            ("memory.oom_control", "oom_kill_disable 0\nunder_oom 0\noom_kill 2\n"),
        ]);
        let files = [("cpu.cfs_quota_us", "-1\n"), ("cpu.cfs_period_us", "100000\n")];
        let cpu = directory(&files);
        write(cpu.path(), &[("cpu.stat", "nr_periods 0\nnr_throttled 3\nthrottled_time 7000\n")]);
        let mut group =
            of(Groups { memory: vec![memory.path().into()], cpu: vec![cpu.path().into()], ..Groups::default() });
        let expected = Cgroup { memory: 4000, throttled: 3, throttled_time: 7, oom_kills: 2, ..Cgroup::default() };
        assert_eq!(group.read(), Some(expected));
        write(cpu.path(), &[("cpu.cfs_quota_us", "25000\n")]);
        write(memory.path(), &[("memory.limit_in_bytes", "8192\n")]);
        assert_eq!((group.cpus(), group.memory_limit()), (Some(0.25), Some(8192)));
        let now = Instant::now();
        assert_eq!(group.sample(now).and_then(|cgroup| cgroup.cpus), Some(0.25));
        write(cpu.path(), &[("cpu.cfs_quota_us", "50000\n")]);
        assert_eq!(group.sample(now + FRESH / 2).and_then(|cgroup| cgroup.cpus), Some(0.25));
        assert_eq!(group.sample(now + FRESH).and_then(|cgroup| cgroup.cpus), Some(0.5));
    }

    #[test]
    fn there_is_no_group_where_nothing_tells_of_it() {
        let root = directory(&[("cpu.stat", "usage_usec 9\n"), ("cpu.pressure", "some total=1\n")]);
        assert_eq!(of(Groups::only(root.path().into())).read(), None);
        assert_eq!(of(Groups::default()).read(), None);
    }

    #[test]
    fn what_no_kernel_writes_is_passed_over() {
        let odd = directory(&[("memory.current", "100\n"), ("memory.max", "lots\n"), ("cpu.max", "1 0\n")]);
        nix::unistd::mkfifo(&odd.path().join("memory.events"), nix::sys::stat::Mode::S_IRWXU).unwrap();
        let expected = Cgroup { memory: 100, ..Cgroup::default() };
        assert_eq!(of(Groups::only(odd.path().into())).read(), Some(expected));
    }
}
