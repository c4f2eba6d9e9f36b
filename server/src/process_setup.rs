//! What the processes that the master starts have in common at their start: signals that are the master's alone, and
//! limits of the system.

use anyhow::Context;
use nix::sys::resource::{Resource, setrlimit};
use nix::sys::signal::{SaFlags, SigAction, SigHandler, SigSet, Signal, sigaction};

use rwsgi_config::Config;

/// Exit status when the application cannot be loaded, as uWSGI's.
pub(crate) const EXIT_NO_APP: i32 = 22;

extern "C" fn do_nothing(_: nix::libc::c_int) {}

/// Applies `limit-as` to this process and all that come of it.
///
/// # Errors
/// When the system allows less already.
pub(crate) fn limit_address_space(config: &Config) -> anyhow::Result<()> {
    let Some(limit) = config.limit_as else { return Ok(()) };
    setrlimit(Resource::RLIMIT_AS, limit, limit).with_context(|| format!("limit-as: cannot set {limit} bytes"))
}

/// A terminal's Ctrl-C and hang-up reach the whole foreground group; only the master acts on them.
///
/// # Errors
/// When a handler cannot be installed.
pub(crate) fn ignore_terminal_signals() -> anyhow::Result<()> {
    ignore(&[Signal::SIGINT, Signal::SIGQUIT, Signal::SIGHUP])
}

/// Ignores signals that are the master's to act on.
///
/// # Errors
/// When a handler cannot be installed.
#[allow(unsafe_code)]
pub(crate) fn ignore(signals: &[Signal]) -> anyhow::Result<()> {
    // A handler that does nothing, rather than the signal ignored: programs that the application starts would inherit
    // the latter.
    let nothing = SigAction::new(SigHandler::Handler(do_nothing), SaFlags::SA_RESTART, SigSet::empty());
    for signal in signals {
        // SAFETY: the handler does nothing.
        unsafe { sigaction(*signal, &nothing) }.with_context(|| format!("cannot handle {signal}"))?;
    }
    Ok(())
}
