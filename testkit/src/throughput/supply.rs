use super::{BATCH, BoxError};
use crate::clock::Clock;
use pillarbox_core::{
    Admin, Claim, Claimed, Content, Entry, Error, HeadPolicy, Message, Order, Outcome, Relay, RelayConfig,
    Renewed, RepeatedIds, Run, Settled, Settlement, Settlements, Storage, StorageGuarantees, Timer,
    Timestamp, Token, Transport, Verdict, Wakeup,
};
use std::future::poll_fn;
use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::task::Poll;
use std::time::Duration;
use std::vec;

/// A storage that does nothing: it hands out messages that it holds already, each once and without a copy, until all have been
/// handed out, and takes the word that they are published.
#[derive(Clone, Debug)]
pub struct Supply {
    shared: Arc<Shared>,
    run_length: u32,
}

#[derive(Debug)]
struct Shared {
    messages: Mutex<vec::IntoIter<Message>>,
    count: u32,
    runs: AtomicU32,
    settled: AtomicU32,
    failed: AtomicU32,
}

impl Supply {
    /// Of these messages, in one run for each claim.
    ///
    /// # Errors
    /// More than 4,294,967,295 of them.
    pub fn new(messages: Vec<Message>) -> Result<Self, BoxError> {
        let none = || AtomicU32::new(0);
        let count = u32::try_from(messages.len())?;
        let messages = Mutex::new(messages.into_iter());
        let shared = Shared { messages, count, runs: none(), settled: none(), failed: none() };
        Ok(Self { shared: Arc::new(shared), run_length: u32::MAX })
    }

    /// In runs of so many messages; 0 is taken as 1.
    #[must_use]
    pub fn runs_of(self, messages: u32) -> Self {
        Self { run_length: messages.max(1), ..self }
    }

    /// Relays all of them, with the relay's default settings but for the size of a batch.
    ///
    /// # Errors
    /// As [`Relay::run`], and if a message was not confirmed.
    pub async fn relay(&self, transport: impl Transport) -> Result<(), BoxError> {
        self.relay_from(self.clone(), transport, Clock::new()).await
    }

    /// As [`relay`](Self::relay), with a timer that is given, and from `storage`: a wrapper of this one.
    ///
    /// # Errors
    /// As `relay`.
    pub async fn relay_from(
        &self,
        storage: impl Storage,
        transport: impl Transport,
        timer: impl Timer,
    ) -> Result<(), BoxError> {
        let batch = u32::try_from(BATCH)?;
        let relay = Relay::new(storage, transport, RelayConfig::default().batch_size(batch))?;
        // The relay asks for it in every turn.
        let drained = poll_fn(|_| {
            let failed = self.shared.failed.load(Ordering::Relaxed) > 0;
            let drained = self.shared.settled.load(Ordering::Relaxed) >= self.shared.count;
            if failed || drained { Poll::Ready(()) } else { Poll::Pending }
        });
        relay.timer(timer).run(drained).await?;
        match self.shared.failed.load(Ordering::Relaxed) {
            0 => Ok(()),
            _ => Err("a message was not confirmed".into()),
        }
    }
}

impl Storage for Supply {
    fn guarantees(&self) -> StorageGuarantees {
        StorageGuarantees {
            order: Order::CommitOrdered,
            repeated_ids: RepeatedIds::SecondCopy,
            head_policy: HeadPolicy::Continue,
            max_strikes: 3,
            max_run: self.run_length,
        }
    }

    async fn claim(&self, claim: Claim) -> Result<Claimed, Error> {
        let entry = |message| Entry { content: Content::Message(message), attempts: 0, strikes: 0 };
        let mut messages = self.shared.messages.lock().unwrap_or_else(PoisonError::into_inner);
        let entries: Vec<Entry> = messages.by_ref().take(claim.limit as usize).map(entry).collect();
        let count = u32::try_from(entries.len()).unwrap_or(u32::MAX);
        let run = |start: u32| Run {
            token: Token {
                unit: u64::from(self.shared.runs.fetch_add(1, Ordering::Relaxed)),
                fence: 1,
                nonce: claim.nonce,
            },
            claimed_at: Timestamp::EPOCH,
            lease_until: Timestamp::EPOCH.after(claim.lease),
            start,
            len: self.run_length.min(count - start),
        };
        let runs = (0..count).step_by(self.run_length as usize).map(run).collect();
        Ok(Claimed { runs, entries, ..Claimed::default() })
    }

    async fn renew(&self, tokens: &[Token], _: Duration) -> Result<Vec<Renewed>, Error> {
        let renewed = Renewed { outcome: Outcome::Applied, at: Timestamp::EPOCH, lease_until: None };
        Ok(vec![renewed; tokens.len()])
    }

    async fn settle(&self, settlements: &Settlements) -> Result<Vec<Settled>, Error> {
        for (_, settlement) in settlements.iter() {
            let published = |verdict: &Verdict| matches!(verdict, Verdict::Published);
            match settlement {
                Settlement::Verdicts(verdicts) if verdicts.iter().all(published) => {
                    let count = u32::try_from(verdicts.len()).unwrap_or(u32::MAX);
                    self.shared.settled.fetch_add(count, Ordering::Relaxed);
                }
                // Nothing is handed out again.
                _ => {
                    self.shared.failed.fetch_add(1, Ordering::Relaxed);
                }
            }
        }
        Ok(vec![Settled { outcome: Outcome::Applied, at: Timestamp::EPOCH }; settlements.len()])
    }

    fn wakeup(&self) -> Option<&dyn Wakeup> {
        None
    }

    fn admin(&self) -> Option<&dyn Admin> {
        None
    }
}
