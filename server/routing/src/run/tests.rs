use super::*;
use crate::rule::{Fault, Subject, Test};
use proptest::prelude::*;

/// A rule, by its option's name.
fn rule(option: &str, text: &str) -> RuleText {
    let (phase, test) = match option.split_once("route") {
        Some(("error-", rest)) => (Phase::Error, rest),
        Some(("response-", rest)) => (Phase::Response, rest),
        Some(("final-", rest)) => (Phase::Final, rest),
        Some((_, rest)) => (Phase::Request, rest),
        None => panic!("{option} is no option"),
    };
    let test = match test {
        "" => Test::Pattern(Subject::Path),
        "-uri" => Test::Pattern(Subject::Uri),
        "-user-agent" => Test::Pattern(Subject::UserAgent),
        "-status" => Test::Status,
        "-if" => Test::If,
        "-if-not" => Test::IfNot,
        "-run" => Test::Run,
        "-label" => Test::Label,
        other => panic!("{other} is not known here"),
    };
    RuleText { phase, test, text: text.into() }
}

fn rules(texts: &[(&str, &str)]) -> Rules {
    Rules::compile(&texts.iter().map(|(option, text)| rule(option, text)).collect::<Vec<_>>()).unwrap()
}

fn visit(variables: &[(&str, &str)]) -> Visit {
    let mut visit = Visit::default();
    for (name, value) in variables {
        visit.variables.came_with(name.as_bytes(), value.as_bytes());
    }
    visit
}

/// What the client would get of the request's phase: a status and what is said with it.
fn outcome(texts: &[(&str, &str)], variables: &[(&str, &str)]) -> (String, Visit) {
    let mut visit = visit(variables);
    let next = rules(texts).run(Phase::Request, &mut visit);
    let said = match next {
        Next::GoOn => "go on".into(),
        Next::Answer(Answer::Text { status, headers, body }) => {
            let mut said = String::from_utf8(status).unwrap();
            for (name, value) in headers {
                said += &format!("|{name}: {}", String::from_utf8(value).unwrap());
            }
            said + "|" + std::str::from_utf8(&body).unwrap()
        }
        Next::Answer(Answer::Static(path)) => format!("static {}", String::from_utf8(path).unwrap()),
        Next::Answer(Answer::Page(status)) => format!("page {status}"),
        Next::Answer(Answer::Nothing) => "nothing".into(),
        Next::Answer(Answer::File { status, content_type, .. }) => {
            format!("file {} {}", String::from_utf8(status).unwrap(), String::from_utf8(content_type).unwrap())
        }
    };
    (said, visit)
}

fn said(texts: &[(&str, &str)], variables: &[(&str, &str)]) -> String {
    outcome(texts, variables).0
}

#[test]
fn a_probe_is_not_logged_and_all_else_is() {
    let texts = [("route-user-agent", "^kube-probe.* donotlog:")];
    let (said, seen) = outcome(&texts, &[("HTTP_USER_AGENT", "kube-probe/1.27")]);
    assert_eq!((said.as_str(), seen.effects), ("go on", vec![Effect::DoNotLog]));
    assert!(outcome(&texts, &[("HTTP_USER_AGENT", "curl")]).1.effects.is_empty());
    assert!(outcome(&texts, &[]).1.effects.is_empty());
}

#[test]
fn a_redirect_has_what_the_pattern_found_and_variables() {
    let texts = [
        ("route-if", "equal:${HTTP_X_FORWARDED_PROTO};http redirect-permanent:https://${HTTP_HOST}${REQUEST_URI}"),
        ("route", "^/old/(.*) redirect:/new/$1"),
    ];
    let plain = [("HTTP_X_FORWARDED_PROTO", "http"), ("HTTP_HOST", "h"), ("REQUEST_URI", "/a?b")];
    assert_eq!(said(&texts, &plain), "301 Moved Permanently|Location: https://h/a?b|Moved Permanently");
    assert_eq!(said(&texts, &[("PATH_INFO", "/old/x/y")]), "302 Found|Location: /new/x/y|Moved");
    assert_eq!(said(&texts, &[("PATH_INFO", "/older")]), "go on");
}

#[test]
fn rules_go_on_at_labels_and_end_with_last() {
    let texts = [
        ("route-if", "contains:${HTTP_ACCEPT_ENCODING};gzip goto:_gzip"),
        ("route-run", "last:"),
        ("route-label", "_gzip"),
        ("route-run", "gzip:"),
        ("route-run", "chunked:"),
    ];
    let (said, seen) = outcome(&texts, &[("HTTP_ACCEPT_ENCODING", "br, gzip")]);
    assert_eq!((said.as_str(), seen.gzip, seen.chunked), ("go on", true, true));
    let (said, seen) = outcome(&texts, &[("HTTP_ACCEPT_ENCODING", "br")]);
    assert_eq!((said.as_str(), seen.gzip, seen.chunked), ("go on", false, false));
}

#[test]
fn a_goto_leads_forward_only_and_so_every_run_ends() {
    for label in ["missing", "back", "0", "1"] {
        let goto = format!("goto:{label}");
        let texts = [("route-label", "back"), ("route-run", goto.as_str())];
        let (said, seen) = outcome(&texts, &[]);
        assert_eq!(said, "page 500");
        assert!(matches!(seen.effects.as_slice(), [Effect::Complain(_)]));
    }
    assert_eq!(
        said(&[("route-run", "goto:2"), ("route-run", "return:500"), ("route-run", "return:404")], &[]),
        "404 Not Found|Content-Type: text/plain|Not Found"
    );
}

#[test]
fn answers_are_those_of_uwsgi() {
    for (action, expected) in [
        ("return:403", "403 Forbidden|Content-Type: text/plain|Forbidden"),
        ("return:999", "nothing"),
        ("return:", "nothing"),
        ("break:", "nothing"),
        ("break:403", "403 Forbidden|Connection: close|Content-Type: text/plain|"),
        ("break:403 Go Away", "403 Go Away|Connection: close|Content-Type: text/plain|"),
        ("continue:", "go on"),
        ("static:/srv/x.css", "static /srv/x.css"),
        ("static-next:/nonexistent", "go on"),
        ("file:filename=/nonexistent", "page 404"),
        ("file-next:filename=/nonexistent", "go on"),
        ("file:filename=/proc/self/status,status=201,content_type=text/x", "file 201 Created text/x"),
        ("flush:", "go on"),
    ] {
        assert_eq!(said(&[("route-run", action)], &[]), expected, "{action}");
    }
}

#[test]
fn a_client_cannot_leave_a_directory() {
    let texts = [("route", "^/f/(.*) static:/srv/$1")];
    assert_eq!(said(&texts, &[("PATH_INFO", "/f/a/b.css")]), "static /srv/a/b.css");
    for path in ["/f/../etc/passwd", "/f/a/../../etc/passwd", "/f/..", "/f/a\0b"] {
        assert_eq!(said(&texts, &[("PATH_INFO", path)]), "page 403", "{path}");
    }
    let texts = [("route", "^/f/(.*) file:filename=/proc/self/fd/$1")];
    assert_eq!(said(&texts, &[("PATH_INFO", "/f/../status")]), "page 403");
    // What the configuration says itself is meant.
    assert_eq!(said(&[("route-run", "static:/srv/../x")], &[]), "static /srv/../x");
}

#[test]
fn basicauth_lets_in_who_is_known() {
    let refused = "401 Authorization Required|WWW-Authenticate: Basic realm=\"My Realm\"|Unauthorized";
    let texts = [("route", "^/ basicauth:My Realm,user:pa:ss")];
    let ask = |texts: &[(&str, &str)], header: &str| {
        let (said, visit) = outcome(texts, &[("PATH_INFO", "/"), ("HTTP_AUTHORIZATION", header)]);
        let user = visit.variables.get(b"REMOTE_USER").map(|user| String::from_utf8(user.to_vec()).unwrap());
        (said, user)
    };
    // "user:pa:ss", "user:pass", "nocolon"
    assert_eq!(ask(&texts, "Basic dXNlcjpwYTpzcw=="), ("go on".into(), Some("user".into())));
    assert_eq!(ask(&texts, "Basic dXNlcjpwYTpzcw"), ("go on".into(), Some("user".into())));
    for header in ["Basic dXNlcjpwYXNz", "Basic bm9jb2xvbg==", "Basic !!!", "Bearer dXNlcjpwYTpzcw==", "Basic", ""] {
        assert_eq!(ask(&texts, header), (refused.into(), None), "{header}");
    }
    // Somebody whom a proxy knows is let through.
    assert_eq!(said(&texts, &[("PATH_INFO", "/"), ("REMOTE_USER", "proxied")]), "go on");
    // The first that knows somebody has the word, and an empty one knows nobody.
    let chain = [
        ("route", "^/ basicauth-next:My Realm,user:pass"),
        ("route", "^/ basicauth-next:My Realm,other:word"),
        ("route", "^/ basicauth:My Realm,"),
    ];
    assert_eq!(ask(&chain, "Basic b3RoZXI6d29yZA==").1, Some("other".into()));
    assert_eq!(ask(&chain, "Basic dXNlcjpwYTpzcw==").0, refused);
    // A file that is not there lets nobody in, and says so.
    let (said, seen) = outcome(
        &[("route", "^/ basicauth:My Realm,/nonexistent")],
        &[("PATH_INFO", "/"), ("HTTP_AUTHORIZATION", "Basic dXNlcjpwYTpzcw==")],
    );
    assert_eq!(said, refused);
    assert!(matches!(seen.effects.as_slice(), [Effect::Complain(_)]));
}

#[test]
fn variables_are_set_for_later_rules_and_for_the_application() {
    let texts = [
        ("route", "^/app(/.*) setpathinfo:$1"),
        ("route-run", "setscriptname:/app"),
        ("route-run", "addvar:WHERE=${SCRIPT_NAME}|${PATH_INFO}"),
        ("route-run", "setuser:joe:secret"),
    ];
    let (_, visit) = outcome(&texts, &[("PATH_INFO", "/app/x")]);
    let set: Vec<_> = visit.variables.set_by_rules().collect();
    assert_eq!(
        set,
        [(&b"PATH_INFO"[..], &b"/x"[..]), (b"SCRIPT_NAME", b"/app"), (b"WHERE", b"/app|/x"), (b"REMOTE_USER", b"joe"),]
    );
    let texts = [("route-run", "setscriptname:/app"), ("route-run", "fixpathinfo:")];
    let (_, seen) = outcome(&texts, &[("PATH_INFO", "/app/x")]);
    assert_eq!(seen.variables.get(b"PATH_INFO"), Some(&b"/x"[..]));
}

#[test]
fn a_rewrite_changes_path_and_query() {
    let rewritten = |action: &str, query: &str| {
        let (_, visit) = outcome(&[("route", action)], &[("PATH_INFO", "/a/b"), ("QUERY_STRING", query)]);
        [&b"PATH_INFO"[..], b"QUERY_STRING"]
            .map(|name| String::from_utf8(visit.variables.get(name).unwrap().to_vec()).unwrap())
            .join("?")
    };
    assert_eq!(rewritten("^/a/(.*) rewrite:/new/$1", ""), "/new/b?");
    assert_eq!(rewritten("^/a/(.*) rewrite:/new/$1", "q=1"), "/new/b?q=1");
    assert_eq!(rewritten("^/a/(.*) rewrite:/new?x=$1", ""), "/new?x=b");
    assert_eq!(rewritten("^/a/(.*) rewrite:/new?x=$1", "q=1"), "/new?x=b&q=1");
    assert_eq!(rewritten("^/a/(.*) rewrite:/caf%C3%A9%zz", ""), "/caf\u{e9}%zz?");
}

#[test]
fn later_phases_know_the_status() {
    let rules = rules(&[
        ("error-route-status", "404 redirect:/missing"),
        ("response-route-status", "200 addheader:X-Ok: yes"),
        ("final-route-status", "500 log:${REQUEST_URI} failed with ${uwsgi[status]}"),
    ]);
    let mut visit = visit(&[("REQUEST_URI", "/a")]);
    visit.facts.status = 200;
    assert!(matches!(rules.run(Phase::Error, &mut visit), Next::GoOn));
    assert!(matches!(rules.run(Phase::Response, &mut visit), Next::GoOn));
    assert_eq!(visit.add_headers, [b"X-Ok: yes"]);
    visit.facts.status = 404;
    assert!(matches!(rules.run(Phase::Error, &mut visit), Next::Answer(Answer::Text { .. })));
    visit.facts.status = 500;
    assert!(matches!(rules.run(Phase::Final, &mut visit), Next::GoOn));
    assert_eq!(visit.effects, [Effect::Log(b"/a failed with 500".to_vec())]);
}

#[test]
fn a_pattern_that_explodes_ends_the_request_and_does_not_pass_the_guard() {
    let subject = "a".repeat(60) + "!";
    let texts = [("route-uri", r"^(a|aa|\1)+$ basicauth:x,y:z")];
    assert_eq!(said(&texts, &[("REQUEST_URI", &subject)]), "page 500");
}

#[test]
fn what_is_wrong_is_said_at_the_start() {
    for (option, text, expected) in [
        ("route", "^/x", "a pattern or condition, a blank, and ACTION:ARGUMENT"),
        ("route", "( log:x", "a regular expression, and '(' is none"),
        ("route-if", "nonsense:x log:x", "and 'nonsense' is none"),
        ("route-run", "uwsgi:127.0.0.1:3031,0,0", "and 'uwsgi' is an action of uWSGI's that is not here"),
    ] {
        let Err(Fault::Refused(error)) = rule(option, text).check() else { panic!("{text} is refused") };
        assert!(error.contains(expected), "{error}");
    }
}

#[test]
fn what_only_costs_speed_or_comes_after_the_response_can_be_left_out() {
    for (option, text) in [
        ("route", "^/x cache:key=x"),
        ("response-route-run", "cachestore:key=x"),
        ("response-route-if-not", "empty:${X} sse:server=y"),
        ("final-route-run", "metricinc:x,1"),
    ] {
        assert!(matches!(rule(option, text).check(), Err(Fault::LeftOut(_))), "{text}");
    }
    for (option, text) in
        [("route-run", "sse:"), ("route", "^/ ldapauth:x"), ("response-route", "( sse:"), ("error-route-run", "sse:")]
    {
        let is_left_out = matches!(rule(option, text).check(), Err(Fault::LeftOut(_)));
        assert_eq!(is_left_out, option.starts_with("response"), "{text}");
    }
}

proptest! {
    #[test]
    fn no_request_upsets_the_rules(path in "\\PC{0,30}", agent in "\\PC{0,30}", auth in "\\PC{0,30}") {
        let rules = rules(&[
            ("route", "^/(.)(.*)$ addvar:X=$1$2${HTTP_USER_AGENT}"),
            ("route-user-agent", "(?=x)(.)\\1 log:${qs[$1]}"),
            ("route-run", "basicauth-next:r,a:b"),
            ("route-run", "rewrite:${X}"),
            ("route", "(.*) static-next:/nonexistent/$1"),
            ("route-if", "ipv4in:${HTTP_USER_AGENT};10.0.0.0/8 return:403"),
        ]);
        let mut visit = visit(&[
            ("PATH_INFO", &path), ("HTTP_USER_AGENT", &agent), ("HTTP_AUTHORIZATION", &format!("Basic {auth}")),
        ]);
        let _ = rules.run(Phase::Request, &mut visit);
        prop_assert!(visit.variables.get(b"REMOTE_USER").is_none());
    }
}

#[test]
fn what_is_guarded_by_its_path_has_one_path() {
    let guards: [&[(&str, &str)]; 4] = [
        &[("route", "^/admin break:403")],
        &[("route", "^/public last:"), ("route-run", "basicauth:x,a:b")],
        &[("route-if", "startswith:${lower[PATH_INFO]};/admin return:403")],
        &[
            ("route-uri", "^/admin goto:out"),
            ("route-run", "last:"),
            ("route-label", "out"),
            ("route-run", "break:403"),
        ],
    ];
    for texts in guards {
        for path in ["/./admin", "/x/../admin", "/admin/..", "..", "/."] {
            assert_eq!(outcome(texts, &[("PATH_INFO", path)]).0, "page 400", "{texts:?} {path}");
        }
        assert_ne!(outcome(texts, &[("PATH_INFO", "/.well-known/..x/a.")]).0, "page 400", "{texts:?}");
    }
    let others: [&[(&str, &str)]; 3] = [
        &[("route", "^/healthz donotlog:")],
        &[("route-run", "basicauth:x,:"), ("route-user-agent", "bot break:403")],
        &[("route", "^/$ redirect:/index")],
    ];
    for texts in others {
        assert_ne!(outcome(texts, &[("PATH_INFO", "/./admin")]).0, "page 400", "{texts:?}");
    }
}

#[test]
fn a_client_s_parent_directory_is_none_of_the_configuration_s() {
    let of = |rule: &str, path: &str| outcome(&[("route", rule)], &[("PATH_INFO", path)]).0;
    assert_eq!(of("^/m/(.*) static:/srv/app/../media/$1", "/m/a"), "static /srv/app/../media/a");
    assert_eq!(of("^/m/(.*) static:/srv/app/../media/$1", "/m/../secret"), "page 403");
    assert_eq!(of("^/m/(.*) file:filename=/srv/app/../media/$1", "/m/x/../../secret"), "page 403");
    assert_eq!(of("^/m/(.*) static:/srv/..$1", "/m//../x"), "page 403");
    assert_eq!(of("^/m/(.*) static:/srv/.$1", "/m/./x"), "page 403");
}
