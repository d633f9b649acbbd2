//! Whether anything grows with what is stored: fills an outbox, then measures claims and the memory of a relay.

use crate::messages::with_payload;
use crate::row::millis;
use crate::{BoxError, Keys, drain, memory};
use pillarbox_core::{Claim, EnqueueAlone, Message, Nonce, Settlements, Storage, Text, Timestamp, Verdict};
use pillarbox_testkit::throughput::below;
use serde::{Deserialize, Serialize};
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

const ENQUEUED_AT_ONCE: u32 = 500;

/// What is stored while claims are measured.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, clap::ValueEnum)]
#[serde(rename_all = "lowercase")]
pub enum Stored {
    /// Messages that wait, half of them on 10,000 keys.
    Pending,
    /// Messages that are due tomorrow.
    Scheduled,
    /// Messages that were scheduled and fell due at one moment.
    Due,
    /// Messages that were published; they are kept where the store can.
    Published,
    /// Dead letters.
    Dead,
}

impl Stored {
    /// Its name in the table.
    pub fn name(self) -> &'static str {
        match self {
            Self::Pending => "pending",
            Self::Scheduled => "scheduled",
            Self::Due => "due",
            Self::Published => "published",
            Self::Dead => "dead",
        }
    }
}

/// How long claims and settlements took, each one at a time.
#[derive(Clone, Copy, Debug, Serialize)]
pub struct ClaimTimes {
    /// Milliseconds of a claim in the median.
    pub claim_p50_ms: f64,
    /// Milliseconds that 99 of 100 claims stayed under.
    pub claim_p99_ms: f64,
    /// Milliseconds of the slowest claim: as long may the store have kept others waiting.
    pub claim_max_ms: f64,
    /// Milliseconds of a settlement in the median.
    pub settle_p50_ms: f64,
    /// Milliseconds of the slowest settlement.
    pub settle_max_ms: f64,
}

/// What a relay says of itself.
#[derive(Clone, Copy, Debug, Serialize, Deserialize)]
pub struct Drained {
    /// Messages a second.
    pub per_s: f64,
    /// MiB of memory that the process had resident before its relay began.
    pub resident_before_mib: f64,
    /// MiB of memory that it had resident at most.
    pub resident_peak_mib: f64,
}

/// Stores `count` messages in that state, and waits until those that fall due have; `progress` is told of each batch.
///
/// # Errors
/// Whatever the store refuses.
pub async fn fill<S: Storage + EnqueueAlone>(
    storage: &S,
    stored: Stored,
    count: u32,
    progress: impl Fn(u32),
) -> Result<(), BoxError> {
    let delay = match stored {
        Stored::Scheduled => Some(Duration::from_secs(24 * 60 * 60)),
        // Not before all of them are stored.
        Stored::Due => Some(Duration::from_secs(1) + FILL_AT_MOST * count),
        Stored::Pending | Stored::Published | Stored::Dead => None,
    };
    let due = delay.map(now_in);
    let all: Vec<u32> = (0..count).collect();
    for numbers in all.chunks(ENQUEUED_AT_ONCE as usize) {
        let batch = numbers.iter().map(|number| message(*number, due)).collect::<Result<Vec<_>, _>>()?;
        storage.enqueue_alone(&batch).await?;
        let more = u32::try_from(batch.len())?;
        let settle = async |verdict| claim_and_settle(storage, more, ENQUEUED_AT_ONCE, &verdict).await;
        match stored {
            Stored::Pending => {}
            Stored::Scheduled | Stored::Due => claim_nothing(storage).await?,
            Stored::Published => drop(settle(Verdict::Published).await?),
            Stored::Dead => {
                drop(settle(Verdict::Bury { reason: Text::from_static("given up by the bench") }).await?);
            }
        }
        progress(more);
    }
    if stored == Stored::Due {
        let left = due.map_or(0, |due| due.as_millis().saturating_sub(now_in(Duration::ZERO).as_millis()));
        tokio::time::sleep(Duration::from_millis(u64::try_from(left).unwrap_or(0))).await;
    }
    Ok(())
}

/// One claim while nothing is due: a store may take in then what was enqueued, and a relay would have asked meanwhile.
async fn claim_nothing(storage: &impl Storage) -> Result<(), BoxError> {
    if !storage.claim(claim(1)?).await?.runs.is_empty() {
        return Err("the messages took so long to store that some are due already".into());
    }
    Ok(())
}

/// A claim with a nonce that no other has.
fn claim(limit: u32) -> Result<Claim, BoxError> {
    let (high, low) = Message::to("nonce").payload("")?.id().as_uuid().as_u64_pair();
    Ok(Claim { limit, lease: Duration::from_secs(30), nonce: Nonce::from_words(high, low), solo: false })
}

/// What a message may take to be stored, with the slowest of the stores.
const FILL_AT_MOST: Duration = Duration::from_micros(100);

/// Enqueues as many messages as are claimed, behind what is stored, and claims and settles so many batches.
///
/// # Errors
/// Whatever the store refuses.
pub async fn claims<S: Storage + EnqueueAlone>(
    storage: &S,
    claims: u32,
    batch: u32,
) -> Result<ClaimTimes, BoxError> {
    fill(storage, Stored::Pending, claims * batch, |_| ()).await?;
    let (claimed, settled) = claim_and_settle(storage, claims * batch, batch, &Verdict::Published).await?;
    let told = |of_hundred, times: &[Duration]| millis(below(of_hundred, times.iter().copied()));
    let slowest = |times: &[Duration]| millis(times.iter().max().copied().unwrap_or_default());
    Ok(ClaimTimes {
        claim_p50_ms: told(50, &claimed),
        claim_p99_ms: told(99, &claimed),
        claim_max_ms: slowest(&claimed),
        settle_p50_ms: told(50, &settled),
        settle_max_ms: slowest(&settled),
    })
}

/// How long each claim and each settlement took.
async fn claim_and_settle<S: Storage>(
    storage: &S,
    count: u32,
    batch: u32,
    verdict: &Verdict,
) -> Result<(Vec<Duration>, Vec<Duration>), BoxError> {
    let (mut claims, mut settles) = (Vec::new(), Vec::new());
    let mut settlements = Settlements::new();
    let mut left = count;
    while left > 0 {
        let claim = claim(batch.min(left))?;
        let begun = Instant::now();
        let claimed = storage.claim(claim).await?;
        claims.push(begun.elapsed());
        if claimed.runs.is_empty() {
            return Err(format!("nothing to claim, and {left} of {count} are missing").into());
        }
        settlements.clear();
        for run in &claimed.runs {
            let verdicts = claimed.entries_of(run).iter().map(|_| verdict.clone());
            settlements.verdicts(run.token, verdicts);
        }
        let begun = Instant::now();
        storage.settle(&settlements).await?;
        settles.push(begun.elapsed());
        left = left.saturating_sub(u32::try_from(claimed.entries.len())?);
    }
    Ok((claims, settles))
}

/// Drains `count` messages of an outbox with one relay to nowhere, and says how much memory this process took meanwhile.
///
/// # Errors
/// If the store fails, or where the system has no `/proc/self/status`.
pub async fn drain_here<S: Storage + Clone + 'static>(storage: &S, count: u64) -> Result<Drained, BoxError> {
    memory::forget_peak()?;
    let resident_before_mib = mebibytes(memory::resident()?.now);
    let took = drain::by_relays(storage, 1, ENQUEUED_AT_ONCE, count, 0).await?;
    #[allow(clippy::cast_precision_loss, reason = "counts are far below 2^52")]
    let per_s = count as f64 / took.as_secs_f64();
    let resident_peak_mib = mebibytes(memory::resident()?.peak);
    Ok(Drained { per_s: per_s.round(), resident_before_mib, resident_peak_mib })
}

fn message(number: u32, due: Option<Timestamp>) -> Result<Message, BoxError> {
    let keys = if number.is_multiple_of(2) { Keys::None } else { Keys::Of(10_000) };
    let message = keys.address(number);
    Ok(with_payload(match due {
        Some(due) => message.deliver_at(due),
        None => message,
    })?)
}

fn now_in(delay: Duration) -> Timestamp {
    let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default() + delay;
    Timestamp::from_millis(i64::try_from(since.as_millis()).unwrap_or(i64::MAX))
}

#[allow(clippy::cast_precision_loss, reason = "memory is far below 2^52")]
fn mebibytes(bytes: u64) -> f64 {
    bytes as f64 / f64::from(1 << 20)
}
