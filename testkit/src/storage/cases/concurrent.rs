//! Relays and producers that work at the same time, each with a handle of its own: their calls overlap in the store, and
//! some are dropped on the way. What they saw is judged once everything was drained.
//!
//! They work in rounds, and the clock moves between two of them: a request that was sent before a test moved the clock, and
//! lands after others that were sent later, would show them a clock that went back, which no store's does.

use super::walks::{HeldRun, KEYS, hold, verdicts};
use crate::fault::crash_after;
use crate::random::Random;
use crate::storage::observed::{Observed, Report};
use crate::storage::rule::{COUNTED, ensure};
use crate::storage::world::{LEASE, PAST_LEASE, World, id, one};
use crate::storage::{OutboxSettings, Producer as _, StorageHarness, TestStore, Trial, Violation};
use futures_util::future::{join, try_join_all};
use pillarbox_core::{Claim, Claimed, ErrorKind, HeadPolicy, Message, Settlements, Storage as _, Verdict};
use std::cell::RefCell;
use std::future::poll_fn;
use std::task::Poll;
use std::time::Duration;

const RELAYS: u64 = 3;
const PRODUCERS: u64 = 2;
const ROUNDS: u32 = 12;
/// Of each relay in a round.
const TURNS: u32 = 4;
/// Of each producer in a round.
const TRANSACTIONS: u32 = 1;
/// As many polls as a call takes.
const ALL: u32 = u32::MAX;

/// Rules 1 to 10: relays that claim, settle, renew, die, come back and lose answers, all at the same time, beside producers.
///
/// # Errors
/// The violation.
pub async fn concurrent_relays_keep_every_rule<H: StorageHarness>(trial: &Trial<H>) -> Result<(), Violation> {
    crowds(trial, HeadPolicy::Continue, 0..3).await
}

/// The same under the policy `Block`.
///
/// # Errors
/// The violation.
pub async fn concurrent_relays_keep_every_rule_under_block<H: StorageHarness>(
    trial: &Trial<H>,
) -> Result<(), Violation> {
    crowds(trial, HeadPolicy::Block, 100..102).await
}

async fn crowds<H: StorageHarness>(
    trial: &Trial<H>,
    head_policy: HeadPolicy,
    seeds: std::ops::Range<u64>,
) -> Result<(), Violation> {
    // Nobody is buried for strikes here: what dies, dies by a verdict that was seen.
    let settings = OutboxSettings { head_policy, max_strikes: 1_000, ..OutboxSettings::default() };
    for seed in seeds {
        let world = trial.world(&settings).await?;
        world.note(format!("a crowd from seed {seed}"));
        let observed = RefCell::new(Observed::new(head_policy));
        let crowd = Crowd { world: &world, observed: &observed };
        crowd.work(seed).await?;
        crowd.drain().await?;
        let observed = observed.into_inner();
        let counts = observed.judge()?;
        println!("{:?} from seed {seed}: {}; {counts:?}", head_policy, observed.totals());
    }
    Ok(())
}

struct Crowd<'a, 'b, S: TestStore> {
    world: &'a World<'b, S>,
    observed: &'a RefCell<Observed>,
}

impl<'a, 'b, S: TestStore> Crowd<'a, 'b, S> {
    async fn work(&self, seed: u64) -> Result<(), Violation> {
        let random = |actor: u64| Random::new(seed << 8 | actor);
        let mut relays = Vec::new();
        for number in 0..RELAYS {
            relays.push(self.relay(random(number)).await?);
        }
        let mut producers = Vec::new();
        for number in 0..PRODUCERS {
            producers.push((self.world.store.producer().await?, random(RELAYS + number)));
        }
        let mut clock = random(RELAYS + PRODUCERS);
        for _ in 0..ROUNDS {
            let relays = try_join_all(relays.iter_mut().map(Relay::take_turns));
            let producers = producers.iter_mut();
            let producers = try_join_all(producers.map(|(producer, random)| self.produce(producer, random)));
            let (relays, producers) = join(relays, producers).await;
            relays.and(producers)?;
            match clock.below(100) {
                0..35 => {}
                35..70 => self.world.advance(Duration::from_secs(clock.below(20) as u64)).await?,
                _ => self.world.advance(PAST_LEASE).await?,
            }
        }
        Ok(())
    }

    async fn relay(&self, random: Random) -> Result<Relay<'_, 'b, S>, Violation> {
        let storage = self.world.connect().await?;
        Ok(Relay { crowd: self, storage, random, held: Vec::new(), ended: Vec::new() })
    }

    async fn produce(&self, producer: &S::Producer, random: &mut Random) -> Result<(), Violation> {
        for _ in 0..TRANSACTIONS {
            let now = self.world.now().await?;
            let messages: Vec<Message> = (0..=random.below(5))
                .map(|_| {
                    let key = Some(KEYS[random.below(KEYS.len())]).filter(|_| random.chance(70));
                    let delay = Duration::from_secs(random.below(60) as u64 + 30);
                    self.world.message_due(key, Some(now.after(delay)).filter(|_| random.chance(8)))
                })
                .collect();
            let mut transaction = producer.begin().await?;
            let mut enqueued = self.observed.borrow_mut().enqueueing(messages);
            producer.enqueue(&mut transaction, enqueued.messages()).await?;
            give_way().await;
            if random.chance(10) {
                producer.rollback(transaction).await?;
                continue;
            }
            self.observed.borrow_mut().committing(&mut enqueued);
            let polls = polls(random, 8);
            let committed = crash_after(producer.commit(transaction), polls).await.transpose()?;
            self.observed.borrow_mut().committed(enqueued, committed.is_some());
            give_way().await;
        }
        Ok(())
    }

    /// Everybody has died; one healthy relay delivers what is left. Ends where a store hands things out for ever, which the
    /// judge then sees.
    async fn drain(&self) -> Result<(), Violation> {
        self.world.advance(PAST_LEASE).await?;
        let mut relay = self.relay(Random::new(0)).await?;
        let (mut idle, mut busy) = (0, 0);
        while idle < 4 && busy < 500 {
            relay.claim(ALL).await?;
            if relay.held.is_empty() {
                idle += 1;
                self.world.advance(PAST_LEASE).await?;
                continue;
            }
            (idle, busy) = (0, busy + 1);
            for run in std::mem::take(&mut relay.held) {
                let verdicts = vec![Verdict::Published; run.messages.len()];
                relay.settle(&run, Report::Verdicts(verdicts), ALL).await?;
            }
        }
        Ok(())
    }
}

struct Relay<'a, 'b, S: TestStore> {
    crowd: &'a Crowd<'a, 'b, S>,
    storage: S::Storage,
    random: Random,
    /// Runs that it holds, perhaps no longer rightly.
    held: Vec<HeldRun>,
    /// Runs that it settled, lost or forgot: it comes back with them.
    ended: Vec<HeldRun>,
}

impl<S: TestStore> Relay<'_, '_, S> {
    async fn take_turns(&mut self) -> Result<(), Violation> {
        for _ in 0..TURNS {
            self.turn().await?;
            give_way().await;
        }
        Ok(())
    }

    async fn turn(&mut self) -> Result<(), Violation> {
        match self.random.below(100) {
            0..45 => {
                let polls = polls(&mut self.random, 8);
                self.claim(polls).await
            }
            45..83 => {
                let Some(run) = take(&mut self.held, &mut self.random) else { return Ok(()) };
                self.report(run).await
            }
            83..89 => self.renew().await,
            89..93 => {
                self.ended.append(&mut self.held);
                Ok(())
            }
            _ => {
                let Some(run) = take(&mut self.ended, &mut self.random) else { return Ok(()) };
                self.report(run).await
            }
        }
    }

    /// Claims, alone what is suspect; often again with the same nonce if the first try was lost, at times also if it was not.
    async fn claim(&mut self, polls: u32) -> Result<(), Violation> {
        let limit = u32::try_from(self.random.below(12) + 1).unwrap_or(1);
        let mut ask = self.crowd.world.ask(limit);
        let mut claimed = self.ask(ask, polls).await?;
        let again = if claimed.is_none() { 70 } else { 10 };
        if self.random.chance(again) {
            self.held.extend(claimed.iter().flat_map(hold));
            claimed = self.ask(ask, ALL).await?;
        }
        if claimed.as_ref().is_some_and(|claimed| claimed.runs.is_empty() && claimed.suspects > 0) {
            ask = self.crowd.world.ask_solo();
            claimed = self.ask(ask, ALL).await?;
        }
        for run in claimed.iter().flat_map(hold) {
            if self.held.iter().all(|held| held.token != run.token) {
                self.held.push(run);
            }
        }
        Ok(())
    }

    async fn ask(&self, claim: Claim, polls: u32) -> Result<Option<Claimed>, Violation> {
        let Crowd { world, observed } = self.crowd;
        observed.borrow_mut().claiming(&claim);
        let Some(claimed) = self.calling(world.claim_by(&self.storage, claim), polls).await? else {
            observed.borrow_mut().claim_lost(&claim);
            return Ok(None);
        };
        ensure!(claimed.buried == 0, COUNTED, "nobody has strikes enough", "{} buried", claimed.buried);
        let entries = |run: &_| {
            let entries = claimed.entries_of(run).iter();
            entries.filter_map(|entry| Some((id(entry)?, entry.attempts))).collect()
        };
        observed.borrow_mut().claimed(&claim, &claimed, entries)?;
        Ok(Some(claimed))
    }

    async fn report(&mut self, run: HeldRun) -> Result<(), Violation> {
        let after = match self.random.chance(50) {
            true => Duration::ZERO,
            false => Duration::from_secs(self.random.below(40) as u64),
        };
        let report = match self.random.chance(88) {
            true => Report::Verdicts(verdicts(&mut self.random, &run.keys)),
            false => Report::HandBack(after),
        };
        let polls = polls(&mut self.random, 12);
        self.settle(&run, report, polls).await?;
        self.ended.push(run);
        Ok(())
    }

    /// Publishes what is reported as published, and settles.
    async fn settle(&self, run: &HeldRun, report: Report, polls: u32) -> Result<(), Violation> {
        let Crowd { world, observed } = self.crowd;
        let mut call = Settlements::new();
        match &report {
            Report::Verdicts(verdicts) => {
                call.verdicts(run.token, verdicts.iter().cloned());
                let published = run.messages.iter().zip(verdicts);
                for (message, _) in published.filter(|(_, verdict)| **verdict == Verdict::Published) {
                    observed.borrow_mut().delivered(*message);
                }
            }
            Report::HandBack(after) => call.hand_back(run.token, *after),
        }
        let began = observed.borrow_mut().begin();
        let answers = self.calling(world.settle_by(&self.storage, &call), polls).await?;
        let answer = answers.map(one).transpose()?;
        observed.borrow_mut().settled(began, run.token, report, answer);
        Ok(())
    }

    async fn renew(&mut self) -> Result<(), Violation> {
        if self.held.is_empty() {
            return Ok(());
        }
        let token = self.held[self.random.below(self.held.len())].token;
        let Crowd { world, observed } = self.crowd;
        let began = observed.borrow_mut().begin();
        let renewing = async { Ok(self.storage.renew(&[token], LEASE).await?) };
        if let Some(answers) = self.calling(renewing, ALL).await? {
            let answer = one(answers)?;
            world.note(format!("renew {token:?}: {answer:?}"));
            observed.borrow_mut().renewed(began, token, answer);
        }
        Ok(())
    }

    /// Makes a call that may be dropped after some polls. `None` if nobody knows what it did.
    async fn calling<V>(
        &self,
        call: impl Future<Output = Result<V, Violation>>,
        polls: u32,
    ) -> Result<Option<V>, Violation> {
        match crash_after(call, polls).await {
            None => {
                self.crowd.observed.borrow_mut().counts.dropped += 1;
                Ok(None)
            }
            Some(Ok(answer)) => Ok(Some(answer)),
            // A store may be too busy for a moment, and says so.
            Some(Err(Violation::Error(error))) if error.kind() == ErrorKind::Unavailable => {
                self.crowd.world.note(format!("a call failed: {}", error.report()));
                self.crowd.observed.borrow_mut().counts.transient += 1;
                Ok(None)
            }
            Some(Err(violation)) => Err(violation),
        }
    }
}

/// After how many polls a call is dropped: few in `percent` of the calls, else none.
fn polls(random: &mut Random, percent: usize) -> u32 {
    let polls = u32::try_from(1 + random.below(6)).unwrap_or(1);
    if random.chance(percent) { polls } else { ALL }
}

fn take(runs: &mut Vec<HeldRun>, random: &mut Random) -> Option<HeldRun> {
    (!runs.is_empty()).then(|| runs.swap_remove(random.below(runs.len())))
}

/// Lets the others go on, also where the store answers at once.
async fn give_way() {
    let mut has_waited = false;
    poll_fn(|context| {
        if std::mem::replace(&mut has_waited, true) {
            return Poll::Ready(());
        }
        context.waker().wake_by_ref();
        Poll::Pending
    })
    .await;
}
