//! One source of choices for everything that a seed decides.
//!
//! A choice depends on who makes it, where, and for the how-manieth time, never on what others chose before. So a run is
//! replayed by its seed, and shrunk by making ever more of its choices the boring one, which is 0 everywhere: what the
//! others draw stays as it was.

use std::collections::BTreeSet;
use std::fmt;
use std::str::FromStr;
use std::sync::{Arc, Mutex, PoisonError};

/// A seed's choices. Clones draw from the same ones.
#[derive(Clone)]
pub struct Choices(Arc<Shared>);

struct Shared {
    seed: u64,
    keep: Keep,
    state: Mutex<State>,
}

#[derive(Default)]
struct State {
    /// How often each actor chose at each site.
    counts: Vec<Vec<u32>>,
    made: Option<Vec<ChoiceKey>>,
}

impl Choices {
    /// All choices of `seed`.
    pub fn new(seed: u64) -> Self {
        Self::keeping(seed, Keep::Everything)
    }

    /// The choices of `seed` that `keep` names; every other one is 0.
    pub fn keeping(seed: u64, keep: Keep) -> Self {
        Self(Arc::new(Shared { seed, keep, state: Mutex::default() }))
    }

    /// Notes from now on which choices are not the boring one, for [`made`](Self::made).
    #[must_use]
    pub fn noting(self) -> Self {
        self.state().made = Some(Vec::new());
        self
    }

    /// The choices that were not the boring one, in the order in which they were made; none without
    /// [`noting`](Self::noting).
    pub fn made(&self) -> Vec<ChoiceKey> {
        self.state().made.clone().unwrap_or_default()
    }

    /// The seed.
    pub fn seed(&self) -> u64 {
        self.0.seed
    }

    /// A number below `bound`; 0, the boring choice, if `bound` is 0.
    pub fn below(&self, actor: u16, site: u16, bound: u64) -> u64 {
        let mut state = self.state();
        let key = ChoiceKey { actor, site, nth: state.count(actor, site) };
        let value = scale(self.word_at(key), bound);
        if value == 0 || !self.0.keep.has(key) {
            return 0;
        }
        if let Some(made) = &mut state.made {
            made.push(key);
        }
        value
    }

    /// An index into something of `length`; 0 if it is empty.
    pub fn index(&self, actor: u16, site: u16, length: usize) -> usize {
        // What is below a `usize` fits one.
        usize::try_from(self.below(actor, site, length as u64)).unwrap_or(0)
    }

    /// Whether something happens that does so `per_mille` times in a thousand. Boring is that it does not.
    pub fn happens(&self, actor: u16, site: u16, per_mille: u16) -> bool {
        let rate = u64::from(per_mille.min(1_000));
        rate > 0 && self.below(actor, site, 1_000) >= 1_000 - rate
    }

    /// A word that is never boring: for nonces and whatever must differ however far a run was shrunk.
    pub fn word(&self, actor: u16, site: u16) -> u64 {
        let nth = self.state().count(actor, site);
        self.word_at(ChoiceKey { actor, site, nth })
    }

    fn word_at(&self, key: ChoiceKey) -> u64 {
        let place = (u64::from(key.actor) << 48) | (u64::from(key.site) << 32) | u64::from(key.nth);
        mix(mix(self.0.seed) ^ mix(place))
    }

    fn state(&self) -> std::sync::MutexGuard<'_, State> {
        self.0.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl State {
    fn count(&mut self, actor: u16, site: u16) -> u32 {
        let (actor, site) = (usize::from(actor), usize::from(site));
        if self.counts.len() <= actor {
            self.counts.resize(actor + 1, Vec::new());
        }
        let counts = &mut self.counts[actor];
        if counts.len() <= site {
            // Room for every site at once: a seed begins with all of its actors anew.
            counts.resize((site + 1).max(SITES), 0);
        }
        let nth = counts[site];
        counts[site] = nth.wrapping_add(1);
        nth
    }
}

/// As many sites as are usual.
const SITES: usize = 128;

impl fmt::Debug for Choices {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(formatter, "Choices({}, {})", self.0.seed, self.0.keep)
    }
}

/// Names one choice: who, where, and for the how-manieth time from 0. Written `1.21.0`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct ChoiceKey {
    /// Who chose.
    pub actor: u16,
    /// Where in the program.
    pub site: u16,
    /// How often the actor had chosen there before.
    pub nth: u32,
}

impl fmt::Display for ChoiceKey {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(formatter, "{}.{}.{}", self.actor, self.site, self.nth)
    }
}

impl FromStr for ChoiceKey {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let parse = || {
            let (actor, rest) = text.split_once('.')?;
            let (site, nth) = rest.split_once('.')?;
            Some(Self { actor: actor.parse().ok()?, site: site.parse().ok()?, nth: nth.parse().ok()? })
        };
        parse().ok_or_else(|| format!("{text:?} names no choice; one is written like 1.21.0"))
    }
}

/// Which choices of a seed are kept; the others are 0.
#[derive(Clone, Debug, PartialEq, Eq, Default)]
pub enum Keep {
    /// All.
    #[default]
    Everything,
    /// These.
    Only(BTreeSet<ChoiceKey>),
}

impl Keep {
    /// Whether `key` is kept.
    pub fn has(&self, key: ChoiceKey) -> bool {
        match self {
            Self::Everything => true,
            Self::Only(keys) => keys.contains(&key),
        }
    }
}

impl FromIterator<ChoiceKey> for Keep {
    fn from_iter<I: IntoIterator<Item = ChoiceKey>>(keys: I) -> Self {
        Self::Only(keys.into_iter().collect())
    }
}

/// `everything`, or the kept choices with commas between; no text at all keeps none.
impl fmt::Display for Keep {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Everything => formatter.write_str("everything"),
            Self::Only(keys) => keys.iter().enumerate().try_for_each(|(place, key)| {
                let comma = if place == 0 { "" } else { "," };
                write!(formatter, "{comma}{key}")
            }),
        }
    }
}

impl FromStr for Keep {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        if text == "everything" {
            return Ok(Self::Everything);
        }
        text.split(',').filter(|part| !part.is_empty()).map(str::parse).collect()
    }
}

/// `word` as a fraction of `bound`.
fn scale(word: u64, bound: u64) -> u64 {
    // The product's upper half is below `bound`.
    u64::try_from((u128::from(word) * u128::from(bound)) >> 64).unwrap_or(0)
}

/// The finalizer of SplitMix64 (Steele, Lea, Flood 2014).
const fn mix(word: u64) -> u64 {
    let word = word.wrapping_add(0x9e37_79b9_7f4a_7c15);
    let word = (word ^ (word >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    let word = (word ^ (word >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    word ^ (word >> 31)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_choice_does_not_depend_on_what_others_chose() {
        let (alone, crowded) = (Choices::new(7), Choices::new(7));
        let first: Vec<u64> = (0..50).map(|_| alone.below(1, 2, 1_000)).collect();
        let second: Vec<u64> = (0..50)
            .map(|_| {
                crowded.below(0, 2, 9);
                crowded.below(1, 3, 9);
                crowded.below(1, 2, 1_000)
            })
            .collect();
        assert_eq!(first, second);
        assert_ne!(first, (0..50).map(|_| Choices::new(8).below(1, 2, 1_000)).collect::<Vec<_>>());
    }

    #[test]
    fn what_is_not_kept_is_boring_and_the_rest_stays() {
        let all = Choices::new(3).noting();
        let full: Vec<u64> = (0..100).map(|_| all.below(0, 0, 10)).collect();
        let made = all.made();
        assert_eq!(made.len(), full.iter().filter(|value| **value != 0).count());
        let kept = made[4];
        let few = Choices::keeping(3, [kept].into_iter().collect());
        let drawn: Vec<u64> = (0..100).map(|_| few.below(0, 0, 10)).collect();
        let place = kept.nth as usize;
        assert_eq!((drawn[place], drawn.iter().sum()), (full[place], full[place]));
    }

    #[test]
    fn chances_are_as_they_are_named() {
        let choices = Choices::new(1);
        let count = (0..10_000).filter(|_| choices.happens(0, 0, 100)).count();
        assert!((800..1_200).contains(&count), "{count}");
        assert!(!choices.happens(0, 1, 0));
        assert!(
            (0..1_000)
                .all(|_| Choices::new(9).happens(0, 0, 1_000) || Choices::new(9).below(0, 0, 1_000) == 0)
        );
    }

    #[test]
    fn kept_choices_are_written_and_read() {
        for text in ["", "0.104.0", "0.104.0,1.21.1", "everything"] {
            assert_eq!(text.parse::<Keep>().unwrap().to_string(), text);
        }
        assert!("1.2".parse::<Keep>().unwrap_err().contains("1.21.0"));
    }
}
