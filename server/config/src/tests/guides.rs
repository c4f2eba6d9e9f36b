//! Files as guides give them, what `--check` prints, and what uWSGI options they use that rwsgi does not have.

use super::*;

/// The files that guides give, as they stand but for users that a bare machine has.
const BEHIND_NGINX: &str = "[uwsgi]
uid=root
gid=root
project=mysite1
base=/home/user1
home=%(base)/Env/%(project)
chdir=%(base)/%(project)
module=%(project).wsgi:application
master=True
processes=2
socket=/run/uwsgi/%(project).sock
chown-socket=%(uid):root
chmod-socket=664
pidfile=/tmp/%(project)-master.pid
daemonize=/var/log/uwsgi/%(project).log
vacuum=True
max-requests=5000
harakiri=60
harakiri-verbose=true
buffer-size=65536
post-buffering=65536
memory-report=true
reload-mercy=10
reload-on-as=1024
";

const ADAPTIVE: &str = "[uwsgi]
pidfile=uwsgi.pid
chdir=/project
vacuum=true
http-socket=:9090
wsgi-file=foobar.py
callable=app
enable-threads=true
master=true
processes=8
threads=4
cheaper=2
idle=60
reload-on-rss=100
reload-on-as=1024
max-requests=500000
stats=127.0.0.1:9091
memory-report=true
auto-procname=true
procname-prefix-spaced=test-ax
";

const LIMITED: &str = "[uwsgi]
socket = 127.0.0.1:8001
master = false
chdir = /var/www/cmpvirtmgr/
module = cmpvirtmgr.wsgi
home = /var/www/env
workers = 2
reload-mercy = 10
vacuum = true
max-requests = 1000
limit-as = 512
buffer-size = 30000
pidfile = /etc/uwsgi/uwsgi.pid
";

#[test]
fn the_files_that_guides_give_mean_what_they_say() {
    let files =
        Files::new("guides", &[("nginx.ini", BEHIND_NGINX), ("adaptive.ini", ADAPTIVE), ("limited.ini", LIMITED)]);
    let config =
        Config { warnings: Vec::new(), given: Vec::new(), magic: Vec::new(), ..files.serve("rwsgi nginx.ini") };
    let root = RunAs { uid: 0, name: Some("root".into()) };
    let expected = Config {
        uid: Some(root),
        gid: Some(0),
        home: Some("/home/user1/Env/mysite1".into()),
        chdir: Some("/home/user1/mysite1".into()),
        app: AppSource::Module("mysite1.wsgi".into()),
        processes: 2,
        socket: vec![address("/run/uwsgi/mysite1.sock")],
        chown_socket: Some(Owner { uid: 0, gid: Some(0) }),
        chmod_socket: Some(0o664),
        pidfile: Some("/tmp/mysite1-master.pid".into()),
        daemonize: Some("/var/log/uwsgi/mysite1.log".into()),
        vacuum: true,
        max_requests: 5000,
        harakiri: Some(60),
        harakiri_verbose: true,
        buffer_size: 65536,
        post_buffering: 65536,
        memory_report: true,
        reload_mercy: 10,
        reload_on_as: Some(1024 << 20),
        listen: somaxconn(),
        ..Config::default()
    };
    assert_eq!(config, expected);

    let config = files.serve("rwsgi adaptive.ini");
    assert_eq!((config.processes, config.threads, config.cheaper.workers, config.idle), (8, 4, Some(2), Some(60)));
    assert_eq!((config.reload_on_rss, config.max_requests), (Some(100 << 20), 500_000));
    assert_eq!((config.procname.auto, config.procname.prefix), (true, "test-ax ".into()));

    let config = files.serve("rwsgi limited.ini");
    assert_eq!((config.processes, config.limit_as, config.buffer_size), (2, Some(512 << 20), 30000));
}

#[test]
fn a_check_prints_what_is_in_force_and_where_it_came_from() {
    let check = |files: &Files, line: &str| match files.load(line) {
        Ok(Invocation::Check(report)) => {
            let text = report.text.replace(&format!("{}/", files.0.display()), "");
            (text, report.ok)
        }
        other => panic!("{line}: {other:?}"),
    };
    let files =
        Files::new("check", &[("a.ini", ADAPTIVE), ("b.ini", &ADAPTIVE.replace("cheaper=2", "cheaper=10\nthreads=x"))]);
    let (text, ok) = check(&files, "rwsgi --processes 3 --check a.ini --set spare=1");
    assert!(ok, "{text}");
    let in_force = |text: &str, line: &str| {
        let squeezed = |text: &str| text.split_whitespace().collect::<Vec<_>>().join(" ");
        assert!(text.lines().any(|found| squeezed(found) == line), "{line}: {text}");
    };
    in_force(&text, "processes = 8 ; a.ini:10, instead of 3 at command line");
    in_force(&text, "http-socket = :9090 ; a.ini:5");
    in_force(&text, "buffer-size = 65536 ; default");
    in_force(&text, "spare = 1 ; command line, no effect");
    in_force(&text, "warning: command line: there is no option 'spare'");
    // Every error, not only the first.
    let (text, ok) = check(&files, "rwsgi --check b.ini");
    assert!(!ok);
    in_force(&text, "error: b.ini:13: threads: expected a whole number from 1 to 10000, got 'x'");
    in_force(&text, "error: cheaper must be lower than processes: it is 10, and processes is 8");
    let (text, ok) = check(&files, "rwsgi --check nowhere.ini");
    assert!(!ok && text.starts_with("error: command line: cannot read"), "{text}");
}

#[test]
fn an_option_of_uwsgi_that_is_not_here_is_named_with_what_to_use_instead() {
    let with = |line: &str| Files::new("foreign", &[("a.ini", &format!("[uwsgi]\nhttp = :1\nmodule = m\n{line}\n"))]);
    let never = "uWSGI's option nagios is not available here: stats gives every figure";
    for given in ["nagios", "nagios = true"] {
        let warnings = with(given).serve("rwsgi a.ini").warnings;
        assert!(warnings.len() == 1 && warnings[0].contains(&format!("a.ini:4: {never}")), "{warnings:?}");
    }
    // uWSGI knows it, so it is no mistake.
    assert_eq!(with("nagios").serve("rwsgi --strict a.ini").warnings.len(), 1);
    let unknown = with("no-such-option = 1").load("rwsgi --strict a.ini").unwrap_err().to_string();
    assert!(unknown.contains("there is no option 'no-such-option'"), "{unknown}");
    assert_eq!(with("nagios = false").serve("rwsgi a.ini").warnings, [""; 0]);
    assert_eq!(with("skip-atexit = true").serve("rwsgi --strict a.ini").warnings, [""; 0]);
    let message = with("chroot = /srv").load("rwsgi a.ini").unwrap_err().to_string();
    assert!(message.contains("a.ini:4: uWSGI's option chroot is not available here: the service"), "{message}");
    // On the command line, with its value attached or apart.
    for line in [
        "--py-tracebacker 100 -p 2",
        "--py-tracebacker=100 -p 2",
        "-p 2 --py-tracebacker 100",
        "-v 200 -c --py-tracebacker 100 -p 2",
    ] {
        let config = serve(&format!("rwsgi --http :1 -w m {line}"));
        let named =
            |warning: &String| warning.starts_with("command line: uWSGI's option py-tracebacker is not available here");
        assert!(config.processes == 2 && config.warnings.iter().any(named), "{line}: {:?}", config.warnings);
    }
}

#[test]
fn the_hook_that_containers_are_given_is_taken() {
    let with = |hook: &str| {
        let text = format!("[uwsgi]\nhttp = :1\nmodule = m\nhook-master-start = {hook}\n");
        Files::new("hook", &[("a.ini", &text)]).load("rwsgi a.ini")
    };
    assert!(
        matches!(with("unix_signal:15 gracefully_kill_them_all"), Ok(Invocation::Serve(config)) if config.warnings.is_empty())
    );
    let message = with("nothing:to do").unwrap_err().to_string();
    assert!(message.contains("a.ini:4: hook-master-start: expected an action that there is"), "{message}");
}

#[test]
fn a_directory_of_variables_is_read() {
    let files = Files::new("envdir", &[("SECRET", "abc \nrest\n"), ("EMPTY", ""), (".hidden", "x")]);
    let config = serve(&format!("rwsgi --http :1 -w m --env A=1 --envdir {}", files.0.display()));
    let expected =
        [("A", "1"), ("EMPTY", ""), ("SECRET", "abc")].map(|(name, value)| (name.to_owned(), value.to_owned()));
    assert_eq!(config.env, expected);
    assert!(
        error("rwsgi --http :1 -w m --envdir /no/such")
            .contains("--envdir: expected a directory of readable files (/no/such:")
    );
}

#[test]
fn a_condition_that_is_not_here_is_refused_rather_than_taken_for_true() {
    let files = Files::new(
        "condition",
        &[("a.ini", "[uwsgi]\nhttp = :1\nmodule = m\nif-hostname-match = web.*\nprocesses = 9\nendif\n")],
    );
    assert!(
        files
            .load("rwsgi a.ini")
            .unwrap_err()
            .to_string()
            .contains("a.ini:4: uWSGI's option if-hostname-match is not available")
    );
}
