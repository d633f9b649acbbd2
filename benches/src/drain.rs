//! Drains an outbox in two ways: by real relays, and by a plain loop.

use crate::BoxError;
use pillarbox::TokioTimer;
use pillarbox_core::{
    Claim, Destination, Error, Message, Nonce, Outcomes, Relay, RelayConfig, Settlements, Storage, Transport,
    TransportGuarantees, Verdict,
};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};
use tokio::sync::watch;

/// A broker that confirms at once, and counts.
struct Nowhere {
    published: AtomicU64,
    wanted: u64,
    done: watch::Sender<bool>,
}

impl Transport for Nowhere {
    async fn publish(&self, batch: &[Message], outcomes: &mut Outcomes) {
        outcomes.fill(|| Ok(()));
        let before = self.published.fetch_add(batch.len() as u64, Ordering::Relaxed);
        if before + batch.len() as u64 >= self.wanted {
            self.done.send_replace(true);
        }
    }

    async fn probe(&self, _destination: Destination) -> Result<(), Error> {
        Ok(())
    }

    fn guarantees(&self, _destination: Destination) -> TransportGuarantees {
        TransportGuarantees { deduplicates: false, max_payload: u32::MAX, prefix_per_key: true }
    }
}

/// Drains `count` messages with `relays` relays; answers how long it took until all were settled.
pub(crate) async fn by_relays<S: Storage + Clone + 'static>(
    storage: &S,
    relays: u32,
    batch: u32,
    count: u64,
) -> Result<Duration, BoxError> {
    let (done, _) = watch::channel(false);
    let transport = Arc::new(Nowhere { published: AtomicU64::new(0), wanted: count, done });
    let begun = Instant::now();
    let mut running = Vec::new();
    for _ in 0..relays {
        let config = RelayConfig::default().batch_size(batch);
        let relay = Relay::new(storage.clone(), Arc::clone(&transport), config)?.timer(TokioTimer::new());
        let mut done = transport.done.subscribe();
        running.push(tokio::spawn(async move {
            relay
                .run(async move {
                    let _ = done.wait_for(|done| *done).await;
                })
                .await
        }));
    }
    for relay in running {
        relay.await??;
    }
    let took = begun.elapsed();
    let published = transport.published.load(Ordering::Relaxed);
    if published == count { Ok(took) } else { Err(format!("{published} of {count} were published").into()) }
}

/// Drains by claiming and settling, one claim at a time.
pub(crate) async fn by_loop<S: Storage>(storage: &S, batch: u32, count: u64) -> Result<Duration, BoxError> {
    let begun = Instant::now();
    let mut settled = 0;
    let mut settlements = Settlements::new();
    let mut number = 0;
    while settled < count {
        number += 1;
        let nonce = Nonce::from_words(0xbe6c, number);
        let claim = Claim { limit: batch, lease: Duration::from_secs(30), nonce, solo: false };
        let claimed = storage.claim(claim).await?;
        if claimed.runs.is_empty() {
            return Err(format!("the outbox was empty after {settled} of {count}").into());
        }
        settlements.clear();
        for run in &claimed.runs {
            settlements.verdicts(run.token, claimed.entries_of(run).iter().map(|_| Verdict::Published));
        }
        settled += claimed.entries.len() as u64;
        storage.settle(&settlements).await?;
    }
    Ok(begun.elapsed())
}
