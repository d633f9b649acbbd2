use crate::broker::Broker;
use crate::row::millis;
use crate::{BoxError, Keys, Row, Subject, Work, drain};
use pillarbox_testkit::throughput::below;
use std::sync::Arc;
use std::time::{Duration, Instant};
use tokio::sync::watch;

/// How many messages come, one after the other.
const MESSAGES: u32 = 400;
/// The first ones find cold connections, and do not count.
const WARM_UP: u32 = 20;
/// Messages come this far apart, and some more, so that they meet a relay that waits.
const APART: Duration = Duration::from_millis(5);
/// Longer than any poll interval: what takes as long was lost.
const LOST: Duration = Duration::from_secs(10);

/// How long one message takes from the begin of its transaction to the broker, through a relay that waits for it.
pub(crate) async fn measure<S: Subject>(subject: &mut S, batch: u32) -> Result<Row, BoxError> {
    subject.clear().await?;
    let broker = Arc::new(Broker::new(u64::MAX, 0));
    let done = watch::Sender::new(false);
    let relay = drain::into_broker(subject.storage(), &broker, 1, batch, || done.subscribe());
    let sending = async {
        let times = send(subject, &broker).await;
        done.send_replace(true);
        times
    };
    let (relayed, times) = tokio::join!(relay, sending);
    relayed?;
    let times = times?;
    let mut row = Row::new(subject.name(), Work::Latency, 1, 1);
    let arrival = |time: &Time| time.arrived;
    // A relay may be sooner than the answer to the commit.
    let wake = |time: &Time| time.arrived.saturating_sub(time.committed);
    let told =
        |of_hundred, figure: fn(&Time) -> Duration| Some(millis(below(of_hundred, times.iter().map(figure))));
    (row.p50_ms, row.p99_ms) = (told(50, arrival), told(99, arrival));
    (row.wake_p50_ms, row.wake_p99_ms) = (told(50, wake), told(99, wake));
    row.floor_p50_ms = told(50, |time| time.committed);
    Ok(row)
}

/// How long one message took, from the begin of its transaction.
struct Time {
    committed: Duration,
    arrived: Duration,
}

async fn send<S: Subject>(subject: &S, broker: &Broker) -> Result<Vec<Time>, BoxError> {
    let mut arrived = broker.arrivals();
    let mut times = Vec::new();
    for number in 0..MESSAGES + WARM_UP {
        tokio::time::sleep(APART + Duration::from_micros(u64::from(number * 377 % 5_000))).await;
        let message = Keys::None.message(number)?;
        arrived.mark_unchanged();
        let begun = Instant::now();
        subject.enqueue_with_business(&message).await?;
        let committed = begun.elapsed();
        tokio::time::timeout(LOST, arrived.changed()).await??;
        let at = *arrived.borrow_and_update();
        if number >= WARM_UP {
            times.push(Time { committed, arrived: at.duration_since(begun) });
        }
    }
    Ok(times)
}
