//! The actions of hooks.

use std::fs::{self, File, OpenOptions, Permissions};
use std::io::{ErrorKind, Write};
use std::os::unix::fs::{OpenOptionsExt, PermissionsExt};
use std::path::Path;
use std::process::ExitStatus;
use std::time::Duration;

use anyhow::{Context, bail, ensure};
use nix::fcntl::OFlag;
use nix::libc::{ENODEV, ENXIO};
use nix::unistd::{Gid, Group, Uid, User};
use rwsgi_config::Config;
use rwsgi_config::hooks::Action;
use tracing::{error, info, warn};

use super::command::{shell, with_variables};
use super::{Place, call, wait};

/// How often a pipe without a reader is tried again.
const AGAIN: Duration = Duration::from_millis(500);

/// Does it, and waits until it is done.
pub(super) fn perform(action: &Action, config: &Config, place: &mut Place<'_, '_>) -> anyhow::Result<()> {
    match action {
        Action::Exec(command) => succeed(run(command, config, place)?),
        Action::SafeExec(command) => {
            if let Err(failure) = run(command, config, place).and_then(succeed) {
                error!("'{command}': {failure:#}");
            }
            Ok(())
        }
        Action::PutEnv(name, value) => put_variable(name, value, place),
        Action::Call(target) => match place {
            Place::Python(py) => call::call(*py, target),
            // The configuration allows it in phases that have Python.
            Place::Plain(_) => bail!("there is no Python in this process"),
        },
        Action::Alarm(name, text) => match place {
            Place::Python(py) => call::alarm(*py, name, text),
            // As with uWSGI: nobody is there to take it yet.
            Place::Plain(_) => {
                warn!("alarm '{name}' is not raised before the server serves: {text}");
                Ok(())
            }
        },
        Action::WaitFor(awaited) => wait::wait_for(&config.hooks, awaited),
        Action::SpinningFifo(path, text) => {
            info!("waiting for somebody to read '{}'", path.display());
            while !write_to_pipe(path, text).or_else(|error| match error.kind() {
                ErrorKind::NotFound => Ok(false),
                _ => Err(error),
            })? {
                std::thread::sleep(AGAIN);
            }
            Ok(())
        }
        Action::Exit(status) => std::process::exit(*status),
        other => perform_at_once(other),
    }
}

/// The same for what takes no time. Nothing for what is done elsewhere.
pub(crate) fn perform_at_once(action: &Action) -> anyhow::Result<()> {
    match action {
        Action::ChangeDirectory(path) => Ok(std::env::set_current_dir(path)?),
        Action::MakeDirectory(path) => Ok(fs::create_dir(path)?),
        Action::ChangeMode(path, mode) => Ok(fs::set_permissions(path, Permissions::from_mode(*mode))?),
        Action::ChangeOwner(path, user, group) => change_owner(path, user, group),
        Action::Sticky(path) => {
            let mode = fs::metadata(path)?.permissions().mode();
            Ok(fs::set_permissions(path, Permissions::from_mode(mode | 0o1000))?)
        }
        Action::Create(path) => File::create(path).map(drop).with_context(|| format!("'{}'", path.display())),
        Action::Write { path, text, append } => {
            let mut options = OpenOptions::new();
            options.create(true).write(true).append(*append).truncate(!*append);
            let file = options.open(path).with_context(|| format!("'{}'", path.display()));
            Ok(file?.write_all(text.as_bytes())?)
        }
        Action::WriteFifo(path, text) => {
            write_to_pipe(path, text).map(drop).with_context(|| format!("'{}'", path.display()))
        }
        Action::Unlink(path) => fs::remove_file(path).with_context(|| format!("'{}'", path.display())),
        Action::Print(line) => {
            info!("{line}");
            Ok(())
        }
        Action::Hostname(name) => nix::unistd::sethostname(name).context("cannot set the host's name"),
        _ => Ok(()),
    }
}

/// Runs a command and waits for it. Other threads of Python go on meanwhile.
fn run(command: &str, config: &Config, place: &Place<'_, '_>) -> anyhow::Result<ExitStatus> {
    let mut shell = shell(config, command);
    let status = match place {
        Place::Plain(variables) => {
            with_variables(&mut shell, config, variables);
            shell.status()
        }
        Place::Python(py) => py.detach(|| shell.status()),
    };
    status.with_context(|| format!("cannot run '{}'", shell.get_program().display()))
}

fn succeed(status: ExitStatus) -> anyhow::Result<()> {
    ensure!(status.success(), "{status}");
    Ok(())
}

fn put_variable(name: &str, value: &str, place: &mut Place<'_, '_>) -> anyhow::Result<()> {
    match place {
        Place::Plain(variables) => variables.push((name.into(), value.into())),
        Place::Python(py) => call::put_variable(*py, name, value)?,
    }
    Ok(())
}

/// Whether somebody reads the pipe, who has it then.
fn write_to_pipe(path: &Path, text: &str) -> std::io::Result<bool> {
    let flags = OFlag::O_NONBLOCK.bits();
    match OpenOptions::new().write(true).custom_flags(flags).open(path) {
        Ok(mut pipe) => pipe.write_all(text.as_bytes()).map(|()| true),
        Err(error) if matches!(error.raw_os_error(), Some(ENXIO | ENODEV)) => Ok(false),
        Err(error) => Err(error),
    }
}

/// A name is looked up now: what ran before may have made the user.
fn change_owner(path: &Path, user: &str, group: &str) -> anyhow::Result<()> {
    let uid = match user.parse() {
        Ok(number) => Uid::from_raw(number),
        Err(_) => User::from_name(user)?.with_context(|| format!("there is no user '{user}'"))?.uid,
    };
    let gid = match group.parse() {
        Ok(number) => Gid::from_raw(number),
        Err(_) => Group::from_name(group)?.with_context(|| format!("there is no group '{group}'"))?.gid,
    };
    nix::unistd::chown(path, Some(uid), Some(gid)).with_context(|| format!("'{}'", path.display()))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn perform_plainly(action: &Action) -> anyhow::Result<()> {
        perform(action, &Config::default(), &mut Place::Plain(&mut Vec::new()))
    }

    #[test]
    fn files_are_written_in_place_or_behind() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("out");
        let write = |text: &str, append| Action::Write { path: path.clone(), text: text.into(), append };
        for (action, holds) in
            [(write("one", false), "one"), (write(" two", true), "one two"), (write("3", false), "3")]
        {
            perform_plainly(&action).unwrap();
            assert_eq!(fs::read_to_string(&path).unwrap(), holds);
        }
        perform_plainly(&Action::ChangeMode(path.clone(), 0o640)).unwrap();
        perform_plainly(&Action::Sticky(path.clone())).unwrap();
        assert_eq!(fs::metadata(&path).unwrap().permissions().mode() & 0o7777, 0o1640);
        perform_plainly(&Action::Create(path.clone())).unwrap();
        assert_eq!(fs::read(&path).unwrap(), b"");
        perform_plainly(&Action::Unlink(path.clone())).unwrap();
        let failure = perform_plainly(&Action::Unlink(path.clone())).unwrap_err();
        assert!(format!("{failure:#}").contains("out"), "{failure:#}");
    }

    #[test]
    fn a_command_has_the_variables_of_the_configuration() {
        let mut variables = vec![("COLOUR".to_owned(), "red".to_owned())];
        let mut place = Place::Plain(&mut variables);
        let config = Config { unenv: vec!["HOME".into()], ..Config::default() };
        perform(&Action::PutEnv("SHAPE".into(), "round".into()), &config, &mut place).unwrap();
        let command = r#"test "$COLOUR $SHAPE ${HOME-none}" = "red round none""#;
        perform(&Action::Exec(command.into()), &config, &mut place).unwrap();
    }

    #[test]
    fn any_status_but_0_is_a_failure() {
        let failure = perform_plainly(&Action::Exec("exit 3".into())).unwrap_err();
        assert!(failure.to_string().contains("exit status: 3"), "{failure}");
        perform_plainly(&Action::Exec("kill -9 $$".into())).unwrap_err();
        perform_plainly(&Action::SafeExec("exit 3".into())).unwrap();
    }

    #[test]
    fn a_pipe_that_nobody_reads_is_no_failure() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("pipe");
        nix::unistd::mkfifo(&path, nix::sys::stat::Mode::S_IRWXU).unwrap();
        perform_plainly(&Action::WriteFifo(path.clone(), "lost".into())).unwrap();
        perform_plainly(&Action::WriteFifo(directory.path().join("none"), "lost".into())).unwrap_err();
    }
}
