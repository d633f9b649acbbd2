use std::fmt;

macro_rules! rules {
    ($($(#[doc = $doc:literal])+ $name:ident = $text:literal,)+) => {
        /// One rule of the checker.
        #[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
        #[non_exhaustive]
        pub enum Rule {
            $($(#[doc = $doc])+ $name,)+
        }

        impl Rule {
            /// All rules.
            pub const ALL: &'static [Self] = &[$(Self::$name,)+];

            /// Its name in reports.
            pub const fn name(self) -> &'static str {
                match self {
                    $(Self::$name => $text,)+
                }
            }
        }
    };
}

rules! {
    /// Two live claims never cover one message.
    Overlap = "overlapping claims",
    /// The fence of a message rises at every claim.
    Fence = "a fence that did not rise",
    /// A token that was taken, settled or never given changes nothing.
    Stale = "a stale token was applied",
    /// A current token is not fenced.
    FalseFence = "a current token was fenced",
    /// `AlreadyApplied` is answered only to a token that was settled.
    FalseRepeat = "an unsettled token counted as settled",
    /// A claim that is repeated with its nonce answers its live runs again, and nothing else.
    Repetition = "a repeated claim answered otherwise",
    /// A claim answers at most what was asked for.
    Limit = "more than the limit was claimed",
    /// What is published or dead is not claimed again.
    Terminal = "a terminal message was claimed",
    /// Messages of a key are held by one claimant at a time, and are claimed and delivered in order.
    Order = "the order of a key was broken",
    /// Nothing is claimed before it is due.
    Early = "claimed before it was due",
    /// A lease is as long as it was asked for, and is never shortened.
    Lease = "a lease of another length",
    /// Every failed send is counted once, and nothing else is.
    Attempts = "attempts were miscounted",
    /// Every death on a renewed solo claim is counted once, and nothing else is.
    Strikes = "strikes were miscounted",
    /// Suspects are handed out alone and to solo claims, and a run that died comes back half as long.
    Suspect = "suspicion was ignored",
    /// A message dies of a refusal, of spent attempts or of strikes, and of nothing else.
    Burial = "buried without a reason",
    /// What was acknowledged is delivered or dead, and dead letters stay.
    Lost = "lost",
    /// Once everything works again, everything is settled.
    Stuck = "stuck",
    /// Nothing is delivered that nobody has committed.
    Unexpected = "unexpected",
    /// Messages arrive as they were enqueued.
    Changed = "a message was changed",
    /// A message arrives again only if its publish was disturbed, it was claimed again, or it was enqueued twice.
    Duplicate = "an unexplained duplicate",
    /// A relay ends only when it is asked to.
    Running = "a relay ended by itself",
    /// A relay that waits for nothing does nothing: time goes on.
    Spinning = "a hot loop",
}

impl fmt::Display for Rule {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str(self.name())
    }
}

/// Which rules are checked.
#[derive(Clone, Copy, PartialEq, Eq)]
pub struct Rules(u64);

impl Rules {
    /// All.
    pub const fn all() -> Self {
        Self(u64::MAX)
    }

    /// Only this one.
    pub const fn only(rule: Rule) -> Self {
        Self(1 << rule as u32)
    }

    /// These without `rule`.
    #[must_use]
    pub const fn without(self, rule: Rule) -> Self {
        Self(self.0 & !(1 << rule as u32))
    }

    /// Whether `rule` is checked.
    pub const fn has(self, rule: Rule) -> bool {
        self.0 & (1 << rule as u32) != 0
    }
}

impl Default for Rules {
    fn default() -> Self {
        Self::all()
    }
}

impl fmt::Debug for Rules {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.debug_list().entries(Rule::ALL.iter().filter(|rule| self.has(**rule))).finish()
    }
}

/// A rule that a history breaks.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Violation {
    /// Which rule.
    pub rule: Rule,
    /// The place of the record that shows it; the number of records if it is the end that does.
    pub record: usize,
    /// Which message, by number, if it is about one.
    pub message: Option<u32>,
    /// What was seen, and what should have been.
    pub words: String,
}

impl fmt::Display for Violation {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(formatter, "{}", self.rule)?;
        if let Some(message) = self.message {
            write!(formatter, " (m{message})")?;
        }
        write!(formatter, ": {}", self.words)
    }
}
