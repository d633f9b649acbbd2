use super::{HeadPolicy, Outcome, Token};
use crate::{Error, ErrorKind, Text, Timestamp};
use std::collections::HashSet;
use std::time::Duration;

/// What became of one message.
///
/// Per ordering key of a run, verdicts have one shape: `Published` and `Bury`, then at most one `Retry`, then only
/// `Release`. A `Retry`, or a `Release` with a delay, of a keyed message parks its key: later messages of the key wait
/// until it is due, whatever their own delay.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Verdict {
    /// The broker has confirmed it.
    Published,
    /// The send failed, and is charged as an attempt.
    Retry {
        /// Due again so long after the settlement, on the store's clock.
        after: Duration,
        /// Why, kept with the message.
        error: Text,
    },
    /// It was not sent, or it was not its fault: nothing is charged.
    Release {
        /// Due again so long after the settlement; zero is at once.
        after: Duration,
    },
    /// Given up: it becomes a dead letter.
    Bury {
        /// Why, kept with the message.
        reason: Text,
    },
}

/// Holds the verdicts of one run, each with the ordering key of its message, against the shape that [`Verdict`] states.
/// Every storage calls it before it changes anything.
///
/// # Errors
/// `Rejected`, naming the key.
pub fn check_verdicts<'a>(
    verdicts: impl IntoIterator<Item = (Option<&'a Text>, &'a Verdict)>,
    head_policy: HeadPolicy,
) -> Result<(), Error> {
    let mut coming_back: HashSet<&Text> = HashSet::new();
    for (key, verdict) in verdicts {
        let Some(key) = key else { continue };
        let holds_the_key = match verdict {
            Verdict::Published => false,
            Verdict::Bury { .. } => head_policy == HeadPolicy::Block,
            Verdict::Retry { .. } | Verdict::Release { .. } => true,
        };
        if !matches!(verdict, Verdict::Release { .. }) && coming_back.contains(key) {
            return Err(Error::new(ErrorKind::Rejected, "settle")
                .describe(format!(
                    "a message of key {:?} is settled behind one that comes back; only `Release` may follow",
                    &**key
                ))
                .not_applied());
        }
        if holds_the_key {
            coming_back.insert(key);
        }
    }
    Ok(())
}

/// What is reported for one run.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Settlement<'a> {
    /// One verdict for every entry of the run, in order.
    Verdicts(&'a [Verdict]),
    /// The whole run goes back untouched; nothing is charged.
    HandBack {
        /// Due again so long after the settlement.
        after: Duration,
    },
}

/// The settlements of several runs. Flat: the verdicts of all runs stand in one list.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Settlements {
    runs: Vec<(Token, Part)>,
    verdicts: Vec<Verdict>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Part {
    Verdicts { start: u32, len: u32 },
    HandBack { after: Duration },
}

impl Settlements {
    /// No settlements.
    pub const fn new() -> Self {
        Self { runs: Vec::new(), verdicts: Vec::new() }
    }

    /// Adds a run with one verdict for each of its entries, in order.
    pub fn verdicts(&mut self, token: Token, verdicts: impl IntoIterator<Item = Verdict>) {
        let start = length(&self.verdicts);
        self.verdicts.extend(verdicts);
        let len = length(&self.verdicts) - start;
        self.runs.push((token, Part::Verdicts { start, len }));
    }

    /// Adds a run that goes back untouched.
    pub fn hand_back(&mut self, token: Token, after: Duration) {
        self.runs.push((token, Part::HandBack { after }));
    }

    /// Tokens and what is reported for each, in the order in which they were added.
    pub fn iter(&self) -> impl ExactSizeIterator<Item = (Token, Settlement<'_>)> {
        self.runs.iter().map(|(token, part)| {
            let settlement = match *part {
                Part::Verdicts { start, len } => {
                    Settlement::Verdicts(&self.verdicts[start as usize..][..len as usize])
                }
                Part::HandBack { after } => Settlement::HandBack { after },
            };
            (*token, settlement)
        })
    }

    /// How many runs.
    pub fn len(&self) -> usize {
        self.runs.len()
    }

    /// Whether there are none.
    pub fn is_empty(&self) -> bool {
        self.runs.is_empty()
    }

    /// Empties it and keeps its buffers.
    pub fn clear(&mut self) {
        self.runs.clear();
        self.verdicts.clear();
    }
}

/// A length that a claim's `u32` limit bounds.
fn length<T>(list: &[T]) -> u32 {
    u32::try_from(list.len()).unwrap_or(u32::MAX)
}

/// The answer to one settlement.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Settled {
    /// What happened.
    pub outcome: Outcome,
    /// The store's time of the decision. A message with a delay is due again exactly that delay after it.
    pub at: Timestamp,
}

/// The answer to one renewal.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Renewed {
    /// What happened; `AlreadyApplied` says that the run was settled.
    pub outcome: Outcome,
    /// The store's time of the decision.
    pub at: Timestamp,
    /// The end of the lease, where it was prolonged.
    pub lease_until: Option<Timestamp>,
}
