use super::{ClaimSeen, EntrySeen, Event, Recorder, SettlementSeen, VerdictSeen};
use pillarbox_core::{
    Admin, Claim, Claimed, Content, Error, Renewed, Settled, Settlement, Settlements, Storage,
    StorageGuarantees, Token, Verdict, Wakeup,
};
use std::time::Duration;

/// A storage whose answers are written down.
#[derive(Clone, Debug)]
pub struct RecordedStorage<S> {
    inner: S,
    recorder: Recorder,
}

impl<S> RecordedStorage<S> {
    /// `inner`, with its answers in the history of `recorder`.
    pub const fn new(inner: S, recorder: Recorder) -> Self {
        Self { inner, recorder }
    }
}

impl<S: Storage> Storage for RecordedStorage<S> {
    fn guarantees(&self) -> StorageGuarantees {
        self.inner.guarantees()
    }

    async fn claim(&self, claim: Claim) -> Result<Claimed, Error> {
        let began = self.recorder.length();
        let open = Open { recorder: &self.recorder, began, tokens: Some(Vec::new()) };
        let result = self.inner.claim(claim).await;
        open.answered(result.is_err());
        if let Ok(claimed) = &result {
            let entries = claimed.entries.iter().map(|entry| EntrySeen {
                message: match &entry.content {
                    Content::Message(message) => self.recorder.number(message.id()),
                    Content::Undecodable(_) => None,
                },
                attempts: entry.attempts,
                strikes: entry.strikes,
            });
            self.recorder.note(Event::Claimed(Box::new(ClaimSeen {
                began,
                claim,
                now: claimed.now,
                runs: claimed.runs.clone(),
                entries: entries.collect(),
                buried: claimed.buried,
            })));
        }
        result
    }

    async fn renew(&self, tokens: &[Token], lease: Duration) -> Result<Vec<Renewed>, Error> {
        let began = self.recorder.length();
        let open = Open { recorder: &self.recorder, began, tokens: Some(tokens.to_vec()) };
        let result = self.inner.renew(tokens, lease).await;
        open.answered(result.is_err());
        if let Ok(answers) = &result {
            let answers = tokens.iter().copied().zip(answers.iter().copied()).collect();
            self.recorder.note(Event::Renewed { began, lease, answers });
        }
        result
    }

    async fn settle(&self, settlements: &Settlements) -> Result<Vec<Settled>, Error> {
        let began = self.recorder.length();
        let tokens = settlements.iter().map(|(token, _)| token).collect();
        let open = Open { recorder: &self.recorder, began, tokens: Some(tokens) };
        let result = self.inner.settle(settlements).await;
        open.answered(result.is_err());
        if let Ok(answers) = &result {
            let answers = settlements.iter().zip(answers);
            let answers = answers.map(|((token, settlement), answer)| (token, seen(settlement), *answer));
            self.recorder.note(Event::Settled { began, answers: answers.collect() });
        }
        result
    }

    fn wakeup(&self) -> Option<&dyn Wakeup> {
        self.inner.wakeup()
    }

    fn admin(&self) -> Option<&dyn Admin> {
        self.inner.admin()
    }
}

/// A call that is inside the store. One that never comes out leaves its runs in doubt.
struct Open<'a> {
    recorder: &'a Recorder,
    began: u32,
    tokens: Option<Vec<Token>>,
}

impl Open<'_> {
    /// An error of the store itself says nothing of the effect either.
    fn answered(mut self, failed: bool) {
        if !failed {
            self.tokens = None;
        }
    }
}

impl Drop for Open<'_> {
    fn drop(&mut self) {
        if let Some(tokens) = self.tokens.take() {
            self.recorder.note(Event::Abandoned { began: self.began, tokens });
        }
    }
}

fn seen(settlement: Settlement<'_>) -> SettlementSeen {
    match settlement {
        Settlement::HandBack { after } => SettlementSeen::HandBack(after),
        Settlement::Verdicts(verdicts) => {
            let verdicts = verdicts.iter().map(|verdict| match verdict {
                Verdict::Published => VerdictSeen::Published,
                Verdict::Retry { after, .. } => VerdictSeen::Retry(*after),
                Verdict::Release { after } => VerdictSeen::Release(*after),
                Verdict::Bury { .. } => VerdictSeen::Bury,
            });
            SettlementSeen::Verdicts(verdicts.collect())
        }
    }
}
