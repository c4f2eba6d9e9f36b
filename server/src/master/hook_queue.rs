//! The hooks of a master that serves: they run one after another.

use std::collections::VecDeque;

use nix::unistd::Pid;
use rwsgi_config::hooks::Hook;

use crate::vassal::Heard;

/// Hooks that wait for their turn, and the command that runs.
#[derive(Debug, Default)]
pub(super) struct HookQueue {
    pub(super) waiting: VecDeque<Hook>,
    pub(super) running: Option<(Pid, Hook)>,
    /// What the emperor has ordered, and is done after all of them.
    pub(super) then: Option<Heard>,
}
