//! Calls the module that does what a request asks for.

use std::time::Duration;

use rwsgi_stats::control::{Answer, MemoryRequest, ReloadKind, Request};
use tokio::sync::oneshot;
use tracing::info;

use super::asked::{Answering, Asked};
use crate::log_text::{self, AUDIT};
use crate::master::state::Master;
use crate::stats::snapshot::{Purpose, SnapshotRequest};

impl Master {
    /// Does what somebody asks for through the control socket.
    pub(in crate::master) fn obey_control(&mut self, asked: Asked) {
        let Asked { request, peer, answering } = asked;
        if let Some(action) = action(&request) {
            info!(target: AUDIT, "control: {action} asked by {peer}");
        }
        match request {
            Request::Stats => self.control_stats(answering),
            Request::Stacks { worker } => self.control_stacks(worker, answering),
            Request::Profile { seconds, rate } => self.control_profile(seconds, rate, answering),
            Request::Reload { how } => self.control_reload(how, answering),
            Request::Canary { workers, seconds } => self.begin_canary(workers, seconds, answering),
            Request::CanaryKeep => self.keep_canary(answering),
            Request::CanaryUndo => self.undo_canary_for(answering),
            Request::Recycle { worker } => self.control_recycle(worker, answering),
            Request::Drain { worker } => self.control_drain(worker, true, answering),
            Request::Undrain { worker } => self.control_drain(worker, false, answering),
            Request::Workers { count } => self.control_workers(count, answering),
            Request::LogLevel { level } => self.control_log_level(&level, answering),
            Request::SlowRequest { micros } => {
                self.set_slow_request((micros > 0).then(|| Duration::from_micros(micros)));
                answering.text(self.describe_slow_threshold());
            }
            Request::Memory { worker, what } => self.report_memory(worker, what, answering),
            Request::Refork { worker } => self.refork(worker, answering),
        }
    }

    /// The document that the stats server sends.
    fn control_stats(&mut self, answering: Answering) {
        let (answer, receiver) = oneshot::channel();
        self.answer_stats(SnapshotRequest { purpose: Purpose::Document, answer });
        tokio::task::spawn_local(async move {
            if let Ok(snapshot) = receiver.await {
                answering.done(Answer::Stats(Box::new(snapshot)));
            }
        });
    }

    /// Has the logs of all processes tell so much.
    fn control_log_level(&self, level: &str, answering: Answering) {
        let number = match level {
            "error" => 1,
            "warn" => 2,
            "info" => 3,
            "debug" => 4,
            _ => return answering.failed(format!("'{level}' is no log level: they are error, warn, info and debug")),
        };
        self.scoreboard.limits().set_log_level(number);
        log_text::set_level(number);
        answering.text(format!(
            "the log has messages of level {level} and above; it always has who acts through this socket"
        ));
    }
}

/// What a request does, in words for the log; `None` for one that only looks and costs nobody anything.
fn action(request: &Request) -> Option<String> {
    Some(match request {
        Request::Stats | Request::Stacks { .. } => return None,
        Request::Memory { what: MemoryRequest::Savings, .. } => return None,
        Request::Profile { seconds, rate } => format!("profile ({seconds} s, {rate} samples a second)"),
        Request::Reload { how } => match how {
            ReloadKind::Rolling => "reload (rolling)".into(),
            ReloadKind::Chain => "reload (chain)".into(),
            ReloadKind::Brutal => "reload (brutal)".into(),
        },
        Request::Canary { workers, seconds } => format!("canary ({workers} workers, {seconds} s)"),
        Request::CanaryKeep => "canary (keep)".into(),
        Request::CanaryUndo => "canary (undo)".into(),
        Request::Recycle { worker } => format!("recycle of worker {worker}"),
        Request::Drain { worker } => format!("drain of worker {worker}"),
        Request::Undrain { worker } => format!("undrain of worker {worker}"),
        Request::Workers { count } => format!("workers {count}"),
        // What a client writes must not be long enough to tell another story.
        Request::LogLevel { level } => format!("log-level '{level:.8}'"),
        Request::SlowRequest { micros } => format!("slow-request {} ms", *micros as f64 / 1000.0),
        Request::Memory { worker, what } => {
            let what = match what {
                MemoryRequest::Types => "types",
                MemoryRequest::TraceStart => "trace-start",
                MemoryRequest::Trace => "trace",
                MemoryRequest::TraceStop => "trace-stop",
                MemoryRequest::Savings => "savings",
            };
            format!("memory ({what}) of worker {worker}")
        }
        Request::Refork { worker: Some(worker) } => format!("refork from worker {worker}"),
        Request::Refork { worker: None } => "refork".into(),
    })
}
