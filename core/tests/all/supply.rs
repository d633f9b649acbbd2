//! A storage that always has work and a transport that always confirms: what is measured over them is the relay alone.

use pillarbox_core::{
    Admin, Claim, Claimed, Content, Destination, Entry, Error, HeadPolicy, Message, MessageId, Moment, Order,
    Outcome, Outcomes, Renewed, RepeatedIds, Run, Settled, Settlement, Settlements, Storage,
    StorageGuarantees, Text, Timer, Timestamp, Token, Transport, TransportGuarantees, Wakeup,
};
use std::future::Future;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

/// Hands out messages in runs of one length until so many have been handed out.
#[derive(Debug)]
pub(crate) struct Supply {
    pub(crate) run_length: u32,
    pub(crate) total: u64,
    pub(crate) keyed: bool,
    claimed: AtomicU64,
    settled: AtomicU64,
}

impl Supply {
    pub(crate) fn new(total: u64, run_length: u32, keyed: bool) -> Self {
        Self { run_length, total, keyed, claimed: AtomicU64::new(0), settled: AtomicU64::new(0) }
    }

    pub(crate) fn settled(&self) -> u64 {
        self.settled.load(Ordering::Relaxed)
    }

    /// Completes once everything is settled; looks whenever the relay is polled.
    pub(crate) fn drained(&self) -> impl Future<Output = ()> + Send + '_ {
        std::future::poll_fn(|_| {
            if self.settled() >= self.total { std::task::Poll::Ready(()) } else { std::task::Poll::Pending }
        })
    }
}

fn message(number: u64, keyed: bool) -> Message {
    const KEYS: [&str; 4] = ["order-1", "order-2", "order-3", "order-4"];
    let mut id = [0; 16];
    id[8..].copy_from_slice(&number.to_be_bytes());
    let builder =
        Message::given(MessageId::from_bytes(id), Timestamp::EPOCH, Text::from_static("orders.created"));
    let builder = if keyed { builder.key(Text::from_static(KEYS[(number % 4) as usize])) } else { builder };
    builder.payload(&b"payload"[..]).unwrap()
}

impl Storage for &Supply {
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
        let count = u64::from(claim.limit).min(self.total - first);
        self.claimed.store(first + count, Ordering::Relaxed);
        let entries: Vec<_> = (first..first + count)
            .map(|number| Entry {
                content: Content::Message(message(number, self.keyed)),
                attempts: 0,
                strikes: 0,
            })
            .collect();
        let count = u32::try_from(count).unwrap();
        let mut runs = Vec::with_capacity(count.div_ceil(self.run_length) as usize);
        for start in (0..count).step_by(self.run_length as usize) {
            runs.push(Run {
                token: Token { unit: first + u64::from(start), fence: 1, nonce: claim.nonce },
                claimed_at: Timestamp::EPOCH,
                lease_until: Timestamp::EPOCH.after(claim.lease),
                start,
                len: self.run_length.min(count - start),
            });
        }
        Ok(Claimed { runs, entries, ..Claimed::default() })
    }

    async fn renew(&self, tokens: &[Token], _: Duration) -> Result<Vec<Renewed>, Error> {
        let renewed = Renewed { outcome: Outcome::Applied, at: Timestamp::EPOCH, lease_until: None };
        Ok(vec![renewed; tokens.len()])
    }

    async fn settle(&self, settlements: &Settlements) -> Result<Vec<Settled>, Error> {
        for (_, settlement) in settlements.iter() {
            if let Settlement::Verdicts(verdicts) = settlement {
                self.settled.fetch_add(verdicts.len() as u64, Ordering::Relaxed);
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

/// Confirms everything at once.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Sink {
    pub(crate) prefix_per_key: bool,
}

impl Transport for Sink {
    async fn publish(&self, _: &[Message], outcomes: &mut Outcomes) {
        outcomes.fill(|| Ok(()));
    }

    async fn probe(&self, _: Destination) -> Result<(), Error> {
        Ok(())
    }

    fn guarantees(&self, _: Destination) -> TransportGuarantees {
        TransportGuarantees {
            deduplicates: false,
            max_payload: u32::MAX,
            prefix_per_key: self.prefix_per_key,
        }
    }
}

/// A clock that stands still.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Still;

impl Timer for Still {
    fn now(&self) -> Moment {
        Moment::ORIGIN
    }

    fn sleep_until(&self, _: Moment) -> impl Future<Output = ()> + Send {
        std::future::pending()
    }
}

/// A clock that jumps to whatever is waited for next, so that nothing is ever waited for.
#[derive(Debug, Default)]
pub(crate) struct Jumping(AtomicU64);

impl Timer for Jumping {
    fn now(&self) -> Moment {
        Moment::from_nanos(self.0.load(Ordering::Relaxed))
    }

    async fn sleep_until(&self, moment: Moment) {
        let before = self.0.fetch_max(moment.as_nanos(), Ordering::Relaxed);
        assert!(before < HOUR, "the relay still waits after an hour");
    }
}

const HOUR: u64 = 3_600_000_000_000;
