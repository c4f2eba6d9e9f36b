//! What the kernel reports of processes in `/proc`, and the size of its pages.

use std::fs::File;
use std::io;
use std::os::unix::fs::FileExt;
use std::path::Path;
use std::sync::OnceLock;

use nix::unistd::{Pid, SysconfVar, sysconf};

/// Size of a page of memory, bytes: 4096 on most systems.
#[must_use]
pub(crate) fn page_size() -> usize {
    static SIZE: OnceLock<usize> = OnceLock::new();
    // Every Linux reports it.
    *SIZE.get_or_init(|| {
        sysconf(SysconfVar::PAGE_SIZE).ok().flatten().and_then(|size| size.try_into().ok()).unwrap_or(4096)
    })
}

/// What a process has in memory, bytes.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct MemorySize {
    /// Resident.
    pub resident: u64,
    /// Address space.
    pub mapped: u64,
}

/// A process's `statm`, which stays open for cheap repeated reads. It never moves on to another process of the same
/// number.
#[derive(Debug)]
pub(crate) struct Statm(File);

impl Statm {
    /// Of another process.
    ///
    /// # Errors
    /// When there is no such process.
    pub(crate) fn open(pid: Pid) -> io::Result<Self> {
        File::open(format!("/proc/{pid}/statm")).map(Self)
    }

    /// What the process has now.
    ///
    /// # Errors
    /// When it is gone, or a zombie.
    pub(crate) fn read(&self) -> io::Result<MemorySize> {
        let mut text = [0; 128];
        let len = self.0.read_at(&mut text, 0)?;
        let pages = parse_statm(&text[..len]).ok_or(io::ErrorKind::InvalidData)?;
        if pages.mapped == 0 {
            // What has ended and is not yet reaped has no memory, but still a file.
            return Err(io::ErrorKind::NotFound.into());
        }
        let page = page_size() as u64;
        Ok(MemorySize { resident: pages.resident * page, mapped: pages.mapped * page })
    }
}

/// The machine's memory, bytes.
#[must_use]
pub(crate) fn machine_memory() -> Option<u64> {
    let text = std::fs::read_to_string("/proc/meminfo").ok()?;
    Some(kilobytes(&text, "MemTotal:")).filter(|bytes| *bytes > 0)
}

/// What a process has now.
///
/// # Errors
/// When it is gone, or a zombie.
pub(crate) fn memory_of(pid: Pid) -> io::Result<MemorySize> {
    Statm::open(pid)?.read()
}

/// What this process has now.
///
/// # Errors
/// When `/proc` is not mounted.
pub(crate) fn own_memory() -> io::Result<MemorySize> {
    Statm(File::open("/proc/self/statm")?).read()
}

/// In pages: the address space comes first.
fn parse_statm(text: &[u8]) -> Option<MemorySize> {
    let mut fields = std::str::from_utf8(text).ok()?.split_whitespace().map(str::parse);
    let (mapped, resident) = (fields.next()?.ok()?, fields.next()?.ok()?);
    Some(MemorySize { resident, mapped })
}

/// How a process's resident pages are shared with others, bytes.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct SharedPages {
    /// Resident, shared pages divided among those who share them.
    pub proportional: u64,
    /// Resident and shared with no other process.
    pub unique: u64,
}

/// How a process's pages are shared. The kernel walks all of them: that takes milliseconds for a large process.
///
/// # Errors
/// When it is gone, or not to be looked into.
pub(crate) fn shared_pages(pid: Pid) -> io::Result<SharedPages> {
    std::fs::read_to_string(format!("/proc/{pid}/smaps_rollup")).map(|text| parse_rollup(&text))
}

/// How this process's pages are used, bytes.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct PageUse {
    /// Resident.
    pub resident: u64,
    /// Resident, shared pages divided among those who share them.
    pub proportional: u64,
    /// Resident and shared with no other process.
    pub private: u64,
    /// Resident and shared with another process.
    pub shared: u64,
    /// Resident and no file's.
    pub anonymous: u64,
    /// Private and written to.
    pub private_dirty: u64,
}

impl PageUse {
    /// Pages of no file that other processes share: those of before the fork that nobody has written to since.
    pub(crate) fn shared_anonymous(&self) -> u64 {
        self.anonymous.saturating_sub(self.private_dirty)
    }
}

/// How this process's pages are used. The kernel walks all of them: a millisecond for 100 MB.
///
/// # Errors
/// When `/proc` is not mounted.
pub(crate) fn own_pages() -> io::Result<PageUse> {
    std::fs::read_to_string("/proc/self/smaps_rollup").map(|text| parse_pages(&text))
}

fn parse_pages(text: &str) -> PageUse {
    PageUse {
        resident: kilobytes(text, "Rss:"),
        proportional: kilobytes(text, "Pss:"),
        private: parse_rollup(text).unique,
        shared: ["Shared_Clean:", "Shared_Dirty:"].iter().map(|name| kilobytes(text, name)).sum(),
        anonymous: kilobytes(text, "Anonymous:"),
        private_dirty: kilobytes(text, "Private_Dirty:"),
    }
}

/// The most that a process ever had resident, bytes.
///
/// # Errors
/// When it is gone.
pub(crate) fn peak_resident(pid: Pid) -> io::Result<u64> {
    std::fs::read_to_string(format!("/proc/{pid}/status")).map(|text| kilobytes(&text, "VmHWM:"))
}

/// What the kernel says of a thread.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct ThreadStatus {
    /// Its name.
    pub name: String,
    /// `R` runs, `S` waits, `D` waits and cannot be interrupted, `T` is stopped, `Z` and `X` have ended.
    pub state: char,
    /// How often it has stopped running: the same number twice says that it has not run meanwhile, or all the time.
    pub switches: u64,
    /// Signals that it blocks: bit N is signal N + 1.
    blocked: u64,
    /// Signals that its process has handlers for.
    caught: u64,
}

impl ThreadStatus {
    /// Whether it blocks a signal.
    pub(crate) fn blocks(&self, signal: i32) -> bool {
        bit(self.blocked, signal)
    }

    /// Whether its process has a handler for a signal.
    pub(crate) fn catches(&self, signal: i32) -> bool {
        bit(self.caught, signal)
    }
}

fn bit(mask: u64, signal: i32) -> bool {
    u32::try_from(signal - 1).ok().and_then(|bit| mask.checked_shr(bit)).is_some_and(|mask| mask & 1 == 1)
}

/// The threads of this process but its first.
///
/// # Errors
/// When `/proc` is not there.
pub(crate) fn further_threads() -> io::Result<Vec<Pid>> {
    let process = Pid::this();
    let mut threads = Vec::new();
    for task in std::fs::read_dir("/proc/self/task")? {
        let name = task?.file_name();
        let thread = name.to_str().and_then(|name| name.parse().ok()).map(Pid::from_raw);
        threads.extend(thread.filter(|thread| *thread != process));
    }
    Ok(threads)
}

/// Waits until the kernel counts a thread of this process no more, which was joined. It still does for a moment then, and who
/// forks asks it for threads (refork, Python 3.12).
pub(crate) fn await_end(thread: Pid) {
    let place = format!("/proc/self/task/{thread}");
    while Path::new(&place).exists() {
        std::thread::yield_now();
    }
}

/// What the kernel says of a thread of a process.
///
/// # Errors
/// When there is none.
pub(crate) fn thread_status(pid: Pid, thread: Pid) -> io::Result<ThreadStatus> {
    // A name may have any bytes.
    let text = std::fs::read(format!("/proc/{pid}/task/{thread}/status"))?;
    Ok(parse_status(&String::from_utf8_lossy(&text)))
}

fn parse_status(text: &str) -> ThreadStatus {
    let field = |name: &str| text.lines().find_map(|line| line.strip_prefix(name)).map_or("", str::trim);
    let mask = |name| u64::from_str_radix(field(name), 16).unwrap_or(0);
    ThreadStatus {
        name: field("Name:").to_owned(),
        state: field("State:").chars().next().unwrap_or('X'),
        switches: ["voluntary_ctxt_switches:", "nonvoluntary_ctxt_switches:"]
            .iter()
            .filter_map(|name| field(name).parse::<u64>().ok())
            .sum(),
        blocked: mask("SigBlk:"),
        caught: mask("SigCgt:"),
    }
}

fn parse_rollup(text: &str) -> SharedPages {
    let private = ["Private_Clean:", "Private_Dirty:", "Private_Hugetlb:"];
    SharedPages {
        proportional: kilobytes(text, "Pss:"),
        unique: private.iter().map(|name| kilobytes(text, name)).sum(),
    }
}

/// The value of a `Name:   123 kB` line, bytes; 0 when there is none.
fn kilobytes(text: &str, name: &str) -> u64 {
    let value = text.lines().find_map(|line| line.strip_prefix(name)).and_then(|rest| rest.split_whitespace().next());
    value.and_then(|value| value.parse::<u64>().ok()).unwrap_or(0) * 1024
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_process_has_memory_until_it_is_gone() {
        let size = memory_of(Pid::this()).unwrap();
        assert!(0 < size.resident && size.resident < size.mapped, "{size:?}");
        assert_eq!(own_memory().unwrap().mapped, size.mapped);
        assert!(memory_of(Pid::from_raw(i32::MAX)).is_err());
        let (shared, peak) = (shared_pages(Pid::this()).unwrap(), peak_resident(Pid::this()).unwrap());
        assert!(0 < shared.unique && shared.unique <= shared.proportional && shared.proportional <= peak, "{shared:?}");
    }

    #[test]
    fn sizes_are_in_the_kernel_s_pages() {
        // The kernel's own word for one process in both units.
        let status = std::fs::read_to_string("/proc/self/status").unwrap();
        let mapped = own_memory().unwrap().mapped;
        assert!(mapped.abs_diff(kilobytes(&status, "VmSize:")) < 1 << 26, "{mapped} {status}");
        assert!(page_size().is_power_of_two());
    }

    #[test]
    fn what_is_no_statm_is_nothing() {
        assert_eq!(parse_statm(b"300 20 7 1 0 9 0\n"), Some(MemorySize { resident: 20, mapped: 300 }));
        for text in [&b""[..], b"300", b"300 x", b"-1 2", b"\xff 2"] {
            assert_eq!(parse_statm(text), None);
        }
    }

    #[test]
    fn own_pages_are_private_or_shared() {
        let pages = own_pages().unwrap();
        assert!(pages.private > 0 && pages.private + pages.shared == pages.resident, "{pages:?}");
        assert!(pages.private <= pages.proportional && pages.shared_anonymous() < pages.resident, "{pages:?}");
    }

    #[test]
    fn a_thread_s_status_tells_its_signals() {
        let text = "Name:\trwsgi w1c2\nState:\tD (disk sleep)\nSigBlk:\t0000000000000200\nSigCgt:\t0000008000000001\n";
        let status = parse_status(text);
        assert_eq!((status.name.as_str(), status.state), ("rwsgi w1c2", 'D'));
        assert!(
            status.blocks(10) && !status.blocks(9) && status.catches(40) && status.catches(1) && !status.catches(0)
        );
        let ours = thread_status(Pid::this(), nix::unistd::gettid()).unwrap();
        assert_eq!(ours.state, 'R');
        assert_eq!(parse_status("").state, 'X');
    }

    #[test]
    fn a_rollup_s_private_pages_add_up() {
        let text = "aa-bb ---p 00000000 00:00 0    [rollup]\nRss:      900 kB\nPss:      500 kB\nPss_Dirty: 7 kB\n\
                    Private_Clean:   8 kB\nPrivate_Dirty:  16 kB\n";
        assert_eq!(parse_rollup(text), SharedPages { proportional: 500 * 1024, unique: 24 * 1024 });
        assert_eq!(parse_rollup(""), SharedPages::default());
    }
}
