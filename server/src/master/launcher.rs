//! Starting the master's processes by exec.

use std::ffi::{OsStr, OsString};
use std::io;
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::ffi::OsStrExt;
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::Command;

use nix::unistd::Pid;

use crate::ipc::first::send_first;
use crate::ipc::inherit::InheritedFd;
use crate::ipc::{Setup, channel};
use crate::procname;
use crate::vassal;
use crate::without_python::Way;
use crate::wsgi::interpreter::OPTIMIZE;
use rwsgi_config::Config;

/// Variables of the environment by which a supervisor, or an emperor, speaks to this process alone.
pub(crate) const VARIABLES: [&str; 8] = [
    "NOTIFY_SOCKET",
    "WATCHDOG_USEC",
    "WATCHDOG_PID",
    "LISTEN_FDS",
    "LISTEN_PID",
    "LISTEN_FDNAMES",
    vassal::EMPEROR_FD,
    vassal::EMPEROR_FD_CONFIG,
];

/// How to enter [`crate::run`] again in a fresh process.
#[derive(Debug)]
pub struct Launcher {
    /// The program.
    pub program: OsString,
    /// What comes before our own arguments: the Python package's path, when the program is Python.
    pub prefix: Vec<OsString>,
    /// The library that enters it without Python ([`crate::without_python`]); `None` where this process has one.
    pub(crate) library: Option<PathBuf>,
    /// Where it writes its standard output and error; `None` for where this process does.
    pub output: Option<OwnedFd>,
    /// Where the server was started.
    pub directory: PathBuf,
}

impl Launcher {
    /// One that starts `program` with `prefix` before our own arguments.
    #[must_use]
    pub fn new(program: OsString, prefix: Vec<OsString>) -> Self {
        Self { program, prefix, library: None, output: None, directory: PathBuf::new() }
    }

    /// What comes before our own arguments for a process that runs nothing of the application's. Without `site`, an agent
    /// that the environment brings into every Python does not start there.
    pub(crate) fn bare_prefix(&self) -> impl Iterator<Item = OsString> {
        let without_site = (!self.prefix.is_empty()).then(|| "-S".into());
        without_site.into_iter().chain(self.prefix.iter().cloned())
    }

    /// How such a process is started without Python, where that is possible and this program is not such a one anyway.
    pub(crate) fn without_python(&self) -> Option<Way> {
        Way::find(&self.program, self.library.as_deref()?)
    }

    /// Executes the server in this process once more, with Python. Returns only when that fails.
    pub(crate) fn with_python(&self, arguments: &[OsString]) -> io::Error {
        Command::new(&self.program).args(&self.prefix).args(arguments).exec()
    }
}

/// The first argument of a process that the master started; the descriptor of its channel follows it.
pub(crate) const FORKSERVER_ROLE: &str = "@forkserver";
/// The same for the router.
pub(crate) const ROUTER_ROLE: &str = "@http";
/// The same for the emperor beside a server.
pub(crate) const EMPEROR_ROLE: &str = "@emperor";
/// The same for a vassal that is about to be executed, which the emperor starts.
pub(crate) const VASSAL_ROLE: &str = "@vassal";

impl Launcher {
    /// Starts a process in `role` and sends it its setup. Returns its id and the master's end of the channel.
    ///
    /// `home` is a virtual environment whose Python is to run it, when Python runs it at all.
    ///
    /// # Errors
    /// When the process cannot be started.
    pub fn start(&self, role: &str, home: Option<&Path>, setup: &Setup) -> io::Result<(Pid, OwnedFd)> {
        let (ours, theirs) = channel()?;
        let program = match home {
            Some(home) if !self.prefix.is_empty() => home.join("bin/python").into_os_string(),
            _ => self.program.clone(),
        };
        let number = InheritedFd::lend(theirs.as_fd())?.number().to_string();
        // The child is reaped with all others, by `super::process::reap`.
        let way = if role == FORKSERVER_ROLE { None } else { self.without_python() };
        let mut command = Command::new(way.as_ref().map_or(&program, |way| &way.path));
        if role == FORKSERVER_ROLE {
            command.args(&self.prefix);
        } else {
            command.args(self.bare_prefix());
        }
        if let Some(way) = way {
            command.arg0(&program).envs(way.variables);
        }
        command.args([OsStr::new(role), OsStr::from_bytes(number.as_bytes())]);
        command.arg(procname::padding(&setup.config.procname));
        command.current_dir(self.directory_of(&setup.config));
        for variable in VARIABLES {
            command.env_remove(variable);
        }
        if setup.config.python.optimize > 0 {
            command.env(OPTIMIZE, setup.config.python.optimize.to_string());
        }
        if let Some(output) = &self.output {
            command.stdout(output.try_clone()?).stderr(output.try_clone()?);
        }
        let child = command.spawn();
        // The next process that is started gets its own set, and what nobody owns there would stay open forever.
        for fd in setup.descriptors() {
            fd.close_on_exec()?;
        }
        let child = child.map_err(|error| io::Error::new(error.kind(), format!("'{}': {error}", program.display())))?;
        send_first(ours.as_fd(), setup)?;
        Ok((Pid::from_raw(child.id() as i32), ours))
    }

    /// Where a server of this configuration runs.
    #[must_use]
    pub fn directory_of<'a>(&'a self, config: &'a Config) -> &'a Path {
        config.chdir.as_deref().unwrap_or(&self.directory)
    }
}

#[cfg(test)]
mod tests {
    use nix::fcntl::{FcntlArg, FdFlag, fcntl};

    use super::*;
    use crate::clock::UnixMicros;
    use crate::io::temp::TempPlace;
    use crate::ipc::ShareDescriptors;
    use crate::stats::scoreboard::Layout;

    /// The next process may be the application's.
    #[test]
    fn what_a_process_was_to_inherit_that_could_not_be_started_is_inherited_by_no_other() {
        let file = std::fs::File::open("/dev/null").unwrap();
        let lend = || InheritedFd::lend(file.as_fd()).unwrap();
        let setup = Setup {
            config: Config::default(),
            layout: Layout::new(1, 1),
            scoreboard: lend(),
            stacks: lend(),
            routes: None,
            traces: None,
            liveness: lend(),
            notices: lend(),
            share: ShareDescriptors { board: lend(), caches: Vec::new(), queues: Vec::new(), peers: None },
            calls: lend(),
            listeners: Vec::new(),
            link_listener: None,
            has_certificates: false,
            link: None,
            generation: None,
            again: false,
            request_log: None,
            temp: TempPlace::of_test(None),
            started_at: UnixMicros::now(),
        };
        let mut launcher = Launcher::new("/nothing/here".into(), Vec::new());
        launcher.directory = "/".into();
        assert!(launcher.start(ROUTER_ROLE, None, &setup).is_err());
        assert_eq!(fcntl(&file, FcntlArg::F_GETFD), Ok(FdFlag::FD_CLOEXEC.bits()));
    }
}
