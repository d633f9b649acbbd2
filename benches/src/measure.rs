use crate::row::{micros_each, per_second};
use crate::{BoxError, Keys, Row, Subject, Work, drain, latency};
use futures_util::future::try_join_all;
use pillarbox_core::Message;
use pillarbox_testkit::throughput::processor::{Cost, cost};
use std::time::Duration;

/// What is asked of a store.
#[derive(Clone, Copy, Debug)]
pub struct Case {
    /// What is measured.
    pub work: Work,
    /// How the messages are keyed.
    pub keys: Keys,
    /// Of 100 sends, how many the broker refuses.
    pub failing_percent: u32,
    /// How many relays, or producers, run side by side.
    pub relays: u32,
    /// How many messages there are.
    pub messages: u32,
    /// How many messages a claim, or a transaction, has.
    pub batch: u32,
}

/// Measures one case, floor and outbox one after the other.
///
/// # Errors
/// Whatever stops it.
pub async fn measure<S: Subject>(subject: &mut S, case: Case) -> Result<Row, BoxError> {
    if case.work == Work::Latency {
        return latency::measure(subject, case.batch).await;
    }
    let batches = case.keys.batches(case.messages, case.batch)?;
    let mut row = Row::new(subject.name(), case.work, case.relays, case.batch);
    (row.case, row.failing_percent) = (case.keys.name().to_owned(), case.failing_percent);
    subject.clear().await?;
    match case.work {
        Work::Enqueue | Work::Latency | Work::Publish => enqueue(subject, case, &batches, &mut row).await?,
        Work::Transaction => transact(subject, case, &batches, &mut row).await?,
        Work::Drain => drain(subject, case, &batches, &mut row).await?,
    }
    Ok(row)
}

/// Fills an empty outbox and drains it with real relays; answers how long the drain took.
///
/// # Errors
/// Whatever stops it.
pub async fn fill_and_drain<S: Subject>(subject: &mut S, case: Case) -> Result<Duration, BoxError> {
    let batches = case.keys.batches(case.messages, case.batch)?;
    subject.clear().await?;
    enqueue_all(subject, &batches, batches.len()).await?;
    let count = u64::from(case.messages);
    drain::by_relays(subject.storage(), case.relays, case.batch, count, case.failing_percent).await
}

async fn enqueue<S: Subject>(
    subject: &mut S,
    case: Case,
    batches: &[Vec<Message>],
    row: &mut Row,
) -> Result<(), BoxError> {
    let share = batches.len().div_ceil(case.relays as usize);
    let floor = cost(subject.server(), insert_all(subject, batches, share)).await?;
    subject.clear().await?;
    let ours = cost(subject.server(), enqueue_all(subject, batches, share)).await?;
    row.floor = S::INSERT_FLOOR;
    enter(row, case.messages, case.messages, &floor, &ours);
    Ok(())
}

async fn transact<S: Subject>(
    subject: &mut S,
    case: Case,
    batches: &[Vec<Message>],
    row: &mut Row,
) -> Result<(), BoxError> {
    let messages: Vec<&Message> = batches.iter().flatten().collect();
    let share = messages.len().div_ceil(case.relays as usize);
    let raw = messages.chunks(share).map(async |messages| {
        for message in messages {
            subject.insert_floor_with_business(message).await?;
        }
        Ok::<_, BoxError>(())
    });
    let floor = cost(subject.server(), async { try_join_all(raw).await.map(drop) }).await?;
    subject.clear().await?;
    let outbox = messages.chunks(share).map(async |messages| {
        for message in messages {
            subject.enqueue_with_business(message).await?;
        }
        Ok::<_, BoxError>(())
    });
    let ours = cost(subject.server(), async { try_join_all(outbox).await.map(drop) }).await?;
    row.floor = S::INSERT_FLOOR;
    enter(row, case.messages, case.messages, &floor, &ours);
    Ok(())
}

async fn drain<S: Subject>(
    subject: &mut S,
    case: Case,
    batches: &[Vec<Message>],
    row: &mut Row,
) -> Result<(), BoxError> {
    let Case { relays, batch, messages, .. } = case;
    let count = u64::from(messages);

    insert_all(subject, batches, batches.len()).await?;
    let mut drained = 0;
    let floor = cost(subject.server(), async {
        drained = subject.drain_floor(batch).await?;
        Ok(())
    })
    .await?;

    subject.clear().await?;
    let before = subject.stored_bytes().await?;
    enqueue_all(subject, batches, batches.len()).await?;
    let after = subject.stored_bytes().await?;
    #[allow(clippy::cast_precision_loss, reason = "bytes of a bench are far below 2^52")]
    let bytes = after.saturating_sub(before) as f64 / f64::from(messages);
    let relays = drain::by_relays(subject.storage(), relays, batch, count, case.failing_percent);
    let ours = cost(subject.server(), async { relays.await.map(drop) }).await?;

    row.floor = S::DRAIN_FLOOR;
    enter(row, drained, messages, &floor, &ours);
    row.bytes = Some(bytes.round());
    if case.relays == 1 && case.failing_percent == 0 {
        subject.clear().await?;
        enqueue_all(subject, batches, batches.len()).await?;
        let plain = drain::by_loop(subject.storage(), batch, count).await?;
        row.loop_per_s = Some(per_second(messages, plain));
    }
    Ok(())
}

/// Enters both costs.
pub(crate) fn enter(row: &mut Row, floor_messages: u32, messages: u32, floor: &Cost, ours: &Cost) {
    row.rates(per_second(floor_messages, floor.took), per_second(messages, ours.took));
    row.floor_server_us = floor.server.map(|used| micros_each(used, floor_messages));
    row.floor_client_us = Some(micros_each(floor.client, floor_messages));
    row.server_us = ours.server.map(|used| micros_each(used, messages));
    row.client_us = Some(micros_each(ours.client, messages));
}

async fn insert_all<S: Subject>(subject: &S, batches: &[Vec<Message>], share: usize) -> Result<(), BoxError> {
    let producers = batches.chunks(share).map(async |batches| {
        for batch in batches {
            subject.insert_floor(batch).await?;
        }
        Ok::<_, BoxError>(())
    });
    try_join_all(producers).await.map(drop)
}

async fn enqueue_all<S: Subject>(
    subject: &S,
    batches: &[Vec<Message>],
    share: usize,
) -> Result<(), BoxError> {
    let producers = batches.chunks(share).map(async |batches| {
        for batch in batches {
            subject.enqueue(batch).await?;
        }
        Ok::<_, BoxError>(())
    });
    try_join_all(producers).await.map(drop)
}
