//! A thousand random fleets in which nothing is wrong: servers of different speed and share of the load, latencies with long
//! tails, now and then an error. How many of them have a finding is the rate of false alarms; and as many with a server that
//! is three times as slow, to see that silence is not all there is.

use super::{Second, Watched};

const FLEETS: u64 = 1_000;
const SECONDS: u64 = 35;
/// Long enough for what was before to be forgotten.
const LONGER: u64 = 60;

/// SplitMix64.
struct Random(u64);

impl Random {
    fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }

    /// From 0 to 1.
    fn uniform(&mut self) -> f64 {
        (self.next() >> 11) as f64 / (1u64 << 53) as f64
    }

    fn between(&mut self, low: f64, high: f64) -> f64 {
        low + (high - low) * self.uniform()
    }

    fn normal(&mut self) -> f64 {
        (-2.0 * self.uniform().max(1e-300).ln()).sqrt() * (std::f64::consts::TAU * self.uniform()).cos()
    }

    /// How many of something that happens so often on average.
    fn poisson(&mut self, mean: f64) -> u64 {
        let limit = (-mean).exp();
        let (mut count, mut product) = (0, self.uniform());
        while product > limit {
            count += 1;
            product *= self.uniform();
        }
        count
    }
}

struct Nature {
    /// Requests per second.
    rate: f64,
    speed: f64,
    memory: f64,
}

/// A fleet with a nature of its own; `slow` makes its first server so many times as slow after a while. Returns whether
/// something was found, and whether that was that server.
fn watch(random: &mut Random, seconds: u64, slow: f64) -> (Vec<&'static str>, bool) {
    let servers = 4 + (random.uniform().powi(3) * 20.0) as usize;
    let rate = random.between(2.0, 25.0);
    let middle = random.between(2_000.0, 60_000.0);
    let spread = random.between(0.3, 1.1);
    // A second kind of request that is slower, as reports are.
    let (reports, much) = (random.between(0.0, 0.08), random.between(3.0, 30.0));
    let failing = if random.uniform() < 0.5 { 0.0 } else { random.between(0.0, 0.05) };
    let natures: Vec<Nature> = (0..servers)
        .map(|_| Nature {
            rate: rate * (0.25 * random.normal()).exp(),
            speed: (0.12 * random.normal()).exp(),
            memory: (0.12 * random.normal()).exp(),
        })
        .collect();
    let mut watched = Watched::new(servers, |_| Vec::new());
    let mut rules = Vec::new();
    let mut is_right = false;
    for second in 0..seconds {
        watched.second(|place| {
            let nature = &natures[place];
            let factor = if place == 0 && second >= 10 { slow } else { 1.0 };
            let requests = random.poisson(nature.rate);
            let latencies: Vec<u64> = (0..requests)
                .map(|_| {
                    let kind = if random.uniform() < reports { much } else { 1.0 };
                    let micros = middle * nature.speed * factor * kind * (spread * random.normal()).exp();
                    // To a twelfth, so that histograms stay small.
                    ((12.0 * micros.ln()).round() / 12.0).exp().min(60e6) as u64
                })
                .collect();
            let errors = (0..requests).filter(|_| random.uniform() < failing).count() as u64;
            let busy = (latencies.iter().sum::<u64>() as f64 / 1e6 + random.uniform()).min(8.0) as u32;
            let rss = (300e6 * nature.memory * (1.0 + 0.05 * random.uniform())) as u64;
            Some(Second { latencies, errors, busy, rss, generation: 1 })
        });
        for outlier in watched.found() {
            is_right |= outlier.server == "web0" && outlier.rule().name == "slow";
            if !rules.contains(&outlier.rule().name) {
                rules.push(outlier.rule().name);
            }
        }
    }
    (rules, is_right)
}

#[test]
fn fewer_than_one_in_a_hundred_healthy_fleets_has_a_finding() {
    let mut found = Vec::new();
    for seed in 0..FLEETS {
        let (rules, _) = watch(&mut Random(seed), SECONDS, 1.0);
        found.extend(rules.into_iter().map(|rule| (seed, rule)));
    }
    let fleets: std::collections::BTreeSet<u64> = found.iter().map(|(seed, _)| *seed).collect();
    println!("{} of {FLEETS} healthy fleets have a finding: {found:?}", fleets.len());
    assert!((fleets.len() as u64) * 100 < FLEETS, "{} of {FLEETS}: {found:?}", fleets.len());
}

#[test]
fn a_server_that_is_three_times_as_slow_is_found_in_most_fleets() {
    const TRIED: u64 = 100;
    let found = (0..TRIED).filter(|seed| watch(&mut Random(*seed), LONGER, 3.0).1).count() as u64;
    println!("{found} of {TRIED} slow servers are found");
    assert!(found * 100 >= TRIED * 75, "{found} of {TRIED}");
}
