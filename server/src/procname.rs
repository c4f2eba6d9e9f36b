//! What a process is called in `ps`: its command line, overwritten in place.
//!
//! The kernel shows what is in the memory where it put the arguments. There is no better way without privileges; every
//! server that names its processes does this. The short name that `top` shows (`comm`) is another one and is set
//! elsewhere.

#![allow(unsafe_code)]

use crate::config::ProcessNames;

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

/// An argument that makes room for any of these names, for a process that will rename itself.
#[must_use]
pub(crate) fn padding(names: &ProcessNames) -> String {
    " ".repeat(title(names, "rwsgi forkserver 1000").len())
}

/// Shows `title` as this process's command line. A name is no reason to fail: what does not work is left as it was.
///
/// Must be called before the process has threads that read the environment.
pub(crate) fn set(title: &str) {
    let Some((start, args_end, end)) = argument_memory() else { return };
    let (room, args) = (end - start, args_end - start);
    let title = &title.as_bytes()[..title.len().min(room.saturating_sub(1))];
    if title.len() >= args {
        // It reaches into the strings of the environment, which are copied to elsewhere first.
        for (name, value) in std::env::vars_os() {
            // SAFETY: the caller says that no other thread reads the environment.
            unsafe { std::env::set_var(name, value) };
        }
    }
    // SAFETY: the kernel says that it put the arguments and, behind them, the environment into this memory of ours,
    // which is writable and lives as long as the process. Nobody holds a reference into it: Rust and Python have copied
    // the arguments, and the environment was just moved when it is touched.
    let memory = unsafe { std::slice::from_raw_parts_mut(start as *mut u8, room) };
    memory[..title.len()].copy_from_slice(title);
    // Up to the end of the arguments, or the kernel shows what is left of them.
    let cleared = args.max(title.len() + 1).min(room);
    memory[title.len()..cleared].fill(0);
}

/// Where the arguments begin and end, and where the environment behind them ends.
fn argument_memory() -> Option<(usize, usize, usize)> {
    let stat = std::fs::read_to_string("/proc/self/stat").ok()?;
    // proc_pid_stat(5): fields 48 to 51, counted from 1; the second is a name in parentheses that may hold anything.
    let fields: Vec<&str> = stat.rsplit_once(") ")?.1.split(' ').collect();
    let field = |number: usize| fields.get(number - 3)?.trim().parse::<usize>().ok();
    let (start, args_end, env_start, env_end) = (field(48)?, field(49)?, field(50)?, field(51)?);
    let end = if env_start == args_end { env_end } else { args_end };
    (start != 0 && start < args_end && args_end <= end).then_some((start, args_end, end))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_made_of_what_is_configured() {
        let mut names = ProcessNames::default();
        assert_eq!(title(&names, "rwsgi worker 1"), "rwsgi worker 1");
        assert_eq!(master_title(&names), None, "its command line tells more");
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
}
