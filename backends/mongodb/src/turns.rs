//! Keeps the claims of one handle from wanting the same lanes.

use pillarbox_core::{Claimed, Nonce};
use std::collections::{HashMap, HashSet};
use std::sync::{Mutex, MutexGuard as StdGuard, PoisonError};
use std::time::{Duration, Instant};
use tokio::sync::MutexGuard;

/// How long a claim waits for the others to choose, and leaves them what they have chosen. A caller may keep a claim without polling it,
/// and others go on then.
const PATIENCE: Duration = Duration::from_secs(1);

/// What the claims of this handle want. It decides nothing: claims of other handles do not know of it, and the lane's document tells
/// who has it.
#[derive(Debug, Default)]
pub(crate) struct Turns {
    choosing: tokio::sync::Mutex<()>,
    known: Mutex<Known>,
}

#[derive(Debug, Default)]
struct Known {
    /// Lanes that were chosen and are not taken yet, and since when.
    wanted: HashMap<u16, Instant>,
    settlements: u64,
    /// How many claims have begun to look.
    looks: u64,
    nothing: Option<Nothing>,
}

/// What a claim has answered that found nothing to hand out, whatever it was asked for.
#[derive(Debug)]
struct Nothing {
    look: u64,
    settlements: u64,
    claimed: Claimed,
    /// Whose claims are repeated: those find what they hold already.
    holders: HashSet<Nonce>,
}

/// A claim that chooses. Others wait until it has, since they would want the same.
#[derive(Debug)]
pub(crate) struct Turn<'a> {
    turns: &'a Turns,
    choosing: Option<MutexGuard<'a, ()>>,
    /// What others had chosen before this one looked.
    pub(crate) elsewhere: HashSet<u16>,
    /// How many had begun to look when this one came.
    came: u64,
    look: u64,
    settlements: u64,
    wanted: Vec<u16>,
    since: Instant,
}

impl Turns {
    /// Begins a claim, before it looks.
    pub(crate) async fn begin(&self) -> Turn<'_> {
        self.begin_within(PATIENCE).await
    }

    async fn begin_within(&self, patience: Duration) -> Turn<'_> {
        let came = self.known().looks;
        let choosing = tokio::time::timeout(patience, self.choosing.lock()).await.ok();
        let mut known = self.known();
        known.looks += 1;
        let wanted = known.wanted.iter().filter(|(_, since)| since.elapsed() < patience);
        Turn {
            turns: self,
            choosing,
            elsewhere: wanted.map(|(lane, _)| *lane).collect(),
            came,
            look: known.looks,
            settlements: known.settlements,
            wanted: Vec::new(),
            since: Instant::now(),
        }
    }

    /// Notes that a settlement has freed its lanes.
    pub(crate) fn settled(&self) {
        self.known().settlements += 1;
    }

    fn known(&self) -> StdGuard<'_, Known> {
        self.known.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Turn<'_> {
    /// Lets the next one choose, among what is left by this one.
    pub(crate) fn chosen(&mut self, lanes: impl Iterator<Item = u16>) {
        let mut known = self.turns.known();
        self.since = Instant::now();
        self.wanted.extend(lanes);
        known.wanted.extend(self.wanted.iter().map(|lane| (*lane, self.since)));
        self.choosing = None;
    }

    /// The answer of another claim that began to look after this one had come, and found nothing: it is this one's answer too, unless lanes
    /// are held for its `nonce`. So claims that wait for each other need not look one after the other for what is not there.
    pub(crate) fn nothing(&self, nonce: &Nonce) -> Option<Claimed> {
        let known = self.turns.known();
        let nothing = known.nothing.as_ref()?;
        if nothing.look <= self.came || nothing.holders.contains(nonce) {
            return None;
        }
        let mut claimed = nothing.claimed.clone();
        if known.settlements != nothing.settlements {
            // What was held then may be free now.
            claimed.next_due = Some(claimed.now);
        }
        Some(claimed)
    }

    /// Notes that there is nothing to hand out, while lanes are held for `holders`.
    pub(crate) fn found_nothing(&self, claimed: &Claimed, holders: HashSet<Nonce>) {
        let (look, settlements, claimed) = (self.look, self.settlements, claimed.clone());
        self.turns.known().nothing = Some(Nothing { look, settlements, claimed, holders });
    }

    /// Whether lanes were freed since this one began, so that it may not have seen what lies in them.
    pub(crate) fn is_outdated(&self) -> bool {
        self.turns.known().settlements != self.settlements
    }
}

impl Drop for Turn<'_> {
    fn drop(&mut self) {
        let mut known = self.turns.known();
        for lane in &self.wanted {
            if known.wanted.get(lane) == Some(&self.since) {
                known.wanted.remove(lane);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use pillarbox_core::Timestamp;

    #[tokio::test]
    async fn a_claim_knows_what_others_of_its_handle_want() {
        let turns = Turns::default();
        let mut first = turns.begin().await;
        assert!(first.elsewhere.is_empty());
        first.chosen([1, 2].into_iter());
        let mut second = turns.begin().await;
        assert_eq!(second.elsewhere, HashSet::from([1, 2]));
        second.chosen([3].into_iter());
        drop(second);
        assert_eq!(turns.begin().await.elsewhere, HashSet::from([1, 2]));
        drop(first);
        assert!(turns.begin().await.elsewhere.is_empty());
    }

    #[tokio::test]
    async fn a_claim_that_nobody_polls_holds_up_no_other() {
        let turns = Turns::default();
        let mut kept = turns.begin().await;
        let mut other = turns.begin_within(Duration::ZERO).await;
        assert!(kept.choosing.is_some() && other.choosing.is_none());
        kept.chosen([1].into_iter());
        // What it has chosen is another's after a while, and stays that one's when it ends.
        assert!(turns.begin_within(Duration::ZERO).await.elsewhere.is_empty());
        other.chosen([1].into_iter());
        drop(kept);
        assert_eq!(turns.begin().await.elsewhere, HashSet::from([1]));
    }

    #[tokio::test]
    async fn a_claim_that_waits_while_another_finds_nothing_looks_no_more() {
        let turns = Turns::default();
        let [mine, others] = [1, 2].map(|number| Nonce::from_words(0, number));
        let first = turns.begin().await;
        let mut second = turns.begin_within(Duration::ZERO).await;
        let answer = Claimed { next_due: Some(Timestamp::from_micros(9)), ..Claimed::default() };
        let told = |turn: &Turn<'_>, nonce| turn.nothing(nonce).map(|claimed| claimed.next_due);
        first.found_nothing(&answer, HashSet::from([others]));
        // It came after the first had begun to look, which may not have seen what has come in between.
        assert_eq!(told(&second, &mine), None);
        second.found_nothing(&answer, HashSet::from([others]));
        // One that came before the second has looked.
        second.came = 0;
        assert_eq!(told(&second, &mine), Some(answer.next_due));
        assert_eq!(told(&second, &others), None);
        drop(first);
        assert_eq!(told(&turns.begin().await, &mine), None);
        turns.settled();
        assert_eq!(told(&second, &mine), Some(Some(answer.now)));
    }

    #[tokio::test]
    async fn a_settlement_makes_what_was_seen_before_outdated() {
        let turns = Turns::default();
        let before = turns.begin().await;
        assert!(!before.is_outdated());
        turns.settled();
        assert!(before.is_outdated());
        drop(before);
        assert!(!turns.begin().await.is_outdated());
    }
}
