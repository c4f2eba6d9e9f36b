//! What the server is told to do: the typed, checked result of the command line and the files.
//!
//! Nothing else in the server reads raw options. The master makes a [`Config`] once per (re)load and hands it to the
//! fork server and the front as JSON.

use std::path::PathBuf;

use rwsgi_stats::Address;
use serde::{Deserialize, Serialize};

/// Where the application is.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum AppSource {
    /// `--wsgi-file`: a Python file, relative to `chdir`.
    File(PathBuf),
    /// `--module`: an importable module, with the callable's name when it was given after a colon.
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
        }
    }
}
