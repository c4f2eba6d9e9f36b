//! The process that is about to be a vassal: runs the hooks of `as-vassal`, and then executes the vassal's program.
//!
//! Only where there are such hooks: others are executed by the emperor itself.

use std::ffi::OsString;
use std::os::fd::AsFd;
use std::os::unix::process::CommandExt;
use std::process::Command;

use anyhow::Context;
use rwsgi_config::Config;
use rwsgi_config::hooks::{HooksConfig, Phase};
use serde::{Deserialize, Serialize};

use crate::hooks;
use crate::ipc::first::receive_first;
use crate::ipc::inherit::InheritedFd;
use crate::vassal::EMPEROR_FD;

/// A program and its arguments.
#[derive(Debug, Serialize, Deserialize)]
pub(super) struct Program {
    pub(super) path: OsString,
    /// Its own name for itself, where that is not its path.
    pub(super) name: Option<OsString>,
    pub(super) arguments: Vec<OsString>,
    /// For its environment.
    pub(super) variables: Vec<(OsString, OsString)>,
}

impl Program {
    /// The command that starts it.
    pub(super) fn command(&self) -> Command {
        let mut command = Command::new(&self.path);
        command.args(&self.arguments).envs(self.variables.iter().map(|(name, value)| (name, value)));
        if let Some(name) = &self.name {
            command.arg0(name);
        }
        command
    }
}

/// What this process is told. It has a vassal's rights, so it learns no more of the emperor's configuration than it needs.
#[derive(Debug, Serialize, Deserialize)]
pub(super) struct Before {
    pub(super) hooks: HooksConfig,
    pub(super) unenv: Vec<String>,
    /// The first that can be executed is the vassal.
    pub(super) programs: Vec<Program>,
}

/// Runs the hooks and becomes the vassal. Returns only when that cannot be.
///
/// # Errors
/// When a hook fails, or no program can be executed.
pub(crate) fn become_vassal(mut channel: InheritedFd) -> anyhow::Result<i32> {
    let channel = channel.take()?;
    let told = receive_first(channel.as_fd()).context("cannot read what is to be done before the vassal")?;
    let Before { hooks, unenv, programs } = told.context("the emperor is gone")?;
    // A command that goes on in the background would keep the emperor from noticing the vassal's end.
    let number = std::env::var(EMPEROR_FD).ok();
    let connection = number.as_deref().and_then(InheritedFd::from_argument).map(|mut fd| fd.take()).transpose()?;
    let mut config = Config { hooks, unenv, ..Config::default() };
    hooks::run(Phase::AsVassal, &mut config)?;
    if let Some(connection) = &connection {
        InheritedFd::lend(connection.as_fd())?;
    }
    let mut failure = anyhow::anyhow!("there is no program to execute");
    for program in programs {
        let error = program.command().envs(config.env.iter().map(|(name, value)| (name, value))).exec();
        failure = anyhow::Error::new(error).context(format!("cannot execute '{}'", program.path.display()));
    }
    Err(failure)
}
