//! Options of the sockets that clients connect to: TLS, the PROXY protocol, a redirect to https.

use rwsgi_config::Config;

use crate::tls::{Contexts, Material};

/// Options of one socket that clients connect to.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct ListenOptions {
    /// It speaks TLS: its place among the sockets that do, from 0.
    pub(super) tls: Option<usize>,
    /// Every request is redirected to https.
    pub(super) redirect: Option<Redirect>,
    /// A connection may begin with a PROXY header.
    pub(super) proxy_protocol: bool,
}

/// A redirect to https.
#[derive(Clone, Copy, Debug)]
pub(super) struct Redirect {
    /// The port in `Location`; `None` for the default port of https.
    pub(super) port: Option<u16>,
}

impl ListenOptions {
    /// The options of every socket, in the order in which the master passes the sockets: `http`, `https`, `http-to-https`.
    pub(crate) fn all(config: &Config) -> Vec<Self> {
        let proxy_protocol = config.http_router.takes_proxy_protocol();
        let plain = Self { proxy_protocol, ..Self::default() };
        let https = (0..config.tls.https.len()).map(|number| Self { tls: Some(number), ..plain });
        let redirects = config.tls.redirects.iter();
        let redirects = redirects.map(|socket| Self { redirect: Some(Redirect { port: socket.port }), ..plain });
        config.http.iter().map(|_| plain).chain(https).chain(redirects).collect()
    }
}

/// Reads certificates and keys from the memory file that the master has written.
///
/// # Errors
/// When they cannot be read or used.
pub(super) fn read_contexts(file: &std::fs::File) -> anyhow::Result<Contexts> {
    use std::os::unix::fs::FileExt;
    let mut bytes = vec![0; usize::try_from(file.metadata()?.len())?];
    file.read_exact_at(&mut bytes, 0)?;
    Ok(Contexts::new(&Material::decode(&bytes)?)?.0)
}
