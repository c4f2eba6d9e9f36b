//! What the router's loop owns.

use std::collections::VecDeque;
use std::fs::File;
use std::os::fd::{AsFd, OwnedFd};
use std::sync::Arc;

use anyhow::Context;
use nix::sys::epoll::{Epoll, EpollCreateFlags, EpollEvent, EpollFlags};
use nix::sys::signal::{SigSet, Signal};
use nix::sys::signalfd::{SfdFlags, SignalFd};
use rwsgi_stats::Address;

use super::bulk::Bulk;
use super::client::Client;
use super::keyed::{Key, Keyed};
use super::lane::PassedFiles;
use super::limits::Limits;
use super::link::Link;
use super::listen::{ListenOptions, read_contexts};
use super::threads::Threads;
use super::token::Token;
use crate::clock::MonotonicNanos;
use crate::io::accept::Listener;
use crate::io::descriptors::{ClientCap, for_files};
use crate::io::temp::{TempFiles, TempPlace};
use crate::stats::cell::RouterCell;
use crate::stats::scoreboard::{Scoreboard, TempHolder};
use crate::tls::Contexts;

/// A second on the clock, ns.
pub(super) const SECOND: u64 = 1_000_000_000;

/// Why no clients are accepted.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Pause {
    /// Descriptors or memory were out: it is tried again in this second.
    Until(u32),
    /// There are as many as there may be.
    Full,
}

/// What the master gives to the router.
#[derive(Debug)]
pub(crate) struct RouterConfig {
    /// Bound and listening sockets for clients, and what they are bound to.
    pub listeners: Vec<(OwnedFd, Address)>,
    /// What is special about them, in the same order.
    pub listen_options: Vec<ListenOptions>,
    /// The memory file with the certificates of those that speak TLS.
    pub certificates: Option<File>,
    /// The bound and listening unix socket that workers connect to.
    pub link_listener: OwnedFd,
    /// The secret by which workers prove that they belong to this server.
    pub token: [u8; 16],
    /// Where the master's [`RouterOrder`](crate::ipc::RouterOrder)s come from.
    pub orders: OwnedFd,
    /// End-of-file on it: the master is gone.
    pub liveness: OwnedFd,
    /// What the router may keep and for how long.
    pub limits: Limits,
    /// Where temporary files are.
    pub temp: TempPlace,
}

/// The loop's state.
pub(super) struct Router<'a> {
    pub(super) limits: Limits,
    pub(super) temp: TempFiles,
    pub(super) token: [u8; 16],
    pub(super) cell: &'a RouterCell,
    pub(super) board: &'a Scoreboard,
    pub(super) epoll: Epoll,
    pub(super) listeners: Vec<Listener>,
    pub(super) listen_options: Vec<ListenOptions>,
    pub(super) certificates: Option<File>,
    /// What the next connections of TLS are made with.
    pub(super) contexts: Option<Arc<Contexts>>,
    pub(super) link_listener: OwnedFd,
    pub(super) liveness: OwnedFd,
    pub(super) orders: OwnedFd,
    pub(super) signals: SignalFd,
    pub(super) clients: Keyed<Client>,
    pub(super) links: Keyed<Link>,
    pub(super) threads: Threads,
    /// Clients whose requests wait for a thread.
    pub(super) queue: VecDeque<Key>,
    /// Requests that were dispatched to a thread which has others before them.
    pub(super) ahead: usize,
    /// Links with dispatched requests that are not sent.
    pub(super) unsent_links: Vec<Key>,
    /// Links that have used up their turn with work left, each once.
    pub(super) links_again: Vec<Key>,
    /// The same of clients, in the order in which they get the next.
    pub(super) clients_again: VecDeque<Key>,
    /// When the loop last woke.
    pub(super) now: MonotonicNanos,
    /// When the clock began: deadlines are seconds since then.
    pub(super) started: MonotonicNanos,
    /// The second of the last sweep.
    pub(super) swept: u32,
    /// No new connections, and none kept.
    pub(super) stopping: bool,
    /// The master is gone: no worker comes any more.
    pub(super) orphaned: bool,
    /// The master has sent its order to stop, once.
    pub(super) stop_from_master: bool,
    /// How many clients there may be.
    pub(super) cap: ClientCap,
    pub(super) clients_paused: Option<Pause>,
    /// The second in which links are accepted again, descriptors having been out.
    pub(super) links_paused: Option<u32>,
    /// When the threads are looked through for those that have not begun with what they were sent.
    pub(super) check_begun: Option<MonotonicNanos>,
    /// The bulk bytes and time that are left in this turn.
    pub(super) bulk: Bulk,
    pub(super) passed_files: PassedFiles,
}

/// Interest in everything but writing, as edges.
pub(super) fn interest(writing: bool) -> EpollFlags {
    let always = EpollFlags::EPOLLIN | EpollFlags::EPOLLRDHUP | EpollFlags::EPOLLET;
    if writing { always | EpollFlags::EPOLLOUT } else { always }
}

impl<'a> Router<'a> {
    pub(super) fn new(config: RouterConfig, board: &'a Arc<Scoreboard>) -> anyhow::Result<Self> {
        let RouterConfig {
            listeners,
            listen_options,
            certificates,
            link_listener,
            token,
            orders,
            liveness,
            limits,
            temp,
        } = config;
        let mut mask = SigSet::empty();
        // A terminal that goes away is the master's affair; its SIGHUP must not end the router.
        // Nor must SIGPIPE, which sendfile raises where a client is gone.
        for signal in [Signal::SIGTERM, Signal::SIGINT, Signal::SIGQUIT, Signal::SIGHUP, Signal::SIGPIPE] {
            mask.add(signal);
        }
        mask.thread_block().context("the router cannot block signals")?;
        let signals = SignalFd::with_flags(&mask, SfdFlags::SFD_CLOEXEC | SfdFlags::SFD_NONBLOCK)
            .context("the router cannot receive signals")?;
        let listeners = listeners.into_iter().map(listen).collect::<Result<Vec<_>, _>>()?;
        let contexts = certificates.as_ref().map(read_contexts).transpose().context("https")?.map(Arc::new);
        rustix::io::ioctl_fionbio(&orders, true).context("the router cannot listen to the master")?;
        let epoll = Epoll::new(EpollCreateFlags::EPOLL_CLOEXEC).context("the router cannot make its epoll")?;
        // Of every process that there may be at once, those that a reload replaces among them.
        let links = (board.layout().slots as usize).saturating_mul(board.layout().threads as usize);
        let now = MonotonicNanos::now();
        let router = Self {
            limits,
            temp: TempFiles::new(temp, Arc::clone(board), TempHolder::Router),
            token,
            cell: board.router(),
            board,
            epoll,
            listeners,
            listen_options,
            certificates,
            contexts,
            link_listener,
            liveness,
            orders,
            signals,
            clients: Keyed::new(),
            links: Keyed::new(),
            threads: Threads::default(),
            queue: VecDeque::new(),
            ahead: 0,
            unsent_links: Vec::new(),
            links_again: Vec::new(),
            clients_again: VecDeque::new(),
            now,
            // So that no second is 0, which means never.
            started: MonotonicNanos::from_nanos(now.as_nanos().saturating_sub(SECOND)),
            swept: 1,
            stopping: false,
            orphaned: false,
            stop_from_master: false,
            // Each link may have a lane.
            cap: ClientCap::new(2 * links + for_files()),
            clients_paused: None,
            links_paused: None,
            check_begun: None,
            bulk: Bulk::WHOLE,
            passed_files: PassedFiles::default(),
        };
        let watch = |fd: &dyn AsFd, token: Token| {
            router.epoll.add(fd.as_fd(), EpollEvent::new(EpollFlags::EPOLLIN, token.to_bits()))
        };
        let watched = watch(&router.link_listener, Token::LinkListener)
            .and_then(|()| watch(&router.signals, Token::Signals))
            .and_then(|()| watch(&router.liveness, Token::Liveness))
            .and_then(|()| watch(&router.orders, Token::Orders))
            .and_then(|()| (0..).zip(&router.listeners).try_for_each(|(at, one)| watch(&one.fd, Token::Listener(at))));
        watched.context("the router cannot watch its sockets")?;
        board.router().set_depth(0);
        board.router().set_connections(0);
        Ok(router)
    }
}

/// A socket that clients connect to.
fn listen((fd, address): (OwnedFd, Address)) -> anyhow::Result<Listener> {
    let listener = Listener::new(fd, &address).with_context(|| format!("http: cannot accept on {address}"))?;
    if listener.is_tcp() {
        // Inherited by what is accepted.
        rustix::net::sockopt::set_tcp_nodelay(&listener.fd, true)
            .with_context(|| format!("http: cannot set TCP_NODELAY on {address}"))?;
    }
    Ok(listener)
}
