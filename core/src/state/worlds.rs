//! Every world that three messages, two ordering keys and three holders can get into: an exhaustive search.
//!
//! Messages 0 and 1 share a key, message 2 has another. Holders claim, send, renew, settle, hand back, crash, and come back
//! as zombies with what they held before; leases run out, and a dead message is redriven once. Times are kept relative to
//! now and fences in their order, which makes the worlds finitely many.

use super::{Command, Lease, Record, Rejected, State, Transition, step};
use crate::{Due, HeadPolicy, Message, MessageId, Nonce, StoredRecord, Timestamp, Token, Verdict};
use std::collections::HashMap;
use std::time::Duration;

const NOW: Timestamp = Timestamp::from_millis(100_000);
const TICK: Duration = Duration::from_secs(1);
const LEASE: Duration = TICK;
const MAX_STRIKES: u32 = 1;
const REDRIVES: u8 = 1;
const STALE: u64 = 1;
const CURRENT: u64 = 2;
const MESSAGES: usize = 3;
/// The first message of each message's key.
const HEADS: [usize; MESSAGES] = [0, 0, 2];

#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
struct World {
    records: [Record; MESSAGES],
    /// In order: which holder is which makes no difference.
    holders: [Option<Hold>; 3],
    delivered: [bool; MESSAGES],
    /// How often the dead can still be redriven.
    redrives: u8,
}

/// What a holder believes to hold: `len` messages of one key from `first` on, of which it has sent some.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
struct Hold {
    first: usize,
    fences: [u64; 2],
    len: usize,
    sent: usize,
}

impl Hold {
    fn parts(self) -> impl Iterator<Item = (usize, Token)> {
        (0..self.len).map(move |part| (self.first + part, token(self.first + part, self.fences[part])))
    }
}

#[test]
fn no_interleaving_of_three_holders_breaks_a_promise() {
    for policy in [HeadPolicy::Continue, HeadPolicy::Block] {
        let search = Search::of(policy);
        println!("{policy:?}: {} worlds, {} transitions", search.worlds.len(), search.arrows.len());
        search.assert_that_everything_happened(policy);
        search.assert_that_every_world_can_end(policy);
    }
}

struct Search {
    worlds: Vec<World>,
    arrows: Vec<(u32, u32)>,
    /// Burials at the limit of strikes.
    struck_dead: u32,
}

impl Search {
    fn of(policy: HeadPolicy) -> Self {
        let start = World {
            records: [Record::pending(NOW); MESSAGES],
            holders: [None; 3],
            delivered: [false; MESSAGES],
            redrives: REDRIVES,
        };
        let mut numbers = HashMap::from([(start, 0)]);
        let mut search = Self { worlds: vec![start], arrows: Vec::new(), struck_dead: 0 };
        let contents = contents();
        let mut next = Vec::new();
        let mut place = 0;
        while place < search.worlds.len() {
            let world = search.worlds[place];
            next.clear();
            world.followers(policy, &contents, &mut next);
            let struck_dead =
                |world: &&World| world.records.iter().any(|record| record.strikes == MAX_STRIKES);
            search.struck_dead += u32::try_from(next.iter().filter(struck_dead).count()).unwrap();
            for follower in next.drain(..).map(World::normal) {
                let count = u32::try_from(search.worlds.len()).unwrap();
                let number = *numbers.entry(follower).or_insert(count);
                if number == count {
                    search.worlds.push(follower);
                }
                search.arrows.push((u32::try_from(place).unwrap(), number));
            }
            place += 1;
        }
        search
    }

    fn assert_that_everything_happened(&self, policy: HeadPolicy) {
        let happened = |what: fn(&World) -> bool| self.worlds.iter().any(what);
        assert!(happened(|world| world.records.iter().all(|record| record.state == State::Published)));
        let all_dead = happened(|world| world.records.iter().all(|record| record.state == State::Dead));
        assert_eq!(all_dead, policy == HeadPolicy::Continue, "a dead message holds its key up under `Block`");
        assert!(self.struck_dead > 0);
        assert!(happened(|world| world.records[0].run_limit == 1), "a suspect");
        let zombies =
            |world: &World| world.holders.iter().flatten().filter(|hold| !world.is_current(**hold)).count();
        assert!(self.worlds.iter().any(|world| zombies(world) == 2), "two zombies beside a holder");
        assert!(happened(|world| world.redrives == 0));
    }

    /// Walks backwards from where everything is published or dead: what is not met on the way would be stuck for ever.
    fn assert_that_every_world_can_end(&self, policy: HeadPolicy) {
        let mut before = vec![Vec::new(); self.worlds.len()];
        for (from, to) in &self.arrows {
            before[*to as usize].push(*from);
        }
        let is_end = |world: &World| {
            let blocked = policy == HeadPolicy::Block && world.records[0].state == State::Dead;
            let waits_for_redrive = |place: usize| blocked && HEADS[place] == 0;
            (0..MESSAGES).all(|place| is_terminal(&world.records[place]) || waits_for_redrive(place))
        };
        let mut can_end: Vec<bool> = self.worlds.iter().map(is_end).collect();
        let mut open: Vec<u32> =
            (0..).zip(&can_end).filter(|(_, ends)| **ends).map(|(number, _)| number).collect();
        while let Some(number) = open.pop() {
            for earlier in &before[number as usize] {
                if !std::mem::replace(&mut can_end[*earlier as usize], true) {
                    open.push(*earlier);
                }
            }
        }
        let stuck = can_end.iter().position(|ends| !ends);
        assert!(stuck.is_none(), "stuck: {:?}", self.worlds[stuck.unwrap_or_default()]);
    }
}

impl World {
    fn followers(&self, policy: HeadPolicy, contents: &[Message; MESSAGES], next: &mut Vec<Self>) {
        next.push(self.later());
        self.redrive(next);
        for (place, holder) in self.holders.iter().enumerate() {
            match holder {
                None => self.claims(place, policy, contents, next),
                Some(hold) => self.doings(place, *hold, next),
            }
        }
    }

    fn claims(
        &self,
        holder: usize,
        policy: HeadPolicy,
        contents: &[Message; MESSAGES],
        next: &mut Vec<Self>,
    ) {
        // Idle holders are alike.
        if self.holders[..holder].iter().any(Option::is_none) {
            return;
        }
        let stored = std::array::from_fn::<_, MESSAGES, _>(|place| StoredRecord {
            record: self.records[place],
            ..StoredRecord::new(place as u64, contents[place].clone(), NOW)
        });
        let due = Due::select(stored.iter(), NOW, 3, policy);
        let places: Vec<usize> =
            due.records.iter().map(|stored| usize::try_from(stored.position).unwrap()).collect();
        for first in
            places.iter().copied().filter(|place| !places.contains(&HEADS[*place]) || HEADS[*place] == *place)
        {
            let free = self.records[first].as_claimable(NOW, MAX_STRIKES).expect("it was selected");
            for len in 1..=2 {
                let is_of_one_key =
                    (first..first + len).all(|place| place < MESSAGES && HEADS[place] == HEADS[first]);
                if is_of_one_key && (first..first + len).all(|place| places.contains(&place)) {
                    next.extend(self.claim(holder, first, len, free.is_suspect(), policy));
                }
            }
        }
    }

    fn claim(&self, holder: usize, first: usize, len: usize, solo: bool, policy: HeadPolicy) -> Option<Self> {
        let mut after = *self;
        let mut hold = Hold { first, fences: [0; 2], len: 0, sent: 0 };
        for place in first..first + len {
            let before = self.records[place];
            let token = token(place, before.fence + 1);
            let run = u32::try_from(len).unwrap();
            let transition =
                step(&before, &Command::Claim { token, lease: LEASE, run, solo }, NOW, MAX_STRIKES);
            match transition {
                Ok(Transition::Claimed(record)) => {
                    assert!(
                        before.lease().is_none_or(|lease| lease.until <= NOW),
                        "a live claim is not taken: {self:?}"
                    );
                    after.records[place] = record;
                    hold.fences[hold.len] = token.fence;
                    hold.len += 1;
                }
                Ok(Transition::Struck(record) | Transition::Buried(record)) => {
                    assert!(
                        before.lease().is_some_and(|lease| lease.until <= NOW),
                        "charged without a death: {self:?}"
                    );
                    after.records[place] = record;
                    break;
                }
                Ok(other) => panic!("{other:?} by a claim of {self:?}"),
                // What came before in the run is not handed out either: a claim is one step.
                Err(Rejected::RunTooLong(_) | Rejected::Suspect | Rejected::NotSuspect) => return None,
                Err(other) => panic!("{other} though it was selected: {self:?}"),
            }
        }
        if hold.len > 0 {
            if hold.len < len {
                return None;
            }
            let head = self.records[HEADS[first]];
            let gave_way = head.state == State::Published
                || (head.state == State::Dead && policy == HeadPolicy::Continue);
            assert!(HEADS[first] == first || gave_way, "ahead of the first of its key: {self:?}");
            after.holders[holder] = Some(hold);
        }
        Some(after)
    }

    /// What a holder does, whether or not it still holds what it believes.
    fn doings(&self, holder: usize, hold: Hold, next: &mut Vec<Self>) {
        let with = |hold: Option<Hold>| {
            let mut after = *self;
            after.holders[holder] = hold;
            after
        };
        // It crashes.
        next.push(with(None));
        if hold.sent < hold.len {
            let mut after = with(Some(Hold { sent: hold.sent + 1, ..hold }));
            let place = hold.first + hold.sent;
            let head = HEADS[place];
            // A message that died lets others pass, also if it lives again after.
            let gave_way = self.records[head].state == State::Dead || self.redrives < REDRIVES;
            let in_order = self.delivered[place] || self.delivered[head] || head == place || gave_way;
            assert!(in_order, "delivered out of order: {self:?}");
            after.delivered[place] = true;
            next.push(after);
        }
        if let Some(after) = self.applied(hold, |_, token| Command::Renew { token, lease: LEASE }) {
            next.push(Self { holders: self.holders, ..after });
        }
        for last in [Verdict::Release { after: Duration::ZERO }, retry(), bury()] {
            let verdicts: Vec<Verdict> = (0..hold.len)
                .map(|part| match part.cmp(&hold.sent) {
                    std::cmp::Ordering::Less => Verdict::Published,
                    std::cmp::Ordering::Equal => last.clone(),
                    std::cmp::Ordering::Greater => Verdict::Release { after: Duration::ZERO },
                })
                .collect();
            let settled =
                self.applied(hold, |part, token| Command::Settle { token, verdict: &verdicts[part] });
            next.push(
                settled.map_or_else(|| with(None), |after| Self { holders: with(None).holders, ..after }),
            );
            if hold.sent == hold.len {
                break;
            }
        }
        if hold.sent == 0 {
            let back = self.applied(hold, |_, token| Command::HandBack { token, after: TICK });
            next.push(back.map_or_else(|| with(None), |after| Self { holders: with(None).holders, ..after }));
        }
    }

    /// Applies a command to each message of a hold, all or none. Looks at what it may do to a message, and at that it does so once.
    fn applied<'a>(&self, hold: Hold, command: impl Fn(usize, Token) -> Command<'a>) -> Option<Self> {
        let mut after = *self;
        for (part, (place, token)) in hold.parts().enumerate() {
            let before = self.records[place];
            let is_current = before.lease().is_some_and(|lease| lease.token == token);
            let command = command(part, token);
            let transition = step(&before, &command, NOW, MAX_STRIKES);
            assert_eq!(transition.is_ok(), is_current, "a fence: {command:?} in {self:?}");
            let record = *transition.ok()?.record()?;
            if !matches!(command, Command::Renew { .. }) {
                let again = step(&record, &command, NOW, MAX_STRIKES);
                assert_eq!(again, Err(Rejected::AlreadyApplied), "{command:?} twice in {self:?}");
            }
            let is_retry = matches!(&command, Command::Settle { verdict: Verdict::Retry { .. }, .. });
            assert_eq!(record.attempts, before.attempts + u32::from(is_retry), "{command:?} in {self:?}");
            assert_eq!(record.fence, before.fence, "only a claim raises it: {self:?}");
            after.records[place] = record;
        }
        Some(after)
    }

    fn redrive(&self, next: &mut Vec<Self>) {
        for (place, record) in self.records.iter().enumerate() {
            if record.state == State::Dead && self.redrives > 0 {
                let Ok(Transition::Redriven(new)) = step(record, &Command::Redrive, NOW, MAX_STRIKES) else {
                    panic!("a dead message can be redriven: {self:?}")
                };
                let mut after = Self { redrives: self.redrives - 1, ..*self };
                after.records[place] = new;
                next.push(after);
            } else {
                assert!(
                    record.state == State::Dead || step(record, &Command::Redrive, NOW, MAX_STRIKES).is_err(),
                    "only the dead are redriven: {self:?}"
                );
            }
        }
    }

    /// The same after a tick.
    fn later(&self) -> Self {
        let earlier = |at: Timestamp| at.before(TICK).max(NOW);
        let records = self.records.map(|record| Record {
            due_at: earlier(record.due_at),
            state: match record.state {
                State::Claimed(lease) => State::Claimed(Lease { until: earlier(lease.until), ..lease }),
                other => other,
            },
            ..record
        });
        Self { records, ..*self }
    }

    fn is_current(&self, hold: Hold) -> bool {
        hold.parts()
            .all(|(place, token)| self.records[place].lease().is_some_and(|lease| lease.token == token))
    }

    /// The representative of all worlds that go on alike: which holder is which, and how high fences are, makes no difference,
    /// nor by how much a token is stale, nor how often a send failed, nor the past of what is published or dead. What each step does to
    /// the counters is looked at before.
    fn normal(mut self) -> Self {
        let was = self.records;
        for (place, record) in self.records.iter_mut().enumerate() {
            let fence = if record.fence == 0 { 0 } else { CURRENT };
            *record = match record.state {
                State::Pending => Record { fence, attempts: 0, settled: None, ..*record },
                State::Claimed(lease) => {
                    // That it was renewed counts for a suspect alone.
                    let renewed = lease.renewed && lease.solo;
                    let lease = Lease { token: token(place, CURRENT), renewed, ..lease };
                    let state = State::Claimed(lease);
                    Record { fence, state, attempts: 0, settled: None, due_at: NOW, ..*record }
                }
                State::Published => Record { fence, state: State::Published, ..Record::pending(NOW) },
                State::Dead => Record { fence, state: State::Dead, ..Record::pending(NOW) },
            };
        }
        for hold in self.holders.iter_mut().flatten() {
            for (place, token) in hold.parts() {
                let is_current = was[place].lease().is_some_and(|lease| lease.token == token);
                hold.fences[place - hold.first] = if is_current { CURRENT } else { STALE };
            }
            let all = hold.first..hold.first + hold.len;
            if hold.fences[..hold.len].iter().all(|fence| *fence == STALE)
                && all.clone().all(|place| self.delivered[place])
            {
                hold.sent = hold.len;
            }
        }
        self.holders.sort_unstable();
        self
    }
}

fn is_terminal(record: &Record) -> bool {
    matches!(record.state, State::Published | State::Dead)
}

fn token(place: usize, fence: u64) -> Token {
    Token { unit: place as u64, fence, nonce: Nonce::from_words(0, fence) }
}

fn retry() -> Verdict {
    Verdict::Retry { after: TICK, error: "unroutable".into() }
}

fn bury() -> Verdict {
    Verdict::Bury { reason: "rejected".into() }
}

fn contents() -> [Message; MESSAGES] {
    std::array::from_fn(|place| {
        let id = MessageId::from_bytes([u8::try_from(place).unwrap(); 16]);
        let key = ["a", "a", "b"][place];
        Message::given(id, NOW, "orders").key(key).payload("").unwrap()
    })
}
