//! Memory of processes, read from `/proc` when somebody asks: live for idle ones too, and cheap enough to poll.
//!
//! What a process has resident and mapped costs one read of a file that stays open, so that it is read every time.
//! How its pages are shared (PSS, USS) makes the kernel walk all of them, some hundred µs each time: that is read at
//! once for a process that is new, then in turn, as far as a small share of one processor's time allows. A process
//! that is gone has no memory: zeros.

use std::collections::HashMap;
use std::fs::File;
use std::io;
use std::os::unix::fs::FileExt;

use nix::unistd::Pid;

use super::clock;

/// A process's memory, bytes.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Footprint {
    /// Resident.
    pub rss: u64,
    /// Address space.
    pub vsz: u64,
    /// The most that was resident, as far as was seen.
    pub rss_peak: u64,
    /// Resident, shared pages divided among those who share them; 0 when the kernel does not tell.
    pub pss: u64,
    /// Resident and nobody else's; 0 when the kernel does not tell.
    pub uss: u64,
}

/// The part of a processor's time that readings of shared pages may take on average: 1 in so many.
const SHARE: u64 = 1_000;
/// The most that one refresh adds to what may be spent, ns: so that a rare poll is not an expensive one.
const EARNED_MAX: u64 = 300_000;
/// What may be saved up for such readings, and what new processes may take in advance, ns.
const SAVINGS: i64 = 2_000_000;
/// What one refresh may spend on processes that were read before, ns.
const SPEND: i64 = 150_000;

/// The footprints of some processes.
#[derive(Debug, Default)]
pub struct Footprints {
    processes: HashMap<Pid, Process>,
    /// Processor time that may be spent, ns; negative after many new processes at once.
    allowance: i64,
    /// When it was last topped up, monotonic ns.
    refreshed_at: u64,
    round: u64,
}

#[derive(Debug)]
struct Process {
    statm: File,
    footprint: Footprint,
    /// When its sharing was last read, monotonic ns.
    read_at: u64,
    /// What that took, ns of processor time.
    cost: i64,
    /// The last round in which somebody asked for it.
    round: u64,
}

impl Footprints {
    /// Reads the memory of `pids` at `now` (monotonic ns), and forgets every other process.
    pub fn refresh(&mut self, pids: impl IntoIterator<Item = Pid>, now: u64) {
        self.round += 1;
        let earned = (now.saturating_sub(self.refreshed_at) / SHARE).min(EARNED_MAX);
        self.allowance = self.allowance.saturating_add_unsigned(earned).min(SAVINGS);
        self.refreshed_at = now;
        for pid in pids {
            self.refresh_one(pid, now);
        }
        let round = self.round;
        self.processes.retain(|_, process| process.round == round);
        self.refresh_shares(now);
    }

    /// What is known of a process since the last refresh; zeros when it is gone.
    #[must_use]
    pub fn of(&self, pid: Pid) -> Footprint {
        self.processes.get(&pid).map(|process| process.footprint).unwrap_or_default()
    }

    fn refresh_one(&mut self, pid: Pid, now: u64) {
        if let Some(process) = self.processes.get_mut(&pid)
            && let Ok((rss, vsz)) = read_statm(&process.statm)
        {
            process.round = self.round;
            process.footprint.rss = rss;
            process.footprint.vsz = vsz;
            process.footprint.rss_peak = process.footprint.rss_peak.max(rss);
            return;
        }
        // New, or its number is another process's now: an open file of `/proc` never moves on to that.
        self.processes.remove(&pid);
        let Ok(statm) = File::open(format!("/proc/{pid}/statm")) else { return };
        let Ok((rss, vsz)) = read_statm(&statm) else { return };
        let mut process = Process {
            statm,
            footprint: Footprint { rss, vsz, rss_peak: rss, ..Footprint::default() },
            read_at: 0,
            cost: 0,
            round: self.round,
        };
        process.read_shares(pid, now);
        self.allowance = (self.allowance - process.cost).max(-SAVINGS);
        self.processes.insert(pid, process);
    }

    /// Reads the sharing of those that were read longest ago.
    fn refresh_shares(&mut self, now: u64) {
        let mut spent = 0;
        while spent < SPEND {
            let turn = self
                .processes
                .iter_mut()
                .filter(|(_, process)| process.read_at < now)
                .min_by_key(|(_, process)| process.read_at);
            let Some((pid, process)) = turn else { return };
            // One that costs more than can be saved up is read on credit, and the others wait the longer.
            if process.cost.min(SAVINGS) > self.allowance || (spent > 0 && spent + process.cost > SPEND) {
                return;
            }
            process.read_shares(*pid, now);
            spent += process.cost;
            self.allowance -= process.cost;
        }
    }
}

impl Process {
    fn read_shares(&mut self, pid: Pid, now: u64) {
        let before = clock::thread_time();
        // A process that the kernel does not let us look into keeps its zeros, one that is gone its last values.
        if let Ok(rollup) = std::fs::read_to_string(format!("/proc/{pid}/smaps_rollup")) {
            (self.footprint.pss, self.footprint.uss) = parse_rollup(&rollup);
        }
        if let Ok(status) = std::fs::read_to_string(format!("/proc/{pid}/status")) {
            self.footprint.rss_peak = self.footprint.rss_peak.max(kilobytes(&status, "VmHWM:"));
        }
        self.read_at = now;
        self.cost = clock::thread_time().saturating_sub(before).as_nanos().try_into().unwrap_or(i64::MAX);
    }
}

/// Resident memory and address space of a process now, bytes.
///
/// # Errors
/// When there is no such process.
pub fn resident_and_mapped(pid: Pid) -> io::Result<(u64, u64)> {
    read_statm(&File::open(format!("/proc/{pid}/statm"))?)
}

fn read_statm(statm: &File) -> io::Result<(u64, u64)> {
    let mut text = [0; 128];
    let len = statm.read_at(&mut text, 0)?;
    let mut fields = text[..len]
        .split(|byte| *byte == b' ')
        .map(|field| std::str::from_utf8(field).ok().and_then(|field| field.parse::<u64>().ok()));
    let (Some(Some(vsz)), Some(Some(rss))) = (fields.next(), fields.next()) else {
        return Err(io::ErrorKind::InvalidData.into());
    };
    if vsz == 0 {
        // What has ended and is not yet reaped has no memory, but still a file.
        return Err(io::ErrorKind::NotFound.into());
    }
    let page = page_size();
    Ok((rss * page, vsz * page))
}

fn page_size() -> u64 {
    static PAGE: std::sync::OnceLock<u64> = std::sync::OnceLock::new();
    *PAGE.get_or_init(|| {
        let size = nix::unistd::sysconf(nix::unistd::SysconfVar::PAGE_SIZE);
        size.ok().flatten().and_then(|size| size.try_into().ok()).unwrap_or(4096)
    })
}

/// PSS and USS of a `smaps_rollup`, bytes.
fn parse_rollup(text: &str) -> (u64, u64) {
    let private = ["Private_Clean:", "Private_Dirty:", "Private_Hugetlb:"];
    (kilobytes(text, "Pss:"), private.iter().map(|name| kilobytes(text, name)).sum())
}

/// The value of a `Name:   123 kB` line, bytes; 0 when there is none.
fn kilobytes(text: &str, name: &str) -> u64 {
    let value = text.lines().find_map(|line| line.strip_prefix(name)).and_then(|rest| rest.split_whitespace().next());
    value.and_then(|value| value.parse::<u64>().ok()).unwrap_or(0) * 1024
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::process::{Child, Command, Stdio};

    /// A process that waits, killed when dropped.
    struct Waiting(Child);

    impl Waiting {
        fn start() -> Self {
            Self(Command::new("cat").stdin(Stdio::piped()).stdout(Stdio::null()).spawn().unwrap())
        }

        fn pid(&self) -> Pid {
            Pid::from_raw(self.0.id() as i32)
        }
    }

    impl Drop for Waiting {
        fn drop(&mut self) {
            let _ = self.0.kill();
            let _ = self.0.wait();
        }
    }

    #[test]
    fn a_process_that_never_did_anything_has_its_memory_told() {
        let mut footprints = Footprints::default();
        let me = Pid::this();
        footprints.refresh([me], 1);
        let mine = footprints.of(me);
        assert!(mine.uss > 0 && mine.uss <= mine.pss, "{mine:?}");
        assert!(mine.pss <= mine.rss_peak && mine.rss <= mine.rss_peak && mine.rss < mine.vsz, "{mine:?}");
        assert_eq!(resident_and_mapped(me).unwrap().1, mine.vsz);
    }

    #[test]
    fn a_process_that_is_gone_has_none() {
        let mut footprints = Footprints::default();
        let mut child = Waiting::start();
        let pid = child.pid();
        footprints.refresh([pid], 1);
        assert!(footprints.of(pid).rss > 0);
        child.0.kill().unwrap();
        // Until it is reaped it is a zombie, which keeps its files in /proc.
        let deadline = std::time::Instant::now() + std::time::Duration::from_secs(10);
        while footprints.of(pid) != Footprint::default() {
            assert!(std::time::Instant::now() < deadline, "a zombie's memory stays");
            footprints.refresh([pid], 2);
        }
        child.0.wait().unwrap();
        footprints.refresh([pid], 3);
        assert_eq!(footprints.of(pid), Footprint::default());
        assert!(resident_and_mapped(pid).is_err());
    }

    #[test]
    fn sharing_is_read_at_once_for_new_processes_and_in_turn_for_others() {
        let children = [Waiting::start(), Waiting::start(), Waiting::start()];
        let pids = children.each_ref().map(Waiting::pid);
        let mut footprints = Footprints::default();
        footprints.refresh(pids, 1);
        assert!(pids.iter().all(|pid| footprints.processes[pid].read_at == 1));
        // No time has passed, so that there is nothing to spend.
        footprints.allowance = 0;
        footprints.refresh(pids, 2);
        assert!(pids.iter().all(|pid| footprints.processes[pid].read_at == 1));
        let mut now = 2;
        // However much a reading costs, it is earned in so many refreshes.
        for _ in 0..1_000 {
            now += EARNED_MAX * SHARE;
            footprints.refresh(pids, now);
            assert!(footprints.allowance <= SAVINGS);
        }
        assert!(pids.iter().all(|pid| footprints.processes[pid].read_at > 1), "{footprints:?}");
    }

    #[test]
    fn a_rollup_s_private_pages_add_up() {
        let text = "aa-bb ---p 00000000 00:00 0    [rollup]\nRss:      900 kB\nPss:      500 kB\nPss_Dirty: 7 kB\n\
                    Private_Clean:   8 kB\nPrivate_Dirty:  16 kB\n";
        assert_eq!(parse_rollup(text), (500 * 1024, 24 * 1024));
        assert_eq!(parse_rollup(""), (0, 0));
    }
}
