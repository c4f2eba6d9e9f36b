//! Generations: loads of the application, and the channels to their fork servers.

use std::cell::RefCell;
use std::collections::{BTreeSet, VecDeque};
use std::os::fd::{AsFd, OwnedFd};
use std::rc::Rc;

use anyhow::Context;
use tokio::io::Interest;
use tokio::net::UnixDatagram;

use super::events::{Event, Events, Reload};
use crate::ids::{GenerationNumber, WorkerId};
use crate::ipc::{Answer, Order, receive_message, send_message};
use rwsgi_config::Config;

/// One load of the application. Its fork server's process is a child like others.
#[derive(Debug)]
pub(super) struct Generation {
    /// Its number.
    pub(super) number: GenerationNumber,
    /// The interpreter's version, once the application is loaded.
    pub(super) python: Option<String>,
    /// The configuration that it was loaded with.
    pub(super) config: Config,
    /// How it is to take over.
    pub(super) how: Reload,
    /// Workers that have had a process of it.
    pub(super) begun: BTreeSet<WorkerId>,
    channel: Rc<UnixDatagram>,
    /// What the fork server has answered, in order: no more than events wait of it.
    answers: Rc<RefCell<VecDeque<Answer>>>,
}

impl Generation {
    /// The generation that is loaded by the process at the other end of `channel`.
    ///
    /// # Errors
    /// When the system has no descriptor left.
    pub(super) fn new(
        number: GenerationNumber,
        channel: OwnedFd,
        config: Config,
        how: Reload,
        events: Events,
    ) -> anyhow::Result<Self> {
        let flags = nix::fcntl::OFlag::O_NONBLOCK;
        nix::fcntl::fcntl(&channel, nix::fcntl::FcntlArg::F_SETFL(flags))?;
        let channel = Rc::new(UnixDatagram::from_std(channel.into()).context("cannot watch the fork server")?);
        let answers = Rc::<RefCell<VecDeque<Answer>>>::default();
        let (reader, received) = (Rc::downgrade(&channel), Rc::downgrade(&answers));
        tokio::task::spawn_local(async move {
            while let Some(channel) = reader.upgrade() {
                let answer = channel.async_io(Interest::READABLE, || receive_message(channel.as_fd())).await;
                let (Ok(Some(answer)), Some(answers)) = (answer, received.upgrade()) else { return };
                answers.borrow_mut().push_back(answer);
                if events.send(Event::Answers(number)).await.is_err() {
                    return;
                }
            }
        });
        Ok(Self { number, python: None, config, how, begun: BTreeSet::new(), channel, answers })
    }

    /// Sends the fork server an order.
    ///
    /// # Errors
    /// When it is gone, is to leave, or does not read its orders.
    pub(super) fn order(&self, order: Order) -> std::io::Result<()> {
        send_message(self.channel.as_fd(), &order)
    }

    /// What the fork server has answered and nobody has taken yet.
    pub(super) fn take_answers(&self) -> VecDeque<Answer> {
        std::mem::take(&mut self.answers.borrow_mut())
    }

    /// The same when it has ended: with what is still on its way.
    pub(super) fn take_last_answers(&self) -> VecDeque<Answer> {
        let mut answers = self.take_answers();
        // To its end, or to what cannot be read: nobody writes to it any more.
        while let Ok(Some(answer)) = receive_message(self.channel.as_fd()) {
            answers.push_back(answer);
        }
        answers
    }

    /// From now on orders go to the fork server of `next`, the same load of the application. The one before has answered
    /// all that it was ordered.
    pub(super) fn take_over(&mut self, next: Self) {
        (self.channel, self.answers) = (next.channel, next.answers);
    }

    /// Lets the fork server leave: it sees end-of-file. Its last answers are still received.
    pub(super) fn dismiss(&self) {
        let _ = self.channel.shutdown(std::net::Shutdown::Write);
    }
}

/// All generations that have a process: the one that serves, one that loads, ones whose last workers leave.
#[derive(Debug, Default)]
pub(super) struct Generations {
    generations: Vec<Generation>,
    current: Option<GenerationNumber>,
    newest: Option<GenerationNumber>,
}

impl Generations {
    /// The one that new processes are forked from; `None` until the first is loaded.
    pub(super) fn current(&self) -> Option<GenerationNumber> {
        self.current
    }

    /// From now on this one serves.
    pub(super) fn set_current(&mut self, number: GenerationNumber) {
        self.current = Some(number);
    }

    /// The one that was loaded last, or loads.
    pub(super) fn newest(&self) -> Option<GenerationNumber> {
        self.newest
    }

    /// The number of the next one.
    pub(super) fn next_number(&self) -> GenerationNumber {
        self.newest.map_or(GenerationNumber::FIRST, GenerationNumber::next)
    }

    /// Adds one, which is newer than all others.
    pub(super) fn add(&mut self, generation: Generation) {
        self.newest = Some(generation.number);
        self.generations.push(generation);
    }

    /// The one of this number.
    pub(super) fn get(&self, number: GenerationNumber) -> Option<&Generation> {
        self.generations.iter().find(|generation| generation.number == number)
    }

    /// The one of this number.
    pub(super) fn get_mut(&mut self, number: GenerationNumber) -> Option<&mut Generation> {
        self.generations.iter_mut().find(|generation| generation.number == number)
    }

    /// Forgets one whose process is gone.
    pub(super) fn remove(&mut self, number: GenerationNumber) {
        self.generations.retain(|generation| generation.number != number);
    }
}
