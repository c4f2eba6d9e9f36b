//! Hooks of the emperor: one after another, without holding up the loop.

use std::collections::VecDeque;
use std::path::{Path, PathBuf};
use std::process::Stdio;

use anyhow::Context;
use nix::unistd::Pid;
use rwsgi_config::hooks::{Action, Function, Hook, Phase};
use tracing::{error, warn};

use super::ids::VassalId;
use super::{Emperor, Event};
use crate::hooks;
use crate::master::process::{End, Reaped};

/// A hook that was caused by the start of a vassal.
#[derive(Debug)]
struct Caused {
    hook: Hook,
    /// Where the vassal runs: that is where uWSGI's emperor is.
    directory: PathBuf,
    /// What its command is told of the vassal.
    variables: Vec<(&'static str, String)>,
}

/// Hooks that wait for their turn, and the command that runs.
#[derive(Debug, Default)]
pub(super) struct HookQueue {
    waiting: VecDeque<Caused>,
    running: Option<(Pid, Hook)>,
}

impl Emperor {
    /// Runs the hooks of the emperor's start.
    ///
    /// # Errors
    /// When one fails.
    pub(super) fn run_first_hooks(&mut self) -> anyhow::Result<()> {
        let Some(monitor) = self.monitors.first().filter(|_| self.config.hooks.has(Phase::EmperorStart)) else {
            return Ok(());
        };
        let directory = monitor.directory.clone();
        within(&directory, || hooks::run(Phase::EmperorStart, &mut self.config))
    }

    /// A vassal was started: runs the hooks for that.
    pub(super) fn run_hooks(&mut self, id: &VassalId, pid: Pid, directory: &Path) {
        let Some(vassal) = self.vassals.get(id) else { return };
        let variables = [
            ("UWSGI_VASSAL_CONFIG", id.name.clone()),
            ("UWSGI_VASSAL_PID", pid.to_string()),
            ("UWSGI_VASSAL_UID", vassal.owner.uid.to_string()),
            ("UWSGI_VASSAL_GID", vassal.owner.gid.to_string()),
        ];
        let caused =
            |hook: &Hook| Caused { hook: hook.clone(), directory: directory.to_owned(), variables: variables.to_vec() };
        self.hook_queue.waiting.extend(self.config.hooks.of(Phase::AsEmperor).map(caused));
        self.advance_hooks();
    }

    fn advance_hooks(&mut self) {
        while self.hook_queue.running.is_none() && !self.is_stopping {
            let Some(caused) = self.hook_queue.waiting.pop_front() else { return };
            hooks::announce(&caused.hook);
            if let Err(failure) = self.begin_hook(&caused) {
                failed(&caused.hook, &failure);
            }
        }
    }

    fn begin_hook(&mut self, caused: &Caused) -> anyhow::Result<()> {
        match &caused.hook.action {
            Action::Exec(command) | Action::SafeExec(command) => {
                let mut shell = hooks::shell(&self.config, command);
                hooks::with_variables(&mut shell, &self.config, &self.config.env);
                shell.envs(caused.variables.iter().map(|(name, value)| (name, value)));
                shell.stdin(Stdio::null()).current_dir(&caused.directory);
                let child = shell.spawn().with_context(|| format!("cannot run '{command}'"))?;
                self.hook_queue.running = Some((Pid::from_raw(child.id() as i32), caused.hook.clone()));
            }
            Action::PutEnv(name, value) => self.config.env.push((name.clone(), value.clone())),
            Action::Order(function) => match function {
                Function::KillThemAll | Function::GracefullyKillThemAll => self.take(Event::Stop("a hook")),
                Function::GraceThemAll | Function::ReapThemAll => self.take(Event::ReloadAll),
                Function::Stats => self.take(Event::Log),
                Function::LogRotate | Function::LogReopen => {
                    warn!("the emperor has no log file of its own to open again");
                }
            },
            Action::Alarm(name, text) => warn!("the emperor raises no alarms: '{name}': {text}"),
            Action::Exit(status) => {
                self.exit_status = *status;
                self.take(Event::Stop("a hook"));
            }
            other => within(&caused.directory, || hooks::perform_at_once(other))?,
        }
        Ok(())
    }

    /// Whether the process that has ended was a hook's command.
    pub(super) fn hook_ended(&mut self, reaped: Reaped) -> bool {
        let Some((_, hook)) = self.hook_queue.running.take_if(|(pid, _)| *pid == reaped.pid) else { return false };
        if reaped.end != End::Exited(0) {
            failed(&hook, &anyhow::anyhow!("{}", reaped.end));
        }
        self.advance_hooks();
        true
    }
}

/// No hook of the loop is fatal.
fn failed(hook: &Hook, failure: &anyhow::Error) {
    error!("{}: {} failed: {failure:#}", hook.phase.row().name, hooks::described(hook));
}

/// Does it in another directory.
fn within(directory: &Path, run: impl FnOnce() -> anyhow::Result<()>) -> anyhow::Result<()> {
    let here = std::env::current_dir().context("cannot read the working directory")?;
    let enter = |directory: &Path| {
        std::env::set_current_dir(directory).with_context(|| format!("cannot enter '{}'", directory.display()))
    };
    enter(directory)?;
    let outcome = run();
    enter(&here)?;
    outcome
}
