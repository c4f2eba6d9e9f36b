//! The spoolers in the text for Prometheus.

use std::fmt;

use prometheus_client::encoding::NoLabelSet;
use prometheus_client::metrics::MetricType;
use prometheus_client::registry::Unit;
use rwsgi_stats::{Snapshot, Spooler, latency};

use crate::encoder::{Encoder, seconds};

/// A figure of every spooler: its name, what it is, whether it only grows, and its value.
type Figure = (&'static str, &'static str, bool, fn(&Spooler) -> u64);

#[rustfmt::skip]
const FIGURES: &[Figure] = &[
    ("jobs_done", "Jobs done", true, |s| s.done.unwrap_or(0)),
    ("jobs_retried", "Runs whose function wanted the job to be tried again", true, |s| s.retried.unwrap_or(0)),
    ("jobs_failed", "Runs that ended with an exception, or with the process", true, |s| s.failed.unwrap_or(0)),
    ("respawns", "How often the process was started again", true, |s| s.respawns),
    ("up", "1 when the spooler has a process", false, |s| u64::from(s.pid > 0)),
    ("running", "1 while it runs a job", false, |s| s.running.into()),
];

/// Writes the metrics of spoolers; nothing when there are none.
pub(crate) fn encode(out: &mut Encoder<'_, '_>, snapshot: &Snapshot) -> fmt::Result {
    let spoolers = &snapshot.spoolers;
    if spoolers.is_empty() {
        return Ok(());
    }
    for (name, help, grows, value) in FIGURES {
        let kind = if *grows { MetricType::Counter } else { MetricType::Gauge };
        let name = format!("spooler_{name}");
        let mut metric = out.0.encode_descriptor(&name, help, None, kind)?;
        for (number, spooler) in (1u32..).zip(spoolers) {
            let number = number.to_string();
            let labels = [("spooler", number.as_str()), ("dir", spooler.dir.as_str())];
            let mut metric = metric.encode_family(&labels)?;
            if *grows {
                metric.encode_counter::<NoLabelSet, _, f64>(&value(spooler), None)?;
            } else {
                metric.encode_gauge(&value(spooler))?;
            }
        }
    }
    // Several spoolers share a directory, and would each report the same of it.
    let directories = || {
        let first = |(at, spooler): &(usize, &Spooler)| spoolers[..*at].iter().all(|other| other.dir != spooler.dir);
        spoolers.iter().enumerate().filter(first).map(|(_, spooler)| spooler)
    };
    let mut metric = out.0.encode_descriptor("spooler_queue", "Jobs that wait", None, MetricType::Gauge)?;
    for spooler in directories() {
        metric.encode_family(&[("dir", spooler.dir.as_str())])?.encode_gauge(&spooler.queue.unwrap_or(0))?;
    }
    let help = "How long ago the oldest job was queued";
    let mut metric = out.0.encode_descriptor("spooler_oldest_age", help, Some(&Unit::Seconds), MetricType::Gauge)?;
    for spooler in directories() {
        let age = seconds(spooler.oldest_age.unwrap_or(0));
        metric.encode_family(&[("dir", spooler.dir.as_str())])?.encode_gauge(&age)?;
    }
    let mut run_time = latency::empty();
    for histogram in spoolers.iter().filter_map(|spooler| latency::decode(spooler.run_time.as_deref()?).ok()) {
        // All of one shape: they are of this program.
        run_time.add(&histogram).map_err(|_| fmt::Error)?;
    }
    out.distribution("spooler_run_duration", "How long jobs ran", &run_time)
}
