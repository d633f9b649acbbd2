//! The playground: relays of production over the storage in memory, in virtual time, drawn by a page.
//!
//! A run is decided by its seed, the policy for dead heads, and the list of what its visitor did when. The same three give the same
//! run, which is how one is shared.

mod act;
mod broker;
mod ledger;
mod orders;
mod snapshot;
mod store;
#[cfg(test)]
mod tests;
mod time;
mod world;

use act::{Script, Timed};
use pillarbox_core::HeadPolicy;
use serde::{Deserialize, Serialize};
use snapshot::Snapshot;
use world::World;

/// The farthest that one call moves on: ten minutes.
const FARTHEST: u64 = 600_000;
/// The longest script. Nobody clicks so often, and an address is no book.
const MOST_ACTS: usize = 500;

/// One world, once it is opened.
#[derive(Default)]
pub(crate) struct Playground(Option<World>);

/// What the page asks for. Each is answered with a snapshot.
#[derive(Deserialize)]
#[serde(rename_all = "snake_case")]
pub(crate) enum Request {
    /// Begins a run, and lets its script happen until `to` milliseconds.
    Open { seed: u64, blocks: bool, script: String, to: u64 },
    /// Lets time pass until `to` milliseconds.
    Advance { to: u64 },
    /// Does something now, written as in a script without its time.
    Act { act: String },
}

#[derive(Serialize)]
#[serde(untagged)]
#[allow(clippy::large_enum_variant, reason = "there is one, for as long as it takes to write it down")]
pub(crate) enum Answer {
    Snapshot(Snapshot),
    Error { error: String },
}

impl Playground {
    pub(crate) fn handle(&mut self, request: Request) -> Answer {
        match self.done(request) {
            Ok(snapshot) => Answer::Snapshot(snapshot),
            Err(error) => Answer::Error { error },
        }
    }

    fn done(&mut self, request: Request) -> Result<Snapshot, String> {
        if let Request::Open { seed, blocks, script, to } = request {
            let script: Script = script.parse()?;
            if script.0.len() > MOST_ACTS {
                return Err(format!(
                    "the script has {} acts; at most {MOST_ACTS} are played",
                    script.0.len()
                ));
            }
            let policy = if blocks { HeadPolicy::Block } else { HeadPolicy::Continue };
            let mut world = World::new(seed, policy, script).map_err(|error| error.to_string())?;
            world.advance(to.min(FARTHEST));
            return Ok(self.0.insert(world).snapshot());
        }
        let world = self.0.as_mut().ok_or("open a run first")?;
        match request {
            Request::Advance { to } => {
                let now = time::to_millis(world.clock.now());
                world.advance(to.clamp(now, now + FARTHEST));
            }
            Request::Act { act } if world.script.0.len() < MOST_ACTS => {
                let Timed { act, .. } = format!("0{act}").parse()?;
                world.act(act);
            }
            Request::Act { .. } => return Err("that was enough: begin a new run".to_owned()),
            Request::Open { .. } => {}
        }
        Ok(world.snapshot())
    }
}
