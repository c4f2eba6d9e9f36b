//! WebSockets: which sockets take them, and what is asked of their clients.

use std::time::Duration;

use serde::{Deserialize, Serialize};

use super::row::REQUESTS;
use super::row::{Kind, Row};
use super::{Config, value};

/// `--websockets-…` and `--http-websockets`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct WebSockets {
    /// `--http-websockets`: the http router hands such connections over to the workers.
    pub over_http: bool,
    /// What is asked of every client.
    pub rules: WebSocketRules,
}

/// What is asked of a WebSocket's client.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct WebSocketRules {
    /// `--websockets-max-size`: the longest message, bytes.
    pub max_size: usize,
    /// `--websockets-ping-freq`: a client that is silent for so long is pinged; zero for never.
    pub ping_freq: Duration,
    /// `--websockets-pong-tolerance`: by when it must answer.
    pub pong_tolerance: Duration,
}

impl Default for WebSocketRules {
    fn default() -> Self {
        Self { max_size: 1024 * 1024, ping_freq: Duration::from_secs(30), pong_tolerance: Duration::from_secs(3) }
    }
}

#[rustfmt::skip]
pub(crate) static ROWS: &[Row] = &[
    Row { names: &["http-websockets"], kind: Kind::Flag(|c| &mut c.websockets.over_http),
          help: "Let applications speak WebSocket with clients of http, through uwsgi.websocket_handshake() or a library; each holds a thread", ..REQUESTS },
    Row { names: &["websockets-max-size", "websocket-max-size"], kind: Kind::Custom(max_size), takes: "KILOBYTES", default: "1024",
          help: "The longest WebSocket message", ..REQUESTS },
    Row { names: &["websockets-ping-freq", "websocket-ping-freq"], kind: Kind::Custom(ping_freq), takes: "SECONDS", default: "30",
          help: "Ping a WebSocket's client that is silent for this long; 0 for never", ..REQUESTS },
    Row { names: &["websockets-pong-tolerance", "websocket-pong-tolerance"], kind: Kind::Custom(pong_tolerance), takes: "SECONDS", default: "3",
          help: "Close a WebSocket whose client does not answer a ping within this time", ..REQUESTS },
];

fn max_size(config: &mut Config, value: &str) -> Result<(), String> {
    let kilobytes = value::leading_number(config, value, &(1..=1 << 20_u32))?;
    config.websockets.rules.max_size = kilobytes as usize * 1024;
    Ok(())
}

fn ping_freq(config: &mut Config, value: &str) -> Result<(), String> {
    config.websockets.rules.ping_freq = seconds(config, value)?;
    Ok(())
}

fn pong_tolerance(config: &mut Config, value: &str) -> Result<(), String> {
    config.websockets.rules.pong_tolerance = seconds(config, value)?;
    Ok(())
}

fn seconds(config: &mut Config, value: &str) -> Result<Duration, String> {
    Ok(Duration::from_secs(value::leading_number(config, value, &(0..=u32::MAX))?.into()))
}
