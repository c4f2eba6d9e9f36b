use std::ffi::OsString;

use super::differences::{DIFFERENCES, Difference};
use super::*;

fn migrated(words: &[&str]) -> Migration {
    let words: Vec<OsString> = words.iter().map(OsString::from).collect();
    migrate(&"/usr/bin/rwsgi".into(), &words, Surroundings::of_this_process())
}

fn file(text: &str) -> (tempfile::TempDir, String) {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("site.ini");
    std::fs::write(&path, text).unwrap();
    let path = path.to_str().unwrap().to_owned();
    (directory, path)
}

#[test]
fn a_configuration_that_is_done_in_full_exits_with_0() {
    let (_directory, path) =
        file("[uwsgi]\nhttp-socket = :8000\nmodule = mysite.wsgi\nmaster = true\ndie-on-term = true\n");
    let migration = migrated(&[&path]);
    assert_eq!(migration.outcome, Outcome::Complete);
    assert!(migration.text.contains("STAYS  works as it did\n  http-socket module\n"), "{}", migration.text);
    assert!(!migration.text.contains("SIGTERM\n"), "{}", migration.text);
}

#[test]
fn what_is_lost_is_named_with_its_place_and_what_to_use_instead() {
    let (_directory, path) = file("[uwsgi]\nhttp = :8000\nmodule = mysite\nsubscribe-to = 10.0.0.1:4040\n");
    let migration = migrated(&[&path]);
    assert_eq!(migration.outcome, Outcome::Incomplete);
    let lost =
        format!("LOST  rwsgi starts without it\n  {path}:4: subscribe-to = 10.0.0.1:4040\n    let a load balancer");
    assert!(migration.text.contains(&lost), "{}", migration.text);
    // Said once.
    assert_eq!(migration.text.matches("let a load balancer").count(), 1, "{}", migration.text);
}

#[test]
fn what_an_option_of_ours_loses_is_lost_too() {
    for lost in [
        "plugin = sentry",
        "alarm = a xmpp:b",
        "route = ^/ cachestore:key=x",
        "log-encoder = gzip",
        "logger = mongodblog:x",
        "log-filter = (?=a)b",
        "hook-post-fork = rpc:f",
        "stats-push = zabbix:1",
        "static-expires = (?=a 3",
        "cache2 = name=a,items=10,store=/x",
        "attach-daemon2 = cmd=x,ns_pid=1",
    ] {
        let (_directory, path) = file(&format!("[uwsgi]\nhttp-socket = :8000\nmodule = mysite\n{lost}\n"));
        let migration = migrated(&[&path]);
        assert_eq!(migration.outcome, Outcome::Incomplete, "{lost}: {}", migration.text);
        let section = format!("LOST  rwsgi starts without it\n  {path}:4: {}: ", lost.split(' ').next().unwrap());
        assert!(migration.text.contains(&section), "{lost}: {}", migration.text);
        assert!(!migration.text.contains("\nNOTE"), "{lost}: {}", migration.text);
    }
}

#[test]
fn https_is_http_to_the_differences() {
    let migration = migrated(&["--https", ":8443,/a.crt,/a.key", "--module", "app"]);
    for topic in ["Slow clients", "Connections that stay open", "Dot segments in paths"] {
        assert!(migration.text.contains(topic), "{topic}: {}", migration.text);
    }
}

#[test]
fn what_does_not_start_exits_with_2() {
    let migration = migrated(&["uwsgi", "--http", ":8000", "--module", "mysite", "--fastrouter", ":9000"]);
    assert_eq!(migration.outcome, Outcome::Refused);
    assert!(migration.text.contains("WRONG"), "{}", migration.text);
    assert_eq!(migrated(&["/nonexistent.ini"]).outcome, Outcome::Refused);
}

#[test]
fn a_command_keeps_its_variables_and_its_quotes() {
    let words = ["MODE=my site", "exec", "/usr/bin/uwsgi", "--http", ":8000", "--module", "app", "--env", "A=b c"];
    let migration = migrated(&words);
    assert!(
        migration.text.contains("COMMAND\n  MODE='my site' rwsgi --http :8000 --module app --env 'A=b c'\n"),
        "{}",
        migration.text
    );
    assert!(migration.text.contains("Environment=\"MODE=my site\"\n"), "{}", migration.text);
    assert!(
        migration.text.contains("ExecStart=/usr/bin/rwsgi --http :8000 --module app --env \"A=b c\"\n"),
        "{}",
        migration.text
    );
}

#[test]
fn a_file_whose_name_is_like_the_programs_is_a_file() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("uwsgi.ini");
    std::fs::write(&path, "[uwsgi]\nhttp = :8000\nmodule = mysite\n").unwrap();
    let migration = migrated(&[path.to_str().unwrap()]);
    assert_eq!(migration.outcome, Outcome::Complete, "{}", migration.text);
}

#[test]
fn without_anything_to_look_at_it_says_how_it_is_used() {
    assert_eq!(migrated(&[]).outcome, Outcome::Refused);
    let help = migrated(&["--help"]);
    assert_eq!(help.outcome, Outcome::Complete);
    assert!(help.text.contains("Exit status"), "{}", help.text);
}

#[test]
fn nginx_gets_the_line_for_each_socket() {
    let words = ["--socket", "/run/site.sock", "--socket", ":3031", "--http-socket", "[::1]:8080", "--module", "app"];
    let migration = migrated(&words);
    for line in ["uwsgi_pass unix:/run/site.sock;", "uwsgi_pass 127.0.0.1:3031;", "proxy_pass http://[::1]:8080;"] {
        assert!(migration.text.contains(line), "{line}: {}", migration.text);
    }
}

/// `docs/moving-from-uwsgi.md` has the table between two marks.
#[test]
fn the_page_lists_every_difference() {
    const BEGIN: &str = "<!-- Made from server/config/src/migrate/differences.rs, up to the next mark. -->\n\n";
    const END: &str = "\n<!-- The end of it. -->";
    let mut table = "| | uWSGI | rwsgi | to have it as before |\n| --- | --- | --- | --- |\n".to_owned();
    for Difference { topic, uwsgi, rwsgi, keep, .. } in DIFFERENCES {
        let cells = [topic, uwsgi, rwsgi, keep].map(|cell| cell.replace('|', "\\|"));
        let _ = writeln!(table, "| {} |", cells.join(" | "));
    }
    let path = std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("../../docs/moving-from-uwsgi.md");
    let page = std::fs::read_to_string(&path).unwrap();
    let (before, rest) = page.split_once(BEGIN).expect("the first mark");
    let (_, after) = rest.split_once(END).expect("the second mark");
    let wanted = format!("{before}{BEGIN}{table}{END}{after}");
    if std::env::var_os("RWSGI_WRITE_DOCS").is_some() {
        std::fs::write(&path, &wanted).unwrap();
    }
    assert!(
        std::fs::read_to_string(&path).unwrap() == wanted,
        "docs/moving-from-uwsgi.md is not what the table says: run RWSGI_WRITE_DOCS=1 cargo test -p rwsgi-config migrate"
    );
}

#[test]
fn sockets_may_come_from_systemd() {
    let migration = migrated(&["--module", "app"]);
    assert_eq!(migration.outcome, Outcome::Complete, "{}", migration.text);
    assert!(migration.text.contains("LISTEN_FDS"), "{}", migration.text);
}
