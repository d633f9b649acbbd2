//! Storages, relays and transports that break one promise each, as decorators around the ones that keep all.

use super::memory;
use futures_util::FutureExt as _;
use pillarbox_core::{
    Admin, BoxFuture, Claim, Claimed, Content, Destination, Error, Filter, Hints, Message, MessageId, Nonce,
    Outcome, Outcomes, Renewed, Settled, Settlement, Settlements, Storage, StorageGuarantees, Text, Token,
    Transport, TransportGuarantees, Verdict, Wakeup,
};
use pillarbox_memory::{MemoryStorage, MemoryTransaction};
use pillarbox_testkit::simulate::{Look, Setup, Subject};
use std::collections::HashMap;
use std::sync::{Arc, Mutex};
use std::task::Poll;
use std::time::Duration;

/// The promise that is broken.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Mutant {
    /// Leases end two hundredths early.
    ShortLeases,
    /// Leases end at once.
    NoLease,
    /// Leases are half as long as asked for, and say so.
    HalfLeases,
    /// What was claimed less than a millisecond ago is claimed again: read and write are two statements.
    TwoStatementClaim,
    /// Fences never rise.
    SameFence,
    /// A stale settlement is told to have been applied.
    SaysApplied,
    /// A stale settlement settles whoever holds the message now.
    UnfencedSettle,
    /// A stale renewal is told to have been applied.
    SaysRenewed,
    /// Some renewals that are applied are told to be fenced.
    FencesRenewals,
    /// Every settlement that is applied is told to be fenced.
    FencesSettlements,
    /// A stale settlement is told to have been applied before.
    SaysAlreadyApplied,
    /// Claims do not know their nonce.
    ForgetsNonces,
    /// Claims bring more than was asked for.
    OverfillsLimits,
    /// Some published messages come back.
    Resurrects,
    /// Keys are ignored.
    IgnoresKeys,
    /// A retry sends a message to the end of its key.
    RetriesBehindKey,
    /// Retries and releases are due at once.
    IgnoresDelays,
    /// The count of attempts is one short.
    MiscountsAttempts,
    /// Attempts are never counted.
    NeverCountsAttempts,
    /// Attempts are charged twice.
    ChargesReleases,
    /// Strikes are not told.
    HidesStrikes,
    /// Strikes never bury.
    NeverStrikesOut,
    /// Suspects go to ordinary claims.
    HandsOutSuspects,
    /// Some retries bury.
    BuriesRetries,
    /// Retried messages without a key are dropped.
    DropsRetries,
    /// Buried messages are dropped.
    DropsDead,
    /// Some commits are acknowledged and dropped.
    DropsCommits,
    /// Expired claims are never taken.
    NeverReclaims,
    /// Rollbacks commit.
    CommitsRollbacks,
    /// Messages are visible before their commit.
    CommitsEarly,
    /// Payloads end at their first zero byte.
    CutsPayloads,
    /// A claim panics now and then.
    Panics,
    /// Hints never stop.
    NeverStopsHinting,
    /// The relay reports failed sends as published.
    RelayReportsSuccess,
    /// The relay settles at once whatever it claimed.
    RelaySettlesTooEarly,
    /// The relay goes no further once it has to bury something.
    RelayStopsAtBurials,
    /// The transport sends each batch twice.
    SendsTwice,
    /// The transport confirms without sending.
    ConfirmsNothing,
    /// The transport turns batches around.
    TurnsBatchesAround,
    /// The transport confirms the whole batch once its first message is confirmed.
    ConfirmsAll,
}

impl Mutant {
    pub(super) const ALL: [Self; 40] = [
        Self::ShortLeases,
        Self::NoLease,
        Self::HalfLeases,
        Self::TwoStatementClaim,
        Self::SameFence,
        Self::SaysApplied,
        Self::UnfencedSettle,
        Self::SaysRenewed,
        Self::FencesRenewals,
        Self::FencesSettlements,
        Self::SaysAlreadyApplied,
        Self::ForgetsNonces,
        Self::OverfillsLimits,
        Self::Resurrects,
        Self::IgnoresKeys,
        Self::RetriesBehindKey,
        Self::IgnoresDelays,
        Self::MiscountsAttempts,
        Self::NeverCountsAttempts,
        Self::ChargesReleases,
        Self::HidesStrikes,
        Self::NeverStrikesOut,
        Self::HandsOutSuspects,
        Self::BuriesRetries,
        Self::DropsRetries,
        Self::DropsDead,
        Self::DropsCommits,
        Self::NeverReclaims,
        Self::CommitsRollbacks,
        Self::CommitsEarly,
        Self::CutsPayloads,
        Self::Panics,
        Self::NeverStopsHinting,
        Self::RelayReportsSuccess,
        Self::RelaySettlesTooEarly,
        Self::RelayStopsAtBurials,
        Self::SendsTwice,
        Self::ConfirmsNothing,
        Self::TurnsBatchesAround,
        Self::ConfirmsAll,
    ];
}

impl Subject for Mutant {
    type Storage = Broken;
    type Transaction = (MemoryTransaction, Broken);

    fn open(&self, mut setup: Setup) -> Broken {
        if *self == Self::NeverStrikesOut {
            setup.max_strikes = u32::MAX;
        }
        Broken { inner: memory::open(setup), mutant: *self, memory: Arc::default() }
    }

    fn begin(&self, storage: &Broken) -> Self::Transaction {
        (storage.inner.transaction(), storage.clone())
    }

    fn enqueue(&self, (transaction, storage): &mut Self::Transaction, messages: &[Message]) {
        let messages: Vec<Message> = messages.iter().map(|message| storage.written(message)).collect();
        if *self == Self::CommitsEarly {
            storage.inner.enqueue_alone(&messages).unwrap();
        }
        transaction.append(&messages).unwrap();
    }

    fn commit(&self, (transaction, storage): Self::Transaction) {
        if !(*self == Self::DropsCommits && storage.every(10)) {
            transaction.commit();
        }
    }

    fn rollback(&self, (transaction, _): Self::Transaction) {
        if *self == Self::CommitsRollbacks { transaction.commit() } else { transaction.rollback() }
    }

    fn look(&self, storage: &Broken) -> Look {
        memory::look(&storage.inner)
    }

    fn relay_storage<S: Storage + 'static>(&self, storage: S) -> impl Storage + 'static {
        BadRelay { inner: storage, mutant: *self }
    }

    fn relay_transport<T: Transport + 'static>(&self, transport: T) -> impl Transport + 'static {
        BadTransport { inner: transport, mutant: *self }
    }
}

/// A storage that keeps every promise but one.
#[derive(Clone, Debug)]
pub(super) struct Broken {
    inner: MemoryStorage,
    mutant: Mutant,
    memory: Arc<Mutex<State>>,
}

#[derive(Debug, Default)]
struct State {
    drawn: u64,
    /// The tokens of the storage below, by those that were handed out.
    below: HashMap<Token, Token>,
    /// Who holds each message in the storage below.
    holders: HashMap<MessageId, Token>,
    /// The first message of each run that was handed out.
    firsts: HashMap<Token, MessageId>,
    messages: HashMap<MessageId, Message>,
    charged: HashMap<MessageId, u32>,
    last: Option<Claimed>,
}

impl Broken {
    fn is(&self, mutant: Mutant) -> bool {
        self.mutant == mutant
    }

    /// Every so many times.
    fn every(&self, times: u64) -> bool {
        let mut state = self.memory.lock().unwrap();
        state.drawn += 1;
        state.drawn.is_multiple_of(times)
    }

    /// A message as it is stored.
    fn written(&self, message: &Message) -> Message {
        self.memory.lock().unwrap().messages.insert(message.id(), message.clone());
        if !self.is(Mutant::IgnoresKeys) {
            return message.clone();
        }
        let builder = Message::given(message.id(), message.created_at(), message.topic().clone());
        let builder = match message.deliver_at() {
            Some(at) => builder.deliver_at(at),
            None => builder,
        };
        builder.payload("").unwrap()
    }

    fn below(&self, token: Token) -> Token {
        let state = self.memory.lock().unwrap();
        if self.is(Mutant::UnfencedSettle)
            && let Some(first) = state.firsts.get(&token)
            && let Some(holder) = state.holders.get(first)
        {
            return *holder;
        }
        state.below.get(&token).copied().unwrap_or(token)
    }

    fn lease(&self, lease: Duration) -> Duration {
        match self.mutant {
            Mutant::ShortLeases => lease * 98 / 100,
            Mutant::NoLease => Duration::from_micros(1),
            Mutant::HalfLeases => lease / 2,
            Mutant::NeverReclaims => Duration::from_secs(1_000_000),
            _ => lease,
        }
    }

    fn tells_true_leases(&self) -> bool {
        !matches!(self.mutant, Mutant::ShortLeases | Mutant::NoLease | Mutant::NeverReclaims)
    }

    fn hand_out(&self, claim: Claim, claimed: &mut Claimed) {
        let mut state = self.memory.lock().unwrap();
        let Claimed { runs, entries, .. } = claimed;
        for run in runs.iter_mut() {
            let below = state.below.get(&run.token).copied().unwrap_or(run.token);
            run.token.nonce = claim.nonce;
            if self.is(Mutant::SameFence) {
                run.token.fence = 1;
            }
            if !self.tells_true_leases() {
                run.lease_until = run.claimed_at.after(claim.lease);
            }
            state.below.insert(run.token, below);
            for (place, entry) in entries[run.start as usize..][..run.len as usize].iter_mut().enumerate() {
                let Content::Message(message) = &mut entry.content else { continue };
                let id = message.id();
                if place == 0 {
                    state.firsts.insert(run.token, id);
                }
                state.holders.insert(id, below);
                match self.mutant {
                    Mutant::IgnoresKeys => *message = state.messages[&id].clone(),
                    Mutant::CutsPayloads => *message = cut(message),
                    Mutant::MiscountsAttempts => entry.attempts = entry.attempts.saturating_sub(1),
                    Mutant::RetriesBehindKey => entry.attempts += state.charged.get(&id).unwrap_or(&0),
                    Mutant::HidesStrikes => entry.strikes = 0,
                    _ => {}
                }
            }
        }
    }

    fn translated(&self, verdict: &Verdict, id: Option<MessageId>) -> Verdict {
        let message = id.and_then(|id| self.memory.lock().unwrap().messages.get(&id).cloned());
        let keyed = message.is_some_and(|message| message.key().is_some());
        match (self.mutant, verdict) {
            (Mutant::IgnoresDelays, Verdict::Retry { error, .. }) => {
                Verdict::Retry { after: Duration::ZERO, error: error.clone() }
            }
            (Mutant::IgnoresDelays, Verdict::Release { .. }) => Verdict::Release { after: Duration::ZERO },
            (Mutant::NeverCountsAttempts, Verdict::Retry { after, .. }) => Verdict::Release { after: *after },
            (Mutant::ChargesReleases, Verdict::Release { after }) => {
                Verdict::Retry { after: *after, error: Text::new() }
            }
            (Mutant::DropsRetries, Verdict::Retry { .. }) if !keyed => Verdict::Published,
            (Mutant::DropsDead, Verdict::Bury { .. }) => Verdict::Published,
            (Mutant::BuriesRetries, Verdict::Retry { error, .. }) if !keyed => {
                Verdict::Bury { reason: error.clone() }
            }
            (Mutant::RetriesBehindKey, Verdict::Retry { error, .. }) if keyed => {
                Verdict::Bury { reason: error.clone() }
            }
            (Mutant::Resurrects, Verdict::Published) if !keyed && self.every(5) => {
                Verdict::Release { after: Duration::ZERO }
            }
            _ => verdict.clone(),
        }
    }

    /// The messages of a run below, in order.
    fn messages_of(&self, token: Token) -> Vec<MessageId> {
        let state = self.memory.lock().unwrap();
        let mut ids: Vec<MessageId> =
            state.holders.iter().filter(|(_, held)| **held == token).map(|(id, _)| *id).collect();
        ids.sort();
        ids
    }

    fn retry_behind_key(&self, settlements: &Settlements) {
        for (token, settlement) in settlements.iter() {
            let Settlement::Verdicts(verdicts) = settlement else { continue };
            let ids = self.messages_of(self.below(token));
            if verdicts.iter().any(|verdict| matches!(verdict, Verdict::Retry { .. })) {
                for id in ids {
                    let answer = self.inner.redrive(Filter::id(id), 1, false).now_or_never();
                    if answer.unwrap().unwrap().count > 0 {
                        *self.memory.lock().unwrap().charged.entry(id).or_default() += 1;
                    }
                }
            }
        }
    }
}

fn cut(message: &Message) -> Message {
    let payload = message.payload();
    let end = payload.iter().position(|byte| *byte == 0).unwrap_or(payload.len());
    let mut builder = Message::given(message.id(), message.created_at(), message.topic().clone())
        .headers(message.headers().clone());
    if let Some(key) = message.key() {
        builder = builder.key(key.clone());
    }
    if let Some(at) = message.deliver_at() {
        builder = builder.deliver_at(at);
    }
    builder.payload(payload.slice(..end)).unwrap()
}

impl Storage for Broken {
    fn guarantees(&self) -> StorageGuarantees {
        self.inner.guarantees()
    }

    async fn claim(&self, claim: Claim) -> Result<Claimed, Error> {
        if self.is(Mutant::Panics) && self.every(20) {
            // Without the hook that would print it.
            std::panic::resume_unwind(Box::new("a storage that panics"));
        }
        if self.is(Mutant::TwoStatementClaim) && !claim.solo {
            let last = self.memory.lock().unwrap().last.clone();
            let now = self.inner.claim(Claim { limit: 0, ..claim }).await?.now;
            if let Some(mut last) = last.filter(|last| now.since(last.now) < Duration::from_millis(1)) {
                last.entries.truncate(claim.limit as usize);
                last.runs.retain(|run| run.start + run.len <= claim.limit);
                last.entries.truncate(last.runs.iter().map(|run| run.len as usize).sum());
                last.now = now;
                for run in &mut last.runs {
                    run.claimed_at = now;
                    run.lease_until = now.after(claim.lease);
                }
                self.hand_out(claim, &mut last);
                return Ok(last);
            }
        }
        let mut asked = Claim { lease: self.lease(claim.lease), ..claim };
        if self.is(Mutant::ForgetsNonces) {
            let drawn = self.memory.lock().unwrap().below.len() as u64;
            self.every(1);
            asked.nonce = Nonce::from_words(drawn, self.memory.lock().unwrap().drawn);
        }
        if self.is(Mutant::OverfillsLimits) && !claim.solo {
            asked.limit += 2;
        }
        let mut claimed = self.inner.claim(asked).await?;
        if self.is(Mutant::HandsOutSuspects) && claimed.runs.is_empty() && claimed.suspects > 0 {
            claimed = self.inner.claim(Claim { solo: true, limit: 1, ..asked }).await?;
        }
        if self.is(Mutant::TwoStatementClaim) {
            self.memory.lock().unwrap().last = Some(claimed.clone());
        }
        self.hand_out(claim, &mut claimed);
        Ok(claimed)
    }

    async fn renew(&self, tokens: &[Token], lease: Duration) -> Result<Vec<Renewed>, Error> {
        let below: Vec<Token> = tokens.iter().map(|token| self.below(*token)).collect();
        let mut answers = self.inner.renew(&below, self.lease(lease)).await?;
        for answer in &mut answers {
            if answer.outcome == Outcome::Applied && !self.tells_true_leases() {
                answer.lease_until = Some(answer.at.after(lease));
            }
            if answer.outcome == Outcome::Fenced && self.is(Mutant::SaysRenewed) {
                answer.outcome = Outcome::Applied;
                answer.lease_until = Some(answer.at.after(lease));
            }
            if self.is(Mutant::FencesRenewals) && self.every(4) {
                *answer = Renewed { outcome: Outcome::Fenced, lease_until: None, ..*answer };
            }
        }
        Ok(answers)
    }

    async fn settle(&self, settlements: &Settlements) -> Result<Vec<Settled>, Error> {
        let mut asked = Settlements::new();
        for (token, settlement) in settlements.iter() {
            let below = self.below(token);
            match settlement {
                Settlement::HandBack { after } => {
                    let after = if self.is(Mutant::IgnoresDelays) { Duration::ZERO } else { after };
                    asked.hand_back(below, after);
                }
                Settlement::Verdicts(verdicts) => {
                    let ids = self.messages_of(below);
                    let verdicts = verdicts.iter().enumerate();
                    let of = |place: usize| {
                        ids.get(place).copied().filter(|_| ids.len() == 1 || place < ids.len())
                    };
                    asked.verdicts(
                        below,
                        verdicts.map(|(place, verdict)| self.translated(verdict, of(place))),
                    );
                }
            }
        }
        let mut answers = self.inner.settle(&asked).await?;
        if self.is(Mutant::RetriesBehindKey) {
            self.retry_behind_key(settlements);
        }
        for answer in &mut answers {
            answer.outcome = match (self.mutant, answer.outcome) {
                (Mutant::SaysApplied, Outcome::Fenced) => Outcome::Applied,
                (Mutant::SaysAlreadyApplied, Outcome::Fenced) => Outcome::AlreadyApplied,
                (Mutant::FencesSettlements, Outcome::Applied) => Outcome::Fenced,
                (_, outcome) => outcome,
            };
        }
        Ok(answers)
    }

    fn wakeup(&self) -> Option<&dyn Wakeup> {
        Some(self)
    }

    fn admin(&self) -> Option<&dyn Admin> {
        self.inner.admin()
    }
}

impl Wakeup for Broken {
    fn subscribe(&self) -> Box<dyn Hints> {
        if self.is(Mutant::NeverStopsHinting) { Box::new(Storm) } else { self.inner.subscribe() }
    }
}

struct Storm;

impl Hints for Storm {
    fn hinted(&mut self) -> BoxFuture<'_, ()> {
        let mut has_yielded = false;
        Box::pin(std::future::poll_fn(move |context| {
            if std::mem::replace(&mut has_yielded, true) {
                return Poll::Ready(());
            }
            context.waker().wake_by_ref();
            Poll::Pending
        }))
    }
}

/// A relay with a bad habit: what stands between it and its storage plays it.
struct BadRelay<S> {
    inner: S,
    mutant: Mutant,
}

impl<S: Storage> Storage for BadRelay<S> {
    fn guarantees(&self) -> StorageGuarantees {
        self.inner.guarantees()
    }

    async fn claim(&self, claim: Claim) -> Result<Claimed, Error> {
        let claimed = self.inner.claim(claim).await?;
        if self.mutant == Mutant::RelaySettlesTooEarly {
            let mut settlements = Settlements::new();
            for run in &claimed.runs {
                settlements.verdicts(run.token, (0..run.len).map(|_| Verdict::Published));
            }
            self.inner.settle(&settlements).await?;
        }
        Ok(claimed)
    }

    async fn renew(&self, tokens: &[Token], lease: Duration) -> Result<Vec<Renewed>, Error> {
        self.inner.renew(tokens, lease).await
    }

    async fn settle(&self, settlements: &Settlements) -> Result<Vec<Settled>, Error> {
        let buries = |settlement| match settlement {
            Settlement::Verdicts(verdicts) => {
                verdicts.iter().any(|verdict| matches!(verdict, Verdict::Bury { .. }))
            }
            Settlement::HandBack { .. } => false,
        };
        match self.mutant {
            Mutant::RelayStopsAtBurials if settlements.iter().any(|(_, settlement)| buries(settlement)) => {
                return std::future::pending().await;
            }
            Mutant::RelayReportsSuccess => {}
            _ => return self.inner.settle(settlements).await,
        }
        let mut reported = Settlements::new();
        for (token, settlement) in settlements.iter() {
            match settlement {
                Settlement::HandBack { after } => reported.hand_back(token, after),
                Settlement::Verdicts(verdicts) => {
                    reported.verdicts(token, verdicts.iter().map(|_| Verdict::Published));
                }
            }
        }
        self.inner.settle(&reported).await
    }

    fn wakeup(&self) -> Option<&dyn Wakeup> {
        self.inner.wakeup()
    }

    fn admin(&self) -> Option<&dyn Admin> {
        self.inner.admin()
    }
}

/// A transport that breaks a promise.
struct BadTransport<T> {
    inner: T,
    mutant: Mutant,
}

impl<T: Transport> Transport for BadTransport<T> {
    async fn publish(&self, batch: &[Message], outcomes: &mut Outcomes) {
        let mut apart = Outcomes::new();
        apart.reset(batch.len());
        match self.mutant {
            Mutant::SendsTwice => {
                self.inner.publish(batch, &mut apart).await;
                self.inner.publish(batch, outcomes).await;
            }
            Mutant::ConfirmsNothing => outcomes.fill(|| Ok(())),
            Mutant::TurnsBatchesAround => {
                let turned: Vec<Message> = batch.iter().rev().cloned().collect();
                self.inner.publish(&turned, &mut apart).await;
                for place in 0..batch.len() {
                    if let Some(outcome) = apart.take(batch.len() - 1 - place) {
                        outcomes.set(place, outcome);
                    }
                }
            }
            Mutant::ConfirmsAll => {
                self.inner.publish(batch, &mut apart).await;
                let first = matches!(apart.outcome(0), Some(Ok(())));
                for place in 0..batch.len() {
                    match apart.take(place) {
                        _ if first => outcomes.set(place, Ok(())),
                        Some(outcome) => outcomes.set(place, outcome),
                        None => {}
                    }
                }
            }
            _ => self.inner.publish(batch, outcomes).await,
        }
    }

    async fn probe(&self, destination: Destination) -> Result<(), Error> {
        self.inner.probe(destination).await
    }

    fn destination(&self, message: &Message) -> Destination {
        self.inner.destination(message)
    }

    fn destinations(&self) -> Vec<Destination> {
        self.inner.destinations()
    }

    fn guarantees(&self, destination: Destination) -> TransportGuarantees {
        self.inner.guarantees(destination)
    }
}
