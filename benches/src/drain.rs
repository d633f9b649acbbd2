//! Drains an outbox in two ways: by real relays, and by a plain loop.

use crate::BoxError;
use crate::broker::Broker;
use pillarbox::TokioTimer;
use pillarbox_core::{Backoff, Claim, Nonce, Relay, RelayConfig, Settlements, Storage, Transport, Verdict};
use std::sync::Arc;
use std::time::{Duration, Instant};
use tokio::sync::watch;

/// What a refused message waits for: short, so that a drain with failures measures work and not the waiting for its last message.
const RETRY: Backoff = Backoff::new(Duration::from_millis(2), Duration::from_millis(20));

/// Drains `count` messages with `relays` relays into a broker that refuses some; answers how long it took until all were settled.
pub(crate) async fn by_relays<S: Storage + Clone + 'static>(
    storage: &S,
    relays: u32,
    batch: u32,
    count: u64,
    failing_percent: u32,
) -> Result<Duration, BoxError> {
    let broker = Arc::new(Broker::new(count, failing_percent));
    let begun = Instant::now();
    into_broker(storage, &broker, relays, batch, || broker.done()).await?;
    let took = begun.elapsed();
    let confirmed = broker.confirmed();
    if confirmed == count { Ok(took) } else { Err(format!("{confirmed} of {count} were published").into()) }
}

/// Runs relays until `done` tells them to stop and they have settled what they hold.
pub(crate) async fn into_broker<S: Storage + Clone + 'static, T: Transport + 'static>(
    storage: &S,
    transport: &Arc<T>,
    relays: u32,
    batch: u32,
    done: impl Fn() -> watch::Receiver<bool>,
) -> Result<(), BoxError> {
    let mut running = Vec::new();
    for _ in 0..relays {
        let config = RelayConfig::default().batch_size(batch).retry(RETRY).max_attempts(1_000);
        let relay = Relay::new(storage.clone(), Arc::clone(transport), config)?.timer(TokioTimer::new());
        let mut done = done();
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
    Ok(())
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
