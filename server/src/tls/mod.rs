//! Certificates and keys. The master reads the files ([`Material`]), which may be root's alone, and
//! hands what is in them to the http router in a memory file; the router makes [`Contexts`] of that, which a connection
//! chooses from by the host that its client asks for.
//!
//! Nothing here is logged or shown but the names of files.

mod ciphers;
mod contexts;
mod material;

pub(crate) use self::contexts::{Contexts, HostContext};
pub(crate) use self::material::Material;
