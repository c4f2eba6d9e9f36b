//! How the server is started: the command that was given as words, and the lines that replace uWSGI's in a systemd unit
//! and in nginx.

use std::ffi::OsString;
use std::path::Path;

use rwsgi_stats::Address;

use super::given::Given;
use crate::files::Notation;

/// How the server was started, taken apart.
pub(super) struct Start {
    /// How rwsgi was called.
    program: OsString,
    /// `NAME=VALUE` before the program.
    pub(super) environment: Vec<(String, String)>,
    /// What follows the program.
    words: Vec<OsString>,
}

impl Start {
    /// `None` when this asks for help.
    pub(super) fn of(program: &OsString, words: &[OsString]) -> Option<Self> {
        if words.is_empty() || words.iter().take(1).any(|word| word == "--help" || word == "-h") {
            return None;
        }
        // What stands before uWSGI in a command: variables, `exec`, `sudo -u www-data`.
        let before_options = words.iter().take_while(|word| !word.to_string_lossy().starts_with("--"));
        let (before, words) = match before_options.clone().position(is_uwsgi) {
            Some(place) => (&words[..place], &words[place + 1..]),
            None => (&words[..0], words),
        };
        let environment = before.iter().filter_map(|word| {
            let (name, value) = word.to_str()?.split_once('=')?;
            Some((name.to_owned(), value.to_owned()))
        });
        let words = match words {
            // uWSGI goes by the name's end, and so do we; a file of another name is most likely an ini file.
            [file] if !file.to_string_lossy().starts_with('-') && Notation::of(&file.to_string_lossy()).is_none() => {
                vec!["--ini".into(), file.clone()]
            }
            words => words.to_vec(),
        };
        Some(Self { program: program.clone(), environment: environment.collect(), words })
    }

    /// A command line of rwsgi's, the program first.
    pub(super) fn arguments(&self) -> impl Iterator<Item = OsString> {
        std::iter::once(self.program.clone()).chain(self.words.iter().cloned())
    }

    /// The same for a shell, with this program.
    fn command(&self, program: &str, quote: fn(&str) -> String) -> String {
        let words = self.words.iter().map(|word| quote(&word.to_string_lossy()));
        std::iter::once(program.to_owned()).chain(words).collect::<Vec<_>>().join(" ")
    }
}

/// Is this word a program that is uWSGI, as `/usr/bin/uwsgi_python3` is, and not a file of options?
fn is_uwsgi(word: &OsString) -> bool {
    let name = Path::new(word).file_name().map(|name| name.to_string_lossy().into_owned()).unwrap_or_default();
    ["uwsgi", "uwsgi-core", "pyuwsgi"].contains(&name.as_str())
        || name.strip_prefix("uwsgi_python").is_some_and(|rest| rest.chars().all(|c| c.is_ascii_digit() || c == '.'))
}

/// Headings, and the lines below them.
pub(super) fn sections(start: &Start, given: &Given<'_>) -> Vec<(&'static str, Vec<String>)> {
    let mut variables: Vec<String> =
        start.environment.iter().map(|(name, value)| format!("{name}={}", shell_quoted(value))).collect();
    variables.push(start.command("rwsgi", shell_quoted));
    let mut sections = vec![("COMMAND", vec![variables.join(" ")]), ("SYSTEMD, in [Service]", unit(start, given))];
    let nginx = nginx(given);
    if !nginx.is_empty() {
        sections.push(("NGINX, in its location", nginx));
    }
    sections
}

fn unit(start: &Start, given: &Given<'_>) -> Vec<String> {
    let program = start.program.to_string_lossy();
    // systemd wants the whole path, unless it can find the program itself.
    let program =
        if program.contains('/') { std::path::absolute(&*program).unwrap_or_default() } else { (&*program).into() };
    let mut lines = vec!["Type=notify".to_owned()];
    lines.extend(
        start
            .environment
            .iter()
            .map(|(name, value)| format!("Environment={}", unit_quoted(&format!("{name}={value}")))),
    );
    if let Ok(directory) = std::env::current_dir() {
        lines.push(format!("WorkingDirectory={}", directory.display()));
    }
    lines.push(format!("ExecStart={}", start.command(&unit_quoted(&program.to_string_lossy()), unit_quoted)));
    lines.push("ExecReload=/bin/kill -HUP $MAINPID".into());
    lines.push("KillMode=mixed".into());
    lines.push(format!("TimeoutStopSec={}", given.config.reload_mercy.saturating_add(10)));
    lines.push("Restart=on-failure".into());
    if given.has(&["daemonize", "daemonize2"]) {
        lines.push("# Take daemonize out of the configuration: systemd starts the server in the background.".into());
    }
    lines
}

/// What passes requests on to each socket.
fn nginx(given: &Given<'_>) -> Vec<String> {
    let mut lines = Vec::new();
    for address in &given.config.socket {
        lines.extend(["include uwsgi_params;".into(), format!("uwsgi_pass {};", upstream(address, given))]);
    }
    for address in given.config.http_socket.iter().chain(&given.config.http) {
        lines.extend([
            format!("proxy_pass http://{};", upstream(address, given)),
            "proxy_http_version 1.1;".into(),
            "proxy_set_header Connection \"\";".into(),
            "proxy_set_header Host $host;".into(),
            "proxy_set_header X-Forwarded-For $proxy_add_x_forwarded_for;".into(),
            "proxy_set_header X-Forwarded-Proto $scheme;".into(),
        ]);
    }
    lines
}

/// An address as nginx connects to it.
fn upstream(address: &Address, given: &Given<'_>) -> String {
    match address {
        Address::Tcp { host, port } => match host.as_str() {
            "" | "0.0.0.0" | "::" => format!("127.0.0.1:{port}"),
            host if host.contains(':') => format!("[{host}]:{port}"),
            host => format!("{host}:{port}"),
        },
        Address::Unix(path) => {
            let directory = given.config.chdir.clone().unwrap_or_default();
            let path = std::path::absolute(directory.join(path)).unwrap_or_else(|_| path.clone());
            format!("unix:{}", path.display())
        }
        Address::Abstract(name) => format!("unix:@{name} (nginx knows no abstract sockets: give socket a file's path)"),
    }
}

fn shell_quoted(word: &str) -> String {
    let is_plain = |c: char| c.is_ascii_alphanumeric() || "-_=./:,@%+".contains(c);
    match !word.is_empty() && word.chars().all(is_plain) {
        true => word.to_owned(),
        false => format!("'{}'", word.replace('\'', r"'\''")),
    }
}

/// systemd.service(5): double quotes, backslashes, and `%` and `$` doubled.
fn unit_quoted(word: &str) -> String {
    let doubled = word.replace('%', "%%").replace('$', "$$");
    let is_plain = |c: char| c.is_ascii_alphanumeric() || "-_=./:,@%+$".contains(c);
    match !word.is_empty() && word.chars().all(is_plain) {
        true => doubled,
        false => format!("\"{}\"", doubled.replace('\\', r"\\").replace('"', "\\\"")),
    }
}
