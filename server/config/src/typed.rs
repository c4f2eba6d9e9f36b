//! The typed result: what the rest of the server reads.

use std::path::{Path, PathBuf};

use super::alarms::AlarmsConfig;
use super::app_source::{AppSource, Mount};
use super::between::Between;
use super::carbon::CarbonConfig;
use super::cheaper::Cheaper;
use super::container::ContainerConfig;
use super::control::ControlSocket;
use super::crons::{CronsConfig, SignalsConfig};
use super::daemons::DaemonsConfig;
use super::emperor::EmperorConfig;
use super::event_loops::EventLoops;
use super::harakiri::HarakiriConfig;
use super::hooks::HooksConfig;
use super::http_router::HttpRouterConfig;
use super::limits::{MinRates, Temp};
use super::logs::LogsConfig;
use super::metrics_compat::MetricsCompat;
use super::otlp::OtlpConfig;
use super::probes::ProbesConfig;
use super::program::Announcements;
use super::python::PythonConfig;
use super::reactions::Reactions;
use super::routes::RoutesConfig;
use super::routing::RoutingConfig;
use super::slow_requests::SlowRequestsConfig;
use super::sockets::SocketConfig;
use super::static_files::StaticConfig;
use super::stats_push::StatsPushConfig;
use super::statsd::{DogstatsdConfig, StatsdConfig};
use super::system::SystemConfig;
use super::tls::TlsConfig;
use super::websockets::WebSockets;
use rwsgi_protocol::path::PathNormalize;
use rwsgi_stats::{Address, Shown};
use serde::{Deserialize, Serialize};

/// `--static-map`: files under a prefix.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct StaticMap {
    /// Begins with a slash; may or may not end in one.
    pub prefix: String,
    /// The directory, or a single file.
    pub root: PathBuf,
}

/// `--uid`: whom to run as.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct RunAs {
    /// The user's number.
    pub uid: u32,
    /// The user's name, for the groups that the user is in; `None` for a number without a name.
    pub name: Option<String>,
}

/// `--chown-socket`: whose a socket file is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Owner {
    /// The user's number.
    pub uid: u32,
    /// The group's number, when one was given.
    pub gid: Option<u32>,
}

/// What processes are called in `ps`.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct ProcessNames {
    /// `--auto-procname`: names that say what each process is.
    pub auto: bool,
    /// `--procname`: one name for all.
    pub all: Option<String>,
    /// `--procname-master`: the master's.
    pub master: Option<String>,
    /// `--procname-prefix`, `--procname-prefix-spaced`: put before.
    pub prefix: String,
    /// `--procname-append`: put after.
    pub append: String,
}

/// The job queue.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Spooler {
    /// `--spooler`: where jobs lie.
    pub directories: Vec<PathBuf>,
    /// `--spooler-external`: where jobs may be queued that another server runs.
    pub external: Vec<PathBuf>,
    /// `--spooler-processes`: spoolers for each directory.
    pub processes: u32,
    /// `--spooler-frequency`: seconds between two scans.
    pub frequency: u32,
    /// `--spooler-max-tasks`: jobs after which a spooler is replaced.
    pub max_tasks: Option<u32>,
    /// `--spooler-harakiri`: seconds that a job may take.
    pub harakiri: Option<u32>,
    /// `--spooler-chdir`: where to be for each job.
    pub chdir: Option<PathBuf>,
    /// `--spooler-import`: modules to import in each spooler.
    pub import: Vec<String>,
    /// `--spooler-quiet`: no line for each job.
    pub quiet: bool,
    /// `--spooler-job-limit`: the largest job, bytes; 0 for no limit.
    pub job_limit: u64,
}

impl Spooler {
    /// Whether a job of so many bytes may run.
    #[must_use]
    pub fn takes(&self, size: u64) -> bool {
        self.job_limit == 0 || size <= self.job_limit
    }

    /// How many spoolers there are, over all directories.
    #[must_use]
    pub fn count(&self) -> u32 {
        self.directories.len() as u32 * self.processes
    }

    /// Where jobs may be queued: our own directories first.
    pub fn all_directories(&self) -> impl Iterator<Item = &Path> {
        self.directories.iter().chain(&self.external).map(PathBuf::as_path)
    }

    /// The directory of the spooler of that number (from 1): those of the first directory come first.
    #[must_use]
    pub fn directory_of(&self, number: u32) -> Option<&Path> {
        let index = number.checked_sub(1)? / self.processes;
        self.directories.get(index as usize).map(PathBuf::as_path)
    }
}

impl Default for Spooler {
    fn default() -> Self {
        Self {
            directories: Vec::new(),
            external: Vec::new(),
            processes: 1,
            frequency: 30,
            max_tasks: None,
            harakiri: None,
            chdir: None,
            import: Vec::new(),
            quiet: false,
            job_limit: 1 << 30,
        }
    }
}

/// Everything that the server does differently from one run to another.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Config {
    /// `--http`: addresses that the http router listens on.
    pub http: Vec<Address>,
    /// `--http-socket`: addresses on which the workers speak HTTP/1.1 themselves.
    pub http_socket: Vec<Address>,
    /// `--socket`: addresses on which the workers speak the uwsgi protocol.
    pub socket: Vec<Address>,
    /// `--protocol http`: what `--socket` named is in [`Self::http_socket`].
    pub socket_speaks_http: bool,
    /// `--listen`: connections that may wait in each socket's backlog.
    pub listen: u32,
    /// The application.
    pub app: AppSource,
    /// `--callable`: the application's name in its module.
    pub callable: String,
    /// `--chdir`: working directory of the application.
    pub chdir: Option<PathBuf>,
    /// `--chdir2`: working directory of the workers once the application is loaded.
    pub chdir2: Option<PathBuf>,
    /// `--force-cwd`: where the server is taken to be started.
    pub force_cwd: Option<PathBuf>,
    /// `--pythonpath`: put before `sys.path` one after another, so that the last is searched first, as with uWSGI.
    pub pythonpath: Vec<PathBuf>,
    /// `--home`, `--virtualenv`: the virtual environment to run in.
    pub home: Option<PathBuf>,
    /// `--processes`: number of workers.
    pub processes: u32,
    /// `--threads`: threads in each worker.
    pub threads: u32,
    /// `--stats`: addresses of the stats server.
    pub stats: Vec<Address>,
    /// `--stats-http`: the stats server answers HTTP.
    pub stats_http: bool,
    /// `--stats-http-cors`: the origin whose pages may read the stats.
    pub stats_http_cors: Option<String>,
    /// `--stats-push`, `--metrics-dir`, `--stats-no-*`: stats for others, and what is left out.
    pub stats_push: StatsPushConfig,
    /// `--statsd-*`: what statsd gets.
    pub statsd: StatsdConfig,
    /// `--dogstatsd-*`: what Datadog's agent gets.
    pub dogstatsd: DogstatsdConfig,
    /// `--carbon`: numbers for Graphite.
    pub carbon: CarbonConfig,
    /// `--otlp`, `--otlp-*`: what is exported to OpenTelemetry.
    pub otlp: OtlpConfig,
    /// `--slow-request`, `--slow-request-log`, `--gc-stats`.
    pub slow_requests: SlowRequestsConfig,
    /// `--control`.
    pub control: ControlSocket,
    /// `--show-request`: what the stats and the log show of requests beyond what is no secret.
    pub show_request: Shown,
    /// `--memory-report`: memory in the access log.
    pub memory_report: bool,
    /// `--disable-logging`: no access log.
    pub disable_logging: bool,
    /// `--lazy-apps`: each worker loads the application itself, after the fork.
    pub lazy_apps: bool,
    /// `--socket-timeout`: how long a client may take to send or receive anything, seconds.
    pub socket_timeout: u32,
    /// `--http-timeout`: the same for the http router's clients, seconds.
    pub http_timeout: u32,
    /// `--http-keepalive`: how long a kept-alive connection may be idle, seconds; 0 to close after each response.
    pub http_keepalive: u32,
    /// `--buffer-size`: the largest request head, bytes.
    pub buffer_size: usize,
    /// `--limit-post`: the largest request body, bytes; 0 for no limit.
    pub limit_post: u64,
    /// `--post-buffering`: the largest request body that waits in memory, bytes; larger ones wait in a file.
    pub post_buffering: u64,
    /// `--temp-dir`, `--temp-size`: files for what does not fit in memory.
    pub temp: Temp,
    /// `--body-min-rate`, `--response-min-rate`, `--min-rate-grace`: how slow a client may be.
    pub min_rates: MinRates,
    /// `--http-websockets`, `--websockets-…`.
    pub websockets: WebSockets,
    /// `--route-stats`, `--metrics-no-routes`.
    pub routes: RoutesConfig,
    /// `--metrics-compat`: whose names are in `/metrics` too.
    pub metrics_compat: MetricsCompat,
    /// `--path-normalize`: what becomes of a path with dot segments or empty ones.
    pub path_normalize: PathNormalize,
    /// `--worker-reload-mercy`, `--reload-mercy`: how long a stopping worker may take to finish, seconds.
    pub reload_mercy: u32,
    /// `--chmod-socket`: mode of socket files.
    pub chmod_socket: Option<u32>,
    /// `--chown-socket`: owner of socket files.
    pub chown_socket: Option<Owner>,
    /// `--so-keepalive`: TCP keep-alive on accepted connections.
    pub so_keepalive: bool,
    /// `--reuse-port`, `--map-socket` and the like: what is asked for the sockets.
    pub sockets: SocketConfig,
    /// `--mount`: applications under prefixes, beside [`Self::app`].
    pub mounts: Vec<Mount>,
    /// `--manage-script-name`: a mount's prefix moves from `PATH_INFO` to `SCRIPT_NAME`.
    pub manage_script_name: bool,
    /// `--ignore-script-name`: a proxy's `SCRIPT_NAME` chooses no mount.
    pub ignore_script_name: bool,
    /// `--no-default-app`: 404 where nothing is mounted and there is no [`Self::app`].
    pub no_default_app: bool,
    /// `--env`: variables to set before the application is loaded, in order.
    pub env: Vec<(String, String)>,
    /// `--unenv`: variables to take away before that.
    pub unenv: Vec<String>,
    /// `--import`: modules, or files where there is a slash or `.py`, to import just before the application.
    pub import: Vec<String>,
    /// `--shared-import`: the same, as soon as Python starts, so that every process has them.
    pub shared_import: Vec<String>,
    /// `--auto-procname`, `--procname*`.
    pub procname: ProcessNames,
    /// What is taken from the container's limits.
    pub container: ContainerConfig,
    /// `--probe`, `--ready-saturation`, `--drain-delay`.
    pub probes: ProbesConfig,
    /// `--cheaper*`.
    pub cheaper: Cheaper,
    /// `--idle`: seconds without a request after which every worker goes.
    pub idle: Option<u32>,
    /// `--cheap`: no worker until the first request.
    pub cheap: bool,
    /// `--max-requests`: requests after which a worker is replaced; 0 for never.
    pub max_requests: u64,
    /// `--max-requests-delta`: added to it, times the worker's number.
    pub max_requests_delta: u64,
    /// `--max-worker-lifetime`: seconds after which a worker is replaced.
    pub max_worker_lifetime: Option<u32>,
    /// `--max-worker-lifetime-delta`: seconds added to it, times the worker's number.
    pub max_worker_lifetime_delta: u32,
    /// `--min-worker-lifetime`: seconds before which none is replaced for age or memory.
    pub min_worker_lifetime: u32,
    /// `--reload-on-rss`: resident bytes above which a worker is replaced between requests.
    pub reload_on_rss: Option<u64>,
    /// `--reload-on-as`: bytes of address space above which a worker is replaced between requests.
    pub reload_on_as: Option<u64>,
    /// `--evil-reload-on-rss`: resident bytes above which a worker is replaced at once.
    pub evil_reload_on_rss: Option<u64>,
    /// `--evil-reload-on-as`: bytes of address space above which a worker is replaced at once.
    pub evil_reload_on_as: Option<u64>,
    /// `--limit-as`: `RLIMIT_AS` of every process, bytes.
    pub limit_as: Option<u64>,
    /// `--harakiri`: seconds that a request may take.
    pub harakiri: Option<u32>,
    /// `--harakiri-verbose`: log what was ended.
    pub harakiri_verbose: bool,
    /// `--harakiri-graceful-*` and the like: when and how a request is ended.
    pub harakiri_details: HarakiriConfig,
    /// `--static-map`: files under prefixes.
    pub static_map: Vec<StaticMap>,
    /// `--check-static`: directories to look in before the application is asked.
    pub check_static: Vec<PathBuf>,
    /// `--static-safe`: directories outside of those where links may lead to.
    pub static_safe: Vec<PathBuf>,
    /// `--static-index`, `--static-gzip*`, `--static-expires*` and the like: how files are answered with.
    pub static_files: StaticConfig,
    /// `--uid`: whom to run as.
    pub uid: Option<RunAs>,
    /// `--gid`: the group to run as.
    pub gid: Option<u32>,
    /// `--add-gid`: groups to be in beside [`Self::gid`] and the user's own.
    pub add_gid: Vec<u32>,
    /// `--no-initgroups`: the groups that the user is in are left out.
    pub no_initgroups: bool,
    /// `--cap`: the capabilities that are kept, a bit for each of the kernel's numbers; `None` to keep all of root's, and
    /// none of another user's.
    pub cap: Option<u64>,
    /// `--no-new-privs`: nothing that is executed gains privileges.
    pub no_new_privs: bool,
    /// `--prio`, `--max-fd`, `--cpu-affinity` and the like: what is asked of the system.
    pub system: SystemConfig,
    /// `--umask`.
    pub umask: Option<u32>,
    /// `--pidfile`: written before privileges are dropped.
    pub pidfile: Option<PathBuf>,
    /// `--pidfile2`: written after privileges are dropped.
    pub pidfile2: Option<PathBuf>,
    /// `--daemonize`: go to the background, log here.
    pub daemonize: Option<PathBuf>,
    /// `--daemonize2`: the same once the application is loaded.
    pub daemonize2: Option<PathBuf>,
    /// `--vacuum`: remove socket files and pidfiles at the end.
    pub vacuum: bool,
    /// `--brutal-reload-on-term`: SIGTERM reloads at once instead of stopping.
    pub brutal_reload_on_term: bool,
    /// `--no-orphans`: workers end at once when the master is gone.
    pub no_orphans: bool,
    /// `--master-fifo`: named pipes that take orders.
    pub master_fifo: Vec<PathBuf>,
    /// `--touch-reload`: reload when one of these changes.
    pub touch_reload: Vec<PathBuf>,
    /// `--touch-chain-reload`: replace workers one by one when one of these changes.
    pub touch_chain_reload: Vec<PathBuf>,
    /// `--touch-mules-reload`: files whose change starts the mules again.
    pub touch_mules_reload: Vec<PathBuf>,
    /// `--touch-spoolers-reload`: files whose change starts the spoolers again.
    pub touch_spoolers_reload: Vec<PathBuf>,
    /// `--touch-logreopen`: open the log file again when one of these changes.
    pub touch_logreopen: Vec<PathBuf>,
    /// `--py-autoreload`: seconds between looks for changed Python files.
    pub py_autoreload: Option<u32>,
    /// `--logto`: log here.
    pub logto: Option<PathBuf>,
    /// `--logto2`: log here, opened after privileges are dropped.
    pub logto2: Option<PathBuf>,
    /// The format of the access log, and where lines go.
    pub logs: LogsConfig,
    /// `--log-master`: the master writes what workers log.
    pub log_master: bool,
    /// `--log-maxsize`: bytes after which the log is rotated; 0 for never.
    pub log_maxsize: u64,
    /// `--log-backupname`: the rotated log's name.
    pub log_backupname: Option<PathBuf>,
    /// `--spooler*`: the job queue.
    pub spooler: Spooler,
    /// `--hook-*`, `--exec-*`, `--wait-for-*` and their like.
    pub hooks: HooksConfig,
    /// `--touch-exec`, `--reload-on-exception` and their like.
    pub reactions: Reactions,
    /// `--alarm*`.
    pub alarms: AlarmsConfig,
    /// Rules for requests and responses.
    pub routing: RoutingConfig,
    /// What the application's processes share.
    pub between: Between,
    /// The emperor and its vassals.
    pub emperor: EmperorConfig,
    /// `--paste-logger`, `--pyargv` and the like: the interpreter.
    pub python: PythonConfig,
    /// `--gevent` and the like: what asks for threads.
    pub event_loops: EventLoops,
    /// `--mode`: a word for the application, `uwsgi.mode`.
    pub mode: Option<String>,
    /// `--print`, `--show-config`: what to print before anything else is done.
    pub announcements: Announcements,
    /// `--http-to`, `--*-proxy-protocol`, `--shared-socket`.
    pub http_router: HttpRouterConfig,
    /// `--https*`, `--sni*`.
    pub tls: TlsConfig,
    /// `--attach-daemon` and the like.
    pub daemons: DaemonsConfig,
    /// `--cron` and the like.
    pub crons: CronsConfig,
    /// `--timer`, `--touch-signal` and `--fs-signal`.
    pub signals: SignalsConfig,
    /// The options as they were given, for the application: names and values, in order.
    pub given: Vec<(String, String)>,
    /// The magic variables, for the application.
    pub magic: Vec<(char, String)>,
    /// Warnings for the person who starts the server, one line each: options without effect, keys that nothing knows.
    pub warnings: Vec<String>,
    /// Which of them, by their places, say that something is lost that uWSGI would do.
    pub losses: Vec<usize>,
}

impl Config {
    /// Warns that something is lost that uWSGI would do.
    pub(crate) fn lose(&mut self, what: String) {
        self.losses.push(self.warnings.len());
        self.warnings.push(what);
    }
}

impl Default for Config {
    fn default() -> Self {
        Self {
            http: Vec::new(),
            http_socket: Vec::new(),
            socket: Vec::new(),
            socket_speaks_http: false,
            listen: 4096,
            app: AppSource::Module(String::new()),
            callable: "application".into(),
            chdir: None,
            chdir2: None,
            force_cwd: None,
            pythonpath: Vec::new(),
            home: None,
            processes: 1,
            threads: 1,
            stats: Vec::new(),
            stats_http: false,
            stats_http_cors: None,
            stats_push: StatsPushConfig::default(),
            statsd: StatsdConfig::default(),
            dogstatsd: DogstatsdConfig::default(),
            carbon: CarbonConfig::default(),
            otlp: OtlpConfig::default(),
            slow_requests: SlowRequestsConfig::default(),
            control: ControlSocket::default(),
            show_request: Shown::default(),
            memory_report: false,
            disable_logging: false,
            lazy_apps: false,
            socket_timeout: 30,
            http_timeout: 60,
            http_keepalive: 60,
            buffer_size: 64 * 1024,
            limit_post: 0,
            post_buffering: 1024 * 1024,
            temp: Temp::default(),
            min_rates: MinRates::default(),
            websockets: WebSockets::default(),
            routes: RoutesConfig::default(),
            metrics_compat: MetricsCompat::default(),
            path_normalize: PathNormalize::Keep,
            reload_mercy: 60,
            chmod_socket: None,
            chown_socket: None,
            so_keepalive: false,
            sockets: SocketConfig::default(),
            mounts: Vec::new(),
            manage_script_name: false,
            ignore_script_name: false,
            no_default_app: false,
            env: Vec::new(),
            unenv: Vec::new(),
            import: Vec::new(),
            shared_import: Vec::new(),
            procname: ProcessNames::default(),
            container: ContainerConfig::default(),
            probes: ProbesConfig::default(),
            cheaper: Cheaper::default(),
            idle: None,
            cheap: false,
            max_requests: 0,
            max_requests_delta: 0,
            max_worker_lifetime: None,
            max_worker_lifetime_delta: 0,
            min_worker_lifetime: 10,
            reload_on_rss: None,
            reload_on_as: None,
            evil_reload_on_rss: None,
            evil_reload_on_as: None,
            limit_as: None,
            harakiri: None,
            harakiri_verbose: false,
            harakiri_details: HarakiriConfig::default(),
            static_map: Vec::new(),
            check_static: Vec::new(),
            static_safe: Vec::new(),
            static_files: StaticConfig::default(),
            uid: None,
            gid: None,
            add_gid: Vec::new(),
            no_initgroups: false,
            cap: None,
            no_new_privs: false,
            system: SystemConfig::default(),
            umask: None,
            pidfile: None,
            pidfile2: None,
            daemonize: None,
            daemonize2: None,
            vacuum: false,
            brutal_reload_on_term: false,
            no_orphans: false,
            master_fifo: Vec::new(),
            touch_reload: Vec::new(),
            touch_chain_reload: Vec::new(),
            touch_mules_reload: Vec::new(),
            touch_spoolers_reload: Vec::new(),
            touch_logreopen: Vec::new(),
            py_autoreload: None,
            logto: None,
            logto2: None,
            logs: LogsConfig::default(),
            log_master: false,
            log_maxsize: 0,
            log_backupname: None,
            spooler: Spooler::default(),
            hooks: HooksConfig::default(),
            reactions: Reactions::default(),
            alarms: AlarmsConfig::default(),
            routing: RoutingConfig::default(),
            between: Between::default(),
            emperor: EmperorConfig::default(),
            python: PythonConfig::default(),
            event_loops: EventLoops::default(),
            mode: None,
            announcements: Announcements::default(),
            http_router: HttpRouterConfig::default(),
            tls: TlsConfig::default(),
            daemons: DaemonsConfig::default(),
            crons: CronsConfig::default(),
            signals: SignalsConfig::default(),
            given: Vec::new(),
            magic: Vec::new(),
            warnings: Vec::new(),
            losses: Vec::new(),
        }
    }
}
