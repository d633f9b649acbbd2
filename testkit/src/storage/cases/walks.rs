//! Random walks: several relays and producers do whatever they may, in an order that a seed decides, and everything that
//! the store answers is compared with a model of the rules.

use crate::random::Random;
use crate::storage::model::Model;
use crate::storage::rule::{NO_LOSS, ensure};
use crate::storage::world::{LEASE, PAST_LEASE, World, bury, id, list, name, one, release, retry};
use crate::storage::{OutboxSettings, StorageHarness, TestStore, Trial, Violation};
use pillarbox_core::{Claimed, HeadPolicy, Message, MessageId, Settlements, Storage as _, Token, Verdict};
use std::time::Duration;

pub(super) const KEYS: [&str; 4] = ["a", "b", "c", "d"];

/// Rules 1 to 10: enqueues, claims, renewals, settlements of every kind, crashes, zombies and a clock that jumps. Nothing is
/// lost, claims are exclusive, keys stay in order, and every charge is the right one.
///
/// # Errors
/// The violation.
pub async fn random_walks_keep_every_rule<H: StorageHarness>(trial: &Trial<H>) -> Result<(), Violation> {
    walks(trial, HeadPolicy::Continue, 0..12, 150).await
}

/// The same under the policy `Block`: behind a dead head nothing of its key is handed out.
///
/// # Errors
/// The violation.
pub async fn random_walks_keep_every_rule_under_block<H: StorageHarness>(
    trial: &Trial<H>,
) -> Result<(), Violation> {
    walks(trial, HeadPolicy::Block, 100..108, 150).await
}

async fn walks<H: StorageHarness>(
    trial: &Trial<H>,
    head_policy: HeadPolicy,
    seeds: std::ops::Range<u64>,
    steps: u32,
) -> Result<(), Violation> {
    for seed in seeds {
        let world = world(trial, head_policy).await?;
        world.note(format!("a walk from seed {seed}"));
        let mut walk = Walk::begin(&world, head_policy, Random::new(seed)).await?;
        for _ in 0..steps {
            walk.step().await?;
        }
        walk.finish().await?;
    }
    Ok(())
}

/// A walk whose choices are given, step by step: what a property test draws and shrinks.
#[cfg(feature = "proptest")]
pub(crate) async fn given_walk<H: StorageHarness>(
    trial: &Trial<H>,
    head_policy: HeadPolicy,
    steps: &[Vec<u16>],
) -> Result<(), Violation> {
    let world = world(trial, head_policy).await?;
    let mut walk = Walk::begin(&world, head_policy, Random::Given(Vec::new())).await?;
    for choices in steps {
        walk.random = Random::Given(choices.iter().rev().copied().collect());
        walk.step().await?;
    }
    walk.finish().await
}

async fn world<H: StorageHarness>(
    trial: &Trial<H>,
    head_policy: HeadPolicy,
) -> Result<World<'_, H::Store>, Violation> {
    // Nobody is buried for strikes here: what dies, dies by a verdict that the model has seen.
    let settings = OutboxSettings { head_policy, max_strikes: 1_000, ..OutboxSettings::default() };
    trial.world(&settings).await
}

struct Walk<'a, 'b, S: TestStore> {
    world: &'a World<'b, S>,
    random: Random,
    model: Model,
    handles: Vec<S::Storage>,
    /// Runs that somebody holds, perhaps no longer rightly.
    held: Vec<HeldRun>,
    /// Runs that were settled, or given up by a relay that died: they come back as zombies and repetitions.
    ended: Vec<HeldRun>,
}

#[derive(Clone)]
pub(super) struct HeldRun {
    pub(super) token: Token,
    pub(super) messages: Vec<MessageId>,
    pub(super) keys: Vec<Option<String>>,
}

/// The runs of a claim.
pub(super) fn hold(claimed: &Claimed) -> impl Iterator<Item = HeldRun> {
    claimed.runs.iter().map(|run| {
        let entries = claimed.entries_of(run);
        let keys = entries.iter().map(|entry| match &entry.content {
            pillarbox_core::Content::Message(message) => message.key().map(ToString::to_string),
            pillarbox_core::Content::Undecodable(_) => None,
        });
        HeldRun { token: run.token, messages: entries.iter().filter_map(id).collect(), keys: keys.collect() }
    })
}

/// Verdicts of the shape that each key must have: settled ones, perhaps one that stays, then only releases.
pub(super) fn verdicts(random: &mut Random, keys: &[Option<String>]) -> Vec<Verdict> {
    let mut stopped: Vec<&String> = Vec::new();
    let delay = Duration::from_secs(random.below(50) as u64);
    let mut verdicts = Vec::new();
    for key in keys {
        let has_stopped = key.as_ref().is_some_and(|key| stopped.contains(&key));
        let verdict = match random.below(100) {
            _ if has_stopped => release(),
            0..72 => Verdict::Published,
            72..84 => retry(delay),
            84..90 => release(),
            90..95 => Verdict::Release { after: delay },
            _ => bury(),
        };
        // A burial stops its key only under `Block`; to release the rest then is right under both.
        if verdict != Verdict::Published
            && let Some(key) = key
        {
            stopped.push(key);
        }
        verdicts.push(verdict);
    }
    verdicts
}

impl<'a, 'b, S: TestStore> Walk<'a, 'b, S> {
    async fn begin(
        world: &'a World<'b, S>,
        head_policy: HeadPolicy,
        random: Random,
    ) -> Result<Self, Violation> {
        Ok(Self {
            random,
            model: Model::new(head_policy),
            handles: vec![world.connect().await?, world.connect().await?, world.connect().await?],
            held: Vec::new(),
            ended: Vec::new(),
            world,
        })
    }

    async fn step(&mut self) -> Result<(), Violation> {
        match self.random.below(100) {
            0..20 => self.enqueue().await,
            20..50 => self.claim().await,
            50..78 => self.settle().await,
            78..84 => self.renew().await,
            84..88 => {
                self.die();
                Ok(())
            }
            88..92 => self.come_back().await,
            92..97 => self.world.advance(Duration::from_secs(self.random.below(20) as u64)).await,
            _ => self.world.advance(PAST_LEASE).await,
        }
    }

    async fn enqueue(&mut self) -> Result<(), Violation> {
        let mut messages: Vec<Message> = Vec::new();
        let now = self.world.now().await?;
        for _ in 0..=self.random.below(5) {
            let key = Some(KEYS[self.random.below(KEYS.len())]).filter(|_| self.random.chance(70));
            let delay = Duration::from_secs(self.random.below(60) as u64 + 30);
            let deliver_at = Some(now.after(delay)).filter(|_| self.random.chance(8));
            messages.push(self.world.message_due(key, deliver_at));
        }
        self.world.enqueue(&messages).await?;
        self.model.committed(&messages);
        Ok(())
    }

    async fn claim(&mut self) -> Result<(), Violation> {
        let handle = self.random.below(self.handles.len());
        let limit = u32::try_from(self.random.below(12) + 1).unwrap_or(1);
        let mut ask = self.world.ask(limit);
        let mut claimed = self.world.claim_by(&self.handles[handle], ask).await?;
        self.model.claimed(&ask, &claimed)?;
        if claimed.runs.is_empty() && claimed.suspects > 0 && self.random.chance(80) {
            ask = self.world.ask_solo();
            claimed = self.world.claim_by(&self.handles[handle], ask).await?;
            self.model.claimed(&ask, &claimed)?;
        }
        self.held.extend(hold(&claimed));
        Ok(())
    }

    async fn settle(&mut self) -> Result<(), Violation> {
        if self.held.is_empty() {
            return Ok(());
        }
        let run = self.held.swap_remove(self.random.below(self.held.len()));
        self.settle_run(&run).await?;
        self.ended.push(run);
        Ok(())
    }

    async fn settle_run(&mut self, run: &HeldRun) -> Result<(), Violation> {
        let handle = self.random.below(self.handles.len());
        let after = match self.random.chance(50) {
            true => Duration::ZERO,
            false => Duration::from_secs(self.random.below(40) as u64),
        };
        let mut call = Settlements::new();
        let verdicts = Some(verdicts(&mut self.random, &run.keys)).filter(|_| self.random.chance(88));
        match &verdicts {
            Some(verdicts) => call.verdicts(run.token, verdicts.iter().cloned()),
            None => call.hand_back(run.token, after),
        }
        let answer = one(self.world.settle_by(&self.handles[handle], &call).await?)?;
        self.model.settled(&run.messages, run.token, verdicts.as_deref(), after, answer)
    }

    async fn renew(&mut self) -> Result<(), Violation> {
        if self.held.is_empty() {
            return Ok(());
        }
        let run = self.held[self.random.below(self.held.len())].clone();
        let handle = self.random.below(self.handles.len());
        let answer = one(self.handles[handle].renew(&[run.token], LEASE).await?)?;
        self.world.note(format!("renew {:?}: {answer:?}", run.token));
        self.model.renewed(&run.messages, run.token, answer)
    }

    /// A relay dies, with everything that it holds.
    fn die(&mut self) {
        self.world.note(format!("a relay dies with {} runs", self.held.len()));
        self.ended.append(&mut self.held);
    }

    /// Somebody settles again, or late.
    async fn come_back(&mut self) -> Result<(), Violation> {
        if self.ended.is_empty() {
            return Ok(());
        }
        let run = self.ended[self.random.below(self.ended.len())].clone();
        self.world.note(format!("a zombie comes back with {:?}", run.token));
        self.settle_run(&run).await
    }

    /// Everybody has died; one healthy relay delivers what is left.
    async fn finish(mut self) -> Result<(), Violation> {
        self.die();
        self.world.advance(PAST_LEASE).await?;
        let mut idle = 0;
        while idle < 4 {
            let mut ask = self.world.ask(10);
            let mut claimed = self.world.claim_by(&self.handles[0], ask).await?;
            self.model.claimed(&ask, &claimed)?;
            if claimed.runs.is_empty() && claimed.suspects > 0 {
                ask = self.world.ask_solo();
                claimed = self.world.claim_by(&self.handles[0], ask).await?;
                self.model.claimed(&ask, &claimed)?;
            }
            if claimed.runs.is_empty() {
                idle += 1;
                self.world.advance(PAST_LEASE).await?;
                continue;
            }
            idle = 0;
            self.held.extend(hold(&claimed));
            for run in std::mem::take(&mut self.held) {
                let mut call = Settlements::new();
                let verdicts = vec![Verdict::Published; run.messages.len()];
                call.verdicts(run.token, verdicts.iter().cloned());
                let answer = one(self.world.settle_by(&self.handles[0], &call).await?)?;
                self.model.settled(&run.messages, run.token, Some(&verdicts), Duration::ZERO, answer)?;
            }
        }
        let missing = self.model.missing();
        ensure!(
            missing.is_empty(),
            NO_LOSS,
            "everything is published or dead, or held by a dead head",
            "{} is not",
            list(missing.into_iter().map(name))
        );
        Ok(())
    }
}
