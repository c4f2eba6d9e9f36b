//! The http router as the master sees it: a process to be started again when it dies.

use std::os::fd::{AsFd, OwnedFd};
use std::time::{Duration, Instant};

use anyhow::Context;
use nix::unistd::Pid;
use tracing::{error, info};

use super::Master;
use super::listeners::bind_private;
use super::process::{End, ROUTER_ROLE};
use super::shutdown::Phase;
use crate::ipc::inherit::InheritedFd;
use crate::ipc::{InheritedListener, LinkEndpoint, Setup};
use crate::protocol::SocketProtocol;

/// A router that dies is started again after this; its clients' connections wait in the backlog.
const RESTART_DELAY: Duration = Duration::from_millis(500);

/// The router process, its private listener, and how workers find it. All empty without `http`.
#[derive(Debug, Default)]
pub(super) struct HttpRouter {
    /// Its id, and our end of its channel.
    pub(super) process: Option<(Pid, OwnedFd)>,
    /// When it is to be started (again).
    pub(super) due: Option<Instant>,
    listener: Option<OwnedFd>,
    /// What workers need to connect to it.
    pub(super) endpoint: Option<LinkEndpoint>,
}

impl HttpRouter {
    /// Binds the private socket; the process is started when the loop finds it due.
    pub(super) fn new() -> anyhow::Result<Self> {
        let mut token = [0; 16];
        let mut random = std::fs::File::open("/dev/urandom").context("cannot make the router's secret")?;
        std::io::Read::read_exact(&mut random, &mut token)?;
        let name = format!("rwsgi-router-{}", std::process::id());
        let listener = bind_private(&name).context("cannot bind the router's private socket")?;
        Ok(Self {
            process: None,
            due: Some(Instant::now()),
            listener: Some(listener),
            endpoint: Some(LinkEndpoint { name, token }),
        })
    }
}

impl Master {
    /// Starts the router when it is due.
    pub(super) fn start_router(&mut self, now: Instant) {
        if self.router.due.is_none_or(|due| due > now) {
            return;
        }
        self.router.due = None;
        let started = self
            .router_setup()
            .and_then(|setup| self.launcher.start(ROUTER_ROLE, None, &setup).context("cannot start the http router"));
        match started {
            Ok(process) => {
                info!("http router started (pid {})", process.0);
                self.router.process = Some(process);
            }
            Err(error) => {
                error!("{error:#}; trying again");
                self.router.due = Some(now + RESTART_DELAY);
            }
        }
    }

    fn router_setup(&self) -> anyhow::Result<Setup> {
        let mut setup = self.setup(0, &self.config)?;
        setup.listeners = self
            .router_listeners
            .iter()
            .map(|listener| {
                let (address, protocol) = (listener.address.clone(), SocketProtocol::Http);
                Ok(InheritedListener { address, protocol, fd: listener.inherit()? })
            })
            .collect::<nix::Result<_>>()?;
        setup.link_listener =
            self.router.listener.as_ref().map(|listener| InheritedFd::lend(listener.as_fd())).transpose()?;
        Ok(setup)
    }

    /// Whether `pid` was the router; if so, it is started again unless the server stops.
    pub(super) fn bury_router(&mut self, pid: Pid, end: End) -> bool {
        if self.router.process.as_ref().is_none_or(|(router, _)| *router != pid) {
            return false;
        }
        self.router.process = None;
        if self.phase == Phase::Serving {
            error!("http router (pid {pid}) died: {end}; starting another");
            self.router.due = Some(Instant::now() + RESTART_DELAY);
        } else {
            // A link in its backlog would wait for a router for ever, and its worker for the router's leave to go.
            self.router.listener = None;
        }
        true
    }
}
