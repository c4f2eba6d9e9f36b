//! Hooks of the master: those of a start, around the drop of privileges; and those that run while it serves, one after
//! another, without holding up the loop.

use std::process::Stdio;

use anyhow::Context;
use nix::unistd::{Pid, getuid};
use rwsgi_config::Config;
use rwsgi_config::hooks::{Action, Awaited, Function, Hook, Phase};
use tracing::{error, info};

use super::events::{Command, Reload};
use super::launcher::Launcher;
use super::process::{End, Reaped};
use super::state::{Master, Phase as Stage};
use crate::hooks;
use crate::vassal::Heard;

/// Runs the hooks that come before sockets are bound, and waits for what they are to find.
///
/// # Errors
/// When one fails, or something does not come.
pub(crate) fn before_binding(config: &mut Config, launcher: &mut Launcher) -> anyhow::Result<()> {
    let is_root = getuid().is_root();
    where_it_was_started(config, launcher, |config| {
        hooks::run(Phase::PreJail, config)?;
        hooks::run(Phase::InJail, config)?;
        if !is_root {
            // As with uWSGI: what it calls `as root` comes for root alone.
            return Ok(());
        }
        if config.hooks.jailed {
            hooks::run(Phase::PostJail, config)?;
        }
        wait(config, |awaited| !matches!(awaited, Awaited::Socket(_)))?;
        hooks::run(Phase::AsRoot, config)
    })
}

/// Runs the hooks that come after privileges were dropped. `was_root`: the server was started as root.
///
/// # Errors
/// As [`before_binding`].
pub(crate) fn after_dropping(config: &mut Config, launcher: &mut Launcher, was_root: bool) -> anyhow::Result<()> {
    where_it_was_started(config, launcher, |config| {
        if was_root {
            hooks::run(Phase::AsUser, config)?;
        }
        wait(config, |awaited| matches!(awaited, Awaited::Socket(_)))
    })
}

/// Whether a start may take long after privileges were dropped: an order to stop ends it then, as before.
pub(super) fn hold_up_start(config: &Config) -> bool {
    config.hooks.has(Phase::AsUser) || config.hooks.awaited.iter().any(|awaited| matches!(awaited, Awaited::Socket(_)))
}

fn wait(config: &Config, is_meant: impl Fn(&Awaited) -> bool) -> anyhow::Result<()> {
    let awaited = config.hooks.awaited.iter().filter(|awaited| is_meant(awaited));
    awaited.into_iter().try_for_each(|awaited| hooks::wait_for(&config.hooks, awaited))
}

/// Does it in the directory in which the server was started: `chdir` comes later, as with uWSGI. Where there is none, a
/// hook may have changed it.
fn where_it_was_started(
    config: &mut Config,
    launcher: &mut Launcher,
    run: impl FnOnce(&mut Config) -> anyhow::Result<()>,
) -> anyhow::Result<()> {
    if config.hooks.hooks.is_empty() && config.hooks.awaited.is_empty() {
        return Ok(());
    }
    let enter = |directory: &std::path::Path| {
        let entered = std::env::set_current_dir(directory);
        entered.with_context(|| format!("cannot enter '{}' for the hooks", directory.display()))
    };
    enter(&launcher.directory)?;
    run(config)?;
    match &config.chdir {
        Some(directory) => enter(directory)?,
        None => launcher.directory = std::env::current_dir()?,
    }
    config.hooks.directory.clone_from(&launcher.directory);
    Ok(())
}

/// Runs the hooks of the server's end.
pub(crate) fn at_the_end(config: &mut Config) {
    // None is fatal: each failure is in the log.
    let _ = hooks::run(Phase::AsUserAtexit, config);
}

impl Master {
    /// The application is loaded: runs the hooks of `master-start`.
    pub(super) fn run_master_start(&mut self) {
        let hooks: Vec<_> = self.config.hooks.of(Phase::MasterStart).cloned().collect();
        hooks.into_iter().for_each(|hook| self.run_hook(hook));
    }

    /// Runs a hook when those before it are done.
    pub(super) fn run_hook(&mut self, hook: Hook) {
        self.hook_queue.waiting.push_back(hook);
        self.advance_hooks();
    }

    /// Runs these hooks, and then does what the emperor has ordered. A stop takes the place of a reload.
    pub(super) fn run_hooks_before(&mut self, hooks: Vec<Hook>, heard: Heard) {
        self.hook_queue.waiting.extend(hooks);
        if self.hook_queue.then.is_none_or(|then| then == Heard::Reload) {
            self.hook_queue.then = Some(heard);
        }
        self.advance_hooks();
    }

    fn advance_hooks(&mut self) {
        while self.hook_queue.running.is_none() && self.phase == Stage::Serving {
            let Some(hook) = self.hook_queue.waiting.pop_front() else {
                if let Some(heard) = self.hook_queue.then.take() {
                    self.obey_emperor(heard);
                }
                return;
            };
            hooks::announce(&hook);
            if let Err(failure) = self.begin_hook(&hook) {
                self.hook_failed(&hook, &failure);
            }
        }
    }

    fn begin_hook(&mut self, hook: &Hook) -> anyhow::Result<()> {
        match &hook.action {
            Action::Exec(command) | Action::SafeExec(command) => {
                let pid = self.spawn_command(command, Stdio::inherit())?.0;
                self.hook_queue.running = Some((pid, hook.clone()));
                Ok(())
            }
            Action::PutEnv(name, value) => {
                self.config.env.push((name.clone(), value.clone()));
                Ok(())
            }
            Action::Order(function) => {
                self.give_order(*function, "a hook");
                Ok(())
            }
            Action::Alarm(name, text) => {
                self.raise_alarm(name, text);
                Ok(())
            }
            Action::Exit(status) => {
                self.fail(*status);
                Ok(())
            }
            // It was done when the server began to watch signals.
            Action::UnixSignal(..) => Ok(()),
            other => hooks::perform_at_once(other),
        }
    }

    /// Starts a command, which is reaped with all others; also returns the other end of its standard input.
    pub(super) fn spawn_command(
        &self,
        command: &str,
        input: Stdio,
    ) -> anyhow::Result<(Pid, Option<std::process::ChildStdin>)> {
        let mut shell = hooks::shell(&self.config, command);
        shell.stdin(input);
        for name in &self.config.unenv {
            shell.env_remove(name);
        }
        shell.envs(self.config.env.iter().map(|(name, value)| (name, value)));
        let child = shell.spawn().with_context(|| format!("cannot run '{command}'"))?;
        Ok((Pid::from_raw(child.id() as i32), child.stdin))
    }

    /// Whether the process that has ended was a hook's command.
    pub(super) fn hook_ended(&mut self, reaped: Reaped) -> bool {
        if self.hook_queue.running.as_ref().is_none_or(|(pid, _)| *pid != reaped.pid) {
            return false;
        }
        if let Some((_, hook)) = self.hook_queue.running.take()
            && reaped.end != End::Exited(0)
        {
            let failure = anyhow::anyhow!("{}", reaped.end);
            match hook.action {
                Action::SafeExec(_) => error!("{}: {}: {failure}", hook.phase.row().name, hooks::described(&hook)),
                _ => self.hook_failed(&hook, &failure),
            }
        }
        self.advance_hooks();
        true
    }

    fn hook_failed(&mut self, hook: &Hook, failure: &anyhow::Error) {
        let row = hook.phase.row();
        error!("{}: {} failed: {failure:#}", row.name, hooks::described(hook));
        if row.is_fatal && self.phase == Stage::Serving {
            error!("a hook has failed: stopping");
            self.fail(1);
        }
    }

    /// Gives the server an order by the name of uWSGI's function.
    pub(super) fn give_order(&mut self, function: Function, by: &str) {
        match function {
            Function::KillThemAll => self.stop_at_once(by),
            Function::GracefullyKillThemAll => self.stop(by),
            Function::GraceThemAll => self.reload(Reload::Rolling),
            Function::ReapThemAll => self.reload(Reload::Brutal),
            Function::LogRotate => self.obey(Command::RotateLog),
            Function::LogReopen => self.obey(Command::ReopenLog),
            Function::Stats => self.obey(Command::Stats),
        }
    }

    /// Runs the command of `touch-exec`, and waits for nothing.
    pub(super) fn run_touch_command(&mut self, command: &str) {
        match self.spawn_command(command, Stdio::null()) {
            Ok((pid, _)) => info!("touch-exec: running '{command}' (pid {pid})"),
            Err(failure) => error!("touch-exec: {failure:#}"),
        }
    }
}
