//! Passwords in files of Apache's `htpasswd`: `{SHA}`, Apache's own MD5 (`$apr1$`), and what the system's `crypt()`
//! knows (bcrypt, SHA-512, the old DES of `htpasswd -d`).

use std::os::unix::ffi::OsStrExt as _;
use std::path::Path;

use base64::Engine as _;
use md5::Md5;
use sha1::{Digest as _, Sha1};

/// What became of a name and a password.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Verdict {
    Right,
    Wrong,
    /// The file cannot be read: why.
    NoFile(String),
}

/// Looks a name and its password up in a file, which is read each time: it may change.
pub(crate) fn check(file: &[u8], name: &[u8], password: &[u8]) -> Verdict {
    let path = Path::new(std::ffi::OsStr::from_bytes(file));
    match std::fs::read(path) {
        Ok(text) => {
            if is_in(&text, name, password) {
                Verdict::Right
            } else {
                Verdict::Wrong
            }
        }
        Err(error) => {
            Verdict::NoFile(format!("basicauth: cannot read '{}': {error}; nobody is let in", path.display()))
        }
    }
}

fn is_in(text: &[u8], name: &[u8], password: &[u8]) -> bool {
    text.split(|byte| *byte == b'\n').any(|line| {
        let line = line.strip_suffix(b"\r").unwrap_or(line);
        let mut fields = line.splitn(3, |byte| *byte == b':');
        let (known, hash) = (fields.next(), fields.next());
        known == Some(name) && hash.is_some_and(|hash| is_hash_of(hash, password))
    })
}

fn is_hash_of(hash: &[u8], password: &[u8]) -> bool {
    let made = match hash {
        [b'{', b'S', b'H', b'A', b'}', ..] => {
            let sum = base64::engine::general_purpose::STANDARD.encode(Sha1::digest(password));
            Some(format!("{{SHA}}{sum}").into_bytes())
        }
        [b'$', b'a', b'p', b'r', b'1', b'$', rest @ ..] => {
            let salt = rest.split(|byte| *byte == b'$').next().unwrap_or_default();
            Some(apr1(password, &salt[..salt.len().min(8)]))
        }
        // Of a hash of DES uWSGI looks at the 13 characters that it has.
        [b'$' | b'_', ..] => super::crypt::crypt(password, hash),
        _ => match hash.get(..13) {
            Some(des) => return super::crypt::crypt(password, des).is_some_and(|made| are_same(&made, des)),
            None => None,
        },
    };
    made.is_some_and(|made| are_same(&made, hash))
}

/// In a time that does not tell where they differ.
pub(crate) fn are_same(a: &[u8], b: &[u8]) -> bool {
    a.len() == b.len() && a.iter().zip(b).fold(0, |differing, (a, b)| differing | (a ^ b)) == 0
}

/// Apache's variant of the MD5 of FreeBSD's `crypt()`.
fn apr1(password: &[u8], salt: &[u8]) -> Vec<u8> {
    let inner = Md5::new().chain_update(password).chain_update(salt).chain_update(password).finalize();
    let mut sum = Md5::new().chain_update(password).chain_update(b"$apr1$").chain_update(salt);
    for start in (0..password.len()).step_by(16) {
        sum.update(&inner[..(password.len() - start).min(16)]);
    }
    let mut bits = password.len();
    while bits > 0 {
        sum.update(if bits & 1 == 1 { &[0] } else { &password[..1] });
        bits >>= 1;
    }
    let mut last = sum.finalize();
    for round in 0..1000 {
        let mut sum = Md5::new();
        let (first, second): (&[u8], &[u8]) = if round % 2 == 1 { (password, &last) } else { (&last, password) };
        sum.update(first);
        if round % 3 != 0 {
            sum.update(salt);
        }
        if round % 7 != 0 {
            sum.update(password);
        }
        sum.update(second);
        last = sum.finalize();
    }
    let mut out = [b"$apr1$".as_slice(), salt, b"$"].concat();
    for [a, b, c] in [[0, 6, 12], [1, 7, 13], [2, 8, 14], [3, 9, 15], [4, 10, 5]] {
        push_digits(&mut out, (u32::from(last[a]) << 16) | (u32::from(last[b]) << 8) | u32::from(last[c]), 4);
    }
    push_digits(&mut out, u32::from(last[11]), 2);
    out
}

fn push_digits(out: &mut Vec<u8>, mut value: u32, count: usize) {
    const DIGITS: &[u8; 64] = b"./0123456789ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz";
    for _ in 0..count {
        out.push(DIGITS[(value & 63) as usize]);
        value >>= 6;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// What `htpasswd -nb`, `openssl passwd -apr1` and Python's `crypt` made for "secret".
    const FILE: &str = "# people\n\
        sha:{SHA}5en6G6MezRroT3XKqkdPOmY/BfQ=\n\
        apr1:$apr1$r31.....$HqJZimcKQFAMYayBlzkrA/\n\
        des:rlcg0.fZequS.\n\
        sha512:$6$saltsalt$TVLlQcbpFVof5W3Yz4DTP6gRstiNuHwwTt6GLc1E5n0U0aDehy0S5knV8wiOQSpT0Y77vwPZN.Pq.H91p5hVO1\n\
        plain:secret\n";

    #[test]
    fn apr1_is_apache_s() {
        // The example of Apache's documentation ("Password Formats").
        assert_eq!(apr1(b"myPassword", b"r31....."), b"$apr1$r31.....$HqJZimcKQFAMYayBlzkrA/");
    }

    #[test]
    fn passwords_are_right_for_their_own_names_alone() {
        let is_in = |name: &str, password: &str| is_in(FILE.as_bytes(), name.as_bytes(), password.as_bytes());
        assert!(is_in("sha", "secret"));
        assert!(!is_in("sha", "secre"));
        assert!(is_in("apr1", "myPassword"));
        assert!(!is_in("apr1", "secret"));
        assert!(!is_in("plain", "secret"), "a password is never compared as it is");
        assert!(!is_in("nobody", "secret"));
        assert!(!is_in("", ""));
        assert!(!is_in("# people", ""));
    }

    #[test]
    fn the_system_knows_the_other_hashes() {
        for setting in [&b"ab"[..], b"$6$saltsalt$", b"$2y$04$abcdefghijklmnopqrstuu"] {
            let Some(hash) = crate::crypt::crypt(b"secret", setting) else { continue };
            assert!(is_hash_of(&hash, b"secret"), "{setting:?}");
            assert!(!is_hash_of(&hash, b"Secret"), "{setting:?}");
        }
        assert!(!is_hash_of(b"$nonsense$x$y", b"secret"));
        assert!(!is_hash_of(b"", b""));
    }

    #[test]
    fn a_file_that_is_not_there_lets_nobody_in() {
        let Verdict::NoFile(why) = check(b"/nonexistent/htpasswd", b"a", b"b") else { panic!("it was read") };
        assert!(why.starts_with("basicauth: cannot read '/nonexistent/htpasswd': "), "{why}");
    }
}
