//! Programs that the server starts, watches and stops: `attach-daemon` and the like.

use std::path::PathBuf;

use serde::{Deserialize, Serialize};

use super::Config;
use super::keyval::items;
use super::row::OTHER;
use super::row::{Group, Kind, Row};
use super::value::{is_off, leading_number};

type Outcome = Result<(), String>;

/// After so many looks, a second apart, a program that writes its own pidfile is expected to have written it.
const FREQUENCY: u32 = 10;
const SIGTERM: i32 = 15;

/// The programs, and what is true of all of them.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct DaemonsConfig {
    /// In the order in which they are started.
    pub programs: Vec<DaemonConfig>,
    /// `--daemons-honour-stdin`: they read from the server's standard input, not from `/dev/null`.
    pub honour_stdin: bool,
}

/// A program that the server starts, watches and stops.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct DaemonConfig {
    /// For `/bin/sh -c`.
    pub command: String,
    /// It is known by this file, goes on when the server ends or is reloaded, and is found again by it.
    pub pidfile: Option<PathBuf>,
    /// The server writes the pidfile, since the program does not go to the background by itself.
    pub daemonize: bool,
    /// How often its pidfile is looked for, once a second, before it counts as not started.
    pub frequency: u32,
    /// The server stops when it ends.
    pub control: bool,
    /// The signal that ends it; 0 for none.
    pub stop_signal: i32,
    /// The signal that ends it for a reload, when it is another; 0 for none.
    pub reload_signal: i32,
    /// Files whose change sends it the stop signal.
    pub touch: Vec<PathBuf>,
    /// It reads from the server's standard input, not from `/dev/null`.
    pub honour_stdin: bool,
    /// The user that it runs as; `None` for the server's.
    pub uid: Option<u32>,
    /// The group that it runs as; `None` for the server's.
    pub gid: Option<u32>,
    /// Where it runs; `None` for where the server does.
    pub chdir: Option<PathBuf>,
    /// The longest delay before it is started again, seconds.
    pub max_throttle: Option<u32>,
    /// One that is known by its pidfile is sent a signal too when the server stops or is reloaded.
    pub notify: bool,
}

impl DaemonConfig {
    fn new(command: &str) -> Self {
        Self {
            command: command.to_owned(),
            pidfile: None,
            daemonize: false,
            frequency: FREQUENCY,
            control: false,
            stop_signal: SIGTERM,
            reload_signal: 0,
            touch: Vec::new(),
            honour_stdin: false,
            uid: None,
            gid: None,
            chdir: None,
            max_throttle: None,
            notify: false,
        }
    }
}

const DAEMONS: Row = Row { group: Group::Daemons, repeats: true, is_for_shell: true, ..OTHER };

#[rustfmt::skip]
pub(crate) static ROWS: &[Row] = &[
    Row { names: &["attach-daemon"], kind: Kind::Custom(attach), takes: "COMMAND",
          help: "Run this command beside the server, start it again when it ends, and stop it with the server", ..DAEMONS },
    Row { names: &["attach-daemon2"], kind: Kind::Custom(attach2), takes: "cmd=COMMAND[,KEY=VALUE…]",
          help: "The same with pidfile, daemonize, freq, control, stopsignal, reloadsignal, touch, stdin, uid, gid, chdir, max_throttle and notifypid", ..DAEMONS },
    Row { names: &["attach-control-daemon"], kind: Kind::Custom(attach_control), takes: "COMMAND",
          help: "As attach-daemon, and the server stops when the command ends", ..DAEMONS },
    Row { names: &["smart-attach-daemon"], kind: Kind::Custom(attach_smart), takes: "PIDFILE[,LOOKS] COMMAND",
          help: "Run a command that goes to the background and writes this pidfile, unless it runs already; it outlives the server", ..DAEMONS },
    Row { names: &["smart-attach-daemon2"], kind: Kind::Custom(attach_smart2), takes: "PIDFILE[,LOOKS] COMMAND",
          help: "The same for a command that stays in the foreground: the server writes the pidfile", ..DAEMONS },
    Row { names: &["daemons-honour-stdin"], kind: Kind::Flag(|c| &mut c.daemons.honour_stdin), repeats: false, is_for_shell: false,
          help: "Let these programs read the server's standard input instead of /dev/null", ..DAEMONS },
];

fn attach(config: &mut Config, value: &str) -> Outcome {
    config.daemons.programs.push(DaemonConfig::new(command(value)?));
    Ok(())
}

fn attach_control(config: &mut Config, value: &str) -> Outcome {
    config.daemons.programs.push(DaemonConfig { control: true, ..DaemonConfig::new(command(value)?) });
    Ok(())
}

fn attach_smart(config: &mut Config, value: &str) -> Outcome {
    smart(config, value, false)
}

fn attach_smart2(config: &mut Config, value: &str) -> Outcome {
    smart(config, value, true)
}

fn smart(config: &mut Config, value: &str, daemonize: bool) -> Outcome {
    let (pidfile, rest) = value.split_once(' ').ok_or("a pidfile, a space and a command")?;
    let (pidfile, looks) = pidfile.split_once(',').unwrap_or((pidfile, ""));
    let frequency = if looks.is_empty() { FREQUENCY } else { leading_number(config, looks, &(0..=86_400))? };
    let pidfile = Some(super::value::path(pidfile)?);
    config.daemons.programs.push(DaemonConfig { pidfile, daemonize, frequency, ..DaemonConfig::new(command(rest)?) });
    Ok(())
}

fn command(value: &str) -> Result<&str, String> {
    if value.trim().is_empty() { Err("a command".into()) } else { Ok(value) }
}

fn attach2(config: &mut Config, value: &str) -> Outcome {
    let mut daemon = DaemonConfig::new("");
    for (key, value) in items(value) {
        let Some(value) = value else {
            let advice = "write a comma of the command as '\\,'";
            config.warnings.push(format!("'{key}' has no effect, for it is no KEY=VALUE: {advice}"));
            continue;
        };
        match key.as_str() {
            "command" | "cmd" | "exec" => daemon.command = value,
            "pidfile" => daemon.pidfile = Some(super::value::path(&value)?),
            "freq" => daemon.frequency = leading_number(config, &value, &(0..=86_400))?,
            "stopsignal" | "stop_signal" => daemon.stop_signal = signal(config, &value)?,
            "reloadsignal" | "reload_signal" => daemon.reload_signal = signal(config, &value)?,
            "touch" => daemon.touch = value.split(';').filter(|path| !path.is_empty()).map(PathBuf::from).collect(),
            "uid" => daemon.uid = id(config, &key, &value)?,
            "gid" => daemon.gid = id(config, &key, &value)?,
            "chdir" => daemon.chdir = Some(super::value::path(&value)?),
            "max_throttle" => {
                daemon.max_throttle = Some(leading_number(config, &value, &(0..=86_400))?).filter(|most| *most > 0);
            }
            // That they are there is enough.
            "control" | "daemonize" | "daemon" | "stdin" | "notifypid" => {
                let flag = match key.as_str() {
                    "control" => &mut daemon.control,
                    "stdin" => &mut daemon.honour_stdin,
                    "notifypid" => &mut daemon.notify,
                    _ => &mut daemon.daemonize,
                };
                *flag = true;
                if is_off(&value) {
                    config.warnings.push(format!("'{key}={value}' is read as yes, as uWSGI does: leave it out for no"));
                }
            }
            "ns_pid" => config.lose(
                "ns_pid has no effect: the program sees the processes of the whole system; its group of processes is \
                 ended with it"
                    .into(),
            ),
            _ => config.warnings.push(format!("there is no key '{key}': it has no effect")),
        }
    }
    command(&daemon.command).map_err(|_| "a command, as in cmd=COMMAND".to_owned())?;
    if daemon.daemonize && daemon.pidfile.is_none() {
        return Err("pidfile=FILE together with daemonize".into());
    }
    config.daemons.programs.push(daemon);
    Ok(())
}

/// uWSGI knows numbers alone, and sends no signal for a name.
fn signal(config: &mut Config, value: &str) -> Result<i32, String> {
    let name = format!("SIG{}", value.trim_start_matches("SIG"));
    match name.parse::<nix::sys::signal::Signal>() {
        Ok(signal) => Ok(signal as i32),
        Err(_) => Ok(leading_number(config, value, &(0..=64_u32))? as i32),
    }
}

/// A number; 0 changes nothing, and so does a name.
fn id(config: &mut Config, key: &str, value: &str) -> Result<Option<u32>, String> {
    if !value.starts_with(|first: char| first.is_ascii_digit()) {
        let advice = "the program runs as who the server is: write a number";
        config.warnings.push(format!("'{key}={value}' is no number, and has no effect, as in uWSGI: {advice}"));
        return Ok(None);
    }
    Ok(Some(leading_number(config, value, &(0..=u32::MAX))?).filter(|id| *id > 0))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(read: fn(&mut Config, &str) -> Outcome, value: &str) -> (DaemonConfig, Vec<String>) {
        let mut config = Config::default();
        read(&mut config, value).unwrap();
        (config.daemons.programs.remove(0), config.warnings)
    }

    #[test]
    fn each_option_is_read_as_in_uwsgi() {
        assert_eq!(read(attach, "sleep 9, 8").0.command, "sleep 9, 8");
        let (smart, _) = read(attach_smart2, "/run/x.pid,3 redis-server  --port 1");
        assert_eq!((smart.command.as_str(), smart.frequency, smart.daemonize), ("redis-server  --port 1", 3, true));
        assert_eq!(smart.pidfile, Some("/run/x.pid".into()));
        let (all, warnings) = read(
            attach2,
            r"cmd=a --b\,c x=y,freq=4,touch=/a;/b,stopsignal=2,reload_signal=HUP,control=1,daemon=1,pidfile=p,uid=5,gid=0",
        );
        assert_eq!(all.command, "a --b,c x=y");
        assert_eq!((all.frequency, all.stop_signal, all.reload_signal), (4, 2, 1));
        assert_eq!(all.touch, [PathBuf::from("/a"), "/b".into()]);
        assert_eq!((all.control, all.daemonize, all.uid, all.gid), (true, true, Some(5), None));
        assert!(warnings.is_empty(), "{warnings:?}");
    }

    #[test]
    fn what_has_no_effect_is_said() {
        for (value, said) in [
            ("cmd=a,b", "'b' has no effect"),
            ("cmd=a,uid=redis", "no number"),
            ("cmd=a,nice=4", "no key 'nice'"),
            ("cmd=a,control=0", "leave it out"),
            ("cmd=a,ns_pid=1", "ns_pid"),
        ] {
            let (_, warnings) = read(attach2, value);
            assert!(warnings[0].contains(said), "{warnings:?}");
        }
        for wrong in ["freq=1", "cmd=", "cmd=a,daemonize=1"] {
            assert!(attach2(&mut Config::default(), wrong).is_err(), "{wrong}");
        }
        assert!(attach_smart(&mut Config::default(), "/run/x.pid").is_err());
        assert!(attach(&mut Config::default(), " ").is_err());
    }
}
