//! Brings options together from the command line, the environment and the files, in the order that decides who wins.

use std::path::{Path, PathBuf};

use super::command_line::Argument;
use super::files::Notation;
use super::options::find;
use super::row::{Action, Kind};
use super::{ConfigError, Origin};

/// How deep files may include each other: more is a circle.
const DEEPEST: usize = 32;

/// One option as it was given somewhere.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Setting {
    pub(super) name: String,
    pub(super) value: String,
    pub(super) origin: Origin,
}

/// Collects settings; a file is read in place of the option that names it.
#[derive(Debug, Default)]
pub(super) struct Gatherer {
    pub(super) settings: Vec<Setting>,
    depth: usize,
}

impl Gatherer {
    /// Options in their order; then, as with uWSGI, the files that stand alone, so that those have the last word.
    pub(super) fn command_line(&mut self, arguments: Vec<Argument>) -> Result<(), ConfigError> {
        let mut files = Vec::new();
        for argument in arguments {
            match argument {
                Argument::Option(name, value) => self.add(Setting { name, value, origin: Origin::CommandLine })?,
                Argument::File(file) => files.push(file),
            }
        }
        files.iter().try_for_each(|file| self.load(file, None, &Origin::CommandLine))
    }

    fn add(&mut self, setting: Setting) -> Result<(), ConfigError> {
        let load = match find(&setting.name) {
            Some(row) => match row.kind {
                Kind::Act(Action::Load(notation)) => Some(notation),
                _ => None,
            },
            None => None,
        };
        let (file, origin) = (setting.value.clone(), setting.origin.clone());
        self.settings.push(setting);
        match load {
            Some(notation) => self.load(&file, notation, &origin),
            None => Ok(()),
        }
    }

    /// Reads `file`, or `file:section`, and adds what is in it.
    fn load(&mut self, file: &str, notation: Option<Notation>, origin: &Origin) -> Result<(), ConfigError> {
        let wrong = |problem| ConfigError::Syntax { origin: origin.clone(), problem };
        if self.depth == DEEPEST {
            return Err(wrong(format!("'{file}' includes itself, or files include each other {DEEPEST} deep")));
        }
        let (name, section) = match file.rsplit_once(':') {
            Some((name, section)) if !section.is_empty() && !section.contains('/') => (name, Some(section)),
            _ => (file.trim_end_matches(':'), None),
        };
        // `:section` is another section of the file that says so.
        let path = match origin {
            Origin::File { path, .. } if name.is_empty() => path.clone(),
            _ => PathBuf::from(name),
        };
        let Some(notation) = notation.or_else(|| Notation::of(&path.to_string_lossy())) else {
            return Err(wrong(format!("'{file}' is no configuration file: its name should end in .ini")));
        };
        let text = read(&path, origin)?;
        let at = |line| Origin::File { path: path.clone(), line };
        let pairs = notation
            .read(&text, section)
            .map_err(|error| ConfigError::Syntax { origin: at(error.line), problem: error.problem })?;
        self.depth += 1;
        for pair in pairs {
            self.add(Setting { name: pair.key, value: pair.value, origin: at(pair.line) })?;
        }
        self.depth -= 1;
        Ok(())
    }
}

fn read(path: &Path, origin: &Origin) -> Result<String, ConfigError> {
    let read =
        if path == Path::new("-") { std::io::read_to_string(std::io::stdin()) } else { std::fs::read_to_string(path) };
    read.map_err(|source| ConfigError::Read { origin: origin.clone(), path: path.to_owned(), source })
}
