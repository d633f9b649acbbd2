use std::fmt;

macro_rules! situations {
    ($($(#[doc = $doc:literal])+ $name:ident,)+) => {
        /// How often each situation occurred that a run should lead into. Where one never does, the rules about it have
        /// not been tested.
        #[derive(Clone, Copy, Debug, PartialEq, Eq, Default)]
        #[non_exhaustive]
        pub struct Situations {
            $($(#[doc = $doc])+ pub $name: u64,)+
        }

        impl Situations {
            /// Adds another run.
            pub fn add(&mut self, other: &Self) {
                $(self.$name += other.$name;)+
            }

            /// The counts by name.
            pub fn counts(&self) -> Vec<(&'static str, u64)> {
                vec![$((stringify!($name), self.$name),)+]
            }
        }
    };
}

situations! {
    /// A message was claimed again after its lease had run out.
    expired,
    /// A renewal or settle was fenced.
    fenced,
    /// A settle was answered `AlreadyApplied`.
    already_applied,
    /// A claim was repeated and answered its live runs again.
    claim_repeated,
    /// A suspect was handed out alone.
    suspected,
    /// A message was buried by a verdict.
    buried,
    /// A message was buried for its strikes.
    struck_out,
    /// A retry parked a key.
    parked,
    /// A message was retried.
    retried,
    /// A request landed that had been given up.
    landed_late,
    /// A message was delivered again.
    duplicated,
    /// A message was delivered whose producer never learned that it is committed.
    recovered,
    /// A transaction committed after one that had begun later.
    committed_late,
    /// A transaction was rolled back.
    rolled_back,
    /// A message was written again by a producer that had not learned of its commit.
    enqueued_twice,
    /// A relay crashed.
    crashed,
    /// A relay crashed that held messages.
    crashed_holding,
    /// A relay stood still for longer than a lease.
    stood_still,
    /// A relay was stopped, and drained.
    stopped,
    /// A relay was refused at its first calls, and ended.
    refused_at_start,
    /// A clock jumped.
    clock_jumped,
    /// A relay was cut off from the store or the broker.
    partitioned,
    /// The broker became slow.
    slowed,
    /// A hint was lost.
    hint_lost,
    /// A call was never answered.
    hung,
    /// A batch was published in part.
    published_in_part,
    /// A dead message was redriven.
    redriven,
    /// A dead message was discarded.
    discarded,
    /// Published messages were purged.
    purged,
    /// A key was held by its dead head.
    blocked,
}

impl Situations {
    /// What never occurred.
    pub fn never(&self) -> Vec<&'static str> {
        self.counts().into_iter().filter(|(_, count)| *count == 0).map(|(name, _)| name).collect()
    }
}

impl fmt::Display for Situations {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (place, (name, count)) in self.counts().into_iter().enumerate() {
            let comma = if place == 0 { "" } else { ", " };
            write!(formatter, "{comma}{} {count}", name.replace('_', " "))?;
        }
        Ok(())
    }
}
