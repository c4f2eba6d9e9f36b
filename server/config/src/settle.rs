//! From settings to the configuration: sets fields by the table, warns of what has no effect, and decides what depends
//! on several options at once.

use super::gather::Gatherer;
use super::options::{self, nearest};
use super::row::Kind;
use super::scripts::is_bare;
use super::setting::{Origin, Setting};
use super::uwsgi::{self, Verdict};
use super::value::is_off;
use super::{AppSource, Config, ConfigError};

/// What settings come to.
#[derive(Debug)]
pub(super) struct Settled {
    /// As far as it goes: what is wrong keeps its default.
    pub(super) config: Config,
    /// Everything that is wrong, in its order.
    pub(super) errors: Vec<ConfigError>,
}

impl Settled {
    /// Whether systemd will pass a socket is not to be seen before the server starts: a warning, unless `strict`.
    pub(super) fn allow_sockets_of_systemd(&mut self, strict: bool) {
        if !strict && self.errors.iter().any(|error| matches!(error, ConfigError::NoSocket)) {
            self.errors.retain(|error| !matches!(error, ConfigError::NoSocket));
            let warning = "no address to serve on: this starts only with sockets from systemd (LISTEN_FDS); without a \
                           socket unit give http, http-socket or socket";
            self.config.warnings.push(warning.into());
        }
    }
}

pub(super) fn settle(gathered: &Gatherer) -> Settled {
    let mut config = Config { listen: somaxconn(), warnings: gathered.warnings.clone(), ..Config::default() };
    config.given = gathered.settings.iter().map(given).collect();
    config.magic = gathered.magic();
    let mut errors = Vec::new();
    let strict = gathered.is_strict();
    for setting in &gathered.settings {
        match options::find(&setting.name) {
            Some(row) => {
                let before = config.warnings.len();
                if let Err(problem) = row.set(&mut config, &setting.value) {
                    errors.push(bad_value(setting, problem));
                }
                for warning in &mut config.warnings[before..] {
                    *warning = bad_value(setting, std::mem::take(warning)).to_string();
                }
                if matches!(row.kind, Kind::Act(action) if action.is_instead_of_serving()) {
                    config.warnings.push(format!("{}: {} is for the command line only", setting.origin, setting.name));
                }
            }
            None => match foreign(setting, gathered.findings.referenced.contains(&setting.name), strict) {
                Some(Foreign::Warning(warning)) => config.warnings.push(warning),
                Some(Foreign::Error(error)) => errors.push(error),
                None => {}
            },
        }
    }
    if config.announcements.show_config {
        config.announcements.configuration = super::scripts::configuration(&gathered.settings);
    }
    super::event_loops::finish(&mut config);
    if let Err(error) = finish(&mut config) {
        errors.push(error);
    }
    if config.emperor.is_alone {
        lose_routers(&mut config, &mut errors);
    }
    Settled { config, errors }
}

/// Beside an emperor alone, routers for other servers are a loss and no error: the vassals serve on their own sockets, and
/// where the router would listen nothing answers.
fn lose_routers(config: &mut Config, errors: &mut Vec<ConfigError>) {
    let is_router = |error: &ConfigError| match error {
        ConfigError::NotHere { name, .. } => {
            uwsgi::find(name).is_some_and(|family| family.title == uwsgi::OTHER_ROUTERS)
        }
        _ => false,
    };
    for error in errors.extract_if(.., |error| is_router(error)) {
        config.lose(format!("{error}; the emperor starts without it"));
    }
}

/// A setting as the application sees it: an option without a value on the command line has none.
fn given(setting: &Setting) -> (String, String) {
    (setting.name.clone(), if is_bare(setting) { String::new() } else { setting.value.clone() })
}

fn bad_value(setting: &Setting, problem: String) -> ConfigError {
    let dashes = if setting.origin == Origin::CommandLine { "--" } else { "" };
    ConfigError::BadValue { origin: setting.origin.clone(), option: format!("{dashes}{}", setting.name), problem }
}

/// What is to be said of a key that is no option of ours.
enum Foreign {
    Warning(String),
    Error(ConfigError),
}

fn foreign(setting: &Setting, is_referred_to: bool, strict: bool) -> Option<Foreign> {
    let (origin, name) = (setting.origin.clone(), setting.name.clone());
    let (error, is_fatal) = match uwsgi::find(&name) {
        Some(family) => match family.verdict {
            Verdict::Needless => return None,
            // A flag that is turned off asks for nothing.
            _ if is_off(&setting.value) => return None,
            verdict => {
                let error = ConfigError::NotHere { origin, name, advice: family.advice };
                (error, verdict == Verdict::Refused)
            }
        },
        None if is_referred_to => return None,
        None => {
            let nearest = nearest(&name).map(Into::into);
            (ConfigError::UnknownOption { origin, name, nearest }, strict)
        }
    };
    Some(if is_fatal { Foreign::Error(error) } else { Foreign::Warning(error.to_string()) })
}

/// The warning for a key that is no option of ours, if there is one.
pub(super) fn foreign_warning(setting: &Setting, is_referred_to: bool) -> Option<String> {
    match foreign(setting, is_referred_to, false)? {
        Foreign::Warning(warning) => Some(warning),
        Foreign::Error(_) => None,
    }
}

/// Settles what depends on several options at once.
fn finish(config: &mut Config) -> Result<(), ConfigError> {
    if config.socket_speaks_http {
        config.http_socket.append(&mut config.socket);
    }
    if super::emperor::finish(config) {
        return Ok(());
    }
    // systemd may have opened one for this very process: the master checks that.
    // An emperor gives a vassal that starts on demand its socket as standard input.
    let is_vassal = std::env::var_os("UWSGI_EMPEROR_FD").is_some();
    let inherits = is_vassal || std::env::var("LISTEN_PID").is_ok_and(|pid| pid == std::process::id().to_string());
    let has_socket = !(config.http.is_empty() && config.http_socket.is_empty() && config.socket.is_empty());
    let is_reachable = has_socket || config.tls.is_used() || inherits;
    if !is_reachable {
        if !runs_beside(config) {
            return Err(ConfigError::NoSocket);
        }
        // As with uWSGI: no worker, for none would have anything to do.
        (config.processes, config.cheaper.workers, config.idle, config.cheap) = (0, None, None, false);
        config.container.auto_processes = false;
    }
    super::http_router::finish(config).map_err(ConfigError::Conflict)?;
    // A mount at the root is the application.
    if let Some(root) = config.mounts.iter().position(|mount| mount.prefix.is_empty()) {
        let mount = config.mounts.remove(root);
        if config.app.is_none() {
            config.app = mount.app;
            if let Some(callable) = mount.callable {
                config.callable = callable;
            }
        } else {
            let warning = "mount: '/' has no effect: module or wsgi-file names what is served there";
            config.warnings.push(warning.into());
        }
    }
    if let Some(conflict) = config.routing.conflict(!config.mounts.is_empty()) {
        return Err(ConfigError::Conflict(conflict));
    }
    super::logs::finish(config);
    super::between::finish(&mut config.between).map_err(ConfigError::Conflict)?;
    super::sockets::finish(config, options::first_name).map_err(ConfigError::Conflict)?;
    super::alarms::finish(&config.alarms).map_err(ConfigError::Conflict)?;
    if is_reachable && config.app.is_none() && config.mounts.is_empty() {
        // uWSGI starts in any case. That is a mistake, unless there is something else for the server to do.
        let is_needed = config.given.iter().any(|(name, value)| name == "need-app" && !is_off(value));
        let files = !(config.static_map.is_empty() && config.check_static.is_empty());
        let beside = runs_beside(config) || !config.between.mules.is_empty();
        if is_needed || !(files || beside) {
            return Err(ConfigError::NoApplication);
        }
        let warning = "there is no application: requests get 500, unless a static file answers them (give module, \
                       wsgi-file or mount)";
        config.warnings.push(warning.into());
    }
    if let AppSource::Module(module) = &config.app
        && let Some((module, callable)) = module.split_once(':')
    {
        (config.callable, config.app) = (callable.to_owned(), AppSource::Module(module.to_owned()));
    }
    if !config.container.auto_processes {
        super::cheaper::check(config).map_err(ConfigError::Conflict)?;
    }
    if let Some(longest) = config.max_worker_lifetime
        && config.min_worker_lifetime >= longest
    {
        return Err(ConfigError::Conflict(format!(
            "min-worker-lifetime must be lower than max-worker-lifetime: they are {} and {longest} seconds",
            config.min_worker_lifetime
        )));
    }
    let most = somaxconn();
    if config.listen > most {
        config.warnings.push(format!(
            "listen: the system lets at most {most} connections wait, not {}: raise net.core.somaxconn with sysctl",
            config.listen
        ));
    }
    Ok(())
}

/// Whether the server has something to do without a socket. uWSGI does not count mules and timers.
fn runs_beside(config: &Config) -> bool {
    let Config { daemons, crons, spooler, emperor, .. } = config;
    !(daemons.programs.is_empty()
        && crons.commands.is_empty()
        && spooler.directories.is_empty()
        && emperor.monitors.is_empty())
}

/// The longest backlog that the kernel grants; 4096 is its own default since Linux 5.4.
pub(super) fn somaxconn() -> u32 {
    let text = std::fs::read_to_string("/proc/sys/net/core/somaxconn").unwrap_or_default();
    text.trim().parse().unwrap_or(4096)
}
