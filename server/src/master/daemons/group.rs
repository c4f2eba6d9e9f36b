//! Groups of processes, each led by a program of ours, and pidfiles of programs that go on without us.

use std::fs::OpenOptions;
use std::io::Read;
use std::os::unix::fs::OpenOptionsExt;
use std::path::Path;

use nix::errno::Errno;
use nix::libc;
use nix::sys::signal::{Signal, kill, killpg};
use nix::unistd::Pid;

/// Pidfiles are this long at most, bytes.
const LONGEST: u64 = 64;

/// Sends a signal to a program and all that is in its group; 0 sends none.
pub(super) fn signal_group(pid: Pid, number: i32) {
    // Other numbers are real-time signals, which no program is stopped with, or none.
    let Ok(signal) = Signal::try_from(number) else { return };
    if killpg(pid, signal).is_err() {
        // One that was found by its pidfile may be in the group of another. What ended a moment ago needs no signal.
        let _ = kill(pid, signal);
    }
}

/// Kills a group that a program of ours has led.
pub(super) fn kill_group(pid: Pid) {
    let _ = killpg(pid, Signal::SIGKILL);
}

/// Whether a process is left of a group that a program of ours has led.
pub(super) fn is_left(pid: Pid) -> bool {
    killpg(pid, None) != Err(Errno::ESRCH)
}

/// The living process that a pidfile names. Numbers that are no single process's are none, and neither is this one's.
pub(super) fn named_in(pidfile: &Path) -> Option<Pid> {
    // Not to wait for a writer, should it be a pipe.
    let file = OpenOptions::new().read(true).custom_flags(libc::O_NONBLOCK).open(pidfile).ok()?;
    let mut text = String::new();
    file.take(LONGEST).read_to_string(&mut text).ok()?;
    let digits = text.trim_start();
    let digits = &digits[..digits.bytes().take_while(u8::is_ascii_digit).count()];
    let pid = Pid::from_raw(digits.parse().ok().filter(|pid| *pid > 1)?);
    // One of another user cannot be signalled, and lives.
    (pid != Pid::this() && kill(pid, None) != Err(Errno::ESRCH)).then_some(pid)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_pidfile_names_a_single_living_process_that_is_not_the_server() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("x.pid");
        assert_eq!(named_in(&path), None);
        let parent = nix::unistd::getppid();
        for (text, expected) in [
            (format!("{parent}\n"), Some(parent)),
            (format!(" {parent} x"), Some(parent)),
            (std::process::id().to_string(), None),
            ("2147483646".to_owned(), None),
            ("1".to_owned(), None),
            ("0".to_owned(), None),
            ("-1".to_owned(), None),
            (String::new(), None),
        ] {
            std::fs::write(&path, &text).unwrap();
            assert_eq!(named_in(&path), expected.filter(|pid| pid.as_raw() > 1), "{text}");
        }
    }
}
