//! When watching without a screen ends: what is waited for, looked at again and again.

use std::fs;
use std::process::{Child, Command};
use std::time::{Duration, Instant};

use anyhow::Context as _;

use super::watch::End;

/// How long the first answer of every server is waited for.
const PATIENCE: Duration = Duration::from_secs(10);

/// What is waited for.
pub(super) struct Until<'a> {
    end: &'a End,
    started: Instant,
    /// When all servers had answered, and the command that was started then.
    begun: Option<(Instant, Option<Child>)>,
}

impl<'a> Until<'a> {
    pub(super) fn new(end: &'a End) -> Self {
        Self { end, started: Instant::now(), begun: None }
    }

    /// Whether it is over: `Some` with why nothing counts, when that is known. A command is started when `has_begun` is first
    /// said.
    ///
    /// # Errors
    /// When the command cannot be started or waited for.
    pub(super) fn is_over(&mut self, has_begun: bool) -> anyhow::Result<Option<Option<String>>> {
        if self.begun.is_none() && has_begun {
            self.begun = Some((Instant::now(), self.start_command()?));
        }
        Ok(match (self.end, &mut self.begun) {
            (End::Never | End::Count(_), _) => None,
            (_, None) => (self.started.elapsed() >= PATIENCE).then_some(None),
            (End::After(duration), Some((start, _))) => (start.elapsed() >= *duration).then_some(None),
            (End::Exit(pid), Some(_)) => is_gone(*pid).then_some(None),
            (End::Command(command), Some((_, Some(child)))) => {
                let status = child.try_wait().context("waiting for the command")?;
                let failed = |status| format!("'{}' ended with {status}", command.join(" "));
                status.map(|status| (!status.success()).then(|| failed(status)))
            }
            _ => None,
        })
    }

    fn start_command(&self) -> anyhow::Result<Option<Child>> {
        let End::Command(command) = self.end else { return Ok(None) };
        let Some((program, arguments)) = command.split_first() else { return Ok(None) };
        let child = Command::new(program).args(arguments).spawn();
        Ok(Some(child.with_context(|| format!("cannot start '{program}'"))?))
    }
}

/// Whether a process has ended; one that only waits to be reaped has.
pub(super) fn is_gone(pid: u32) -> bool {
    let Ok(stat) = fs::read_to_string(format!("/proc/{pid}/stat")) else { return true };
    // The name before the state is in parentheses, and may hold any character.
    let state = stat.rsplit_once(')').and_then(|(_, rest)| rest.trim_start().chars().next());
    matches!(state, None | Some('Z' | 'X'))
}
