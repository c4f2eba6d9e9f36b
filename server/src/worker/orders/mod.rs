//! The master's orders to a worker: to report its memory, and to fork a fork server. A thread looks for an order once
//! for each batch of events, and obeys between two requests, where it has the GIL. When all threads are in requests
//! none obeys; the master then withdraws the order, and says so.

pub(super) mod memory;
pub(super) mod refork;

use std::os::fd::AsFd;
use std::time::Instant;

use pyo3::prelude::*;
use tracing::error;

use self::refork::Reforked;
use super::worker_thread::WorkerThread;
use crate::api::here;
use crate::ipc::Role;
use crate::ipc::calls::{self, CallPacket, CallRequest, OrderOutcome};
use crate::ipc::worker_order::{OrderNumber, WorkerOrder, WorkerOrderKind};

impl WorkerThread {
    /// Does what the master has ordered. In the process that is a fork server then, returns what it has of the worker.
    #[inline]
    pub(super) fn obey(&mut self, py: Python<'_>) -> Option<Reforked> {
        let has_order = self.worker.scoreboard.worker(self.worker.slot).has_order();
        if has_order { self.obey_order(py) } else { None }
    }

    #[cold]
    fn obey_order(&mut self, py: Python<'_>) -> Option<Reforked> {
        let order = self.worker.scoreboard.worker(self.worker.slot).begin_order();
        let WorkerOrder { number, kind } = order.and_then(WorkerOrder::decode)?;
        let begun = Instant::now();
        let outcome = match kind {
            _ if self.is_leaving() => Err("it leaves".to_owned()),
            WorkerOrderKind::Savings => memory::savings(py, &self.worker.config),
            WorkerOrderKind::Refork => {
                if let Some(log) = &mut self.log {
                    // Its lines must not be written by two processes.
                    log.write();
                }
                match refork::fork(py, &self.worker, number) {
                    Ok(None) => return None,
                    Ok(Some(reforked)) => return Some(reforked),
                    Err(refusal) => Err(format!("{refusal:#}")),
                }
            }
            kind => memory::report(py, kind, |cost| {
                self.tell(number, |role, order| CallRequest::Begun { role, order, cost });
            }),
        };
        let mut outcome = outcome.map(|mut report| {
            report.took = begun.elapsed().as_micros() as u64;
            report.worker = self.worker.id;
            report.pid = nix::unistd::getpid().as_raw();
            report
        });
        shorten(&mut outcome);
        self.tell(number, |role, order| CallRequest::Obeyed { role, order, outcome });
        None
    }

    fn tell(&self, order: OrderNumber, what: impl FnOnce(Role, OrderNumber) -> CallRequest) {
        let (Some(server), Some(role)) = (here::server(), here::role()) else { return };
        let packet = CallPacket { generation: server.generation, what: what(role, order) };
        if let Err(failure) = calls::send(server.calls.as_fd(), &packet, None) {
            error!("worker {}: the master cannot be told what came of its order: {failure}", self.worker.id);
        }
    }
}

/// Leaves out what comes last of a report that no packet holds.
fn shorten(outcome: &mut OrderOutcome) {
    /// Beside the rows there are a note and numbers.
    const ROWS_LONGEST: usize = calls::LARGEST - 2048;
    let Ok(report) = outcome else { return };
    while serde_json::to_vec(&report.rows).is_ok_and(|bytes| bytes.len() > ROWS_LONGEST) {
        report.rows.pop();
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use rwsgi_stats::control::{MemoryReport, MemoryRow};

    #[test]
    fn a_report_fits_a_packet() {
        let row = MemoryRow { name: "\u{1}x".repeat(200), ..MemoryRow::default() };
        let mut outcome = Ok(MemoryReport { rows: vec![row; 100], ..MemoryReport::default() });
        shorten(&mut outcome);
        let length = serde_json::to_vec(&outcome).unwrap().len();
        assert!(length < calls::LARGEST && length > calls::LARGEST / 2, "{length}");
        let mut refused = Err("no".to_owned());
        shorten(&mut refused);
        assert_eq!(refused, Err("no".to_owned()));
    }
}
