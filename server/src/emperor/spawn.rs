//! Starting the processes of vassals and their hooks, with the rights that they are to have.

#![allow(unsafe_code)]

use std::ffi::{CString, OsString};
use std::io;
use std::os::fd::{AsFd, AsRawFd, OwnedFd, RawFd};
use std::os::unix::net::UnixStream;
use std::os::unix::process::CommandExt;
use std::path::Path;
use std::process::{Command, Stdio};

use nix::libc;
use nix::unistd::{Gid, Pid, Uid, User, getgrouplist, setgid, setgroups, setuid};
use rustix::thread::clear_ambient_capability_set;

use super::as_vassal::{Before, Program};
use super::scan::option_for;
use super::vassals::Owner;
use crate::hooks::with_variables;
use crate::ipc::channel;
use crate::ipc::first::send_first;
use crate::master::launcher::{Launcher, VARIABLES, VASSAL_ROLE};
use crate::master::shell::restore_descriptor_limit;
use crate::vassal::{EMPEROR_FD, EMPEROR_FD_CONFIG};
use crate::without_python::Way;
use rwsgi_config::Config;
use rwsgi_config::hooks::Phase;

/// What is to be started for a vassal.
pub(super) struct Spawn<'a> {
    pub(super) config: &'a Config,
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
        let programs = self.programs();
        if self.config.hooks.has(Phase::AsVassal) {
            return Ok((self.run_after_hooks(programs, &theirs)?, ours));
        }
        let mut failure = io::Error::from(io::ErrorKind::NotFound);
        for program in programs {
            match self.run_connected(&mut program.command(), &[theirs.as_raw_fd()]) {
                Ok(pid) => return Ok((pid, ours)),
                Err(error) => {
                    let name = program.path.to_string_lossy();
                    failure = io::Error::new(error.kind(), format!("'{name}': {error}"));
                }
            }
        }
        Err(failure)
    }

    /// What is to be executed as the vassal: the first that can be.
    fn programs(&self) -> Vec<Program> {
        let config = &self.config.emperor;
        let arguments = self.arguments();
        let of = |program: &String| Program {
            path: program.into(),
            name: None,
            arguments: arguments.clone(),
            variables: Vec::new(),
        };
        let own = config.wrapper.as_ref().map_or_else(|| self.own_program(&arguments), of);
        let before = config.wrapper_override.iter().map(of);
        before.chain([own]).chain(config.wrapper_fallback.iter().map(of)).collect()
    }

    /// Starts this program, which runs the hooks of a vassal with its rights and then executes it.
    fn run_after_hooks(&self, programs: Vec<Program>, theirs: &UnixStream) -> io::Result<Pid> {
        let (ours, setup) = channel()?;
        let mut hooks = self.config.hooks.clone();
        hooks.hooks.retain(|hook| hook.phase == Phase::AsVassal);
        // Before there is somebody to read it.
        send_first(ours.as_fd(), &Before { hooks, unenv: self.config.unenv.clone(), programs })?;
        let number = setup.as_raw_fd().to_string();
        let own = self.own_program(&[VASSAL_ROLE.into(), number.into(), self.name.into()]);
        self.run_connected(&mut own.command(), &[theirs.as_raw_fd(), setup.as_raw_fd()])
    }

    /// Starts a program that is or becomes the vassal. The first descriptor that it keeps is its connection.
    fn run_connected(&self, command: &mut Command, keep: &[RawFd]) -> io::Result<Pid> {
        command.stdin(match self.socket {
            Some(socket) => Stdio::from(socket.try_clone()?),
            None => Stdio::null(),
        });
        self.run(command, keep)
    }

    /// Starts a program with the vassal's name, with the vassal's rights if `as_vassal`.
    ///
    /// # Errors
    /// When it cannot be started.
    pub(super) fn hook(&self, program: &str, as_vassal: bool) -> io::Result<Pid> {
        let mut command = Command::new(program);
        command.arg(self.name).env("UWSGI_VASSALS_DIR", self.directory).stdin(Stdio::null());
        if as_vassal { self.run(&mut command, &[]) } else { self.run_as(&mut command, &[], None) }
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

    fn own_program(&self, arguments: &[OsString]) -> Program {
        let Launcher { program, prefix, .. } = self.launcher;
        let arguments = self.launcher.bare_prefix().chain(arguments.iter().cloned()).collect();
        if let Some(Way { path, variables }) = self.launcher.without_python() {
            return Program { path, name: Some(program.clone()), arguments, variables: variables.into() };
        }
        let name = prefix.is_empty().then(|| "rwsgi".into());
        Program { path: program.clone(), name, arguments, variables: Vec::new() }
    }

    /// The command line, as uWSGI's emperor gives it.
    fn arguments(&self) -> Vec<OsString> {
        let config = &self.config.emperor;
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
    fn run(&self, command: &mut Command, keep: &[RawFd]) -> io::Result<Pid> {
        let config = &self.config.emperor;
        let rights = config.tyrant.then(|| Rights::of(self.owner, config.tyrant_initgroups)).transpose()?;
        if rights.is_some() && !config.tyrant_nofollow {
            command.env(OWNED, "1");
        }
        self.run_as(command, keep, rights)
    }

    fn run_as(&self, command: &mut Command, keep: &[RawFd], rights: Option<Rights>) -> io::Result<Pid> {
        command.current_dir(self.directory);
        with_variables(command, self.config, &self.config.env);
        for variable in VARIABLES.iter().chain(&OWN_VARIABLES) {
            command.env_remove(variable);
        }
        let own = self.config.env.iter().map(|(name, value)| (name.into(), value.into()));
        for (name, value) in std::env::vars_os().chain(own) {
            // For vassals alone, without the second word of the name.
            if let Some(rest) = name.to_str().and_then(|name| name.strip_prefix("UWSGI_VASSAL_")) {
                command.env_remove(&name).env(format!("UWSGI_{rest}"), value);
            }
        }
        if let Some(connection) = keep.first() {
            command.env(EMPEROR_FD, connection.to_string());
        }
        let keep = keep.to_vec();
        let before_exec = move || {
            keep_alone(&keep)?;
            restore_descriptor_limit()?;
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

/// Has the program that is executed next inherit no descriptor but these and the standard ones.
fn keep_alone(keep: &[RawFd]) -> io::Result<()> {
    // SAFETY: system calls without memory of ours, on descriptors of a process that is about to execute a program.
    unsafe {
        // Kernels before 5.11 do not know it; what is ours closes by itself anyway.
        libc::syscall(libc::SYS_close_range, 3_u32, u32::MAX, libc::CLOSE_RANGE_CLOEXEC);
        for fd in keep {
            if libc::fcntl(*fd, libc::F_SETFD, 0) < 0 {
                return Err(io::Error::last_os_error());
            }
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use std::ffi::OsStr;

    use rwsgi_config::EmperorConfig;

    use super::*;

    #[test]
    fn a_vassal_is_given_options_before_and_after_its_file() {
        let texts = |texts: &[&str]| texts.iter().map(|text| (*text).to_owned()).collect::<Vec<_>>();
        let emperor = EmperorConfig {
            set: texts(&["processes=2"]),
            inherit_before: texts(&["b.ini"]),
            include: texts(&["c.ini"]),
            ..EmperorConfig::default()
        };
        let config = Config { emperor, ..Config::default() };
        let launcher = Launcher::new(OsStr::new("rwsgi").into(), Vec::new());
        let (directory, owner) = (Path::new("/"), Owner::default());
        let spawn = Spawn { config: &config, launcher: &launcher, name: "a.yaml", directory, owner, socket: None };
        let expected = ["--inherit", "b.ini", "--set", "processes=2", "--yaml", "a.yaml", "--include", "c.ini"];
        assert_eq!(spawn.arguments(), expected);
    }
}
