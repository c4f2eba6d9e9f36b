use std::time::Duration;

use proptest::prelude::*;
use quick_xml::Reader;
use quick_xml::escape::unescape;
use quick_xml::events::Event as Xml;
use serde_json::{Value, json};

use super::*;
use crate::report::judge::{Judge, Phases};
use crate::source::{EndedBy, Ending, LocalMicros, Poll, SourceError, parse};
use rwsgi_assertions::Assertion;

const HOSTILE: &str = "</script><script>alert(1)</script>\"'&amp;<!-- ]]> \u{1b}[2J\u{202e}";

/// The page of servers that answered so, a sample a second.
fn page(servers: &[(&str, Vec<Option<Value>>)], assertions: &[&str], warmup: u64) -> String {
    let mut pools: Vec<Pool> = servers.iter().map(|(label, _)| Pool::new((*label).into(), None)).collect();
    let mut tracks: Vec<Track> = servers.iter().map(|_| Track::default()).collect();
    let assertions: Vec<Assertion> = assertions.iter().map(|text| text.parse().unwrap()).collect();
    let phases = Phases { warmup: Duration::from_secs(warmup), window: None };
    let labels = pools.iter().map(|pool| pool.label.clone());
    let mut judge = Judge::new(&assertions, &[], labels, phases, Duration::from_secs(1));
    let length = servers.iter().map(|(_, documents)| documents.len()).max().unwrap_or(0);
    for second in 0..length {
        for (target, (_, documents)) in servers.iter().enumerate() {
            let Some(document) = documents.get(second) else { continue };
            let micros = second as u64 * 1_000_000;
            let (at, taken) = (Monotonic::from_micros(micros), LocalMicros(1_795_227_110_000_000 + micros));
            let outcome =
                document.as_ref().map_or(Err(SourceError::Empty), |document| parse(document.to_string().into_bytes()));
            let (pool, track) = (&mut pools[target], &mut tracks[target]);
            pool.ingest(Poll { target, at, taken, outcome });
            track.take(pool, at, taken);
            match &pool.trouble {
                Some(trouble) => judge.failed(target, &trouble.message),
                None => {
                    let _ = judge.push(target, pool, taken);
                }
            }
        }
    }
    let at = Monotonic::from_micros(length.saturating_sub(1) as u64 * 1_000_000);
    let (watched, samples) = (judge.watched(), judge.counted());
    let verdict = judge.finish(&Ending { at, by: EndedBy::Time, why: None });
    let zone = TimeZone::UTC;
    let page = Page { verdict: &verdict, watched: &watched, pools: &pools, tracks: &tracks, samples, zone: &zone };
    page.html()
}

/// A document of rwsgi.
fn rwsgi(second: u64, change: impl FnOnce(&mut Value)) -> Option<Value> {
    let counts = rwsgi_stats::latency::from_counts([(rwsgi_stats::latency::index_of(900), second * 40)]);
    let latency = rwsgi_stats::latency::encode(&counts);
    let mut document = json!({
        "version": "1.2.3", "server": "rwsgi", "pid": 7, "generation": 1, "now": (second + 9) * 1_000_000,
        "latency": latency, "cwd": "/srv",
        "workers": [{"id": 1, "pid": 8, "status": "idle", "requests": second * 40, "exceptions": second, "rss": 9_000_000,
            "respawn_count": 1, "latency": latency, "cores": [{"id": 0}],
            "responses": {"2xx": second * 39, "5xx": second}}],
    });
    change(&mut document);
    Some(document)
}

/// Every text and every attribute of a page, as a reader of it sees them; the page has to be well-formed for that.
fn texts(page: &str) -> Vec<String> {
    let mut reader = Reader::from_str(page);
    let mut texts = Vec::new();
    let mut open = 0;
    loop {
        match reader.read_event().unwrap_or_else(|error| panic!("at {}: {error}", reader.error_position())) {
            Xml::Eof => break,
            event @ (Xml::Start(_) | Xml::Empty(_)) => {
                open += i32::from(matches!(event, Xml::Start(_)));
                let (Xml::Start(tag) | Xml::Empty(tag)) = event else { continue };
                for attribute in tag.attributes() {
                    let value = attribute.unwrap().value;
                    texts.push(unescape(str::from_utf8(&value).unwrap()).unwrap().into_owned());
                }
            }
            Xml::End(_) => open -= 1,
            Xml::Text(text) => texts.push(text.decode().unwrap().into_owned()),
            Xml::GeneralRef(name) => texts.push(unescape(&format!("&{};", name.decode().unwrap())).unwrap().into()),
            _ => {}
        }
    }
    assert_eq!(open, 0);
    texts
}

fn is_self_contained(page: &str) {
    for forbidden in ["<script", "src=", "href=", "url(", "@import", "javascript:", "onload", "\u{1b}", "\u{202e}"] {
        assert!(!page.contains(forbidden), "{forbidden:?}");
    }
    assert!(page.contains("default-src 'none'") || page.contains("default-src &#39;none&#39;"));
}

#[test]
fn what_a_hostile_server_sends_is_text() {
    let documents = (0..4u64).map(|second| {
        rwsgi(second, |document| {
            for key in ["version", "server", "hostname", "python", "cwd"] {
                document[key] = json!(HOSTILE);
            }
            document["workers"][0]["status"] = json!(HOSTILE);
            document["workers"][0]["last_exception"] = json!({
                "type": HOSTILE, "message": HOSTILE, "where": HOSTILE, "traceback": [HOSTILE, "second"], "when": 5,
                "request": HOSTILE,
            });
        })
    });
    let page = page(&[(HOSTILE, documents.collect())], &["p99 < 1us", "rps > 1"], 0);
    is_self_contained(&page.replace(POLICY, "default-src 'none'"));
    let texts = texts(&page).concat();
    assert!(texts.matches("alert(1)").count() >= 8, "it is told, as text");
}

#[test]
fn a_page_of_every_kind_of_run_is_well_formed() {
    let fixture = |name: &str| -> Option<Value> {
        let path = format!("{}/../shared/tests/fixtures/{name}.json", env!("CARGO_MANIFEST_DIR"));
        Some(serde_json::from_slice(&std::fs::read(path).unwrap()).unwrap())
    };
    let good = |length: u64| (0..length).map(|second| rwsgi(second, |_| {})).collect::<Vec<_>>();
    let uwsgi = || vec![fixture("uwsgi-busy-cheap"), fixture("uwsgi-busy-cheap"), fixture("uwsgi-busy-cheap")];
    let never = || vec![None, None, None];
    for (servers, told) in [
        (vec![("web1", good(0))], "It never answered."),
        (vec![("web1", good(1))], "rwsgi-1.2.3"),
        (vec![("web1", never())], "no sample any more"),
        (vec![("web1", good(2))], "Latency heat map"),
        (vec![("web1", good(1_000))], "Latency heat map"),
        (vec![("web1", uwsgi())], "Without a chart"),
        (vec![("web1", good(3)), ("web2", uwsgi()), ("web3", never())], "together"),
    ] {
        for assertions in [&[][..], &["p99 < 50ms", "exceptions == 0", "restarts == 0"]] {
            for warmup in [0, 1, 100] {
                let page = page(&servers, assertions, warmup);
                is_self_contained(&page.replace(POLICY, "default-src 'none'"));
                let texts = texts(&page);
                assert!(texts.iter().any(|text| text.contains(told)), "{told}");
                assert!(texts.iter().all(|text| !text.contains("NaN") && !text.contains("inf%")), "{told}");
            }
        }
    }
}

#[test]
fn each_worker_s_memory_has_a_line_and_of_many_the_largest_have() {
    let run = |workers: u64| {
        let documents = (0..5u64).map(|second| {
            let worker = |id: u64| {
                let rss = if second == 2 && id == 1 { 0 } else { (50 << 20) + id * 100_000 + second * 7_000 };
                json!({"id": id, "pid": id, "requests": second, "rss": rss, "cores": [{"id": 0}]})
            };
            Some(json!({"version": "1", "pid": 7, "workers": (1..=workers).map(worker).collect::<Vec<_>>()}))
        });
        let page = page(&[("web1", documents.collect())], &[], 0);
        is_self_contained(&page.replace(POLICY, "default-src 'none'"));
        texts(&page);
        let figure = page.split("<figure>").find(|figure| figure.contains("<h3>Memory by worker</h3>"));
        figure.map(|figure| figure.split("</figure>").next().unwrap().to_owned())
    };
    let lines =
        |figure: &str| ["line l", "class=\"rest\"", "class=\"band\""].map(|class| figure.matches(class).count());
    let titles = |figure: &str| {
        let head = figure.split("<thead>").nth(1).unwrap().split("</thead>").next().unwrap();
        head.matches("<th").count() - 2
    };
    for (workers, drawn, columns) in [(1, [1, 0, 0], 1), (3, [3, 0, 0], 3), (11, [3, 8, 0], 11), (64, [3, 0, 1], 5)] {
        let figure = run(workers).unwrap();
        assert_eq!((lines(&figure), titles(&figure)), (drawn, columns), "{workers}");
        assert!(figure.contains(&format!("worker {workers}<small> at most ")), "{workers}");
        assert_eq!(figure.contains(&format!("{} other", workers - workers.min(3))), workers > 3);
    }
    assert_eq!(run(0), None, "who has no workers tells none");
}

#[test]
fn what_happened_is_marked_and_told() {
    let documents = (0..8u64).map(|second| match second {
        4 => None,
        _ => rwsgi(second, |document| {
            document["pid"] = json!(if second >= 6 { 70 } else { 7 });
            document["generation"] = json!(if second >= 2 { 2 } else { 1 });
            document["workers"][0]["respawn_count"] = json!(if second >= 2 { 2 } else { 1 });
        }),
    });
    let page = page(&[("web1", documents.collect())], &["exceptions == 0", "restarts == 1"], 1);
    let texts = texts(&page);
    for told in [
        "FAIL",
        "gen 2",
        "restart",
        "warm-up",
        "no sample",
        "generation 2 of the application was loaded",
        "the server was restarted",
        "a process was started: worker 1",
        "no sample until +5.0s: the server closed the connection without an answer",
        "the worst of 'exceptions == 0'",
    ] {
        assert!(texts.iter().any(|text| text == told), "{told}: {texts:?}");
    }
    // The same in the charts.
    for class in ["restart", "generation", "respawn", "silent", "warmup", "worst", "q7", "line l1"] {
        assert!(page.contains(&format!("class=\"{class}\"")), "{class}");
    }
}

#[test]
fn the_verdict_is_the_one_that_is_printed() {
    let documents = (0..5).map(|second| rwsgi(second, |_| {})).collect();
    let page = page(&[("web1", documents)], &["p99 < 50ms", "exceptions == 0", "pss.sum < 1GiB"], 0);
    let rows: Vec<&str> = page.split("<tr class=\"").skip(1).map(|row| row.split("</tr>").next().unwrap()).collect();
    let cells = |row: &str| {
        let cells = row.split("<span>").skip(1).map(|cell| cell.split("</span>").next().unwrap().to_owned());
        cells.collect::<Vec<_>>()
    };
    assert_eq!(cells(rows[0])[..3], ["p99 &lt; 50ms", "903µs", "pass"].map(str::to_owned));
    assert_eq!(
        cells(rows[1]),
        ["exceptions == 0", "4", "FAIL", "worker 1: 4", "02:11:51 +1.0s", "4"].map(str::to_owned)
    );
    assert_eq!(cells(rows[2])[1..3], ["the server does not tell", "not measured"].map(str::to_owned));
}

proptest! {
    #[test]
    fn any_text_comes_back_from_markup(text in any::<String>(), value in any::<String>()) {
        let mut markup = Markup::document();
        markup.element("p", &[("title", &value)], |markup| markup.text(&text));
        let plain = |text: &str| {
            let keep = |c: char| !c.is_control() && !('\u{fffd}'..='\u{ffff}').contains(&c) && !c.is_whitespace();
            text.chars().filter(|c| keep(*c)).collect::<String>()
        };
        let read: Vec<String> = texts(&markup.finish()).iter().map(|text| plain(text)).collect();
        // After the end of the line of the document type.
        prop_assert_eq!(&read[1], &plain(&value));
        prop_assert!(read.concat().ends_with(&plain(&text)));
    }
}
