//! The certificates and keys of `https`: read before privileges are dropped, and again at each reload, and handed to the
//! http router in a memory file. A router that is started again finds there what the one before had.

use std::fs::File;
use std::io;
use std::os::fd::AsFd;
use std::os::unix::fs::FileExt;

use anyhow::Context;
use nix::sys::memfd::{MFdFlags, memfd_create};
use tracing::warn;

use crate::io::pass_fd::send_fd;
use crate::tls::{Contexts, Material};
use rwsgi_config::Config;

/// What the http router has, or gets when it starts.
#[derive(Debug)]
pub(super) struct Certificates {
    material: Material,
    file: File,
}

impl Certificates {
    /// Reads and checks all of them; `None` when no socket needs any.
    ///
    /// # Errors
    /// The first that cannot be used.
    pub(super) fn read(config: &Config) -> anyhow::Result<Option<Self>> {
        if config.tls.https.is_empty() {
            return Ok(None);
        }
        let file = File::from(memfd_create(c"rwsgi-tls", MFdFlags::MFD_CLOEXEC).context("https: no memory file")?);
        let new = Self { material: checked(config)?, file };
        new.write()?;
        Ok(Some(new))
    }

    /// Reads them again; returns whether something is new. The http router is to be told of it.
    ///
    /// # Errors
    /// As [`Self::read`]; all stay as they were then.
    pub(super) fn renew(&mut self, config: &Config) -> anyhow::Result<bool> {
        let new = checked(config)?;
        if new == self.material {
            return Ok(false);
        }
        self.material = new;
        self.write()?;
        Ok(true)
    }

    /// Sends an http router the file, which it takes when its memory and its descriptors are closed to others.
    ///
    /// # Errors
    /// When it is gone.
    pub(super) fn send(&self, channel: impl AsFd) -> io::Result<()> {
        send_fd(channel, &self.file)
    }

    fn write(&self) -> anyhow::Result<()> {
        let bytes = self.material.encode()?;
        let written = self.file.set_len(0).and_then(|()| self.file.write_all_at(&bytes, 0));
        written.context("https: no memory for the certificates")
    }
}

fn checked(config: &Config) -> anyhow::Result<Material> {
    let material = Material::read(&config.tls)?;
    let (_, warnings) = Contexts::new(&material)?;
    for warning in warnings {
        warn!("{warning}");
    }
    Ok(material)
}
