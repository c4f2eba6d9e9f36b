//! What the screen asks of servers' control sockets: requests under way, and which answer belongs to which.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc::Sender;
use std::time::Duration;

use rwsgi_stats::control::Request;

use crate::source::{Ask, ControlReply};

/// Where requests go.
#[derive(Debug, Default)]
pub(super) struct Asking {
    to: Option<Sender<Ask>>,
    /// Nothing is asked that changes a server.
    is_read_only: bool,
    last: u64,
}

/// A request under way. Dropping it gives it up.
#[derive(Debug)]
pub(super) struct Pending {
    ticket: u64,
    given_up: Arc<AtomicBool>,
}

impl Asking {
    /// Requests go there, unless they are actions and only looking is allowed; of a recording nothing can be asked.
    pub(super) fn new(to: Option<Sender<Ask>>, is_read_only: bool) -> Self {
        Self { to, is_read_only, last: 0 }
    }

    /// Asks a server, by its place on the command line. `longer` is what the request takes by its nature. The answer comes to
    /// [`Screen::told`](super::Screen::told).
    ///
    /// # Errors
    /// A line that says why nobody can be asked.
    pub(super) fn ask(&mut self, target: usize, request: Request, longer: Duration) -> Result<Pending, String> {
        let to = self.to.as_ref().ok_or("this is a recording: there is no server to ask")?;
        if self.is_read_only && request.is_action() {
            return Err("rtop only looks (--read-only)".to_owned());
        }
        self.last += 1;
        let (ticket, given_up) = (self.last, Arc::new(AtomicBool::new(false)));
        let ask = Ask { target, ticket, request, longer, given_up: Arc::clone(&given_up) };
        to.send(ask).map_err(|_| "rtop is leaving".to_owned())?;
        Ok(Pending { ticket, given_up })
    }
}

impl Pending {
    /// Whether this is what was asked for.
    pub(super) fn is(&self, told: &ControlReply) -> bool {
        self.ticket == told.ticket
    }
}

impl Drop for Pending {
    fn drop(&mut self) {
        self.given_up.store(true, Ordering::Relaxed);
    }
}
