//! Brings options together from the environment, the command line and the files, in the order that decides who wins,
//! taking them through conditions and loops on the way.

use std::net::{SocketAddr, ToSocketAddrs};
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

use nix::unistd::geteuid;

use super::declared::Declared;
use super::expand::{Expander, Findings};
use super::files::Notation;
use super::logic::{Block, Logic, Test};
use super::logs::has_own_references;
use super::magic::Magic;
use super::options::find;
use super::row::{Action, Kind};
use super::setting::{Argument, Origin, Setting};
use super::surroundings::Surroundings;
use super::value::is_off;
use super::{ConfigError, OWNED_ONLY};

/// How deep files may include each other: more is a circle.
const DEEPEST: usize = 32;

/// More settings than this come from files that include each other over and over.
const MOST: usize = 100_000;

/// Variables that uWSGI sets for itself, or that are no options.
const NO_OPTIONS: [&str; 8] = [
    "UWSGI_RELOADS",
    "UWSGI_VASSALS_DIR",
    "UWSGI_EMPEROR_FD",
    "UWSGI_EMPEROR_FD_CONFIG",
    "UWSGI_EMPEROR_PROXY",
    "UWSGI_BROODLORD_NUM",
    "UWSGI_JAIL_PID",
    "UWSGI_ORIGINAL_PROC_NAME",
];

/// Collects settings; a file is read in place of the option that names it.
#[derive(Debug)]
pub(super) struct Gatherer {
    pub(super) settings: Vec<Setting>,
    pub(super) warnings: Vec<String>,
    pub(super) findings: Findings,
    around: Surroundings,
    magic: Magic,
    block: Option<Block>,
    /// `inherit`: read when everything else has been.
    inherited: Vec<(String, Origin)>,
    depth: usize,
    last_ini: Option<PathBuf>,
    /// `inject-before` and `inject-after`: files whose lines stand around those of each file that is read.
    injected: (Vec<String>, Vec<String>),
    /// `whitelist` and `blacklist`: the only options that may be given, and those that may not.
    allowed: Option<Vec<String>>,
    forbidden: Option<Vec<String>>,
}

impl Gatherer {
    pub(super) fn new(around: Surroundings) -> Self {
        let magic = Magic::new(&around);
        Self {
            settings: Vec::new(),
            warnings: Vec::new(),
            findings: Findings::default(),
            around,
            magic,
            block: None,
            inherited: Vec::new(),
            depth: 0,
            last_ini: None,
            injected: (Vec::new(), Vec::new()),
            allowed: None,
            forbidden: None,
        }
    }

    /// First the environment. Then options in their order; then, as with uWSGI, the files that stand alone, so that
    /// those have the last word; then what files inherit. Last, references are replaced.
    pub(super) fn gather(&mut self, arguments: Vec<Argument>) -> Result<(), ConfigError> {
        let variables: Vec<(String, String)> = self.around.env.clone().into_iter().collect();
        for (variable, value) in variables {
            let Some(name) = variable.strip_prefix("UWSGI_").filter(|_| !NO_OPTIONS.contains(&&*variable)) else {
                continue;
            };
            let name = name.to_ascii_lowercase().replace('_', "-");
            self.add(Setting { name, value, origin: Origin::Environment(variable) })?;
        }
        let mut files = Vec::new();
        for argument in arguments {
            match argument {
                Argument::Option(name, value) => self.add(Setting { name, value, origin: Origin::CommandLine })?,
                Argument::File(file) => files.push(file),
            }
        }
        self.close_block(&Origin::CommandLine);
        files.iter().try_for_each(|file| self.load(file, None, &Origin::CommandLine))?;
        while !self.inherited.is_empty() {
            for (file, origin) in std::mem::take(&mut self.inherited) {
                self.load(&file, None, &origin)?;
            }
        }
        self.expand_all()?;
        self.apply_declared()
    }

    /// Appends the settings that declared options make. As with uWSGI, an option may be declared behind its use.
    fn apply_declared(&mut self) -> Result<(), ConfigError> {
        let is_declaration =
            |setting: &&Setting| find(&setting.name).is_some_and(|row| matches!(row.kind, Kind::Act(Action::Declare)));
        let mut declared = Vec::new();
        for setting in self.settings.iter().filter(is_declaration) {
            declared.push(Declared::of(setting)?);
        }
        for option in &declared {
            self.findings.referenced.insert(option.name.clone());
            let used: Vec<Setting> =
                self.settings.iter().filter(|setting| setting.name == option.name).cloned().collect();
            for setting in used {
                for (name, value) in option.stands_for(&setting.value) {
                    self.put(Setting { name, value, origin: setting.origin.clone() })?;
                }
            }
        }
        Ok(())
    }

    /// The magic variables, as the last file left them.
    pub(super) fn magic(&self) -> Vec<(char, String)> {
        self.magic.all()
    }

    /// Is what would be warned of an error?
    pub(super) fn is_strict(&self) -> bool {
        self.settings.iter().any(|setting| setting.name == "strict" && !is_off(&setting.value))
    }

    /// Takes a setting through the block that is open, if one is.
    fn add(&mut self, setting: Setting) -> Result<(), ConfigError> {
        let problem = |problem: String| ConfigError::Syntax { origin: setting.origin.clone(), problem };
        match (logic_of(&setting.name), self.block.take()) {
            (Some(Logic::End), _) => Ok(()),
            (Some(Logic::Else), block) => {
                self.block = block.and_then(|block| block.otherwise());
                match self.block {
                    Some(_) => Ok(()),
                    None => Err(problem("else without a condition before it".into())),
                }
            }
            (Some(_), Some(block)) => {
                Err(problem(format!("{} inside {}: blocks do not nest", setting.name, block.opened_by)))
            }
            (Some(logic), None) => {
                let argument = self.expand(&setting.value, &setting.origin)?;
                let name = argument.split('=').next().unwrap_or_default().to_owned();
                self.findings.referenced.insert(name);
                let block = self
                    .open(logic, &setting.name, &argument)
                    .map_err(|expected| problem(format!("{}: expected {expected}, got '{argument}'", setting.name)))?;
                self.block = Some(block);
                Ok(())
            }
            (None, Some(mut block)) => {
                // As with uWSGI an option is looked for anew each time: the block itself may have set it.
                if let (Some(logic @ Logic::If(Test::Option, _)), true) =
                    (logic_of(&block.opened_by), block.failed.is_some())
                {
                    block = self.open(logic, &block.opened_by, &block.argument).map_err(problem)?;
                }
                // What is included from within a block has blocks of its own.
                for value in &block.values {
                    let stands_for = value.as_deref().unwrap_or("%(_)");
                    self.put(Setting { value: setting.value.replace("%(_)", stands_for), ..setting.clone() })?;
                }
                self.block = Some(block);
                Ok(())
            }
            (None, None) => self.put(setting),
        }
    }

    fn open(&self, logic: Logic, opened_by: &str, argument: &str) -> Result<Block, String> {
        let option = |name: &str| {
            self.settings.iter().find(|setting| setting.name == name).map(|setting| setting.value.as_str())
        };
        Block::open(logic, opened_by, argument, &self.around, option)
    }

    /// Is this option, by `whitelist` and `blacklist`, one that may be given here? What ends them may.
    fn is_allowed(&self, name: &str) -> bool {
        let is_in = |list: &Vec<String>| list.iter().any(|listed| listed == name);
        let ends = matches!(name, "end-whitelist" | "end-blacklist");
        ends || self.allowed.as_ref().is_none_or(is_in) && !self.forbidden.as_ref().is_some_and(is_in)
    }

    /// Keeps a setting, and does at once what cannot wait.
    fn put(&mut self, setting: Setting) -> Result<(), ConfigError> {
        let problem = |problem: &str| ConfigError::BadValue {
            origin: setting.origin.clone(),
            option: setting.name.clone(),
            problem: format!("{problem}, got '{}'", setting.value),
        };
        if !self.is_allowed(&setting.name) {
            return Err(problem("the whitelist or blacklist before it forbids it"));
        }
        if self.settings.len() >= MOST {
            return Err(problem(&format!("there are more than {MOST} settings: do files include each other?")));
        }
        let action = match find(&setting.name).map(|row| &row.kind) {
            Some(Kind::Act(action)) => *action,
            _ => {
                // Only `ienv` is in time for what refers to it, as with uWSGI.
                if let (true, Some((name, value))) = (setting.name == "ienv", setting.value.split_once('=')) {
                    self.around.env.insert(name.into(), value.into());
                }
                self.settings.push(setting);
                return Ok(());
            }
        };
        match action {
            Action::Load(notation) => {
                let file = self.expand(&setting.value, &setting.origin)?;
                let origin = setting.origin.clone();
                self.settings.push(Setting { value: file.clone(), ..setting });
                self.load(&file, notation, &origin)
            }
            Action::Inherit => {
                let file = self.expand(&setting.value, &setting.origin)?;
                self.inherited.push((file, setting.origin.clone()));
                self.settings.push(setting);
                Ok(())
            }
            Action::LoadPaste { logged } => {
                let file = self.expand(&setting.value, &setting.origin)?;
                let origin = setting.origin.clone();
                self.settings.push(setting);
                self.load(&file, Some(Notation::Ini), &origin)?;
                let given = |name: &str, value| Setting { name: name.into(), value, origin: origin.clone() };
                let path = file.split(':').next().map_or_else(PathBuf::new, |name| self.around.directory.join(name));
                self.settings.push(given("paste", format!("config:{}", path.display())));
                self.settings.extend(logged.then(|| given("paste-logger", "true".into())));
                Ok(())
            }
            Action::Resolve => {
                let (name, host) = setting.value.split_once('=').ok_or_else(|| problem("expected NAME=HOST"))?;
                let address =
                    address_of(host).map_err(|error| problem(&format!("expected a host's name ({error})")))?;
                let given = Setting { name: name.into(), value: address, origin: setting.origin.clone() };
                self.findings.referenced.insert(name.into());
                self.settings.push(setting.clone());
                self.settings.push(given);
                Ok(())
            }
            Action::InjectBefore | Action::InjectAfter => {
                let file = self.expand(&setting.value, &setting.origin)?;
                let around = if action == Action::InjectBefore { &mut self.injected.0 } else { &mut self.injected.1 };
                around.push(file);
                self.settings.push(setting);
                Ok(())
            }
            Action::Whitelist | Action::Blacklist => {
                let names = setting.value.split(' ').filter(|name| !name.is_empty()).map(str::to_owned).collect();
                let list = if action == Action::Whitelist { &mut self.allowed } else { &mut self.forbidden };
                *list = Some(names);
                self.settings.push(setting);
                Ok(())
            }
            Action::EndWhitelist | Action::EndBlacklist => {
                let list = if action == Action::EndWhitelist { &mut self.allowed } else { &mut self.forbidden };
                *list = None;
                self.settings.push(setting);
                Ok(())
            }
            Action::Set | Action::SetPlaceholder => {
                let (name, value) = setting.value.split_once('=').ok_or_else(|| problem("expected NAME=VALUE"))?;
                let given = Setting { name: name.into(), value: value.into(), origin: setting.origin.clone() };
                self.settings.push(setting.clone());
                if action == Action::Set {
                    return self.put(given);
                }
                if find(name).is_some() {
                    return Err(problem(&format!("expected a name that is no option: '{name}' is one, use set")));
                }
                self.findings.referenced.insert(name.into());
                self.settings.push(given);
                Ok(())
            }
            _ => {
                self.settings.push(setting);
                Ok(())
            }
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
        // `:section` is another section of the ini file that was read last, which need not be the one that says so.
        let path = match (&self.last_ini, origin) {
            (Some(last), _) if name.is_empty() && notation == Some(Notation::Ini) => last.clone(),
            (_, Origin::File { path, .. }) if name.is_empty() => path.clone(),
            _ => PathBuf::from(name),
        };
        let Some(notation) = notation.or_else(|| Notation::of(&path.to_string_lossy())) else {
            return Err(wrong(format!(
                "'{file}' is no configuration file: its name should end in .ini, .xml, .yaml, .yml, .json or .js"
            )));
        };
        let owned_only = self.depth == 0 && self.around.env.contains_key(OWNED_ONLY);
        let mut text = read(&path, origin, owned_only)?;
        if notation == Notation::Ini {
            self.last_ini = Some(path.clone());
        }
        if !(self.injected.0.is_empty() && self.injected.1.is_empty()) {
            let part = |file: &String| read(Path::new(file), origin, owned_only);
            let before = self.injected.0.iter().map(part).collect::<Result<String, _>>()?;
            let after = self.injected.1.iter().map(part).collect::<Result<String, _>>()?;
            text = before + &text + &after;
        }
        let at = |line| Origin::File { path: path.clone(), line };
        self.magic.enter(&path, name, section, &self.around);
        // What the file includes changes the magic, but not for the rest of the file.
        let magic = self.magic.clone();
        if notation == Notation::Ini && text.lines().any(|line| is_header(line) && line.contains('%')) {
            let header = |line: &str| if is_header(line) { magic.apply(line).0 } else { line.to_owned() };
            text = text.lines().map(header).collect::<Vec<_>>().join("\n");
        }
        let pairs = notation
            .read(&text, section)
            .map_err(|error| ConfigError::Syntax { origin: at(error.line), problem: error.problem })?;
        let outer = self.block.take();
        self.depth += 1;
        let mut last = at(1);
        for pair in pairs {
            last = at(pair.line);
            let (name, _) = magic.apply(&pair.key);
            let (value, unknown) = magic.apply(&pair.value);
            for character in unknown {
                self.warnings.push(format!(
                    "{last}: {name}: %{character} stands for nothing and is dropped (write %%{character} to keep it)"
                ));
            }
            self.add(Setting { name, value, origin: last.clone() })?;
        }
        self.close_block(&last);
        self.depth -= 1;
        self.block = outer;
        Ok(())
    }

    fn close_block(&mut self, last: &Origin) {
        if let Some(block) = self.block.take() {
            self.warnings.push(format!(
                "{last}: {} is open to the end: close it with end{}",
                block.opened_by,
                block.kind()
            ));
        }
    }

    fn expand(&mut self, value: &str, origin: &Origin) -> Result<String, ConfigError> {
        Expander::new(&self.settings, &self.around, &mut self.findings)
            .expand(value)
            .map_err(|problem| ConfigError::Syntax { origin: origin.clone(), problem })
    }

    fn expand_all(&mut self) -> Result<(), ConfigError> {
        let mut expanded = Vec::with_capacity(self.settings.len());
        for setting in &self.settings {
            self.findings.unresolved.clear();
            let value = Expander::new(&self.settings, &self.around, &mut self.findings)
                .for_shell(find(&setting.name).is_some_and(|row| row.is_for_shell))
                .expand(&setting.value)
                .map_err(|problem| ConfigError::BadValue {
                    origin: setting.origin.clone(),
                    option: setting.name.clone(),
                    problem,
                })?;
            // Only ours: the values of other programs' keys are theirs, log formats for one are full of %(…).
            if find(&setting.name).is_some() && !has_own_references(&setting.name) {
                for reference in self.findings.unresolved.drain(..) {
                    self.warnings.push(format!("{}: {}: {reference} stands for nothing", setting.origin, setting.name));
                }
            }
            expanded.push(Setting { value, ..setting.clone() });
        }
        self.settings = expanded;
        Ok(())
    }
}

/// Does this line of an ini file begin a section? Its name may have magic variables, as with uWSGI.
fn is_header(line: &str) -> bool {
    line.trim_start().starts_with('[')
}

fn logic_of(name: &str) -> Option<Logic> {
    match find(name)?.kind {
        Kind::Act(Action::Logic(logic)) => Some(logic),
        _ => None,
    }
}

/// The IPv4 address of a host.
fn address_of(host: &str) -> std::io::Result<String> {
    let mut found = (host, 0).to_socket_addrs()?.filter(SocketAddr::is_ipv4).map(|address| address.ip().to_string());
    found.next().ok_or_else(|| std::io::Error::other("it has no IPv4 address"))
}

/// Reads a file. With `owned_only` it must belong to this user or to root.
fn read(path: &Path, origin: &Origin, owned_only: bool) -> Result<String, ConfigError> {
    let read = if path == Path::new("-") {
        std::io::read_to_string(std::io::stdin())
    } else {
        std::fs::File::open(path).and_then(|file| {
            let owner = file.metadata()?.uid();
            if owned_only && owner != 0 && owner != geteuid().as_raw() {
                return Err(std::io::Error::other(format!(
                    "it belongs to user {owner} by now, and this vassal runs as user {}",
                    geteuid()
                )));
            }
            std::io::read_to_string(file)
        })
    };
    read.map_err(|failure| ConfigError::Read { origin: origin.clone(), path: path.to_owned(), failure })
}
