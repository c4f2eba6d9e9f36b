//! What a hook does: `ACTION:ARGUMENT`, as uWSGI's core has them.

use std::path::PathBuf;

use serde::{Deserialize, Serialize};

use super::{Awaited, Phase, Runs};
use crate::value;

/// What is called by `call` and its like.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Target {
    /// A Python callable, as `module.name` or `module:name`.
    pub name: String,
    /// What it is called with; `None` for nothing.
    pub argument: Option<String>,
    /// `callint`: the argument is a number.
    pub is_number: bool,
    /// `callret`: what it returns must be 0.
    pub returns: bool,
}

/// A function of uWSGI's master, by which hooks name orders to the server.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Function {
    /// Stop at once.
    KillThemAll,
    /// Stop after the requests in progress.
    GracefullyKillThemAll,
    /// Reload.
    GraceThemAll,
    /// Reload, and give the old workers no time.
    ReapThemAll,
    /// Rotate the log.
    LogRotate,
    /// Open the log again.
    LogReopen,
    /// Log the state of the workers.
    Stats,
}

/// By the name of the function in uWSGI's C source.
const FUNCTIONS: &[(&str, Function)] = &[
    ("kill_them_all", Function::KillThemAll),
    ("gracefully_kill_them_all", Function::GracefullyKillThemAll),
    ("grace_them_all", Function::GraceThemAll),
    ("uwsgi_reload_workers", Function::GraceThemAll),
    ("reap_them_all", Function::ReapThemAll),
    ("uwsgi_log_rotate", Function::LogRotate),
    ("uwsgi_log_reopen", Function::LogReopen),
    ("stats", Function::Stats),
];

/// What a hook does.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Action {
    /// Runs a command by the shell and waits for it; any status but 0 is a failure.
    Exec(String),
    /// The same, whatever its status.
    SafeExec(String),
    /// Changes the directory.
    ChangeDirectory(PathBuf),
    /// Makes a directory.
    MakeDirectory(PathBuf),
    /// Sets a variable of the environment.
    PutEnv(String, String),
    /// Sets permissions.
    ChangeMode(PathBuf, u32),
    /// Gives a file to a user and a group, by name or number.
    ChangeOwner(PathBuf, String, String),
    /// Sets the sticky bit.
    Sticky(PathBuf),
    /// Makes a file, or empties it.
    Create(PathBuf),
    /// Writes to a file.
    Write {
        /// The file, which is made if need be.
        path: PathBuf,
        /// What.
        text: String,
        /// Behind what is there, instead of in its place.
        append: bool,
    },
    /// Writes to a named pipe, if somebody reads it.
    WriteFifo(PathBuf, String),
    /// The same, and waits for somebody to read it.
    SpinningFifo(PathBuf, String),
    /// Removes a file.
    Unlink(PathBuf),
    /// Logs a line.
    Print(String),
    /// Ends the process with this status.
    Exit(i32),
    /// Sets the machine's name.
    Hostname(String),
    /// Has a signal do something else from now on.
    UnixSignal(i32, Function),
    /// Calls a Python callable.
    Call(Target),
    /// Gives the server an order.
    Order(Function),
    /// Raises an alarm.
    Alarm(String, String),
    /// Waits.
    WaitFor(Awaited),
    /// Accepted and without effect, as with uWSGI; a warning has said so.
    Nothing,
    /// Accepted, and not done here; a warning has said so.
    Lost,
}

/// Reads a hook for a phase; also returns what is to be warned of.
pub(super) fn parse(hook: &str, phase: Phase) -> Result<(Action, Option<String>), String> {
    let (name, argument) = hook.split_once(':').ok_or("ACTION:ARGUMENT, as in exec:./prepare")?;
    let name = name.strip_prefix('!').unwrap_or(name);
    let pair = |expected: &str| {
        let (first, second) = argument.split_once(' ').ok_or_else(|| format!("{name}:{expected}"))?;
        Ok::<_, String>((first, second))
    };
    let path = || PathBuf::from(argument);
    let runs = phase.row().runs;
    let action = match name {
        "exec" => Action::Exec(argument.into()),
        "safeexec" => Action::SafeExec(argument.into()),
        "cd" | "chdir" => Action::ChangeDirectory(path()),
        "mkdir" => Action::MakeDirectory(path()),
        "putenv" => {
            let (name, value) = argument.split_once('=').ok_or("putenv:NAME=VALUE")?;
            Action::PutEnv(name.into(), value.into())
        }
        "chmod" => {
            let (path, mode) = pair("FILE MODE")?;
            Action::ChangeMode(path.into(), value::mode(mode).map_err(|mode| format!("chmod:FILE and {mode}"))?)
        }
        "chown" | "chown2" => {
            let (path, owner) = pair("FILE USER GROUP")?;
            let (user, group) = owner.split_once(' ').ok_or_else(|| format!("{name}:FILE USER GROUP"))?;
            Action::ChangeOwner(path.into(), user.into(), group.into())
        }
        "sticky" => Action::Sticky(path()),
        "create" | "creat" => Action::Create(path()),
        "write" | "append" => {
            let (path, text) = pair("FILE TEXT")?;
            Action::Write { path: path.into(), text: text.into(), append: name == "append" }
        }
        "writen" => {
            let (path, text) = pair("FILE TEXT")?;
            Action::Write { path: path.into(), text: format!("{text}\n"), append: false }
        }
        "appendn" => {
            let (path, text) = argument.split_once(' ').unwrap_or((argument, ""));
            Action::Write { path: path.into(), text: format!("{text}\n"), append: true }
        }
        "writefifo" => pair("FILE TEXT").map(|(path, text)| Action::WriteFifo(path.into(), text.into()))?,
        "spinningfifo" => pair("FILE TEXT").map(|(path, text)| Action::SpinningFifo(path.into(), text.into()))?,
        "unlink" => Action::Unlink(path()),
        "print" | "log" => Action::Print(argument.into()),
        "exit" => Action::Exit(leading_digits(argument)),
        "hostname" => Action::Hostname(argument.into()),
        "alarm" => pair("ALARM TEXT").map(|(alarm, text)| Action::Alarm(alarm.into(), text.into()))?,
        "wait_for_fs" => Action::WaitFor(Awaited::Entry(path())),
        "wait_for_file" => Action::WaitFor(Awaited::File(path())),
        "wait_for_dir" => Action::WaitFor(Awaited::Directory(path())),
        "wait_for_socket" => Action::WaitFor(Awaited::Socket(argument.into())),
        "call" | "callret" | "callint" | "callintret" => return call(name, argument, runs).map(|call| (call, None)),
        "unix_signal" => {
            let (number, function) = pair("NUMBER FUNCTION")?;
            return unix_signal(number, function, phase);
        }
        "rpc" | "retryrpc" => {
            let lost = format!("the hook '{name}' is not available: have the application call the function");
            return Ok((Action::Lost, Some(lost)));
        }
        "mount" | "umount" => {
            return Err(format!(
                "another action than {name}: mounting is the service manager's, as systemd's BindPaths= or a container's"
            ));
        }
        _ => return Err("an action that there is: exec, chdir, write, touch … are in docs/hooks.md".into()),
    };
    if runs == Runs::Loop && matches!(action, Action::WaitFor(_) | Action::SpinningFifo(..)) {
        return Err(format!("another action than {name}, which would hold the master up while it serves"));
    }
    Ok((action, None))
}

/// A function of the master where the hook runs in it, a Python callable elsewhere.
fn call(name: &str, argument: &str, runs: Runs) -> Result<Action, String> {
    let (target, argument) = match argument.split_once(' ') {
        Some((target, argument)) => (target, Some(argument.to_owned())),
        None => (argument, None),
    };
    if let Some((_, function)) = FUNCTIONS.iter().find(|(name, _)| *name == target)
        && runs == Runs::Loop
    {
        return Ok(Action::Order(*function));
    }
    if runs != Runs::Python || target.is_empty() {
        return Err(
            "a Python callable in a phase that has Python: pre-app, post-app, post-fork, accepting…, as-mule".into()
        );
    }
    Ok(Action::Call(Target {
        name: target.into(),
        argument,
        is_number: name.starts_with("callint"),
        returns: name.ends_with("ret"),
    }))
}

fn unix_signal(number: &str, function: &str, phase: Phase) -> Result<(Action, Option<String>), String> {
    let function = function.trim();
    let known = FUNCTIONS.iter().find(|(name, _)| *name == function).map(|(_, function)| *function);
    let Some(function) = known else {
        let names: Vec<_> = FUNCTIONS.iter().map(|(name, _)| *name).collect();
        return Err(format!("unix_signal:NUMBER and one of {}", names.join(", ")));
    };
    let signal = leading_digits(number);
    let is_ours = matches!(signal, 1..=3 | 10 | 12 | 15 | 20);
    match phase {
        _ if !is_ours => Err("unix_signal of SIGHUP, SIGINT, SIGQUIT, SIGUSR1, SIGUSR2, SIGTERM or SIGTSTP".into()),
        Phase::MasterStart => Ok((Action::UnixSignal(signal, function), None)),
        // uWSGI's master and workers set their own handlers later, so that it has no effect there either.
        _ => {
            let lost = "unix_signal has an effect in hook-master-start only: write it there".to_owned();
            Ok((Action::Nothing, Some(lost)))
        }
    }
}

/// As C's `atoi`.
fn leading_digits(text: &str) -> i32 {
    let text = text.trim_start();
    text[..text.bytes().take_while(u8::is_ascii_digit).count()].parse().unwrap_or(0)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(phase: Phase, hook: &str) -> Result<Action, String> {
        parse(hook, phase).map(|(action, _)| action)
    }

    #[test]
    fn actions_are_read_with_their_arguments() {
        for (hook, action) in [
            ("exec:./manage.py migrate --noinput", Action::Exec("./manage.py migrate --noinput".into())),
            ("cd:/srv", Action::ChangeDirectory("/srv".into())),
            ("writen:/run/x a b", Action::Write { path: "/run/x".into(), text: "a b\n".into(), append: false }),
            ("appendn:/run/x", Action::Write { path: "/run/x".into(), text: "\n".into(), append: true }),
            ("chmod:/run/x 660", Action::ChangeMode("/run/x".into(), 0o660)),
            ("chown:/run/x www-data adm", Action::ChangeOwner("/run/x".into(), "www-data".into(), "adm".into())),
            ("!print:hello", Action::Print("hello".into())),
            ("exit:3", Action::Exit(3)),
        ] {
            assert_eq!(at(Phase::AsRoot, hook), Ok(action), "{hook}");
        }
        for wrong in ["exec", "write:/run/x", "chmod:/run/x", "mount:none /x", "nothing:at all", "putenv:A"] {
            at(Phase::AsRoot, wrong).unwrap_err();
        }
    }

    #[test]
    fn what_is_called_depends_on_where() {
        let target = |name: &str, argument: Option<&str>| Target {
            name: name.into(),
            argument: argument.map(Into::into),
            is_number: false,
            returns: false,
        };
        assert_eq!(at(Phase::PreApp, "call:app.prepare x"), Ok(Action::Call(target("app.prepare", Some("x")))));
        assert_eq!(at(Phase::MasterStart, "call:stats"), Ok(Action::Order(Function::Stats)));
        at(Phase::Asap, "call:app.prepare").unwrap_err();
        at(Phase::MasterStart, "call:app.prepare").unwrap_err();
    }

    #[test]
    fn signals_are_given_to_functions_of_the_master() {
        let hook = "unix_signal:15 gracefully_kill_them_all";
        assert_eq!(at(Phase::MasterStart, hook), Ok(Action::UnixSignal(15, Function::GracefullyKillThemAll)));
        let (action, warning) = parse(hook, Phase::PostFork).unwrap();
        assert!(action == Action::Nothing && warning.is_some());
        at(Phase::MasterStart, "unix_signal:15 nosuch").unwrap_err();
        at(Phase::MasterStart, "unix_signal:9 kill_them_all").unwrap_err();
    }

    #[test]
    fn nothing_holds_the_master_up_while_it_serves() {
        at(Phase::MasterStart, "wait_for_file:/run/x").unwrap_err();
        at(Phase::AsRoot, "wait_for_file:/run/x").unwrap();
    }
}
