//! A thread that is asked, and what is known of it by and by.

use nix::unistd::Pid;
use rwsgi_stats::control::ThreadStack;

use super::{Questions, threads_of};
use crate::ids::{SlotId, ThreadIndex, WorkerId};
use crate::ipc::thread_signal::{self, stacks_signal};
use crate::procfs::{self, ThreadStatus};
use crate::stacks::answer::{self, Answer, Facts, parse_frame, split_frames};
use crate::stacks::area::{GUESTS, Owner, Places, ProcessHead, Readiness, StackMemory};
use crate::stacks::drivers::{is_driver, state};

/// A thread that is asked.
#[derive(Debug)]
pub(super) struct Target {
    stack: ThreadStack,
    slot: SlotId,
    /// The area of its answer; not known of a thread that does not serve.
    area: Option<u32>,
    readiness: Readiness,
    step: Step,
}

#[derive(Debug)]
enum Step {
    /// An answer is waited for.
    Asked,
    Answered(Answer),
    /// It was not asked, for this reason.
    Refused(String),
}

impl Target {
    /// A thread that serves, which is asked now.
    pub(super) fn serving(
        questions: &Questions,
        stack: ThreadStack,
        slot: SlotId,
        thread: ThreadIndex,
        question: u64,
    ) -> Self {
        let head = Head::read(&questions.memory, slot);
        let id = head.owners.get(thread.index()).copied().unwrap_or(0);
        let mut target = Self { stack, slot, area: Some(thread.get()), readiness: head.readiness, step: Step::Asked };
        if id == 0 || head.readiness == Readiness::NotYet {
            target.step = Step::Refused("it does not serve yet".into());
            return target;
        }
        target.ask(id as i32, question);
        target
    }

    /// Asks, if it can answer.
    fn ask(&mut self, thread: i32, question: u64) {
        self.stack.tid = thread;
        let (pid, thread) = (Pid::from_raw(self.stack.pid), Pid::from_raw(thread));
        let Ok(status) = procfs::thread_status(pid, thread) else {
            self.step = Step::Refused("it has ended".into());
            return;
        };
        if let Some(problem) = unanswerable(&status) {
            self.step = Step::Refused(problem);
        } else if let Err(error) = thread_signal::send(pid, thread, stacks_signal(), question) {
            self.step = Step::Refused(format!("it cannot be asked: {error}"));
        }
        self.stack.name = status.name;
    }

    /// Whether an answer is waited for.
    pub(super) fn is_open(&self) -> bool {
        matches!(self.step, Step::Asked)
    }

    /// Takes the answer, if it is there.
    pub(super) fn look(&mut self, memory: &StackMemory, question: u64) {
        let area = self.area.or_else(|| {
            let head = Head::read(memory, self.slot);
            let mut guests = (0..).zip(head.owners).skip(memory.places().serving as usize);
            guests.find(|(_, owner)| *owner == self.stack.tid as u32).map(|(area, _)| area)
        });
        let answer = area.and_then(|area| answer::read(memory, self.slot, area, question));
        if let Some(answer) = answer.filter(|answer| answer.thread == self.stack.tid as u32) {
            self.step = Step::Answered(answer);
        }
    }

    /// What is told of the thread; `None` when it is no Python thread, and none that serves.
    pub(super) fn finish(self) -> Option<ThreadStack> {
        let Self { mut stack, readiness, step, .. } = self;
        match step {
            Step::Answered(answer) if stack.core.is_none() && answer.facts.has(Facts::NO_PYTHON) => return None,
            Step::Answered(answer) => tell(&mut stack, &answer, readiness),
            Step::Refused(problem) => stack.problem = problem,
            Step::Asked => stack.problem = silent(&stack),
        }
        Some(stack)
    }
}

/// Writes an answer into what is told.
fn tell(stack: &mut ThreadStack, answer: &Answer, readiness: Readiness) {
    stack.frames = split_frames(&answer.frames).filter_map(parse_frame).collect();
    let in_driver = stack.frames.iter().any(|frame| is_driver(&frame.file));
    stack.state = Some(state(answer, in_driver));
    let problem = match readiness {
        _ if answer.facts.has(Facts::BROKEN) => "its frames were in the middle of a change",
        _ if !stack.frames.is_empty() => "",
        Readiness::UnknownPython => "the stacks of this Python version cannot be read: 3.9 to 3.15 can",
        Readiness::OtherBuild => "the stacks of this build of Python cannot be read: it keeps them in another way",
        Readiness::Frames | Readiness::NotYet => "it is in no Python code",
    };
    problem.clone_into(&mut stack.problem);
}

/// Why a thread has not answered.
fn silent(stack: &ThreadStack) -> String {
    let Ok(status) = procfs::thread_status(Pid::from_raw(stack.pid), Pid::from_raw(stack.tid)) else {
        return "it has ended".into();
    };
    unanswerable(&status).unwrap_or_else(|| match status.state {
        'D' => "it did not answer in 200 ms: it waits for a disk or a network file system, and cannot be interrupted"
            .into(),
        'R' => "it did not answer in 200 ms: it got no processor, or the application has taken its signal".into(),
        _ => format!(
            "it did not answer in 200 ms: the application may have a handler of its own for signal {}, or too small a \
             stack for handlers",
            stacks_signal()
        ),
    })
}

/// Why a thread cannot answer now, if it cannot.
fn unanswerable(status: &ThreadStatus) -> Option<String> {
    let signal = stacks_signal();
    let blocks = || status.blocks(signal).then(|| format!("it blocks signal {signal}, by which a thread is asked"));
    unaskable(status).or_else(blocks)
}

/// Why a thread could not even answer later, or must not be asked.
fn unaskable(status: &ThreadStatus) -> Option<String> {
    let signal = stacks_signal();
    match status {
        ThreadStatus { state: 'T' | 't', .. } => Some("its process is stopped (SIGSTOP, or a debugger)".into()),
        ThreadStatus { state: 'Z' | 'X', .. } => Some("it has ended".into()),
        status if !status.catches(signal) => {
            Some(format!("the application has taken away the handler of signal {signal}, by which a thread is asked"))
        }
        _ => None,
    }
}

/// The threads of a worker's process that do not serve, asked now.
pub(super) fn application_threads(
    questions: &Questions,
    worker: WorkerId,
    pid: Pid,
    slot: SlotId,
    question: u64,
) -> Vec<Target> {
    let head = Head::read(&questions.memory, slot);
    if head.readiness == Readiness::NotYet {
        return Vec::new();
    }
    let serving = questions.memory.places().serving as usize;
    let is_serving = |thread: i32| head.owners.iter().take(serving).any(|owner| *owner == thread as u32);
    let mut threads: Vec<_> = threads_of(pid).into_iter().filter(|thread| !is_serving(*thread)).collect();
    threads.sort_unstable();
    let target = |(place, thread): (usize, i32)| {
        let stack = ThreadStack { worker: worker.get(), pid: pid.as_raw(), tid: thread, ..ThreadStack::default() };
        let mut target = Target { stack, slot, area: None, readiness: head.readiness, step: Step::Asked };
        if place < GUESTS as usize {
            target.ask(thread, question);
        } else {
            target.step = Step::Refused(format!("only {GUESTS} threads of the application are asked at once"));
        }
        target
    };
    threads.into_iter().enumerate().map(target).collect()
}

/// The threads of a worker's process that serve, by place: those that can be asked.
pub(super) fn answering_threads(memory: &StackMemory, pid: Pid, slot: SlotId) -> Vec<Option<Pid>> {
    let head = Head::read(memory, slot);
    let can_be_asked = |id: u32| {
        let thread = Pid::from_raw(id as i32);
        let status = (id != 0 && head.readiness != Readiness::NotYet).then(|| procfs::thread_status(pid, thread));
        // What it blocks now it need not block later: a thread blocks all signals while it starts a thread or a program.
        let can = status.and_then(Result::ok).is_some_and(|status| unaskable(&status).is_none());
        can.then_some(thread)
    };
    head.owners.iter().take(memory.places().serving as usize).map(|id| can_be_asked(*id)).collect()
}

/// What a process says of itself, and whose its areas are.
struct Head {
    readiness: Readiness,
    owners: Vec<u32>,
}

impl Head {
    fn read(memory: &StackMemory, slot: SlotId) -> Self {
        let places: Places = memory.places();
        let mut bytes = vec![0; size_of::<ProcessHead>() + places.areas() as usize * size_of::<Owner>()];
        let _ = memory.read(slot, 0, &mut bytes);
        let word =
            |at: usize| bytes.get(at..).and_then(|rest| rest.first_chunk()).copied().map_or(0, u32::from_ne_bytes);
        let readiness = Readiness::of(word(0)).unwrap_or(Readiness::NotYet);
        Self { readiness, owners: (0..places.areas()).map(|area| word(places.owner(area))).collect() }
    }
}
