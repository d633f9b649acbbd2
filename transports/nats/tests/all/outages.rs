//! A relay whose server is killed, paused and restarted.

use crate::support::{TOPIC, config, received, server};
use pillarbox_memory::MemoryStorage;
use pillarbox_nats::NatsTransport;
use pillarbox_testkit::transport::outages::Outages;
use std::time::Duration;

/// How often the broker is killed, paused and restarted. `PILLARBOX_OUTAGES` for a longer run.
fn rounds() -> u32 {
    std::env::var("PILLARBOX_OUTAGES").ok().and_then(|rounds| rounds.parse().ok()).unwrap_or(1)
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn killed_paused_and_restarted_in_the_middle_of_batches_under_a_relay() {
    let server = server().await;
    // What is slower than this without a pause would be charged.
    let (confirm, connect) = (Duration::from_secs(5), Duration::from_secs(2));
    let config = config(&server).confirm_timeout(confirm).connect_timeout(connect);
    let transport = NatsTransport::connect(config).await.unwrap();
    let storage = MemoryStorage::new();
    let enqueue = async |messages: &[_]| storage.enqueue_alone(messages);
    let outages = Outages::new(&server, TOPIC).rounds(rounds());
    let relayed = outages.run(storage.clone(), transport, enqueue).await.unwrap();
    let totals = relayed.totals(&received(&server).await.unwrap());
    println!("{totals}");
    totals.assert_nothing_is_lost();
}
