//! `rtop`: shows a pool of rwsgi or uWSGI workers, live, in a terminal.
fn main() -> anyhow::Result<()> {
    Ok(())
}
