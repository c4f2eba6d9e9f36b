//! Of generations whose truth is known, what is said of them.

use proptest::prelude::*;
use rwsgi_stats::latency;

use super::*;
use crate::{Told, metric};

/// Numbers from 0 to 1, the same in every run.
struct Dice(u64);

impl Dice {
    fn roll(&mut self) -> f64 {
        self.0 = self.0.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        ((self.0 >> 11) as f64 + 0.5) / (1u64 << 53) as f64
    }
}

/// Requests of a latency that is exponential around `mean` µs, of which this share fails.
fn window(dice: &mut Dice, requests: u64, mean: f64, failing: f64) -> Window {
    let mut histogram = latency::empty();
    let mut failed = 0;
    for _ in 0..requests {
        histogram.record((-dice.roll().ln() * mean) as u64 + 1).unwrap();
        failed += u64::from(dice.roll() < failing);
    }
    Window {
        requests,
        exceptions: failed,
        failed: Told::Yes([0, failed]),
        latency: Told::of(Counts::decode(&latency::encode(&histogram))),
        ..Window::default()
    }
}

fn said(name: &str, new: &Window, old: &Window) -> Difference {
    compare(metric(name).unwrap(), new, old).unwrap().difference
}

fn outcome(text: &str, new: &Window, old: &Window) -> Outcome {
    judge(&text.parse().unwrap(), new, Some(old), Sureness::Once).outcome
}

#[test]
fn of_two_that_are_the_same_chance_is_seldom_taken_for_a_difference() {
    let mut dice = Dice(7);
    for (name, requests) in [("p50", 200), ("p95", 400), ("p99", 2_000), ("p99", 20_000), ("error_rate", 500)] {
        let rounds = 400;
        let taken = (0..rounds).filter(|_| {
            let [new, old] = [(); 2].map(|()| window(&mut dice, requests, 10_000.0, 0.03));
            !matches!(said(name, &new, &old), Difference::WithinNoise)
        });
        let share = taken.count() as f64 / f64::from(rounds);
        assert!(share < 0.08, "{name} of {requests}: {share}");
    }
}

#[test]
fn what_is_much_slower_is_worse_and_what_is_much_faster_better() {
    let mut dice = Dice(11);
    let old = window(&mut dice, 5_000, 10_000.0, 0.01);
    let (slow, fast) = (window(&mut dice, 1_000, 20_000.0, 0.05), window(&mut dice, 1_000, 5_000.0, 0.0));
    for name in ["p50", "p90", "p99", "error_rate", "exception_rate"] {
        assert_eq!(said(name, &slow, &old), Difference::Worse, "{name}");
        assert_eq!(said(name, &fast, &old), Difference::Better, "{name}");
    }
    assert_eq!(outcome("p99 < 1.1 * previous_generation", &slow, &old), Outcome::Fail);
    assert_eq!(outcome("p99 < 1.1 * previous_generation", &fast, &old), Outcome::Pass);
    assert_eq!(outcome("p99 < 3 * previous_generation", &slow, &old), Outcome::Pass);
    assert_eq!(outcome("error_rate <= previous_generation", &slow, &old), Outcome::Fail);
    // The other way round: what must not fall.
    assert_eq!(outcome("p50 > 0.9 * previous_generation", &fast, &old), Outcome::Fail);
}

#[test]
fn of_few_requests_nothing_is_said_however_bad_they_look() {
    let mut dice = Dice(13);
    let old = window(&mut dice, 5_000, 10_000.0, 0.0);
    let few = window(&mut dice, 20, 90_000.0, 0.9);
    for name in ["p50", "p99", "error_rate"] {
        assert_eq!(said(name, &few, &old), Difference::TooFew, "{name}");
    }
    let some = window(&mut dice, 300, 90_000.0, 0.9);
    assert_eq!(said("p50", &some, &old), Difference::Worse);
    assert_eq!(said("p99", &some, &old), Difference::TooFew, "one of a hundred is not known of 300");
    assert_eq!(outcome("p99 < 1.1 * previous_generation", &some, &old), Outcome::TooFew);
    let none = Window { latency: Told::Yes(Counts::default()), ..Window::default() };
    assert_eq!(outcome("p50 < previous_generation", &none, &old), Outcome::TooFew);
    assert_eq!(outcome("p50 < previous_generation", &old, &none), Outcome::TooFew);
    assert!(matches!(compare(metric("p50").unwrap(), &none, &old), Err(Missing::NoRequests)));
}

#[test]
fn a_violation_within_noise_is_not_told_from_none() {
    let mut dice = Dice(23);
    let old = window(&mut dice, 2_000, 10_000.0, 0.0);
    let new = window(&mut dice, 2_000, 10_300.0, 0.0);
    let (a, b) = (new.latency.get().unwrap(), old.latency.get().unwrap());
    assert!(a.quantile(0.5) > b.quantile(0.5), "or this tests nothing");
    assert_eq!(outcome("p50 < previous_generation", &new, &old), Outcome::TooFew);
    let judged = judge(&"p50 < previous_generation".parse().unwrap(), &new, Some(&old), Sureness::Once);
    assert!(judged.note.unwrap().contains("no more than noise"));
}

#[test]
fn what_a_generation_does_not_tell_is_not_judged() {
    let mut dice = Dice(19);
    let window = window(&mut dice, 100, 10_000.0, 0.0);
    let judge = |text: &str, old| judge(&text.parse().unwrap(), &window, old, Sureness::Once).outcome;
    assert!(matches!(judge("rps > 5", None), Outcome::Unknown(why) if why.contains("rps is not told")));
    assert!(
        matches!(judge("p50 < previous_generation", None), Outcome::Unknown(why) if why.contains("no generation before"))
    );
    assert!(matches!(judge("p50 < baseline", None), Outcome::Unknown(why) if why.contains("baseline")));
    assert_eq!(judge("exceptions == 0", None), Outcome::Pass);
    assert_eq!(judge("p50 < 1us", None), Outcome::Fail);
}

#[test]
fn memory_is_one_number_and_less_than_a_twentieth_is_no_difference() {
    let of = |pss: u64| Window { pss_mean: Told::Yes(pss), ..Window::default() };
    for (new, expected) in [(104, Difference::WithinNoise), (106, Difference::Worse), (94, Difference::Better)] {
        assert_eq!(said("pss.mean", &of(new), &of(100)), expected, "{new}");
    }
    assert_eq!(outcome("pss.mean < 1.03 * previous_generation", &of(104), &of(100)), Outcome::Fail);
    assert_eq!(outcome("pss.mean < 1.05 * previous_generation", &of(104), &of(100)), Outcome::Pass);
}

proptest! {
    #[test]
    fn the_bounds_hold_the_value_that_was_measured(
        total in 0..100_000u64, quantile in prop::sample::select(vec![0.5, 0.9, 0.95, 0.99, 0.999]), sure in any::<bool>(),
    ) {
        let z = if sure { SURE } else { VERY_SURE };
        if let Some((low, high)) = ranks(total, quantile, z) {
            let rank = ((quantile * total as f64).ceil() as u64).max(1);
            prop_assert!(1 <= low && low <= rank && rank <= high && high <= total, "{low} {rank} {high}");
        }
    }

    #[test]
    fn more_requests_never_make_bounds_of_a_rank_wider_in_proportion(
        total in 2_000..50_000u64, quantile in prop::sample::select(vec![0.5, 0.9, 0.99]),
    ) {
        let width = |total: u64| {
            let (low, high) = ranks(total, quantile, SURE).unwrap();
            (high - low) as f64 / total as f64
        };
        prop_assert!(width(total * 4) < width(total));
    }

    #[test]
    fn the_bounds_of_a_share_hold_it(total in 1..1_000_000u64, part in 0.0..=1.0f64) {
        let count = (total as f64 * part) as u64;
        let (share, low, high) = wilson((count, total), SURE);
        prop_assert!(0.0 <= low && low <= share && share <= high && high <= 1.0);
    }

    #[test]
    fn no_generations_break_it(
        a in prop::collection::vec((1..latency::BUCKETS, 0..1u64 << 50), 0..9),
        b in prop::collection::vec((1..latency::BUCKETS, 0..1u64 << 50), 0..9),
        requests in any::<[u64; 2]>(),
        exceptions in any::<[u64; 2]>(),
    ) {
        let of = |counts: Vec<(usize, u64)>, side: usize| Window {
            requests: requests[side],
            exceptions: exceptions[side],
            failed: Told::Yes([exceptions[1 - side], exceptions[side]]),
            latency: Told::of(Counts::decode(&latency::encode(&latency::from_counts(counts)))),
            ..Window::default()
        };
        let (new, old) = (of(a, 0), of(b, 1));
        for name in ["p50", "p99", "p99.9", "error_rate", "client_error_rate", "exception_rate"] {
            let _ = compare(metric(name).unwrap(), &new, &old);
            let _ = outcome(&format!("{name} < 1.1 * previous_generation"), &new, &old);
        }
    }
}
