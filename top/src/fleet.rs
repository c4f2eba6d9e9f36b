//! Watching a fleet: what the command line's places stand for, asked as many servers.

mod watch;

pub(crate) use self::watch::watch;

use std::io::{self, Write};
use std::sync::{Arc, mpsc};

use anyhow::Context as _;

use crate::args::Args;
use crate::model::fleet::Fleet;
use crate::report;
use crate::source::fleet::{DeliverEvents, FleetEvent, FleetOptions, FleetSource};
use crate::source::{Clock, Place, Spot, Target, Tunnels};

/// More servers than this are a fleet: nobody goes through so many tabs.
const MOST_TABS: usize = 16;

/// Whether the places are watched as a fleet, not as pools with a tab for each.
pub(crate) fn is_fleet(args: &Args) -> bool {
    let names_many = |place: &Place| !matches!(place, Place::Server(_));
    args.fleet || args.places.len() > MOST_TABS || args.places.iter().any(names_many)
}

/// The servers of places that name one each.
///
/// # Errors
/// When one of them names many, or a tunnel cannot be made.
pub(crate) fn targets(args: &Args, tunnels: &Tunnels) -> anyhow::Result<Vec<Target>> {
    let target = |place: &Place| match place {
        Place::Server(Spot::Near(target)) => Ok(target.clone()),
        Place::Server(Spot::Far(far)) => {
            Ok(Target::Tunnel(tunnels.open(far).with_context(|| format!("the tunnel to {far}"))?))
        }
        many => anyhow::bail!("{many} may be many servers, and this is of servers that are named one by one"),
    };
    args.places.iter().map(target).collect()
}

/// Starts asking the servers.
pub(crate) fn start(
    args: &Args,
    tunnels: &Arc<Tunnels>,
    clock: Clock,
    deliver: DeliverEvents,
) -> io::Result<FleetSource> {
    let options = FleetOptions { interval: args.frequency, timeout: args.timeout, clock, tunnels: Arc::clone(tunnels) };
    FleetSource::start(&args.places, options, deliver)
}

/// Prints which servers there are, and whether they answer. Returns the exit code: 1 when one does not.
///
/// # Errors
/// When nothing can be started, or nothing printed.
pub(crate) fn list(args: &Args, tunnels: &Arc<Tunnels>) -> anyhow::Result<u8> {
    let (sender, events) = mpsc::channel::<Vec<FleetEvent>>();
    let _source = start(args, tunnels, Clock::start(), Box::new(move |batch| sender.send(batch).is_ok()))?;
    let mut fleet = Fleet::default();
    let mut left = args.count.unwrap_or(1);
    for event in events.into_iter().flatten() {
        left -= u64::from(matches!(event, FleetEvent::Sweep(_)));
        fleet.take(event);
        if left == 0 {
            break;
        }
    }
    let text = if args.json { report::servers_json(&fleet) } else { report::servers_text(&fleet) };
    match io::stdout().write_all(text.as_bytes()) {
        Err(error) if error.kind() != io::ErrorKind::BrokenPipe => return Err(error).context("standard output"),
        _ => {}
    }
    for (source, why) in fleet.troubles() {
        writeln!(io::stderr(), "rtop: {source}: {why}")?;
    }
    let tally = fleet.tally();
    let all_answer = tally.up > 0 && tally.up == fleet.servers().len() && fleet.troubles().next().is_none();
    Ok(u8::from(!all_answer))
}
