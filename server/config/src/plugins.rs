//! uWSGI's plugins, as far as a configuration asks for them.

/// The plugins of uWSGI 2.0 that serve no requests in another language (php, psgi, rack do). Some have no counterpart here:
/// their options say so.
const BUILT_IN: [&str; 40] = [
    "alarm_curl",
    "alarm_speech",
    "alarm_xmpp",
    "asyncio",
    "cache",
    "carbon",
    "cheaper_backlog2",
    "cheaper_busyness",
    "corerouter",
    "curl_cron",
    "dogstatsd",
    "dumbloop",
    "echo",
    "fastrouter",
    "geoip",
    "gevent",
    "greenlet",
    "http",
    "ldap",
    "logfile",
    "logger",
    "logpipe",
    "logsocket",
    "mongodblog",
    "msgpack",
    "nagios",
    "ping",
    "python",
    "rawrouter",
    "redislog",
    "rpc",
    "rrdtool",
    "rsyslog",
    "signal",
    "spooler",
    "sslrouter",
    "symcall",
    "syslog",
    "ugreen",
    "zergpool",
];

/// Beginnings of the names of more such plugins.
const PREFIXES: [&str; 5] = ["emperor_", "router_", "stats_pusher_", "transformation_", "tornado"];

/// Whether it is one of them, however it is spelled: `/usr/lib/uwsgi/python3_plugin.so`, `0:python`, `python39`,
/// `gevent_python3`, `python # comment`.
pub(super) fn is_built_in(plugin: &str) -> bool {
    let word = plugin.split_whitespace().next().unwrap_or_default();
    let file = word.rsplit('/').next().unwrap_or_default();
    let (modifier, name) = file.split_once(':').unwrap_or(("", file));
    if !modifier.bytes().all(|byte| byte.is_ascii_digit()) {
        return false;
    }
    let name = name.trim_end_matches(".so").trim_end_matches("_plugin");
    if name.is_empty() || name.bytes().all(|byte| byte.is_ascii_digit()) {
        return true;
    }
    // The version of the Python that a plugin was built for.
    let plain = name.trim_end_matches(|c: char| c.is_ascii_digit() || c == '.').trim_end_matches("_python");
    BUILT_IN.contains(&name) || BUILT_IN.contains(&plain) || PREFIXES.iter().any(|prefix| name.starts_with(prefix))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_plugin_is_known_by_any_spelling() {
        for spelling in [
            "python",
            "python3",
            " python39",
            "python3.11",
            "0:python",
            "0",
            "/usr/lib/uwsgi/python3",
            "python3_plugin.so",
            "/usr/lib/uwsgi/plugins/python39_plugin.so",
            "python # or python2",
            "gevent",
            "gevent_python",
            "gevent3",
            "gevent_python3",
            "asyncio_python39",
            "syslog",
            "logsocket",
            "router_redirect",
            "stats_pusher_statsd",
            "transformation_gzip",
            "cheaper_backlog2",
            "",
        ] {
            assert!(is_built_in(spelling), "{spelling}");
        }
        for other in ["php", "psgi", "rack", "sentry", "pythonista", "x:python", "jvm"] {
            assert!(!is_built_in(other), "{other}");
        }
    }
}
