//! The server's control group.

use rwsgi_stats::{Cgroup, Pressure, Snapshot};

use crate::model::{Family, Kind, Label, Value};
use crate::server::{Figure, add_figures};

#[rustfmt::skip]
const FIGURES: &[Figure<Cgroup>] = &[
    ("rwsgi_cgroup_memory_bytes", "Memory of the control group", Kind::Gauge, |c| Some(Value::Integer(c.memory))),
    ("rwsgi_cgroup_memory_limit_bytes", "The most memory that the control group may use", Kind::Gauge, |c| c.memory_limit.map(Value::Integer)),
    ("rwsgi_cgroup_cpus", "Processors that the control group may use", Kind::Gauge, |c| c.cpus.map(Value::Real)),
    ("rwsgi_cgroup_throttled_periods_total", "Periods in which the control group was stopped because its quota was used up", Kind::Counter, |c| Some(Value::Integer(c.throttled))),
    ("rwsgi_cgroup_throttled_seconds_total", "For how long the control group was stopped because its quota was used up", Kind::Counter, |c| Some(Value::seconds(c.throttled_time))),
    ("rwsgi_cgroup_oom_kills_total", "Processes of the control group killed for want of memory", Kind::Counter, |c| Some(Value::Integer(c.oom_kills))),
];

/// A resource that work waits for, and its pressure.
type Resource = (&'static str, fn(&Cgroup) -> Option<Pressure>);

const RESOURCES: [Resource; 3] = [
    ("cpu", |cgroup| cgroup.cpu_pressure),
    ("memory", |cgroup| cgroup.memory_pressure),
    ("io", |cgroup| cgroup.io_pressure),
];

/// Adds the families of the control group.
pub(crate) fn add<'a>(families: &mut Vec<Family<'a>>, snapshot: &'a Snapshot) {
    let Some(cgroup) = &snapshot.cgroup else { return };
    add_figures(families, FIGURES, cgroup);
    let (name, help) =
        ("rwsgi_cgroup_pressure_seconds_total", "Time that tasks waited for a resource: some of them, or all");
    let mut family = Family::new(name, help, Kind::Counter, &["resource", "kind"], 6);
    for (resource, of) in RESOURCES {
        if let Some(Pressure { some, full }) = of(cgroup) {
            family.push([Label::Text(resource), Label::Text("some")], Value::seconds(some));
            family.push([Label::Text(resource), Label::Text("full")], Value::seconds(full));
        }
    }
    families.push(family);
}
