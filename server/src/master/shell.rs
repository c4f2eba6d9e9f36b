//! Starting commands of the configuration through `/bin/sh`, as uWSGI does: programs beside the server, and crons.
//!
//! Each is in a session and a group of processes of its own, so that a terminal's Ctrl-C does not reach it and a signal
//! reaches all of it. It has the server's environment, directory and log, and none of its descriptors.

#![allow(unsafe_code)]

use std::borrow::Cow;
use std::ffi::{CStr, CString};
use std::io;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::process::CommandExt;
use std::path::Path;
use std::process::{Command, Stdio};
use std::sync::atomic::AtomicU64;
use std::sync::atomic::Ordering::Relaxed;

use nix::libc;
use nix::sys::resource::{Resource, getrlimit, setrlimit};
use nix::sys::signal::{SigHandler, SigSet, SigmaskHow, Signal, pthread_sigmask};
use nix::unistd::{Pid, getppid, setsid};

use super::launcher::{Launcher, VARIABLES};
use rwsgi_config::Config;

/// The soft limit of open descriptors that the server was started with; 0 for as it is.
static DESCRIPTORS: AtomicU64 = AtomicU64::new(0);

/// Remembers the soft limit of open descriptors before the server raises its own: a program that closes all that it
/// might have is busy for minutes with a billion.
pub(crate) fn remember_descriptor_limit(soft: u64) {
    DESCRIPTORS.store(soft, Relaxed);
}

/// Gives a process that is about to execute a program the soft limit that the server was started with. It allocates
/// nothing and takes no lock.
///
/// # Errors
/// When the system refuses.
pub(crate) fn restore_descriptor_limit() -> io::Result<()> {
    let soft = DESCRIPTORS.load(Relaxed);
    if soft > 0 {
        let (_, hard) = getrlimit(Resource::RLIMIT_NOFILE)?;
        setrlimit(Resource::RLIMIT_NOFILE, soft.min(hard), hard)?;
    }
    Ok(())
}

/// A command, and what is special about it.
#[derive(Clone, Copy, Debug)]
pub(super) struct ShellCommand<'a> {
    /// For `/bin/sh -c`.
    pub(super) command: &'a str,
    /// Where it runs; `None` for where the server does.
    pub(super) directory: Option<&'a Path>,
    /// It reads from the server's standard input, not from `/dev/null`.
    pub(super) honours_stdin: bool,
    /// The user that it runs as; `None` for the server's.
    pub(super) uid: Option<u32>,
    /// The group that it runs as; `None` for the server's.
    pub(super) gid: Option<u32>,
    /// It is killed when the server is.
    pub(super) dies_with_server: bool,
    /// A file that is to hold its process id.
    pub(super) pidfile: Option<&'a Path>,
}

impl Launcher {
    /// Starts a command. Its process leads a group, and is reaped with all others.
    ///
    /// # Errors
    /// When it cannot be started.
    pub(super) fn run_shell(&self, shell: ShellCommand<'_>, config: &Config) -> io::Result<Pid> {
        let mut command = Command::new("/bin/sh");
        command.arg("-c").arg(shell.command);
        command.current_dir(shell.directory.unwrap_or_else(|| self.directory_of(config)));
        for variable in VARIABLES.into_iter().chain(config.unenv.iter().map(String::as_str)) {
            command.env_remove(variable);
        }
        command.envs(config.env.iter().map(|(name, value)| (name, value)));
        if !shell.honours_stdin {
            command.stdin(Stdio::null());
        }
        if let Some(output) = &self.output {
            command.stdout(output.try_clone()?).stderr(output.try_clone()?);
        }
        if let Some(gid) = shell.gid {
            command.gid(gid);
        }
        if let Some(uid) = shell.uid {
            command.uid(uid);
        }
        let pidfile = shell.pidfile.map(|path| CString::new(path.as_os_str().as_bytes())).transpose()?;
        let master = Pid::this();
        let settle = move || {
            settle(shell.dies_with_server.then_some(master))?;
            pidfile.as_deref().map_or(Ok(()), write_pid)
        };
        // SAFETY: between fork and exec `settle` makes system calls alone: it allocates nothing and takes no lock.
        unsafe { command.pre_exec(settle) };
        Ok(Pid::from_raw(command.spawn()?.id() as i32))
    }
}

/// What a command's process does before it becomes the command. It is killed when `master` ends.
fn settle(master: Option<Pid>) -> io::Result<()> {
    setsid()?;
    if let Some(master) = master {
        // It is forked by the thread that lives as long as the master: the signal comes at the end of that thread.
        nix::sys::prctl::set_pdeathsig(Signal::SIGKILL)?;
        if getppid() != master {
            return Err(io::ErrorKind::BrokenPipe.into());
        }
    }
    pthread_sigmask(SigmaskHow::SIG_SETMASK, Some(&SigSet::empty()), None)?;
    // A Python that runs the master ignores it.
    // SAFETY: the default action is no handler of ours.
    unsafe { nix::sys::signal::signal(Signal::SIGXFSZ, SigHandler::SigDfl) }?;
    restore_descriptor_limit()?;
    // All of ours are closed on exec as it is. This is for what the server itself was started with; an old kernel does
    // not know it.
    // SAFETY: a system call without memory of ours. Nothing is closed before exec.
    unsafe { libc::syscall(libc::SYS_close_range, 3_u32, u32::MAX, libc::CLOSE_RANGE_CLOEXEC) };
    Ok(())
}

/// Writes this process's id to a file. Allocates nothing.
fn write_pid(path: &CStr) -> io::Result<()> {
    let mut digits = [b'\n'; 12];
    let (mut rest, mut start) = (std::process::id(), digits.len() - 1);
    while rest > 0 {
        start -= 1;
        digits[start] = b'0' + (rest % 10) as u8;
        rest /= 10;
    }
    let flags = libc::O_WRONLY | libc::O_CREAT | libc::O_TRUNC | libc::O_CLOEXEC | libc::O_NOFOLLOW | libc::O_NONBLOCK;
    let text = &digits[start..];
    // SAFETY: the path ends with a NUL byte, and the text is a live slice.
    unsafe {
        let fd = libc::open(path.as_ptr(), flags, 0o644);
        if fd < 0 || libc::write(fd, text.as_ptr().cast(), text.len()) < 0 {
            return Err(io::Error::last_os_error());
        }
        libc::close(fd);
    }
    Ok(())
}

/// A command that takes the shell's place, where that can be told: a simple one, of a program. Otherwise its process would be
/// the shell's child, which goes on when the shell is killed.
pub(super) fn in_place(command: &str) -> Cow<'_, str> {
    // What a shell does by itself, and words that begin a compound command.
    const ITS_OWN: &[&str] = &[
        ".", ":", "alias", "bg", "case", "cd", "command", "eval", "exec", "exit", "export", "fg", "for", "getopts",
        "hash", "if", "jobs", "local", "read", "readonly", "return", "set", "shift", "source", "time", "times", "trap",
        "type", "ulimit", "umask", "unalias", "unset", "until", "wait", "while",
    ];
    let first = command.split_whitespace().next().unwrap_or_default();
    let is_name = |c: char| c.is_ascii_alphanumeric() || "_./-+".contains(c);
    let is_program = !first.is_empty() && first.chars().all(is_name) && !ITS_OWN.contains(&first);
    // Within quotes too, for simplicity.
    let is_simple = !command.contains([';', '&', '|', '(', ')', '`', '\n']);
    if is_program && is_simple { format!("exec {}", command.trim_start()).into() } else { command.into() }
}

/// A command for the log: what a person needs to know it.
pub(super) fn shortened(command: &str) -> String {
    const MOST: usize = 100;
    match command.char_indices().nth(MOST) {
        Some((end, _)) => format!("'{}…'", &command[..end]),
        None => format!("'{command}'"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_simple_command_of_a_program_takes_the_shell_s_place() {
        for command in ["celery -A x worker", "./manage.py smtpd --port \"$PORT\" >>log", "/usr/bin/redis-server x"] {
            assert_eq!(in_place(command), format!("exec {command}"));
        }
        for command in
            ["exit 3", "A=1 celery", "cd x && celery", "a; b", "exec a", "\"a b\" c", "for x in a", "a & wait", ""]
        {
            assert_eq!(in_place(command), command);
        }
    }
}
