//! Where temporary files are and how much they may hold, which is settled when the server starts and stays.

use std::path::{Path, PathBuf};

use anyhow::Context;
use nix::sys::statvfs::statvfs;
use tracing::{info, warn};

use crate::io::temp::TempPlace;
use rwsgi_config::{Config, TempSize};

/// Less than this is hardly meant so, bytes: a few large requests need it all.
const SMALL: u64 = 64 * MEGABYTE;
const MEGABYTE: u64 = 1024 * 1024;

/// Decides on the place, as the user who will write there; says so in the log.
///
/// # Errors
/// When `temp-dir` was given and cannot be written to, or its disk cannot be asked for its free space.
pub(super) fn choose(config: &Config) -> anyhow::Result<TempPlace> {
    let directory = directory(config)?;
    let limit = match config.temp.size {
        TempSize::Unlimited => None,
        TempSize::Bytes(bytes) => Some(bytes),
        // None of a directory that is not there: then nothing can be written to it either.
        TempSize::OfFree(percent) => Some(free(&directory).unwrap_or(0) / 100 * u64::from(percent)),
    };
    let shown = directory.display();
    match limit {
        None => info!("temporary files in '{shown}', however much they hold (temp-size)"),
        Some(limit) if limit < SMALL => warn!(
            "temporary files in '{shown}' may hold only {} MB (temp-size): request bodies that need more get 503, and \
             workers wait for slow clients; temp-dir can name a directory with more space",
            limit / MEGABYTE
        ),
        Some(limit) => info!("temporary files in '{shown}', at most {} MB (temp-size)", limit / MEGABYTE),
    }
    Ok(TempPlace { directory, limit })
}

/// `temp-dir`; or `TMPDIR`, as the application's processes have it; or `/var/tmp`, which is on a disk where `/tmp` is
/// memory, if it can be written to: in a container it may be the image's, which is read only.
fn directory(config: &Config) -> anyhow::Result<PathBuf> {
    if let Some(given) = &config.temp.dir {
        let given = std::path::absolute(given).context("temp-dir")?;
        tempfile::tempfile_in(&given)
            .with_context(|| format!("temp-dir: cannot make a temporary file in '{}'", given.display()))?;
        return Ok(given);
    }
    let set = config.env.iter().rev().find(|(name, _)| name == "TMPDIR").map(|(_, value)| value.into());
    if let Some(given) = set.or_else(|| std::env::var_os("TMPDIR")).filter(|given| !given.is_empty()) {
        let given = std::path::absolute(PathBuf::from(given)).context("TMPDIR")?;
        if let Err(failure) = tempfile::tempfile_in(&given) {
            warn!(
                "TMPDIR: cannot make a temporary file in '{}': {failure}: request bodies beyond post-buffering get 503; \
                 temp-dir can name another directory",
                given.display()
            );
        }
        return Ok(given);
    }
    Ok(writable_or("/var/tmp".into(), "/tmp".into()))
}

fn writable_or(wanted: PathBuf, other: PathBuf) -> PathBuf {
    if tempfile::tempfile_in(&wanted).is_ok() { wanted } else { other }
}

/// What our user may still write to the directory's disk, bytes.
fn free(directory: &Path) -> nix::Result<u64> {
    let disk = statvfs(directory)?;
    Ok(disk.blocks_available().saturating_mul(disk.fragment_size()))
}

#[cfg(test)]
mod tests {
    use super::*;
    use rwsgi_config::Temp;

    fn config(temp: Temp) -> Config {
        Config { temp, ..Config::default() }
    }

    #[test]
    fn a_directory_that_cannot_be_written_to_gives_way_to_another() {
        let [here, other] = [std::env::temp_dir(), "/other".into()];
        assert_eq!(writable_or(here.clone(), other.clone()), here);
        assert_eq!(writable_or("/proc".into(), other.clone()), other);
        assert_eq!(writable_or("/nowhere".into(), other.clone()), other);
    }

    #[test]
    fn the_directory_that_was_given_is_taken_or_the_start_fails() {
        let here = std::env::temp_dir();
        let given = Temp { dir: Some(here.clone()), size: TempSize::Bytes(1 << 30) };
        assert_eq!(choose(&config(given)).unwrap(), TempPlace { directory: here, limit: Some(1 << 30) });
        let wrong = Temp { dir: Some("/nowhere".into()), ..Temp::default() };
        let problem = format!("{:#}", choose(&config(wrong)).unwrap_err());
        assert!(problem.contains("temp-dir") && problem.contains("/nowhere"), "{problem}");
    }

    #[test]
    fn the_default_is_half_of_what_is_free() {
        let here = std::env::temp_dir();
        let place = choose(&config(Temp { dir: Some(here.clone()), size: TempSize::default() })).unwrap();
        let (limit, free) = (place.limit.unwrap() as f64, free(&here).unwrap() as f64);
        assert!((0.3..0.7).contains(&(limit / free)), "{limit} of {free}");
    }

    #[test]
    fn the_application_s_tmpdir_is_ours_too() {
        let here = std::env::current_dir().unwrap();
        let mut config = config(Temp { dir: None, size: TempSize::Unlimited });
        config.env = vec![("TMPDIR".into(), "/nowhere".into()), ("TMPDIR".into(), here.display().to_string())];
        assert_eq!(choose(&config).unwrap(), TempPlace { directory: here, limit: None });
    }
}
