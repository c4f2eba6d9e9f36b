//! What is asked of the kernel for a listening socket.

use rwsgi_stats::Address;
use serde::{Deserialize, Serialize};

use super::Config;
use super::row::SOCKETS;
use super::row::{Kind, Row};
use super::value::leading_number;
use Kind::{Custom, Flag, Limit};

/// Options of the sockets that clients connect to.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct SocketConfig {
    /// `--reuse-port`: others may listen on the same address (`SO_REUSEPORT`).
    pub reuse_port: bool,
    /// `--no-defer-accept`: a client is accepted before its first byte is there (no `TCP_DEFER_ACCEPT`).
    pub no_defer_accept: bool,
    /// `--abstract-socket`: unix sockets have no file.
    pub is_abstract: bool,
    /// `--freebind`: the address need not be this machine's yet (`IP_FREEBIND`).
    pub freebind: bool,
    /// `--socket-sndbuf`: `SO_SNDBUF`, bytes.
    pub send_buffer: Option<u32>,
    /// `--socket-rcvbuf`: `SO_RCVBUF`, bytes.
    pub receive_buffer: Option<u32>,
    /// `--map-socket`: which workers accept from which sockets, where not all do.
    pub maps: Vec<SocketMap>,
}

/// `--map-socket`: the workers that accept from a socket.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct SocketMap {
    /// The socket's place among those that workers accept from, from 0.
    pub socket: u32,
    /// Numbers of workers, from 1.
    pub workers: Vec<u32>,
}

#[rustfmt::skip]
pub(crate) static ROWS: &[Row] = &[
    Row { names: &["reuse-port"], kind: Flag(|c| &mut c.sockets.reuse_port), takes: "",
          help: "Let other servers of the same user listen on the same TCP addresses (SO_REUSEPORT)", ..SOCKETS },
    Row { names: &["no-defer-accept"], kind: Flag(|c| &mut c.sockets.no_defer_accept), takes: "",
          help: "Accept a TCP client before it has sent anything, not a second later at the latest (no TCP_DEFER_ACCEPT)", ..SOCKETS },
    Row { names: &["abstract-socket"], short: Some('a'), kind: Flag(|c| &mut c.sockets.is_abstract), takes: "",
          help: "Bind unix sockets in the abstract namespace: no file is made, and clients write @ before the path", ..SOCKETS },
    Row { names: &["freebind"], kind: Flag(|c| &mut c.sockets.freebind), takes: "",
          help: "Listen on TCP addresses that this machine does not have yet (IP_FREEBIND)", ..SOCKETS },
    Row { names: &["socket-sndbuf"], kind: Limit(|c| &mut c.sockets.send_buffer), takes: "BYTES",
          help: "Size of the kernel's buffers for responses (SO_SNDBUF)", ..SOCKETS },
    Row { names: &["socket-rcvbuf"], kind: Limit(|c| &mut c.sockets.receive_buffer), takes: "BYTES",
          help: "Size of the kernel's buffers for requests (SO_RCVBUF)", ..SOCKETS },
    Row { names: &["map-socket"], kind: Custom(map_socket), takes: "N:WORKER[,WORKER…]", repeats: true,
          help: "Let only these workers accept from this socket, counted from 0 over socket and http-socket as they are written", ..SOCKETS },
];

fn map_socket(config: &mut Config, value: &str) -> Result<(), String> {
    let expected = || "a socket's number, a colon and numbers of workers, as in 0:1,2".to_owned();
    let (socket, workers) = value.split_once(':').ok_or_else(expected)?;
    let socket = leading_number(config, socket, &(0..=u32::MAX))?;
    let workers = workers.split(',').map(|worker| leading_number(config, worker, &(1..=u32::MAX)));
    let workers = workers.collect::<Result<_, _>>().map_err(|_| expected())?;
    config.sockets.maps.push(SocketMap { socket, workers });
    Ok(())
}

/// Makes unix sockets abstract if `abstract-socket` says so, and changes [`SocketMap::socket`] from the order of the
/// configuration to the order in which the server holds its sockets: those that speak HTTP first. `first_name` gives the
/// first name of an option.
///
/// # Errors
/// When a map names a worker beyond `processes`.
pub(crate) fn finish(config: &mut Config, first_name: impl Fn(&str) -> &str) -> Result<(), String> {
    if config.sockets.is_abstract {
        let Config { http, http_socket, socket, stats, .. } = config;
        for address in http.iter_mut().chain(http_socket).chain(socket).chain(stats) {
            if let Address::Unix(path) = address {
                *address = Address::Abstract(path.to_string_lossy().into_owned());
            }
        }
    }
    if config.sockets.maps.is_empty() {
        return Ok(());
    }
    let mut order = Vec::new();
    let (mut http, mut uwsgi) = (0, config.http_socket.len());
    if config.socket_speaks_http {
        uwsgi -= config.given.iter().filter(|(name, _)| first_name(name) == "socket").count();
    }
    for (name, _) in &config.given {
        let next = match first_name(name) {
            "http-socket" => &mut http,
            "socket" => &mut uwsgi,
            _ => continue,
        };
        order.push(*next as u32);
        *next += 1;
    }
    let mut maps = std::mem::take(&mut config.sockets.maps);
    if config.container.auto_processes && maps.iter().any(|map| !map.workers.is_empty()) {
        return Err("map-socket: give processes a number: with auto nobody knows which workers there will be".into());
    }
    if let Some(worker) = maps.iter().flat_map(|map| &map.workers).find(|worker| **worker > config.processes) {
        return Err(format!("map-socket: there is no worker {worker}: processes is {}", config.processes));
    }
    maps.retain_mut(|map| match order.get(map.socket as usize) {
        Some(place) => {
            map.socket = *place;
            true
        }
        None => {
            config.warnings.push(format!("map-socket: there is no socket {}: the first is 0", map.socket));
            false
        }
    });
    config.sockets.maps = maps;
    Ok(())
}

impl SocketConfig {
    /// Whether the kernel keeps a TCP client until its first byte is there. Where others listen on the same address it does
    /// not: a client that the kernel keeps would be lost when this server's socket is closed.
    #[must_use]
    pub fn defers_accept(&self) -> bool {
        !self.no_defer_accept && !self.reuse_port
    }

    /// Whether a worker accepts from the socket of that place among those that workers accept from.
    #[must_use]
    pub fn is_for(&self, socket: usize, worker: u32) -> bool {
        let mut maps = self.maps.iter().filter(|map| map.socket as usize == socket).peekable();
        maps.peek().is_none() || maps.any(|map| map.workers.contains(&worker))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sockets_are_counted_as_they_are_written() {
        let given = ["http-socket", "uwsgi-socket", "http-socket", "socket"];
        let mut config = Config { processes: 3, ..Config::default() };
        config.given = given.iter().map(|name| ((*name).into(), String::new())).collect();
        let address = || ":9000".parse().unwrap();
        (config.http_socket, config.socket) = (vec![address(), address()], vec![address(), address()]);
        for value in ["1:1", "2:2,3", "2:1", "9:1"] {
            map_socket(&mut config, value).unwrap();
        }
        finish(&mut config, crate::options::first_name).unwrap();
        // Held as: http-socket, http-socket, uwsgi-socket, socket.
        let workers_of = |socket| [1, 2, 3].map(|worker| config.sockets.is_for(socket, worker));
        assert_eq!(workers_of(0), [true; 3]);
        assert_eq!(workers_of(2), [true, false, false]);
        assert_eq!(workers_of(1), [true; 3], "two lines for one socket add up");
        assert_eq!(config.warnings.len(), 1);
        config.processes = 1;
        map_socket(&mut config, "0:2").unwrap();
        assert!(finish(&mut config, crate::options::first_name).is_err());
        assert!(map_socket(&mut config, "0").is_err());
    }
}
