//! Options about the interpreter, and about applications that other frameworks load.

use std::path::PathBuf;

use serde::{Deserialize, Serialize};

use super::row::{APPLICATION, RELOAD};
use super::row::{Kind, Row};
use super::value::path;
use super::{AppSource, Config};

/// What they come to.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct PythonConfig {
    /// `--paste-logger`: set logging up from the file that `paste` names.
    pub paste_logger: bool,
    /// `--pyargv`: what follows the program's name in `sys.argv`.
    pub argv: Vec<String>,
    /// `--optimize`: as `-O` of Python's.
    pub optimize: u32,
    /// `--py-executable`: `sys.executable`.
    pub executable: Option<PathBuf>,
    /// `--pymodule-alias`: names that modules have too, and the modules or files, before anything is imported.
    pub aliases: Vec<Alias>,
    /// `--post-pymodule-alias`: the same, once `import` has been done.
    pub later_aliases: Vec<Alias>,
    /// `--py-auto-reload-ignore`: modules whose change is no reason to reload.
    pub unwatched: Vec<String>,
}

/// Another name for a module.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Alias {
    /// The name to import it by.
    pub name: String,
    /// The module, or a file if there is a slash in it.
    pub module: String,
}

const PYTHON: Row = Row { ..APPLICATION };

#[rustfmt::skip]
pub(crate) static ROWS: &[Row] = &[
    Row { names: &["paste"], kind: Kind::Custom(paste), takes: "URI",
          help: "Have PasteDeploy load the application from this, as config:/etc/app.ini or config:/etc/app.ini#name", ..PYTHON },
    Row { names: &["paste-logger"], kind: Kind::Flag(|c| &mut c.python.paste_logger),
          help: "Set up logging as the file that paste names says (logging.config.fileConfig)", ..PYTHON },
    Row { names: &["pecan"], kind: Kind::Custom(pecan), takes: "FILE",
          help: "Have Pecan load the application that this configuration file is for", ..PYTHON },
    Row { names: &["eval"], kind: Kind::Custom(eval), takes: "CODE",
          help: "Run this Python code, which defines the application", ..PYTHON },
    Row { names: &["pyargv"], kind: Kind::Custom(argv), takes: "WORDS",
          help: "The arguments in sys.argv, divided at blanks", ..PYTHON },
    Row { names: &["optimize"], short: Some('O'), kind: Kind::Number(|c| &mut c.python.optimize, 0..=2), takes: "LEVEL", default: "0",
          help: "Python's optimization level: 1 leaves assertions out, 2 docstrings too", ..PYTHON },
    Row { names: &["py-executable", "py-sys-executable"], kind: Kind::Path(|c| &mut c.python.executable), takes: "FILE",
          help: "What sys.executable says", ..PYTHON },
    Row { names: &["pymodule-alias"], kind: Kind::Custom(|c, value| alias(value).map(|alias| c.python.aliases.push(alias))), takes: "NAME=MODULE", repeats: true,
          help: "Let this module, or Python file, be imported by another name", ..PYTHON },
    Row { names: &["post-pymodule-alias"], kind: Kind::Custom(|c, value| alias(value).map(|alias| c.python.later_aliases.push(alias))), takes: "NAME=MODULE", repeats: true,
          help: "The same, after import has been done", ..PYTHON },
    Row { names: &["py-auto-reload-ignore"], kind: Kind::Texts(|c| &mut c.python.unwatched), takes: "MODULE",
          help: "Let py-autoreload overlook this module", ..RELOAD },
];

fn paste(config: &mut Config, value: &str) -> Result<(), String> {
    if value.is_empty() {
        return Err("what PasteDeploy loads, as config:/etc/app.ini".into());
    }
    AppSource::Paste(value.into()).choose(config);
    Ok(())
}

fn pecan(config: &mut Config, value: &str) -> Result<(), String> {
    path(value)?;
    AppSource::Pecan(value.into()).choose(config);
    Ok(())
}

fn eval(config: &mut Config, value: &str) -> Result<(), String> {
    AppSource::Eval(value.into()).choose(config);
    Ok(())
}

fn argv(config: &mut Config, value: &str) -> Result<(), String> {
    let words = value.split([' ', '\t']).filter(|word| !word.is_empty());
    config.python.argv = words.map(str::to_owned).collect();
    Ok(())
}

fn alias(value: &str) -> Result<Alias, String> {
    match value.split_once('=') {
        Some((name, module)) if !name.is_empty() && !module.is_empty() => {
            Ok(Alias { name: name.into(), module: module.into() })
        }
        _ => Err("NAME=MODULE or NAME=/PATH/TO/FILE.py".into()),
    }
}

#[cfg(test)]
mod tests {
    use crate::AppSource;
    use crate::tests::{error, serve};

    #[test]
    fn the_application_is_the_first_of_its_kinds_whatever_their_order() {
        let kinds = ["--module m", "--wsgi-file f.py", "--pecan p.py", "--paste config:/e.ini", "--eval x=1"];
        for (index, first) in kinds.iter().enumerate() {
            for second in &kinds[index + 1..] {
                for line in [format!("{first} {second}"), format!("{second} {first}")] {
                    let config = serve(&format!("rwsgi --http :1 {line}"));
                    let alone = serve(&format!("rwsgi --http :1 {first}"));
                    assert_eq!(config.app, alone.app, "{line}");
                    assert!(config.warnings[0].contains("are both given"), "{line}: {:?}", config.warnings);
                    assert_eq!(alone.warnings, [""; 0]);
                }
            }
        }
    }

    #[test]
    fn what_python_is_to_be_given_is_read() {
        let config = serve("rwsgi --http :1 --paste config:/etc/a.ini#x --paste-logger -O 2 --pymodule-alias a=b.c");
        assert_eq!(config.app, AppSource::Paste("config:/etc/a.ini#x".into()));
        assert!(config.python.paste_logger);
        assert_eq!((config.python.optimize, config.python.aliases[0].module.as_str()), (2, "b.c"));
        assert!(error("rwsgi --http :1 -w m --pymodule-alias a").contains("expected NAME=MODULE"));
    }
}
