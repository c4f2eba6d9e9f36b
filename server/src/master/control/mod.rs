//! The control socket, through which operators look at the server and act on it. `docs/control.md` describes the
//! protocol, [`rwsgi_stats::control`] has its messages.
//!
//! [`socket`] binds it. The tasks of [`connections`] only read and write: a request becomes an event of the loop
//! ([`asked`]). [`dispatch`] is the one place that knows which module does what a request asks for.

mod asked;
mod connections;
mod default_path;
mod dispatch;
mod peer;
mod socket;
mod waits;
mod workers;

pub(super) use self::asked::{Answering, Asked};
pub(super) use self::connections::serve;
use self::socket::ControlFile;
pub(super) use self::socket::open;
use self::waits::Wait;

/// What goes with the control socket.
#[derive(Debug, Default)]
pub(super) struct ControlState {
    /// Its file, when there is one.
    pub(super) file: Option<ControlFile>,
    /// How many workers may run, when an operator has said so.
    pub(super) most_workers: Option<u32>,
    /// What is answered once it has come to pass.
    waits: Vec<Wait>,
}

impl ControlState {
    pub(super) fn new(file: Option<ControlFile>) -> Self {
        Self { file, ..Self::default() }
    }
}
