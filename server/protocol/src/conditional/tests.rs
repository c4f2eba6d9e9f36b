use super::*;
use proptest::prelude::*;

const FILE: Stored = Stored { size: 1000, modified: 784_111_777, nanos: 5 };
const TAG: &str = "\"2ebc98a1.5-3e8\"";
const DATE: &[u8] = b"Sun, 06 Nov 1994 08:49:37 GMT";
const EARLIER: &[u8] = b"Sun, 06 Nov 1994 08:49:36 GMT";
const LATER: &[u8] = b"Sun, 06 Nov 1994 08:49:38 GMT";
const NOW: u64 = 1_000_000_000;
const PART: Selected = Selected::Part { first: 0, len: 10 };

fn selected(conditions: Conditions<'_>) -> Selected {
    FILE.select(&FILE.entity_tag(), &conditions, NOW)
}

#[test]
fn a_tag_is_of_the_time_and_the_size() {
    assert_eq!(FILE.entity_tag(), TAG);
    for other in [Stored { size: 1001, ..FILE }, Stored { nanos: 6, ..FILE }, Stored { modified: -1, ..FILE }] {
        assert_ne!(other.entity_tag(), TAG);
    }
}

#[test]
fn what_the_client_has_is_not_sent_again() {
    for (list, expected) in [
        (&b"*"[..], Selected::NotModified),
        (b"\"2ebc98a1.5-3e8\"", Selected::NotModified),
        // An intermediary that compressed it has made it weak.
        (b"W/\"2ebc98a1.5-3e8\"", Selected::NotModified),
        (b"\"a,b\" ,, W/\"c\",\"2ebc98a1.5-3e8\"", Selected::NotModified),
        (b"\"other\"", Selected::Whole),
        (b"2ebc98a1.5-3e8", Selected::Whole),
        (b"\"2ebc98a1.5-3e8", Selected::Whole),
        (b"\"a\" \"2ebc98a1.5-3e8\"", Selected::Whole),
        (b"w/\"2ebc98a1.5-3e8\"", Selected::Whole),
        (b"", Selected::Whole),
        (b",", Selected::Whole),
    ] {
        // The date does not count beside it.
        let conditions =
            Conditions { if_none_match: Some(list), if_modified_since: Some(LATER), ..Conditions::default() };
        assert_eq!(selected(conditions), expected, "{}", list.escape_ascii());
    }
    for (date, expected) in [
        (DATE, Selected::NotModified),
        (LATER, Selected::NotModified),
        (EARLIER, Selected::Whole),
        (b"Sunday, 06-Nov-94 08:49:37 GMT", Selected::NotModified),
        (b"Sun Nov  6 08:49:37 1994", Selected::NotModified),
        (b"yesterday", Selected::Whole),
        (b"Sun, 06 Nov 99999 08:49:37 GMT", Selected::Whole),
        (b"Sun, 31 Feb 2100 99:99:99 GMT", Selected::Whole),
        (b"\xff", Selected::Whole),
        (b"", Selected::Whole),
    ] {
        let conditions = Conditions { if_modified_since: Some(date), ..Conditions::default() };
        assert_eq!(selected(conditions), expected, "{}", date.escape_ascii());
    }
}

#[test]
fn a_precondition_that_does_not_hold_comes_before_all_else() {
    let all = Conditions { if_none_match: Some(b"*"), range: Some(b"bytes=0-9"), ..Conditions::default() };
    for (list, fails) in [
        (&b"*"[..], false),
        (TAG.as_bytes(), false),
        (b"\"a\", \"2ebc98a1.5-3e8\"", false),
        (b"W/\"2ebc98a1.5-3e8\"", true),
        (b"\"other\"", true),
        (b"nonsense", true),
    ] {
        // The date does not count beside it.
        let conditions = Conditions { if_match: Some(list), if_unmodified_since: Some(EARLIER), ..all };
        let expected = if fails { Selected::PreconditionFailed } else { Selected::NotModified };
        assert_eq!(selected(conditions), expected, "{}", list.escape_ascii());
    }
    for (date, fails) in [(EARLIER, true), (DATE, false), (LATER, false), (b"yesterday", false)] {
        let conditions = Conditions { if_unmodified_since: Some(date), ..all };
        let expected = if fails { Selected::PreconditionFailed } else { Selected::NotModified };
        assert_eq!(selected(conditions), expected, "{}", date.escape_ascii());
    }
}

#[test]
fn a_part_is_sent_of_the_file_that_the_client_knows() {
    let range = Conditions { range: Some(b"bytes=0-9"), ..Conditions::default() };
    assert_eq!(selected(range), PART);
    assert_eq!(selected(Conditions { range: Some(b"bytes=1000-"), ..range }), Selected::Unsatisfiable);
    assert_eq!(selected(Conditions { range: None, if_range: Some(DATE), ..range }), Selected::Whole);
    for (validator, expected) in [
        (TAG.as_bytes(), PART),
        (DATE, PART),
        (b"W/\"2ebc98a1.5-3e8\"", Selected::Whole),
        (b"\"other\"", Selected::Whole),
        (EARLIER, Selected::Whole),
        (LATER, Selected::Whole),
        (b"yesterday", Selected::Whole),
        (b"", Selected::Whole),
    ] {
        assert_eq!(
            selected(Conditions { if_range: Some(validator), ..range }),
            expected,
            "{}",
            validator.escape_ascii()
        );
    }
    // In the second of the change a date does not tell one state of the file from another, and a tag does.
    for (validator, expected) in [(DATE, Selected::Whole), (TAG.as_bytes(), PART)] {
        let conditions = Conditions { if_range: Some(validator), ..range };
        assert_eq!(FILE.select(TAG, &conditions, 784_111_777), expected);
    }
}

#[test]
fn a_file_of_the_future_or_of_before_the_epoch_has_a_date_all_the_same() {
    assert_eq!(FILE.last_modified(NOW), 784_111_777);
    assert_eq!(FILE.last_modified(1000), 1000);
    assert_eq!(Stored { modified: -5, ..FILE }.last_modified(NOW), 0);
}

proptest! {
    #[test]
    fn a_date_reads_back(seconds in 0u64..253_402_300_799) {
        prop_assert_eq!(seconds_of(HttpDate::from_unix(seconds).as_bytes()), Some(seconds as i64));
    }

    #[test]
    fn no_headers_are_too_strange(
        headers in prop::collection::vec(prop::option::of(prop_oneof![
            prop::collection::vec(any::<u8>(), 0..40),
            "(W/|\"|,| |a|\\*){0,12}".prop_map(String::into_bytes),
            "(Mon|Sun)(day)?,? [0-9]{1,3}[- ](Feb|Nov)[- ][0-9]{1,6} [0-9]{2}:[0-9]{2}:[0-9]{2}( GMT)?".prop_map(String::into_bytes),
        ]), 6),
        now in any::<u64>(), size in any::<u64>(), modified in any::<i64>(), nanos in 0u32..1_000_000_000,
    ) {
        let file = Stored { size, modified, nanos };
        let [if_match, if_unmodified_since, if_none_match, if_modified_since, range, if_range] =
            [0, 1, 2, 3, 4, 5].map(|at| headers[at].as_deref());
        let conditions = Conditions { if_match, if_unmodified_since, if_none_match, if_modified_since, range, if_range };
        if let Selected::Part { first, len } = file.select(&file.entity_tag(), &conditions, now) {
            prop_assert!(len > 0 && first.checked_add(len).is_some_and(|end| end <= size));
        }
    }

    #[test]
    fn a_list_of_tags_has_those_that_are_in_it(
        tags in prop::collection::vec(("[a-c,]{0,2}", any::<bool>()), 0..5), wanted in "[a-c,]{0,2}",
    ) {
        let list = tags.iter().map(|(tag, is_weak)| format!("{}\"{tag}\"", if *is_weak { "W/" } else { "" }));
        let list = list.collect::<Vec<_>>().join(", ");
        let has = |comparison| lists(list.as_bytes(), format!("\"{wanted}\"").as_bytes(), comparison);
        prop_assert_eq!(has(Comparison::Weak), tags.iter().any(|(tag, _)| *tag == wanted));
        prop_assert_eq!(has(Comparison::Strong), tags.iter().any(|(tag, is_weak)| *tag == wanted && !is_weak));
    }
}
