//! Servers that die, step down or cannot be reached while messages flow: nothing is lost, order is kept, and no attempt is charged.

use crate::support::{SHOP, fresh_name};
use mongodb::Client;
use mongodb::bson::{Document, doc};
use mongodb::error::UNKNOWN_TRANSACTION_COMMIT_RESULT;
use pillarbox_core::{
    Claim, Content, Enqueue as _, Message, MessageId, Nonce, Settlements, Storage as _, Verdict,
};
use pillarbox_mongodb::{MongoConfig, MongoStorage};
use pillarbox_testkit::check::Totals;
use pillarbox_testkit::servers::{MongoReplicaSet, MongoServer, Proxy};
use std::collections::{BTreeMap, HashSet};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};
use tokio::task::spawn_blocking;

const LEASE: Duration = Duration::from_secs(5);
const PRODUCERS: usize = 4;
const RELAYS: u64 = 3;
/// Not a timed assertion: a test that hangs has to end.
const PATIENCE: Duration = Duration::from_secs(240);

/// What producers and relays did.
#[derive(Default)]
struct Load {
    stop: AtomicBool,
    over: AtomicBool,
    failures: AtomicU64,
    /// Of each key, the messages in the order in which they were enqueued, that were acknowledged.
    acknowledged: Mutex<BTreeMap<String, Vec<MessageId>>>,
    delivered: Mutex<Vec<(String, MessageId)>>,
    charged: AtomicU64,
    attempted: Mutex<HashSet<MessageId>>,
}

/// One producer: a business document and a message in each transaction, one key.
async fn produce(load: Arc<Load>, outbox: MongoStorage, client: Client, number: usize) {
    let orders = client.database(SHOP).collection::<Document>("orders");
    let key = format!("key-{number}");
    while !load.stop.load(Ordering::Relaxed) {
        let message = Message::to("t").key(key.clone()).payload("{}").unwrap();
        load.attempted.lock().unwrap().insert(message.id());
        let attempt = async {
            let mut session = client.start_session().await?;
            session.start_transaction().await?;
            let order = doc! { "_id": message.id().to_string(), "producer": key.clone() };
            orders.insert_one(order).session(&mut session).await?;
            outbox
                .enqueue(&mut session, std::slice::from_ref(&message))
                .await
                .map_err(mongodb::error::Error::custom)?;
            loop {
                match session.commit_transaction().await {
                    Err(error)
                        if error.contains_label(UNKNOWN_TRANSACTION_COMMIT_RESULT)
                            && !load.over.load(Ordering::Relaxed) => {}
                    ended => return ended,
                }
            }
        };
        // What failed counts as not acknowledged; the next message is another one.
        match attempt.await {
            Ok(()) => {
                load.acknowledged.lock().unwrap().entry(key.clone()).or_default().push(message.id());
            }
            Err(_) => {
                load.failures.fetch_add(1, Ordering::Relaxed);
                tokio::time::sleep(Duration::from_millis(20)).await;
            }
        }
    }
}

/// One relay: delivers what its lease covers, and repeats what was not answered.
async fn relay(load: Arc<Load>, outbox: MongoStorage, number: u64) {
    let mut turn = 0;
    while !load.over.load(Ordering::Relaxed) {
        turn += 1;
        let nonce = Nonce::from_words(number, turn);
        let claim = Claim { limit: 50, lease: LEASE, nonce, solo: false };
        let asked = Instant::now();
        let Ok(mut claimed) = outbox.claim(claim).await else {
            load.failures.fetch_add(1, Ordering::Relaxed);
            tokio::time::sleep(Duration::from_millis(20)).await;
            continue;
        };
        if claimed.runs.is_empty() && claimed.suspects > 0 {
            let claim = Claim { solo: true, nonce: Nonce::from_words(number + 100, turn), ..claim };
            claimed = outbox.claim(claim).await.unwrap_or_default();
        }
        if claimed.runs.is_empty() {
            tokio::time::sleep(Duration::from_millis(20)).await;
            continue;
        }
        let mut call = Settlements::new();
        {
            let mut delivered = load.delivered.lock().unwrap();
            // What the lease no longer covers is not sent.
            if asked.elapsed() >= LEASE {
                continue;
            }
            for run in &claimed.runs {
                for entry in claimed.entries_of(run) {
                    let Content::Message(message) = &entry.content else { panic!("{entry:?}") };
                    load.charged.fetch_add(u64::from(entry.attempts), Ordering::Relaxed);
                    delivered.push((message.key().unwrap().to_string(), message.id()));
                }
                call.verdicts(run.token, vec![Verdict::Published; run.len as usize]);
            }
        }
        while outbox.settle(&call).await.is_err() && !load.over.load(Ordering::Relaxed) {
            load.failures.fetch_add(1, Ordering::Relaxed);
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    }
}

/// Runs producers and relays while `faults` happen, then waits for the rest and checks everything.
async fn survives(name: &str, url: String, faults: impl FnOnce(&dyn Fn(u64)) + Send + 'static) {
    let config = MongoConfig::from_url(&url)
        .unwrap()
        .name(fresh_name())
        .lanes(8)
        .connect_timeout(Duration::from_secs(2))
        .response_timeout(Duration::from_secs(4));
    let load = Arc::new(Load::default());
    let mut tasks = Vec::new();
    let first = MongoStorage::connect(config.clone()).await.unwrap();
    let mut options = mongodb::options::ClientOptions::parse(&url).await.unwrap();
    options.server_selection_timeout = Some(Duration::from_secs(2));
    let client = Client::with_options(options).unwrap();
    client
        .database(SHOP)
        .collection::<Document>("orders")
        .insert_one(doc! { "_id": fresh_name() })
        .await
        .unwrap();
    for number in 0..PRODUCERS {
        tasks.push(tokio::spawn(produce(Arc::clone(&load), first.clone(), client.clone(), number)));
    }
    for number in 0..RELAYS {
        let outbox = MongoStorage::connect(config.clone()).await.unwrap();
        tasks.push(tokio::spawn(relay(Arc::clone(&load), outbox, number)));
    }
    let seen = Arc::clone(&load);
    spawn_blocking(move || {
        // Between two faults so many more messages have to be delivered.
        let flowing = |more: u64| {
            let count = || seen.delivered.lock().unwrap().len() as u64;
            let (before, begun) = (count(), Instant::now());
            while count() < before + more && begun.elapsed() < PATIENCE {
                std::thread::sleep(Duration::from_millis(20));
            }
            assert!(count() >= before + more, "the messages did not flow again");
        };
        flowing(50);
        faults(&flowing);
        flowing(50);
    })
    .await
    .unwrap();
    load.stop.store(true, Ordering::Relaxed);
    let begun = Instant::now();
    let lost = loop {
        let lost = lost(&load);
        if lost == 0 || begun.elapsed() > PATIENCE {
            break lost;
        }
        tokio::time::sleep(Duration::from_millis(100)).await;
    };
    load.over.store(true, Ordering::Relaxed);
    for task in tasks {
        task.await.unwrap();
    }
    let (totals, failures) = (totals(&load), load.failures.load(Ordering::Relaxed));
    println!("{name}: {totals}; {failures} calls failed");
    assert_eq!((lost, totals.lost, totals.unexpected), (0, 0, 0), "{totals}");
    assert!(load.failures.load(Ordering::Relaxed) > 0, "the faults hit nobody");
    assert_eq!(load.charged.load(Ordering::Relaxed), 0, "an outage of the store is no failed send");
    in_order(&load);
}

fn totals(load: &Load) -> Totals {
    // Before the locks are taken that it takes too.
    let lost = lost(load) as u64;
    let attempted = load.attempted.lock().unwrap();
    let acknowledged = load.acknowledged.lock().unwrap();
    let acknowledged: HashSet<MessageId> = acknowledged.values().flatten().copied().collect();
    let deliveries = load.delivered.lock().unwrap();
    let delivered: HashSet<MessageId> = deliveries.iter().map(|(_, id)| *id).collect();
    Totals {
        attempted: attempted.len() as u64,
        acknowledged: acknowledged.len() as u64,
        delivered: delivered.len() as u64,
        duplicated: (deliveries.len() - delivered.len()) as u64,
        recovered: delivered.difference(&acknowledged).count() as u64,
        lost,
        unexpected: delivered.difference(&attempted).count() as u64,
    }
}

fn lost(load: &Load) -> usize {
    let delivered: HashSet<MessageId> = load.delivered.lock().unwrap().iter().map(|(_, id)| *id).collect();
    load.acknowledged.lock().unwrap().values().flatten().filter(|id| !delivered.contains(id)).count()
}

/// First deliveries come in the order of the enqueues.
fn in_order(load: &Load) {
    let mut firsts: BTreeMap<String, Vec<MessageId>> = BTreeMap::new();
    let mut seen = HashSet::new();
    for (key, id) in load.delivered.lock().unwrap().iter() {
        if seen.insert(*id) {
            firsts.entry(key.clone()).or_default().push(*id);
        }
    }
    for (key, acknowledged) in load.acknowledged.lock().unwrap().iter() {
        let wanted: HashSet<&MessageId> = acknowledged.iter().collect();
        let got: Vec<&MessageId> = firsts[key].iter().filter(|id| wanted.contains(id)).collect();
        assert_eq!(got, acknowledged.iter().collect::<Vec<_>>(), "{key}");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_server_that_is_killed_loses_and_reorders_nothing() {
    let server = Arc::new(MongoServer::start().unwrap());
    let killed = Arc::clone(&server);
    survives("killed", server.url(SHOP), move |flowing| {
        for _ in 0..3 {
            killed.kill();
            killed.restart().unwrap();
            flowing(100);
        }
    })
    .await;
}

/// The listener goes on at the next primary, with what was enqueued meanwhile.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn hints_come_again_after_the_primary_has_stepped_down() {
    let set = Arc::new(spawn_blocking(|| MongoReplicaSet::start().unwrap()).await.unwrap());
    let config = MongoConfig::from_url(&set.url(SHOP)).unwrap().name(fresh_name());
    let outbox = MongoStorage::connect(config).await.unwrap();
    let mut hints = outbox.wakeup().unwrap().subscribe();
    // The first one says that the stream is open.
    tokio::time::timeout(PATIENCE, hints.hinted()).await.unwrap();
    let message = || Message::to("t").payload("{}").unwrap();
    for _ in 0..2 {
        let hit = Arc::clone(&set);
        spawn_blocking(move || hit.step_down().unwrap()).await.unwrap();
        let begun = Instant::now();
        while let Err(error) = outbox.enqueue_alone(&[message()]).await {
            assert!(begun.elapsed() < PATIENCE, "{error:?}");
        }
        tokio::time::timeout(PATIENCE, hints.hinted()).await.unwrap();
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_primary_that_steps_down_or_dies_loses_and_reorders_nothing() {
    let set = Arc::new(spawn_blocking(|| MongoReplicaSet::start().unwrap()).await.unwrap());
    let hit = Arc::clone(&set);
    survives("stepped down", set.url(SHOP), move |flowing| {
        for _ in 0..2 {
            hit.step_down().unwrap();
            flowing(100);
        }
        let primary = hit.primary().unwrap();
        hit.kill(primary);
        flowing(100);
        hit.restart(primary).unwrap();
    })
    .await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_network_that_is_cut_loses_and_reorders_nothing() {
    let server = MongoServer::start().unwrap();
    let proxy = Arc::new(Proxy::start(server.address()).unwrap());
    let cut = Arc::clone(&proxy);
    survives("cut", proxy.through(&server.direct_url(SHOP)), move |flowing| {
        for _ in 0..3 {
            cut.cut();
            flowing(50);
            cut.stall_replies();
            std::thread::sleep(Duration::from_millis(200));
            cut.cut();
            cut.heal().unwrap();
            flowing(50);
            cut.refuse();
            std::thread::sleep(Duration::from_millis(200));
            cut.heal().unwrap();
            flowing(50);
        }
    })
    .await;
}
