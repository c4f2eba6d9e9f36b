//! Files that list servers: a line for each, or Prometheus's own format.

use std::collections::BTreeMap;

use rwsgi_stats::Address;
use serde::Deserialize;

use super::{Named, Read};
use crate::source::{Spot, Target};

/// A line for each server: its address, then what it is called, then `label=value`; `#` begins a comment.
pub(super) fn parse(text: &str) -> Read {
    let mut servers = Vec::new();
    for (number, line) in (1..).zip(text.lines()) {
        let mut words = line.split_whitespace().take_while(|word| !word.starts_with('#'));
        let Some(address) = words.next() else { continue };
        let spot: Spot = address.parse().map_err(|error| format!("line {number}: {error}"))?;
        let mut named = Named::by_address(spot);
        for word in words {
            match word.split_once('=') {
                Some((label, value)) => named.labels.push((label.to_owned(), value.to_owned())),
                None if named.name.is_empty() => word.clone_into(&mut named.name),
                None => return Err(format!("line {number}: '{word}' is neither the server's name nor label=value")),
            }
        }
        servers.push(named);
    }
    Ok(servers)
}

#[derive(Deserialize)]
struct Group {
    targets: Vec<String>,
    #[serde(default)]
    labels: BTreeMap<String, String>,
}

/// What Prometheus reads with `file_sd_configs`: groups of addresses with labels. Labels that begin with `__` are for it alone.
pub(super) fn parse_json(text: &str) -> Read {
    let groups: Vec<Group> = serde_json::from_str(text).map_err(|error| error.to_string())?;
    let mut servers = Vec::new();
    for Group { targets, labels } in groups {
        let shown: Vec<_> = labels.iter().filter(|(label, _)| !label.starts_with("__")).collect();
        for target in targets {
            let mut spot: Spot = target.parse().map_err(|error| format!("target {}: {error}", servers.len() + 1))?;
            let mut name = String::new();
            // Prometheus reads it over HTTP, and so its stats are there over HTTP too.
            if let Spot::Near(Target::Socket(address @ Address::Tcp { .. })) = spot {
                spot = Spot::Near(Target::Http { address, path: "/".to_owned() });
                name = target;
            }
            let labels = shown.iter().map(|(label, value)| ((*label).clone(), (*value).clone())).collect();
            servers.push(Named { spot, name, labels });
        }
    }
    Ok(servers)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn told(read: &Read) -> Vec<String> {
        let servers = read.as_ref().unwrap();
        servers.iter().map(|named| format!("{} {} {:?}", named.spot, named.name, named.labels)).collect()
    }

    #[test]
    fn a_line_is_a_server() {
        let text = "# the pool\n\n:9191\n  http://web1:9191/ web1 rack=a dc=x # old\nssh://me@web2/run/app.sock web2\n";
        assert_eq!(
            told(&parse(text)),
            [
                ":9191  []",
                "http://web1:9191/ web1 [(\"rack\", \"a\"), (\"dc\", \"x\")]",
                "ssh://me@web2/run/app.sock web2 []"
            ]
        );
        assert_eq!(parse("").unwrap(), []);
        for (text, line) in [(":1\n9191\n", "line 2: "), (":1 a b", "line 1: 'b'"), ("ssh://x", "line 1: ")] {
            let error = parse(text).unwrap_err();
            assert!(error.starts_with(line), "{text}: {error}");
        }
    }

    #[test]
    fn prometheus_s_own_list_is_read() {
        let text = r#"[{"targets": ["web1:9191", "http://web2:9191/"], "labels": {"rack": "a", "__scheme__": "http"}},
            {"targets": [":9191"]}]"#;
        assert_eq!(
            told(&parse_json(text)),
            [
                "http://web1:9191/ web1:9191 [(\"rack\", \"a\")]",
                "http://web2:9191/  [(\"rack\", \"a\")]",
                "http://:9191/ :9191 []"
            ]
        );
        assert!(parse_json("{}").is_err());
        assert!(parse_json(r#"[{"targets": ["9191"]}]"#).unwrap_err().contains("target 1"));
    }

    proptest! {
        #[test]
        fn any_text_is_a_list_or_says_why_not(text in "(?s).{0,200}") {
            for read in [parse(&text), parse_json(&text)] {
                if let Err(why) = read {
                    prop_assert!(!why.is_empty());
                }
            }
        }
    }
}
