//! The program: what both the plain executable and the Python package enter.

use std::ffi::OsString;
use std::io::Write;
use std::path::Path;

use anyhow::{Context, bail};
use tracing::{error, warn};

use crate::container;
use crate::ctl;
use crate::daemon::{self, Side, Starter};
use crate::emperor;
use crate::forkserver;
use crate::hooks;
use crate::http_router;
use crate::ipc::inherit::InheritedFd;
use crate::log_text;
use crate::master;
use crate::master::launcher::{EMPEROR_ROLE, FORKSERVER_ROLE, Launcher, ROUTER_ROLE, VASSAL_ROLE};
use crate::orders;
use crate::spooler;
use crate::vassal::Link;
use rwsgi_config::{Announcements, Config, Invocation, Outcome};

/// Runs `rwsgi` with these arguments (the program's name first); returns its exit status. `launcher` says how to enter
/// this function again in a fresh process.
#[must_use]
pub fn run(arguments: Vec<OsString>, launcher: Launcher) -> i32 {
    match dispatch(arguments, launcher) {
        Ok(status) => status,
        Err(failure) => {
            log_text::start();
            error!("{failure:#}");
            1
        }
    }
}

fn dispatch(arguments: Vec<OsString>, mut launcher: Launcher) -> anyhow::Result<i32> {
    if let [_, role, descriptor, ..] = arguments.as_slice()
        && let Some(descriptor) = descriptor.to_str().and_then(InheritedFd::from_argument)
    {
        log_text::start();
        match role.to_str() {
            Some(FORKSERVER_ROLE) => return forkserver::run(descriptor),
            Some(ROUTER_ROLE) => return http_router::run(descriptor),
            Some(EMPEROR_ROLE) => return emperor::run_beside(descriptor, launcher),
            Some(VASSAL_ROLE) => return emperor::become_vassal(descriptor),
            _ => {}
        }
    }
    match rwsgi_config::load(arguments.iter().cloned())? {
        Invocation::Serve(config) => {
            log_text::start();
            log_text::begin_with(&config.logs.date);
            let own_emperor = Link::take();
            let mut config = *config;
            hooks::lock_files(&config.hooks, false)?;
            hooks::run_first(&mut config)?;
            // A hook may have changed it.
            let start = std::env::current_dir().context("cannot read the working directory")?;
            let config = settle(config, &start)?;
            // A vassal stays with its emperor: as in uWSGI, only its log goes to the file.
            let side =
                if own_emperor.is_some() { Side::Background(Starter::default()) } else { daemon::daemonize(&config)? };
            let starter = match side {
                Side::Foreground(status) => return Ok(status),
                Side::Background(starter) => starter,
            };
            hooks::lock_files(&config.hooks, true)?;
            let start = config.force_cwd.clone().unwrap_or(start);
            launcher.directory = start.clone();
            let reread = move || {
                let here = std::env::current_dir().context("cannot read the working directory")?;
                let loaded = read_again(&arguments, &start);
                // The server goes on as it was until the new application is loaded, and so where it was.
                std::env::set_current_dir(&here).context("cannot return to the directory that it runs in")?;
                loaded
            };
            if config.emperor.is_alone {
                return emperor::run_alone(config, launcher, Box::new(reread), starter, own_emperor);
            }
            master::run(config, launcher, Box::new(reread), starter, own_emperor)
        }
        Invocation::Print(text) => print(&text),
        Invocation::Exit { text, status } => Ok(print(&text)?.max(status)),
        Invocation::Read(address) => orders::read_from(&address),
        Invocation::Check(report) => Ok(print(&report.text)?.max(i32::from(!report.ok))),
        Invocation::Migrate(migration) => Ok(print(&migration.text)?.max(match migration.outcome {
            Outcome::Complete => 0,
            Outcome::Incomplete => 1,
            Outcome::Refused => 2,
        })),
        Invocation::Signal(order, pidfile) => orders::send(order, &pidfile),
        Invocation::Ctl(words) => ctl::run(words),
        Invocation::PythonVersion if launcher.library.is_some() => {
            Err(launcher.with_python(&arguments[1..])).context("cannot start Python")
        }
        Invocation::PythonVersion => {
            crate::wsgi::interpreter::start(None)?;
            print(&format!("{}\n", pyo3::Python::attach(crate::wsgi::interpreter::version)))
        }
    }
}

/// Reads the configuration again, from where the server was started: its files are named relative to that. Leaves the
/// process in the directory that it names.
fn read_again(arguments: &[OsString], start: &Path) -> anyhow::Result<Config> {
    std::env::set_current_dir(start).context("cannot return to where the server was started")?;
    match rwsgi_config::load_again(arguments.iter().cloned())? {
        Invocation::Serve(config) => settle(*config, start),
        _ => bail!("the configuration does not say any more to serve"),
    }
}

/// Prints what is doubtful about a configuration, and enters its directory, which what follows is relative to.
fn settle(mut config: Config, start: &Path) -> anyhow::Result<Config> {
    for warning in &config.warnings {
        warn!("{warning}");
    }
    announce(&config.announcements)?;
    let directory = config.chdir.as_ref().map(|directory| start.join(directory));
    if let Some(directory) = &directory {
        std::env::set_current_dir(directory)
            .with_context(|| format!("chdir: cannot enter '{}'", directory.display()))?;
    }
    config.chdir = directory;
    config.hooks.directory = start.to_owned();
    for flock in &mut config.hooks.flocks {
        flock.path = start.join(&flock.path);
    }
    start.clone_into(&mut config.emperor.start);
    // As uWSGI has it, these are relative to where the server was started, and all others to chdir.
    let files = [
        &mut config.pidfile,
        &mut config.pidfile2,
        &mut config.daemonize,
        &mut config.daemonize2,
        &mut config.logto,
        &mut config.logto2,
        &mut config.log_backupname,
        &mut config.emperor.pidfile,
    ];
    for path in files.into_iter().flatten().chain(config.logs.files()) {
        *path = start.join(&*path);
    }
    for path in config.tls.files_mut() {
        *path = start.join(&*path);
    }
    for directory in config.spooler.directories.iter_mut().chain(&mut config.spooler.external) {
        *directory = start.join(&*directory);
    }
    spooler::prepare(&mut config)?;
    container::settle(&mut config);
    Ok(config)
}

/// Prints what the configuration has the server print, where scripts look for it with uWSGI.
fn announce(announcements: &Announcements) -> anyhow::Result<()> {
    for line in &announcements.lines {
        print(&format!("{line}\n"))?;
    }
    // Not through the log: its lines are a file that can be read again.
    let _ = std::io::stderr().write_all(announcements.configuration.as_bytes());
    Ok(())
}

fn print(text: &str) -> anyhow::Result<i32> {
    match std::io::stdout().write_all(text.as_bytes()) {
        // `rwsgi --help | head` is no failure.
        Err(error) if error.kind() == std::io::ErrorKind::BrokenPipe => Ok(0),
        outcome => Ok(outcome.map(|()| 0)?),
    }
}
