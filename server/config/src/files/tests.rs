//! What each notation makes of a text. The ini and YAML cases are what uWSGI 2.0.31 makes of them, unless they say so.

use proptest::prelude::*;

use super::*;

fn pairs(notation: Notation, text: &str, section: Option<&str>) -> Vec<(String, String, usize)> {
    let pairs = notation.read(text, section).unwrap_or_else(|error| panic!("{text}: {error:?}"));
    pairs.into_iter().map(|pair| (pair.key, pair.value, pair.line)).collect()
}

fn check(notation: Notation, text: &str, section: Option<&str>, expected: &[(&str, &str, usize)]) {
    let expected: Vec<_> =
        expected.iter().map(|(key, value, line)| (key.to_string(), value.to_string(), *line)).collect();
    assert_eq!(pairs(notation, text, section), expected, "{text}");
}

fn problem(notation: Notation, text: &str) -> (usize, String) {
    let error = notation.read(text, None).unwrap_err();
    (error.line, error.problem)
}

#[test]
fn ini_values_are_the_rest_of_the_line() {
    check(
        Notation::Ini,
        "[uwsgi]\na = b = c\n  spaced\t=  x  \r\nbare\nempty =\ninline = true ; comment\nquoted = \"a b\"\n;no\n  # no\ncolon: x = C:\\y\n",
        None,
        &[
            ("a", "b = c", 2),
            ("spaced", "x", 3),
            ("bare", "", 4),
            ("empty", "", 5),
            ("inline", "true ; comment", 6),
            ("quoted", "\"a b\"", 7),
            ("colon: x", "C:\\y", 10),
        ],
    );
}

#[test]
fn only_the_section_asked_for_is_read() {
    let ini = "x = 0\n[uwsgi]\nx = 1\n[other]\nx = 2\n[uwsgi]\nx = 3\n[rwsgi]\nx = 4\n";
    check(Notation::Ini, ini, None, &[("x", "1", 3), ("x", "3", 7), ("x", "4", 9)]);
    check(Notation::Ini, ini, Some("other"), &[("x", "2", 5)]);
    let xml = "<c><uwsgi id='a'><x>1</x></uwsgi>\n<uwsgi id='b'><x>2</x></uwsgi></c>";
    check(Notation::Xml, xml, Some("b"), &[("x", "2", 2)]);
    let yaml = "uwsgi:\n  x: 1\nother:\n  x: 2\n";
    check(Notation::Yaml, yaml, Some("other"), &[("x", "2", 4)]);
    let json = "{\"uwsgi\": {\"x\": 1},\n \"other\": {\"x\": 2}}";
    check(Notation::Json, json, Some("other"), &[("x", "2", 2)]);
}

#[test]
fn what_is_no_yaml_is_read_in_lines_as_uwsgi_does() {
    let text = "# c\nother:\n  x: 1\nuwsgi:\n  ph: a=b: c\n  log: {\"t\": \"%(ftime)\", \"d\": {\"s\": %(size)}}\n  \
                quoted: \"a b\"\n  comment: x # y\n  empty:\n  list:\n    - one\n    - two\n  env: A=1\n  env: B=2\nlast: 5\n";
    check(
        Notation::Yaml,
        text,
        None,
        &[
            ("ph", "a=b: c", 5),
            ("log", "{\"t\": \"%(ftime)\", \"d\": {\"s\": %(size)}}", 6),
            ("quoted", "\"a b\"", 7),
            ("comment", "x", 8),
            ("empty", "", 9),
            ("list", "one", 10),
            ("list", "two", 12),
            ("env", "A=1", 13),
            ("env", "B=2", 14),
        ],
    );
    let (_, problem) = problem(Notation::Yaml, "uwsgi:\n  a: \"b\n  no key\n");
    assert!(problem.contains("this is not YAML"), "{problem}");
}

#[test]
fn xml_elements_are_options_and_empty_ones_are_on() {
    check(
        Notation::Xml,
        "<?xml version=\"1.0\"?>\n<!-- c -->\n<uwsgi>\n <http> :9090 </http>\n <master/>\n <env>A=&lt;b&#x41;</env><env>B</env>\n <m><![CDATA[a<b]]></m>\n</uwsgi>\n",
        None,
        &[("http", ":9090", 4), ("master", "1", 5), ("env", "A=<bA", 6), ("env", "B", 6), ("m", "a<b", 7)],
    );
}

#[test]
fn an_application_in_an_xml_element_is_a_mount() {
    check(
        Notation::Xml,
        "<uwsgi>\n<app mountpoint=\"/a\">\n<module>a:app</module>\n</app>\n<app mountpoint=\"/b\"><script>b.py</script></app><app>\n<file>c.py</file></app>\n<master/></uwsgi>",
        None,
        &[("mount", "/a=a:app", 3), ("mount", "/b=b.py", 5), ("mount", "/=c.py", 6), ("master", "1", 7)],
    );
}

#[test]
fn yaml_keeps_order_repetition_and_what_yaml_reserves() {
    check(
        Notation::Yaml,
        "---\n# c\nuwsgi:\n  http: :9090\n  master: true\n  env: A=b # comment\n  module: %n\n  y: @abs\n  z: %(http)\n  list:\n    - a\n    - b\n  n: 4\n  n: 5\n  bare:\n  quoted: 'a: b'\n",
        None,
        &[
            ("http", ":9090", 4),
            ("master", "true", 5),
            ("env", "A=b", 6),
            ("module", "%n", 7),
            ("y", "@abs", 8),
            ("z", "%(http)", 9),
            ("list", "a", 11),
            ("list", "b", 12),
            ("n", "4", 13),
            ("n", "5", 14),
            ("bare", "", 15),
            ("quoted", "a: b", 16),
        ],
    );
}

#[test]
fn json_keeps_order_and_repetition() {
    check(
        Notation::Json,
        "{\"x\": 1, \"uwsgi\": {\n \"http\": \":9090\",\n \"processes\": 4,\n \"master\": true, \"off\": false, \"nul\": null,\n \"env\": [\"A=1\", 2],\n \"http\": \":9091\"}}",
        None,
        &[
            ("http", ":9090", 2),
            ("processes", "4", 3),
            ("master", "1", 4),
            ("off", "0", 4),
            ("nul", "0", 4),
            ("env", "A=1", 5),
            ("env", "2", 5),
            ("http", ":9091", 6),
        ],
    );
}

#[test]
fn what_is_wrong_is_said_with_its_line() {
    for (notation, text, line, said) in [
        (Notation::Xml, "<uwsgi>\n<a>", 2, "not closed"),
        (Notation::Xml, "<uwsgi>\n<a><b/></a></uwsgi>", 2, "<a> holds another element"),
        (Notation::Xml, "<uwsgi>\n<app><module/></app></uwsgi>", 2, "<app> holds an element without a value"),
        (Notation::Xml, "<uwsgi>\n<app></app></uwsgi>", 2, "<app> names no application"),
        (Notation::Xml, "<uwsgi>\n<a>&foo;</a></uwsgi>", 2, "&foo; is no character"),
        (Notation::Xml, "<other/>", 1, "there is no section 'uwsgi'"),
        (Notation::Xml, "<uwsgi>\n</b>", 2, "this is not XML"),
        (Notation::Yaml, "uwsgi:\n  - a\n", 2, "expected a mapping of options"),
        (Notation::Yaml, "uwsgi:\n  a:\n    b: c\n", 3, "expected a value or a list of values for 'a'"),
        (Notation::Yaml, "- a\n", 1, "expected a mapping with a key 'uwsgi'"),
        (Notation::Yaml, "a: b\n", 1, "there is no section 'uwsgi' (there is: a)"),
        (Notation::Yaml, "uwsgi: {\n", 2, "this is not YAML"),
        (Notation::Json, "{\"uwsgi\": {\n\"a\": {}}}", 2, "'a' holds an object"),
        (Notation::Json, "{\"uwsgi\":\n 4}", 2, "expected an object"),
        (Notation::Json, "{\"uwsgi\": {\n\"a\" 4}}", 2, "expected an object 'uwsgi' of options in JSON"),
        (Notation::Json, "{}", 1, "there is no section 'uwsgi' (there is: none)"),
    ] {
        let (found, message) = problem(notation, text);
        assert!(message.contains(said) && found == line, "{text}: line {found}: {message}");
    }
}

proptest! {
    #[test]
    fn no_text_panics(text in "([\\[\\];#=%$@():&<>/{}\"', \\-a-z0-9\\n]|uwsgi|<uwsgi>|</uwsgi>|uwsgi:\n  |\\PC){0,200}") {
        for notation in [Notation::Ini, Notation::Xml, Notation::Yaml, Notation::Json] {
            let _ = notation.read(&text, None);
            let _ = notation.read(&text, Some("a"));
        }
    }

    #[test]
    fn any_change_of_a_good_file_gives_options_or_an_error_with_a_line_of_the_file(
        which in 0..GOOD.len(),
        changes in prop::collection::vec((any::<prop::sample::Index>(), 0usize..8, prop::sample::select(PIECES.to_vec())), 0..6),
    ) {
        let (notation, good) = GOOD[which];
        let mut text: Vec<char> = good.chars().collect();
        for (at, gone, new) in changes {
            let at = at.index(text.len() + 1);
            let end = text.len().min(at + gone);
            text.splice(at..end, new.chars());
        }
        let text: String = text.into_iter().collect();
        // A carriage return alone is a line break in YAML.
        let lines = text.matches(['\n', '\r']).count() + 2;
        match notation.read(&text, None) {
            Ok(pairs) => {
                prop_assert!(pairs.iter().all(|pair| (1..=lines).contains(&pair.line)), "{pairs:?}");
                // Nothing is written once and read often: no entity, no alias.
                let said: usize = pairs.iter().map(|pair| pair.value.len()).sum();
                prop_assert!(said <= 3 * text.len(), "{pairs:?}");
            }
            Err(error) => prop_assert!((1..=lines).contains(&error.line) && !error.problem.is_empty(), "{error:?}"),
        }
    }

    #[test]
    fn what_is_written_in_any_notation_reads_back(
        options in prop::collection::vec(("x-[a-z0-9-]{0,12}", "([!-~\u{e9}]([ -~\u{e9}]{0,30}[!-~])?)?"), 0..12),
    ) {
        // What ini has no way to write: a value that begins or ends in white space is none of these.
        let written = |line: fn(&str, &str) -> String| {
            options.iter().map(|(key, value)| line(key, value)).collect::<String>()
        };
        let quoted = |text: &str| serde_json::to_string(text).unwrap();
        let json: Vec<_> = options.iter().map(|(key, value)| format!("{}: {}", quoted(key), quoted(value))).collect();
        for (notation, text) in [
            (Notation::Ini, format!("[uwsgi]\n{}", written(|key, value| format!("{key} = {value}\n")))),
            (Notation::Yaml, format!("uwsgi:\n{}", written(|key, value| {
                format!("  {key}: '{}'\n", value.replace('\'', "''"))
            }))),
            (Notation::Xml, format!("<uwsgi>\n{}</uwsgi>", written(|key, value| {
                let value = value.replace('&', "&amp;").replace('<', "&lt;").replace('>', "&gt;");
                // An element without anything in it is a flag that is on.
                format!("<{key}>{value}</{key}>\n")
            }))),
            (Notation::Json, format!("{{\"uwsgi\": {{{}}}}}", json.join(",\n"))),
        ] {
            let read: Vec<_> =
                pairs(notation, &text, None).into_iter().map(|(key, value, _)| (key, value)).collect();
            prop_assert_eq!(&read, &options, "{}", text);
        }
    }
}

/// A file of each notation, with whatever it knows beyond options.
const GOOD: [(Notation, &str); 4] = [
    (Notation::Ini, "; c\n[uwsgi]\nhttp = :9090\n  env = A=b=c  \nmaster\n[other]\nx = 1\n[rwsgi]\nprocesses = 4\n"),
    (
        Notation::Xml,
        "<?xml version=\"1.0\"?><!DOCTYPE a [<!ENTITY x \"yyyyyyyyyy\">]><c><uwsgi id='a'><http>:9090</http><master/>\n\
         <env>A=&lt;b&#x41;</env><m><![CDATA[a<b]]></m><app mountpoint=\"/a\"><module>a</module></app></uwsgi></c>\n",
    ),
    (
        Notation::Yaml,
        "---\n# c\nuwsgi:\n  http: :9090\n  a: &x 'aaaaaaaaaa'\n  b: [1, \"\\u00e9\", %n]\n  list:\n    - @a\n    - |\n      \
         text\n  c: >-\n    folded\nother: {x: 1, y: [2]}\n...\n",
    ),
    (
        Notation::Json,
        "{\"x\": [1], \"uwsgi\": {\n\"http\": \":9090\", \"processes\": 4, \"master\": true, \"nul\": null,\n\"env\": \
         [\"A=\\u00e9\", 2.5e3]}}",
    ),
];

/// What is put into them.
const PIECES: [&str; 34] = [
    "",
    "",
    "\n",
    "\r",
    "\t",
    "\0",
    " ",
    "\"",
    "'",
    "\\",
    "[",
    "]",
    "{",
    "}",
    "<",
    ">",
    "</",
    "/>",
    "&",
    ";",
    "&x;",
    "*x",
    ": ",
    "- ",
    "#",
    "=",
    "%",
    "@",
    "!!",
    "|",
    "\u{feff}",
    "\u{85}",
    "\u{1f600}",
    "9999999999999999999999",
];

#[test]
fn what_is_nested_deeper_than_any_file_is_an_error_or_read() {
    let deep = |open: &str, close: &str| format!("{}{}", open.repeat(50_000), close.repeat(50_000));
    for (notation, text) in [
        (Notation::Json, deep("[", "]")),
        (Notation::Json, format!("{{\"x\": {}, \"uwsgi\": {{}}}}", deep("[", "]"))),
        (Notation::Json, format!("{{\"uwsgi\": {{\"a\": {}}}}}", deep("{\"a\":", "}"))),
        (Notation::Yaml, deep("[", "]")),
        (Notation::Yaml, format!("x: {}\nuwsgi:\n  a: 1\n", deep("[", "]"))),
        (Notation::Yaml, format!("uwsgi:\n  a: {}", deep("{a: ", "}"))),
        (Notation::Yaml, format!("uwsgi:\n  a:\n    {}", "- ".repeat(50_000))),
        (Notation::Yaml, format!("uwsgi:\n  ? {}", "? ".repeat(50_000))),
        (Notation::Xml, deep("<uwsgi>", "</uwsgi>")),
        (Notation::Xml, format!("<uwsgi><a>{}</a></uwsgi>", deep("<b>", "</b>"))),
        (Notation::Xml, format!("<c>{}<uwsgi/></c>", deep("<b>", "</b>"))),
        (Notation::Ini, "[".repeat(50_000)),
    ] {
        if let Err(error) = notation.read(&text, None) {
            assert!(!error.problem.is_empty(), "{notation:?}");
        }
    }
}
