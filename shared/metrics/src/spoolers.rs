//! The spoolers.

use rwsgi_stats::{Snapshot, Spooler};

use crate::histogram::{BOUNDS, Histogram};
use crate::model::{Family, Kind, Label, Value};
use crate::server::Figure;

#[rustfmt::skip]
const FIGURES: &[Figure<Spooler>] = &[
    ("rwsgi_spooler_jobs_done_total", "Jobs done", Kind::Counter, |s| s.done.map(Value::Integer)),
    ("rwsgi_spooler_jobs_retried_total", "Runs whose function wanted the job to be tried again", Kind::Counter, |s| s.retried.map(Value::Integer)),
    ("rwsgi_spooler_jobs_failed_total", "Runs that ended with an exception, or with the process", Kind::Counter, |s| s.failed.map(Value::Integer)),
    ("rwsgi_spooler_respawns_total", "How often the spooler's process was started again", Kind::Counter, |s| Some(Value::Integer(s.respawns))),
    ("rwsgi_spooler_up", "1 when the spooler has a process", Kind::Gauge, |s| Some(Value::flag(s.pid > 0))),
    ("rwsgi_spooler_running", "1 while the spooler runs a job", Kind::Gauge, |s| Some(Value::Integer(s.running.into()))),
];

/// What several spoolers of a directory would each report the same of.
#[rustfmt::skip]
const DIRECTORIES: &[Figure<Spooler>] = &[
    ("rwsgi_spooler_queue", "Jobs that wait", Kind::Gauge, |s| s.queue.map(Value::Integer)),
    ("rwsgi_spooler_oldest_age_seconds", "How long ago the oldest job was queued", Kind::Gauge, |s| s.oldest_age.map(Value::seconds)),
];

/// Adds the families of spoolers.
pub(crate) fn add<'a>(families: &mut Vec<Family<'a>>, snapshot: &'a Snapshot) {
    let spoolers = &snapshot.spoolers;
    if spoolers.is_empty() {
        return;
    }
    for &(name, help, kind, value) in FIGURES {
        let mut family = Family::new(name, help, kind, &["spooler", "dir"], spoolers.len());
        for (number, spooler) in (1..).zip(spoolers) {
            if let Some(value) = value(spooler) {
                family.push([Label::Number(number), Label::Text(&spooler.dir)], value);
            }
        }
        families.push(family);
    }
    for &(name, help, kind, value) in DIRECTORIES {
        let mut family = Family::new(name, help, kind, &["dir"], spoolers.len());
        for (at, spooler) in spoolers.iter().enumerate() {
            let is_first = spoolers[..at].iter().all(|other| other.dir != spooler.dir);
            if let Some(value) = value(spooler).filter(|_| is_first) {
                family.push([Label::Text(&spooler.dir)], value);
            }
        }
        families.push(family);
    }
    let mut family = Family::new("rwsgi_spooler_run_duration_seconds", "How long jobs ran", Kind::Histogram, &[], 1);
    let texts: Vec<_> = spoolers.iter().filter_map(|spooler| spooler.run_time.as_deref()).collect();
    if let Some(histogram) = (!texts.is_empty()).then(|| Histogram::sum(BOUNDS, texts)).flatten() {
        family.push([], Value::Histogram(Box::new(histogram)));
    }
    families.push(family);
}
