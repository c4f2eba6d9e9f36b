//! What the server is told to do: the typed, checked result of the command line and the files.
//!
//! Nothing else in the server reads raw options. The master makes a [`Config`] once per (re)load and hands it to the
//! fork server and the front as JSON.
//!
//! The way through: [`command_line`] and [`files`] read, [`gather`] puts in order, [`options`] (the one table) sets
//! fields, and the end of [`load`] checks what only makes sense together.

mod command_line;
mod error;
mod files;
mod gather;
mod options;
mod reference;
mod row;
#[cfg(test)]
mod tests;

use std::ffi::OsString;
use std::fmt;
use std::path::PathBuf;

use rwsgi_stats::Address;
use serde::{Deserialize, Serialize};

pub use error::ConfigError;
use gather::Gatherer;
pub use reference::pages;
use row::{Action, Kind, Standing};

/// What the command line asks for.
#[derive(Debug)]
#[non_exhaustive]
pub enum Invocation {
    /// Serve as told. Print [`Config::warnings`] first.
    Serve(Box<Config>),
    /// Print this to standard output and exit 0.
    Print(String),
    /// Print the version of Python and exit 0.
    PythonVersion,
}

/// Where a setting was given.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Origin {
    /// As an argument.
    CommandLine,
    /// In a file, on a line counted from 1.
    File {
        /// The file, as it was named.
        path: PathBuf,
        /// The line.
        line: usize,
    },
}

impl fmt::Display for Origin {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::CommandLine => f.write_str("command line"),
            Self::File { path, line } => write!(f, "{}:{line}", path.display()),
        }
    }
}

/// Reads the command line (program name first) and the files that it names.
///
/// # Errors
/// The first thing that is wrong; nothing has been changed or opened then.
pub fn load(argv: impl Iterator<Item = OsString>) -> Result<Invocation, ConfigError> {
    let mut gatherer = Gatherer::default();
    gatherer.command_line(command_line::parse(argv)?)?;
    let mut config = Config { listen: somaxconn(), ..Config::default() };
    for setting in &gatherer.settings {
        let Some(row) = options::find(&setting.name) else {
            config.warnings.push(format!("{}", unknown(setting)));
            continue;
        };
        match row.kind {
            Kind::Act(Action::Help) => return Ok(Invocation::Print(command_line::help())),
            Kind::Act(Action::Version) => {
                return Ok(Invocation::Print(format!("{}\n", env!("CARGO_PKG_VERSION"))));
            }
            Kind::Act(Action::PythonVersion) => return Ok(Invocation::PythonVersion),
            _ => {}
        }
        row.set(&mut config, &setting.value).map_err(|problem| ConfigError::BadValue {
            origin: setting.origin.clone(),
            option: match setting.origin {
                Origin::CommandLine => format!("--{}", setting.name),
                Origin::File { .. } => setting.name.clone(),
            },
            problem,
        })?;
        if row.standing == Standing::Planned {
            config.warnings.push(format!("{}: {} has no effect yet", setting.origin, setting.name));
        }
    }
    finish(config).map(|config| Invocation::Serve(Box::new(config)))
}

fn unknown(setting: &gather::Setting) -> ConfigError {
    ConfigError::UnknownOption {
        origin: setting.origin.clone(),
        name: setting.name.clone(),
        nearest: nearest(&setting.name).map(Into::into),
    }
}

/// Settles what depends on several options at once.
fn finish(mut config: Config) -> Result<Config, ConfigError> {
    if config.http.is_empty() && config.http_socket.is_empty() && config.socket.is_empty() {
        return Err(ConfigError::NoSocket);
    }
    if let AppSource::Module(module) = &config.app {
        if module.is_empty() {
            return Err(ConfigError::NoApplication);
        }
        if let Some((module, callable)) = module.split_once(':') {
            config.callable = callable.to_owned();
            config.app = AppSource::Module(module.to_owned());
        }
    }
    let most = somaxconn();
    if config.listen > most {
        config.warnings.push(format!(
            "listen: the system lets at most {most} connections wait, not {}: raise net.core.somaxconn with sysctl",
            config.listen
        ));
    }
    Ok(config)
}

/// The longest backlog that the kernel grants; 4096 is its own default since Linux 5.4.
fn somaxconn() -> u32 {
    let text = std::fs::read_to_string("/proc/sys/net/core/somaxconn").unwrap_or_default();
    text.trim().parse().unwrap_or(4096)
}

/// The option whose name looks most like this one, when it looks like it at all.
fn nearest(name: &str) -> Option<&'static str> {
    let names = options::OPTIONS.iter().flat_map(|row| row.names.iter().copied());
    let scored = names.map(|known| (strsim::normalized_damerau_levenshtein(name, known), known));
    scored.filter(|(score, _)| *score >= 0.6).max_by(|(a, _), (b, _)| a.total_cmp(b)).map(|(_, known)| known)
}

/// Where the application is.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum AppSource {
    /// `--wsgi-file`: a Python file, relative to `chdir`.
    File(PathBuf),
    /// `--module`: an importable module.
    Module(String),
}

/// Everything that the server does differently from one run to another.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Config {
    /// `--http`: addresses that the front process listens on.
    pub http: Vec<Address>,
    /// `--http-socket`: addresses on which the workers speak HTTP/1.1 themselves.
    pub http_socket: Vec<Address>,
    /// `--socket`: addresses on which the workers speak the uwsgi protocol.
    pub socket: Vec<Address>,
    /// `--listen`: connections that may wait in each socket's backlog.
    pub listen: u32,
    /// The application.
    pub app: AppSource,
    /// `--callable`: the application's name in its module.
    pub callable: String,
    /// `--chdir`: working directory of the application.
    pub chdir: Option<PathBuf>,
    /// `--pythonpath`: put before `sys.path`, in this order.
    pub pythonpath: Vec<PathBuf>,
    /// `--home`, `--virtualenv`: the virtual environment to run in.
    pub home: Option<PathBuf>,
    /// `--processes`: number of workers.
    pub processes: u32,
    /// `--threads`: cores in each worker.
    pub threads: u32,
    /// `--stats`: addresses of the stats server.
    pub stats: Vec<Address>,
    /// `--stats-http`: the stats server answers HTTP.
    pub stats_http: bool,
    /// `--memory-report`: memory in the access log.
    pub memory_report: bool,
    /// `--disable-logging`: no access log.
    pub disable_logging: bool,
    /// `--lazy-apps`: each worker loads the application itself, after the fork.
    pub lazy_apps: bool,
    /// `--socket-timeout`: how long a client may take to send or receive anything, seconds.
    pub socket_timeout: u32,
    /// `--http-timeout`: the same for the front's clients, seconds.
    pub http_timeout: u32,
    /// How long a kept-alive connection may be idle, seconds.
    pub http_keepalive: u32,
    /// `--buffer-size`: the largest request head, bytes.
    pub buffer_size: usize,
    /// `--limit-post`: the largest request body, bytes; 0 for no limit.
    pub limit_post: u64,
    /// `--post-buffering`: the largest request body that waits in memory, bytes; larger ones wait in a file.
    pub post_buffering: u64,
    /// `--worker-reload-mercy`, `--reload-mercy`: how long a stopping worker may take to finish, seconds.
    pub reload_mercy: u32,
    /// What to tell the person who started the server, one line each: options without effect, keys that nothing knows.
    pub warnings: Vec<String>,
}

impl Default for Config {
    fn default() -> Self {
        Self {
            http: Vec::new(),
            http_socket: Vec::new(),
            socket: Vec::new(),
            listen: 4096,
            app: AppSource::Module(String::new()),
            callable: "application".into(),
            chdir: None,
            pythonpath: Vec::new(),
            home: None,
            processes: 1,
            threads: 1,
            stats: Vec::new(),
            stats_http: false,
            memory_report: false,
            disable_logging: false,
            lazy_apps: false,
            socket_timeout: 30,
            http_timeout: 60,
            http_keepalive: 60,
            buffer_size: 64 * 1024,
            limit_post: 0,
            post_buffering: 1024 * 1024,
            reload_mercy: 60,
            warnings: Vec::new(),
        }
    }
}
