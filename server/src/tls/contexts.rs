//! What connections are made with: a configuration of rustls for each socket and host.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::{SystemTime, UNIX_EPOCH};

use anyhow::{Context, bail};
use rustls::RootCertStore;
use rustls::crypto::{CryptoProvider, ring};
use rustls::pki_types::pem::{self, PemObject};
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use rustls::server::{ServerConfig, WebPkiClientVerifier};
use rustls::sign::{CertifiedKey, SingleCertAndKey};

use super::ciphers::{self, Choice};
use super::material::{Material, Pem, Proof};
use rwsgi_protocol::x509::Certificate;

/// What the connections for a host are made with.
#[derive(Debug)]
pub(crate) struct HostContext {
    pub(crate) config: Arc<ServerConfig>,
    /// Clients without a certificate are refused.
    is_ca_required: bool,
}

/// Ready to be used by connections.
#[derive(Debug)]
pub(crate) struct Contexts {
    sockets: Vec<Arc<HostContext>>,
    hosts: HashMap<String, Arc<HostContext>>,
    /// Some hosts are for clients with a certificate alone, and others are not: see [`Self::admits`].
    pub(crate) are_mixed: bool,
    /// `https-export-cert`
    pub(crate) export_cert: bool,
    /// `ssl-verbose`
    pub(crate) verbose: bool,
}

impl Contexts {
    /// Makes them, and says what is doubtful.
    ///
    /// # Errors
    /// The first thing that is wrong: its file, what was expected, what to do.
    pub(crate) fn new(material: &Material) -> anyhow::Result<(Self, Vec<String>)> {
        let mut warnings = Vec::new();
        let sockets = material.sockets.iter().map(|proof| context(proof, &mut warnings));
        let sockets = sockets.collect::<anyhow::Result<Vec<_>>>()?;
        let mut hosts = HashMap::new();
        for (host, proof) in &material.hosts {
            hosts.entry(host.clone()).or_insert(context(proof, &mut warnings)?);
        }
        let (export_cert, verbose) = (material.export_cert, material.verbose);
        let are_mixed = !hosts.is_empty() && sockets.iter().chain(hosts.values()).any(|context| context.is_ca_required);
        Ok((Self { sockets, hosts, are_mixed, export_cert, verbose }, warnings))
    }

    /// For a client of a socket that asks for this host; `None` when there is no such socket.
    pub(crate) fn choose(&self, socket: usize, host: Option<&str>) -> Option<&Arc<HostContext>> {
        let of_host = host.and_then(|host| self.hosts.get(&host.to_ascii_lowercase()));
        of_host.or_else(|| self.sockets.get(socket))
    }

    /// Whether a request for `host` may come by a connection that was made with `used`. One for a host that demands a
    /// certificate must not come by a connection for another host, which the client names itself.
    pub(crate) fn admits(&self, socket: usize, used: &Arc<HostContext>, host: Option<&str>) -> bool {
        let asked = self.choose(socket, host.map(|host| host.trim_end_matches('.')));
        asked.is_none_or(|asked| !asked.is_ca_required || Arc::ptr_eq(asked, used))
    }
}

fn context(proof: &Proof, warnings: &mut Vec<String>) -> anyhow::Result<Arc<HostContext>> {
    let Proof { name, cert, key, ciphers, client_ca, is_ca_required } = proof;
    let mut provider = ring::default_provider();
    if let Some(list) = ciphers {
        let Choice { suites, warning } = ciphers::choose(list, &provider.cipher_suites);
        provider.cipher_suites = suites;
        warnings.extend(warning.map(|warning| format!("{name}: {warning}")));
    }
    let provider = Arc::new(provider);
    let chain = certificates(name, "certificate", cert)?;
    let private = private_key(name, key)?;
    warnings.extend(expired(name, cert, &chain));
    let builder = ServerConfig::builder_with_provider(Arc::clone(&provider))
        .with_safe_default_protocol_versions()
        .with_context(|| format!("{name}: TLS cannot be used with these ciphers"))?;
    let builder = match client_ca {
        Some(ca) => builder.with_client_cert_verifier(verifier(name, ca, *is_ca_required, Arc::clone(&provider))?),
        None => builder.with_no_client_auth(),
    };
    let certified = certified(name, cert, chain, key, private, &provider)?;
    let mut config = builder.with_cert_resolver(Arc::new(SingleCertAndKey::from(certified)));
    config.alpn_protocols = vec![b"http/1.1".to_vec(), b"http/1.0".to_vec()];
    // Each context has its own: a session must not be resumed where other clients' certificates are asked for.
    config.ticketer = ring::Ticketer::new().context("TLS sessions: no random bytes")?;
    let is_ca_required = client_ca.is_some() && *is_ca_required;
    Ok(Arc::new(HostContext { config: Arc::new(config), is_ca_required }))
}

fn certificates(name: &str, what: &str, pem: &Pem) -> anyhow::Result<Vec<CertificateDer<'static>>> {
    let found: Result<Vec<_>, _> = CertificateDer::pem_slice_iter(pem.text.as_bytes()).collect();
    let found = found.with_context(|| format!("{name}: {what} '{}' is damaged", pem.file.display()))?;
    if found.is_empty() {
        bail!(
            "{name}: {what} '{}' has no certificate in it: expected PEM, with -----BEGIN CERTIFICATE-----; of a file in DER, openssl x509 -inform der makes one",
            pem.file.display()
        );
    }
    Ok(found)
}

fn private_key(name: &str, pem: &Pem) -> anyhow::Result<PrivateKeyDer<'static>> {
    let file = pem.file.display();
    // What the error says of the file's content stays here.
    PrivateKeyDer::from_pem_slice(pem.text.as_bytes()).map_err(|error| match error {
        _ if pem.text.contains("BEGIN ENCRYPTED PRIVATE KEY") || pem.text.contains("Proc-Type: 4,ENCRYPTED") => {
            anyhow::anyhow!(
                "{name}: key '{file}' has a passphrase, which nobody can enter: openssl pkey -in FILE -out NEW writes it without"
            )
        }
        pem::Error::NoItemsFound => anyhow::anyhow!(
            "{name}: key '{file}' has no private key in it: expected PEM, with -----BEGIN PRIVATE KEY-----, RSA or EC"
        ),
        _ => anyhow::anyhow!("{name}: key '{file}' is damaged: expected PEM, with -----BEGIN PRIVATE KEY-----"),
    })
}

fn verifier(
    name: &str,
    ca: &Pem,
    is_required: bool,
    provider: Arc<CryptoProvider>,
) -> anyhow::Result<Arc<dyn rustls::server::danger::ClientCertVerifier>> {
    let unusable = || format!("{name}: authority '{}' cannot be used", ca.file.display());
    let mut roots = RootCertStore::empty();
    for certificate in certificates(name, "authority", ca)? {
        roots.add(certificate).with_context(unusable)?;
    }
    let builder = WebPkiClientVerifier::builder_with_provider(Arc::new(roots), provider);
    let builder = if is_required { builder } else { builder.allow_unauthenticated() };
    builder.build().with_context(unusable)
}

/// The certificate with its key. rustls' own check refuses certificates of version 1, which the recipe in uWSGI's
/// documentation makes.
fn certified(
    name: &str,
    cert: &Pem,
    chain: Vec<CertificateDer<'static>>,
    key: &Pem,
    private: PrivateKeyDer<'static>,
    provider: &CryptoProvider,
) -> anyhow::Result<CertifiedKey> {
    let (cert, key) = (cert.file.display(), key.file.display());
    let signing = provider.key_provider.load_private_key(private);
    let signing = signing.map_err(|error| {
        anyhow::anyhow!("{name}: key '{key}' cannot be used: {error}: expected RSA of 2048 to 8192 bits, or EC with P-256 or P-384, or Ed25519")
    })?;
    let public = chain.first().and_then(|first| Certificate::parse(first)).map(|first| first.public_key());
    let Some(public) = public else { bail!("{name}: certificate '{cert}' is damaged: it is no X.509") };
    if signing.public_key().is_some_and(|own| own.as_ref() != public) {
        bail!(
            "{name}: key '{key}' does not belong to certificate '{cert}': name the key that the certificate was made for, and put the server's own certificate first"
        );
    }
    Ok(CertifiedKey::new(chain, signing))
}

fn expired(name: &str, pem: &Pem, chain: &[CertificateDer<'_>]) -> Option<String> {
    let end = Certificate::parse(chain.first()?)?.not_after()?;
    let now = SystemTime::now().duration_since(UNIX_EPOCH).ok()?.as_secs();
    (end < i64::try_from(now).ok()?).then(|| {
        format!("{name}: certificate '{}' has expired: clients will refuse it until it is renewed", pem.file.display())
    })
}
