//! TLS at the http router: which sockets speak it, and the files of their certificates and keys.
//!
//! Only paths: the master reads the files (`server/src/tls`), so that no key is ever part of a configuration.

use std::path::PathBuf;

use rwsgi_stats::Address;
use serde::{Deserialize, Serialize};

use super::Config;
use super::row::{Kind, Row};
use super::row::{REQUESTS, SOCKETS};
use super::value;
use Kind::{Custom, Flag, Path, Text};

/// The certificate of a socket or host, and which clients it takes.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Identity {
    /// PEM: the certificate, and those between it and the authority's.
    pub cert: PathBuf,
    /// PEM: the certificate's private key.
    pub key: PathBuf,
    /// OpenSSL's list of ciphers; `None` for all that are safe.
    pub ciphers: Option<String>,
    /// Whose certificates clients may show; `None` when they are not asked for one.
    pub client_ca: Option<ClientCa>,
}

/// The authorities of clients' certificates.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ClientCa {
    /// PEM: their certificates.
    pub file: PathBuf,
    /// Clients without a certificate are refused (`!` before the file).
    pub is_required: bool,
}

/// `--https`: a socket of the http router that speaks TLS.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct HttpsSocket {
    /// Where it listens.
    pub address: Address,
    /// The certificate for clients that name no host of [`TlsConfig::hosts`].
    pub identity: Identity,
}

/// `--http-to-https`: a socket that answers every request with the same address in https.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct RedirectSocket {
    /// Where it listens.
    pub address: Address,
    /// The port of the other address; `None` for https' own.
    pub port: Option<u16>,
}

/// The options about TLS.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct TlsConfig {
    /// `--https`, `--https2`, `--https-socket`.
    pub https: Vec<HttpsSocket>,
    /// `--http-to-https`.
    pub redirects: Vec<RedirectSocket>,
    /// `--sni`: what clients are shown that name this host, which is in lower case.
    pub hosts: Vec<(String, Identity)>,
    /// `--sni-dir`: the same, from pairs of files `HOST.crt` and `HOST.key`.
    pub host_dir: Option<PathBuf>,
    /// `--sni-dir-ciphers`: of those.
    pub host_dir_ciphers: Option<String>,
    /// `--https-export-cert`: give the application the client's certificate as PEM.
    pub export_cert: bool,
    /// `--ssl-verbose`: log why handshakes fail.
    pub verbose: bool,
}

impl TlsConfig {
    /// Whether a socket speaks TLS or sends clients to one.
    #[must_use]
    pub fn is_used(&self) -> bool {
        !(self.https.is_empty() && self.redirects.is_empty())
    }

    /// Where its sockets listen, in order.
    pub fn addresses(&self) -> impl Iterator<Item = &Address> {
        let redirects = self.redirects.iter().map(|socket| &socket.address);
        self.https.iter().map(|socket| &socket.address).chain(redirects)
    }

    /// The same, to be changed.
    pub(super) fn addresses_mut(&mut self) -> impl Iterator<Item = &mut Address> {
        let redirects = self.redirects.iter_mut().map(|socket| &mut socket.address);
        self.https.iter_mut().map(|socket| &mut socket.address).chain(redirects)
    }

    /// Every file and directory that is named, to be changed.
    pub fn files_mut(&mut self) -> impl Iterator<Item = &mut PathBuf> {
        let identities = self.https.iter_mut().map(|socket| &mut socket.identity);
        let identities = identities.chain(self.hosts.iter_mut().map(|(_, identity)| identity));
        let files = identities.flat_map(|identity| {
            let ca = identity.client_ca.as_mut().map(|ca| &mut ca.file);
            [Some(&mut identity.cert), Some(&mut identity.key), ca].into_iter().flatten()
        });
        files.chain(&mut self.host_dir)
    }
}

type Outcome = Result<(), String>;

#[rustfmt::skip]
pub(crate) static ROWS: &[Row] = &[
    Row { names: &["https"], kind: Custom(https), takes: "ADDRESS,CERT,KEY[,CIPHERS[,CA]]", repeats: true,
          help: "Serve HTTPS here through the http router; with CA clients may show a certificate, with !CA they must", ..SOCKETS },
    Row { names: &["https2"], kind: Custom(https2), takes: "addr=ADDRESS,cert=CERT,key=KEY[,…]", repeats: true,
          help: "The same, with ciphers= and clientca=", ..SOCKETS },
    Row { names: &["https-socket"], kind: Custom(https_socket), takes: "ADDRESS,CERT,KEY[,CIPHERS[,CA]]", repeats: true,
          help: "The same as https: the http router serves it, not the workers themselves", ..SOCKETS },
    Row { names: &["http-to-https"], kind: Custom(http_to_https), takes: "ADDRESS[,PORT]", repeats: true,
          help: "Answer every request here with a redirect (301) to the same address in https, at this port of it", ..SOCKETS },
    Row { names: &["sni"], kind: Custom(sni), takes: "HOST CERT,KEY[,CIPHERS[,CA]]", repeats: true,
          help: "Show this certificate to clients of https that ask for this host", ..SOCKETS },
    Row { names: &["sni-dir"], kind: Path(|c| &mut c.tls.host_dir), takes: "DIR",
          help: "The same for each HOST.crt with a HOST.key, and perhaps a HOST.ca, in this directory", ..SOCKETS },
    Row { names: &["sni-dir-ciphers"], kind: Text(|c| &mut c.tls.host_dir_ciphers), takes: "CIPHERS",
          help: "The ciphers of sni-dir's hosts", ..SOCKETS },
    Row { names: &["https-export-cert"], kind: Flag(|c| &mut c.tls.export_cert),
          help: "Give the application the client's certificate as PEM, in HTTPS_CC", ..REQUESTS },
    Row { names: &["ssl-verbose"], kind: Flag(|c| &mut c.tls.verbose),
          help: "Log why TLS handshakes fail", ..REQUESTS },
];

fn https(config: &mut Config, text: &str) -> Outcome {
    let expected = || "ADDRESS,CERT,KEY[,CIPHERS[,CA]], as in :443,site.crt,site.key".to_owned();
    let (address, files) = text.split_once(',').ok_or_else(expected)?;
    let identity = identity(files).ok_or_else(expected)?;
    add_https(config, address, identity)
}

fn add_https(config: &mut Config, address: &str, identity: Identity) -> Outcome {
    let address = value::address(config, address.trim())?;
    config.tls.https.push(HttpsSocket { address, identity });
    Ok(())
}

fn https_socket(config: &mut Config, text: &str) -> Outcome {
    https(config, text)?;
    config.warnings.push("the http router serves it, as it does https: no worker speaks TLS itself".into());
    Ok(())
}

fn https2(config: &mut Config, text: &str) -> Outcome {
    let expected = || "addr=ADDRESS,cert=CERT,key=KEY[,ciphers=…][,clientca=…]".to_owned();
    let (mut address, mut cert, mut key, mut ciphers, mut ca) = (None, None, None, None, None);
    for item in text.split(',').filter(|item| !item.trim().is_empty()) {
        let (name, value) = item.split_once('=').ok_or_else(expected)?;
        let place = match name.trim() {
            "addr" => &mut address,
            "cert" | "crt" => &mut cert,
            "key" => &mut key,
            "ciphers" => &mut ciphers,
            "clientca" | "client_ca" | "ca" => &mut ca,
            // No browser speaks SPDY any more.
            "spdy" => continue,
            _ => return Err(expected()),
        };
        *place = Some(value.trim());
    }
    let (Some(address), Some(cert), Some(key)) = (address, cert, key) else { return Err(expected()) };
    let identity = identity_of(cert, key, ciphers, ca).ok_or_else(expected)?;
    add_https(config, address, identity)
}

fn sni(config: &mut Config, text: &str) -> Outcome {
    let expected = || "HOST CERT,KEY[,CIPHERS[,CA]], as in example.org site.crt,site.key".to_owned();
    let (host, files) = text.trim().split_once(char::is_whitespace).ok_or_else(expected)?;
    let identity = identity(files).ok_or_else(expected)?;
    config.tls.hosts.push((host.to_ascii_lowercase(), identity));
    Ok(())
}

fn http_to_https(config: &mut Config, text: &str) -> Outcome {
    let (address, port) = match text.split_once(',') {
        Some((address, port)) => (address, Some(value::number(port, &(1..=u16::MAX))?)),
        None => (text, None),
    };
    let address = value::address(config, address.trim())?;
    config.tls.redirects.push(RedirectSocket { address, port });
    Ok(())
}

/// `CERT,KEY[,CIPHERS[,CA]]`
fn identity(text: &str) -> Option<Identity> {
    let mut parts = text.splitn(4, ',').map(str::trim);
    identity_of(parts.next()?, parts.next()?, parts.next(), parts.next())
}

fn identity_of(cert: &str, key: &str, ciphers: Option<&str>, ca: Option<&str>) -> Option<Identity> {
    if cert.is_empty() || key.is_empty() {
        return None;
    }
    let ciphers = ciphers.filter(|ciphers| !ciphers.is_empty()).map(str::to_owned);
    let client_ca = ca.filter(|ca| !ca.is_empty()).map(|ca| {
        let required = ca.strip_prefix('!');
        ClientCa { file: required.unwrap_or(ca).into(), is_required: required.is_some() }
    });
    Some(Identity { cert: cert.into(), key: key.into(), ciphers, client_ca })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(set: fn(&mut Config, &str) -> Outcome, value: &str) -> Result<TlsConfig, String> {
        let mut config = Config::default();
        set(&mut config, value).map(|()| config.tls)
    }

    #[test]
    fn a_socket_for_https_is_written_as_in_uwsgi() {
        let tls = read(https, ":443,a.crt,a.key").unwrap();
        assert_eq!(tls.https[0].address, ":443".parse().unwrap());
        let Identity { cert, key, ciphers, client_ca } = &tls.https[0].identity;
        assert_eq!((cert.to_str(), key.to_str(), ciphers, client_ca), (Some("a.crt"), Some("a.key"), &None, &None));

        let tls = read(https, "127.0.0.1:443,a.crt,a.key,HIGH:!MD5,!ca.pem").unwrap();
        let Identity { ciphers, client_ca, .. } = &tls.https[0].identity;
        assert_eq!(ciphers.as_deref(), Some("HIGH:!MD5"));
        assert_eq!(client_ca, &Some(ClientCa { file: "ca.pem".into(), is_required: true }));

        let tls = read(https, ":443,a.crt,a.key,,ca.pem").unwrap();
        let Identity { ciphers, client_ca, .. } = &tls.https[0].identity;
        assert_eq!((ciphers, client_ca.as_ref().map(|ca| ca.is_required)), (&None, Some(false)));

        let short = read(https, ":443,a.crt,a.key,HIGH,!ca.pem").unwrap();
        assert_eq!(read(https2, "addr=:443,cert=a.crt,key=a.key,ciphers=HIGH,clientca=!ca.pem").unwrap(), short);
        assert_eq!(read(https2, "addr=:443,crt=a.crt,key=a.key,ciphers=HIGH,client_ca=!ca.pem,spdy=1").unwrap(), short);
        for wrong in ["", ":443", ":443,a.crt", ":443,,a.key"] {
            assert!(read(https, wrong).is_err(), "{wrong}");
        }
        for wrong in ["", "addr=:443,cert=a", "addr=:443,cert=a,key", "addr=:443,cert=a,key=b,x=1"] {
            assert!(read(https2, wrong).is_err(), "{wrong}");
        }
    }

    #[test]
    fn hosts_and_redirects_are_written_as_in_uwsgi() {
        let tls = read(sni, "Example.org a.crt,a.key").unwrap();
        assert_eq!(tls.hosts[0].0, "example.org");
        assert!(read(sni, "example.org").is_err());
        assert_eq!(read(http_to_https, ":80").unwrap().redirects[0].port, None);
        assert_eq!(read(http_to_https, ":80,8443").unwrap().redirects[0].port, Some(8443));
        assert!(read(http_to_https, ":80,x").is_err());
    }
}
