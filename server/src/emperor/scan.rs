//! Finding the vassals' files: in directories, and by patterns.

use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::time::{Duration, SystemTime};

use anyhow::Context;
use tracing::warn;

use super::ids::VassalId;
use super::vassals::{Owner, Seen};
use rwsgi_config::EmperorConfig;

/// Names that end in one of these are configuration files, as in uWSGI.
const EXTENSIONS: [&str; 6] = [".xml", ".ini", ".yml", ".yaml", ".js", ".json"];
/// Names of this length and more are refused, as in uWSGI.
const TOO_LONG: usize = 255;

/// Where vassals are looked for.
#[derive(Debug)]
pub(super) struct Monitor {
    /// As the stats document has it.
    pub(super) name: String,
    /// Where its vassals run, and their names are relative to.
    pub(super) directory: PathBuf,
    /// Files that match it; `None` for all files of the directory.
    pattern: Option<String>,
    /// That it cannot be read was logged.
    is_lost: bool,
}

impl Monitor {
    /// One for an `emperor` option: a directory, or a pattern (which the name of a file is too).
    ///
    /// # Errors
    /// When it is neither.
    pub(super) fn of(option: &str, start: &Path) -> anyhow::Result<Self> {
        let (text, is_directory) = match (option.strip_prefix("dir://"), option.strip_prefix("glob://")) {
            (Some(directory), _) => (directory, true),
            (_, Some(pattern)) => (pattern, false),
            _ => (option, start.join(option).is_dir()),
        };
        if let Some((scheme, _)) = text.split_once("://") {
            anyhow::bail!(
                "emperor: '{option}': there are no vassals of '{scheme}' here, only directories and patterns"
            );
        }
        if !is_directory && text.contains(['*', '?', '['])
            || start.join(text).is_file()
            || option.starts_with("glob://")
        {
            let pattern = start.join(text).to_string_lossy().into_owned();
            glob::Pattern::new(&pattern).with_context(|| format!("emperor: '{text}' is no pattern"))?;
            let name = text.to_owned();
            return Ok(Self { name, directory: start.to_path_buf(), pattern: Some(pattern), is_lost: false });
        }
        // One that is not there yet may come.
        let directory = start.join(text);
        let directory = directory.canonicalize().unwrap_or(directory);
        Ok(Self { name: directory.to_string_lossy().into_owned(), directory, pattern: None, is_lost: false })
    }

    /// The vassals' files that are there now, in the order of their names; `None` when that cannot be found out.
    pub(super) fn scan(&mut self, number: usize, config: &EmperorConfig) -> Option<Vec<Seen>> {
        let names = match self.names(config) {
            Ok(names) => names,
            Err(error) => {
                if !std::mem::replace(&mut self.is_lost, true) {
                    warn!("emperor: cannot read '{}': {error}: its vassals go on as they are", self.name);
                }
                return None;
            }
        };
        self.is_lost = false;
        let seen = |name: String| {
            let path = self.directory.join(&name);
            let link = path.symlink_metadata().ok()?;
            let file = if config.nofollow { Some(link.clone()) } else { path.metadata().ok() }?;
            if !(file.is_file() || config.nofollow && file.is_symlink()) {
                return None;
            }
            let owner = if config.tyrant && config.tyrant_nofollow { &link } else { &file };
            Some(Seen {
                id: VassalId { monitor: number, name },
                modified: modified(&file),
                owner: Owner { uid: owner.uid(), gid: owner.gid() },
            })
        };
        Some(names.into_iter().filter_map(seen).collect())
    }

    fn names(&self, config: &EmperorConfig) -> std::io::Result<Vec<String>> {
        let mut names: Vec<String> = match &self.pattern {
            None => std::fs::read_dir(&self.directory)?
                .map(|entry| entry.map(|entry| entry.file_name().into_string().unwrap_or_default()))
                .collect::<Result<_, _>>()?,
            Some(pattern) => glob::glob_with(pattern, MATCH)
                .into_iter()
                .flatten()
                .flatten()
                .filter_map(|path| {
                    let path = path.strip_prefix(&self.directory).unwrap_or(&path);
                    path.to_str().map(str::to_owned)
                })
                .collect(),
        };
        names.retain(|name| is_vassal(name, &config.extensions));
        names.sort_unstable();
        Ok(names)
    }
}

/// As glob(3) has it.
const MATCH: glob::MatchOptions =
    glob::MatchOptions { case_sensitive: true, require_literal_separator: true, require_literal_leading_dot: true };

fn is_vassal(name: &str, more: &[String]) -> bool {
    let ends = EXTENSIONS.into_iter().chain(more.iter().map(String::as_str));
    name.len() < TOO_LONG && ends.into_iter().any(|end| name.ends_with(end))
}

fn modified(file: &std::fs::Metadata) -> SystemTime {
    let seconds = Duration::from_secs(file.mtime().unsigned_abs());
    SystemTime::UNIX_EPOCH + seconds + Duration::from_nanos(file.mtime_nsec().unsigned_abs())
}

/// The option by which a vassal reads a file of this name.
pub(super) fn option_for(name: &str, more: &[String]) -> &'static str {
    if more.iter().any(|end| name.ends_with(end.as_str())) {
        return "--config";
    }
    match name.rsplit_once('.').map(|(_, extension)| extension) {
        Some("xml") => "--xml",
        Some("ini") => "--ini",
        Some("yml" | "yaml") => "--yaml",
        Some("js" | "json") => "--json",
        _ => "--inherit",
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn files_are_vassals_by_the_end_of_their_names() {
        let more = vec![".conf".to_owned()];
        for (name, option) in [("a.ini", "--ini"), ("a.b.yml", "--yaml"), ("x.js", "--json"), ("x.conf", "--config")] {
            assert!(is_vassal(name, &more), "{name}");
            assert_eq!(option_for(name, &more), option, "{name}");
        }
        for name in ["a.ini.disabled", "a.ini~", "README", "x.cfg", &format!("{}.ini", "x".repeat(255))] {
            assert!(!is_vassal(name, &more), "{name}");
        }
    }

    #[test]
    fn a_directory_has_its_own_files_and_a_pattern_what_matches() {
        let place = tempfile::tempdir().unwrap();
        let start = place.path();
        std::fs::create_dir_all(start.join("v/sub.ini")).unwrap();
        for name in ["v/b.ini", "v/a.yaml", "v/notes.txt", "v/sub.ini/c.ini"] {
            std::fs::write(start.join(name), "").unwrap();
        }
        std::os::unix::fs::symlink("nowhere", start.join("v/dead.ini")).unwrap();
        let config = EmperorConfig::default();
        let names = |option: &str, config: &EmperorConfig| {
            let mut monitor = Monitor::of(option, start).unwrap();
            let seen = monitor.scan(0, config).unwrap();
            seen.into_iter().map(|seen| seen.id.name).collect::<Vec<_>>()
        };
        assert_eq!(names("v", &config), ["a.yaml", "b.ini"]);
        assert_eq!(names("v/", &EmperorConfig { nofollow: true, ..config.clone() }), ["a.yaml", "b.ini", "dead.ini"]);
        assert_eq!(names("v/*/*.ini", &config), ["v/sub.ini/c.ini"]);
        assert_eq!(names("v/b.ini", &config), ["v/b.ini"]);
        let mut later = Monitor::of("later", start).unwrap();
        assert!(later.scan(0, &config).is_none());
        std::fs::create_dir(start.join("later")).unwrap();
        assert_eq!(later.scan(0, &config).unwrap().len(), 0);
        assert!(Monitor::of("pg://x", start).unwrap_err().to_string().contains("pg"));
    }
}
