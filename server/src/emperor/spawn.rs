//! Starting the processes of vassals and their hooks, with the rights that they are to have.

#![allow(unsafe_code)]

use std::ffi::{CString, OsString};
use std::io;
use std::os::fd::{AsRawFd, OwnedFd, RawFd};
use std::os::unix::net::UnixStream;
use std::os::unix::process::CommandExt;
use std::path::Path;
use std::process::{Command, Stdio};

use nix::libc;
use nix::unistd::{Gid, Pid, Uid, User, getgrouplist, setgid, setgroups, setuid};
use rustix::thread::clear_ambient_capability_set;

use super::scan::option_for;
use super::vassals::Owner;
use crate::master::launcher::{Launcher, VARIABLES};
use crate::vassal::{EMPEROR_FD, EMPEROR_FD_CONFIG};
use rwsgi_config::EmperorConfig;

/// What is to be started for a vassal.
pub(super) struct Spawn<'a> {
    pub(super) config: &'a EmperorConfig,
    pub(super) launcher: &'a Launcher,
    /// The name of its file.
    pub(super) name: &'a str,
    /// Where it runs.
    pub(super) directory: &'a Path,
    /// Its file's owner.
    pub(super) owner: Owner,
    /// The socket that it is given as its standard input.
    pub(super) socket: Option<&'a OwnedFd>,
}

impl Spawn<'_> {
    /// Starts the vassal; returns its process and the connection to it.
    ///
    /// # Errors
    /// When no program can be started.
    pub(super) fn vassal(&self) -> io::Result<(Pid, UnixStream)> {
        let (ours, theirs) = UnixStream::pair()?;
        ours.set_nonblocking(true)?;
        let own = [self.config.wrapper.as_deref()];
        let programs = self.config.wrapper_override.iter().map(|program| Some(program.as_str()));
        let programs =
            programs.chain(own).chain(self.config.wrapper_fallback.iter().map(|program| Some(program.as_str())));
        let mut failure = io::Error::from(io::ErrorKind::NotFound);
        for program in programs {
            let mut command = match program {
                Some(program) => Command::new(program),
                None => self.own_program(),
            };
            command.args(self.arguments());
            command.stdin(match self.socket {
                Some(socket) => Stdio::from(socket.try_clone()?),
                None => Stdio::null(),
            });
            match self.run(&mut command, Some(theirs.as_raw_fd())) {
                Ok(pid) => return Ok((pid, ours)),
                Err(error) => {
                    let program = program.map_or_else(|| self.launcher.program.to_string_lossy(), Into::into);
                    failure = io::Error::new(error.kind(), format!("'{program}': {error}"));
                }
            }
        }
        Err(failure)
    }

    /// Starts a program with the vassal's name, with the vassal's rights if `as_vassal`.
    ///
    /// # Errors
    /// When it cannot be started.
    pub(super) fn hook(&self, program: &str, as_vassal: bool) -> io::Result<Pid> {
        let mut command = Command::new(program);
        command.arg(self.name).env("UWSGI_VASSALS_DIR", self.directory).stdin(Stdio::null());
        if as_vassal { self.run(&mut command, None) } else { self.run_as(&mut command, None, None) }
    }

    /// What a command prints about the vassal, up to the first control character.
    ///
    /// # Errors
    /// When it cannot be run.
    pub(super) fn ask(&self, command: &str) -> io::Result<String> {
        let command = format!("{command} \"$1\"");
        let mut shell = Command::new("/bin/sh");
        shell.args(["-c", &command, "sh", self.name]).current_dir(self.directory);
        shell.stdin(Stdio::null()).stderr(Stdio::inherit());
        Ok(String::from_utf8_lossy(&shell.output()?.stdout).into_owned())
    }

    fn own_program(&self) -> Command {
        let mut command = Command::new(&self.launcher.program);
        command.args(&self.launcher.prefix);
        if self.launcher.prefix.is_empty() {
            command.arg0("rwsgi");
        }
        command
    }

    /// The command line, as uWSGI's emperor gives it.
    fn arguments(&self) -> Vec<OsString> {
        let config = self.config;
        let all = |option, values: &[String]| -> Vec<OsString> {
            values.iter().flat_map(|value| [OsString::from(option), value.into()]).collect()
        };
        [
            all("--inherit", &config.inherit_before),
            all("--include", &config.include_before),
            all("--set", &config.set),
            vec![option_for(self.name, &config.extensions).into(), self.name.into()],
            all("--inherit", &config.inherit),
            all("--include", &config.include),
        ]
        .concat()
    }

    /// Starts a command in the vassal's directory, as the owner of its file if that is configured.
    fn run(&self, command: &mut Command, keep: Option<RawFd>) -> io::Result<Pid> {
        let rights = self.config.tyrant.then(|| Rights::of(self.owner, self.config.tyrant_initgroups)).transpose()?;
        if rights.is_some() && !self.config.tyrant_nofollow {
            command.env(OWNED, "1");
        }
        self.run_as(command, keep, rights)
    }

    fn run_as(&self, command: &mut Command, keep: Option<RawFd>, rights: Option<Rights>) -> io::Result<Pid> {
        command.current_dir(self.directory);
        for variable in VARIABLES.iter().chain(&OWN_VARIABLES) {
            command.env_remove(variable);
        }
        for (name, value) in std::env::vars_os() {
            // For vassals alone, without the second word of the name.
            if let Some(rest) = name.to_str().and_then(|name| name.strip_prefix("UWSGI_VASSAL_")) {
                command.env_remove(&name).env(format!("UWSGI_{rest}"), value);
            }
        }
        if let Some(keep) = keep {
            command.env(EMPEROR_FD, keep.to_string());
        }
        let before_exec = move || {
            keep_alone(keep)?;
            rights.as_ref().map_or(Ok(()), Rights::take)?;
            // The emperor's alone: who has them could become anybody.
            Ok(clear_ambient_capability_set()?)
        };
        // SAFETY: the closure runs between fork and exec, where only what a signal handler may do is allowed: it makes
        // system calls with memory that was prepared before.
        unsafe { command.pre_exec(before_exec) };
        // The child is reaped with all others.
        Ok(Pid::from_raw(command.spawn()?.id() as i32))
    }
}

/// Set for a vassal that runs as the owner of its file: it reads no file of anybody else but root.
const OWNED: &str = rwsgi_config::OWNED_ONLY;

/// Variables that are for the emperor alone. A vassal that took the first for an option would be an emperor itself.
const OWN_VARIABLES: [&str; 3] = ["UWSGI_EMPEROR", "UWSGI_RELOADS", EMPEROR_FD_CONFIG];

/// What the owner of a vassal's file may do.
struct Rights {
    owner: Owner,
    groups: Vec<Gid>,
}

impl Rights {
    fn of(owner: Owner, with_groups: bool) -> io::Result<Self> {
        let user = if with_groups { User::from_uid(Uid::from_raw(owner.uid))? } else { None };
        let groups = match user {
            Some(user) => getgrouplist(&CString::new(user.name)?, user.gid)?,
            None => Vec::new(),
        };
        Ok(Self { owner, groups })
    }

    /// Becomes that user, for good.
    fn take(&self) -> io::Result<()> {
        setgroups(&self.groups)?;
        setgid(Gid::from_raw(self.owner.gid))?;
        setuid(Uid::from_raw(self.owner.uid))?;
        Ok(())
    }
}

/// Has the program that is executed next inherit no descriptor but this one and the standard ones.
fn keep_alone(keep: Option<RawFd>) -> io::Result<()> {
    // SAFETY: system calls without memory of ours, on descriptors of a process that is about to execute a program.
    unsafe {
        // Kernels before 5.11 do not know it; what is ours closes by itself anyway.
        libc::syscall(libc::SYS_close_range, 3_u32, u32::MAX, libc::CLOSE_RANGE_CLOEXEC);
        if let Some(fd) = keep
            && libc::fcntl(fd, libc::F_SETFD, 0) < 0
        {
            return Err(io::Error::last_os_error());
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use std::ffi::OsStr;

    use super::*;

    #[test]
    fn a_vassal_is_given_options_before_and_after_its_file() {
        let texts = |texts: &[&str]| texts.iter().map(|text| (*text).to_owned()).collect::<Vec<_>>();
        let config = EmperorConfig {
            set: texts(&["processes=2"]),
            inherit_before: texts(&["b.ini"]),
            include: texts(&["c.ini"]),
            ..EmperorConfig::default()
        };
        let launcher = Launcher::new(OsStr::new("rwsgi").into(), Vec::new());
        let (directory, owner) = (Path::new("/"), Owner::default());
        let spawn = Spawn { config: &config, launcher: &launcher, name: "a.yaml", directory, owner, socket: None };
        let expected = ["--inherit", "b.ini", "--set", "processes=2", "--yaml", "a.yaml", "--include", "c.ini"];
        assert_eq!(spawn.arguments(), expected);
    }
}
