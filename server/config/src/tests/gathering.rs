//! References, magic, conditions, loops and inclusion: from the text of a file to the settings that come of it. The
//! cases are what uWSGI 2.0.31 shows with `--show-config`, unless a comment says otherwise.

use super::*;
use crate::gather::Gatherer;
use crate::setting::{Argument, Setting};
use crate::surroundings::Surroundings;

fn around() -> Surroundings {
    let env = [("HOME", "/home/me"), ("MY_PROCESSES", "6"), ("EMPTY", ""), ("NESTED", "$(HOME)")];
    Surroundings {
        env: env.map(|(name, value)| (name.to_owned(), value.to_owned())).into(),
        directory: std::env::current_dir().unwrap(),
        program: "/bin/rwsgi".into(),
        hostname: "box".into(),
        cores: 8,
        uid: 1000,
        user: "ann".into(),
        gid: 100,
        group: "staff".into(),
        time: std::time::Duration::from_micros(1_700_000_000_000_001),
        is_reload: false,
    }
}

type Settings = Vec<(String, String)>;

/// What `[uwsgi]` and these lines come to, and the warnings on the way; `other.ini` and `body.txt` lie beside.
fn gather(test: &str, lines: &str) -> Result<(Settings, Vec<String>), ConfigError> {
    let files = Files::new(
        test,
        &[
            ("a.ini", &format!("[uwsgi]\n{lines}\n[second]\nfrom-second = %x\n")),
            ("other.ini", "[uwsgi]\nfrom-other = %n %N\n"),
            ("body.txt", "file body\n"),
            ("lines.txt", "one\ntwo\n"),
        ],
    );
    let path = files.0.join("a.ini").to_str().unwrap().to_owned();
    let mut gatherer = Gatherer::new(around());
    gatherer.gather(vec![Argument::Option("ini".into(), path)])?;
    let settings = gatherer.settings.into_iter().skip(1).map(|Setting { name, value, .. }| (name, value)).collect();
    let warnings =
        gatherer.warnings.into_iter().map(|warning| warning.replace(files.0.to_str().unwrap(), "")).collect();
    Ok((settings, warnings))
}

fn check(test: &str, lines: &str, expected: &[(&str, &str)]) {
    let (settings, _) = gather(test, lines).unwrap_or_else(|error| panic!("{lines}: {error}"));
    let settings: Vec<_> = settings.iter().map(|(name, value)| (name.as_str(), value.as_str())).collect();
    assert_eq!(settings, expected, "{lines}");
}

#[test]
fn references_take_the_first_of_a_name_before_or_after() {
    check(
        "references",
        "base = /x\nbase = /y\np = %(base)/z\nlater = %(after)\nafter = 9\nunknown = %(nothing)",
        &[("base", "/x"), ("base", "/y"), ("p", "/x/z"), ("later", "9"), ("after", "9"), ("unknown", "%(nothing)")],
    );
    // uWSGI stops half way, at %(c): it does not look again at what a replaced value begins with.
    check("chain", "a = %(b)\nb = %(c)\nc = deep", &[("a", "deep"), ("b", "deep"), ("c", "deep")]);
}

#[test]
fn references_reckon_from_left_to_right() {
    for (expression, expected) in [
        ("processes processes + 2", "46"),
        ("processes * 3", "12"),
        ("processes - 6", "-2"),
        ("processes / 0", "0"),
        ("processes ++", "5"),
        ("processes --", "3"),
        ("processes nothing", "4"),
    ] {
        check("math", &format!("processes = 4\nx = %({expression})"), &[("processes", "4"), ("x", expected)]);
    }
}

#[test]
fn environment_variables_are_replaced_or_left() {
    for (value, expected) in [
        ("$(HOME)/x", "/home/me/x"),
        ("a$(HOME)b$(MY_PROCESSES)c", "a/home/meb6c"),
        ("$(NOPE)", "$(NOPE)"),
        // From here on beyond uWSGI 2.0: defaults are its 2.1's, and plain names are the shell's.
        ("$(NOPE:-default)", "default"),
        ("$(NOPE-default)", "default"),
        ("$(EMPTY:-default)", "default"),
        ("$(EMPTY-default)", ""),
        ("$MY_PROCESSES", "6"),
        ("$HOME/x", "/home/me/x"),
        ("$HOMES $1 $ $$", "$HOMES $1 $ $$"),
    ] {
        check("environment", &format!("x = {value}"), &[("x", expected)]);
    }
    // uWSGI leaves a placeholder's own references unreplaced.
    check(
        "placeholder",
        "set-placeholder = q=$(HOME)\nset = processes=3\nx = %(q)",
        &[
            ("set-placeholder", "q=/home/me"),
            ("q", "/home/me"),
            ("set", "processes=3"),
            ("processes", "3"),
            ("x", "/home/me"),
        ],
    );
    // An option since uWSGI 2.1.
    check("ienv", "ienv = FOO=bar\nx = $(FOO)", &[("ienv", "FOO=bar"), ("x", "bar")]);
}

#[test]
fn files_are_replaced_by_what_is_in_them() {
    check(
        "at",
        "x = <@(%d/body.txt)>\ny = @(%(base)/body.txt)\nbase = %d",
        &[("x", "<file body>"), ("y", "file body"), ("base", &dir("at"))],
    );
    let message = gather("at", "x = @(/no/such)").unwrap_err().to_string();
    assert!(message.contains("x: cannot read /no/such for @(/no/such)"), "{message}");
}

/// The directory that [`Files`] makes for a test, as `%d` gives it.
fn dir(test: &str) -> String {
    let dir = std::env::temp_dir().join(format!("rwsgi-config-{}-{test}/", std::process::id()));
    dir.to_str().unwrap().to_owned()
}

#[test]
fn magic_tells_of_the_file_and_the_machine() {
    let here = dir("magic");
    let name = here.trim_end_matches('/').rsplit('/').next().unwrap();
    let current = std::env::current_dir().unwrap();
    let current = current.to_str().unwrap();
    for (magic, expected) in [
        ("%p", format!("{here}a.ini")),
        ("%s", "a.ini".into()),
        ("%d", here.clone()),
        ("%n", "a".into()),
        ("%e", "ini".into()),
        ("%c", name.into()),
        ("%0", "tmp".into()),
        ("%9", String::new()),
        ("%N%S", "aa.ini".into()),
        ("%k", "8".into()),
        ("%v", current.into()),
        ("%h", "box".into()),
        ("%x", String::new()),
        ("%u %U %g %G", "1000 ann 100 staff".into()),
        ("%t %T", "1700000000 1700000000000001".into()),
        ("50%%", "50%".into()),
        ("%m|", "|".into()),
        ("%(%k * 2)", "16".into()),
        // uWSGI makes 50of of this: a percent sign takes whatever follows with it.
        ("50% of", "50% of".into()),
    ] {
        check("magic", &format!("x = {magic}"), &[("x", &expected)]);
    }
    let (_, warnings) = gather("magic", "x = %Y-%%H").unwrap();
    assert_eq!(warnings, ["/a.ini:2: x: %Y stands for nothing and is dropped (write %%Y to keep it)"]);
}

#[test]
fn conditions_take_what_follows_or_leave_it() {
    let taken = |condition: &str, expected: Option<&str>| {
        let (settings, warnings) =
            gather("conditions", &format!("processes = 4\n{condition}\nx = %(_)\nendif =\ny = 1")).unwrap();
        let found = settings.iter().find(|(name, _)| name == "x").map(|(_, value)| value.as_str());
        assert_eq!(found, expected, "{condition}");
        assert_eq!(settings.last().unwrap().0, "y");
        assert_eq!(warnings, [""; 0]);
    };
    taken("if-env = HOME", Some("/home/me"));
    taken("ifenv = HOME", Some("/home/me"));
    taken("if-env = HOME=/home/me", Some("/home/me"));
    taken("if-env = HOME=/else", None);
    taken("if-env = NOPE", None);
    // %(_) stays as it is where there is nothing that it could stand for.
    taken("if-not-env = NOPE", Some("%(_)"));
    taken("if-not-env = HOME=/else", Some("/home/me"));
    taken("if-opt = processes", Some("4"));
    taken("if-opt = processes=4", Some("4"));
    taken("if-opt = processes=5", None);
    taken("if-not-opt = threads", Some("%(_)"));
    taken("if-file = /etc/passwd", Some("/etc/passwd"));
    taken("if-file = /etc", None);
    taken("if-dir = /etc", Some("/etc"));
    taken("if-exists = /etc", Some("/etc"));
    taken("if-exists = /nope", None);
    taken("if-not-exists = /nope", Some("/nope"));
    taken("if-hostname = box", Some("box"));
    taken("if-hostname = other", None);
}

#[test]
fn an_option_is_looked_for_anew_for_each_line_of_a_block() {
    check("anew", "if-not-opt = threads\nthreads = 2\nx = lost\nendif =\ny = 1", &[("threads", "2"), ("y", "1")]);
}

#[test]
fn another_section_is_of_the_ini_file_that_was_read_last() {
    let other = format!("{}other.ini", dir("last-file"));
    let error = gather("last-file", "ini = %dother.ini\nini = :second").unwrap_err().to_string();
    assert!(error.contains(&other) && error.contains("second"), "{error}");
    check("same-file", "ini = :second", &[("ini", ":second"), ("from-second", "second")]);
}

#[test]
fn text_may_be_injected_and_options_forbidden() {
    let injected = [
        ("inject-after", &*format!("{}lines.txt", dir("inject"))),
        ("ini", &*format!("{}other.ini", dir("inject"))),
        ("from-other", "other a"),
        ("one", ""),
        ("two", ""),
    ];
    check("inject", "inject-after = %dlines.txt\nini = %dother.ini", &injected);
    let (settings, _) = gather("allowed", "blacklist = http chdir\nx = 1\nend-blacklist\nchdir = /x").unwrap();
    assert_eq!(settings.last().unwrap().0, "chdir");
    for lines in ["blacklist = http chdir\nchdir = /x", "whitelist = x\nx = 1\nchdir = /x"] {
        let error = gather("forbidden", lines).unwrap_err().to_string();
        assert!(error.contains("chdir: the whitelist or blacklist before it forbids it"), "{error}");
    }
    check(
        "resolve",
        "resolve = db=127.0.0.1\nx = %(db)",
        &[("resolve", "db=127.0.0.1"), ("db", "127.0.0.1"), ("x", "127.0.0.1")],
    );
}

#[test]
fn a_file_for_pastedeploy_is_read_and_names_the_application() {
    let other = format!("{}other.ini", dir("paste"));
    let expected = [
        ("ini-paste-logged", "%dother.ini"),
        ("from-other", "other a"),
        ("paste", &*format!("config:{other}")),
        ("paste-logger", "true"),
    ];
    check(
        "paste",
        "ini-paste-logged = %dother.ini",
        &expected.map(|(name, value)| (name, if value.starts_with('%') { &*other } else { value })),
    );
}

#[test]
fn otherwise_takes_what_the_condition_left() {
    // uWSGI 2.0 knows no else: after a condition that holds it takes both halves. Its 2.1 does this.
    for (condition, expected) in [("HOME", "yes"), ("NOPE", "no")] {
        check("else", &format!("if-env = {condition}\nx = yes\nelse =\nx = no\nendif ="), &[("x", expected)]);
    }
}

#[test]
fn loops_take_each_option_through_all_values() {
    let expected = [("x", "a"), ("x", "b"), ("y", "1a"), ("y", "1b"), ("z", "")];
    check("for", "for = a b\nx = %(_)\ny = 1%(_)\nendfor\nz", &expected);
    check("times", "for-times = 2\nx = %(_)\nendfor", &[("x", "1"), ("x", "2")]);
    check("lines", "for-readline = %d/lines.txt\nx = %(_)\nendfor", &[("x", "one"), ("x", "two")]);
    let [body, lines] = ["body.txt", "lines.txt"].map(|file| format!("{}{file}", dir("glob")));
    check("glob", "for-glob = %d*.txt\nx = %(_)\nendfor", &[("x", &body), ("x", &lines)]);
    let nothing = format!("{}*.none", dir("nothing"));
    check("nothing", "for-glob = %d*.none\nx = %(_)\nendfor", &[("x", &nothing)]);
}

#[test]
fn plugins_and_reloads_are_asked_for() {
    let lines = |condition: &str| format!("{condition}\nx = 1\nendif");
    for (condition, expected) in [
        ("if-plugin = python3", true),
        ("ifplugin = http", true),
        ("if-plugin = php", false),
        ("if-not-plugin = php", true),
        ("if-reload", false),
        ("if-not-reload = yes", true),
    ] {
        check("asked", &lines(condition), if expected { &[("x", "1")] } else { &[] });
    }
    let mut gatherer = Gatherer::new(Surroundings { is_reload: true, ..around() });
    let set = |name: &str, value: &str| Argument::Option(name.into(), value.into());
    gatherer.gather(vec![set("if-reload", ""), set("x", "1"), set("endif", "")]).unwrap();
    assert_eq!(gatherer.settings.len(), 1);
}

#[test]
fn a_section_may_be_named_by_magic() {
    let files = Files::new("headers", &[("site.ini", "[%n]\nx = 1\n[uwsgi]\nini = :%n\n")]);
    let path = files.0.join("site.ini").to_str().unwrap().to_owned();
    let mut gatherer = Gatherer::new(around());
    gatherer.gather(vec![Argument::File(path)]).unwrap();
    assert_eq!(gatherer.settings.last().map(|setting| (&*setting.name, &*setting.value)), Some(("x", "1")));
}

#[test]
fn files_are_included_in_place() {
    let second = format!("{}a.ini:second", dir("include"));
    check(
        "include",
        &format!("x = 1\nini = {second}\ny = 2"),
        &[("x", "1"), ("ini", &second), ("from-second", "second"), ("y", "2")],
    );
    check("section", "ini = :second\ny = %n", &[("ini", ":second"), ("from-second", "second"), ("y", "a")]);
    // Beyond uWSGI, which takes %(base) for a part of the name: what is included may be named by what came before.
    let base = dir("base");
    check(
        "base",
        "base = %d\ninclude = %(base)other.ini",
        &[("base", &base), ("include", &format!("{base}other.ini")), ("from-other", "other a")],
    );
    let other = format!("{}other.ini", dir("inherit"));
    check(
        "inherit",
        &format!("inherit = {other}\nx = 1"),
        &[("inherit", &other), ("x", "1"), ("from-other", "other a")],
    );
    check(
        "inside",
        "for = other\nini = %d%(_).ini\nendfor",
        &[("ini", &format!("{}other.ini", dir("inside"))), ("from-other", "other a")],
    );
}

#[test]
fn what_cannot_be_expanded_is_said_with_its_line() {
    for (lines, expected) in [
        // uWSGI leaves it as it is.
        ("x = %(x)", "a.ini:2: x: %(x) refers to itself"),
        ("x = %(y)\ny = %(x)", "a.ini:2: x: %(y) refers to itself"),
        ("if-env = HOME\nfor = a b", "a.ini:3: for inside if-env: blocks do not nest"),
        ("else", "a.ini:2: else without a condition before it"),
        ("set = foo", "a.ini:2: set: expected NAME=VALUE, got 'foo'"),
        (
            "set-placeholder = processes=3",
            "set-placeholder: expected a name that is no option: 'processes' is one, use set, got 'processes=3'",
        ),
        ("for-times = many", "a.ini:2: for-times: expected a number up to 10000, got 'many'"),
        ("ini = nothing.ini", "a.ini:2: cannot read nothing.ini: No such file or directory (os error 2)"),
    ] {
        let message = gather("wrong", lines).unwrap_err().to_string();
        assert!(message.ends_with(expected), "{lines}: {message}");
    }
    let doubling: String = (0..40).map(|n| format!("x{n} = %(x{m})%(x{m})\n", m = n + 1)).collect();
    for (last, expected) in [(&*"xx".repeat(200), "longer than 1048576 bytes"), ("", "more than 10000 references")] {
        let message = gather("doubling", &format!("{doubling}x40 = {last}")).unwrap_err().to_string();
        assert!(message.contains(expected), "{message}");
    }
}

#[test]
fn what_stands_for_nothing_in_an_option_and_blocks_left_open_are_warned_of() {
    let (_, warnings) = gather("open", "chdir = %(nowhere)/$(NOWHERE)\nif-env = HOME\nx = 1").unwrap();
    assert_eq!(
        warnings,
        [
            "/a.ini:4: if-env is open to the end: close it with endif",
            "/a.ini:2: chdir: $(NOWHERE) stands for nothing",
            "/a.ini:2: chdir: %(nowhere) stands for nothing",
        ]
    );
}

#[test]
fn variables_of_the_environment_are_options() {
    let mut around = around();
    around.env.insert("UWSGI_PROCESSES".into(), "7".into());
    around.env.insert("UWSGI_HTTP_SOCKET".into(), ":1".into());
    around.env.insert("UWSGI_RELOADS".into(), "0".into());
    let words = |line: &str| line.split_whitespace().map(OsString::from).collect::<Vec<_>>().into_iter();
    let Ok(Invocation::Serve(config)) = load_within(words("rwsgi -w m"), around.clone()) else { panic!() };
    assert_eq!((config.processes, config.http_socket), (7, vec![address(":1")]));
    // The command line comes after, and wins.
    let Ok(Invocation::Serve(config)) = load_within(words("rwsgi -w m -p 2"), around.clone()) else { panic!() };
    assert_eq!(config.processes, 2);
    around.env.insert("UWSGI_PROCESSES".into(), "x".into());
    let message = load_within(words("rwsgi -w m"), around).unwrap_err().to_string();
    assert!(
        message.starts_with("environment variable UWSGI_PROCESSES: processes: expected a whole number"),
        "{message}"
    );
}

#[test]
fn strictness_makes_unknown_keys_errors_but_not_those_that_are_referred_to() {
    let known = "[uwsgi]\nhttp = :1\nmodule = %(project).wsgi\nproject = mysite\n";
    let files =
        Files::new("strict", &[("a.ini", &format!("{known}strict\n")), ("b.ini", &format!("{known}tpyo = 1\n"))]);
    let config = files.serve("rwsgi a.ini");
    assert_eq!(config.app, AppSource::Module("mysite.wsgi".into()));
    assert_eq!(config.warnings, [""; 0]);
    assert_eq!(files.serve("rwsgi b.ini").warnings.len(), 1);
    let message = files.load("rwsgi --strict b.ini").unwrap_err().to_string();
    assert!(message.ends_with("b.ini:5: there is no option 'tpyo'"), "{message}");
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]

    #[test]
    fn no_value_panics(lines in "([$@%()\\[\\];#= +*/a-z0-9:-]|\\$\\(|%\\(|=|\n|for = |endfor|if-env = HOME|else|x\n|ini = :|\\PC){0,120}") {
        // A name without a slash cannot reach far; a pipe or a terminal must not be waited for.
        if !lines.contains("= -") && !lines.contains("=-") {
            let _ = gather("no_value_panics", &lines);
        }
    }
}

#[test]
fn a_declared_option_stands_for_others() {
    let text = "[uwsgi]\nsite = blog 3\ndeclare-option = site=socket=/run/$1.sock;processes=$2;module=$1.wsgi\n\
                declare-option = deb-confname=$1\ndeb-confname = x\npidfile = /run/%(deb-confname)/pid\n";
    let files = Files::new("declared", &[("a.ini", text), ("b.ini", "[uwsgi]\ndeclare-option = site\n")]);
    let config = files.serve("rwsgi a.ini");
    assert_eq!(config.socket, [address("/run/blog.sock")]);
    assert_eq!((config.processes, config.app), (3, AppSource::Module("blog.wsgi".into())));
    assert_eq!(config.pidfile, Some("/run/x/pid".into()));
    assert_eq!(config.warnings, [""; 0]);
    let message = files.load("rwsgi --http :1 -w m b.ini").unwrap_err().to_string();
    assert!(message.contains("b.ini:2: declare-option: expected NAME=OPTION=VALUE;…, got 'site'"), "{message}");
}

/// What uWSGI leaves the shell replaces, when the command runs; other options have `$NAME` and defaults besides.
#[test]
fn a_command_s_own_variables_are_left_to_the_shell() {
    let lines = "x = $MY_PROCESSES\nattach-daemon = echo $HOME $(HOME) \"$(date -u)\" $(hostname) %(x)\nmodule = $HOME";
    let (settings, warnings) = gather("shell", lines).unwrap();
    let value = |name| settings.iter().find(|(known, _)| known == name).map(|(_, value)| value.as_str());
    assert_eq!(value("attach-daemon"), Some("echo $HOME /home/me \"$(date -u)\" $(hostname) $MY_PROCESSES"));
    assert_eq!(value("module"), Some("/home/me"));
    assert!(warnings.is_empty(), "{warnings:?}");
    for (name, before) in [
        ("exec-pre-app", ""),
        ("exec-as-vassal", ""),
        ("hook-asap", "exec:"),
        ("hook-touch", "/x exec:"),
        ("touch-exec", "/x "),
        ("alarm", "mail cmd:"),
        ("cron", "-1 -1 -1 -1 -1 "),
        ("emperor-on-demand-exec", ""),
    ] {
        let (settings, warnings) =
            gather("shells", &format!("x = y\n{name} = {before}echo $HOME $(date) %(x)")).unwrap();
        assert!(settings.contains(&(name.into(), format!("{before}echo $HOME $(date) y"))), "{settings:?}");
        assert!(warnings.is_empty(), "{warnings:?}");
    }
}
