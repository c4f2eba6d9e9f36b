//! What one route did, as a window of its own: `route("/users/{}").p99 < 80ms`.

use std::collections::BTreeMap;

use crate::{Counts, Told, Window};

/// What the requests of a route did.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct RouteSum {
    /// Requests completed.
    pub requests: u64,
    /// Time in them, µs.
    pub busy: u64,
    /// Responses of 500 and more.
    pub errors: u64,
    /// Requests that raised.
    pub exceptions: u64,
    /// Bytes sent.
    pub tx: u64,
    /// Latencies.
    pub latency: Counts,
}

/// The routes that had requests, by their names.
pub type Routes = BTreeMap<String, RouteSum>;

/// Takes in what others tell of the same routes.
pub(crate) fn add(routes: &mut Routes, more: &Routes) {
    for (name, other) in more {
        let sum = routes.entry(name.clone()).or_default();
        for (sum, count) in [
            (&mut sum.requests, other.requests),
            (&mut sum.busy, other.busy),
            (&mut sum.errors, other.errors),
            (&mut sum.exceptions, other.exceptions),
            (&mut sum.tx, other.tx),
        ] {
            *sum = sum.saturating_add(count);
        }
        sum.latency.merge(&other.latency);
    }
}

impl Window {
    /// What a route did in this window, without requests when it had none; `None` when the server does not tell of routes.
    #[must_use]
    pub fn of_route(&self, route: &str) -> Option<Self> {
        let routes = self.routes.get()?;
        let of = routes.get(route).cloned().unwrap_or_default();
        let all = routes.values().map(|route| route.busy as f64).sum();
        Some(Self {
            samples: self.samples,
            restarts: self.restarts,
            seconds: self.seconds,
            requests: of.requests,
            exceptions: of.exceptions,
            tx: of.tx,
            failed: Told::Yes([0, of.errors]),
            latency: Told::Yes(of.latency),
            busy: Told::Yes((of.busy as f64, all)),
            ..Self::default()
        })
    }
}

/// The beginning of an assertion that is about a route, and what follows it: `("/users/{}", "p99 < 80ms")`. `None` when it
/// is about none, an error when the beginning cannot be read.
pub(crate) fn split(text: &str) -> Result<Option<(String, &str)>, ()> {
    let Some(rest) = text.trim_start().strip_prefix("route") else { return Ok(None) };
    let Some(rest) = rest.trim_start().strip_prefix('(') else { return Ok(None) };
    let mut characters = rest.trim_start().char_indices();
    let start = rest.len() - rest.trim_start().len();
    let quote = characters.next().map(|(_, quote)| quote).filter(|quote| matches!(quote, '"' | '\'')).ok_or(())?;
    let (mut name, mut escaped) = (String::new(), false);
    for (place, character) in characters {
        if escaped || !(character == '\\' || character == quote) {
            name.push(character);
            escaped = false;
        } else if character == '\\' {
            escaped = true;
        } else {
            let rest = rest[start + place + character.len_utf8()..].trim_start();
            let rest = rest.strip_prefix(')').and_then(|rest| rest.trim_start().strip_prefix('.')).ok_or(())?;
            return Ok(Some((name, rest)));
        }
    }
    Err(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_route_may_have_any_character_in_its_name() {
        for (text, name) in [
            (r#"route("/users/{}").p99 < 80ms"#, "/users/{}"),
            (r#" route ( '/a/<int:id>' ) . p99 < 80ms"#, "/a/<int:id>"),
            (r#"route("say \"x\" \\ = !").p99 < 80ms"#, r#"say "x" \ = !"#),
            (r#"route("(other)").p99 < 80ms"#, "(other)"),
        ] {
            let (route, rest) = split(text).unwrap().unwrap();
            assert_eq!((route.as_str(), rest.trim_start()), (name, "p99 < 80ms"), "{text}");
        }
        assert_eq!(split("p99 < 80ms"), Ok(None));
        for text in
            ["route(/users).p99 < 1s", "route(\"/users).p99 < 1s", "route(\"/users\") p99 < 1s", "route('a')p99"]
        {
            assert_eq!(split(text), Err(()), "{text}");
        }
    }

    #[test]
    fn the_share_of_a_route_is_of_the_time_of_all_routes() {
        let route = |requests, busy| RouteSum { requests, busy, ..RouteSum::default() };
        let routes = Routes::from([("/a".to_owned(), route(3, 600)), ("/b".to_owned(), route(9, 200))]);
        let mut window = Window { routes: Told::Yes(routes.clone()), seconds: 2.0, ..Window::default() };
        assert_eq!(window.of_route("/a").unwrap().busy, Told::Yes((600.0, 800.0)));
        window.then(&Window { routes: Told::Yes(routes), ..Window::default() });
        assert_eq!(window.of_route("/a").unwrap().requests, 6);
        assert_eq!(window.of_route("/c").unwrap().requests, 0);
        assert_eq!(Window::default().of_route("/a"), None);
    }
}
