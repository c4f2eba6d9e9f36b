//! Answers to scripts that ask the program something instead of serving: `--get`, `--dump-options`, `exit`,
//! `--connect-and-read`; and the text of `--show-config`.

use std::fmt::Write as _;

use rwsgi_stats::Address;

use super::options;
use super::row::{Action, Kind};
use super::setting::{Origin, Setting};
use super::{ConfigError, Invocation};

/// What the program is to do instead of serving, if these settings ask for something.
///
/// # Errors
/// When what is asked for cannot be.
pub(super) fn instead_of_serving(settings: &[Setting]) -> Result<Option<Invocation>, ConfigError> {
    if let Some(end) = settings.iter().position(|setting| setting.name == "exit") {
        let is_bare = settings[end].origin == Origin::CommandLine && settings[end].value.is_empty();
        let status = if is_bare { 1 } else { leading_digits(&settings[end].value) };
        let before = settings[..end].iter().filter(|setting| setting.name == "iprint");
        return Ok(Some(Invocation::Exit { text: lines(before.map(|setting| &*setting.value)), status }));
    }
    let asked = |wanted: Action| {
        // Elsewhere they are a mistake: a variable UWSGI_GET, say, is not to keep the server from serving.
        let given = settings.iter().filter(|setting| setting.origin == Origin::CommandLine);
        given.filter(move |setting| {
            options::find(&setting.name).is_some_and(|row| matches!(row.kind, Kind::Act(action) if action == wanted))
        })
    };
    if let Some(setting) = asked(Action::ConnectAndRead).next() {
        let address: Address =
            setting.value.parse().map_err(|error: rwsgi_stats::AddressError| ConfigError::BadValue {
                origin: Origin::CommandLine,
                option: "--connect-and-read".into(),
                problem: error.to_string(),
            })?;
        return Ok(Some(Invocation::Read(address)));
    }
    if asked(Action::DumpOptions).next().is_some() {
        return Ok(Some(Invocation::Print(lines(options::all().flat_map(|row| row.names.iter().copied())))));
    }
    let names: Vec<&str> = asked(Action::Get).map(|setting| setting.value.as_str()).collect();
    if names.is_empty() {
        return Ok(None);
    }
    // As with uWSGI the first of a name, and nothing for what has no value or is not there.
    let value = |name: &str| settings.iter().find(|setting| setting.name == name).filter(|setting| !is_bare(setting));
    Ok(Some(Invocation::Print(lines(names.into_iter().filter_map(value).map(|setting| &*setting.value)))))
}

/// Is this an option without a value on the command line?
pub(super) fn is_bare(setting: &Setting) -> bool {
    let takes_none = || options::find(&setting.name).is_none_or(|row| !row.takes_value());
    setting.origin == Origin::CommandLine && (setting.value.is_empty() || setting.value == "true" && takes_none())
}

/// What `--show-config` shows, as uWSGI does.
pub(super) fn configuration(settings: &[Setting]) -> String {
    let mut text = "\n;uWSGI instance configuration\n[uwsgi]\n".to_owned();
    for Setting { name, value, .. } in settings {
        let _ = writeln!(text, "{name} = {value}");
    }
    text + ";end of configuration\n\n"
}

fn lines<'a>(values: impl Iterator<Item = &'a str>) -> String {
    values.fold(String::new(), |text, value| text + value + "\n")
}

/// As C's atoi, within what an exit status can be.
fn leading_digits(value: &str) -> i32 {
    let digits: String = value.trim_start().chars().take_while(char::is_ascii_digit).collect();
    digits.parse::<i32>().unwrap_or(0) & 0xff
}

#[cfg(test)]
mod tests {
    use std::ffi::OsString;

    use crate::tests::{Files, error, serve};
    use crate::{Invocation, load};

    fn printed(line: &str) -> String {
        match load(line.split(' ').map(OsString::from)) {
            Ok(Invocation::Print(text)) => text,
            other => panic!("{line}: {other:?}"),
        }
    }

    #[test]
    fn a_value_is_printed_without_asking_whether_a_server_could_start() {
        assert_eq!(printed("rwsgi --set base=/x --set y=%(base)/z --get y --get base --get nothing"), "/x/z\n/x\n");
        assert_eq!(printed("rwsgi --master --get master"), "");
    }

    #[test]
    fn the_names_of_options_are_printed() {
        assert!(printed("rwsgi --dump-options").lines().any(|line| line == "processes"));
    }

    #[test]
    fn a_configuration_may_end_the_program() {
        let files =
            Files::new("exit", &[("a.ini", "[uwsgi]\nif-not-env = NO_SUCH\niprint = set it\nexit = 7\nendif =\n")]);
        for (line, wanted, said) in [("rwsgi a.ini", 7, "set it\n"), ("rwsgi --exit", 1, ""), ("rwsgi --exit=3", 3, "")]
        {
            match files.load(line) {
                Ok(Invocation::Exit { text, status }) => assert_eq!((status, text.as_str()), (wanted, said)),
                other => panic!("{other:?}"),
            }
        }
    }

    #[test]
    fn what_is_shown_is_every_option_in_its_order() {
        let config = serve("rwsgi --http :1 -w m --master --set x=1 --show-config --print hello");
        let lines: Vec<_> = config.announcements.configuration.lines().filter(|line| line.contains(" = ")).collect();
        assert_eq!(
            lines,
            ["http = :1", "module = m", "master = true", "set = x=1", "x = 1", "show-config = true", "print = hello"]
        );
        assert_eq!(config.announcements.lines, ["hello"]);
        assert_eq!(serve("rwsgi --http :1 -w m").announcements.configuration, "");
        assert!(error("rwsgi --connect-and-read :x").contains("is not an address"));
    }
}
