//! The handler of the signal, and what a process prepares for it.
//!
//! Nothing that a handler calls allocates, locks or panics: the thread may hold any lock.

#![allow(unsafe_code)]

use std::sync::atomic::AtomicPtr;
use std::sync::atomic::Ordering::{AcqRel, Acquire, Relaxed, Release};

use nix::errno::Errno;
use nix::libc;
use nix::sys::signal::SigSet;
use pyo3::ffi;
use pyo3::prelude::*;

use super::answer::Facts;
use super::area::{OwnPart, PEER_KEPT};
use super::check;
use super::interrupted::{self, Call};
use super::own_memory::OwnMemory;
use super::walk::{End, Output, Python as Walked, innermost, walk};
use crate::ids::ThreadIndex;
use crate::ipc::thread_signal::{stacks_signal, value_of};

/// What was given to [`install`] last, of a box that [`detach`] frees.
static PART: AtomicPtr<OwnPart> = AtomicPtr::new(std::ptr::null_mut());

fn part() -> Option<&'static OwnPart> {
    // SAFETY: null, or of a box that is freed in a forked child alone, which has one thread, and that is in `detach`.
    unsafe { PART.load(Acquire).as_ref() }
}

/// From now on this process's threads can be asked, and what they answer is written to `part`.
///
/// # Errors
/// When the system refuses the handler.
pub(crate) fn install(_: Python<'_>, part: OwnPart) -> nix::Result<()> {
    let part: &'static OwnPart = Box::leak(Box::new(part));
    PART.store(std::ptr::from_ref(part).cast_mut(), Release);
    // SAFETY: all-zero is a valid `sigaction`.
    let mut action: libc::sigaction = unsafe { std::mem::zeroed() };
    let handler: extern "C" fn(libc::c_int, *mut libc::siginfo_t, *mut libc::c_void) = handle;
    action.sa_sigaction = handler as usize;
    // On the stack of runtimes that have one for that, whose threads' own may be too small.
    action.sa_flags = libc::SA_RESTART | libc::SA_SIGINFO | libc::SA_ONSTACK;
    action.sa_mask = *SigSet::empty().as_ref();
    // SAFETY: the handler does only what a signal handler may, and `action` lives through the call.
    Errno::result(unsafe { libc::sigaction(stacks_signal(), &raw const action, std::ptr::null_mut()) })?;
    part.head().readiness.store(check::readiness() as u32, Release);
    Ok(())
}

/// What a handler takes of a stack at most, bytes; builds without optimization take the most.
const ROOM: usize = 7 * 1024;

/// The present thread serves, as this one of its worker.
pub(crate) fn enter(_: Python<'_>, thread: ThreadIndex) {
    leave_small_stack();
    let Some(part) = part() else { return };
    if thread.get() >= part.places().serving {
        return;
    }
    let owner = part.owner(thread.get());
    if let Some(python) = check::python() {
        // SAFETY: any thread may ask for its own.
        let state = unsafe { ffi::PyGILState_GetThisThreadState() };
        let base = innermost(&OwnMemory::now(), python, state.addr()).unwrap_or(0);
        owner.base.store(base as u64, Relaxed);
    }
    owner.thread.store(this_thread(), Release);
}

/// For a child that the application has forked, before it does anything else: it answers nobody.
pub(crate) fn detach() {
    let part = PART.swap(std::ptr::null_mut(), AcqRel);
    if !part.is_null() {
        // SAFETY: it was leaked by `install`, and is freed once; the child's one thread is here and not in the handler.
        drop(unsafe { Box::from_raw(part) });
    }
}

extern "C" fn handle(_: libc::c_int, info: *mut libc::siginfo_t, context: *mut libc::c_void) {
    let saved = Errno::last_raw();
    // SAFETY: the kernel has given it to this handler.
    if let (Some(part), Some(question), true) = (part(), unsafe { value_of(info) }, has_room()) {
        // SAFETY: as above.
        unsafe { respond(part, question, context) };
    }
    Errno::set_raw(saved);
}

/// No part of its caller: that has to see first whether there is room for it.
///
/// # Safety
/// `context` must be what a handler with `SA_SIGINFO` was given.
#[inline(never)]
unsafe fn respond(part: &OwnPart, question: u64, context: *const libc::c_void) {
    let memory = OwnMemory::now();
    // SAFETY: the caller says so.
    let call = unsafe { interrupted::call(context, |address, into| memory.read(address, into)) };
    answer(part, &memory, question, call);
}

/// The alternative stack of the present thread, for handlers.
fn own_alternative() -> libc::stack_t {
    let mut stack = libc::stack_t { ss_sp: std::ptr::null_mut(), ss_flags: libc::SS_DISABLE, ss_size: 0 };
    // SAFETY: the call writes to `stack` alone.
    unsafe { libc::sigaltstack(std::ptr::null(), &raw mut stack) };
    stack
}

/// Whether the stack that the present handler runs on has room for it. One that the kernel grows has.
fn has_room() -> bool {
    let stack = own_alternative();
    let here = (&raw const stack).addr();
    stack.ss_flags & libc::SS_ONSTACK == 0 || here.saturating_sub(stack.ss_sp.addr()) >= ROOM
}

/// Handlers run on the thread's own stack if its alternative one is too small: the one of 8 KiB that the standard
/// library gives each thread of the plain executable, to report an overflow, of which the kernel takes 3 KiB or more.
pub(crate) fn leave_small_stack() {
    let stack = own_alternative();
    // SAFETY: the call reads a number that the kernel gave this process.
    let of_kernel = unsafe { libc::getauxval(libc::AT_MINSIGSTKSZ) } as usize;
    if stack.ss_flags & libc::SS_DISABLE == 0 && stack.ss_size < of_kernel + ROOM {
        let none = libc::stack_t { ss_sp: std::ptr::null_mut(), ss_flags: libc::SS_DISABLE, ss_size: 0 };
        // SAFETY: nothing runs on the alternative stack now, and `none` lives through the call. It cannot fail.
        unsafe { libc::sigaltstack(&raw const none, std::ptr::null_mut()) };
    }
}

fn answer(part: &OwnPart, memory: &OwnMemory, question: u64, call: Option<Call>) {
    let thread = this_thread();
    let Some(area) = area_of(part, thread, question) else { return };
    let head = part.answer(area);
    head.question.store(0, Relaxed);
    std::sync::atomic::fence(Release);
    // SAFETY: both look at what is this thread's own alone, or compare it, as faulthandler does in its handlers.
    // `PyGILState_Check` would say of each thread that it has the lock once there is a second interpreter.
    let (state, running) = unsafe { (ffi::PyGILState_GetThisThreadState(), ffi::compat::PyThreadState_GetUnchecked()) };
    let mut facts = Facts::default();
    if state.is_null() {
        facts |= Facts::NO_PYTHON;
    } else if state == running {
        facts |= Facts::HAS_GIL;
    }
    let mut len = 0;
    if !state.is_null()
        && let Some(python) = check::python()
    {
        // SAFETY: the space is this thread's, which is in no other handler of this signal: that is blocked meanwhile.
        // Other processes copy from it what they find.
        let mut output = Output::new(unsafe { &mut *part.frames(area) });
        let base = part.owner(area).base.load(Relaxed) as usize;
        match walk(memory, python, state.addr(), base, &mut output) {
            End::Whole => {}
            End::Cut => facts |= Facts::CUT,
            End::Broken => facts |= Facts::BROKEN,
        }
        len = output.len();
    }
    let mut peer_len = 0;
    if let Some(call) = &call {
        let number = call.number.unwrap_or(u32::MAX);
        facts |= match wait(call) {
            Wait::Gil => Facts::WAITS_FOR_GIL,
            Wait::Lock => Facts::WAITS_FOR_LOCK,
            Wait::Call => Facts::WAITS,
        };
        head.call.store(number, Relaxed);
        if let Some(descriptor) = descriptor(memory, call) {
            let (bytes, length) = peer(descriptor);
            for (place, word) in head.peer.iter().zip(bytes.as_chunks::<8>().0) {
                place.store(u64::from_ne_bytes(*word), Relaxed);
            }
            peer_len = length;
        }
    }
    head.thread.store(thread, Relaxed);
    head.facts.store(facts.bits(), Relaxed);
    head.peer_len.store(peer_len, Relaxed);
    head.frames_len.store(len as u32, Relaxed);
    head.question.store(question, Release);
}

/// The area of a thread; one that does not serve takes a free one, or one that has answered an older question.
fn area_of(part: &OwnPart, thread: u32, question: u64) -> Option<u32> {
    let all = 0..part.places().areas();
    let guests = || part.places().serving..part.places().areas();
    if let Some(own) = all.into_iter().find(|area| part.owner(*area).thread.load(Acquire) == thread) {
        return Some(own);
    }
    let take = |area: u32, from| part.owner(area).thread.compare_exchange(from, thread, AcqRel, Relaxed).is_ok();
    let is_old = |area: u32| (1..question).contains(&part.answer(area).question.load(Acquire));
    guests().find(|area| take(*area, 0)).or_else(|| {
        guests().find(|area| {
            let owner = part.owner(*area).thread.load(Acquire);
            is_old(*area) && take(*area, owner)
        })
    })
}

/// What a system call waits for.
enum Wait {
    Gil,
    Lock,
    Call,
}

fn wait(call: &Call) -> Wait {
    /// `FUTEX_WAIT` and `FUTEX_WAIT_BITSET`, private or not, by either clock.
    const WAITS: [usize; 6] = [0, 0x80, 9, 0x89, 0x109, 0x189];
    let number = call.number.map(libc::c_long::from);
    let is_futex = match number {
        Some(number) => number == libc::SYS_futex,
        None => call.arguments[0].is_some_and(|address| address > 4096) && WAITS.map(Some).contains(&call.arguments[1]),
    };
    let runtime = check::runtime();
    let is_gil = match call.arguments[0] {
        Some(address) => runtime.contains(&address),
        None => call.kept.iter().any(|register| runtime.contains(register)),
    };
    match (is_futex, is_gil) {
        (true, true) => Wait::Gil,
        (true, false) => Wait::Lock,
        (false, _) => Wait::Call,
    }
}

/// The descriptor that a system call waits for, if it is one alone, or the first.
fn descriptor(memory: &OwnMemory, call: &Call) -> Option<libc::c_int> {
    const OF_ONE: [libc::c_long; 9] = [
        libc::SYS_read,
        libc::SYS_write,
        libc::SYS_readv,
        libc::SYS_writev,
        libc::SYS_recvfrom,
        libc::SYS_sendto,
        libc::SYS_recvmsg,
        libc::SYS_sendmsg,
        libc::SYS_connect,
    ];
    let number = libc::c_long::from(call.number?);
    let first = call.arguments[0]?;
    if OF_ONE.contains(&number) {
        return libc::c_int::try_from(first).ok();
    }
    #[cfg(target_arch = "x86_64")]
    let (polls, selects) = (number == libc::SYS_poll, number == libc::SYS_select);
    #[cfg(not(target_arch = "x86_64"))]
    let (polls, selects) = (false, false);
    if polls || number == libc::SYS_ppoll {
        return memory.read_all(first).map(libc::c_int::from_ne_bytes);
    }
    if selects || number == libc::SYS_pselect6 {
        return libc::c_int::try_from(first).ok()?.checked_sub(1);
    }
    None
}

/// The address at a socket's other end, and its length: 0 when there is none.
fn peer(descriptor: libc::c_int) -> ([u8; PEER_KEPT], u32) {
    let mut bytes = [0_u8; PEER_KEPT];
    let mut len = PEER_KEPT as libc::socklen_t;
    // SAFETY: the kernel writes to `bytes` as much as `len` says, at most. Any number may be asked for.
    let got = unsafe { libc::getpeername(descriptor, bytes.as_mut_ptr().cast(), &raw mut len) };
    (bytes, if got == 0 { len.min(PEER_KEPT as u32) } else { 0 })
}

fn this_thread() -> u32 {
    // SAFETY: it has no arguments.
    unsafe { libc::syscall(libc::SYS_gettid) as u32 }
}

/// What a walk finds of the present thread, for the check.
pub(super) fn walk_here(python: &Walked) -> (Vec<u8>, End) {
    let mut bytes = vec![0; super::area::AREA];
    // SAFETY: any thread may ask for its own.
    let state = unsafe { ffi::PyGILState_GetThisThreadState() };
    let mut output = Output::new(&mut bytes);
    let end = walk(&OwnMemory::now(), python, state.addr(), 0, &mut output);
    let len = output.len();
    bytes.truncate(len);
    (bytes, end)
}

#[cfg(test)]
mod tests {
    use super::super::answer;
    use super::super::area::StackMemory;
    use super::*;
    use crate::ids::SlotId;
    use crate::ipc::thread_signal;
    use crate::stats::scoreboard::Layout;
    use nix::unistd::{Pid, gettid};

    #[test]
    fn a_thread_with_the_small_stack_of_the_standard_library_answers() {
        Python::initialize();
        let (layout, slot, question) = (Layout::new(1, 1), SlotId::new(0), 1);
        let memory = StackMemory::create(layout).unwrap();
        let file = memory.memory().try_clone_to_owned().unwrap();
        let part = OwnPart::map(file, layout, slot).unwrap();
        let answered = std::thread::spawn(move || {
            Python::attach(|py| {
                check::run(py);
                install(py, part).unwrap();
                enter(py, ThreadIndex::first(1).next().unwrap());
                thread_signal::send(Pid::this(), gettid(), stacks_signal(), question).unwrap();
                answer::read(&memory, slot, 0, question)
            })
        });
        let answer = answered.join().unwrap().unwrap();
        assert!(answer.facts.has(Facts::HAS_GIL) && !answer.facts.has(Facts::BROKEN), "{answer:?}");
    }
}
