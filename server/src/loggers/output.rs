//! One logger: where it writes, and what becomes of lines that it does not take.

use std::fs::File;
use std::io::{self, ErrorKind, Write};
use std::os::fd::AsFd;
use std::time::Instant;

use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use tracing::Level;

use super::datagram::{Datagrams, Destination, Framing, PATIENCE, RETRY};
use super::file::{FileRules, LogFile};
use super::{Fallback, Remark};
use crate::descriptor::duplicate;
use crate::identity::Identity;
use rwsgi_config::{LogTarget, Logger, LogsConfig};

/// Where C's `syslog` sends lines.
const SYSTEM_LOG: &str = "/dev/log";
/// The severity "informational".
const INFORMATIONAL: u32 = 6;
const RSYSLOG_PACKET: u32 = 1024;

/// See the module.
pub(super) struct Output {
    name: Option<String>,
    /// As in messages.
    label: String,
    to: To,
    /// It does not take lines, and that was logged.
    is_failing: bool,
    /// A pipe that takes nothing is left alone until then.
    not_before: Option<Instant>,
}

enum To {
    Fallback,
    File(LogFile),
    /// A file that could not be opened.
    NoFile(rwsgi_config::LogFile, FileRules),
    Descriptor(File),
    Nowhere,
    Datagrams(Datagrams),
}

impl Output {
    pub(super) fn open(
        logger: &Logger,
        logs: &LogsConfig,
        rules: &FileRules,
        user: Option<&Identity>,
        remarks: &mut Vec<Remark>,
    ) -> Self {
        let (label, opened) = match &logger.target {
            LogTarget::Stdio => ("stdio".to_owned(), Ok(To::Fallback)),
            LogTarget::File(file) => {
                (format!("file:{}", file.path.display()), LogFile::open("logger", file, rules, user).map(To::File))
            }
            LogTarget::Fd(number) => {
                (format!("fd:{number}"), duplicate(*number).map(|fd| To::Descriptor(File::from(fd))))
            }
            LogTarget::Socket { address, prefix } => {
                let framing = Framing::Raw { prefix: prefix.clone() };
                (format!("socket:{address}"), datagrams(Destination::of_socket(address), framing))
            }
            LogTarget::Syslog { ident, facility } => {
                let framing =
                    Framing::Syslog { priority: u32::from(*facility) << 3 | INFORMATIONAL, ident: ident.clone() };
                (format!("syslog:{ident}"), datagrams(Destination::Unix(SYSTEM_LOG.into()), framing))
            }
            LogTarget::Rsyslog { address, ident, priority } => {
                let ident = ident.clone().unwrap_or_else(|| format!("{} uwsgi", hostname()));
                let packet = if logs.rsyslog_packet == 0 { RSYSLOG_PACKET } else { logs.rsyslog_packet } as usize;
                let framing = Framing::Rsyslog { priority: *priority, ident, packet, split: logs.rsyslog_split };
                (format!("rsyslog:{address}"), datagrams(Destination::of_rsyslog(address), framing))
            }
        };
        let mut is_failing = false;
        let mut to = opened.unwrap_or_else(|failure| {
            remarks.push(failing(&label, &failure));
            is_failing = true;
            match &logger.target {
                LogTarget::File(file) => To::NoFile(file.clone(), *rules),
                _ => To::Nowhere,
            }
        });
        if let To::Datagrams(datagrams) = &mut to
            && let Err(failure) = datagrams.connect()
        {
            remarks.push(failing(&label, &failure));
            is_failing = true;
        }
        Self { name: logger.name.clone(), label, to, is_failing, not_before: None }
    }

    pub(super) fn name(&self) -> Option<&str> {
        self.name.as_deref()
    }

    /// Sends a line. One that is not taken goes to `fallback`, and so does what there is to say of that.
    pub(super) fn send(&mut self, line: &[u8], fallback: &mut dyn Fallback) {
        let sent = match &mut self.to {
            To::Fallback => {
                fallback.write(line);
                return;
            }
            To::File(file) if file.can_hang() => write_in_time(file.file(), line, &mut self.not_before).map(|()| None),
            To::File(file) => file.write(line),
            To::Descriptor(file) => write_in_time(file, line, &mut self.not_before).map(|()| None),
            To::Datagrams(datagrams) => datagrams.send(line).map(|()| None),
            To::NoFile(..) | To::Nowhere => Err(ErrorKind::NotConnected.into()),
        };
        match sent {
            Ok(remark) => {
                if self.is_failing {
                    self.is_failing = false;
                    fallback.tell((Level::INFO, format!("logger {}: takes lines again", self.label)));
                }
                if let Some(remark) = remark {
                    fallback.tell(remark);
                }
            }
            Err(failure) => {
                if !std::mem::replace(&mut self.is_failing, true) {
                    fallback.tell(failing(&self.label, &failure));
                }
                fallback.write(line);
                if !line.ends_with(b"\n") {
                    fallback.write(b"\n");
                }
            }
        }
    }

    /// Puts its file aside, when it has one; what there is to say of that.
    pub(super) fn rotate(&mut self) -> Option<Remark> {
        match &mut self.to {
            To::File(file) => Some(file.rotate("touch-logrotate")),
            _ => None,
        }
    }

    /// Opens its file again by its name, when it has one; what there is to say of that.
    pub(super) fn reopen(&mut self) -> Option<Remark> {
        match &mut self.to {
            To::File(file) => Some(file.reopen()),
            To::NoFile(about, rules) => match LogFile::open("logger", about, rules, None) {
                // It may be the pipe to this very thread by now.
                Ok(file) if file.is_descriptor() => None,
                Ok(file) => {
                    self.to = To::File(file);
                    None
                }
                Err(failure) => Some(failing(&self.label, &failure)),
            },
            _ => None,
        }
    }
}

/// Writes a line to what may be a pipe that nobody reads, or a terminal that stands still: waits for [`PATIENCE`] at most,
/// and then leaves it alone for [`RETRY`].
fn write_in_time(mut to: &File, line: &[u8], not_before: &mut Option<Instant>) -> io::Result<()> {
    /// What fits when a pipe can be written to at all (PIPE_BUF).
    const AT_ONCE: usize = 4096;
    if not_before.is_some_and(|moment| Instant::now() < moment) {
        return Err(ErrorKind::WouldBlock.into());
    }
    *not_before = None;
    let patience = PollTimeout::try_from(PATIENCE).unwrap_or(PollTimeout::ZERO);
    for piece in line.chunks(AT_ONCE) {
        let is_ready = poll(&mut [PollFd::new(to.as_fd(), PollFlags::POLLOUT)], patience)? > 0;
        let written = if is_ready { to.write_all(piece) } else { Err(ErrorKind::WouldBlock.into()) };
        if let Err(failure) = written {
            *not_before = Some(Instant::now() + RETRY);
            return Err(failure);
        }
    }
    Ok(())
}

fn datagrams(destination: Destination, framing: Framing) -> io::Result<To> {
    Ok(To::Datagrams(Datagrams::new(destination, framing)))
}

fn failing(label: &str, failure: &io::Error) -> Remark {
    let text = format!("logger {label}: {failure}: its lines go to the log file or standard error until it takes them");
    (Level::ERROR, text)
}

fn hostname() -> String {
    nix::unistd::gethostname().map(|name| name.to_string_lossy().into_owned()).unwrap_or_default()
}
