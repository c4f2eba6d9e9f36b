//! Where the workers and the http router meet: a listening socket that has no name of ours, and a secret.

use std::os::fd::OwnedFd;

use anyhow::Context;

use super::listeners::bind_private;
use crate::ipc::LinkEndpoint;

/// The socket that the router accepts workers from, and how they find it.
#[derive(Debug)]
pub(super) struct PrivateSocket {
    /// The listening socket; `None` once no router will accept from it any more.
    pub(super) listener: Option<OwnedFd>,
    /// What workers need to connect to it.
    pub(super) endpoint: LinkEndpoint,
}

impl PrivateSocket {
    /// Binds one.
    ///
    /// # Errors
    /// When the system has no descriptor or no randomness left.
    pub(super) fn bind() -> anyhow::Result<Self> {
        let mut token = [0; 16];
        let mut random = std::fs::File::open("/dev/urandom").context("cannot make the router's secret")?;
        std::io::Read::read_exact(&mut random, &mut token)?;
        let name = format!("rwsgi-router-{}", std::process::id());
        let listener = bind_private(&name).context("cannot bind the router's private socket")?;
        Ok(Self { listener: Some(listener), endpoint: LinkEndpoint { name, token } })
    }
}
