//! A store and a broker that do nothing, so that what is measured over them is the relay alone.

use crate::{BoxError, Keys};
use pillarbox_core::{
    Admin, Claim, Claimed, Content, Destination, Entry, Error, HeadPolicy, Message, Moment, Order, Outcome,
    Outcomes, Relay, RelayConfig, Renewed, RepeatedIds, Run, Settled, Settlements, Storage,
    StorageGuarantees, Timer, Timestamp, Token, Transport, TransportGuarantees, Wakeup,
};
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Duration;

/// Hands out messages that it holds already, in runs of one length, until all have been handed out; takes every verdict.
#[derive(Debug)]
pub struct Supply {
    messages: Vec<Message>,
    run_length: u32,
    claimed: AtomicU32,
    settled: AtomicU32,
}

impl Supply {
    /// `count` messages in runs of `run_length`.
    ///
    /// # Errors
    /// None that these messages can have.
    pub fn new(keys: Keys, count: u32, run_length: u32) -> Result<Self, BoxError> {
        let messages = (0..count).map(|number| keys.message(number)).collect::<Result<_, _>>()?;
        Ok(Self { messages, run_length, claimed: AtomicU32::new(0), settled: AtomicU32::new(0) })
    }

    /// How many messages it holds.
    pub fn count(&self) -> u32 {
        u32::try_from(self.messages.len()).unwrap_or(u32::MAX)
    }

    /// Begins anew.
    pub fn refill(&self) {
        self.claimed.store(0, Ordering::Relaxed);
        self.settled.store(0, Ordering::Relaxed);
    }

    /// Relays everything to `transport`, with claims of `batch`.
    ///
    /// # Errors
    /// As [`Relay::run`].
    pub async fn drain(
        &self,
        storage: impl Storage,
        transport: impl Transport,
        batch: u32,
        timer: impl Timer,
    ) -> Result<(), Error> {
        let relay = Relay::new(storage, transport, RelayConfig::default().batch_size(batch))?;
        let drained = std::future::poll_fn(|_| {
            let done = self.settled.load(Ordering::Relaxed) >= self.count();
            if done { std::task::Poll::Ready(()) } else { std::task::Poll::Pending }
        });
        relay.timer(timer).run(drained).await
    }
}

impl Storage for &'static Supply {
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
        let first = self.claimed.load(Ordering::Relaxed);
        let count = claim.limit.min(self.count() - first);
        self.claimed.store(first + count, Ordering::Relaxed);
        let handed_out = &self.messages[first as usize..][..count as usize];
        let entry =
            |message: &Message| Entry { content: Content::Message(message.clone()), attempts: 0, strikes: 0 };
        let runs = (0..count).step_by(self.run_length as usize).map(|start| Run {
            token: Token { unit: u64::from(first + start), fence: 1, nonce: claim.nonce },
            claimed_at: Timestamp::EPOCH,
            lease_until: Timestamp::EPOCH.after(claim.lease),
            start,
            len: self.run_length.min(count - start),
        });
        Ok(Claimed {
            runs: runs.collect(),
            entries: handed_out.iter().map(entry).collect(),
            ..Claimed::default()
        })
    }

    async fn renew(&self, tokens: &[Token], _: Duration) -> Result<Vec<Renewed>, Error> {
        let renewed = Renewed { outcome: Outcome::Applied, at: Timestamp::EPOCH, lease_until: None };
        Ok(vec![renewed; tokens.len()])
    }

    async fn settle(&self, settlements: &Settlements) -> Result<Vec<Settled>, Error> {
        for (token, _) in settlements.iter() {
            let start = u32::try_from(token.unit).unwrap_or(u32::MAX);
            let length = self.run_length.min(self.count() - start);
            self.settled.fetch_add(length, Ordering::Relaxed);
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

/// Confirms everything at once.
#[derive(Clone, Copy, Debug)]
pub struct Nowhere;

impl Transport for Nowhere {
    async fn publish(&self, _: &[Message], outcomes: &mut Outcomes) {
        outcomes.fill(|| Ok(()));
    }

    async fn probe(&self, _: Destination) -> Result<(), Error> {
        Ok(())
    }

    fn guarantees(&self, _: Destination) -> TransportGuarantees {
        TransportGuarantees { deduplicates: false, max_payload: u32::MAX, prefix_per_key: true }
    }
}

/// A time that stands still: for relays that never have to wait, where the system cannot tell the time, as under Valgrind.
#[derive(Clone, Copy, Debug)]
pub struct Still;

impl Timer for Still {
    fn now(&self) -> Moment {
        Moment::ORIGIN
    }

    async fn sleep_until(&self, _: Moment) {
        std::future::pending::<()>().await;
    }
}
