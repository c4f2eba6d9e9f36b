//! What this machine has to spare, for servers that run on it.

use std::fs;

use rwsgi_stats::Snapshot;

/// Memory that more workers could take.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Room {
    /// Bytes.
    pub(crate) bytes: u64,
    /// Who says so.
    pub(crate) told_by: &'static str,
}

/// Memory that more workers of this server could take; `None` when it runs elsewhere, or in a namespace where its processes
/// have other numbers.
pub(crate) fn room(snapshot: &Snapshot) -> Option<Room> {
    let host = fs::read_to_string("/proc/sys/kernel/hostname").ok()?;
    if snapshot.hostname.as_deref() != Some(host.trim()) || snapshot.pid <= 0 {
        return None;
    }
    // Another machine of the same name would not have a process of this number that is a parent of that one.
    let worker = snapshot.workers.iter().find(|worker| worker.pid > 0)?;
    if parent_of(worker.pid)? != snapshot.pid {
        return None;
    }
    let machine =
        Room { bytes: field(&fs::read_to_string("/proc/meminfo").ok()?, "MemAvailable:")?, told_by: "MemAvailable" };
    let group = group_room(worker.pid).map(|bytes| Room { bytes, told_by: "the limit of its control group" });
    group.into_iter().chain([machine]).min_by_key(|room| room.bytes)
}

fn parent_of(pid: i32) -> Option<i32> {
    let status = fs::read_to_string(format!("/proc/{pid}/status")).ok()?;
    status.lines().find_map(|line| line.strip_prefix("PPid:"))?.trim().parse().ok()
}

/// A line of `/proc/meminfo`, in bytes.
fn field(text: &str, name: &str) -> Option<u64> {
    let line = text.lines().find_map(|line| line.strip_prefix(name))?;
    line.trim().strip_suffix("kB")?.trim().parse::<u64>().ok()?.checked_mul(1024)
}

/// What a process's control group (version 2), and those above it, may still take: pages of files that can be dropped count
/// as free.
fn group_room(pid: i32) -> Option<u64> {
    let groups = fs::read_to_string(format!("/proc/{pid}/cgroup")).ok()?;
    let path = groups.lines().find_map(|line| line.strip_prefix("0::/"))?;
    let mut least = None;
    let mut path = path.trim();
    loop {
        let directory = format!("/sys/fs/cgroup/{path}");
        let read = |name: &str| fs::read_to_string(format!("{directory}/{name}")).ok();
        let number = |name: &str| read(name)?.trim().parse::<u64>().ok();
        if let (Some(most), Some(current)) = (number("memory.max"), number("memory.current")) {
            let stat = read("memory.stat").unwrap_or_default();
            let files =
                stat.lines().find_map(|line| line.strip_prefix("inactive_file ")).and_then(|n| n.parse::<u64>().ok());
            let free = most.saturating_sub(current.saturating_sub(files.unwrap_or(0)));
            least = Some(least.map_or(free, |known: u64| known.min(free)));
        }
        if path.is_empty() {
            return least;
        }
        path = path.rsplit_once('/').map_or("", |(parent, _)| parent);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use rwsgi_stats::Worker;

    #[test]
    fn a_line_of_meminfo_is_read_in_bytes() {
        let text = "MemTotal:  4000 kB\nMemFree: 7 kB\nMemAvailable:    1234 kB\n";
        assert_eq!(field(text, "MemAvailable:"), Some(1234 * 1024));
        assert_eq!(field(text, "MemAvail:"), None);
    }

    #[test]
    fn only_a_server_on_this_machine_has_room_here() {
        let host = fs::read_to_string("/proc/sys/kernel/hostname").unwrap().trim().to_owned();
        let me = std::process::id() as i32;
        let here = Snapshot {
            hostname: Some(host),
            pid: parent_of(me).unwrap(),
            workers: vec![Worker { pid: me, ..Worker::default() }],
            ..Snapshot::default()
        };
        assert!(room(&here).is_some_and(|room| room.bytes > 0));
        let elsewhere = Snapshot { hostname: Some("elsewhere.example".into()), ..here.clone() };
        let namesake = Snapshot { pid: here.pid + 1, ..here };
        assert_eq!((room(&elsewhere), room(&namesake)), (None, None));
    }
}
