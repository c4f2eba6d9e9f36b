//! uWSGI's plugins, as far as a configuration asks for them.

/// uWSGI's plugins that are part of this server, or that it has no need of.
const BUILT_IN: [&str; 12] = [
    "python",
    "http",
    "corerouter",
    "cheaper_busyness",
    "spooler",
    "logfile",
    "rpc",
    "signal",
    "cache",
    "ping",
    "stats",
    "0",
];

pub(super) fn is_built_in(plugin: &str) -> bool {
    let name = plugin.trim().trim_end_matches("_plugin.so");
    BUILT_IN.contains(&name)
        || name.strip_prefix("python").is_some_and(|version| version.bytes().all(|b| b.is_ascii_digit()))
}
