//! Memory and processor time of processes, sampled when somebody asks: live for idle ones too, and cheap enough to poll.
//!
//! What a process has resident and mapped costs one read of a file that stays open. It is read when the process has run
//! since the last time: its processor time says so, and costs less to read. Of a process that has not run, only the kernel
//! can have taken pages away: it is read once a second. How its pages are shared (PSS, USS) makes the kernel
//! walk all of them, milliseconds for a large process: that is done by a thread beside the loop, first for processes that
//! are new, then for the others in turn, as far as a small share of one processor's time allows. Nobody waits for it: it
//! is shown once it is known. A process that is gone has no memory: zeros.

use std::collections::HashMap;
use std::sync::mpsc::{Receiver, SyncSender, TryRecvError, sync_channel};
use std::time::Duration;

use nix::unistd::Pid;
use tokio::runtime::Handle;

use crate::clock::{self, MonotonicNanos};
use crate::procfs::{self, SharedPages, Statm};

/// A process's memory, bytes.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct ProcessMemory {
    /// Resident.
    pub rss: u64,
    /// Address space.
    pub vsz: u64,
    /// The most that was resident, as far as was seen.
    pub rss_peak: u64,
    /// Resident, shared pages divided among those who share them; 0 as long as it is not known.
    pub pss: u64,
    /// Resident and nobody else's; 0 as long as it is not known.
    pub uss: u64,
}

/// The part of a processor's time that walks may take on average: 1 in this many.
const SHARE: u64 = 1_000;
/// The most that one sample adds to what may be spent, ns: so that a rare poll is not an expensive one.
const EARNED_MAX: u64 = 300_000;
/// What may be saved up for walks, and what new processes may take in advance, ns.
const SAVINGS: i64 = 2_000_000;
/// What the walks of one sample may cost for processes that were walked before, ns.
const SPEND: i64 = 150_000;

/// Of a process that does not run, memory is read this often.
const FRESH: Duration = Duration::from_secs(1);

/// Samples the memory and the processor time of some processes.
#[derive(Debug)]
pub struct MemorySampler {
    /// Where walks run.
    runtime: Handle,
    processes: HashMap<Pid, Sampled>,
    /// Distinguishes successive processes of the same number.
    newest: u64,
    /// The walks under way; they end when the other side is gone.
    walks: Option<Receiver<Walked>>,
    /// Processor time that may be spent, ns; negative after many new processes at once.
    allowance: i64,
    /// When it was last topped up.
    sampled_at: Option<MonotonicNanos>,
}

#[derive(Debug)]
struct Sampled {
    serial: u64,
    statm: Statm,
    memory: ProcessMemory,
    /// When the memory was read; `None` before the first time.
    read_at: Option<MonotonicNanos>,
    /// The process's processor time just before that, or since then as long as it is the same.
    processor_time: Duration,
    /// The last walk through its pages.
    last: Option<LastWalk>,
}

#[derive(Clone, Copy, Debug)]
struct LastWalk {
    begun: MonotonicNanos,
    /// ns of processor time.
    cost: i64,
}

/// A process whose pages are to be walked.
#[derive(Clone, Copy, Debug)]
struct Due {
    pid: Pid,
    serial: u64,
}

/// What a walk has found.
#[derive(Debug)]
struct Walked {
    due: Due,
    /// `None` for a process that the kernel does not let us look into.
    pages: Option<SharedPages>,
    peak: u64,
    begun: MonotonicNanos,
    cost: i64,
}

impl MemorySampler {
    /// One that knows of no process, and has its walks run by `runtime`.
    #[must_use]
    pub fn new(runtime: Handle) -> Self {
        Self { runtime, processes: HashMap::new(), newest: 0, walks: None, allowance: 0, sampled_at: None }
    }

    /// Samples the memory and the processor time of `pids` at `now`, and forgets every other process. Has the walks begun
    /// that are due.
    pub fn sample(&mut self, pids: impl IntoIterator<Item = Pid>, now: MonotonicNanos) {
        self.collect();
        // Since always, at the first sample: new processes are walked on credit anyway.
        let passed = self.sampled_at.map_or(0, |before| now.nanos_since(before));
        self.allowance = self.allowance.saturating_add_unsigned((passed / SHARE).min(EARNED_MAX)).min(SAVINGS);
        self.sampled_at = Some(now);
        let mut before = std::mem::take(&mut self.processes);
        for pid in pids {
            if self.processes.contains_key(&pid) {
                continue;
            }
            // New, or its number is another process's now.
            let sampled = before.remove(&pid).and_then(|sampled| sampled.again(pid, now)).or_else(|| {
                self.newest += 1;
                Sampled::first(pid, self.newest, now)
            });
            self.processes.extend(sampled.map(|sampled| (pid, sampled)));
        }
        if self.walks.is_none() {
            let due = self.due();
            if !due.is_empty() {
                self.walks = Some(start(&self.runtime, due));
            }
        }
    }

    /// What is known of a process since the last sample; zeros when it is gone.
    #[must_use]
    pub fn of(&self, pid: Pid) -> ProcessMemory {
        self.processes.get(&pid).map(|sampled| sampled.memory).unwrap_or_default()
    }

    /// A process's processor time at the last sample; `None` when it is gone.
    #[must_use]
    pub fn processor_time(&self, pid: Pid) -> Option<Duration> {
        self.processes.get(&pid).map(|sampled| sampled.processor_time)
    }

    /// Takes what the walks under way have found.
    fn collect(&mut self) {
        let Some(walks) = &self.walks else { return };
        loop {
            match walks.try_recv() {
                Ok(walked) => {
                    // New processes come in any number: what they cost is owed up to a bound.
                    self.allowance = (self.allowance - walked.cost).max(-SAVINGS);
                    let sampled = self.processes.get_mut(&walked.due.pid);
                    if let Some(sampled) = sampled.filter(|sampled| sampled.serial == walked.due.serial) {
                        sampled.keep(&walked);
                    }
                }
                Err(TryRecvError::Empty) => return,
                Err(TryRecvError::Disconnected) => {
                    self.walks = None;
                    return;
                }
            }
        }
    }

    /// Every new process, and of the others those that were walked longest ago, as far as there is something to spend.
    fn due(&self) -> Vec<Due> {
        let due = |(pid, sampled): (&Pid, &Sampled)| Due { pid: *pid, serial: sampled.serial };
        let mut walks: Vec<_> = self.processes.iter().filter(|(_, sampled)| sampled.last.is_none()).map(due).collect();
        let mut in_turn: Vec<_> = self.processes.iter().filter_map(|entry| Some((entry.1.last?, due(entry)))).collect();
        in_turn.sort_by_key(|(last, _)| last.begun);
        let (mut spent, mut allowance) = (0, self.allowance);
        for (last, due) in in_turn {
            // One that costs more than can be saved up is walked on credit, and the others wait the longer.
            if last.cost.min(SAVINGS) > allowance || (spent > 0 && spent + last.cost > SPEND) {
                break;
            }
            // One walk costs something, however coarse the clock is.
            spent += last.cost.max(1);
            allowance -= last.cost;
            walks.push(due);
        }
        walks
    }
}

impl Sampled {
    fn first(pid: Pid, serial: u64, now: MonotonicNanos) -> Option<Self> {
        let (statm, memory, processor_time) = (Statm::open(pid).ok()?, ProcessMemory::default(), Duration::ZERO);
        Self { serial, statm, memory, read_at: None, processor_time, last: None }.again(pid, now)
    }

    /// The same process a while later; `None` when it is gone.
    fn again(mut self, pid: Pid, now: MonotonicNanos) -> Option<Self> {
        // Before the memory: what the process does in between is seen the next time. One that ends runs until it has ended.
        let processor_time = clock::processor_time(pid)?;
        let has_run = std::mem::replace(&mut self.processor_time, processor_time) != processor_time;
        if !has_run && self.read_at.is_some_and(|before| now.since(before) < FRESH) {
            return Some(self);
        }
        self.read_at = Some(now);
        let size = self.statm.read().ok()?;
        self.memory.rss = size.resident;
        self.memory.vsz = size.mapped;
        self.memory.rss_peak = self.memory.rss_peak.max(size.resident);
        Some(self)
    }

    fn keep(&mut self, walked: &Walked) {
        if let Some(SharedPages { proportional, unique }) = walked.pages {
            (self.memory.pss, self.memory.uss) = (proportional, unique);
        }
        self.memory.rss_peak = self.memory.rss_peak.max(walked.peak);
        self.last = Some(LastWalk { begun: walked.begun, cost: walked.cost });
    }
}

/// Has processes walked one after another, beside the loop.
fn start(runtime: &Handle, due: Vec<Due>) -> Receiver<Walked> {
    let (sender, receiver) = sync_channel(due.len());
    runtime.spawn_blocking(move || walk_all(&due, &sender));
    receiver
}

fn walk_all(due: &[Due], results: &SyncSender<Walked>) {
    for due in due {
        let (begun, before) = (MonotonicNanos::now(), clock::thread_time());
        let pages = procfs::shared_pages(due.pid).ok();
        let peak = procfs::peak_resident(due.pid).unwrap_or(0);
        let cost = clock::thread_time().saturating_sub(before).as_nanos().try_into().unwrap_or(i64::MAX);
        if results.send(Walked { due: *due, pages, peak, begun, cost }).is_err() {
            // Nobody wants to know any more: the server is about to end.
            return;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::process::{Child, Command, Stdio};
    use std::time::{Duration, Instant};

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

    fn runtime() -> tokio::runtime::Runtime {
        tokio::runtime::Builder::new_current_thread().build().unwrap()
    }

    /// Samples at the same moment, until `condition` holds.
    fn sample_until(
        sampler: &mut MemorySampler,
        pids: &[Pid],
        now: MonotonicNanos,
        condition: impl Fn(&MemorySampler) -> bool,
    ) {
        let deadline = Instant::now() + Duration::from_secs(10);
        loop {
            sampler.sample(pids.iter().copied(), now);
            if condition(sampler) {
                return;
            }
            assert!(Instant::now() < deadline, "not within ten seconds: {sampler:?}");
            std::thread::yield_now();
        }
    }

    /// Waits for the walks under way, and takes what they found.
    fn finish_walks(sampler: &mut MemorySampler) {
        let deadline = Instant::now() + Duration::from_secs(10);
        while sampler.walks.is_some() {
            assert!(Instant::now() < deadline, "the walks do not end");
            sampler.collect();
            std::thread::yield_now();
        }
    }

    const fn at(nanoseconds: u64) -> MonotonicNanos {
        MonotonicNanos::from_nanos(nanoseconds)
    }

    #[test]
    fn size_is_known_at_once_and_sharing_a_moment_later() {
        let runtime = runtime();
        let mut sampler = MemorySampler::new(runtime.handle().clone());
        let me = Pid::this();
        sampler.sample([me], at(1));
        assert!(sampler.of(me).rss > 0 && sampler.of(me).vsz > sampler.of(me).rss);
        sample_until(&mut sampler, &[me], at(1), |sampler| sampler.of(me).pss > 0);
        let mine = sampler.of(me);
        assert!(
            mine.uss > 0 && mine.uss <= mine.pss && mine.pss <= mine.rss_peak && mine.rss <= mine.rss_peak,
            "{mine:?}"
        );
    }

    #[test]
    fn a_sample_waits_for_no_walk() {
        let runtime = runtime();
        let mut sampler = MemorySampler::new(runtime.handle().clone());
        // A walk that does not end as long as this side is there.
        let (_walking, walks) = sync_channel(1);
        sampler.walks = Some(walks);
        let child = Waiting::start();
        for now in 1..100 {
            sampler.sample([child.pid()], at(now * 1_000_000_000));
        }
        let memory = sampler.of(child.pid());
        assert!(memory.rss > 0 && memory.pss == 0, "another walk was begun beside the first: {memory:?}");
    }

    #[test]
    fn memory_is_read_again_when_the_process_has_run_or_a_second_is_over() {
        let runtime = runtime();
        let mut sampler = MemorySampler::new(runtime.handle().clone());
        let mut child = Waiting::start();
        let pid = child.pid();
        let read_at = |sampler: &MemorySampler| sampler.processes[&pid].read_at.unwrap();
        // It may still be starting. It waits when two samples find that it has not run between them.
        let (deadline, mut now) = (Instant::now() + Duration::from_secs(10), 1);
        sampler.sample([pid], at(now));
        while read_at(&sampler) == at(now) {
            assert!(Instant::now() < deadline, "it never waits: {sampler:?}");
            now += 1;
            sampler.sample([pid], at(now));
        }
        let last = read_at(&sampler);
        sampler.sample([pid], last + FRESH);
        assert_eq!(read_at(&sampler), last + FRESH);
        std::io::Write::write_all(child.0.stdin.as_mut().unwrap(), b"x").unwrap();
        let later = last + FRESH + Duration::from_millis(1);
        sample_until(&mut sampler, &[pid], later, |sampler| read_at(sampler) == later);
        assert!(sampler.processor_time(pid).is_some_and(|time| !time.is_zero()));
    }

    #[test]
    fn a_process_that_is_gone_has_none() {
        let runtime = runtime();
        let mut sampler = MemorySampler::new(runtime.handle().clone());
        let mut child = Waiting::start();
        let pid = child.pid();
        sampler.sample([pid], at(1));
        assert!(sampler.of(pid).rss > 0);
        child.0.kill().unwrap();
        // Until it is reaped it is a zombie, which keeps its files in /proc.
        sample_until(&mut sampler, &[pid], at(2), |sampler| sampler.of(pid) == ProcessMemory::default());
        child.0.wait().unwrap();
        sampler.sample([pid], at(3));
        assert_eq!(sampler.of(pid), ProcessMemory::default());
    }

    #[test]
    fn what_was_found_of_a_process_is_not_told_of_the_next_one_of_its_number() {
        let runtime = runtime();
        let mut sampler = MemorySampler::new(runtime.handle().clone());
        let child = Waiting::start();
        let (walking, walks) = sync_channel(1);
        sampler.walks = Some(walks);
        sampler.sample([child.pid()], at(1));
        let due = Due { pid: child.pid(), serial: sampler.newest - 1 };
        let pages = Some(SharedPages { proportional: 5, unique: 5 });
        walking.send(Walked { due, pages, peak: 0, begun: at(1), cost: 1 }).unwrap();
        sampler.sample([child.pid()], at(2));
        assert_eq!(sampler.of(child.pid()).pss, 0);
    }

    #[test]
    fn sharing_is_read_at_once_for_new_processes_and_in_turn_for_others() {
        let runtime = runtime();
        let children = [Waiting::start(), Waiting::start(), Waiting::start()];
        let pids = children.each_ref().map(Waiting::pid);
        let mut sampler = MemorySampler::new(runtime.handle().clone());
        sampler.sample(pids, at(1));
        finish_walks(&mut sampler);
        let begun = |sampler: &MemorySampler| pids.map(|pid| sampler.processes[&pid].last.unwrap().begun);
        let first = begun(&sampler);
        // No time has passed, so that there is nothing to spend.
        sampler.allowance = 0;
        sampler.sample(pids, at(1));
        finish_walks(&mut sampler);
        assert_eq!(begun(&sampler), first);
        let mut now = 1;
        // However much a walk costs, it is earned over several samples.
        for _ in 0..1_000 {
            now += EARNED_MAX * SHARE;
            sampler.sample(pids, at(now));
            finish_walks(&mut sampler);
            assert!(sampler.allowance <= SAVINGS);
        }
        assert!(begun(&sampler).iter().zip(first).all(|(again, first)| *again > first), "{sampler:?}");
    }
}
