//! The emperor: a process that runs a server for each configuration file of a directory, its vassals.

use std::path::PathBuf;

use rwsgi_stats::Address;
use serde::{Deserialize, Serialize};

use super::row::OTHER;
use super::row::{Group, Kind, Row};
use super::{AppSource, Config};
use Kind::{Addresses, Always, Flag, Limit, Number, Path, Text, Texts};

/// What the emperor watches, how it starts vassals, and what a vassal tells its emperor.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct EmperorConfig {
    /// `--emperor`: directories and patterns of vassal files, relative to [`Self::start`]; empty for no emperor.
    pub monitors: Vec<String>,
    /// The process is the emperor and serves nothing itself.
    pub is_alone: bool,
    /// The directory that the server was started in.
    pub start: PathBuf,
    /// `--emperor-freq`: seconds between two scans.
    pub frequency: u32,
    /// `--emperor-extra-extension`: ends of file names that are vassals too.
    pub extensions: Vec<String>,
    /// `--emperor-nofollow`: a vassal is as new as the link to its file.
    pub nofollow: bool,
    /// `--emperor-tyrant`: vassals run as the owners of their files.
    pub tyrant: bool,
    /// `--emperor-tyrant-nofollow`: the owner of a link counts, not that of the file.
    pub tyrant_nofollow: bool,
    /// `--emperor-tyrant-initgroups`: vassals are in their user's additional groups.
    pub tyrant_initgroups: bool,
    /// `--emperor-throttle`: what each early death adds to the wait before the next start, ms.
    pub throttle: u32,
    /// `--emperor-max-throttle`: the longest such wait, ms.
    pub max_throttle: u32,
    /// `--emperor-no-blacklist`: no such wait.
    pub no_blacklist: bool,
    /// `--emperor-curse-tolerance`: seconds that a vassal may take to stop.
    pub curse_tolerance: u32,
    /// `--emperor-required-heartbeat`: seconds that may pass between two heartbeats of a vassal that sends them.
    pub required_heartbeat: u32,
    /// `--emperor-on-demand-extension`: the file of this name, vassal's name first, has the socket of the vassal.
    pub on_demand_extension: Option<String>,
    /// `--emperor-on-demand-directory`: where the sockets of all vassals are.
    pub on_demand_directory: Option<PathBuf>,
    /// `--emperor-on-demand-exec`: the command that prints a vassal's socket.
    pub on_demand_exec: Option<String>,
    /// `--emperor-wrapper`: the program that is started instead of this one.
    pub wrapper: Option<String>,
    /// `--emperor-wrapper-override`: programs to try before that.
    pub wrapper_override: Vec<String>,
    /// `--emperor-wrapper-fallback`: programs to try when that cannot be started.
    pub wrapper_fallback: Vec<String>,
    /// `--vassals-inherit-before`: `--inherit` for each vassal, before its file.
    pub inherit_before: Vec<String>,
    /// `--vassals-include-before`: `--include` for each vassal, before its file.
    pub include_before: Vec<String>,
    /// `--vassal-set`: `--set` for each vassal, before its file.
    pub set: Vec<String>,
    /// `--vassals-inherit`: `--inherit` for each vassal, after its file.
    pub inherit: Vec<String>,
    /// `--vassals-include`: `--include` for each vassal, after its file.
    pub include: Vec<String>,
    /// `--vassals-start-hook`: the program that is run before each vassal.
    pub start_hook: Option<String>,
    /// `--vassals-stop-hook`: the program that is run after each vassal.
    pub stop_hook: Option<String>,
    /// `--emperor-graceful-shutdown`: vassals that stop are told to finish what they have.
    pub graceful_shutdown: bool,
    /// `--emperor-pidfile`.
    pub pidfile: Option<PathBuf>,
    /// `--emperor-procname`: the emperor's name in `ps`.
    pub procname: Option<String>,
    /// `--emperor-stats`: addresses of the emperor's stats server.
    pub stats: Vec<Address>,
    /// `--heartbeat`: seconds between two heartbeats to the emperor that this server is a vassal of.
    pub heartbeat: Option<u32>,
}

impl Default for EmperorConfig {
    fn default() -> Self {
        Self {
            monitors: Vec::new(),
            is_alone: false,
            start: PathBuf::new(),
            frequency: 3,
            extensions: Vec::new(),
            nofollow: false,
            tyrant: false,
            tyrant_nofollow: false,
            tyrant_initgroups: false,
            throttle: 1000,
            max_throttle: 180_000,
            no_blacklist: false,
            curse_tolerance: 30,
            required_heartbeat: 30,
            on_demand_extension: None,
            on_demand_directory: None,
            on_demand_exec: None,
            wrapper: None,
            wrapper_override: Vec::new(),
            wrapper_fallback: Vec::new(),
            inherit_before: Vec::new(),
            include_before: Vec::new(),
            set: Vec::new(),
            inherit: Vec::new(),
            include: Vec::new(),
            start_hook: None,
            stop_hook: None,
            graceful_shutdown: false,
            pidfile: None,
            procname: None,
            stats: Vec::new(),
            heartbeat: None,
        }
    }
}

const EMPEROR: Row = Row { group: Group::Emperor, ..OTHER };

#[rustfmt::skip]
pub(crate) static ROWS: &[Row] = &[
    Row { names: &["emperor"], kind: Texts(|c| &mut c.emperor.monitors), takes: "DIR|PATTERN",
          help: "Run a server for each configuration file of this directory, or that matches this pattern", ..EMPEROR },
    Row { names: &["emperor-freq"], kind: Number(|c| &mut c.emperor.frequency, 1..=86_400), takes: "SECONDS", default: "3",
          help: "Look for new, changed and removed vassal files this often", ..EMPEROR },
    Row { names: &["emperor-extra-extension", "emperor-extra-ext"], kind: Texts(|c| &mut c.emperor.extensions), takes: "END",
          help: "Take files whose names end in this for vassals too; rwsgi reads them by their last extension", ..EMPEROR },
    Row { names: &["emperor-nofollow"], kind: Flag(|c| &mut c.emperor.nofollow),
          help: "Reload a vassal when the link to its file changes, and not when the file does", ..EMPEROR },
    Row { names: &["emperor-tyrant"], kind: Flag(|c| &mut c.emperor.tyrant),
          help: "Run each vassal as the owner and group of its file; files of root are refused", ..EMPEROR },
    Row { names: &["emperor-tyrant-nofollow"], kind: Flag(|c| &mut c.emperor.tyrant_nofollow),
          help: "Run a vassal as the owner of the link to its file", ..EMPEROR },
    Row { names: &["emperor-tyrant-initgroups"], kind: Flag(|c| &mut c.emperor.tyrant_initgroups),
          help: "Give a vassal the additional groups of its user", ..EMPEROR },
    Row { names: &["emperor-throttle"], kind: Number(|c| &mut c.emperor.throttle, 0..=86_400_000), takes: "MS", default: "1000",
          help: "Wait this much longer after each early death of a vassal before it is started again", ..EMPEROR },
    Row { names: &["emperor-max-throttle"], kind: Number(|c| &mut c.emperor.max_throttle, 0..=86_400_000), takes: "MS",
          default: "180000", help: "The longest such wait", ..EMPEROR },
    Row { names: &["emperor-no-blacklist"], kind: Flag(|c| &mut c.emperor.no_blacklist),
          help: "Start vassals that die early again at once", ..EMPEROR },
    Row { names: &["emperor-curse-tolerance"], kind: Number(|c| &mut c.emperor.curse_tolerance, 0..=86_400),
          takes: "SECONDS", default: "30", help: "Kill a vassal that has not stopped after this", ..EMPEROR },
    Row { names: &["emperor-required-heartbeat"], kind: Number(|c| &mut c.emperor.required_heartbeat, 1..=86_400),
          takes: "SECONDS", default: "30",
          help: "Kill and start again a vassal that sends heartbeats and has sent none for this long", ..EMPEROR },
    Row { names: &["emperor-on-demand-extension", "emperor-on-demand-ext"],
          kind: Text(|c| &mut c.emperor.on_demand_extension), takes: "END",
          help: "Start a vassal at the first connection to the socket that is named in the file with its name and this end",
          ..EMPEROR },
    Row { names: &["emperor-on-demand-directory", "emperor-on-demand-dir"],
          kind: Path(|c| &mut c.emperor.on_demand_directory), takes: "DIR",
          help: "Start each vassal at the first connection to the socket NAME.socket in this directory", ..EMPEROR },
    Row { names: &["emperor-on-demand-exec"], kind: Text(|c| &mut c.emperor.on_demand_exec), takes: "COMMAND", is_for_shell: true,
          help: "Start a vassal at the first connection to the socket that this command prints, given the vassal's name",
          ..EMPEROR },
    Row { names: &["emperor-wrapper"], kind: Text(|c| &mut c.emperor.wrapper), takes: "PROGRAM",
          help: "Start vassals with this program, as in /usr/bin/uwsgi", ..EMPEROR },
    Row { names: &["emperor-wrapper-override"], kind: Texts(|c| &mut c.emperor.wrapper_override), takes: "PROGRAM",
          help: "Try this program first", ..EMPEROR },
    Row { names: &["emperor-wrapper-fallback"], kind: Texts(|c| &mut c.emperor.wrapper_fallback), takes: "PROGRAM",
          help: "Try this program when the others cannot be started", ..EMPEROR },
    Row { names: &["vassal-set", "vassals-set"], kind: Texts(|c| &mut c.emperor.set), takes: "NAME=VALUE",
          help: "Set an option for every vassal; the vassal's own file has the last word", ..EMPEROR },
    Row { names: &["vassals-include"], kind: Texts(|c| &mut c.emperor.include), takes: "FILE",
          help: "Have every vassal include this file, after its own", ..EMPEROR },
    Row { names: &["vassals-include-before"], kind: Texts(|c| &mut c.emperor.include_before), takes: "FILE",
          help: "Have every vassal include this file, before its own", ..EMPEROR },
    Row { names: &["vassals-inherit"], kind: Texts(|c| &mut c.emperor.inherit), takes: "FILE",
          help: "Have every vassal inherit this file", ..EMPEROR },
    Row { names: &["vassals-inherit-before"], kind: Texts(|c| &mut c.emperor.inherit_before), takes: "FILE",
          help: "Have every vassal inherit this file, before the others that it inherits", ..EMPEROR },
    Row { names: &["vassals-start-hook"], kind: Text(|c| &mut c.emperor.start_hook), takes: "PROGRAM",
          help: "Run this program with the vassal's name before each vassal, and with its rights", ..EMPEROR },
    Row { names: &["vassals-stop-hook"], kind: Text(|c| &mut c.emperor.stop_hook), takes: "PROGRAM",
          help: "Run this program with the vassal's name after each vassal", ..EMPEROR },
    Row { names: &["emperor-graceful-shutdown"], kind: Flag(|c| &mut c.emperor.graceful_shutdown),
          help: "Have uWSGI vassals finish their requests when they are stopped; those of rwsgi always do", ..EMPEROR },
    Row { names: &["emperor-pidfile"], kind: Path(|c| &mut c.emperor.pidfile), takes: "FILE",
          help: "Write the emperor's process id to this file, after privileges are dropped", ..EMPEROR },
    Row { names: &["emperor-procname"], kind: Text(|c| &mut c.emperor.procname), takes: "NAME",
          help: "Give the emperor this name", ..EMPEROR },
    Row { names: &["emperor-stats", "emperor-stats-server"], kind: Addresses(|c| &mut c.emperor.stats), takes: "ADDRESS",
          help: "Serve what the emperor knows of its vassals here, as JSON", ..EMPEROR },
    Row { names: &["early-emperor"], kind: Always,
          help: "Nothing to do: an emperor that has dropped its rights could not give vassals theirs", ..EMPEROR },
    Row { names: &["heartbeat"], kind: Limit(|c| &mut c.emperor.heartbeat), takes: "SECONDS",
          help: "Tell the emperor that this vassal is well, this often", ..EMPEROR },
];

/// Settles whether the emperor is alone. Returns whether it is: then nothing else of the configuration counts.
pub(super) fn finish(config: &mut Config) -> bool {
    if config.emperor.monitors.is_empty() {
        return false;
    }
    let sockets: Vec<_> = [("http", &config.http), ("http-socket", &config.http_socket), ("socket", &config.socket)]
        .into_iter()
        .flat_map(|(option, addresses)| addresses.iter().map(move |address| format!("{option} {address}")))
        .collect();
    let has_application = config.app != AppSource::Module(String::new()) || !config.mounts.is_empty();
    let serves = !sockets.is_empty() && has_application;
    config.emperor.is_alone = !serves && !has_company(config);
    if config.emperor.is_alone && has_application {
        config.warnings.push(
            "the emperor has an application and no socket of its own: nothing serves the application; give it http, \
             http-socket or socket, or a file among the vassals"
                .into(),
        );
    } else if config.emperor.is_alone && !sockets.is_empty() {
        config.warnings.push(format!(
            "{}: nothing is served here, because the emperor has no application of its own (uWSGI would answer 500): each \
             vassal has its own sockets",
            sockets.join(", ")
        ));
    }
    if config.emperor.is_alone {
        let mut lost: Vec<&str> = config.given.iter().map(|(name, _)| name.as_str()).collect();
        lost.retain(|name| OF_A_SERVER.contains(name));
        lost.dedup();
        if !lost.is_empty() {
            config.lose(format!(
                "{}: no effect, because the emperor has no server of its own: put it into a vassal, or give the emperor an \
                 application and a socket",
                lost.join(", ")
            ));
        }
    }
    config.emperor.is_alone
}

/// Whether something else runs beside the emperor, which needs a master.
fn has_company(config: &Config) -> bool {
    !(config.daemons.programs.is_empty()
        && config.crons.commands.is_empty()
        && config.spooler.directories.is_empty()
        && config.between.mules.is_empty())
}

/// Options that an emperor alone cannot honour, and whose loss would show late.
const OF_A_SERVER: [&str; 8] = [
    "control",
    "hook-master-start",
    "hook-touch",
    "master-fifo",
    "probe",
    "py-autoreload",
    "touch-exec",
    "touch-reload",
];

#[cfg(test)]
mod tests {
    use crate::tests::serve;

    #[test]
    fn without_something_to_serve_the_emperor_is_alone() {
        let config = serve("rwsgi --master --emperor /etc/uwsgi/vassals --emperor */*.ini --uid 0 --stats :9191 -p 4");
        assert!(config.emperor.is_alone && config.warnings.is_empty(), "{:?}", config.warnings);
        assert_eq!(config.emperor.monitors, ["/etc/uwsgi/vassals", "*/*.ini"]);
        let config = serve("rwsgi --emperor /etc/vassals --http-socket :8000");
        assert!(config.emperor.is_alone, "uWSGI starts with it, and so do we");
        assert!(config.warnings[0].contains("http-socket :8000"), "{:?}", config.warnings);
        let config = serve("rwsgi --emperor /etc/vassals --module mysite.wsgi");
        assert!(config.emperor.is_alone && config.warnings.len() == 1, "{:?}", config.warnings);
        let config = serve("rwsgi --emperor /etc/vassals --touch-reload /tmp/x --touch-reload /tmp/y");
        assert!(config.warnings[0].starts_with("touch-reload: no effect"), "{:?}", config.warnings);
        for company in ["--mules 2", "--spooler /tmp", "--attach-daemon top"] {
            let config = serve(&format!("rwsgi --emperor /etc/vassals {company}"));
            assert!(!config.emperor.is_alone && config.warnings.is_empty(), "{:?}", config.warnings);
            assert_eq!(config.processes, 0);
        }
        let config = serve("rwsgi --emperor /etc/vassals --module mysite.wsgi --http :8000");
        assert!(!config.emperor.is_alone && config.warnings.is_empty(), "{:?}", config.warnings);
    }

    #[test]
    fn vassals_are_given_options_as_people_write_them() {
        let config = serve(
            "rwsgi --emperor v --vassal-set processes=2 --vassals-set threads=2 --vassals-include a.ini --emperor-freq 10s",
        );
        assert_eq!(config.emperor.set, ["processes=2", "threads=2"]);
        assert_eq!((config.emperor.include.len(), config.emperor.frequency), (1, 10));
    }
}
