//! Which module does what is asked for.

use rwsgi_stats::control::{Answer, MemoryRequest, ReloadKind, Request};
use tokio::sync::oneshot;
use tracing::info;

use super::asked::{Answering, Asked};
use crate::master::events::Reload;
use crate::master::state::Master;

impl Master {
    /// Does what somebody asks for through the control socket.
    pub(in crate::master) fn control(&mut self, asked: Asked) {
        let Asked { request, peer, answering } = asked;
        if let Some(action) = action(&request) {
            info!("control: {action} asked by {peer}");
        }
        match request {
            Request::Stats => self.control_stats(answering),
            Request::Stacks { .. } => not_yet(answering, "stacks"),
            Request::Profile { .. } => not_yet(answering, "profile"),
            Request::Reload { how } => {
                let how = match how {
                    ReloadKind::Rolling => Reload::Rolling,
                    ReloadKind::Chain => Reload::Chain,
                    ReloadKind::Brutal => Reload::Brutal,
                };
                self.reload(how);
                answering.text("the application is loaded again");
            }
            Request::Canary { .. } => not_yet(answering, "canary"),
            Request::CanaryKeep => not_yet(answering, "canary-keep"),
            Request::CanaryUndo => not_yet(answering, "canary-undo"),
            Request::Recycle { .. } => not_yet(answering, "recycle"),
            Request::Drain { .. } => not_yet(answering, "drain"),
            Request::Undrain { .. } => not_yet(answering, "undrain"),
            Request::Workers { .. } => not_yet(answering, "workers"),
            Request::LogLevel { .. } => not_yet(answering, "log-level"),
            Request::SlowRequest { .. } => not_yet(answering, "slow-request"),
            Request::Memory { worker, what } => self.report_memory(worker, what, answering),
            Request::Refork { worker } => self.refork(worker, answering),
        }
    }

    /// The document that the stats server sends.
    fn control_stats(&mut self, answering: Answering) {
        let (sender, receiver) = oneshot::channel();
        self.answer_stats(sender);
        tokio::task::spawn_local(async move {
            if let Ok(snapshot) = receiver.await {
                answering.done(Answer::Stats(Box::new(snapshot)));
            }
        });
    }
}

/// What a request changes, in words for the log; `None` for one that only looks.
fn action(request: &Request) -> Option<String> {
    Some(match request {
        Request::Stats | Request::Stacks { .. } | Request::Profile { .. } => return None,
        Request::Memory { what: MemoryRequest::Trace | MemoryRequest::Savings, .. } => return None,
        other => serde_json::to_string(other).unwrap_or_default(),
    })
}

fn not_yet(answering: Answering, what: &str) {
    answering.failed(format!("{what} is not there yet"));
}
