//! A profile as a tree of functions: what a flame graph draws.

use std::collections::HashMap;

use rwsgi_stats::control::{Frame, Profile, ThreadState};

use super::threads::{STATES, States, place_of};

/// What stands between the root and the functions.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, clap::ValueEnum)]
pub(crate) enum By {
    /// Nothing.
    #[default]
    #[value(skip)]
    Nothing,
    /// The routes of the requests.
    Route,
    /// What the threads were doing.
    State,
}

impl By {
    /// The next way to group.
    pub(crate) fn next(self) -> Self {
        match self {
            Self::Nothing => Self::Route,
            Self::Route => Self::State,
            Self::State => Self::Nothing,
        }
    }

    /// Of a stack.
    pub(crate) fn group(self, route: &str, state: ThreadState) -> Option<&str> {
        match self {
            Self::Nothing => None,
            Self::Route if route.is_empty() => Some("(no route)"),
            Self::Route => Some(route),
            Self::State => Some(STATES[place_of(state)].does),
        }
    }
}

/// A function where it was called, and the samples in it.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Node {
    /// The function, or the group.
    pub(crate) name: String,
    /// Its file; empty for a group.
    pub(crate) file: String,
    /// The line that was seen most often in it, 0 when it is unknown.
    pub(crate) line: u32,
    /// Samples in it and in what it called.
    pub(crate) total: States,
    /// Samples in itself.
    pub(crate) own: u64,
    /// The caller's place in the tree; the root is its own.
    pub(crate) parent: usize,
    /// What it called, the most samples first.
    pub(crate) children: Vec<usize>,
    /// Callers up to the root, which has 0.
    pub(crate) depth: usize,
}

impl Node {
    /// Where the function is: `views.py:41`; empty for a group.
    pub(crate) fn place(&self) -> String {
        place(&self.file, self.line)
    }

    /// The function and where it is, for a label.
    pub(crate) fn label(&self) -> String {
        if self.file.is_empty() { self.name.clone() } else { format!("{} ({})", self.name, self.place()) }
    }
}

/// A file and a line as they are shown.
pub(crate) fn place(file: &str, line: u32) -> String {
    let file = super::threads::short_file(file);
    if line == 0 || file.is_empty() { file.to_owned() } else { format!("{file}:{line}") }
}

/// The functions of a profile. A node stands behind its parent. It is of the samples that the stacks tell.
#[derive(Clone, Debug)]
pub(crate) struct Tree {
    nodes: Vec<Node>,
}

/// Nodes of a tree: no more are built, and what would be below is the caller's own. No screen and no file shows so many.
const MOST_NODES: usize = 500_000;

impl Tree {
    /// Of a profile, grouped.
    pub(crate) fn of(profile: &Profile, by: By) -> Self {
        let root = Node { name: "all requests".to_owned(), ..Node::default() };
        let mut building = Building { nodes: vec![root], known: HashMap::new(), lines: vec![HashMap::new()] };
        for stack in &profile.stacks {
            let frames = stack.frames.iter().filter_map(|place| profile.frames.get(*place as usize));
            let mut at = 0;
            building.nodes[0].total.add(stack.state, stack.count);
            if let Some(group) = by.group(&stack.route, stack.state) {
                at = building.step(at, group, "", 0, stack.count);
                building.nodes[at].total.add(stack.state, stack.count);
            }
            for Frame { function, file, line } in frames {
                let next = building.step(at, function, file, *line, stack.count);
                if next == at {
                    break;
                }
                at = next;
                building.nodes[at].total.add(stack.state, stack.count);
            }
            let own = &mut building.nodes[at].own;
            *own = own.saturating_add(stack.count);
        }
        building.finish()
    }

    /// A node, by its place; the root is at 0.
    pub(crate) fn node(&self, place: usize) -> &Node {
        &self.nodes[place.min(self.nodes.len() - 1)]
    }

    /// How many nodes there are, at least the root.
    pub(crate) fn len(&self) -> usize {
        self.nodes.len()
    }

    /// Samples of a node and of what it called.
    pub(crate) fn samples(&self, place: usize) -> u64 {
        self.node(place).total.sum()
    }

    /// A node's share of all samples.
    pub(crate) fn share(&self, place: usize) -> f64 {
        self.samples(place) as f64 / self.samples(0).max(1) as f64
    }

    /// Whether a node is `ancestor` or was called from it.
    pub(crate) fn is_within(&self, place: usize, ancestor: usize) -> bool {
        let depth = self.node(ancestor).depth;
        let mut at = place;
        while self.node(at).depth > depth {
            at = self.node(at).parent;
        }
        at == ancestor
    }

    /// By node whether its name or file passes, and the share of samples with one that does anywhere in their stack.
    pub(crate) fn matches(&self, passes: impl Fn(&Node) -> bool) -> (Vec<bool>, f64) {
        let mut covered = vec![false; self.nodes.len()];
        let mut matched = vec![false; self.nodes.len()];
        let mut samples = 0u64;
        // A caller stands before what it called.
        for (place, node) in self.nodes.iter().enumerate().skip(1) {
            matched[place] = passes(node);
            covered[place] = covered[node.parent] || matched[place];
            if matched[place] && !covered[node.parent] {
                samples = samples.saturating_add(node.total.sum());
            }
        }
        (matched, samples as f64 / self.samples(0).max(1) as f64)
    }
}

struct Building<'p> {
    nodes: Vec<Node>,
    known: HashMap<(usize, &'p str, &'p str), usize>,
    /// By node, its lines and their samples.
    lines: Vec<HashMap<u32, u64>>,
}

impl<'p> Building<'p> {
    /// The node of a function called from `at`; `at` itself when there are too many.
    fn step(&mut self, at: usize, name: &'p str, file: &'p str, line: u32, count: u64) -> usize {
        let place = match self.known.get(&(at, name, file)) {
            Some(place) => *place,
            None if self.nodes.len() >= MOST_NODES => return at,
            None => {
                let place = self.nodes.len();
                let depth = self.nodes[at].depth + 1;
                let (name_, file_) = (name.to_owned(), file.to_owned());
                self.nodes.push(Node { name: name_, file: file_, parent: at, depth, ..Node::default() });
                self.lines.push(HashMap::new());
                self.nodes[at].children.push(place);
                self.known.insert((at, name, file), place);
                place
            }
        };
        let samples = self.lines[place].entry(line).or_default();
        *samples = samples.saturating_add(count);
        place
    }

    fn finish(self) -> Tree {
        let Self { mut nodes, lines, .. } = self;
        for (node, lines) in nodes.iter_mut().zip(lines) {
            let most = lines.into_iter().max_by_key(|(line, count)| (*count, std::cmp::Reverse(*line)));
            node.line = most.map_or(0, |(line, _)| line);
        }
        let weights: Vec<(u64, String)> = nodes.iter().map(|node| (node.total.sum(), node.name.clone())).collect();
        for node in &mut nodes {
            node.children
                .sort_by(|a, b| weights[*b].0.cmp(&weights[*a].0).then_with(|| weights[*a].1.cmp(&weights[*b].1)));
        }
        Tree { nodes }
    }
}

#[cfg(test)]
pub(crate) mod tests {
    use super::*;
    use proptest::prelude::*;
    use rwsgi_stats::control::ProfileStack;

    /// A profile of stacks: the route, the state, the functions as `name file:line` from the outermost on, the samples.
    pub(crate) fn profile(stacks: &[(&str, ThreadState, &[&str], u64)]) -> Profile {
        let mut profile = Profile { micros: 10_000_000, rate: 100, ..Profile::default() };
        for (route, state, functions, count) in stacks {
            let frames = functions.iter().map(|text| {
                let (name, place) = text.split_once(' ').unwrap();
                let (file, line) = place.rsplit_once(':').unwrap();
                let frame = Frame { function: name.into(), file: file.into(), line: line.parse().unwrap() };
                let known = profile.frames.iter().position(|known| *known == frame);
                known.unwrap_or_else(|| {
                    profile.frames.push(frame);
                    profile.frames.len() - 1
                }) as u32
            });
            let frames = frames.collect();
            profile.stacks.push(ProfileStack { route: (*route).to_owned(), state: *state, frames, count: *count });
            profile.samples += count;
        }
        profile
    }

    /// Sixty-two of a hundred samples wait for a database, the others run, wait for the GIL, or for a lock.
    pub(crate) fn shop() -> Profile {
        const DB: &str = "execute /venv/lib/python3.12/site-packages/psycopg/cursor.py:97";
        const WSGI: &str = "__call__ /venv/lib/python3.12/site-packages/django/core/handlers/wsgi.py:124";
        profile(&[
            ("/orders/{}", ThreadState::Database, &[WSGI, "export /srv/shop/views.py:41", DB], 620),
            (
                "/orders/{}",
                ThreadState::Gil,
                &[WSGI, "export /srv/shop/views.py:44", "dumps /usr/lib/python3.12/json/__init__.py:231"],
                90,
            ),
            (
                "/search",
                ThreadState::Running,
                &[WSGI, "search /srv/shop/search.py:12", "rank /srv/shop/search.py:30"],
                200,
            ),
            ("/search", ThreadState::Gil, &[WSGI, "search /srv/shop/search.py:13"], 30),
            (
                "",
                ThreadState::Lock,
                &[WSGI, "cached /srv/shop/cache.py:8", "acquire /usr/lib/python3.12/threading.py:300"],
                60,
            ),
        ])
    }

    fn sound(tree: &Tree) {
        for place in 0..tree.len() {
            let node = tree.node(place);
            let below: u64 = node.children.iter().map(|child| tree.samples(*child)).sum();
            assert_eq!(below + node.own, node.total.sum(), "what is below a node and its own are all of it");
            assert!(node.children.iter().all(|child| *child > place && tree.node(*child).parent == place));
            assert!(node.children.is_sorted_by_key(|child| std::cmp::Reverse(tree.samples(*child))));
        }
    }

    #[test]
    fn functions_are_put_together_whatever_their_lines() {
        let profile = shop();
        let tree = Tree::of(&profile, By::Nothing);
        sound(&tree);
        let django = tree.node(0).children[0];
        let export = tree.node(django).children[0];
        let node = tree.node(export);
        assert_eq!((node.label().as_str(), tree.samples(export)), ("export (views.py:41)", 710));
        assert_eq!(node.total.shares().map(|(name, _)| name.word).collect::<Vec<_>>(), ["gil", "database"]);
    }

    #[test]
    fn groups_stand_below_the_root() {
        let profile = shop();
        for (by, names) in [
            (By::Route, &["/orders/{}", "/search", "(no route)"][..]),
            (By::State, &["waiting for a database", "running", "waiting for the global lock", "waiting for a lock"]),
        ] {
            let tree = Tree::of(&profile, by);
            sound(&tree);
            let groups: Vec<&str> = tree.node(0).children.iter().map(|place| tree.node(*place).name.as_str()).collect();
            assert_eq!(groups, names);
            assert_eq!(tree.samples(0), 1_000);
        }
    }

    #[test]
    fn a_search_counts_each_sample_once() {
        let tree = Tree::of(&shop(), By::Nothing);
        let (matched, share) = tree.matches(|node| node.file.contains("search.py"));
        assert_eq!(matched.iter().filter(|matched| **matched).count(), 2);
        assert!((share - 0.23).abs() < 1e-9, "rank is within search: {share}");
    }

    #[test]
    fn the_deepest_recursion_is_a_tree_as_well() {
        let deep: Vec<String> = (0..5_000).map(|depth| format!("f{} /srv/a.py:{depth}", depth % 3)).collect();
        let deep: Vec<&str> = deep.iter().map(String::as_str).collect();
        let tree = Tree::of(&profile(&[("", ThreadState::Running, &deep, 3)]), By::Nothing);
        sound(&tree);
        assert_eq!(tree.node(tree.len() - 1).depth, 5_000);
    }

    pub(crate) fn any_profile() -> impl Strategy<Value = Profile> {
        let state = prop::sample::select(STATES.iter().map(|name| name.state).collect::<Vec<_>>());
        let stack =
            (prop::sample::select(vec!["", "/a", "/b"]), state, prop::collection::vec(0..8u32, 0..8), 0..1_000u64);
        let frames = prop::collection::vec(("[a-c]", "[a-b]\\.py", 0..4u32), 0..7);
        (prop::collection::vec(stack, 0..12), frames).prop_map(|(stacks, frames)| {
            let stack = |(route, state, frames, count): (&str, _, _, _)| ProfileStack {
                route: route.to_owned(),
                state,
                frames,
                count,
            };
            let frame = |(function, file, line)| Frame { function, file, line };
            Profile {
                samples: stacks.iter().map(|(_, _, _, count)| count).sum(),
                stacks: stacks.into_iter().map(stack).collect(),
                frames: frames.into_iter().map(frame).collect(),
                ..Profile::default()
            }
        })
    }

    proptest! {
        #[test]
        fn no_sample_is_lost_or_counted_twice(profile in any_profile()) {
            for by in [By::Nothing, By::Route, By::State] {
                let tree = Tree::of(&profile, by);
                sound(&tree);
                prop_assert_eq!(tree.samples(0), profile.samples);
                let own: u64 = (0..tree.len()).map(|place| tree.node(place).own).sum();
                prop_assert_eq!(own, profile.samples);
                let (_, all) = tree.matches(|_| true);
                prop_assert!(all <= 1.0);
            }
        }
    }
}
