//! What the relay holds: the claims that are answered and not settled yet.

use crate::{Claimed, Content, Destination, Message, MessageId, Moment, Text, Token, Verdict};
use std::collections::HashMap;
use std::hash::BuildHasherDefault;

/// One entry of one held claim.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct EntryRef {
    slot: u32,
    entry: u32,
}

/// One run of one held claim.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct RunRef {
    slot: u32,
    run: u32,
}

/// All held claims. Their buffers are used again.
#[derive(Debug, Default)]
pub(super) struct Held {
    slots: Vec<HeldClaim>,
    free: Vec<u32>,
    messages: u32,
    last_of_key: HashMap<u64, u32, BuildHasherDefault<KeyHash>>,
    /// Runs whose entries all have a verdict, in the order in which they were completed.
    pub(super) decided: std::collections::VecDeque<RunRef>,
}

#[derive(Debug, Default)]
struct HeldClaim {
    entries: Vec<HeldEntry>,
    runs: Vec<HeldRun>,
    open_runs: u32,
}

/// A claimed message.
#[derive(Debug)]
pub(super) struct HeldEntry {
    /// Taken out while it is being published.
    pub(super) message: Option<Message>,
    pub(super) id: Option<MessageId>,
    pub(super) attempts: u32,
    pub(super) destination: Destination,
    pub(super) stage: Stage,
    pub(super) verdict: Option<Verdict>,
    run: u32,
    next_of_key: Option<u32>,
    undecodable: bool,
}

/// Where an entry without a verdict is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Stage {
    /// Waits for nobody of its key.
    Ready,
    /// Waits for an earlier message of its key.
    Behind,
    /// Handed to the transport.
    InFlight,
}

/// A claimed run.
#[derive(Debug)]
pub(super) struct HeldRun {
    pub(super) token: Token,
    /// The end of the lease on the relay's clock, counted from before the claim or renewal was sent.
    pub(super) lease_ends: Moment,
    pub(super) fenced: bool,
    pub(super) renewing: bool,
    /// A suspect is renewed once before it is sent, so that a lost reply is not held against it.
    pub(super) renew_first: bool,
    /// Settled or about to be: not renewed any more.
    pub(super) settling: bool,
    /// How many of its messages the broker has confirmed.
    pub(super) sent: u32,
    has_undecodable: bool,
    start: u32,
    len: u32,
    undecided: u32,
}

impl Held {
    pub(super) fn messages(&self) -> u32 {
        self.messages
    }

    /// Takes a claim's answer in and links the messages of each key. Answers the slot, and what could not be decoded.
    pub(super) fn add(
        &mut self,
        claimed: Claimed,
        lease_ends: Moment,
        renew_first: bool,
        destination: impl Fn(&Message) -> Destination,
        undecodable: &mut Vec<(EntryRef, Text)>,
    ) -> u32 {
        let slot = self.free.pop().unwrap_or_else(|| {
            self.slots.push(HeldClaim::default());
            length(&self.slots) - 1
        });
        let claim = &mut self.slots[slot as usize];
        claim.runs.clear();
        claim.entries.clear();
        claim.open_runs = length(&claimed.runs);
        self.last_of_key.clear();
        let mut entries = claimed.entries.into_iter();
        for (run, handed_out) in claimed.runs.iter().enumerate() {
            let start = length(&claim.entries);
            let mut has_undecodable = false;
            for entry in entries.by_ref().take(handed_out.len as usize) {
                let place = length(&claim.entries);
                let (message, id) = match entry.content {
                    Content::Message(message) => {
                        let id = message.id();
                        (Some(message), Some(id))
                    }
                    Content::Undecodable(record) => {
                        undecodable.push((EntryRef { slot, entry: place }, record.reason));
                        (None, record.id)
                    }
                };
                let key = message.as_ref().and_then(Message::key);
                let is_undecodable = message.is_none();
                has_undecodable |= is_undecodable;
                let previous = key.and_then(|key| self.last_of_key.insert(hash(key), place));
                if let Some(previous) = previous {
                    claim.entries[previous as usize].next_of_key = Some(place);
                }
                claim.entries.push(HeldEntry {
                    destination: message.as_ref().map_or(Destination::ONLY, &destination),
                    message,
                    id,
                    attempts: entry.attempts,
                    stage: if previous.is_some() { Stage::Behind } else { Stage::Ready },
                    verdict: None,
                    run: u32::try_from(run).unwrap_or(u32::MAX),
                    next_of_key: None,
                    undecodable: is_undecodable,
                });
            }
            let len = length(&claim.entries) - start;
            claim.runs.push(HeldRun {
                token: handed_out.token,
                lease_ends,
                fenced: false,
                renewing: false,
                renew_first,
                settling: false,
                has_undecodable,
                sent: 0,
                start,
                len,
                undecided: len,
            });
        }
        self.messages += length(&claim.entries);
        slot
    }

    /// The entries of a slot that wait for nobody of their key, in order.
    pub(super) fn heads(&self, slot: u32) -> impl Iterator<Item = EntryRef> + use<'_> {
        let entries = self.slots[slot as usize].entries.iter().enumerate();
        entries
            .filter(|(_, entry)| entry.stage == Stage::Ready && entry.message.is_some())
            .map(move |(entry, _)| EntryRef { slot, entry: u32::try_from(entry).unwrap_or(u32::MAX) })
    }

    pub(super) fn entry(&self, at: EntryRef) -> &HeldEntry {
        &self.slots[at.slot as usize].entries[at.entry as usize]
    }

    pub(super) fn entry_mut(&mut self, at: EntryRef) -> &mut HeldEntry {
        &mut self.slots[at.slot as usize].entries[at.entry as usize]
    }

    /// Takes a message out to be published.
    pub(super) fn take_to_send(&mut self, at: EntryRef) -> Option<Message> {
        let entry = self.entry_mut(at);
        entry.stage = Stage::InFlight;
        entry.message.take()
    }

    pub(super) fn run(&self, at: RunRef) -> &HeldRun {
        &self.slots[at.slot as usize].runs[at.run as usize]
    }

    pub(super) fn run_mut(&mut self, at: RunRef) -> &mut HeldRun {
        &mut self.slots[at.slot as usize].runs[at.run as usize]
    }

    pub(super) fn run_of(&self, at: EntryRef) -> RunRef {
        RunRef { slot: at.slot, run: self.entry(at).run }
    }

    /// The run at `at`, if it is still held by `token`: slots are used again.
    pub(super) fn run_by_token(&mut self, at: RunRef, token: Token) -> Option<&mut HeldRun> {
        let run = self.slots.get_mut(at.slot as usize)?.runs.get_mut(at.run as usize)?;
        (run.token == token).then_some(run)
    }

    pub(super) fn next_of_key(&self, at: EntryRef) -> Option<EntryRef> {
        self.entry(at).next_of_key.map(|entry| EntryRef { slot: at.slot, entry })
    }

    /// All runs that are not settled.
    pub(super) fn runs(&self) -> impl Iterator<Item = (RunRef, &HeldRun)> {
        self.slots.iter().enumerate().flat_map(|(slot, claim)| {
            let slot = u32::try_from(slot).unwrap_or(u32::MAX);
            let runs = claim.runs.iter().enumerate();
            runs.map(move |(run, held)| (RunRef { slot, run: u32::try_from(run).unwrap_or(u32::MAX) }, held))
        })
    }

    /// The entries of a run that have no verdict.
    pub(super) fn undecided(&self, at: RunRef) -> impl Iterator<Item = EntryRef> + use<'_> {
        let run = self.run(at);
        let entries = run.start..run.start + run.len;
        entries
            .map(move |entry| EntryRef { slot: at.slot, entry })
            .filter(|at| self.entry(*at).verdict.is_none())
    }

    /// Gives an entry its verdict; the first word stands.
    pub(super) fn decide(&mut self, at: EntryRef, verdict: Verdict) {
        let claim = &mut self.slots[at.slot as usize];
        let entry = &mut claim.entries[at.entry as usize];
        let place = entry.run;
        let run = &mut claim.runs[place as usize];
        // The verdicts of a run that is being settled were taken out: its messages are decided, whatever becomes of the
        // heads of their keys in other runs.
        if entry.verdict.is_some() || run.settling {
            return;
        }
        entry.verdict = Some(verdict);
        entry.message = None;
        run.undecided -= 1;
        if run.undecided == 0 {
            run.settling = true;
            if run.has_undecodable {
                spare_undecodable(&mut claim.entries[run.start as usize..][..run.len as usize]);
            }
            self.decided.push_back(RunRef { slot: at.slot, run: place });
        }
    }

    /// How many messages a run has.
    pub(super) fn messages_of(&self, at: RunRef) -> u32 {
        self.run(at).len
    }

    /// The verdicts of a decided run; taken out.
    pub(super) fn take_verdicts(&mut self, at: RunRef) -> impl Iterator<Item = Verdict> + use<'_> {
        let claim = &mut self.slots[at.slot as usize];
        let run = &claim.runs[at.run as usize];
        let entries = &mut claim.entries[run.start as usize..][..run.len as usize];
        // A decided run has a verdict for every entry.
        entries.iter_mut().filter_map(|entry| entry.verdict.take())
    }

    pub(super) fn verdicts(&self, at: RunRef) -> impl Iterator<Item = &Verdict> {
        let claim = &self.slots[at.slot as usize];
        let run = &claim.runs[at.run as usize];
        claim.entries[run.start as usize..][..run.len as usize]
            .iter()
            .filter_map(|entry| entry.verdict.as_ref())
    }

    /// Forgets a run, and the claim with its last run.
    pub(super) fn forget(&mut self, at: RunRef) {
        let claim = &mut self.slots[at.slot as usize];
        self.messages -= claim.runs[at.run as usize].len;
        claim.open_runs -= 1;
        if claim.open_runs == 0 {
            claim.entries.clear();
            claim.runs.clear();
            self.free.push(at.slot);
        }
    }
}

/// The store may read a key where the relay can read no message, and takes no burial behind a message of that key that stays. So
/// what cannot be decoded is buried another time, once nothing before it stays.
fn spare_undecodable(entries: &mut [HeldEntry]) {
    let mut stays = false;
    for entry in entries {
        match entry.verdict {
            Some(Verdict::Retry { .. } | Verdict::Release { .. }) => stays = true,
            Some(Verdict::Bury { .. }) if stays && entry.undecodable => {
                entry.verdict = Some(Verdict::Release { after: std::time::Duration::ZERO });
            }
            _ => {}
        }
    }
}

/// A length that a claim's `u32` limit bounds.
fn length<T>(list: &[T]) -> u32 {
    u32::try_from(list.len()).unwrap_or(u32::MAX)
}

/// FNV-1a, 64 bits. Two keys with one hash are only sent one after the other, so a collision costs time and nothing else; and
/// no table owns a copy of a key.
fn hash(key: &str) -> u64 {
    key.bytes()
        .fold(0xcbf2_9ce4_8422_2325, |hash, byte| (hash ^ u64::from(byte)).wrapping_mul(0x0100_0000_01b3))
}

/// Passes a key that is a hash already through.
#[derive(Debug, Default)]
struct KeyHash(u64);

impl std::hash::Hasher for KeyHash {
    fn write(&mut self, bytes: &[u8]) {
        for byte in bytes {
            self.0 = (self.0 << 8) | u64::from(*byte);
        }
    }

    fn write_u64(&mut self, value: u64) {
        self.0 = value;
    }

    fn finish(&self) -> u64 {
        self.0
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{Nonce, Run, Timestamp};
    use std::hash::{BuildHasher as _, Hasher as _};

    #[test]
    fn a_slot_is_used_again_once_its_last_run_is_settled() {
        let run = |unit| Run {
            token: Token { unit, fence: 1, nonce: Nonce::from_words(1, 1) },
            claimed_at: Timestamp::EPOCH,
            lease_until: Timestamp::EPOCH,
            start: 0,
            len: 0,
        };
        let mut held = Held::default();
        for _ in 0..10 {
            let claimed = Claimed { runs: vec![run(1), run(2)], ..Claimed::default() };
            let slot = held.add(claimed, Moment::ORIGIN, false, |_| Destination::ONLY, &mut Vec::new());
            assert_eq!(slot, 0);
            held.forget(RunRef { slot, run: 0 });
            assert!(held.free.is_empty(), "its other run is held");
            held.forget(RunRef { slot, run: 1 });
        }
        assert_eq!(held.slots.len(), 1);
    }

    #[test]
    fn a_hash_of_a_key_is_not_hashed_again() {
        let hasher = BuildHasherDefault::<KeyHash>::default();
        assert_eq!(hasher.hash_one(hash("order-1")), hash("order-1"));
        let mut bytes = hasher.build_hasher();
        bytes.write(&[1, 2, 3]);
        assert_eq!(bytes.finish(), 0x01_02_03);
        bytes.write(&[3]);
        assert_eq!(bytes.finish(), 0x01_02_03_03);
    }
}
