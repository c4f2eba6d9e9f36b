//! The socket through which operators look at a server and act on it.

use std::path::PathBuf;

use serde::{Deserialize, Serialize};

use super::Config;
use super::row::{Kind, PROCESS, Row};
use super::value::is_off;
use Kind::Custom;

/// `--control`: where the control socket is.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub enum ControlSocket {
    /// In the run directory of the user that the server runs as, where there is one.
    #[default]
    Default,
    /// There is none.
    Off,
    /// Here.
    At(PathBuf),
}

#[rustfmt::skip]
pub(crate) static ROWS: &[Row] = &[
    Row { names: &["control"], kind: Custom(set_control), takes: "PATH|off",
          help: "The control socket, for rwsgi ctl and rtop: a unix socket of mode 600; off for none; without this it is in the run directory of the server's user, where there is one", ..PROCESS },
];

fn set_control(config: &mut Config, value: &str) -> Result<(), String> {
    // sockaddr_un.sun_path holds 108 bytes, the last one a NUL.
    const LONGEST: usize = 107;
    config.control = match value {
        value if is_off(value) => ControlSocket::Off,
        value if value.is_empty() || value.contains('\0') || value.len() > LONGEST || value.starts_with('@') => {
            return Err(format!("the path of a socket file, of {LONGEST} bytes at most, or off"));
        }
        path => ControlSocket::At(path.into()),
    };
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_control_socket_is_a_file_or_off() {
        for (value, expected) in [
            ("/run/x.ctl", ControlSocket::At("/run/x.ctl".into())),
            ("x.ctl", ControlSocket::At("x.ctl".into())),
            ("off", ControlSocket::Off),
            ("false", ControlSocket::Off),
        ] {
            let mut config = Config::default();
            set_control(&mut config, value).unwrap();
            assert_eq!(config.control, expected);
        }
        let long = "x".repeat(108);
        for value in ["", "@abstract", "a\0b", &long] {
            assert!(set_control(&mut Config::default(), value).is_err(), "{value}");
        }
    }
}
