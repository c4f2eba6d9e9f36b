//! The options whose values have rules of their own: each reads its value into the configuration. An error is what was
//! expected, to follow that word.

use std::path::Path;

use nix::unistd::{Group, User};
use rwsgi_protocol::path::PathNormalize;

use rwsgi_stats::Shown;

use super::logic::matching;
use super::plugins::is_built_in;
use super::value::{flag, is_off, is_on, leading_number, mode, path, understood};
use super::{AppSource, CheaperAlgorithm, Config, Mount, Owner, RunAs, StaticMap};

type Outcome = Result<(), String>;

pub(super) fn protocol(config: &mut Config, value: &str) -> Outcome {
    config.socket_speaks_http = match value {
        "uwsgi" => false,
        "http" | "http11" => true,
        _ => return Err("uwsgi or http".into()),
    };
    Ok(())
}

/// The colon stays for now: whichever of `module` and `callable` comes first, the one after the colon wins.
pub(super) fn module(config: &mut Config, value: &str) -> Outcome {
    let (module, callable) = value.split_once(':').unwrap_or((value, "application"));
    if module.is_empty() || callable.is_empty() {
        return Err("a module's name, optionally with a colon and the callable's".into());
    }
    AppSource::Module(value.into()).choose(config);
    Ok(())
}

pub(super) fn wsgi_file(config: &mut Config, value: &str) -> Outcome {
    AppSource::File(path(value)?).choose(config);
    Ok(())
}

pub(super) fn callable(config: &mut Config, value: &str) -> Outcome {
    if value.is_empty() {
        return Err("the application's name in its module".into());
    }
    config.callable = value.into();
    Ok(())
}

pub(super) fn mount(config: &mut Config, value: &str) -> Outcome {
    let expected = || "/PREFIX=FILE.py or /PREFIX=MODULE:CALLABLE".to_owned();
    let (prefix, app) = value.split_once('=').ok_or_else(expected)?;
    let is_file = app.ends_with(".py") || app.ends_with(".wsgi");
    let (app, callable) = match app.split_once(':') {
        _ if app.ends_with(".ini") => (AppSource::Paste(app.into()), None),
        _ if is_file => (AppSource::File(app.into()), None),
        Some((module, callable)) if !module.is_empty() && !callable.is_empty() => {
            (AppSource::Module(module.into()), Some(callable.to_owned()))
        }
        _ => return Err(expected()),
    };
    let prefix = if prefix == "/" { "" } else { prefix };
    if !prefix.is_empty() && !prefix.starts_with('/') {
        return Err(expected());
    }
    config.mounts.push(Mount { prefix: prefix.into(), app, callable });
    Ok(())
}

/// As with uWSGI, a pattern stands for all that matches it, and is taken as it is when nothing does.
pub(super) fn pythonpath(config: &mut Config, value: &str) -> Outcome {
    let given = path(value)?;
    let found = matching(value).unwrap_or_default();
    match value.contains(['*', '?', '[']) && !found.is_empty() {
        true => config.pythonpath.extend(found.into_iter().map(Into::into)),
        false => config.pythonpath.push(given),
    }
    Ok(())
}

pub(super) fn env(config: &mut Config, value: &str) -> Outcome {
    match value.split_once('=') {
        Some((name, value)) if !name.is_empty() && !name.contains('\0') && !value.contains('\0') => {
            config.env.push((name.into(), value.into()));
            Ok(())
        }
        // That is what putenv() makes of it.
        None if !value.is_empty() && !value.contains('\0') => {
            config.unenv.push(value.into());
            understood(config, value, "a variable to take out of the environment: it has no '='");
            Ok(())
        }
        None if value.is_empty() => {
            understood(config, value, "nothing to set");
            Ok(())
        }
        _ => Err("NAME=VALUE".into()),
    }
}

/// As daemontools' envdir: a file's first line is the value of the variable that it is named after.
pub(super) fn envdir(config: &mut Config, value: &str) -> Outcome {
    let unreadable =
        |path: &Path, error: std::io::Error| format!("a directory of readable files ({}: {error})", path.display());
    let directory = Path::new(value);
    let entries = std::fs::read_dir(directory).map_err(|error| unreadable(directory, error))?;
    let mut variables = Vec::new();
    for entry in entries {
        let path = entry.map_err(|error| unreadable(directory, error))?.path();
        let Some(name) = path.file_name().and_then(|name| name.to_str()).filter(|name| !name.contains('=')) else {
            continue;
        };
        if name.starts_with('.') || !path.is_file() {
            continue;
        }
        let text = std::fs::read_to_string(&path).map_err(|error| unreadable(&path, error))?;
        // A NUL stands for a line end there, since a line end stands for the end.
        let line = text.lines().next().unwrap_or_default().trim_end().replace('\0', "\n");
        variables.push((name.to_owned(), line));
    }
    variables.sort_unstable();
    config.env.append(&mut variables);
    Ok(())
}

/// A plugin that is not there is no error, as with uWSGI.
pub(super) fn plugin(config: &mut Config, value: &str) -> Outcome {
    for missing in value.split(',').filter(|name| !is_built_in(name)) {
        config.lose(format!("there is no plugin '{}' here: what it does is lost", missing.trim()));
    }
    Ok(())
}

pub(super) fn need_plugin(_: &mut Config, value: &str) -> Outcome {
    match value.split(',').all(is_built_in) {
        true => Ok(()),
        false => Err("plugins of uWSGI that are built in here: no other can be loaded".into()),
    }
}

pub(super) fn procname_prefix(config: &mut Config, value: &str) -> Outcome {
    config.procname.auto = true;
    config.procname.prefix = value.into();
    Ok(())
}

pub(super) fn procname_prefix_spaced(config: &mut Config, value: &str) -> Outcome {
    procname_prefix(config, &format!("{value} "))
}

pub(super) fn procname_append(config: &mut Config, value: &str) -> Outcome {
    config.procname.auto = true;
    config.procname.append = value.into();
    Ok(())
}

pub(super) fn cheaper_algo(config: &mut Config, value: &str) -> Outcome {
    config.cheaper.algorithm = match value {
        // spare2 differs in how it smooths figures that are exact here.
        "spare" | "spare2" => CheaperAlgorithm::Spare,
        "backlog" => CheaperAlgorithm::Backlog,
        "busyness" => CheaperAlgorithm::Busyness,
        _ => return Err("spare, backlog or busyness".into()),
    };
    Ok(())
}

pub(super) fn path_normalize(config: &mut Config, value: &str) -> Outcome {
    config.path_normalize = match value {
        "keep" => PathNormalize::Keep,
        "nginx" => PathNormalize::Nginx,
        "reject" => PathNormalize::Reject,
        _ => return Err("keep, nginx or reject".into()),
    };
    Ok(())
}

pub(super) fn buffer_size(config: &mut Config, value: &str) -> Outcome {
    config.buffer_size = leading_number(config, value, &(1024..=1 << 30))?;
    Ok(())
}

/// 0 has uWSGI buffer nothing. Bodies are always buffered here, so that it asks for nothing.
pub(super) fn post_buffering(config: &mut Config, value: &str) -> Outcome {
    let bytes = leading_number(config, value, &(0..=1 << 40))?;
    config.post_buffering = if bytes == 0 { Config::default().post_buffering } else { bytes };
    Ok(())
}

/// uWSGI turns keep-alive on by a bare `http-keepalive` and takes seconds elsewhere; here it is always on, and a number
/// above 1 says for how long.
pub(super) fn http_keepalive(config: &mut Config, value: &str) -> Outcome {
    if is_off(value) {
        config.http_keepalive = 0;
    } else if !is_on(value) {
        config.http_keepalive = leading_number(config, value, &(0..=86_400))?;
    }
    Ok(())
}

/// A flag in uWSGI 2.0, a level in later ones.
pub(super) fn memory_report(config: &mut Config, value: &str) -> Outcome {
    config.memory_report = value == "2" || flag(config, value);
    Ok(())
}

pub(super) fn show_request(config: &mut Config, value: &str) -> Outcome {
    let known = Shown::WORDS.iter().find(|(word, _)| *word == value);
    let (_, shown) = known.ok_or("headers, queries or all")?;
    config.show_request = config.show_request.and(*shown);
    Ok(())
}

/// An origin is written as browsers send it: `https://host:port`.
pub(super) fn stats_http_cors(config: &mut Config, value: &str) -> Outcome {
    let is_host = |host: &str| !host.is_empty() && host.bytes().all(|byte| byte.is_ascii_graphic() && byte != b'/');
    let is_origin = value.split_once("://").is_some_and(|(scheme, host)| is_host(scheme) && is_host(host));
    if value != "*" && !is_origin {
        return Err("an origin, as https://host, or *".into());
    }
    config.stats_http_cors = Some(value.into());
    Ok(())
}

pub(super) fn static_map(config: &mut Config, value: &str) -> Outcome {
    match value.split_once('=') {
        Some((prefix, root)) if !root.is_empty() => {
            if !prefix.starts_with('/') {
                let advice = "it serves nothing, as with uWSGI: write /PREFIX=DIR";
                config.warnings.push(format!("no path of a request begins with '{prefix}': {advice}"));
            }
            config.static_map.push(StaticMap { prefix: prefix.into(), root: root.into() });
            Ok(())
        }
        _ => Err("/PREFIX=DIR".into()),
    }
}

/// With the prefix below the directory, as nginx's `root` has it.
pub(super) fn static_map2(config: &mut Config, value: &str) -> Outcome {
    static_map(config, value)?;
    if let Some(map) = config.static_map.last_mut() {
        map.root.push(map.prefix.trim_start_matches('/'));
    }
    Ok(())
}

/// A bare `chmod-socket`, or `1`, is everyone may connect.
pub(super) fn chmod_socket(config: &mut Config, value: &str) -> Outcome {
    config.chmod_socket = Some(if matches!(value, "" | "1" | "true") { 0o666 } else { mode(value)? });
    Ok(())
}

pub(super) fn chown_socket(config: &mut Config, value: &str) -> Outcome {
    let (user, group) = match value.split_once(':') {
        Some((user, group)) => (user, Some(group)),
        None => (value, None),
    };
    config.chown_socket = Some(Owner { uid: find_user(user)?.uid, gid: group.map(find_group).transpose()? });
    Ok(())
}

pub(super) fn uid(config: &mut Config, value: &str) -> Outcome {
    config.uid = Some(find_user(value)?);
    Ok(())
}

pub(super) fn gid(config: &mut Config, value: &str) -> Outcome {
    config.gid = Some(find_group(value)?);
    Ok(())
}

pub(super) fn add_gid(config: &mut Config, value: &str) -> Outcome {
    config.add_gid.push(find_group(value)?);
    Ok(())
}

fn find_user(value: &str) -> Result<RunAs, String> {
    if let Ok(uid) = value.parse() {
        let name = User::from_uid(nix::unistd::Uid::from_raw(uid)).ok().flatten().map(|user| user.name);
        return Ok(RunAs { uid, name });
    }
    match User::from_name(value) {
        Ok(Some(user)) => Ok(RunAs { uid: user.uid.as_raw(), name: Some(user.name) }),
        _ => Err("the name or number of a user on this machine".into()),
    }
}

fn find_group(value: &str) -> Result<u32, String> {
    if let Ok(gid) = value.parse() {
        return Ok(gid);
    }
    match Group::from_name(value) {
        Ok(Some(group)) => Ok(group.gid.as_raw()),
        _ => Err("the name or number of a group on this machine".into()),
    }
}
