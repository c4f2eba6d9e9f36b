//! Commands by the shell.

use std::path::Path;
use std::process::Command;

use nix::unistd::{AccessFlags, access};
use rwsgi_config::Config;

/// The command of a hook, to be run by the shell. Its output goes where this process writes its own, and nothing else that
/// is open here is passed on: every descriptor of ours is closed on exec.
pub(crate) fn shell(config: &Config, command: &str) -> Command {
    let is_executable = |path: &&Path| access(*path, AccessFlags::X_OK).is_ok();
    let shell = config.hooks.shells.iter().map(AsRef::as_ref).find(is_executable);
    let mut made = Command::new(shell.unwrap_or(Path::new("/bin/sh")));
    made.arg("-c").arg(command);
    made
}

/// Gives a command the variables of `env` and `unenv`, which this process itself does not have.
pub(crate) fn with_variables(command: &mut Command, config: &Config, variables: &[(String, String)]) {
    for name in &config.unenv {
        command.env_remove(name);
    }
    command.envs(variables.iter().map(|(name, value)| (name, value)));
}
