//! The configuration: the typed, checked result of the command line and the files.
//!
//! Nothing else in the server reads raw options. The master makes a [`Config`] once per (re)load and hands it to the
//! fork server and the http router as JSON.
//!
//! The way through: `command_line` and `files` read; `gather` puts in order, taking settings through `logic`,
//! `magic` and `expand`; `options`, the one table, sets fields; and `settle` decides what depends on several
//! options at once. `typed` is the result. `uwsgi` knows what becomes of options that we do not have.

pub mod alarms;
mod app_source;
mod between;
mod carbon;
mod cheaper;
mod check;
mod command_line;
mod container;
mod control;
mod crons;
mod daemons;
mod declared;
mod emperor;
mod error;
mod event_loops;
mod expand;
mod files;
mod gather;
mod getopt;
mod harakiri;
pub mod hooks;
mod http_router;
mod keyval;
mod limits;
mod logic;
mod logs;
mod magic;
mod metrics_compat;
mod migrate;
mod options;
mod otlp;
mod plugins;
mod privileges;
mod probes;
mod program;
mod python;
pub mod reactions;
mod reference;
mod routes;
mod routing;
mod row;
mod scripts;
mod set;
mod setting;
mod settle;
mod slow_requests;
mod sockets;
mod static_files;
mod stats_push;
mod statsd;
mod surroundings;
mod system;
#[cfg(test)]
mod tests;
mod tls;
mod typed;
mod uwsgi;
mod value;
mod websockets;

use std::ffi::OsString;
use std::path::PathBuf;

pub use app_source::{AppSource, Mount};
pub use between::*;
pub use carbon::{CarbonConfig, IdleAverage};
pub use cheaper::*;
use check::CHECK;
pub use check::Report;
pub use container::{ContainerConfig, Percent};
pub use control::ControlSocket;
pub use crons::{CronConfig, CronsConfig, SignalsConfig};
pub use daemons::{DaemonConfig, DaemonsConfig};
pub use emperor::EmperorConfig;
pub use error::ConfigError;
pub use event_loops::{EventLoops, MOST_THREADS};
use gather::Gatherer;
pub use harakiri::HarakiriConfig;
pub use http_router::HttpRouterConfig;
pub use limits::{MinRate, MinRates, Temp, TempSize};
pub use logs::*;
pub use metrics_compat::MetricsCompat;
pub use migrate::{Migration, Outcome};
pub use otlp::{OtlpConfig, ParentRule, Ratio, pairs as otlp_pairs};
pub use probes::ProbesConfig;
pub use program::Announcements;
pub use python::{Alias, PythonConfig};
pub use routes::RoutesConfig;
pub use routing::{CollectHeader, RoutingConfig};
pub use row::Order;
use row::{Action, Kind};
pub use setting::Origin;
use setting::{Argument, Setting};
pub use slow_requests::{SlowRequestLog, SlowRequestsConfig};
pub use sockets::{SocketConfig, SocketMap};
pub use static_files::*;
pub use stats_push::*;
pub use statsd::*;
use surroundings::Surroundings;
pub use system::SystemConfig;
pub use tls::{ClientCa, HttpsSocket, Identity, RedirectSocket, TlsConfig};
pub use typed::*;
pub use value::is_off;
pub use websockets::{WebSocketRules, WebSockets};

/// A variable that a vassal finds when it runs as the owner of its file: who puts another file in its place must not
/// have it read with that user's rights. So files that the command line names must belong to the user or to root.
pub const OWNED_ONLY: &str = "RWSGI_OWNED_ONLY";

/// The first argument that asks for [`Invocation::Ctl`].
const CTL: &str = "ctl";

/// What the command line asks for.
#[derive(Debug)]
pub enum Invocation {
    /// Serve. Print [`Config::warnings`] first.
    Serve(Box<Config>),
    /// Print this to standard output and exit 0.
    Print(String),
    /// Print the version of Python and exit 0.
    PythonVersion,
    /// `--check`: print this to standard output and exit 0 if it is well, else 1.
    Check(Report),
    /// `--exit`: print this to standard output and exit with this status.
    Exit {
        /// What `--iprint` said before.
        text: String,
        /// From 0 to 255.
        status: i32,
    },
    /// `--connect-and-read`: print what comes from there.
    Read(rwsgi_stats::Address),
    /// `rwsgi migrate`: print this to standard output and exit by its outcome.
    Migrate(Migration),
    /// `--stop`, `--reload`: signal the server whose pidfile this is.
    Signal(Order, PathBuf),
    /// `rwsgi ctl`: ask a running server through its control socket; the words that follow.
    Ctl(Vec<OsString>),
}

/// Reads the command line (program name first) and the files that it names.
///
/// # Errors
/// The first thing that is wrong; nothing has been changed or opened then.
pub fn load(argv: impl Iterator<Item = OsString>) -> Result<Invocation, ConfigError> {
    load_within(argv, Surroundings::of_this_process())
}

/// As [`load`], for a server that runs: what is in `if-reload` is taken, and not what is in `if-not-reload`.
///
/// # Errors
/// As [`load`].
pub fn load_again(argv: impl Iterator<Item = OsString>) -> Result<Invocation, ConfigError> {
    load_within(argv, Surroundings { is_reload: true, ..Surroundings::of_this_process() })
}

fn load_within(argv: impl Iterator<Item = OsString>, around: Surroundings) -> Result<Invocation, ConfigError> {
    let argv: Vec<OsString> = argv.collect();
    if let [program, word, words @ ..] = argv.as_slice()
        && word == migrate::MIGRATE
    {
        return Ok(Invocation::Migrate(migrate::migrate(program, words, around)));
    }
    if let [_, word, words @ ..] = argv.as_slice()
        && word == CTL
    {
        return Ok(Invocation::Ctl(words.to_vec()));
    }
    let arguments = command_line::parse(argv.into_iter())?;
    if arguments.iter().any(|argument| matches!(argument, Argument::Option(name, _) if name == CHECK)) {
        return Ok(Invocation::Check(check::report(arguments, around)));
    }
    let mut gatherer = Gatherer::new(around);
    gatherer.gather(arguments)?;
    if let Some(invocation) = gatherer.settings.iter().find_map(instead_of_serving) {
        return Ok(invocation);
    }
    if let Some(invocation) = scripts::instead_of_serving(&gatherer.settings)? {
        return Ok(invocation);
    }
    let mut settled = settle::settle(&gatherer);
    match settled.errors.is_empty() {
        true => Ok(Invocation::Serve(Box::new(settled.config))),
        false => Err(settled.errors.remove(0)),
    }
}

/// The words of `rwsgi ctl` for `--stacks`: of the server of this control socket, or else of this pidfile.
fn stacks(path: &str) -> Vec<OsString> {
    use std::os::unix::fs::FileTypeExt as _;
    let is_socket = std::fs::metadata(path).is_ok_and(|found| found.file_type().is_socket());
    [if is_socket { "--control" } else { "--pidfile" }, path, "stacks"].map(OsString::from).to_vec()
}

/// What a setting asks for that is not serving.
fn instead_of_serving(setting: &Setting) -> Option<Invocation> {
    // Elsewhere they are a mistake: a variable UWSGI_VERSION, say, is not to keep the server from serving.
    if setting.origin != Origin::CommandLine {
        return None;
    }
    let Kind::Act(action) = options::find(&setting.name)?.kind else { return None };
    match action {
        Action::Help => Some(Invocation::Print(command_line::help())),
        Action::Version => Some(Invocation::Print(format!("{}\n", env!("CARGO_PKG_VERSION")))),
        Action::PythonVersion => Some(Invocation::PythonVersion),
        Action::Stacks => Some(Invocation::Ctl(stacks(&setting.value))),
        Action::Signal(order) => Some(Invocation::Signal(order, PathBuf::from(&setting.value))),
        _ => None,
    }
}
