//! The table of options: one row each. The command line, the file readers, `--help` and `docs/options.md` are all made
//! from it, and [`Config`] is filled by it.

use super::files::Notation;
use super::row::{Action, Group, Kind, Row, Standing};
use super::{AppSource, row};
use Kind::{Act, Addresses, Always, Custom, Flag, Number, Path, Paths};
use Standing::Done;

/// What most rows have in common; each group's rows start from theirs.
const OTHER: Row = Row {
    standing: Done,
    names: &[],
    short: None,
    kind: Always,
    takes: "",
    default: "",
    help: "",
    since: "0.1",
    group: Group::Other,
};
const SOCKETS: Row = Row { group: Group::Sockets, takes: "ADDRESS", ..OTHER };
const APPLICATION: Row = Row { group: Group::Application, ..OTHER };
const WORKERS: Row = Row { group: Group::Workers, ..OTHER };
const REQUESTS: Row = Row { group: Group::Requests, ..OTHER };
const LOGGING: Row = Row { group: Group::Logging, ..OTHER };
const STATS: Row = Row { group: Group::Stats, ..OTHER };
const CONFIGURATION: Row = Row { group: Group::Configuration, ..OTHER };

/// Every option, in the order in which the reference lists them.
#[rustfmt::skip]
pub(crate) static OPTIONS: &[Row] = &[
    // How requests come in.
    Row { standing: Done, names: &["http"], kind: Addresses(|c| &mut c.http),
          help: "Serve HTTP here through a front process that holds slow clients off the workers", ..SOCKETS },
    Row { standing: Done, names: &["http-socket"], kind: Addresses(|c| &mut c.http_socket),
          help: "Serve HTTP/1.1 here from the workers themselves, for use behind a proxy (proxy_pass)", ..SOCKETS },
    Row { standing: Done, names: &["socket", "uwsgi-socket", "uwsgi"], short: Some('s'), kind: Addresses(|c| &mut c.socket),
          help: "Serve the uwsgi protocol here, for nginx's uwsgi_pass", ..SOCKETS },
    Row { standing: Done, names: &["listen"], short: Some('l'), kind: Number(|c| &mut c.listen, 1..=1 << 20),
          takes: "N", default: "net.core.somaxconn",
          help: "How many connections may wait in each socket's backlog", ..SOCKETS },

    // What is served.
    Row { standing: Done, names: &["module", "wsgi"], short: Some('w'), kind: Custom(set_module), takes: "MODULE[:CALLABLE]",
          help: "Import the application from this module, as in mysite.wsgi:application", ..APPLICATION },
    Row { standing: Done, names: &["wsgi-file", "file"], kind: Custom(set_file), takes: "FILE",
          help: "Load the application from this Python file, relative to chdir", ..APPLICATION },
    Row { standing: Done, names: &["callable"], kind: Custom(set_callable), takes: "NAME", default: "application",
          help: "The application's name in its module", ..APPLICATION },
    Row { standing: Done, names: &["chdir"], kind: Path(|c| &mut c.chdir), takes: "DIR",
          help: "Change to this directory before the application is loaded; it is also where imports are looked for first",
          ..APPLICATION },
    Row { standing: Done, names: &["pythonpath", "python-path", "pp"], kind: Paths(|c| &mut c.pythonpath), takes: "DIR",
          help: "Put this directory before Python's sys.path", ..APPLICATION },
    Row { standing: Done, names: &["home", "virtualenv", "venv", "pyhome"], short: Some('H'), kind: Path(|c| &mut c.home), takes: "DIR",
          help: "The virtual environment to run in", ..APPLICATION },
    Row { standing: Done, names: &["lazy-apps"], kind: Flag(|c| &mut c.lazy_apps),
          help: "Load the application in each worker after the fork, rather than once before it (costs memory)", ..APPLICATION },
    Row { standing: Done, names: &["need-app"], kind: Always,
          help: "Exit when the application cannot be loaded: always so here", ..APPLICATION },

    // Who serves it.
    Row { standing: Done, names: &["processes", "workers"], short: Some('p'), kind: Number(|c| &mut c.processes, 1..=10_000),
          takes: "N", default: "1",
          help: "Number of workers", ..WORKERS },
    Row { standing: Done, names: &["threads"], kind: Number(|c| &mut c.threads, 1..=10_000), takes: "N", default: "1",
          help: "Threads in each worker, each of which serves one request at a time", ..WORKERS },
    Row { standing: Done, names: &["master"], short: Some('M'), kind: Always,
          help: "Run under a master process: always so here", ..WORKERS },
    Row { standing: Done, names: &["enable-threads"], short: Some('T'), kind: Always,
          help: "Let the application run threads of its own: always so here", ..WORKERS },

    Row { standing: Done, names: &["buffer-size"], short: Some('b'), kind: Custom(set_buffer_size), takes: "BYTES", default: "65536",
          help: "The largest request head", ..REQUESTS },

    Row { standing: Done, names: &["memory-report"], short: Some('m'), kind: Flag(|c| &mut c.memory_report),
          help: "Add the worker's memory to each line of the access log", ..LOGGING },
    Row { standing: Done, names: &["disable-logging"], short: Some('L'), kind: Flag(|c| &mut c.disable_logging),
          help: "No access log; errors are still logged", ..LOGGING },

    Row { standing: Done, names: &["stats", "stats-server"], kind: Addresses(|c| &mut c.stats), takes: "ADDRESS",
          help: "Give the state of every worker as one JSON document to whoever connects here (rtop, uwsgitop)", ..STATS },
    Row { standing: Done, names: &["stats-http"], kind: Flag(|c| &mut c.stats_http),
          help: "Speak HTTP on the stats addresses", ..STATS },

    Row { standing: Done, names: &["ini"], kind: Act(Action::Load(Some(Notation::Ini))), takes: "FILE[:SECTION]",
          help: "Read options from this file's [uwsgi] or [rwsgi] section, or the one named after a colon", ..CONFIGURATION },

    Row { standing: Done, names: &["help", "usage"], short: Some('h'), kind: Act(Action::Help), help: "Print this help", ..OTHER },
    Row { standing: Done, names: &["version"], kind: Act(Action::Version), help: "Print the version", ..OTHER },
    Row { standing: Done, names: &["python-version"], kind: Act(Action::PythonVersion),
          help: "Print the version of the Python that runs applications", ..OTHER },
];

/// The row that goes by this long name.
pub(crate) fn find(name: &str) -> Option<&'static Row> {
    OPTIONS.iter().find(|row| row.names.contains(&name))
}

/// The colon stays for now: whichever of `module` and `callable` comes first, the one after the colon wins.
fn set_module(config: &mut super::Config, value: &str) -> Result<(), String> {
    let (module, callable) = value.split_once(':').unwrap_or((value, "application"));
    if module.is_empty() || callable.is_empty() {
        return Err("a module's name, optionally with a colon and the callable's".into());
    }
    config.app = AppSource::Module(value.into());
    Ok(())
}

fn set_file(config: &mut super::Config, value: &str) -> Result<(), String> {
    config.app = AppSource::File(row::path(value)?);
    Ok(())
}

fn set_callable(config: &mut super::Config, value: &str) -> Result<(), String> {
    if value.is_empty() {
        return Err("the application's name in its module".into());
    }
    config.callable = value.into();
    Ok(())
}

fn set_buffer_size(config: &mut super::Config, value: &str) -> Result<(), String> {
    config.buffer_size = row::number(value, &(1024..=1 << 30))?;
    Ok(())
}
