//! This server as a vassal: what it tells its emperor, and what it does when that orders something.

use std::time::Duration;

use tracing::{error, info};

use super::events::{Event, Reload};
use super::state::{Master, Phase as Stage};
use crate::vassal::{Heard, Link, Report};
use rwsgi_config::hooks::Phase;

impl Master {
    /// From now on listens to the emperor that has started this server, if there is one.
    ///
    /// # Errors
    /// When the connection cannot be watched.
    pub(super) fn follow(&mut self, own_emperor: Option<Link>) -> anyhow::Result<()> {
        let Some(own_emperor) = own_emperor else { return Ok(()) };
        let mut orders = own_emperor.orders()?;
        let events = self.events.clone();
        tokio::task::spawn_local(async move {
            loop {
                let heard = orders.next().await;
                if events.send(Event::FromEmperor(heard)).await.is_err() || heard == Heard::Lost {
                    return;
                }
            }
        });
        if let Some(seconds) = self.config.emperor.heartbeat {
            let events = self.events.clone();
            tokio::task::spawn_local(async move {
                while events.send(Event::Heartbeat).await.is_ok() {
                    tokio::time::sleep(Duration::from_secs(seconds.into())).await;
                }
            });
        }
        info!("this server is a vassal");
        self.own_emperor = Some(own_emperor);
        Ok(())
    }

    /// Tells the emperor that this server serves.
    pub(super) fn report_ready(&self) {
        if let Some(own_emperor) = &self.own_emperor {
            [Report::Ready, Report::Accepting, Report::Loyal].into_iter().for_each(|report| own_emperor.tell(report));
        }
    }

    /// Tells the emperor that this server is well: a worker serves that nothing has stopped.
    pub(super) fn send_heartbeat(&self) {
        let is_well = self.children.workers().any(|child| child.is_ready() && !child.is_called_silent);
        if let Some(own_emperor) = self.own_emperor.as_ref().filter(|_| is_well) {
            own_emperor.tell(Report::Heartbeat);
        }
    }

    /// The emperor orders something, or is gone: runs the hooks for that, and then does what is to be done.
    pub(super) fn hear_emperor(&mut self, heard: Heard) {
        let phase = match heard {
            Heard::Stop => Phase::EmperorStop,
            Heard::Reload => Phase::EmperorReload,
            Heard::Lost => Phase::EmperorLost,
        };
        if self.config.hooks.has(phase) && self.phase == Stage::Serving {
            let hooks = self.config.hooks.of(phase).cloned().collect();
            self.run_hooks_before(hooks, heard);
        } else {
            self.obey_emperor(heard);
        }
    }

    /// Does what the emperor orders.
    pub(super) fn obey_emperor(&mut self, heard: Heard) {
        match heard {
            // That it orders the same again is no reason to hurry.
            Heard::Stop if self.is_stopping() => {}
            Heard::Stop => self.stop("the emperor"),
            Heard::Reload => {
                info!("the emperor: reloading");
                self.reload(Reload::Rolling);
            }
            Heard::Lost => {
                error!("lost connection with the emperor");
                self.exit_status = 1;
                // Without a delay: the next emperor is about to start a server on the same sockets.
                if self.phase == Stage::Serving {
                    info!("no emperor: stopping after the requests in progress");
                    self.begin_stop();
                }
            }
        }
    }
}
