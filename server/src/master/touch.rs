//! Files whose change is an order: `touch-*`, `fs-reload`, `py-autoreload`; and descriptors that are
//! (`reload-on-fd`). [`watch`] has the one table of what each asks for.

use std::collections::{BTreeMap, BTreeSet};
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use tokio::io::AsyncReadExt;
use tokio::task::JoinHandle;
use tracing::{info, warn};

use super::app_signals::changes_of;
use super::events::{Call, Command, Event, Events, Reload, Touched};
use super::readable::watch_descriptor;
use crate::ids::GenerationNumber;
use crate::ipc::AuxiliaryKind;
use rwsgi_config::hooks::Phase;
use rwsgi_config::{AppSource, Config};

/// How often named files are looked at.
const INTERVAL: Duration = Duration::from_secs(1);
/// Changes that come within this are one.
const TOGETHER: Duration = Duration::from_millis(200);
/// The most Python files that are looked at: a directory with more is probably not one project.
const MOST_FILES: usize = 20_000;
/// Directories in which nobody edits an application.
const NOT_OURS: [&str; 4] = ["__pycache__", "site-packages", "dist-packages", "node_modules"];

/// What shows that a file is another one, or has other contents.
type Stamp = (i64, i64, u64, u64);

/// Starts watching what is configured.
///
/// # Errors
/// When a descriptor that is configured is not open.
pub(super) fn watch(config: &Config, events: &Events) -> anyhow::Result<()> {
    let reload: fn() -> Event = || Event::Reload(Reload::Rolling);
    let chain_reload: fn() -> Event = || Event::Reload(Reload::Chain);
    let reopen_log: fn() -> Event = || Event::Command(Command::ReopenLog);
    let rotate_log: fn() -> Event = || Event::Command(Command::RotateLog);
    let renew_mules: fn() -> Event = || Event::Renew(AuxiliaryKind::Mule);
    let renew_spoolers: fn() -> Event = || Event::Renew(AuxiliaryKind::Spooler);
    let reactions = &config.reactions;
    for (option, files, order) in [
        ("touch-reload", &config.touch_reload, reload),
        ("touch-chain-reload", &config.touch_chain_reload, chain_reload),
        ("touch-logreopen", &config.touch_logreopen, reopen_log),
        ("touch-logrotate", &reactions.touch_logrotate, rotate_log),
        ("touch-mules-reload", &config.touch_mules_reload, renew_mules),
        ("touch-spoolers-reload", &config.touch_spoolers_reload, renew_spoolers),
    ] {
        watch_files(option, files, order, events);
    }
    for (file, signal) in &config.signals.touched {
        let (generation, signal) = (GenerationNumber::FIRST, *signal);
        let raise = move || Event::Call(Call::Changed { generation, signal });
        watch_files("touch-signal", std::slice::from_ref(file), raise, events);
    }
    for (file, command) in &reactions.touch_exec {
        let command = command.clone();
        let run = move || Event::Touched(Touched::Command(command.clone()));
        watch_files("touch-exec", std::slice::from_ref(file), run, events);
    }
    // Hooks of one file run in their order, so one look tells of all of them.
    let files: BTreeSet<_> = config.hooks.of(Phase::Touch).filter_map(|hook| hook.file.clone()).collect();
    for file in files {
        let hooks: Vec<_> =
            config.hooks.of(Phase::Touch).filter(|hook| hook.file.as_ref() == Some(&file)).cloned().collect();
        let run = move || Event::Touched(Touched::Hooks(hooks.clone()));
        watch_files("hook-touch", std::slice::from_ref(&file), run, events);
    }
    for (option, paths, how) in [
        ("fs-reload", &reactions.fs_reload, Reload::Rolling),
        ("fs-brutal-reload", &reactions.fs_brutal_reload, Reload::Brutal),
    ] {
        for path in paths {
            if let Err(failure) = watch_at_once(option, path, how, events) {
                // As with uWSGI, which serves without.
                warn!("{option}: '{}' cannot be watched: {failure:#}", path.display());
            }
        }
    }
    for (fd, bytes, is_brutal) in &reactions.reload_on_fd {
        let how = if *is_brutal { Reload::Brutal } else { Reload::Rolling };
        watch_descriptor("reload-on-fd", *fd, *bytes, move || Event::Reload(how), events)?;
    }
    if let Some(seconds) = config.py_autoreload {
        let roots = source_directories(config);
        let unwatched = config.python.unwatched.clone();
        let look = move || {
            let mut files = python_files(&roots);
            files.retain(|file, _| !unwatched.iter().any(|module| is_module(file, module)));
            files
        };
        repeat("py-autoreload", Duration::from_secs(seconds.into()), reload, look, events.clone());
    }
    Ok(())
}

/// Reloads as soon as the file, or what is in the directory, changes. Changes that come together are one.
fn watch_at_once(option: &'static str, path: &Path, how: Reload, events: &Events) -> anyhow::Result<()> {
    let mut changes = changes_of(path)?;
    let (path, events) = (path.to_owned(), events.clone());
    tokio::task::spawn_local(async move {
        let mut buffer = vec![0; 16 * 1024];
        while changes.read(&mut buffer).await.is_ok_and(|len| len > 0) {
            tokio::time::sleep(TOGETHER).await;
            while changes.try_read(&mut buffer).is_ok() {}
            info!("{option}: '{}' has changed", path.display());
            if events.send(Event::Reload(how)).await.is_err() {
                return;
            }
        }
    });
    Ok(())
}

/// Watches named files, and gives the order when one has changed; `None` when there are none. The task goes on when the
/// handle is dropped.
pub(super) fn watch_files(
    option: &'static str,
    files: &[PathBuf],
    order: impl Fn() -> Event + 'static,
    events: &Events,
) -> Option<JoinHandle<()>> {
    let files = Some(files.to_vec()).filter(|files| !files.is_empty())?;
    let look = move || files.iter().map(|file| (file.clone(), stamp(file))).collect();
    Some(repeat(option, INTERVAL, order, look, events.clone()))
}

/// What is seen at one look.
type Seen = BTreeMap<PathBuf, Option<Stamp>>;

/// Looks again and again, and gives the order when what is seen has changed. The disk may be slow: after the first
/// look, before anything is served, a thread beside the loop looks.
fn repeat(
    option: &'static str,
    every: Duration,
    order: impl Fn() -> Event + 'static,
    look: impl Fn() -> Seen + Send + Sync + 'static,
    events: Events,
) -> JoinHandle<()> {
    let mut seen = look();
    let look = Arc::new(look);
    tokio::task::spawn_local(async move {
        loop {
            tokio::time::sleep(every).await;
            let look = Arc::clone(&look);
            // The runtime is shut down only when the process is about to end.
            let Ok(now) = tokio::task::spawn_blocking(move || look()).await else { return };
            if let Some(changed) = changed(&seen, &now) {
                info!("{option}: '{}' has changed", changed.display());
                if events.send(order()).await.is_err() {
                    return;
                }
            }
            seen = now;
        }
    })
}

/// A file that is new, or has another stamp. One that is gone is about to come again, mostly.
fn changed<'a>(before: &Seen, now: &'a Seen) -> Option<&'a Path> {
    let differs = |(path, stamp): &(&PathBuf, &Option<Stamp>)| stamp.is_some() && before.get(*path) != Some(*stamp);
    now.iter().find(differs).map(|(path, _)| path.as_path())
}

fn stamp(path: &Path) -> Option<Stamp> {
    std::fs::metadata(path).ok().map(|file| (file.mtime(), file.mtime_nsec(), file.ino(), file.size()))
}

/// Is this the file of that module, or the module of a package?
fn is_module(file: &Path, module: &str) -> bool {
    let path: PathBuf = module.split('.').collect();
    let stem = file.with_extension("");
    stem.ends_with(&path) || stem.ends_with(path.join("__init__"))
}

/// Where the application's own modules are.
fn source_directories(config: &Config) -> Vec<PathBuf> {
    let here = std::env::current_dir().unwrap_or_default();
    let mut directories: Vec<_> = config.pythonpath.iter().map(|directory| here.join(directory)).collect();
    if let AppSource::File(file) = &config.app
        && let Some(parent) = here.join(file).parent()
    {
        directories.push(parent.to_path_buf());
    }
    directories.push(here);
    directories
}

/// Every Python file under `roots`, but for hidden directories, virtual environments and installed packages.
fn python_files(roots: &[PathBuf]) -> Seen {
    let mut found = BTreeMap::new();
    let mut waiting: Vec<PathBuf> = roots.to_vec();
    while let Some(directory) = waiting.pop() {
        let Ok(entries) = std::fs::read_dir(&directory) else { continue };
        for entry in entries.flatten() {
            let (name, path) = (entry.file_name(), entry.path());
            let name = name.to_string_lossy();
            // A link to a directory could lead around in circles.
            let Ok(kind) = entry.file_type() else { continue };
            if kind.is_dir() {
                let is_ours =
                    !name.starts_with('.') && !NOT_OURS.contains(&&*name) && !path.join("pyvenv.cfg").exists();
                if is_ours {
                    waiting.push(path);
                }
            } else if name.ends_with(".py") {
                let stamp = stamp(&path);
                found.insert(path, stamp);
                if found.len() >= MOST_FILES {
                    warn!("py-autoreload: more than {MOST_FILES} Python files: the others are not watched");
                    return found;
                }
            }
        }
    }
    found
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_module_is_known_by_its_file() {
        for file in ["/srv/app/views.py", "/srv/app/views/__init__.py"] {
            assert!(is_module(Path::new(file), "app.views") && is_module(Path::new(file), "views"));
            assert!(!is_module(Path::new(file), "other.views") && !is_module(Path::new(file), "app"));
        }
    }

    #[test]
    fn a_project_s_files_are_found_and_what_is_installed_is_not() {
        let root = std::env::temp_dir().join(format!("rwsgi-touch-{}", std::process::id()));
        for directory in ["app/deep", "env/lib", ".git", "site-packages"] {
            std::fs::create_dir_all(root.join(directory)).unwrap();
        }
        std::fs::write(root.join("env/pyvenv.cfg"), "").unwrap();
        let files = ["app/a.py", "app/deep/b.py", "env/lib/c.py", ".git/d.py", "site-packages/e.py", "app/f.txt"];
        for file in files {
            std::fs::write(root.join(file), "").unwrap();
        }
        let before = python_files(std::slice::from_ref(&root));
        assert_eq!(before.keys().collect::<Vec<_>>(), [&root.join("app/a.py"), &root.join("app/deep/b.py")]);
        assert_eq!(changed(&before, &python_files(std::slice::from_ref(&root))), None);
        std::fs::write(root.join("app/deep/b.py"), "x = 1").unwrap();
        let now = python_files(std::slice::from_ref(&root));
        assert_eq!(changed(&before, &now), Some(root.join("app/deep/b.py").as_path()));
        std::fs::remove_file(root.join("app/a.py")).unwrap();
        assert_eq!(changed(&now, &python_files(std::slice::from_ref(&root))), None);
        std::fs::remove_dir_all(root).unwrap();
    }
}
