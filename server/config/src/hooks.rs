//! Hooks: what is done at the moments of a server's life (`hook-*`, `exec-*`, `call-*`), and what its start waits for
//! (`wait-for-*`, `flock*`).
//!
//! [`PHASES`] is the one table of the moments; `action` has the one of the actions.

mod action;
mod rows;

use std::path::PathBuf;

pub use action::{Action, Function, Target};
pub(crate) use rows::ROWS;
use serde::{Deserialize, Serialize};

use super::Config;

/// A moment of a server's life, in the order in which they come.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub enum Phase {
    /// Before anything else.
    Asap,
    /// Once, before a jail would be entered.
    PreJail,
    /// As root, once there was nothing to confine.
    InJail,
    /// As root, when `jailed` says that somebody else has confined the server.
    PostJail,
    /// As root, just before privileges are dropped.
    AsRoot,
    /// Just after privileges were dropped.
    AsUser,
    /// Before the application is loaded.
    PreApp,
    /// After it.
    PostApp,
    /// The master has processes.
    MasterStart,
    /// A worker was forked.
    PostFork,
    /// A worker begins to serve.
    Accepting,
    /// The same, for the first process of each worker.
    AcceptingOnce,
    /// Worker 1 begins to serve.
    Accepting1,
    /// The same, for its first process.
    Accepting1Once,
    /// A mule was forked.
    AsMule,
    /// The http router starts.
    AsGateway,
    /// In the emperor, when a vassal was started.
    AsEmperor,
    /// In the process that is about to be a vassal.
    AsVassal,
    /// The emperor starts.
    EmperorStart,
    /// In a vassal that its emperor tells to stop.
    EmperorStop,
    /// In a vassal that its emperor tells to reload.
    EmperorReload,
    /// In a vassal whose emperor is gone.
    EmperorLost,
    /// A named file has changed.
    Touch,
    /// At the server's end, and before a reload.
    AsUserAtexit,
}

/// Where the hooks of a phase run.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Runs {
    /// In the master, which has no Python, before it serves.
    Start,
    /// In the master while it serves: nothing may hold it up.
    Loop,
    /// In a process that has Python.
    Python,
    /// In another process that has none.
    Plain,
}

/// What is known of a phase.
#[derive(Debug)]
pub struct PhaseRow {
    /// Which one.
    pub phase: Phase,
    /// Its name in options.
    pub name: &'static str,
    /// When it comes, for the reader.
    pub when: &'static str,
    /// In which process its hooks run, for the reader.
    pub process: &'static str,
    /// As whom, for the reader.
    pub user: &'static str,
    /// Where its hooks run.
    pub runs: Runs,
    /// A hook that fails ends the start, or the server.
    pub is_fatal: bool,
}

/// Every phase, in order.
#[rustfmt::skip]
pub static PHASES: &[PhaseRow] = &[
    PhaseRow { phase: Phase::Asap, name: "asap", when: "before anything else; at a reload before the application is loaded again",
               process: "master; at a reload the new fork server", user: "who starts it; at a reload `uid`", runs: Runs::Start, is_fatal: true },
    PhaseRow { phase: Phase::PreJail, name: "pre-jail", when: "before sockets are bound; not at a reload",
               process: "master", user: "who starts it", runs: Runs::Start, is_fatal: true },
    PhaseRow { phase: Phase::InJail, name: "in-jail", when: "after that; at a reload too",
               process: "master; at a reload the new fork server", user: "who starts it; at a reload `uid`", runs: Runs::Start, is_fatal: true },
    PhaseRow { phase: Phase::PostJail, name: "post-jail", when: "after that, with `jailed`, when started as root",
               process: "master", user: "root", runs: Runs::Start, is_fatal: true },
    PhaseRow { phase: Phase::AsRoot, name: "as-root", when: "after that, before sockets are bound, when started as root",
               process: "master", user: "root", runs: Runs::Start, is_fatal: true },
    PhaseRow { phase: Phase::AsUser, name: "as-user", when: "after sockets are bound and privileges dropped, when started as root",
               process: "master", user: "`uid`", runs: Runs::Start, is_fatal: true },
    PhaseRow { phase: Phase::PreApp, name: "pre-app", when: "before the application is loaded, at the start and at each reload",
               process: "fork server; with `lazy-apps` each worker", user: "`uid`", runs: Runs::Python, is_fatal: true },
    PhaseRow { phase: Phase::PostApp, name: "post-app", when: "after it is loaded",
               process: "fork server; with `lazy-apps` each worker", user: "`uid`", runs: Runs::Python, is_fatal: true },
    PhaseRow { phase: Phase::MasterStart, name: "master-start", when: "when the application is loaded, at the start and at each reload",
               process: "master", user: "`uid`", runs: Runs::Loop, is_fatal: true },
    PhaseRow { phase: Phase::PostFork, name: "post-fork", when: "in each worker, once it is forked",
               process: "worker", user: "`uid`", runs: Runs::Python, is_fatal: true },
    PhaseRow { phase: Phase::Accepting, name: "accepting", when: "in each worker, before it serves",
               process: "worker", user: "`uid`", runs: Runs::Python, is_fatal: true },
    PhaseRow { phase: Phase::AcceptingOnce, name: "accepting-once", when: "the same, in the first process of each worker since the start or a reload",
               process: "worker", user: "`uid`", runs: Runs::Python, is_fatal: true },
    PhaseRow { phase: Phase::Accepting1, name: "accepting1", when: "in worker 1, before it serves",
               process: "worker 1", user: "`uid`", runs: Runs::Python, is_fatal: true },
    PhaseRow { phase: Phase::Accepting1Once, name: "accepting1-once", when: "the same, in its first process since the start or a reload",
               process: "worker 1", user: "`uid`", runs: Runs::Python, is_fatal: true },
    PhaseRow { phase: Phase::AsMule, name: "as-mule", when: "in each mule, once it is forked",
               process: "mule", user: "`uid`", runs: Runs::Python, is_fatal: true },
    PhaseRow { phase: Phase::AsGateway, name: "as-gateway", when: "when the http router starts",
               process: "http router", user: "`uid`", runs: Runs::Plain, is_fatal: true },
    PhaseRow { phase: Phase::AsEmperor, name: "as-emperor", when: "when a vassal was started",
               process: "emperor", user: "the emperor's", runs: Runs::Loop, is_fatal: false },
    PhaseRow { phase: Phase::AsVassal, name: "as-vassal", when: "before a vassal's program is executed",
               process: "vassal", user: "the vassal's", runs: Runs::Plain, is_fatal: true },
    PhaseRow { phase: Phase::EmperorStart, name: "emperor-start", when: "before the first vassal is started",
               process: "emperor", user: "the emperor's", runs: Runs::Start, is_fatal: true },
    PhaseRow { phase: Phase::EmperorStop, name: "emperor-stop", when: "when the emperor tells this vassal to stop, before it does",
               process: "master", user: "`uid`", runs: Runs::Loop, is_fatal: false },
    PhaseRow { phase: Phase::EmperorReload, name: "emperor-reload", when: "when the emperor tells this vassal to reload, before it does",
               process: "master", user: "`uid`", runs: Runs::Loop, is_fatal: false },
    PhaseRow { phase: Phase::EmperorLost, name: "emperor-lost", when: "when this vassal's emperor is gone, before it stops",
               process: "master", user: "`uid`", runs: Runs::Loop, is_fatal: false },
    PhaseRow { phase: Phase::Touch, name: "touch", when: "when the file that the option names changes",
               process: "master", user: "`uid`", runs: Runs::Loop, is_fatal: false },
    PhaseRow { phase: Phase::AsUserAtexit, name: "as-user-atexit", when: "at the end, and before a reload",
               process: "master; at a reload the new fork server", user: "`uid`", runs: Runs::Start, is_fatal: false },
];

impl Phase {
    /// What is known of it.
    #[must_use]
    pub fn row(self) -> &'static PhaseRow {
        // Every phase has a row, which a test checks; the first is as good as any to keep this from panicking.
        PHASES.iter().find(|row| row.phase == self).unwrap_or(&PHASES[0])
    }
}

/// Which option a hook was given by: in a phase those of `hook-*` come first, then `exec-*`, then `call-*`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub enum Family {
    /// `hook-*`.
    Hook,
    /// `exec-*`.
    Exec,
    /// `call-*`.
    Call,
    /// `file-write`.
    File,
}

/// One thing to do at a phase.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Hook {
    /// When.
    pub phase: Phase,
    /// By which option.
    pub family: Family,
    /// What.
    pub action: Action,
    /// As it was written, for the log; `None` for one that is not to be shown (`!exec:…`).
    pub text: Option<String>,
    /// `hook-touch`: the file that is watched.
    pub file: Option<PathBuf>,
}

/// What a start waits for before privileges are dropped.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Awaited {
    /// A network interface.
    Interface(String),
    /// Anything in the file system.
    Entry(PathBuf),
    /// A plain file.
    File(PathBuf),
    /// A directory.
    Directory(PathBuf),
    /// A directory on which a file system is mounted.
    MountPoint(PathBuf),
    /// A socket that takes connections, as its address is written.
    Socket(String),
}

/// `flock` and its like: a file that only one server may hold locked.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Flock {
    /// The option, for messages.
    pub option: String,
    /// The file, which must be there.
    pub path: PathBuf,
    /// Waits for the one that holds it, instead of ending.
    pub waits: bool,
    /// After the log is set up and the server is in the background.
    pub is_late: bool,
}

/// Hooks, and what the start waits for.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct HooksConfig {
    /// In the order in which they run.
    pub hooks: Vec<Hook>,
    /// In the order in which they are waited for.
    pub awaited: Vec<Awaited>,
    /// `wait-for-interface-timeout`: seconds; 0 for 60.
    pub interface_timeout: u32,
    /// `wait-for-fs-timeout`: seconds; 0 for 60.
    pub fs_timeout: u32,
    /// `wait-for-socket-timeout`: seconds; 0 for 60.
    pub socket_timeout: u32,
    /// `flock*`.
    pub flocks: Vec<Flock>,
    /// `jailed`: somebody else has confined this server.
    pub jailed: bool,
    /// `binsh`: shells that run commands; the first that is executable is taken, or `/bin/sh`.
    pub shells: Vec<PathBuf>,
    /// Where the server was started: hooks of the first phases run there. Set by the server.
    pub directory: PathBuf,
}

impl Default for HooksConfig {
    fn default() -> Self {
        Self {
            hooks: Vec::new(),
            awaited: Vec::new(),
            interface_timeout: 60,
            fs_timeout: 60,
            socket_timeout: 60,
            flocks: Vec::new(),
            jailed: false,
            shells: Vec::new(),
            directory: PathBuf::new(),
        }
    }
}

impl HooksConfig {
    /// Those of a phase, in order.
    pub fn of(&self, phase: Phase) -> impl Iterator<Item = &Hook> {
        self.hooks.iter().filter(move |hook| hook.phase == phase)
    }

    /// Whether a phase has any.
    #[must_use]
    pub fn has(&self, phase: Phase) -> bool {
        self.of(phase).next().is_some()
    }
}

/// Adds a hook behind those that run before it.
fn add(config: &mut Config, hook: Hook) {
    let hooks = &mut config.hooks.hooks;
    let at = hooks.partition_point(|before| (before.phase, before.family) <= (hook.phase, hook.family));
    hooks.insert(at, hook);
}

fn remark(config: &mut Config, action: &Action, warning: Option<String>) {
    match action {
        Action::Lost => warning.into_iter().for_each(|warning| config.lose(warning)),
        _ => config.warnings.extend(warning),
    }
}

/// A value of `hook-*`: `ACTION:ARGUMENT`, with `!` before it for one that the log does not show.
fn add_hook(config: &mut Config, phase: Phase, value: &str) -> Result<(), String> {
    let (action, warning) = action::parse(value, phase)?;
    remark(config, &action, warning);
    let text = (!value.starts_with('!')).then(|| value.to_owned());
    add(config, Hook { phase, family: Family::Hook, action, text, file: None });
    Ok(())
}

fn add_exec(config: &mut Config, phase: Phase, command: &str) -> Result<(), String> {
    if command.is_empty() {
        return Err("a command".into());
    }
    let text = Some(command.to_owned());
    add(config, Hook { phase, family: Family::Exec, action: Action::Exec(command.into()), text, file: None });
    Ok(())
}

fn add_call(config: &mut Config, phase: Phase, name: &str) -> Result<(), String> {
    let (action, _) = action::parse(&format!("call:{name}"), phase)?;
    add(config, Hook { phase, family: Family::Call, action, text: Some(name.into()), file: None });
    Ok(())
}

/// `hook-touch`: `FILE ACTION:ARGUMENT`.
fn add_touch(config: &mut Config, value: &str) -> Result<(), String> {
    let (file, hook) = value.split_once(' ').ok_or("a file, a blank, and ACTION:ARGUMENT")?;
    let (action, warning) = action::parse(hook, Phase::Touch)?;
    remark(config, &action, warning);
    let text = (!hook.starts_with('!')).then(|| hook.to_owned());
    add(config, Hook { phase: Phase::Touch, family: Family::Hook, action, text, file: Some(file.into()) });
    Ok(())
}

/// `file-write`: `FILE=TEXT`.
fn add_file(config: &mut Config, value: &str) -> Result<(), String> {
    let (path, text) = value.split_once('=').ok_or("a file, an equals sign and text")?;
    let action = Action::Write { path: path.into(), text: format!("{text}\n"), append: false };
    add(config, Hook { phase: Phase::InJail, family: Family::File, action, text: Some(value.into()), file: None });
    Ok(())
}

fn await_it(config: &mut Config, awaited: Awaited) -> Result<(), String> {
    config.hooks.awaited.push(awaited);
    Ok(())
}

fn add_flock(config: &mut Config, option: &str, path: &str, waits: bool, is_late: bool) -> Result<(), String> {
    let path = super::value::path(path)?;
    config.hooks.flocks.push(Flock { option: option.into(), path, waits, is_late });
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn phases_are_told_apart_and_in_order() {
        assert!(PHASES.windows(2).all(|pair| pair[0].name != pair[1].name));
        for row in PHASES {
            assert_eq!(row.phase.row().name, row.name);
        }
    }

    /// Between these lines of docs/hooks.md is the table. `RWSGI_WRITE_DOCS=1` writes it.
    #[test]
    fn the_guide_has_the_table_of_phases() {
        const BEGIN: &str = "<!-- phases: made from server/config/src/hooks.rs -->\n";
        const END: &str = "<!-- end of phases -->";
        let mut table = String::from("| phase | when | in which process | as whom |\n| --- | --- | --- | --- |\n");
        for PhaseRow { name, when, process, user, .. } in PHASES {
            table.push_str(&format!("| `{name}` | {when} | {process} | {user} |\n"));
        }
        let path = std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("../../docs/hooks.md");
        let page = std::fs::read_to_string(&path).unwrap();
        let (before, rest) = page.split_once(BEGIN).unwrap();
        let (written, after) = rest.split_once(END).unwrap();
        if std::env::var_os("RWSGI_WRITE_DOCS").is_some() {
            std::fs::write(&path, format!("{before}{BEGIN}{table}{END}{after}")).unwrap();
        } else {
            assert!(written == table, "run RWSGI_WRITE_DOCS=1 cargo test -p rwsgi-config table_of_phases");
        }
    }

    #[test]
    fn in_a_phase_hooks_come_before_commands_and_those_before_calls() {
        let mut config = Config::default();
        add_call(&mut config, Phase::PreApp, "m.f").unwrap();
        add_exec(&mut config, Phase::PreApp, "one").unwrap();
        add_exec(&mut config, Phase::Asap, "first").unwrap();
        add_hook(&mut config, Phase::PreApp, "exec:zero").unwrap();
        add_exec(&mut config, Phase::PreApp, "two").unwrap();
        let order: Vec<_> = config.hooks.hooks.iter().map(|hook| hook.text.as_deref().unwrap()).collect();
        assert_eq!(order, ["first", "exec:zero", "one", "two", "m.f"]);
    }

    #[test]
    fn a_private_hook_is_not_shown() {
        let mut config = Config::default();
        add_hook(&mut config, Phase::Asap, "!exec:login secret").unwrap();
        assert_eq!(config.hooks.hooks[0].text, None);
        assert_eq!(config.hooks.hooks[0].action, Action::Exec("login secret".into()));
    }
}
