//! What a process is called in `ps`: its command line, overwritten in place.
//!
//! The kernel shows what is in the memory where it put the arguments. There is no better way without privileges; every
//! server that names its processes does this. The short name that `top` shows (`comm`) is another one and is set
//! elsewhere.
//!
//! A name is cut to the space that the arguments have. A process that the master starts is given an argument for it
//! ([`padding`]); the master makes space itself ([`make_space`]), by moving its environment, which lies behind the
//! arguments.

#![allow(unsafe_code)]

use std::sync::{Mutex, PoisonError};

use nix::libc;

use rwsgi_config::ProcessNames;

use crate::procfs;

unsafe extern "C" {
    /// The environment (POSIX). The libc crate has it for glibc only.
    static mut environ: *mut *mut libc::c_char;
}

/// A process that the master has started may call itself anything of up to so many bytes.
const LONGEST: usize = 1024;

/// The name of a process that is `base` (as `rwsgi worker 1`).
#[must_use]
pub(crate) fn title(names: &ProcessNames, base: &str) -> String {
    let base = names.all.as_deref().unwrap_or(base);
    format!("{}{base}{}", names.prefix, names.append)
}

/// The name of the master; `None` when it is to keep its command line.
#[must_use]
pub(crate) fn master_title(names: &ProcessNames) -> Option<String> {
    let own = names.master.as_deref().or(names.all.as_deref());
    let base = own.or(names.auto.then_some("rwsgi master"))?;
    Some(format!("{}{base}{}", names.prefix, names.append))
}

/// An argument that makes space for any of these names, and for others of up to [`LONGEST`] bytes, for a process that
/// will rename itself.
#[must_use]
pub(crate) fn padding(names: &ProcessNames) -> String {
    " ".repeat(title(names, "rwsgi forkserver 1000").len().max(LONGEST))
}

/// The memory that a name may be written to.
#[derive(Clone, Copy)]
struct ArgumentSpace {
    start: usize,
    /// Bytes that the arguments have: these are shown.
    args: usize,
    /// Bytes that a name may have: as many, or more where the environment was moved away from behind them.
    all: usize,
}

/// Who has it locked may write to the space.
static ARGUMENT_SPACE: Mutex<Option<ArgumentSpace>> = Mutex::new(None);

/// Shows `title` as this process's command line, as much of it as there is space for. A name is no reason to fail: what
/// does not work is left as it was.
pub(crate) fn set(title: &str) {
    let mut space = ARGUMENT_SPACE.lock().unwrap_or_else(PoisonError::into_inner);
    if space.is_none() {
        *space = argument_memory().map(|memory| ArgumentSpace {
            start: memory.start,
            args: memory.args(),
            all: memory.args(),
        });
    }
    let Some(ArgumentSpace { start, args, all }) = *space else { return };
    // SAFETY: the kernel says that it put the arguments into this memory, and behind them the environment, which was
    // moved away if the space reaches there. It is writable and lives as long as the process. The lock keeps others of
    // this module away, and nobody else looks at it: programs read their arguments once, when they start.
    let memory = unsafe { std::slice::from_raw_parts_mut(start as *mut u8, all) };
    let title = &title.as_bytes()[..title.len().min(all - 1)];
    memory[..title.len()].copy_from_slice(title);
    // Up to the end of the arguments, or the kernel shows what is left of them.
    let cleared = args.max(title.len() + 1).min(all);
    memory[title.len()..cleared].fill(0);
}

/// Makes space for a long name, by moving the environment to elsewhere. Does nothing where another thread might read
/// the environment meanwhile: names are cut then.
///
/// To be called early: C code may have kept what `getenv` gave it, and would find a part of the name there.
pub(crate) fn make_space() {
    let mut space = ARGUMENT_SPACE.lock().unwrap_or_else(PoisonError::into_inner);
    let Some(memory) = argument_memory() else { return };
    if space.is_some() || !is_only_thread() {
        return;
    }
    // SAFETY: the kernel says that the environment's strings are there; nobody writes to them.
    let strings = unsafe { std::slice::from_raw_parts(memory.end as *const u8, memory.env_end - memory.end) };
    // Never freed: the environment lives as long as the process.
    let copy: &'static mut [u8] = Box::leak(strings.into());
    let old = memory.end..memory.env_end;
    // SAFETY: this thread is the only one, and only it could start another; so nobody reads or changes the environment.
    // `environ` is null, or an array that ends with a null; each entry that is moved points at the same bytes as
    // before.
    unsafe {
        let mut entry = environ;
        while !entry.is_null() && !(*entry).is_null() {
            if old.contains(&(*entry).addr()) {
                *entry = copy.as_mut_ptr().add((*entry).addr() - old.start).cast();
            }
            entry = entry.add(1);
        }
    }
    *space = Some(ArgumentSpace { start: memory.start, args: memory.args(), all: memory.env_end - memory.start });
}

/// Whether this process has no thread but this one.
fn is_only_thread() -> bool {
    procfs::further_threads().is_ok_and(|threads| threads.is_empty())
}

/// Where the kernel put the arguments, and the environment right behind them.
struct ArgumentMemory {
    start: usize,
    /// Where the arguments end and the environment begins.
    end: usize,
    env_end: usize,
}

impl ArgumentMemory {
    fn args(&self) -> usize {
        self.end - self.start
    }
}

/// `None` when the kernel does not say. An environment that is elsewhere counts as none.
fn argument_memory() -> Option<ArgumentMemory> {
    let stat = std::fs::read_to_string("/proc/self/stat").ok()?;
    // proc_pid_stat(5): fields 48 to 51, counted from 1; the second is a name in parentheses that may hold anything.
    let fields: Vec<&str> = stat.rsplit_once(") ")?.1.split(' ').collect();
    let field = |number: usize| fields.get(number - 3)?.trim().parse::<usize>().ok();
    let (start, end, env_start, env_end) = (field(48)?, field(49)?, field(50)?, field(51)?);
    let env_end = if env_start == end { env_end } else { end };
    (start != 0 && start < end && end <= env_end).then_some(ArgumentMemory { start, end, env_end })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_made_of_what_is_configured() {
        let mut names = ProcessNames::default();
        assert_eq!(title(&names, "rwsgi worker 1"), "rwsgi worker 1");
        assert_eq!(master_title(&names), None, "its command line says more");
        names.auto = true;
        names.prefix = "test-ax ".into();
        names.append = " (blue)".into();
        assert_eq!(title(&names, "rwsgi worker 1"), "test-ax rwsgi worker 1 (blue)");
        assert_eq!(master_title(&names).unwrap(), "test-ax rwsgi master (blue)");
        names.all = Some("site".into());
        assert_eq!(title(&names, "rwsgi worker 1"), "test-ax site (blue)");
        names.master = Some("boss".into());
        assert_eq!(master_title(&names).unwrap(), "test-ax boss (blue)");
    }

    /// Where the environment's strings are, and what they say.
    fn environment() -> Vec<(usize, Vec<u8>)> {
        let mut found = Vec::new();
        // SAFETY: no test of this program changes the environment.
        unsafe {
            let mut entry = libc::environ;
            while !(*entry).is_null() {
                found.push(((*entry).addr(), std::ffi::CStr::from_ptr(*entry).to_bytes().to_vec()));
                entry = entry.add(1);
            }
        }
        found
    }

    #[test]
    fn a_process_with_threads_keeps_its_environment_where_it_is_and_cuts_names() {
        let before = environment();
        std::thread::scope(|scope| {
            // The other thread is there, waiting for the scope's end.
            scope.spawn(|| {
                make_space();
                set(&"n".repeat(1 << 20));
            });
        });
        assert_eq!(environment(), before);
        let shown = std::fs::read("/proc/self/cmdline").unwrap();
        assert!(shown.starts_with(b"n") && shown.len() < 1 << 20, "{} bytes", shown.len());
    }
}
