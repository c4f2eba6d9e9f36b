//! The configuration file: `$XDG_CONFIG_HOME/rtop/config.toml`. Everything in it has a default, and what is misspelt is
//! an error that says where.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::{fs, io};

use ratatui::style::Color;
use serde::Deserialize;
use thiserror::Error;

use crate::model::Thresholds;
use crate::model::columns::{COLUMNS, Column, column};
use crate::view::keys::{BINDINGS, Key, Keys};
use crate::view::{Colors, PALETTES, Role, palette, usual_colors};

/// What the file says.
#[derive(Debug, Default, Deserialize)]
#[serde(default, deny_unknown_fields)]
struct File {
    columns: Option<Vec<String>>,
    sort: Option<String>,
    mouse: Option<bool>,
    read_only: Option<bool>,
    keys: BTreeMap<String, Vec<String>>,
    theme: Option<String>,
    colors: BTreeMap<Role, String>,
    thresholds: Thresholds,
}

/// What it means.
#[derive(Debug, Default)]
pub(crate) struct Config {
    /// The columns and their order.
    pub(crate) columns: Option<Vec<&'static Column>>,
    /// What the table is sorted by.
    pub(crate) sort: Option<&'static Column>,
    /// Ask the terminal for clicks.
    pub(crate) mouse: Option<bool>,
    /// No key acts on a server.
    pub(crate) read_only: Option<bool>,
    /// The keys in force.
    pub(crate) keys: Keys,
    /// The theme: its place in the table of them.
    pub(crate) theme: usize,
    /// Colours in place of the theme's.
    pub(crate) colors: Colors,
    /// When there are alerts.
    pub(crate) thresholds: Thresholds,
}

/// What is wrong with the file.
#[derive(Debug, Error)]
pub(crate) enum ConfigError {
    /// It cannot be read.
    #[error("{}: {error}", path.display())]
    Read {
        /// The file.
        path: PathBuf,
        /// What the system says.
        error: io::Error,
    },
    /// It is not the TOML that is expected.
    #[error("{}: {error}", path.display())]
    Toml {
        /// The file.
        path: PathBuf,
        /// Where and what.
        error: toml::de::Error,
    },
    /// A name that is not in a table.
    #[error("{}: there is no {kind} '{name}'; {}there are: {known}", path.display(), meant(nearest.as_deref()))]
    Name {
        /// The file.
        path: PathBuf,
        /// Of what.
        kind: &'static str,
        /// The name.
        name: String,
        /// The one that is most like it, if any is.
        nearest: Option<String>,
        /// All that there are.
        known: String,
    },
    /// A key that is to do two things.
    #[error("{}: the key '{key}' is given to '{first}' and to '{second}'", path.display())]
    Twice {
        /// The file.
        path: PathBuf,
        /// The key.
        key: Key,
        /// A binding.
        first: String,
        /// Another one.
        second: String,
    },
    /// The key that always leaves, given to something else.
    #[error("{}: the key '{}' always leaves rtop, and cannot be given to '{name}'", path.display(), Key::INTERRUPT)]
    Reserved {
        /// The file.
        path: PathBuf,
        /// The binding.
        name: String,
    },
}

fn meant(nearest: Option<&str>) -> String {
    nearest.map_or_else(String::new, |name| format!("did you mean '{name}'? "))
}

/// The name that is most like a misspelt one, unless all are quite another word.
fn nearest(misspelt: &str, known: impl IntoIterator<Item = impl AsRef<str>>) -> Option<String> {
    let likeness = |name: String| (strsim::normalized_damerau_levenshtein(&misspelt.to_lowercase(), &name), name);
    if misspelt.is_empty() {
        return None;
    }
    let rated = known.into_iter().map(|name| likeness(name.as_ref().to_owned()));
    let best = rated.max_by(|(a, _), (b, _)| a.total_cmp(b)).filter(|(likeness, _)| *likeness >= 0.5);
    best.map(|(_, name)| name)
}

/// Where the file is looked for; `None` when there is no home.
pub(crate) fn path(variable: impl Fn(&str) -> Option<String>) -> Option<PathBuf> {
    let set = |name: &str| variable(name).filter(|value| !value.is_empty()).map(PathBuf::from);
    let base = set("XDG_CONFIG_HOME").or_else(|| set("HOME").map(|home| home.join(".config")))?;
    Some(base.join("rtop").join("config.toml"))
}

/// Reads the file; without one, everything is as usual.
///
/// # Errors
/// When there is a file that cannot be read or understood.
pub(crate) fn read(path: Option<&Path>) -> Result<Config, ConfigError> {
    let Some(path) = path else { return Ok(Config::default()) };
    match fs::read_to_string(path) {
        Ok(text) => parse(&text, path),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(Config::default()),
        Err(error) => Err(ConfigError::Read { path: path.to_owned(), error }),
    }
}

fn parse(text: &str, path: &Path) -> Result<Config, ConfigError> {
    let file: File = toml::from_str(text).map_err(|error| ConfigError::Toml { path: path.to_owned(), error })?;
    let unknown = |kind, name: &str, known: Vec<&str>| ConfigError::Name {
        path: path.to_owned(),
        kind,
        name: name.to_owned(),
        nearest: nearest(name, &known),
        known: known.join(", "),
    };
    let no_column = |name: &str| unknown("column", name, COLUMNS.iter().map(|column| column.name).collect());
    let named = |name: &String| column(name).ok_or_else(|| no_column(name));
    let theme = file.theme.as_deref().map_or(Ok(0), |name| {
        let names = || PALETTES.iter().map(|palette| palette.name).collect();
        palette(name).ok_or_else(|| unknown("theme", name, names()))
    })?;
    let mut colors = Colors::default();
    for (role, text) in &file.colors {
        let color: Color = text.parse().map_err(|_| ConfigError::Name {
            path: path.to_owned(),
            kind: "color",
            name: text.clone(),
            nearest: None,
            known: "black, red, green, yellow, blue, magenta, cyan, gray, white, light…, 0 to 255, #rrggbb".to_owned(),
        })?;
        colors.set(*role, color);
    }
    Ok(Config {
        columns: file.columns.map(|names| names.iter().map(named).collect::<Result<_, _>>()).transpose()?,
        sort: file.sort.as_ref().map(named).transpose()?,
        mouse: file.mouse,
        read_only: file.read_only,
        keys: keys(&file.keys, path)?,
        theme,
        colors,
        thresholds: file.thresholds,
    })
}

/// The keys in force with these bindings of the file.
fn keys(bindings: &BTreeMap<String, Vec<String>>, path: &Path) -> Result<Keys, ConfigError> {
    let mut keys = Keys::default();
    let mut given: Vec<(Key, &str)> = Vec::new();
    for (name, written) in bindings {
        let mut bound = Vec::with_capacity(written.len());
        for text in written {
            let key: Key = text.parse().map_err(|_| ConfigError::Name {
                path: path.to_owned(),
                kind: "key",
                name: text.clone(),
                nearest: nearest(text, Key::names_like(text)),
                known: Key::known(),
            })?;
            if key == Key::INTERRUPT && name != "quit" {
                return Err(ConfigError::Reserved { path: path.to_owned(), name: name.clone() });
            }
            if let Some((_, first)) = given.iter().find(|(known, first)| *known == key && first != name) {
                let (first, second) = ((*first).to_owned(), name.clone());
                return Err(ConfigError::Twice { path: path.to_owned(), key, first, second });
            }
            given.push((key, name));
            bound.push(key);
        }
        if !keys.rebind(name, &bound) {
            let names: Vec<&str> = BINDINGS.iter().map(|binding| binding.name).collect();
            return Err(ConfigError::Name {
                path: path.to_owned(),
                kind: "key binding",
                name: name.clone(),
                nearest: nearest(name, &names),
                known: names.join(", "),
            });
        }
    }
    Ok(keys)
}

/// The default file, with every line explained and commented out.
pub(crate) fn default_text() -> String {
    let mut text = String::from(
        "# rtop's configuration: put it in $XDG_CONFIG_HOME/rtop/config.toml (or ~/.config/rtop/config.toml).\n\
         # Every line here is the default; take the # away to change it.\n\n",
    );
    let names: Vec<String> = COLUMNS.iter().map(|column| format!("\"{}\"", column.name)).collect();
    text += "# The columns of the worker table, in their order. What does not fit drops out by itself.\n";
    text += &format!("#columns = [{}]\n\n", names.join(", "));
    text += "# What the table is sorted by.\n#sort = \"req\"\n\n# Clicks on titles and rows.\n#mouse = true\n\n# Only look: no key acts on a server.\n#read_only = false\n\n";
    text += "# Which colours:\n";
    for palette in PALETTES {
        text += &format!("#   {}: {}\n", palette.name, palette.help);
    }
    text += &format!("#theme = \"{}\"\n\n", PALETTES[0].name);
    text += "# Colours in place of the theme's: names of the sixteen, numbers of 256, or \"#rrggbb\".\n[colors]\n";
    for (role, color) in usual_colors() {
        text += &format!("#{} = \"{}\"\n", role.name(), color.to_string().to_lowercase());
    }
    let Thresholds { queue, memory, request_age, request_seconds, respawns, error_rate, slow_worker } =
        Thresholds::default();
    text += &format!(
        "\n# When there are alerts (w).\n[thresholds]\n\
         # the queue is filled to this share of its capacity\n#queue = {queue:?}\n\
         # a worker's memory is this share of its limit\n#memory = {memory:?}\n\
         # a request is older than this share of harakiri\n#request_age = {request_age:?}\n\
         # or, where harakiri is not known, than this many seconds\n#request_seconds = {request_seconds}\n\
         # a worker was started this often within a minute\n#respawns = {respawns}\n\
         # this share of the last minute's requests raised, and twice that of the minutes before\n#error_rate = {error_rate:?}\n\
         # a worker's p95 is this many times the median of all\n#slow_worker = {slow_worker:?}\n"
    );
    text += "\n# What keys do. Modified keys are ctrl-x, alt-x, shift-left. ctrl-c always leaves.\n[keys]\n";
    for binding in BINDINGS {
        text += &format!("# {}\n#{} = {:?}\n", binding.help, binding.name, binding.keys);
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parsed(text: &str) -> Result<Config, ConfigError> {
        parse(text, Path::new("config.toml"))
    }

    #[test]
    fn the_printed_default_is_what_is_in_force_without_a_file() {
        let lines = default_text();
        let live: Vec<&str> = lines
            .lines()
            .filter(|line| !line.starts_with("# "))
            .map(|line| line.strip_prefix('#').unwrap_or(line))
            .collect();
        let config = parsed(&live.join("\n")).unwrap();
        let usual = Config::default();
        assert_eq!(config.thresholds, usual.thresholds);
        assert_eq!(config.theme, usual.theme);
        let mut colors = Colors::default();
        usual_colors().for_each(|(role, color)| colors.set(role, color));
        assert_eq!(config.colors, colors);
        assert_eq!(config.columns.unwrap().len(), COLUMNS.len());
        for ((binding, keys), (_, usual)) in config.keys.iter().zip(usual.keys.iter()) {
            assert_eq!(keys, usual, "{}", binding.name);
        }
    }

    #[test]
    fn mistakes_are_told_with_what_there_is() {
        for (text, told) in [
            ("columns = ['wid', 'latency']", "there is no column 'latency'; there are: wid, "),
            ("[keys]\nfly = ['x']", "there is no key binding 'fly'"),
            ("[thresholds]\nqueues = 1", "unknown field `queues`"),
            ("theme = 'neon'", "there is no theme 'neon'; there are: terminal, dark, light, colour-blind, mono"),
            ("[colors]\nbusy = 'greenish'", "there is no color 'greenish'"),
            ("mouse = 1", "config.toml"),
        ] {
            let error = parsed(text).unwrap_err().to_string();
            assert!(error.contains(told), "{error}");
        }
    }

    #[test]
    fn keys_that_no_terminal_sends_are_refused_with_the_nearest_one() {
        for (text, told) in [
            ("quit = ['cntrl-q']", "there is no key 'cntrl-q'; did you mean 'ctrl-q'? there are: "),
            ("quit = ['pgup']", "did you mean 'pageup'?"),
            ("quit = ['Esc']", "did you mean 'esc'?"),
            ("quit = ['ctrl-shft-left']", "did you mean 'ctrl-shift-left'?"),
            ("quit = ['']", "there is no key ''; there are: "),
            ("quit = ['qq']", "there is no key 'qq'"),
            ("qiut = ['x']", "there is no key binding 'qiut'; did you mean 'quit'? there are: "),
            ("pause = ['ctrl-c']", "the key 'ctrl-c' always leaves rtop, and cannot be given to 'pause'"),
            ("pause = ['x']\nhelp = ['x']", "the key 'x' is given to 'help' and to 'pause'"),
            ("tab-next = ['shift-tab']\ntab-before = ['backtab']", "the key 'backtab' is given to"),
        ] {
            let error = parsed(&format!("[keys]\n{text}")).map(|config| config.keys).unwrap_err().to_string();
            assert!(error.contains(told), "{text}: {error}");
        }
    }

    #[test]
    fn leaving_always_has_a_key() {
        use crossterm::event::{KeyCode, KeyEvent, KeyModifiers};
        for text in ["quit = []", "quit = ['ctrl-q']", "quit = ['ctrl-c']", "pause = ['q']"] {
            let keys = parsed(&format!("[keys]\n{text}")).unwrap().keys;
            let interrupt = KeyEvent::new(KeyCode::Char('c'), KeyModifiers::CONTROL);
            assert_eq!(keys.action_of(interrupt), Some(crate::view::keys::Action::Quit), "{text}");
        }
    }

    #[test]
    fn the_file_is_looked_for_where_the_desktop_says() {
        let found = |variables: &[(&str, &str)]| {
            path(|name| variables.iter().find(|(known, _)| *known == name).map(|(_, value)| (*value).to_owned()))
        };
        assert_eq!(found(&[("XDG_CONFIG_HOME", "/c"), ("HOME", "/h")]), Some("/c/rtop/config.toml".into()));
        assert_eq!(found(&[("HOME", "/h")]), Some("/h/.config/rtop/config.toml".into()));
        assert_eq!(found(&[]), None);
        assert!(read(Some(Path::new("/nonexistent/config.toml"))).is_ok());
    }
}
