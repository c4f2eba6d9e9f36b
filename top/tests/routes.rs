//! The program without a terminal: what is inside of a pool, as routes, phases and findings, from recordings.
#![allow(clippy::unwrap_used)]

mod pool_recording;
mod program;
mod stats_server;

use pool_recording::{Pool, record};
use program::{Scratch, rtop, text};
use serde_json::Value;

fn recording(name: &str, pool: Pool) -> Scratch {
    let scratch = Scratch::new(name);
    record(&scratch.0, pool, 40);
    scratch
}

fn last_line(output: &std::process::Output) -> Value {
    serde_json::from_str(text(&output.stdout).lines().last().unwrap()).unwrap()
}

#[test]
fn what_is_wrong_is_in_json_and_in_tables_and_can_be_asserted() {
    let (full, well) = (recording("full.rtop", Pool::Full), recording("well.rtop", Pool::Well));
    let line = last_line(&rtop(&["--replay", full.path(), "--json"]));
    let found = &line["findings"][0];
    assert_eq!(found["rule"], "saturated");
    let sentence = found["sentence"].as_str().unwrap();
    assert!(sentence.starts_with("4 of 4 threads busy for 3"), "{sentence}");
    assert!(sentence.ends_with("queue p95 901ms, 95 % of the time in `orders.views.export`"), "{sentence}");
    assert!(!found["evidence"].as_array().unwrap().is_empty());
    assert_eq!(last_line(&rtop(&["--replay", well.path(), "--json"]))["findings"], serde_json::json!([]));

    let table = text(&rtop(&["--replay", full.path()]).stdout);
    assert!(table.contains("! 4 of 4 threads busy for 3"), "{table}");
    let findings = |path: &str| rtop(&["--replay", path, "--assert", "findings == 0"]).status.code();
    assert_eq!((findings(full.path()), findings(well.path())), (Some(1), Some(0)));
}

#[test]
fn a_route_is_asserted_by_its_name_and_one_that_nobody_asked_for_is_not_measured() {
    let (well, junit) = (recording("routes.rtop", Pool::Well), Scratch::new("routes.xml"));
    let judged = |assertions: &[&str]| {
        let each = assertions.iter().flat_map(|assertion| ["--assert", assertion]);
        let arguments: Vec<&str> = ["--replay", well.path(), "--junit", junit.path()].into_iter().chain(each).collect();
        let output = rtop(&arguments);
        (output.status.code(), text(&output.stdout))
    };
    let (code, said) = judged(&[
        r#"route("/users/{}").p99 < 80ms"#,
        r#"route('orders.views.export').p50 > 50ms"#,
        r#"route("orders.views.export").share > 80%"#,
        r#"route("orders.views.export").errors == 0"#,
        r#"route("/users/{}").rps > 100"#,
        r#"route("/users/{}").requests >= 7000"#,
    ]);
    assert_eq!(code, Some(0), "{said}");
    assert!(junit.read().contains("/users/{}"), "{}", junit.read());
    let (code, said) = judged(&[r#"route("orders.views.export").p99 < 50ms"#]);
    assert_eq!(code, Some(1), "{said}");
    // Whatever is asked of it: nobody has seen that it holds.
    for assertion in ["errors == 0", "requests == 0", "p99 < 1s", "rps >= 0", "share < 50%", "exceptions < 1"] {
        let (code, said) = judged(&[&format!(r#"route("/user/{{}}").{assertion}"#)]);
        assert_eq!(code, Some(2), "{assertion}: {said}");
        assert!(said.contains(r#"no requests of the route "/user/{}"; did you mean "/users/{}"?"#), "{said}");
    }
    let (code, said) = judged(&["p99 < 1s", r#"route("/nowhere").errors == 0"#]);
    assert_eq!(code, Some(2), "{said}");
    let output = rtop(&["--replay", well.path(), "--assert", r#"route("/users/{}").p98 < 80ms"#]);
    let said = text(&output.stderr);
    assert!(output.status.code() == Some(2) && said.contains("did you mean 'p9"), "{said}");
}

#[test]
fn a_server_that_does_not_tell_of_routes_is_not_measured() {
    let server = stats_server::Server::start(program::counting);
    let output = rtop(&[&server.address, "-f", "0.02", "-n", "3", "--assert", r#"route("/").errors == 0"#]);
    let said = text(&output.stdout);
    assert_eq!(output.status.code(), Some(2), "{said}");
    assert!(said.contains("routes: the server does not tell"), "{said}");
}

#[test]
fn json_has_the_routes_and_the_phases() {
    let well = recording("json.rtop", Pool::Well);
    let line = last_line(&rtop(&["--replay", well.path(), "--json"]));
    let routes = line["routes"].as_array().unwrap();
    let export = routes.iter().find(|route| route["route"] == "orders.views.export").unwrap();
    assert_eq!((&export["rps"], &export["requests_total"]), (&Value::from(20), &Value::from(800)));
    assert!(export["p99"].as_u64().unwrap() >= 80_000);
    assert_eq!(export["last_exception"], "KeyError: 'total'");
    assert!(line["phases"]["application"]["p50"].as_u64().unwrap() >= 9_000);
}
