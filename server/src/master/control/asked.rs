//! A request from the control socket, and the way in which its client gets replies.

use std::sync::Arc;

use rwsgi_stats::control::{Answer, Reply, Request};
use tokio::sync::{mpsc, oneshot};

use super::peer::Peer;

/// So many progress lines wait for a client that does not read; further ones are lost.
const MOST_PROGRESS: usize = 32;

/// A request from the control socket.
#[derive(Debug)]
pub(in crate::master) struct Asked {
    pub(in crate::master) request: Request,
    /// Who.
    pub(in crate::master) peer: Arc<Peer>,
    pub(in crate::master) answering: Answering,
}

/// Sends replies to the client that asked. It can be kept until the answer is known; dropped without an answer, it
/// tells the client that there is none.
#[derive(Debug)]
pub(in crate::master) struct Answering {
    progress: mpsc::Sender<String>,
    end: oneshot::Sender<Reply>,
}

impl Answering {
    /// Makes one, with the end that the client's task reads.
    pub(super) fn new() -> (Self, Replies) {
        let ((progress, words), (end, last)) = (mpsc::channel(MOST_PROGRESS), oneshot::channel());
        (Self { progress, end }, Replies { progress: words, end: last })
    }

    /// One whose other end nobody has.
    #[cfg(test)]
    pub(in crate::master) fn to_nobody() -> Self {
        Self::new().0
    }

    /// It was done.
    pub(in crate::master) fn done(self, answer: Answer) {
        // Who asked may have gone.
        let _ = self.end.send(Reply::Done(answer));
    }

    /// It was done: in words.
    pub(in crate::master) fn text(self, text: impl Into<String>) {
        self.done(Answer::Text(text.into()));
    }

    /// It was not done: why, and what to do.
    pub(in crate::master) fn failed(self, why: impl Into<String>) {
        let _ = self.end.send(Reply::Failed(why.into()));
    }

    /// More follows. Lost where the client does not read.
    pub(in crate::master) fn progress(&self, text: impl Into<String>) {
        let _ = self.progress.try_send(text.into());
    }

    /// Whether who asked has hung up.
    pub(in crate::master) fn is_gone(&self) -> bool {
        self.end.is_closed()
    }
}

/// The replies, for the client's task.
#[derive(Debug)]
pub(super) struct Replies {
    progress: mpsc::Receiver<String>,
    end: oneshot::Receiver<Reply>,
}

impl Replies {
    /// The next one; nothing follows one that is no progress.
    pub(super) async fn next(&mut self) -> Reply {
        tokio::select! {
            biased;
            Some(text) = self.progress.recv() => Reply::Progress(text),
            end = &mut self.end => end.unwrap_or_else(|_| {
                Reply::Failed("there is no answer: the server is stopping, or the process that was asked has ended".into())
            }),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn replies(say: impl FnOnce(Answering)) -> Vec<Reply> {
        let (answering, mut replies) = Answering::new();
        say(answering);
        let runtime = tokio::runtime::Builder::new_current_thread().build().unwrap();
        runtime.block_on(async {
            let mut all = Vec::new();
            loop {
                all.push(replies.next().await);
                if !matches!(all.last(), Some(Reply::Progress(_))) {
                    return all;
                }
            }
        })
    }

    #[test]
    fn the_answer_comes_after_its_progress_and_a_lost_one_is_told() {
        let said = replies(|answering| {
            let _ = answering.progress.try_send("half".into());
            answering.text("done");
        });
        assert_eq!(said, [Reply::Progress("half".into()), Reply::Done(Answer::Text("done".into()))]);
        assert!(matches!(&replies(drop)[..], [Reply::Failed(why)] if why.contains("stopping")));
    }
}
