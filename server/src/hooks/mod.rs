//! Hooks: what the configuration asks for at the moments of a server's life. The table of the moments is
//! [`rwsgi_config::hooks::PHASES`]; each place in the code that is one calls [`run`] or [`run_in_python`].
//!
//! What a hook does is what the administrator wrote, with the rights that the process has at that moment: unlike what the
//! server itself writes as root, it is not held back by whose directory it leads to.
//!
//! Not for: hooks of the master while it serves, which must not hold it up ([`crate::master`] has them in a queue).

mod action;
mod call;
mod command;
mod wait;

use pyo3::Python;
use rwsgi_config::Config;
use rwsgi_config::hooks::{Hook, Phase};
use tracing::{error, info};

use crate::ipc::inherit::InheritedFd;

pub(crate) use self::action::perform_at_once;
pub(crate) use self::command::{shell, with_variables};
pub(crate) use self::wait::{lock_files, wait_for};

/// Exit status of a process whose hook has failed: the master stops the server. No application is likely to choose it.
pub(crate) const EXIT_HOOK_FAILED: i32 = 171;

/// Runs the hooks of `asap`, before anything is opened. The descriptors of a supervisor are not theirs.
///
/// # Errors
/// When one fails.
pub(crate) fn run_first(config: &mut Config) -> anyhow::Result<()> {
    if !config.hooks.has(Phase::Asap) {
        return Ok(());
    }
    if let Some(mask) = config.umask {
        nix::sys::stat::umask(nix::sys::stat::Mode::from_bits_truncate(mask));
    }
    let number = |name| std::env::var(name).ok().and_then(|value| value.parse::<u32>().ok());
    if number("LISTEN_PID") == Some(std::process::id()) {
        for descriptor in 3..3_u32.saturating_add(number("LISTEN_FDS").unwrap_or(0).min(1024)) {
            if let Some(inherited) = InheritedFd::from_argument(&descriptor.to_string()) {
                // One that is not open is reported when it is taken.
                let _ = inherited.close_on_exec();
            }
        }
    }
    run(Phase::Asap, config)
}

/// Where a hook runs.
enum Place<'a, 'py> {
    /// In a process without Python. The variables that its commands and later processes have.
    Plain(&'a mut Vec<(String, String)>),
    /// In one that has it.
    Python(Python<'py>),
}

/// Runs the hooks of a phase in a process without Python. What they set in the environment is added to `config.env`.
///
/// # Errors
/// When one fails, in a phase where that is fatal.
pub(crate) fn run(phase: Phase, config: &mut Config) -> anyhow::Result<()> {
    let mut variables = std::mem::take(&mut config.env);
    let outcome = run_in(phase, config, &mut Place::Plain(&mut variables));
    config.env = variables;
    outcome
}

/// The same in a process that has Python.
///
/// # Errors
/// As [`run`].
pub(crate) fn run_in_python(py: Python<'_>, phase: Phase, config: &Config) -> anyhow::Result<()> {
    run_in(phase, config, &mut Place::Python(py))
}

fn run_in(phase: Phase, config: &Config, place: &mut Place<'_, '_>) -> anyhow::Result<()> {
    let row = phase.row();
    for hook in config.hooks.of(phase) {
        announce(hook);
        let Err(failure) = action::perform(&hook.action, config, place) else { continue };
        let failure = failure.context(format!("{}: {} failed", row.name, described(hook)));
        if row.is_fatal {
            return Err(failure);
        }
        error!("{failure:#}");
    }
    Ok(())
}

/// Says in the log what is about to be done.
pub(crate) fn announce(hook: &Hook) {
    info!("{}: running {}", hook.phase.row().name, described(hook));
}

/// A hook in a line of the log.
pub(crate) fn described(hook: &Hook) -> String {
    hook.text.as_ref().map_or_else(|| "a private hook".to_owned(), |text| format!("'{text}'"))
}

/// Runs what comes first at a start again, since a reload is a start to uWSGI: in the new fork server, from where the
/// server was started.
///
/// # Errors
/// As [`run`].
pub(crate) fn run_again(py: Python<'_>, config: &Config) -> anyhow::Result<()> {
    const PHASES: [Phase; 5] = [Phase::AsUserAtexit, Phase::Asap, Phase::InJail, Phase::AsRoot, Phase::AsUser];
    if !PHASES.iter().any(|phase| config.hooks.has(*phase)) {
        return Ok(());
    }
    let here = std::env::current_dir()?;
    run_in_python(py, Phase::AsUserAtexit, config)?;
    std::env::set_current_dir(&config.hooks.directory)?;
    let is_root = nix::unistd::getuid().is_root();
    for phase in &PHASES[1..] {
        if is_root || !matches!(phase, Phase::AsRoot | Phase::AsUser) {
            run_in_python(py, *phase, config)?;
        }
    }
    Ok(std::env::set_current_dir(here)?)
}
