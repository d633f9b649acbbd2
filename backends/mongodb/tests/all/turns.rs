//! Claims of one handle at the same time.

use crate::support::{ask, client, fresh_name, message};
use futures_util::future::join_all;
use mongodb::Client;
use mongodb::bson::{Bson, doc};
use pillarbox_core::{Content, Storage as _};
use pillarbox_mongodb::{MongoConfig, MongoStorage};
use pillarbox_testkit::servers::MongoServer;
use std::collections::HashSet;
use std::time::Duration;

const MESSAGES: usize = 640;

/// Each reads the lanes before the others have taken any; without turns most of what they choose is lost again.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn claims_of_one_handle_rarely_want_the_same_lane() {
    let server = MongoServer::start().unwrap();
    let config = MongoConfig::from_url(&server.url("turns")).unwrap().name(fresh_name());
    let outbox = MongoStorage::connect(config.response_timeout(Duration::from_secs(120))).await.unwrap();
    let messages: Vec<_> = (0..MESSAGES).map(|number| message(Some(&format!("key-{number}")))).collect();
    outbox.enqueue_alone(&messages).await.unwrap();
    let client = client(&server).await;
    let before = takes(&client).await;
    let (mut ids, mut runs) = (HashSet::new(), 0);
    // Nothing is settled, so that each lane is taken once, and what its run left lies behind it.
    while runs < i64::from(outbox.lanes()) {
        for claimed in join_all((0..8).map(|_| outbox.claim(ask(40)))).await {
            let claimed = claimed.unwrap();
            runs += i64::try_from(claimed.runs.len()).unwrap();
            for entry in &claimed.entries {
                let Content::Message(message) = &entry.content else { panic!("{entry:?}") };
                assert!(ids.insert(message.id()), "nobody else has it");
            }
        }
    }
    let taken = takes(&client).await - before;
    assert!(taken >= runs, "{runs} runs, {taken} tries");
    assert!(taken - runs <= runs / 2, "{taken} tries for {runs} runs");
}

/// How often a lane was taken, or tried to: each is an update of its own, also where they share a command.
async fn takes(client: &Client) -> i64 {
    let status = client.database("admin").run_command(doc! { "serverStatus": 1 }).await.unwrap();
    match status.get_document("opcounters").unwrap().get("update") {
        Some(Bson::Int64(total)) => *total,
        Some(Bson::Int32(total)) => i64::from(*total),
        other => panic!("{other:?}"),
    }
}
