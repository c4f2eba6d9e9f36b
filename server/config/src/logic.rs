//! Conditions and loops in configuration files. As with uWSGI a block is not a whole: each option in it is taken
//! through the block by itself, and blocks do not nest.

use std::path::Path;

use super::plugins::is_built_in;
use super::surroundings::Surroundings;

/// What a logic option asks for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Logic {
    /// Take what follows once for each of several values.
    For(Over),
    /// Take what follows if a test holds, or if it does not.
    If(Test, Wanted),
    /// Take what follows if the test before did not hold.
    Else,
    /// What follows is taken as it is again.
    End,
}

/// What a loop goes over.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Over {
    /// The words of its value.
    Words,
    /// The numbers from 1 to its value.
    Numbers,
    /// The lines of the file that its value names.
    Lines,
    /// The paths that match its value; the value itself when nothing does.
    Paths,
}

/// What a condition looks at.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Test {
    /// An environment variable, `NAME` or `NAME=value`.
    Environment,
    /// An option given so far, `name` or `name=value`.
    Option,
    /// Anything at a path.
    Exists,
    /// A plain file.
    File,
    /// A directory.
    Directory,
    /// The machine's name.
    Hostname,
    /// A plugin of uWSGI's that is built in here.
    Plugin,
    /// Whether a server that runs reads its configuration again.
    Reload,
}

/// Must the test hold?
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Wanted {
    True,
    False,
}

/// An open block: what each option in it becomes, once for each value of `%(_)`.
#[derive(Clone, Debug)]
pub(super) struct Block {
    /// The option that opened it, and its value.
    pub(super) opened_by: String,
    pub(super) argument: String,
    /// What `%(_)` stands for, each time that an option is taken, or that it stays as it is; none to leave the option out.
    pub(super) values: Vec<Option<String>>,
    /// For `else`: did the test fail?
    pub(super) failed: Option<bool>,
}

impl Block {
    /// The block that this option opens. `option` gives the value of an option given so far.
    pub(super) fn open<'a>(
        logic: Logic,
        opened_by: &str,
        argument: &str,
        around: &'a Surroundings,
        option: impl Fn(&str) -> Option<&'a str>,
    ) -> Result<Self, String> {
        let (values, failed) = match logic {
            Logic::For(over) => (over.values(argument)?.into_iter().map(Some).collect(), None),
            Logic::If(test, wanted) => {
                let (found, value) = test.look(argument, around, option);
                let holds = found == (wanted == Wanted::True);
                (if holds { vec![value] } else { Vec::new() }, Some(!holds))
            }
            Logic::Else | Logic::End => (Vec::new(), None),
        };
        Ok(Self { opened_by: opened_by.to_owned(), argument: argument.to_owned(), values, failed })
    }

    /// The word that closes it, after `end`.
    pub(super) fn kind(&self) -> &'static str {
        if self.opened_by.starts_with("for") { "for" } else { "if" }
    }

    /// What follows an `else` of this block.
    pub(super) fn otherwise(&self) -> Option<Self> {
        let values = if self.failed? { vec![None] } else { Vec::new() };
        Some(Self { values, failed: None, ..self.clone() })
    }
}

impl Over {
    fn values(self, argument: &str) -> Result<Vec<String>, String> {
        match self {
            Self::Words => Ok(argument.split(' ').filter(|word| !word.is_empty()).map(str::to_owned).collect()),
            Self::Numbers => {
                let last: u32 = argument.parse().ok().filter(|last| *last <= 10_000).ok_or("a number up to 10000")?;
                Ok((1..=last).map(|number| number.to_string()).collect())
            }
            Self::Lines => {
                let text = std::fs::read_to_string(argument).map_err(|error| format!("a file to read ({error})"))?;
                Ok(text.lines().map(str::to_owned).collect())
            }
            Self::Paths => {
                let found = matching(argument)?;
                Ok(if found.is_empty() { vec![argument.to_owned()] } else { found })
            }
        }
    }
}

/// The paths that match a pattern of the shell's, in their order, directories with a slash at their end.
///
/// # Errors
/// What was expected, when it is no pattern.
pub(super) fn matching(pattern: &str) -> Result<Vec<String>, String> {
    let found = glob::glob(pattern).map_err(|error| format!("a pattern of paths ({error})"))?;
    // What cannot be read matches nothing, as in a shell.
    let paths = found.filter_map(|path| path.ok()?.into_os_string().into_string().ok());
    Ok(paths.map(|path| if Path::new(&path).is_dir() && !path.ends_with('/') { path + "/" } else { path }).collect())
}

impl Test {
    /// Is the thing looked for there; and what `%(_)` stands for, if for anything.
    fn look<'a>(
        self,
        argument: &str,
        around: &'a Surroundings,
        option: impl Fn(&str) -> Option<&'a str>,
    ) -> (bool, Option<String>) {
        let path = Path::new(argument);
        // What is there stands for itself, whether it has the value that is asked for or not.
        let named = |value: &dyn Fn(&str) -> Option<&'a str>| {
            let (name, wanted) =
                argument.split_once('=').map_or((argument, None), |(name, wanted)| (name, Some(wanted)));
            let found = value(name);
            (found.is_some_and(|found| wanted.is_none_or(|wanted| wanted == found)), found.map(str::to_owned))
        };
        let itself = |is_there| (is_there, Some(argument.to_owned()));
        match self {
            Self::Environment => named(&|name| around.env.get(name).map(String::as_str)),
            Self::Option => named(&option),
            Self::Exists => itself(path.exists()),
            Self::File => itself(path.is_file()),
            Self::Directory => itself(path.is_dir()),
            Self::Hostname => itself(around.hostname == argument),
            Self::Plugin => itself(is_built_in(argument)),
            Self::Reload => (around.is_reload, None),
        }
    }
}
