//! What the server does for a claim, as its own profiler tells: every question is answered by an index, and nothing is sorted.

use crate::support::{ask, client, message, server, settle_all};
use mongodb::bson::{Bson, Document, doc};
use pillarbox_core::{Content, Message, Settlements, Storage as _, TestClock, Text, Timestamp, Verdict};
use pillarbox_mongodb::{MongoConfig, MongoStorage};
use std::collections::HashSet;
use std::time::Duration;

const MANY: usize = 100_000;
const DUE: usize = 1_000;
const PARKED: usize = 300;

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_claim_reads_by_indexes_and_sorts_nothing() {
    let database = client(server()).await.database("plans");
    let config = MongoConfig::from_url(&server().url("plans"))
        .unwrap()
        .response_timeout(Duration::from_secs(120))
        .test_clock(TestClock::new());
    let outbox = MongoStorage::connect(config).await.unwrap();

    // 100,000 that were published and kept, 100,000 that are scheduled, and 1,000 that are due.
    let published = database.collection::<Document>("outbox.published");
    for part in 0..MANY / 10_000 {
        let kept = (0..10_000).map(|number| {
            let number = i64::try_from(part * 10_000 + number).unwrap();
            doc! { "lane": number % 32, "published": number, "topic": "t" }
        });
        published.insert_many(kept).await.unwrap();
        let later = Timestamp::from_millis(4_000_000_000_000);
        let scheduled: Vec<Message> = (0..10_000)
            .map(|number| {
                let message = Message::to("t").deliver_at(later);
                let keyed = if number % 2 == 0 { message.key(format!("key-{number}")) } else { message };
                keyed.payload("{}").unwrap()
            })
            .collect();
        outbox.enqueue_alone(&scheduled).await.unwrap();
    }
    // Large enough for all that follows.
    database.create_collection("system.profile").capped(true).size(64 << 20).await.unwrap();
    database.run_command(doc! { "profile": 2 }).await.unwrap();
    // More parked keys than one claim reads, whose retry is far away.
    for _ in 0..2 {
        let parked: Vec<Message> = (0..PARKED).map(|key| message(Some(&format!("parked-{key}")))).collect();
        outbox.enqueue_alone(&parked).await.unwrap();
    }
    while let claimed = outbox.claim(ask(500)).await.unwrap()
        && !claimed.runs.is_empty()
    {
        let mut call = Settlements::new();
        for run in &claimed.runs {
            let mut seen = HashSet::new();
            let verdicts = claimed.entries_of(run).iter().map(|entry| {
                let Content::Message(message) = &entry.content else { panic!("{entry:?}") };
                if seen.insert(message.key().unwrap().to_string()) {
                    Verdict::Retry { after: Duration::from_secs(86_400), error: Text::from("no") }
                } else {
                    Verdict::Release { after: Duration::ZERO }
                }
            });
            call.verdicts(run.token, verdicts.collect::<Vec<_>>());
        }
        outbox.settle(&call).await.unwrap();
    }
    let due: Vec<Message> = (0..DUE)
        .map(|number| message(Some(&format!("key-{number}")).filter(|_| number % 2 == 0).map(String::as_str)))
        .collect();
    outbox.enqueue_alone(&due).await.unwrap();

    let mut claimed = 0;
    loop {
        let answer = outbox.claim(ask(500)).await.unwrap();
        if answer.runs.is_empty() {
            break;
        }
        claimed += answer.entries.len();
        settle_all(&outbox, &answer, &Verdict::Published).await;
    }
    database.run_command(doc! { "profile": 0 }).await.unwrap();
    assert_eq!(claimed, DUE);

    let mut profile = database.collection::<Document>("system.profile").find(doc! {}).await.unwrap();
    let mut looked = 0;
    while profile.advance().await.unwrap() {
        let line: Document = profile.deserialize_current().unwrap();
        let space = line.get_str("ns").unwrap_or_default();
        let plan = line.get_str("planSummary").unwrap_or_default();
        if plan.is_empty() || !space.starts_with("plans.outbox.") {
            continue;
        }
        looked += 1;
        assert!(!plan.contains("COLLSCAN"), "{space}: {line}");
        assert!(!line.get_bool("hasSortStage").unwrap_or(false), "{space}: {line}");
        let examined = line.get("docsExamined").map_or(0, number);
        // A page of the parked keys beside the lanes, or what one claim hands out.
        let most = if space == "plans.outbox.lanes" { 32 + 201 } else { 500 };
        assert!(examined <= most, "{space} examined {examined} documents: {line}");
    }
    assert!(looked > 10, "the profiler saw only {looked} operations");
}

fn number(value: &Bson) -> i64 {
    value.as_i64().or_else(|| value.as_i32().map(i64::from)).unwrap_or(i64::MAX)
}
