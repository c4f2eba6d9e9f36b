//! From command lines and files to the configuration, and to the line that says what is wrong with them.

mod gathering;
mod guides;

use std::ffi::OsString;
use std::path::PathBuf;

use proptest::prelude::*;

use super::options;
use super::row::Group;
use super::settle::somaxconn;
use super::*;
use rwsgi_stats::{Address, Shown};

/// A directory of files that goes when the test ends.
pub(crate) struct Files(PathBuf);

impl Files {
    pub(crate) fn new(test: &str, files: &[(&str, &str)]) -> Self {
        let dir = std::env::temp_dir().join(format!("rwsgi-config-{}-{test}", std::process::id()));
        std::fs::create_dir_all(&dir).unwrap();
        for (name, text) in files {
            std::fs::write(dir.join(name), text).unwrap();
        }
        Self(dir)
    }

    /// The command line, each word that ends in `.ini` (or names a section of one) taken from the directory.
    pub(crate) fn load(&self, line: &str) -> Result<Invocation, ConfigError> {
        let word = |word: &str| {
            if word.contains(".ini") { self.0.join(word).into_os_string() } else { OsString::from(word) }
        };
        load(line.split_whitespace().map(word))
    }

    fn serve(&self, line: &str) -> Config {
        match self.load(line) {
            Ok(Invocation::Serve(config)) => *config,
            other => panic!("{line}: {other:?}"),
        }
    }
}

impl Drop for Files {
    fn drop(&mut self) {
        let _ = std::fs::remove_dir_all(&self.0);
    }
}

pub(crate) fn serve(line: &str) -> Config {
    match load(line.split_whitespace().map(OsString::from)) {
        Ok(Invocation::Serve(config)) => *config,
        other => panic!("{line}: {other:?}"),
    }
}

pub(crate) fn error(line: &str) -> String {
    load(line.split_whitespace().map(OsString::from)).unwrap_err().to_string()
}

fn address(text: &str) -> Address {
    text.parse().unwrap()
}

#[test]
fn the_commands_that_people_know_mean_what_they_meant() {
    let config =
        serve("rwsgi --http :9090 --wsgi-file foobar.py --master --processes 4 --threads 2 --stats 127.0.0.1:9191");
    assert_eq!(config.http, [address(":9090")]);
    assert_eq!(config.app, AppSource::File("foobar.py".into()));
    assert_eq!((config.processes, config.threads), (4, 2));
    assert_eq!(config.stats, [address("127.0.0.1:9191")]);
    assert_eq!(config.warnings, [""; 0]);

    let config = serve("rwsgi --socket 127.0.0.1:3031 --wsgi-file myflaskapp.py --callable app -p 4");
    assert_eq!(config.socket, [address("127.0.0.1:3031")]);
    assert_eq!(config.callable, "app");

    let config = serve("rwsgi --uwsgi 0.0.0.0:8000 --chdir /opt/mysite --home /opt/venv --module mysite.wsgi");
    assert_eq!(config.socket, [address("0.0.0.0:8000")]);
    assert_eq!(config.app, AppSource::Module("mysite.wsgi".into()));
    assert_eq!(config.callable, "application");
    assert_eq!(config.chdir, Some("/opt/mysite".into()));
    assert_eq!(config.home, Some("/opt/venv".into()));
}

#[test]
fn the_callable_after_the_colon_wins_whatever_the_order() {
    for line in ["--module m.wsgi:app --callable other", "--callable other --module m.wsgi:app"] {
        let config = serve(&format!("rwsgi --http :9090 {line}"));
        assert_eq!((config.app, config.callable), (AppSource::Module("m.wsgi".into()), "app".into()), "{line}");
    }
}

#[test]
fn sockets_and_paths_add_up_and_the_last_of_anything_else_wins() {
    let config = serve(
        "rwsgi --http :1 --http :2 --http-socket :3 -s /a.sock -s @b -w m --pp /x --pythonpath /y -p 2 --workers 3",
    );
    assert_eq!(config.http, [address(":1"), address(":2")]);
    assert_eq!(config.http_socket, [address(":3")]);
    assert_eq!(config.socket, [address("/a.sock"), address("@b")]);
    assert_eq!(config.pythonpath, [PathBuf::from("/x"), PathBuf::from("/y")]);
    assert_eq!(config.processes, 3);
}

#[test]
fn what_cannot_be_is_one_line_that_names_the_option_and_what_it_got() {
    for (line, expected) in [
        (
            "--http :1 -w m --processes four",
            "command line: --processes: expected a whole number from 1 to 10000, or auto, got 'four'",
        ),
        (
            "--http :1 -w m --processes -3",
            "command line: --processes: expected a whole number from 1 to 10000, or auto, got '-3'",
        ),
        ("--http :1 -w m --proceses 4", "command line: there is no option '--proceses'; did you mean '--processes'?"),
        ("--http :1 -w m --qqqqqqq", "command line: there is no option '--qqqqqqq'"),
        ("--http :1 -w m --processes", "command line: --processes <N|auto> needs a value"),
        ("--http :1 -w m --stats-http=yes", "command line: --stats-http takes no value"),
        (
            "--http :1 -w m --show-request cookies",
            "command line: --show-request: expected headers, queries or all, got 'cookies'",
        ),
        (
            "--http :1 -w m --stats-http-cors example.org",
            "command line: --stats-http-cors: expected an origin, as https://host, or *, got 'example.org'",
        ),
        (
            "--http :x -w m",
            "command line: --http: ':x' is not an address (the port is not a number from 0 to 65535): expected host:port, :port, [ipv6]:port, /path/to.sock or @abstract",
        ),
        (
            "--http :1 -w :app",
            "command line: --module: expected a module's name, optionally with a colon and the callable's, got ':app'",
        ),
        ("--http :1", "no application to serve: give --module MODULE[:CALLABLE] or --wsgi-file FILE"),
        (
            "-w m",
            "no address to serve on: give --http ADDRESS (as in --http :9090), --http-socket ADDRESS behind a proxy, or --socket ADDRESS for uwsgi_pass",
        ),
        (
            "-w m --mules 2",
            "no address to serve on: give --http ADDRESS (as in --http :9090), --http-socket ADDRESS behind a proxy, or --socket ADDRESS for uwsgi_pass",
        ),
        ("--ini /nowhere/a.ini", "command line: cannot read /nowhere/a.ini: No such file or directory (os error 2)"),
        (
            "a.cfg",
            "command line: 'a.cfg' is no configuration file: its name should end in .ini, .xml, .yaml, .yml, .json or .js",
        ),
    ] {
        let message = error(&format!("rwsgi {line}"));
        assert_eq!(message, expected, "{line}");
    }
}

#[test]
fn without_a_socket_there_are_no_workers_beside_what_else_runs() {
    for beside in ["--attach-daemon top", "--spooler /tmp", "--spooler /tmp --mules 2 -w m"] {
        let config = serve(&format!("rwsgi {beside} --processes 4 --cheaper 1 --need-app"));
        assert_eq!((config.processes, config.cheaper.workers), (0, None), "{beside}");
        assert!(config.warnings.is_empty(), "{:?}", config.warnings);
    }
    assert_eq!(serve("rwsgi --http :1 --attach-daemon top").processes, 1);
}

#[test]
fn what_is_shown_of_requests_adds_up() {
    let shown = |line: &str| serve(&format!("rwsgi --http :1 -w m {line}")).show_request;
    assert_eq!(shown(""), Shown { headers: false, queries: false });
    assert_eq!(shown("--show-request queries"), Shown { headers: false, queries: true });
    assert_eq!(shown("--show-request queries --show-request headers"), Shown::ALL);
    assert_eq!(shown("--show-request all"), Shown::ALL);
}

#[test]
fn a_file_says_the_same_as_the_command_line() {
    let files = Files::new(
        "says_the_same",
        &[(
            "a.ini",
            "# comment\n; comment\n[other]\nprocesses = 9\n[uwsgi]\nhttp = :9090\nhttp=:9091\n  wsgi-file = foobar.py  \n\
             memory-report = true\ndisable-logging = False\nstats-http\nmaster = true\nprocesses = 2\n[rwsgi]\nthreads = 3",
        )],
    );
    for line in ["rwsgi a.ini", "rwsgi --ini a.ini"] {
        let config = files.serve(line);
        assert_eq!(config.http, [address(":9090"), address(":9091")]);
        assert_eq!(config.app, AppSource::File("foobar.py".into()));
        assert!(config.memory_report && !config.disable_logging && config.stats_http);
        assert_eq!((config.processes, config.threads), (2, 3));
    }
    // As uWSGI: an option after --ini wins over the file, and a file that stands alone comes after the options.
    assert_eq!(files.serve("rwsgi --ini a.ini --processes 5").processes, 5);
    assert_eq!(files.serve("rwsgi a.ini --processes 5").processes, 2);
    assert_eq!(files.serve("rwsgi --http :1 -w m a.ini:other").processes, 9);
}

#[test]
fn a_file_includes_another_or_a_section_of_its_own() {
    let files =
        Files::new("includes", &[("a.ini", "[uwsgi]\nini = :base\nmodule = m\n[base]\nhttp = :1\nprocesses = 7\n")]);
    assert_eq!(files.serve("rwsgi a.ini").processes, 7);
    let files = Files::new("circle", &[("b.ini", "[uwsgi]\nini = :uwsgi\n")]);
    assert!(files.load("rwsgi b.ini").unwrap_err().to_string().contains("b.ini:2: ':uwsgi' includes itself"));
}

#[test]
fn what_is_wrong_in_a_file_is_said_with_its_line() {
    for (text, expected) in [
        (
            "[uwsgi]\n\nprocesses = four\n",
            ":3: processes: expected a whole number from 1 to 10000, or auto, got 'four'",
        ),
        ("[uwsgi\n", ":1: '[uwsgi' is no section header: it does not end with ']'"),
        ("[uwsgi]\n= 4\n", ":2: '= 4' has no key before its '='"),
        ("[app]\n[b]\n", ":1: there is no section 'uwsgi' (there is: [app], [b])"),
        ("", ":1: there is no section 'uwsgi' (there is: none)"),
    ] {
        let files = Files::new("wrong", &[("a.ini", text)]);
        let message = files.load("rwsgi --http :1 -w m a.ini").unwrap_err().to_string();
        assert!(message.ends_with(&format!("a.ini{expected}")), "{text}: {message}");
    }
}

#[test]
fn a_key_that_nothing_knows_is_warned_of_with_the_nearest_name() {
    let files = Files::new("unknown", &[("a.ini", "[uwsgi]\nhttp = :1\nmodule = m\nproceses = 4\n")]);
    let warnings = files.serve("rwsgi a.ini").warnings;
    assert_eq!(warnings.len(), 1, "{warnings:?}");
    assert!(warnings[0].ends_with("a.ini:4: there is no option 'proceses'; did you mean 'processes'?"), "{warnings:?}");
}

#[test]
fn what_makes_no_sense_together_is_refused() {
    for (line, expected) in [
        ("--cheaper 10 -p 8", "cheaper must be lower than processes: it is 10, and processes is 8"),
        ("--cheaper 8 --workers 8", "cheaper must be lower than processes: it is 8, and processes is 8"),
        (
            "--max-worker-lifetime 5 --min-worker-lifetime 10",
            "min-worker-lifetime must be lower than max-worker-lifetime: they are 10 and 5 seconds",
        ),
    ] {
        assert_eq!(error(&format!("rwsgi --http :1 -w m {line}")), expected);
    }
    let config = serve("rwsgi --http :1 -w m --cheaper 2 -p 4 --cheaper-initial 9");
    assert_eq!((config.cheaper.workers, config.cheaper.initial), (Some(2), Some(4)));
    assert!(config.warnings.iter().any(|warning| warning.starts_with("cheaper-initial is 9")), "{:?}", config.warnings);
}

#[test]
fn values_with_rules_of_their_own_are_read() {
    type Field = fn(&Config) -> String;
    for (option, field, expected) in [
        ("--chmod-socket=664", (|c| format!("{:?}", c.chmod_socket)) as Field, "Some(436)"),
        ("-C", |c| format!("{:?}", c.chmod_socket), "Some(438)"),
        ("-C660", |c| format!("{:?}", c.chmod_socket), "Some(432)"),
        ("--chown-socket 0:0", |c| format!("{:?}", c.chown_socket), "Some(Owner { uid: 0, gid: Some(0) })"),
        ("--uid root", |c| format!("{:?}", c.uid), "Some(RunAs { uid: 0, name: Some(\"root\") })"),
        ("--uid 4242424", |c| format!("{:?}", c.uid), "Some(RunAs { uid: 4242424, name: None })"),
        ("--gid root", |c| format!("{:?}", c.gid), "Some(0)"),
        ("--umask 022", |c| format!("{:?}", c.umask), "Some(18)"),
        ("--harakiri 60", |c| format!("{:?}", c.harakiri), "Some(60)"),
        ("--harakiri 0", |c| format!("{:?}", c.harakiri), "None"),
        ("--reload-on-rss 100", |c| format!("{:?}", c.reload_on_rss), "Some(104857600)"),
        ("--reload-on-as 0.5", |c| format!("{:?}", c.reload_on_as), "Some(524288)"),
        ("--http-keepalive", |c| c.http_keepalive.to_string(), "60"),
        ("--http-keepalive=5", |c| c.http_keepalive.to_string(), "5"),
        ("--env A=b=c --env D=", |c| format!("{:?}", c.env), "[(\"A\", \"b=c\"), (\"D\", \"\")]"),
        ("--static-map /s=/srv", |c| format!("{:?}", c.static_map), "[StaticMap { prefix: \"/s\", root: \"/srv\" }]"),
        (
            "--mount /a/=b.py",
            |c| format!("{:?}", c.mounts),
            "[Mount { prefix: \"/a/\", app: File(\"b.py\"), callable: None }]",
        ),
        ("--procname-prefix-spaced ax", |c| format!("{}{:?}", c.procname.auto, c.procname.prefix), "true\"ax \""),
        ("--cheaper-algo busyness", |c| format!("{:?}", c.cheaper.algorithm), "Busyness"),
        ("--plugins python3,http", |c| c.processes.to_string(), "1"),
    ] {
        let config = serve(&format!("rwsgi --http :1 -w m {option}"));
        assert_eq!(field(&config), expected, "{option}");
    }
}

#[test]
fn values_against_those_rules_are_refused() {
    for (option, expected) in [
        ("--chmod-socket=9", "--chmod-socket: expected three octal digits, as in 660, got '9'"),
        ("--uid no-such", "--uid: expected the name or number of a user on this machine, got 'no-such'"),
        (
            "--chown-socket root:no-such",
            "--chown-socket: expected the name or number of a group on this machine, got 'root:no-such'",
        ),
        ("--reload-on-rss -1", "--reload-on-rss: expected megabytes, as in 512 or 0.5, got '-1'"),
        ("--env =A", "--env: expected NAME=VALUE, got '=A'"),
        ("--mount /a=b", "--mount: expected /PREFIX=FILE.py or /PREFIX=MODULE:CALLABLE, got '/a=b'"),
        ("--cheaper-algo magic", "--cheaper-algo: expected spare, backlog or busyness, got 'magic'"),
    ] {
        assert_eq!(error(&format!("rwsgi --http :1 -w m {option}")), format!("command line: {expected}"));
    }
    assert!(error("rwsgi --http :1 -w m --need-plugin php").contains("--need-plugin: expected plugins of uWSGI"));
}

#[test]
fn values_are_read_as_uwsgi_reads_them_and_a_warning_says_what_was_understood() {
    for (line, value, expected, warning) in [
        (
            "harakiri = 60 ; seconds",
            (|c| format!("{:?}", c.harakiri)) as fn(&Config) -> String,
            "Some(60)",
            "'60 ; seconds' is read as 60",
        ),
        ("harakiri = 30s", |c| format!("{:?}", c.harakiri), "Some(30)", "'30s' is read as 30"),
        ("harakiri = true", |c| format!("{:?}", c.harakiri), "None", "'true' is read as 0"),
        ("harakiri =", |c| format!("{:?}", c.harakiri), "None", "'' is read as 0"),
        ("processes = 2 # cores", |c| c.processes.to_string(), "2", "'2 # cores' is read as 2"),
        ("processes = 0", |c| c.processes.to_string(), "1", "'0' is out of range: 1 is used"),
        ("threads = 99999", |c| c.threads.to_string(), "10000", "'99999' is out of range: 10000 is used"),
        ("limit-post = 10M", |c| c.limit_post.to_string(), "10", "'10M' is read as 10"),
        ("max-requests = 5000 ; then restart", |c| c.max_requests.to_string(), "5000", "is read as 5000"),
        ("reload-on-rss = 200M", |c| format!("{:?}", c.reload_on_rss), "Some(209715200)", "'200M' is read as 200"),
        ("post-buffering = true", |c| c.post_buffering.to_string(), "1048576", "'true' is read as 0"),
        ("post-buffering = 0", |c| c.post_buffering.to_string(), "1048576", ""),
        ("http-timeout = 3600000", |c| c.http_timeout.to_string(), "3600000", ""),
        ("socket-timeout = 0", |c| c.socket_timeout.to_string(), "1", "'0' is out of range: 1 is used"),
        ("reload-mercy = 0", |c| c.reload_mercy.to_string(), "0", ""),
        ("umask = 022 # group", |c| format!("{:?}", c.umask), "Some(18)", "is read as 022"),
        ("vacuum = true      ; Delete sockets", |c| c.vacuum.to_string(), "true", "is read as true: only false, off"),
        ("vacuum = flase", |c| c.vacuum.to_string(), "true", "'flase' is read as true"),
        ("vacuum = false ; keep them", |c| c.vacuum.to_string(), "true", "is read as true"),
        ("vacuum = Off", |c| c.vacuum.to_string(), "false", ""),
        ("http-keepalive = 5 # seconds", |c| c.http_keepalive.to_string(), "5", "is read as 5"),
        (
            "http-socket = 9090",
            |c| format!("{:?}", c.http_socket),
            "[Unix(\"./9090\")]",
            "for a port on every interface write ':9090'",
        ),
        (
            "http-socket = :9090 ; all",
            |c| format!("{:?}", c.http_socket),
            "[Tcp { host: \"\", port: 9090 }]",
            "is read as :9090",
        ),
        (
            "static-map = http://h/x=/dir",
            |c| c.static_map.len().to_string(),
            "1",
            "no path of a request begins with 'http://h/x'",
        ),
        ("plugins = python35, sentry", |_| String::new(), "", "there is no plugin 'sentry' here"),
        ("plugin = /usr/lib/uwsgi/python3", |_| String::new(), "", ""),
    ] {
        let files = Files::new("as_uwsgi", &[("a.ini", &format!("[uwsgi]\nhttp = :1\nmodule = m\n{line}\n"))]);
        let config = files.serve("rwsgi a.ini");
        assert_eq!(value(&config), expected, "{line}");
        let option = line.split(" =").next().unwrap();
        match warning {
            "" => assert_eq!(config.warnings, [""; 0], "{line}"),
            _ => assert!(
                config.warnings.len() == 1
                    && config.warnings[0].contains(&format!("a.ini:4: {option}: "))
                    && config.warnings[0].contains(warning),
                "{line}: {:?}",
                config.warnings
            ),
        }
    }
}

#[test]
fn a_mount_at_the_root_is_the_application() {
    let config = serve("rwsgi --http :1 --mount /=m:app --mount /b=b.py");
    assert_eq!((config.app, config.callable), (AppSource::Module("m".into()), "app".into()));
    assert_eq!(config.mounts.len(), 1);
}

#[test]
fn a_mount_at_the_root_beside_an_application_is_warned_of() {
    let config = serve("rwsgi --http :1 -w m --mount /=n:app");
    assert_eq!((config.app, config.mounts), (AppSource::Module("m".into()), Vec::new()));
    assert!(config.warnings[0].contains("mount: '/' has no effect"), "{:?}", config.warnings);
}

#[test]
fn a_longer_backlog_than_the_system_grants_is_warned_of() {
    assert_eq!(serve("rwsgi --http :1 -w m").listen, somaxconn());
    let config = serve("rwsgi --http :1 -w m --listen 1000000");
    assert!(config.warnings[0].contains("net.core.somaxconn"), "{:?}", config.warnings);
}

#[test]
fn help_and_versions_need_no_application() {
    let Ok(Invocation::Print(help)) = load(["rwsgi", "--help"].into_iter().map(OsString::from)) else { panic!() };
    for row in options::all().filter(|row| row.group != Group::Logic) {
        assert!(help.contains(&format!("--{}", row.names[0])), "{}", row.names[0]);
    }
    let Ok(Invocation::Print(version)) = load(["rwsgi", "--version"].into_iter().map(OsString::from)) else { panic!() };
    assert_eq!(version, concat!(env!("CARGO_PKG_VERSION"), "\n"));
    assert!(matches!(
        load(["rwsgi", "--python-version"].into_iter().map(OsString::from)),
        Ok(Invocation::PythonVersion)
    ));
}

#[test]
fn no_two_options_share_a_name_and_each_says_what_it_does() {
    let mut names: Vec<&str> = options::all().flat_map(|row| row.names.iter().copied()).collect();
    let mut shorts: Vec<char> = options::all().filter_map(|row| row.short).collect();
    let (all_names, all_shorts) = (names.len(), shorts.len());
    names.sort_unstable();
    names.dedup();
    shorts.sort_unstable();
    shorts.dedup();
    assert_eq!((names.len(), shorts.len()), (all_names, all_shorts));
    for row in options::all() {
        assert!(!row.help.is_empty() && !row.help.ends_with('.'), "{}: {}", row.names[0], row.help);
    }
}

#[test]
fn the_defaults_in_the_table_are_the_ones_in_force() {
    for row in options::all().filter(|row| !row.default.is_empty() && row.names[0] != "listen") {
        let mut config = Config::default();
        row.set(&mut config, row.default).unwrap();
        assert_eq!(config, Config::default(), "{}", row.names[0]);
    }
}

#[test]
fn the_configuration_survives_the_way_to_another_process() {
    let config = serve("rwsgi --http :9090 --socket @a --module m --pp /x --processes 4 --memory-report");
    let json = serde_json::to_string(&config).unwrap();
    assert_eq!(serde_json::from_str::<Config>(&json).unwrap(), config);
}

#[test]
fn names_may_be_cut_short_as_with_getopt() {
    assert_eq!(serve("rwsgi --http :1 -w m --process 3").processes, 3);
    assert_eq!(serve("rwsgi --http :1 -w m --virtual /x").home, Some("/x".into()));
    // uWSGI's options that are not here count too, so that a beginning means what it means there.
    let ambiguous = error("rwsgi --http :1 --mod m");
    assert_eq!(ambiguous, "command line: --mod is the beginning of several options: --mode, --module");
    assert!(error("rwsgi --http :1 -w m --p 3").contains(" more"));
    // What an option needs is the next word, whatever it looks like.
    let config = serve("rwsgi --http :1 -w m --env --master --env A=--b --processes 2");
    assert_eq!(
        (config.env, config.unenv, config.processes),
        (vec![("A".into(), "--b".into())], vec!["--master".into()], 2)
    );
    assert!(error("rwsgi --http :1 -w m --prox 3").contains("there is no option '--prox'"));
}

#[test]
fn letters_stand_together_as_with_getopt() {
    for (line, mode, processes) in [
        ("-MC660", Some(0o660), 1),
        ("-MC", Some(0o666), 1),
        ("-C660", Some(0o660), 1),
        ("-Mp4", None, 4),
        ("-MLp 4", None, 4),
        // Letters of options that are not here count too.
        ("-rMp4", None, 4),
        ("-Mrv 9 -p4", None, 4),
        ("-Mv9 -p 4", None, 4),
    ] {
        let config = serve(&format!("rwsgi --http :1 -w m {line}"));
        assert_eq!((config.chmod_socket, config.processes), (mode, processes), "{line}");
    }
    assert!(error("rwsgi --http :1 -w m -Mq").contains("there is no option '-q'"));
    assert!(error("rwsgi --http :1 -w m -Mp").contains("--processes <N|auto> needs a value"));
}

#[test]
fn the_module_is_served_where_a_file_is_given_too() {
    for line in ["-w m:app --wsgi-file f.py", "--wsgi-file f.py -w m:app"] {
        let config = serve(&format!("rwsgi --http :1 {line}"));
        assert_eq!((config.app, config.callable), (AppSource::Module("m".into()), "app".into()));
        let warning = "a module and a wsgi-file are both given: 'm:app' is served, and not f.py";
        assert!(config.warnings.len() == 1 && config.warnings[0].ends_with(warning), "{:?}", config.warnings);
    }
}

#[test]
fn only_the_command_line_can_ask_for_something_else_than_serving() {
    let files = Files::new("version", &[("a.ini", "[uwsgi]\nhttp = :1\nmodule = m\nversion = 2\n")]);
    let warnings = files.serve("rwsgi a.ini").warnings;
    assert!(
        warnings.len() == 1 && warnings[0].ends_with("a.ini:4: version is for the command line only"),
        "{warnings:?}"
    );
}

#[test]
fn sockets_of_protocol_http_are_http_sockets() {
    let config = serve("rwsgi --socket 0.0.0.0:8000 --protocol=http -w wsgi");
    assert_eq!((config.http_socket, config.socket), (vec![address("0.0.0.0:8000")], vec![]));
    assert!(
        error("rwsgi --socket :1 --protocol fastcgi -w m")
            .contains("--protocol: expected uwsgi or http, got 'fastcgi'")
    );
}

proptest! {
    #[test]
    fn no_command_line_panics(words in prop::collection::vec("(--?[a-z-]{0,12}=?)?\\PC{0,12}", 0..8)) {
        // A file to read must not be what a random word happens to name.
        let words = words.into_iter().filter(|word| !word.contains(['/', '.']) && word != "-");
        let _ = load(std::iter::once("rwsgi".to_owned()).chain(words).map(OsString::from));
    }
}

#[test]
fn beside_an_emperor_alone_a_router_for_others_is_a_loss() {
    let files = Files::new("routers", &[("empire.ini", "[uwsgi]\nemperor = vassals\nfastrouter = :9000\n")]);
    let config = files.serve("rwsgi empire.ini");
    assert!(config.warnings.iter().any(|warning| warning.contains("option fastrouter is not available here")));
    let files = Files::new("router", &[("site.ini", "[uwsgi]\nsocket = :3031\nmodule = app\nfastrouter = :9000\n")]);
    let error = files.load("rwsgi site.ini").unwrap_err().to_string();
    assert!(error.contains("option fastrouter is not available here"), "{error}");
}
