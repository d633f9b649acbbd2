use super::{BATCH, BoxError};
use crate::clock::Clock;
use pillarbox_core::{
    Admin, Claim, Claimed, Content, Entry, Error, HeadPolicy, Message, Order, Outcome, Relay, RelayConfig,
    Renewed, RepeatedIds, Run, Settled, Settlement, Settlements, Storage, StorageGuarantees, Timestamp,
    Token, Transport, Verdict, Wakeup,
};
use std::future::poll_fn;
use std::sync::atomic::{AtomicU32, Ordering};
use std::task::Poll;
use std::time::Duration;

/// A storage that does nothing: it hands out messages that it holds already, one run for each claim, until all have been handed out,
/// and takes the word that they are published.
#[derive(Debug)]
pub struct Supply {
    messages: Vec<Message>,
    claimed: AtomicU32,
    settled: AtomicU32,
    failed: AtomicU32,
}

impl Supply {
    /// Of these messages.
    ///
    /// # Errors
    /// More than 4,294,967,295 of them.
    pub fn new(messages: Vec<Message>) -> Result<Self, BoxError> {
        u32::try_from(messages.len())?;
        let none = || AtomicU32::new(0);
        Ok(Self { messages, claimed: none(), settled: none(), failed: none() })
    }

    /// Relays all of them, with the relay's default settings but for the size of a batch.
    ///
    /// # Errors
    /// As [`Relay::run`], and if a message was not confirmed.
    pub async fn relay(&self, transport: impl Transport) -> Result<(), BoxError> {
        let batch = u32::try_from(BATCH)?;
        let relay = Relay::new(self, transport, RelayConfig::default().batch_size(batch))?;
        // The relay asks for it in every turn.
        let drained = poll_fn(|_| {
            let failed = self.failed.load(Ordering::Relaxed) > 0;
            let drained = self.settled.load(Ordering::Relaxed) >= self.count();
            if failed || drained { Poll::Ready(()) } else { Poll::Pending }
        });
        relay.timer(Clock::new()).run(drained).await?;
        match self.failed.load(Ordering::Relaxed) {
            0 => Ok(()),
            _ => Err("a message was not confirmed".into()),
        }
    }

    fn count(&self) -> u32 {
        u32::try_from(self.messages.len()).unwrap_or(u32::MAX)
    }
}

impl Storage for &Supply {
    fn guarantees(&self) -> StorageGuarantees {
        StorageGuarantees {
            order: Order::CommitOrdered,
            repeated_ids: RepeatedIds::SecondCopy,
            head_policy: HeadPolicy::Continue,
            max_strikes: 3,
            max_run: u32::MAX,
        }
    }

    async fn claim(&self, claim: Claim) -> Result<Claimed, Error> {
        let first = self.claimed.load(Ordering::Relaxed);
        let count = claim.limit.min(self.count() - first);
        self.claimed.store(first + count, Ordering::Relaxed);
        if count == 0 {
            return Ok(Claimed::default());
        }
        let messages = &self.messages[first as usize..][..count as usize];
        let entry =
            |message: &Message| Entry { content: Content::Message(message.clone()), attempts: 0, strikes: 0 };
        let run = Run {
            token: Token { unit: u64::from(first), fence: 1, nonce: claim.nonce },
            claimed_at: Timestamp::EPOCH,
            lease_until: Timestamp::EPOCH.after(claim.lease),
            start: 0,
            len: count,
        };
        Ok(Claimed { runs: vec![run], entries: messages.iter().map(entry).collect(), ..Claimed::default() })
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
                    self.settled.fetch_add(count, Ordering::Relaxed);
                }
                // Nothing is handed out again.
                _ => {
                    self.failed.fetch_add(1, Ordering::Relaxed);
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
