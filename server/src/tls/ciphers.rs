//! OpenSSL's lists of ciphers, as far as they choose among what there is here: the suites of TLS 1.2 with ECDHE and an
//! AEAD. Those of TLS 1.3 are always there, as with OpenSSL's own `cipher_list`.
//!
//! A list never adds what it does not name.

use rustls::{CipherSuite, SupportedCipherSuite};

/// What a list comes to.
#[derive(Debug)]
pub(super) struct Choice {
    /// In the order of preference.
    pub(super) suites: Vec<SupportedCipherSuite>,
    /// What is to be told of the list.
    pub(super) warning: Option<&'static str>,
}

const NONE: &str = "none of these ciphers is here: all that are safe are used (TLS 1.3, and TLS 1.2 with ECDHE and AES-GCM or ChaCha20)";
const SOME: &str =
    "some of these ciphers are not here: clients need TLS 1.3, or TLS 1.2 with ECDHE and AES-GCM or ChaCha20";

/// Words that stand for all suites of TLS 1.2 here.
const ALL: [&str; 11] =
    ["ALL", "DEFAULT", "HIGH", "ECDHE", "EECDH", "ECDH", "kECDHE", "kEECDH", "TLSv1.2", "AEAD", "COMPLEMENTOFDEFAULT"];

/// The suites of TLS 1.2: OpenSSL's name, and other words that stand for it.
const SUITES: [(CipherSuite, &str, &[&str]); 6] = [
    (
        CipherSuite::TLS_ECDHE_ECDSA_WITH_AES_256_GCM_SHA384,
        "ECDHE-ECDSA-AES256-GCM-SHA384",
        &["aECDSA", "ECDSA", "AES", "AES256", "AESGCM", "FIPS"],
    ),
    (
        CipherSuite::TLS_ECDHE_ECDSA_WITH_AES_128_GCM_SHA256,
        "ECDHE-ECDSA-AES128-GCM-SHA256",
        &["aECDSA", "ECDSA", "AES", "AES128", "AESGCM", "FIPS"],
    ),
    (
        CipherSuite::TLS_ECDHE_ECDSA_WITH_CHACHA20_POLY1305_SHA256,
        "ECDHE-ECDSA-CHACHA20-POLY1305",
        &["aECDSA", "ECDSA", "CHACHA20"],
    ),
    (
        CipherSuite::TLS_ECDHE_RSA_WITH_AES_256_GCM_SHA384,
        "ECDHE-RSA-AES256-GCM-SHA384",
        &["aRSA", "AES", "AES256", "AESGCM", "FIPS"],
    ),
    (
        CipherSuite::TLS_ECDHE_RSA_WITH_AES_128_GCM_SHA256,
        "ECDHE-RSA-AES128-GCM-SHA256",
        &["aRSA", "AES", "AES128", "AESGCM", "FIPS"],
    ),
    (CipherSuite::TLS_ECDHE_RSA_WITH_CHACHA20_POLY1305_SHA256, "ECDHE-RSA-CHACHA20-POLY1305", &["aRSA", "CHACHA20"]),
];

/// Chooses of `available` what a list asks for.
pub(super) fn choose(list: &str, available: &[SupportedCipherSuite]) -> Choice {
    let mut chosen: Vec<usize> = Vec::new();
    let mut never: Vec<usize> = Vec::new();
    let mut is_lacking = false;
    for item in list.split([':', ',', ' ', ';']).filter(|item| !item.is_empty() && !item.starts_with('@')) {
        let sign = item.chars().next().filter(|sign| "!-+".contains(*sign));
        let named = matching(item.trim_start_matches(['!', '-', '+']));
        match sign {
            Some('!') => {
                chosen.retain(|suite| !named.contains(suite));
                never.extend(named);
            }
            Some('-') => chosen.retain(|suite| !named.contains(suite)),
            Some(_) => {
                let (last, first): (Vec<_>, Vec<_>) = chosen.iter().partition(|suite| named.contains(suite));
                chosen = first.into_iter().chain(last).collect();
            }
            None => {
                is_lacking |= named.is_empty();
                let new: Vec<_> =
                    named.into_iter().filter(|suite| !chosen.contains(suite) && !never.contains(suite)).collect();
                chosen.extend(new);
            }
        }
    }
    let found = |suite: &usize| available.iter().find(|found| found.suite() == SUITES[*suite].0);
    let old: Vec<_> = chosen.iter().filter_map(found).copied().collect();
    if old.is_empty() {
        return Choice { suites: available.to_vec(), warning: Some(NONE) };
    }
    let new = available.iter().copied().filter(|suite| suite.tls13().is_some());
    Choice { suites: new.chain(old).collect(), warning: is_lacking.then_some(SOME) }
}

/// The suites that a word stands for, or all of several words with `+` between them.
fn matching(words: &str) -> Vec<usize> {
    let is_of = |suite: &usize, word: &str| {
        let (_, name, words) = SUITES[*suite];
        name == word || words.contains(&word) || ALL.contains(&word)
    };
    (0..SUITES.len()).filter(|suite| words.split('+').all(|word| is_of(suite, word))).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use rustls::crypto::ring::ALL_CIPHER_SUITES;

    fn chosen(list: &str) -> (Vec<&'static str>, bool) {
        let Choice { suites, warning } = choose(list, ALL_CIPHER_SUITES);
        assert_eq!(suites.iter().filter(|suite| suite.tls13().is_some()).count(), 3, "TLS 1.3 is always there");
        let name = |suite: &SupportedCipherSuite| SUITES.iter().find(|one| one.0 == suite.suite()).map(|one| one.1);
        (suites.iter().filter_map(name).collect(), warning.is_some())
    }

    #[test]
    fn a_list_of_openssls_chooses_among_what_is_safe() {
        for all in ["HIGH", "HIGH:!aNULL:!MD5", "ALL:!RC4:@STRENGTH", "EECDH+AESGCM:EECDH+CHACHA20", "DEFAULT"] {
            let (names, is_warned) = chosen(all);
            assert_eq!((names.len(), is_warned), (6, false), "{all}");
        }
        let (names, is_warned) = chosen("ECDHE-RSA-AES128-GCM-SHA256:ECDHE-RSA-AES256-GCM-SHA384:!aNULL");
        assert_eq!(names, ["ECDHE-RSA-AES128-GCM-SHA256", "ECDHE-RSA-AES256-GCM-SHA384"]);
        assert!(!is_warned);
        assert_eq!(chosen("AESGCM+aRSA:!AES256").0, ["ECDHE-RSA-AES128-GCM-SHA256"]);
        assert_eq!(chosen("aRSA:-CHACHA20:+AES256").0, ["ECDHE-RSA-AES128-GCM-SHA256", "ECDHE-RSA-AES256-GCM-SHA384"]);
    }

    #[test]
    fn what_is_not_here_is_told_and_never_replaced_by_what_was_excluded() {
        let (names, is_warned) = chosen("ECDHE-RSA-AES128-SHA:ECDHE-RSA-AES128-GCM-SHA256");
        assert_eq!((names, is_warned), (vec!["ECDHE-RSA-AES128-GCM-SHA256"], true));
        let (names, is_warned) = chosen("AES128-SHA:DES-CBC3-SHA");
        assert_eq!((names.len(), is_warned), (6, true), "nobody could connect otherwise");
        assert_eq!(chosen("!AES:ALL").0.len(), 2);
    }

    proptest! {
        #[test]
        fn no_list_panics_or_leaves_nothing(list in "[A-Z0-9a-z:!+@ ,-]{0,60}") {
            prop_assert!(!chosen(&list).0.is_empty());
        }
    }
}
