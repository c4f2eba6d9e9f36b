//! The spooler: runs the jobs that lie in a directory, one file each.

use anyhow::Context;
use nix::errno::Errno;
use nix::poll::{PollTimeout, poll};
use pyo3::Python;

use crate::companion::Work;
use crate::wsgi::{application, interpreter};

/// Runs jobs until it is told to leave.
///
/// # Errors
/// When the directory cannot be worked in.
pub(crate) fn run(py: Python<'_>, work: &Work) -> anyhow::Result<()> {
    let config = &work.config.spooler;
    let index = (work.who.number - 1) / config.processes;
    let directory = config.directories.get(index as usize).context("its directory is not configured any more")?;
    std::env::set_current_dir(directory).with_context(|| format!("cannot enter '{}'", directory.display()))?;
    // With lazy-apps, whoever has not named what to import wants the application's own functions.
    if !work.is_loaded && config.import.is_empty() {
        application::load(py, &work.config)?;
    }
    for module in &config.import {
        interpreter::import(py, module);
    }
    while !work.end.has_come() {
        let waited = py.detach(|| poll(&mut work.end.poll_fds(), PollTimeout::NONE));
        if let Err(error) = waited
            && error != Errno::EINTR
        {
            return Err(error.into());
        }
    }
    Ok(())
}
