//! What the master knows of its programs.

use rwsgi_stats::{Daemon, Snapshot};

use super::programs::{Programs, Stage};
use crate::master::task::Task;

/// The programs, and the tasks that watch files for them.
#[derive(Debug, Default)]
pub(in crate::master) struct Daemons {
    pub(super) programs: Programs,
    pub(super) watches: Vec<Task>,
}

impl Daemons {
    /// Whether none is left to wait for.
    pub(in crate::master) fn have_left(&self) -> bool {
        self.programs.list.is_empty() && self.programs.have_left()
    }

    /// The server is about to stop: none is started any more.
    pub(in crate::master) fn hold(&mut self) {
        self.programs.hold();
    }

    /// Adds them to a reading of the server.
    pub(in crate::master) fn describe(&self, snapshot: &mut Snapshot) {
        let daemons = self.programs.list.iter().map(|program| Daemon {
            cmd: program.config.command.clone(),
            pid: program.pid().map_or(0, nix::unistd::Pid::as_raw),
            respawns: program.starts.saturating_sub(1),
            status: Some(
                match program.stage {
                    Stage::Held | Stage::Due(_) => "waiting",
                    Stage::Unconfirmed { .. } => "starting",
                    Stage::Running(_) | Stage::Known(_) => "running",
                }
                .into(),
            ),
            started_at: Some(program.started_at()),
        });
        snapshot.daemons = daemons.collect();
    }
}
