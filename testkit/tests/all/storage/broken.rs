use futures_util::FutureExt as _;
use pillarbox_core::{
    Admin, Affected, BoxFuture, Claim, Claimed, Content, Entry, Error, ErrorKind, Filter, Hints, Listing,
    MessageId, Nonce, Outcome, Page, Renewed, Settled, Settlement, Settlements, Stats, Storage,
    StorageGuarantees, Stored, Text, Timestamp, Token, Verdict, Wakeup,
};
use pillarbox_memory::MemoryStorage;
use std::collections::HashMap;
use std::sync::{Arc, Mutex};
use std::task::Poll;
use std::time::Duration;

/// The promise that is broken.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Fault {
    None,
    HandsOutTwice,
    ChoosesThenTakes,
    ClaimsNothing,
    TakesOutThenPutsBack,
    NeverCountsCrashes,
    StopsAtTheUndecodable,
    ReadsTheUndecodableAsNothing,
    FailsAt8000Due,
    VanishesTheDead,
    PurgesTheLiving,
    DiscardsTheLiving,
    RedrivesNothing,
    ListsOnePage,
    NeverHints,
    OverfillsTheLimit,
    RepeatsNothing,
    TellsNoNextDue,
    HandsOutSuspects,
    HidesSuspects,
    HandsOutHealthyOnesToSolo,
    ForgetsAttempts,
    ChargesReleases,
    ChargesHandBacks,
    LosesReleased,
    IgnoresDelays,
    DoublesDelays,
    AppliesNothing,
    SaysApplied,
    ComparesNoNonce,
    FailsOnStale,
    FencesExpired,
    RenewsNothing,
    ShortensRenewals,
    SwapsAnswers,
    DropsAnAnswer,
    TurnsRunsAround,
    SettlesEverything,
    CommitsRollbacks,
    CommitsEarly,
    LosesTheLast,
    DropsHeaders,
    IgnoresSchedules,
    RefusesRepeatedIds,
}

/// A storage that keeps every promise but one.
#[derive(Clone, Debug)]
pub(crate) struct Broken {
    inner: MemoryStorage,
    fault: Fault,
    memory: Arc<Mutex<Memory>>,
}

#[derive(Debug, Default)]
struct Memory {
    last: Claimed,
    chosen: Option<Claimed>,
    drawn: u64,
    /// The true token of each that was handed out, with its length and the end of its lease.
    given: HashMap<Token, (Token, u32, Timestamp)>,
}

impl Broken {
    pub(crate) fn new(inner: MemoryStorage, fault: Fault) -> Self {
        Self { inner, fault, memory: Arc::default() }
    }

    /// The token that the storage below knows.
    fn true_token(&self, token: Token) -> Token {
        let memory = self.memory.lock().unwrap();
        if self.fault == Fault::ComparesNoNonce {
            let same = |given: &&Token| (given.unit, given.fence) == (token.unit, token.fence);
            return memory.given.keys().find(same).copied().unwrap_or(token);
        }
        memory.given.get(&token).map_or(token, |given| given.0)
    }

    /// In two steps: whoever chooses while another one has chosen and not taken yet takes the same.
    async fn choose_then_take(&self, claim: Claim) -> Result<Claimed, Error> {
        let chosen = self.memory.lock().unwrap().chosen.clone();
        if let Some(mut chosen) = chosen.filter(|_| claim.limit > 0) {
            chosen.runs.iter_mut().for_each(|run| run.token.nonce = claim.nonce);
            return Ok(chosen);
        }
        let claimed = self.inner.claim(claim).await?;
        if claimed.runs.is_empty() {
            return Ok(claimed);
        }
        {
            let mut memory = self.memory.lock().unwrap();
            for run in &claimed.runs {
                memory.given.insert(run.token, (run.token, run.len, run.lease_until));
            }
            memory.chosen = Some(claimed.clone());
        }
        moment().await;
        self.memory.lock().unwrap().chosen = None;
        Ok(claimed)
    }

    fn is_expired(&self, token: Token) -> bool {
        let memory = self.memory.lock().unwrap();
        memory.given.get(&token).is_some_and(|given| given.2 <= self.inner.clock().now())
    }

    fn verdict(&self, verdict: &Verdict) -> Verdict {
        let error = Text::from_static("charged");
        match (self.fault, verdict.clone()) {
            (Fault::ChargesReleases, Verdict::Release { after }) => Verdict::Retry { after, error },
            (Fault::LosesReleased, Verdict::Release { .. }) => Verdict::Published,
            (Fault::IgnoresDelays, Verdict::Retry { error, .. }) => {
                Verdict::Retry { after: Duration::ZERO, error }
            }
            (Fault::IgnoresDelays, Verdict::Release { .. }) => Verdict::Release { after: Duration::ZERO },
            (Fault::DoublesDelays, Verdict::Retry { after, error }) => {
                Verdict::Retry { after: after * 2, error }
            }
            (Fault::VanishesTheDead, Verdict::Bury { .. }) => Verdict::Published,
            (_, same) => same,
        }
    }

    /// Removes what waits for a relay.
    async fn destroy_the_living(&self) -> Result<(), Error> {
        let nonce = Nonce::from_words(u64::MAX, u64::MAX);
        let claimed =
            self.inner.claim(Claim { limit: 10, lease: Duration::from_secs(1), nonce, solo: false }).await?;
        let tokens = claimed.runs.iter().map(|run| (run.token, run.len)).collect();
        drop(TakenOut { storage: &self.inner, tokens });
        Ok(())
    }

    fn translated(&self, settlements: &Settlements) -> Settlements {
        let mut call = Settlements::new();
        for (token, settlement) in settlements.iter() {
            let inner = self.true_token(token);
            let len = self.memory.lock().unwrap().given.get(&token).map_or(0, |given| given.1);
            match settlement {
                Settlement::Verdicts(verdicts) if self.fault == Fault::TurnsRunsAround => {
                    call.verdicts(inner, verdicts.iter().rev().cloned());
                }
                Settlement::Verdicts(verdicts) => {
                    call.verdicts(inner, verdicts.iter().map(|verdict| self.verdict(verdict)));
                }
                Settlement::HandBack { after } if self.fault == Fault::ChargesHandBacks => {
                    let error = Text::from_static("charged");
                    let rest = vec![Verdict::Release { after }; len.saturating_sub(1) as usize];
                    call.verdicts(inner, std::iter::once(Verdict::Retry { after, error }).chain(rest));
                }
                Settlement::HandBack { after } => call.hand_back(inner, after),
            }
        }
        call
    }
}

impl Storage for Broken {
    fn guarantees(&self) -> StorageGuarantees {
        self.inner.guarantees()
    }

    async fn claim(&self, claim: Claim) -> Result<Claimed, Error> {
        match self.fault {
            Fault::ChoosesThenTakes => return self.choose_then_take(claim).await,
            Fault::ClaimsNothing => {
                let nothing = self.inner.claim(Claim { limit: 0, ..claim }).await?;
                return Ok(Claimed { next_due: None, ..nothing });
            }
            Fault::FailsAt8000Due if self.inner.stats().await?.pending > 8_000 => {
                return Err(Error::new(ErrorKind::Unexpected, "claim").describe("too many results to unpack"));
            }
            _ => {}
        }
        let mut asked = claim;
        match self.fault {
            Fault::RepeatsNothing => {
                let mut memory = self.memory.lock().unwrap();
                memory.drawn += 1;
                asked.nonce = Nonce::from_words(u64::MAX, memory.drawn);
            }
            Fault::OverfillsTheLimit if claim.limit > 0 => asked.limit += 1,
            Fault::HandsOutHealthyOnesToSolo => asked.solo = false,
            _ => {}
        }
        let mut claimed = self.inner.claim(asked).await?;
        if self.fault == Fault::HandsOutSuspects && claimed.runs.is_empty() && claim.limit > 0 {
            claimed = self.inner.claim(Claim { solo: true, ..asked }).await?;
        }
        let is_bad = |entry: &Entry| matches!(entry.content, Content::Undecodable(_));
        match self.fault {
            Fault::StopsAtTheUndecodable if claimed.entries.iter().any(is_bad) => {
                return Err(Error::new(ErrorKind::Unexpected, "claim").describe("a record has no length"));
            }
            Fault::ReadsTheUndecodableAsNothing if claimed.entries.iter().any(is_bad) => {
                claimed.runs.clear();
                claimed.entries.clear();
            }
            Fault::TakesOutThenPutsBack => {
                let mut taken_out = TakenOut { storage: &self.inner, tokens: Vec::new() };
                taken_out.tokens.extend(claimed.runs.iter().map(|run| (run.token, run.len)));
                moment().await;
                taken_out.tokens.clear();
            }
            _ => {}
        }
        let mut memory = self.memory.lock().unwrap();
        for run in &mut claimed.runs {
            let inner = run.token;
            run.token.nonce = claim.nonce;
            memory.given.insert(run.token, (inner, run.len, run.lease_until));
        }
        match self.fault {
            Fault::HandsOutTwice if claimed.runs.is_empty() && claim.limit > 0 => {
                let mut again = memory.last.clone();
                again.now = claimed.now;
                again.runs.iter_mut().for_each(|run| run.token.nonce = claim.nonce);
                return Ok(again);
            }
            Fault::TellsNoNextDue => claimed.next_due = None,
            Fault::HidesSuspects => claimed.suspects = 0,
            Fault::ForgetsAttempts => claimed.entries.iter_mut().for_each(|entry| entry.attempts = 0),
            Fault::TurnsRunsAround => {
                for run in &claimed.runs {
                    claimed.entries[run.start as usize..][..run.len as usize].reverse();
                }
            }
            _ => {}
        }
        if !claimed.runs.is_empty() {
            memory.last = claimed.clone();
        }
        Ok(claimed)
    }

    async fn renew(&self, tokens: &[Token], lease: Duration) -> Result<Vec<Renewed>, Error> {
        let now = self.inner.clock().now();
        if self.fault == Fault::RenewsNothing {
            let renewed = Renewed { outcome: Outcome::Applied, at: now, lease_until: Some(now.after(lease)) };
            return Ok(vec![renewed; tokens.len()]);
        }
        let inner: Vec<_> = tokens.iter().map(|token| self.true_token(*token)).collect();
        let mut answers = self.inner.renew(&inner, lease).await?;
        for (token, answer) in tokens.iter().zip(&mut answers) {
            match self.fault {
                Fault::FencesExpired if self.is_expired(*token) => {
                    *answer = Renewed { outcome: Outcome::Fenced, at: now, lease_until: None };
                }
                Fault::ShortensRenewals => answer.lease_until = Some(now.after(lease)),
                _ => {}
            }
        }
        Ok(answers)
    }

    async fn settle(&self, settlements: &Settlements) -> Result<Vec<Settled>, Error> {
        let now = self.inner.clock().now();
        let applied = Settled { outcome: Outcome::Applied, at: now };
        if self.fault == Fault::AppliesNothing {
            return Ok(vec![applied; settlements.len()]);
        }
        if self.fault == Fault::FencesExpired && settlements.iter().all(|(token, _)| self.is_expired(token)) {
            return Ok(vec![Settled { outcome: Outcome::Fenced, at: now }; settlements.len()]);
        }
        let mut answers = self.inner.settle(&self.translated(settlements)).await?;
        match self.fault {
            Fault::SaysApplied => answers.iter_mut().for_each(|answer| answer.outcome = Outcome::Applied),
            Fault::FailsOnStale if answers.iter().any(|answer| answer.outcome == Outcome::Fenced) => {
                return Err(Error::new(ErrorKind::Unexpected, "settle").describe("a token is stale"));
            }
            Fault::SwapsAnswers if answers.len() > 1 => answers.swap(0, 1),
            Fault::DropsAnAnswer => drop(answers.pop()),
            Fault::SettlesEverything => {
                let others: Vec<_> = self.memory.lock().unwrap().given.values().copied().collect();
                for (token, len, _) in others {
                    let mut call = Settlements::new();
                    call.verdicts(token, vec![Verdict::Published; len as usize]);
                    self.inner.settle(&call).await?;
                }
            }
            _ => {}
        }
        Ok(answers)
    }

    fn wakeup(&self) -> Option<&dyn Wakeup> {
        Some(self)
    }

    fn admin(&self) -> Option<&dyn Admin> {
        Some(self)
    }
}

impl Admin for Broken {
    fn stats(&self) -> BoxFuture<'_, Result<Stats, Error>> {
        self.inner.stats()
    }

    fn list(&self, listing: Listing) -> BoxFuture<'_, Result<Page, Error>> {
        Box::pin(async move {
            let page = self.inner.list(listing).await?;
            let next = page.next.filter(|_| self.fault != Fault::ListsOnePage);
            Ok(Page { next, ..page })
        })
    }

    fn get(&self, id: MessageId) -> BoxFuture<'_, Result<Option<Stored>, Error>> {
        self.inner.get(id)
    }

    fn redrive(&self, filter: Filter, limit: u32, dry_run: bool) -> BoxFuture<'_, Result<Affected, Error>> {
        self.inner.redrive(filter, limit, dry_run || self.fault == Fault::RedrivesNothing)
    }

    fn discard(&self, filter: Filter, limit: u32, dry_run: bool) -> BoxFuture<'_, Result<Affected, Error>> {
        Box::pin(async move {
            if self.fault == Fault::DiscardsTheLiving && !dry_run {
                self.destroy_the_living().await?;
            }
            self.inner.discard(filter, limit, dry_run).await
        })
    }

    fn purge_published(&self, older_than: Duration, limit: u32) -> BoxFuture<'_, Result<u64, Error>> {
        Box::pin(async move {
            if self.fault == Fault::PurgesTheLiving {
                self.destroy_the_living().await?;
            }
            self.inner.purge_published(older_than, limit).await
        })
    }
}

impl Wakeup for Broken {
    fn subscribe(&self) -> Box<dyn Hints> {
        if self.fault == Fault::NeverHints { Box::new(Silence) } else { self.inner.subscribe() }
    }
}

/// Hints that never come.
struct Silence;

impl Hints for Silence {
    fn hinted(&mut self) -> BoxFuture<'_, ()> {
        Box::pin(std::future::pending())
    }
}

/// What a claim has taken out of the store and not written anywhere else yet: lost if the claim ends here.
struct TakenOut<'a> {
    storage: &'a MemoryStorage,
    tokens: Vec<(Token, u32)>,
}

impl Drop for TakenOut<'_> {
    fn drop(&mut self) {
        let mut call = Settlements::new();
        for (token, len) in self.tokens.drain(..) {
            call.verdicts(token, vec![Verdict::Published; len as usize]);
        }
        // The memory answers at once.
        let _ = self.storage.settle(&call).now_or_never();
    }
}

/// One await.
async fn moment() {
    let mut has_waited = false;
    std::future::poll_fn(|context| {
        context.waker().wake_by_ref();
        if std::mem::replace(&mut has_waited, true) { Poll::Ready(()) } else { Poll::Pending }
    })
    .await;
}
