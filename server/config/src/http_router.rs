//! Options of the http router other than addresses and limits: where its requests go, the PROXY protocol, and
//! `shared-socket`, which other options name by number.

use std::net::IpAddr;
use std::path::PathBuf;

use rwsgi_stats::Address;
use serde::{Deserialize, Serialize};

use super::Config;
use super::row::SOCKETS;
use super::row::{Kind, Row};
use Kind::{Addresses, Flag};

/// `--http-*` and what goes with them.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct HttpRouterConfig {
    /// `--http-to`: only this server's own sockets, where its requests go anyway.
    pub to: Vec<Address>,
    /// `--http-enable-proxy-protocol`: take the client's address from what a proxy sends before its request.
    pub proxy_protocol: bool,
    /// `--enable-proxy-protocol`: the same on every HTTP socket, the workers' own too.
    pub proxy_protocol_everywhere: bool,
    /// `--shared-socket`: what `=0`, `=1` … stand for in other options.
    pub shared: Vec<Address>,
}

impl HttpRouterConfig {
    /// Whether a connection to the http router may begin with a PROXY header.
    #[must_use]
    pub fn takes_proxy_protocol(&self) -> bool {
        self.proxy_protocol || self.proxy_protocol_everywhere
    }
}

#[rustfmt::skip]
pub(crate) static ROWS: &[Row] = &[
    Row { names: &["http-enable-proxy-protocol"], kind: Flag(|c| &mut c.http_router.proxy_protocol), takes: "[1]",
          help: "At http and https, take a client's address from the PROXY line (version 1 or 2) that a proxy sends first; whoever can connect can claim any address",
          ..SOCKETS },
    Row { names: &["enable-proxy-protocol"], kind: Flag(|c| &mut c.http_router.proxy_protocol_everywhere), takes: "",
          help: "The same at http-socket too", ..SOCKETS },
    Row { names: &["http-to"], kind: Addresses(|c| &mut c.http_router.to),
          help: "Where the http router sends requests: only to a socket of this server, where they go anyway", ..SOCKETS },
    Row { names: &["shared-socket", "undeferred-shared-socket"], kind: Addresses(|c| &mut c.http_router.shared),
          help: "An address that http, https, http-socket and socket call =0, the next one =1", ..SOCKETS },
];

/// What depends on several options. The sockets of `config` are known.
pub(super) fn finish(config: &mut Config) -> Result<(), String> {
    let shared = std::mem::take(&mut config.http_router.shared);
    let sockets = config.http.iter_mut().chain(&mut config.http_socket).chain(&mut config.socket);
    for address in sockets.chain(config.tls.addresses_mut()) {
        let Some(number) = shared_number(address) else { continue };
        *address = shared.get(number).cloned().ok_or_else(|| {
            format!("={number} stands for shared-socket {number}, counted from 0, and there are {}", shared.len())
        })?;
    }
    config.http_router.shared = shared;
    if config.websockets.over_http && !config.tls.https.is_empty() {
        let lost = "http-websockets: not at https, where the handshake is refused: let a proxy speak TLS for them, with http behind it";
        config.lose(lost.into());
    }
    let own: Vec<&Address> = config.socket.iter().chain(&config.http_socket).collect();
    match config.http_router.to.iter().find(|target| !own.iter().any(|own| leads_to(target, own))) {
        Some(other) => Err(format!(
            "http-to: '{other}' is no socket of this server: http serves this server only; use nginx or HAProxy as the proxy of another"
        )),
        None => Ok(()),
    }
}

/// The number of the shared socket that this stands for.
fn shared_number(address: &Address) -> Option<usize> {
    let Address::Unix(path) = address else { return None };
    path.to_str()?.strip_prefix('=')?.parse().ok()
}

/// Whether who connects to `target` reaches what listens on `own`.
fn leads_to(target: &Address, own: &Address) -> bool {
    match (target, own) {
        (Address::Tcp { host, port }, Address::Tcp { host: own, port: own_port }) => {
            let is_any = matches!(own.as_str(), "" | "0.0.0.0" | "::");
            port == own_port && (host == own || is_any && is_here(host) || is_loopback(host) && is_loopback(own))
        }
        (Address::Unix(path), Address::Unix(own)) => plain(path) == plain(own),
        _ => target == own,
    }
}

fn plain(path: &std::path::Path) -> PathBuf {
    std::path::absolute(path).unwrap_or_else(|_| path.to_owned())
}

fn is_loopback(host: &str) -> bool {
    host == "localhost" || host.parse::<IpAddr>().is_ok_and(|ip| ip.is_loopback())
}

/// Whether it is this machine as far as one can tell without asking the network.
fn is_here(host: &str) -> bool {
    matches!(host, "" | "0.0.0.0" | "::") || is_loopback(host)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn leads(target: &str, own: &str) -> bool {
        leads_to(&target.parse().unwrap(), &own.parse().unwrap())
    }

    #[test]
    fn the_routers_target_may_be_the_servers_own_socket_however_it_is_written() {
        for (target, own) in [
            ("/tmp/x.sock", "/tmp/x.sock"),
            ("0.0.0.0:3031", "0.0.0.0:3031"),
            ("127.0.0.1:3031", ":3031"),
            ("localhost:3031", "127.0.0.1:3031"),
            (":3031", "0.0.0.0:3031"),
            ("@app", "@app"),
        ] {
            assert!(leads(target, own), "{target} {own}");
        }
        for (target, own) in [
            ("/tmp/y.sock", "/tmp/x.sock"),
            ("127.0.0.1:3032", ":3031"),
            ("192.0.2.1:3031", ":3031"),
            ("127.0.0.1:3031", "192.0.2.1:3031"),
        ] {
            assert!(!leads(target, own), "{target} {own}");
        }
    }

    #[test]
    fn what_https_cannot_do_for_websockets_is_said() {
        let mut config = Config::default();
        config.websockets.over_http = true;
        finish(&mut config).unwrap();
        assert_eq!(config.warnings.len(), 0);
        let identity = crate::Identity { cert: "c".into(), key: "k".into(), ciphers: None, client_ca: None };
        config.tls.https.push(crate::HttpsSocket { address: ":443".parse().unwrap(), identity });
        finish(&mut config).unwrap();
        assert!(config.warnings[0].contains("not at https"));
    }

    #[test]
    fn a_number_stands_for_a_shared_socket() {
        let shared = |socket: &str| {
            let mut config = Config::default();
            config.http_router.shared = vec![":80".parse().unwrap(), "/tmp/x.sock".parse().unwrap()];
            config.http = vec![socket.parse().unwrap()];
            finish(&mut config).map(|()| config.http[0].to_string())
        };
        assert_eq!(shared("=1").as_deref(), Ok("/tmp/x.sock"));
        assert_eq!(shared("=0"), shared(":80"));
        assert!(shared("=2").unwrap_err().contains("there are 2"));
    }
}
