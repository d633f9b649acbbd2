//! What cases work with: an outbox, a handle and a producer, in few words.

use super::rule::{NO_LOSS, broken, ensure};
use super::{OutboxSettings, Producer as _, TestStore, Violation};
use pillarbox_core::{
    Claim, Claimed, Content, Entry, Message, MessageId, Nonce, Outcome, Run, Settled, Settlements, Storage,
    Text, Timestamp, Token, Verdict,
};
use std::cell::{Cell, RefCell};
use std::time::Duration;

/// Longer than any case takes, so that only an `advance` ends a lease.
pub(super) const LEASE: Duration = Duration::from_secs(600);
/// Past every lease.
pub(super) const PAST_LEASE: Duration = Duration::from_secs(601);

/// One outbox with a first handle and a producer.
pub(super) struct World<'a, S: TestStore> {
    pub(super) store: S,
    pub(super) storage: S::Storage,
    pub(super) producer: S::Producer,
    pub(super) settings: OutboxSettings,
    steps: &'a RefCell<Vec<String>>,
    drawn: Cell<u64>,
    made: Cell<u64>,
}

impl<'a, S: TestStore> World<'a, S> {
    pub(super) async fn open(
        store: S,
        steps: &'a RefCell<Vec<String>>,
        settings: OutboxSettings,
    ) -> Result<Self, Violation> {
        let storage = store.connect().await?;
        let producer = store.producer().await?;
        Ok(Self { store, storage, producer, settings, steps, drawn: Cell::new(0), made: Cell::new(0) })
    }

    pub(super) fn note(&self, step: String) {
        self.steps.borrow_mut().push(step);
    }

    /// A nonce that no other claim of this case has.
    pub(super) fn nonce(&self) -> Nonce {
        self.drawn.set(self.drawn.get() + 1);
        Nonce::from_words(0x7061_6e74_7279_0001, self.drawn.get())
    }

    /// A message that nobody has made before, with a key or without.
    pub(super) fn message(&self, key: Option<&str>) -> Message {
        self.message_due(key, None)
    }

    pub(super) fn message_due(&self, key: Option<&str>, deliver_at: Option<Timestamp>) -> Message {
        self.made.set(self.made.get() + 1);
        let number = self.made.get();
        let mut builder = Message::given(numbered(number), Timestamp::from_millis(1), "suite.topic");
        if let Some(key) = key {
            builder = builder.key(Text::from(key));
        }
        if let Some(time) = deliver_at {
            builder = builder.deliver_at(time);
        }
        // Topic, key and payload are well within the limits.
        builder.payload(format!("message {number}")).expect("a small message is valid")
    }

    pub(super) fn messages(&self, count: usize, key: Option<&str>) -> Vec<Message> {
        (0..count).map(|_| self.message(key)).collect()
    }

    /// Enqueues these in one transaction.
    pub(super) async fn enqueue(&self, messages: &[Message]) -> Result<(), Violation> {
        self.note(format!("enqueue {}", list(messages.iter().map(|message| name(message.id())))));
        Ok(self.producer.enqueue_alone(messages).await?)
    }

    pub(super) async fn advance(&self, by: Duration) -> Result<(), Violation> {
        self.note(format!("the clock moves on by {by:?}"));
        Ok(self.store.advance(by).await?)
    }

    pub(super) async fn connect(&self) -> Result<S::Storage, Violation> {
        Ok(self.store.connect().await?)
    }

    /// The store's time.
    pub(super) async fn now(&self) -> Result<Timestamp, Violation> {
        let nothing = Claim { limit: 0, lease: LEASE, nonce: self.nonce(), solo: false };
        Ok(self.storage.claim(nothing).await?.now)
    }

    pub(super) fn ask(&self, limit: u32) -> Claim {
        Claim { limit, lease: LEASE, nonce: self.nonce(), solo: false }
    }

    pub(super) fn ask_solo(&self) -> Claim {
        Claim { solo: true, ..self.ask(1) }
    }

    /// Claims with the first handle.
    pub(super) async fn claim(&self, limit: u32) -> Result<Claimed, Violation> {
        self.claim_by(&self.storage, self.ask(limit)).await
    }

    pub(super) async fn claim_solo(&self) -> Result<Claimed, Violation> {
        self.claim_by(&self.storage, self.ask_solo()).await
    }

    pub(super) async fn claim_by(&self, storage: &S::Storage, claim: Claim) -> Result<Claimed, Violation> {
        let claimed = storage.claim(claim).await?;
        self.note(describe(&claim, &claimed));
        well_formed(&claim, &claimed)?;
        Ok(claimed)
    }

    /// Claims again and again, as a relay with room does, until nothing more is handed out.
    pub(super) async fn claim_everything(&self, limit: u32) -> Result<Vec<Claimed>, Violation> {
        let mut all = Vec::new();
        for _ in 0..1_000 {
            let claimed = self.claim(limit).await?;
            if claimed.runs.is_empty() {
                return Ok(all);
            }
            all.push(claimed);
        }
        Err(broken(
            super::rule::ATOMIC_CLAIM,
            "what is held is not handed out again",
            "1,000 claims in a row handed something out",
        ))
    }

    pub(super) async fn settle(&self, settlements: &Settlements) -> Result<Vec<Settled>, Violation> {
        self.settle_by(&self.storage, settlements).await
    }

    pub(super) async fn settle_by(
        &self,
        storage: &S::Storage,
        settlements: &Settlements,
    ) -> Result<Vec<Settled>, Violation> {
        let answers = storage.settle(settlements).await?;
        for ((token, settlement), answer) in settlements.iter().zip(&answers) {
            self.note(format!("settle {token:?} as {settlement:?}: {:?} at {:?}", answer.outcome, answer.at));
        }
        Ok(answers)
    }

    /// Settles every run of a claim with one verdict for all of its messages.
    pub(super) async fn settle_all(
        &self,
        claimed: &Claimed,
        verdict: &Verdict,
    ) -> Result<Vec<Settled>, Violation> {
        self.settle(&settlements(claimed, |_| verdict.clone())).await
    }

    /// Settles one run and answers its outcome.
    pub(super) async fn settle_run(
        &self,
        storage: &S::Storage,
        token: Token,
        verdicts: Vec<Verdict>,
    ) -> Result<Settled, Violation> {
        let mut settlements = Settlements::new();
        settlements.verdicts(token, verdicts);
        one(self.settle_by(storage, &settlements).await?)
    }

    /// Another handle takes, by a solo claim if it must, what the claim held whose lease has run out.
    pub(super) async fn take_over(&self, storage: &S::Storage, held: &Claimed) -> Result<Claimed, Violation> {
        let wanted = claimed_ids([held]);
        for _ in 0..100 {
            let mut claimed = self.claim_by(storage, self.ask(100)).await?;
            if claimed.runs.is_empty() && claimed.suspects > 0 {
                claimed = self.claim_by(storage, self.ask_solo()).await?;
            }
            if claimed_ids([&claimed]).iter().any(|id| wanted.contains(id)) {
                return Ok(claimed);
            }
            if claimed.runs.is_empty() {
                break;
            }
        }
        Err(broken(
            super::rule::FENCING,
            format!("{} can be claimed once the lease has run out", list(wanted.iter().copied().map(name))),
            "claims until nothing was handed out had none of them",
        ))
    }

    /// Delivers everything there is, over every lease and due time, and answers the ids in order. What the store buries
    /// is not among them.
    pub(super) async fn drain(&self) -> Result<Vec<MessageId>, Violation> {
        let mut delivered = Vec::new();
        let mut idle = 0;
        for _ in 0..20_000 {
            let mut claimed = self.claim(100).await?;
            if claimed.runs.is_empty() && claimed.suspects > 0 {
                claimed = self.claim_solo().await?;
            }
            if !claimed.runs.is_empty() {
                idle = 0;
                delivered.extend(claimed.entries.iter().filter_map(id));
                for answer in self.settle(&settlements(&claimed, verdict_for)).await? {
                    ensure!(
                        answer.outcome == Outcome::Applied,
                        super::rule::FENCING,
                        "the settlement of a live claim is `Applied`",
                        "{:?}",
                        answer.outcome
                    );
                }
                continue;
            }
            match claimed.next_due {
                Some(due) if due > claimed.now => self.advance(due.since(claimed.now)).await?,
                Some(_) => {}
                None if idle == 2 => return Ok(delivered),
                None => {
                    idle += 1;
                    self.advance(PAST_LEASE).await?;
                }
            }
        }
        let count = delivered.len();
        Err(broken(
            NO_LOSS,
            "repeated claims drain the outbox",
            format!("after 20,000 claims there is still work to wait for; {count} messages were delivered"),
        ))
    }

    /// Drains, and wants exactly these delivered, each once, in any order.
    pub(super) async fn drains_exactly(&self, wanted: &[Message]) -> Result<(), Violation> {
        let mut delivered = self.drain().await?;
        let mut ids = ids(wanted);
        delivered.sort_unstable();
        ids.sort_unstable();
        ensure!(
            delivered == ids,
            NO_LOSS,
            format!("each of {} is delivered once", list(ids.iter().copied().map(name))),
            "{}",
            list(delivered.into_iter().map(name))
        );
        Ok(())
    }
}

/// A settlement of every run of a claim.
pub(super) fn settlements(claimed: &Claimed, verdict: impl Fn(&Entry) -> Verdict) -> Settlements {
    let mut settlements = Settlements::new();
    for run in &claimed.runs {
        settlements.verdicts(run.token, claimed.entries_of(run).iter().map(&verdict));
    }
    settlements
}

/// `Published`, or a burial for what is no message.
pub(super) fn verdict_for(entry: &Entry) -> Verdict {
    match &entry.content {
        Content::Message(_) => Verdict::Published,
        Content::Undecodable(undecodable) => Verdict::Bury { reason: undecodable.reason.clone() },
    }
}

pub(super) fn retry(after: Duration) -> Verdict {
    Verdict::Retry { after, error: Text::from_static("the broker said no") }
}

pub(super) fn bury() -> Verdict {
    Verdict::Bury { reason: Text::from_static("given up by the suite") }
}

pub(super) const fn release() -> Verdict {
    Verdict::Release { after: Duration::ZERO }
}

pub(super) fn holds(claimed: &Claimed, run: &Run, wanted: MessageId) -> bool {
    claimed.entries_of(run).iter().any(|entry| id(entry) == Some(wanted))
}

pub(super) fn id(entry: &Entry) -> Option<MessageId> {
    match &entry.content {
        Content::Message(message) => Some(message.id()),
        Content::Undecodable(undecodable) => undecodable.id,
    }
}

pub(super) fn ids(messages: &[Message]) -> Vec<MessageId> {
    messages.iter().map(Message::id).collect()
}

pub(super) fn claimed_ids<'a>(claims: impl IntoIterator<Item = &'a Claimed>) -> Vec<MessageId> {
    claims.into_iter().flat_map(|claimed| claimed.entries.iter().filter_map(id)).collect()
}

pub(super) fn tokens(claimed: &Claimed) -> Vec<Token> {
    claimed.runs.iter().map(|run| run.token).collect()
}

/// The single answer to a single question.
pub(super) fn one<T: std::fmt::Debug>(mut answers: Vec<T>) -> Result<T, Violation> {
    ensure!(answers.len() == 1, super::rule::ANSWERS, "one answer to one token", "{answers:?}");
    // Its length is one.
    Ok(answers.remove(0))
}

/// A readable name: `m7` for the seventh message of a case.
pub(super) fn name(id: MessageId) -> String {
    let bytes = id.to_bytes();
    match bytes[..8] == PREFIX {
        true => format!("m{}", bytes[9..].iter().fold(0_u64, |number, byte| number << 8 | u64::from(*byte))),
        false => id.to_string(),
    }
}

pub(super) fn list(names: impl Iterator<Item = String>) -> String {
    let names: Vec<_> = names.collect();
    match names.len() {
        0 => "nothing".to_owned(),
        1..=24 => names.join(" "),
        count => format!("{} … ({count} messages)", names[..24].join(" ")),
    }
}

/// The first half of a UUID of version 7.
const PREFIX: [u8; 8] = [0x01, 0x90, 0, 0, 0, 0, 0x70, 0];

fn numbered(number: u64) -> MessageId {
    let mut bytes = [0; 16];
    bytes[..8].copy_from_slice(&PREFIX);
    bytes[8..].copy_from_slice(&number.to_be_bytes());
    bytes[8] = 0x80;
    MessageId::from_bytes(bytes)
}

fn describe(claim: &Claim, claimed: &Claimed) -> String {
    use std::fmt::Write as _;
    let mut text =
        format!("claim {}{} at {:?}:", claim.limit, if claim.solo { " solo" } else { "" }, claimed.now);
    for run in &claimed.runs {
        let entries = claimed.entries_of(run).iter().map(|entry| match id(entry) {
            Some(id) => name(id),
            None => "undecodable".to_owned(),
        });
        // Writing to a `String` cannot fail.
        let _ = write!(text, " [{:?}: {}]", run.token, list(entries));
    }
    let _ = write!(
        text,
        " next due {:?}, {} buried, {} suspects",
        claimed.next_due, claimed.buried, claimed.suspects
    );
    text
}

/// What holds of every answer to a claim, whatever the case is about.
fn well_formed(claim: &Claim, claimed: &Claimed) -> Result<(), Violation> {
    let total: u64 = claimed.runs.iter().map(|run| u64::from(run.len)).sum();
    ensure!(
        total <= u64::from(claim.limit),
        super::rule::ATOMIC_CLAIM,
        format!("at most {} messages in all runs together", claim.limit),
        "{total}"
    );
    let mut start = 0;
    for run in &claimed.runs {
        ensure!(
            run.start == start && run.len > 0,
            super::rule::ANSWERS,
            "runs are ranges of the entries, one after the other, none empty",
            "{run:?} where the next run should start at {start}"
        );
        start += run.len;
        ensure!(
            run.token.nonce == claim.nonce,
            super::rule::FENCING,
            format!("a token carries the nonce of its claim, {}", claim.nonce),
            "{:?}",
            run.token
        );
        ensure!(
            run.lease_until > run.claimed_at
                && run.claimed_at <= claimed.now
                && run.lease_until > claimed.now,
            super::rule::STORE_CLOCK,
            "a run is leased from the store's time on, and its lease is live",
            "claimed at {:?}, leased until {:?}, now {:?}",
            run.claimed_at,
            run.lease_until,
            claimed.now
        );
    }
    ensure!(
        start as usize == claimed.entries.len(),
        super::rule::ANSWERS,
        "the runs cover the entries",
        "runs of {start} messages, {} entries",
        claimed.entries.len()
    );
    Ok(())
}
