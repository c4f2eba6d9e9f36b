//! Requests of a live screen: each is asked by a thread of its own, so that a server that hangs never holds up the screen.

use std::collections::HashMap;
use std::path::PathBuf;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::thread;
use std::time::Duration;

use rwsgi_stats::control::{Answer, Request};

use super::{Control, ControlError};
use crate::source::Target;

/// What a screen wants to know, or to have done.
#[derive(Clone, Debug)]
pub(crate) struct Ask {
    /// Which of the targets, by its place on the command line.
    pub(crate) target: usize,
    /// Comes back with whatever the server says, so that whoever asked knows it is meant.
    pub(crate) ticket: u64,
    /// What.
    pub(crate) request: Request,
    /// What the request takes by its nature, beyond the time that a server has to answer.
    pub(crate) longer: Duration,
    /// Set by whoever asked: the answer is not wanted any more. It is looked at four times a second.
    pub(crate) given_up: Arc<AtomicBool>,
}

/// What a server said to an [`Ask`].
#[derive(Debug)]
pub(crate) struct ControlReply {
    /// Which of the targets.
    pub(crate) target: usize,
    /// The ask's.
    pub(crate) ticket: u64,
    /// What.
    pub(crate) said: ControlEvent,
}

/// What a server says.
#[derive(Debug)]
pub(crate) enum ControlEvent {
    /// More follows.
    Progress(String),
    /// The answer, or why there is none, in a line.
    Answer(Result<Answer, ControlError>),
}

/// Knows the servers' control sockets.
#[derive(Debug)]
pub(crate) struct Asker {
    targets: Vec<Target>,
    named: Option<PathBuf>,
    timeout: Duration,
    /// The sockets that have been found, by target.
    known: Mutex<HashMap<usize, Control>>,
}

impl Asker {
    /// Of these servers; `named` is `--control`.
    pub(crate) fn new(targets: Vec<Target>, named: Option<PathBuf>, timeout: Duration) -> Self {
        Self { targets, named, timeout, known: Mutex::default() }
    }

    /// Asks, in a thread of its own. `deliver` is called with all that the server says, and last with its answer.
    ///
    /// # Errors
    /// When the system gives no thread.
    pub(crate) fn ask(
        self: &Arc<Self>,
        ask: Ask,
        deliver: impl Fn(ControlReply) -> bool + Send + 'static,
    ) -> std::io::Result<()> {
        let asker = Arc::clone(self);
        thread::Builder::new().name("control".into()).spawn(move || {
            let Ask { target, ticket, request, longer, given_up } = ask;
            let tell = |said| deliver(ControlReply { target, ticket, said });
            let attempt = || {
                asker.control(target, &request).and_then(|control| {
                    control.ask(&request, longer, &mut |text| {
                        text.is_none_or(|text| tell(ControlEvent::Progress(text.to_owned())))
                            && !given_up.load(Ordering::Relaxed)
                    })
                })
            };
            let was_known = asker.known().contains_key(&target);
            let mut answer = attempt();
            if was_known && matches!(answer, Err(ControlError::Connect { .. })) {
                // A server that was started again has another socket. Nothing was asked yet.
                asker.known().remove(&target);
                answer = attempt();
            }
            if matches!(answer, Err(ref error) if !matches!(error, ControlError::Failed(_) | ControlError::GivenUp)) {
                asker.known().remove(&target);
            }
            // Nobody to tell when the user has left.
            let _ = tell(ControlEvent::Answer(answer));
        })?;
        Ok(())
    }

    /// Found once, and kept for as long as it answers.
    fn control(&self, target: usize, request: &Request) -> Result<Control, ControlError> {
        if let Some(known) = self.known().get(&target) {
            return Ok(known.clone());
        }
        let server = self.targets.get(target).ok_or(ControlError::None)?;
        let control = Control::find(self.named.as_deref(), server, request, self.timeout)?;
        if self.named.is_some() {
            control.is_of(server)?;
        }
        self.known().insert(target, control.clone());
        Ok(control)
    }

    fn known(&self) -> MutexGuard<'_, HashMap<usize, Control>> {
        self.known.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
