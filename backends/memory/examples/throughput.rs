//! How fast the storage is: `cargo run --release -p pillarbox-memory --example throughput [messages]`.
//!
//! Enqueues messages of 256 bytes in transactions of 100, then drains them with claims of 500; for a backlog without keys,
//! with many and with one, and with 5 % of the messages retried.

use futures_executor::block_on;
use pillarbox_core::{
    Claim, Entry, Error, Message, MessageId, Nonce, Settlements, Storage, Text, Timestamp, Verdict,
};
use pillarbox_memory::MemoryStorage;
use std::time::{Duration, Instant};

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let count: u64 = std::env::args().nth(1).map_or(Ok(1_000_000), |text| text.parse())?;
    println!("{count} messages; thousands per second");
    println!("{:<28} {:>9} {:>9}", "", "enqueue", "drain");
    for (name, keys, failing) in [
        ("no keys", 0, 0),
        ("10,000 keys", 10_000, 0),
        ("one key", 1, 0),
        ("no keys, 5 % retried once", 0, 20),
    ] {
        let outbox = MemoryStorage::new();
        let start = Instant::now();
        for first in (0..count).step_by(100) {
            let messages: Result<Vec<_>, _> =
                (first..count.min(first + 100)).map(|n| message(n, keys)).collect();
            outbox.enqueue_alone(&messages?)?;
        }
        let enqueued = start.elapsed();
        let start = Instant::now();
        block_on(drain(&outbox, count, failing))?;
        let drained = start.elapsed();
        println!("{name:<28} {:>9.0} {:>9.0}", rate(count, enqueued), rate(count, drained));
    }
    Ok(())
}

#[allow(clippy::cast_precision_loss, reason = "a rate for people")]
fn rate(count: u64, time: Duration) -> f64 {
    count as f64 / time.as_secs_f64() / 1_000.0
}

fn message(number: u64, keys: u64) -> Result<Message, Error> {
    static PAYLOAD: [u8; 256] = [b'x'; 256];
    let id = MessageId::from_bytes(u128::from(number.wrapping_mul(0x9e37_79b9_7f4a_7c15)).to_be_bytes());
    let mut builder = Message::given(id, Timestamp::EPOCH, Text::from_static("orders.created"));
    if keys > 0 {
        builder = builder.key(format!("order-{}", number % keys));
    }
    Ok(builder.payload(&PAYLOAD[..])?)
}

async fn drain(outbox: &MemoryStorage, count: u64, failing: usize) -> Result<(), Error> {
    let (mut published, mut drawn) = (0, 0);
    let mut settlements = Settlements::new();
    while published < count {
        drawn += 1;
        let (lease, nonce) = (Duration::from_secs(30), Nonce::from_words(1, drawn));
        let claimed = outbox.claim(Claim { limit: 500, lease, nonce, solo: false }).await?;
        settlements.clear();
        for run in &claimed.runs {
            let verdict = |(place, entry): (usize, &Entry)| {
                if failing > 0 && entry.attempts == 0 && place % failing == 0 {
                    return Verdict::Retry { after: Duration::ZERO, error: Text::from_static("no") };
                }
                published += 1;
                Verdict::Published
            };
            settlements.verdicts(run.token, claimed.entries_of(run).iter().enumerate().map(verdict));
        }
        outbox.settle(&settlements).await?;
    }
    Ok(())
}
