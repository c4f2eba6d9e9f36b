//! The emperor's stats document: what uWSGI's sends, and what every document of ours has.

use nix::unistd::Pid;
use rwsgi_stats::{SCHEMA_VERSION, Snapshot};

use super::scan::Monitor;
use super::throttle::Throttle;
use super::vassals::Vassals;
use crate::clock::UnixMicros;

/// The document for now.
pub(super) fn document(vassals: &Vassals, monitors: &[Monitor], is_tyrant: bool, started_at: UnixMicros) -> Snapshot {
    Snapshot {
        version: env!("CARGO_PKG_VERSION").to_owned(),
        pid: Pid::this().as_raw(),
        uid: nix::unistd::getuid().as_raw(),
        gid: nix::unistd::getgid().as_raw(),
        cwd: std::env::current_dir().map(|cwd| cwd.to_string_lossy().into_owned()).unwrap_or_default(),
        emperor: Some(monitors.iter().map(|monitor| monitor.name.clone()).collect()),
        emperor_tyrant: Some(is_tyrant.into()),
        throttle_level: Some(0),
        vassals: Some(vassals.iter().map(|vassal| vassal.record.clone()).collect()),
        blacklist: Some(vassals.throttle.as_ref().map_or_else(Vec::new, Throttle::document)),
        server: Some("rwsgi".to_owned()),
        schema: Some(SCHEMA_VERSION),
        hostname: Some(nix::unistd::gethostname().unwrap_or_default().to_string_lossy().into_owned()),
        started_at: Some(started_at.as_micros()),
        now: Some(UnixMicros::now().as_micros()),
        ..Snapshot::default()
    }
}
