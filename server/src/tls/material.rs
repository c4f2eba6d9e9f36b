//! The files that `https` and `sni` name, as the master reads them.

use std::ffi::OsStr;
use std::fmt;
use std::fs::File;
use std::io::{self, Read};
use std::path::{Path, PathBuf};

use anyhow::{Context, bail};
use serde::{Deserialize, Serialize};

use rwsgi_config::{Identity, TlsConfig};

/// The longest file, bytes: all authorities that browsers know are a tenth of it.
const LONGEST: u64 = 4 * 1024 * 1024;

/// What is in one file.
#[derive(Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Pem {
    pub(super) file: PathBuf,
    pub(super) text: String,
}

impl fmt::Debug for Pem {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}", self.file.display())
    }
}

/// What a server proves itself with, and whom it lets in.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Proof {
    /// What it is for, as messages begin: `https`, or `sni: example.org`.
    pub(super) name: String,
    pub(super) cert: Pem,
    pub(super) key: Pem,
    pub(super) ciphers: Option<String>,
    pub(super) client_ca: Option<Pem>,
    /// Clients without a certificate are refused.
    pub(super) is_ca_required: bool,
}

/// All that is in the files.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Material {
    /// For each socket, in the order of the configuration.
    pub(super) sockets: Vec<Proof>,
    /// For each host, in lower case.
    pub(super) hosts: Vec<(String, Proof)>,
    /// `https-export-cert`
    pub(super) export_cert: bool,
    /// `ssl-verbose`
    pub(super) verbose: bool,
}

impl Material {
    /// Reads the files of a configuration.
    ///
    /// # Errors
    /// When one cannot be read, with what to do about it.
    pub(crate) fn read(config: &TlsConfig) -> anyhow::Result<Self> {
        let sockets = config.https.iter().map(|socket| proof("https".into(), &socket.identity));
        let mut hosts = Vec::new();
        for (host, identity) in &config.hosts {
            hosts.push((host.clone(), proof(format!("sni: {host}"), identity)?));
        }
        if let Some(directory) = &config.host_dir {
            for (host, identity) in hosts_of(directory, config.host_dir_ciphers.as_deref())? {
                let proof = proof(format!("sni-dir: {host}"), &identity)?;
                hosts.push((host, proof));
            }
        }
        Ok(Self {
            sockets: sockets.collect::<anyhow::Result<_>>()?,
            hosts,
            export_cert: config.export_cert,
            verbose: config.verbose,
        })
    }

    /// As it goes to the http router.
    ///
    /// # Errors
    /// Never.
    pub(crate) fn encode(&self) -> serde_json::Result<Vec<u8>> {
        serde_json::to_vec(self)
    }

    /// Reads what [`Self::encode`] made.
    ///
    /// # Errors
    /// When it is something else, or a part of it.
    pub(crate) fn decode(bytes: &[u8]) -> serde_json::Result<Self> {
        serde_json::from_slice(bytes)
    }
}

fn proof(name: String, identity: &Identity) -> anyhow::Result<Proof> {
    let Identity { cert, key, ciphers, client_ca } = identity;
    let ca = client_ca.as_ref().map(|ca| read(&name, "authority", &ca.file)).transpose()?;
    Ok(Proof {
        cert: read(&name, "certificate", cert)?,
        key: read(&name, "key", key)?,
        ciphers: ciphers.clone(),
        client_ca: ca,
        is_ca_required: client_ca.as_ref().is_some_and(|ca| ca.is_required),
        name,
    })
}

fn read(name: &str, what: &str, file: &Path) -> anyhow::Result<Pem> {
    let text = text_of(file).map_err(|error| {
        let advice = match error.kind() {
            io::ErrorKind::NotFound => {
                ": a path that does not begin with / is relative to where the server was started"
            }
            io::ErrorKind::PermissionDenied => {
                ": let the user that the server runs as read it, or start the server as root"
            }
            _ => "",
        };
        anyhow::anyhow!("{name}: {what} '{}' cannot be read: {error}{advice}", file.display())
    })?;
    Ok(Pem { file: file.to_owned(), text })
}

fn text_of(file: &Path) -> io::Result<String> {
    // A pipe would keep the server waiting when it is opened.
    let found = std::fs::metadata(file)?;
    if !found.is_file() {
        return Err(io::Error::other("it is no file"));
    }
    let mut bytes = Vec::new();
    File::open(file)?.take(LONGEST + 1).read_to_end(&mut bytes)?;
    if bytes.len() as u64 > LONGEST {
        return Err(io::Error::other(format!("it is longer than {LONGEST} bytes")));
    }
    // What is not PEM may be anything.
    Ok(String::from_utf8(bytes).unwrap_or_else(|error| String::from_utf8_lossy(error.as_bytes()).into_owned()))
}

/// The hosts whose certificates and keys are in a directory, in the order of their names.
fn hosts_of(directory: &Path, ciphers: Option<&str>) -> anyhow::Result<Vec<(String, Identity)>> {
    let entries = std::fs::read_dir(directory).and_then(Iterator::collect::<io::Result<Vec<_>>>);
    let entries = entries.with_context(|| format!("sni-dir: cannot read '{}'", directory.display()))?;
    let mut hosts = Vec::new();
    for cert in entries.into_iter().map(|entry| entry.path()) {
        let key = cert.with_extension("key");
        if cert.extension() != Some(OsStr::new("crt")) || !key.exists() {
            continue;
        }
        let Some(host) = cert.file_stem().and_then(OsStr::to_str) else {
            bail!("sni-dir: the name of '{}' is no host", cert.display());
        };
        let host = host.to_ascii_lowercase();
        let ca = cert.with_extension("ca");
        let client_ca = ca.exists().then_some(rwsgi_config::ClientCa { file: ca, is_required: false });
        hosts.push((host, Identity { cert, key, ciphers: ciphers.map(str::to_owned), client_ca }));
    }
    hosts.sort_by(|one, other| one.0.cmp(&other.0));
    Ok(hosts)
}
