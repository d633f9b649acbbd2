//! Opening: what a server and a URL must be, and that no secret is shown.

use crate::support::{SHOP, ask, client, fresh_name, message, server, settle_all};
use mongodb::IndexModel;
use mongodb::bson::{Document, doc};
use mongodb::options::IndexOptions;
use pillarbox_core::{Effect, ErrorKind, HeadPolicy, Storage as _, Verdict};
use pillarbox_mongodb::{DRIVER, MongoConfig, MongoStorage};
use pillarbox_testkit::servers::{MongoServer, Proxy, free_port};
use std::sync::{Arc, Mutex};
use std::time::Duration;

#[tokio::test]
async fn a_server_that_is_not_there_is_named() {
    let port = free_port().unwrap();
    let url = format!("mongodb://me:hunter2@127.0.0.1:{port}/shop?outbox.connect_timeout=300ms");
    let error = MongoStorage::open(&url).await.unwrap_err();
    assert_eq!((error.kind(), error.effect()), (ErrorKind::Unavailable, Effect::NotApplied));
    assert!(error.to_string().contains(&format!("127.0.0.1:{port}")), "{error}");
    assert!(!format!("{error:?} {}", error.report()).contains("hunter2"), "{error:?}");
    let driver = (DRIVER.open)(&url).await.err().unwrap();
    assert!(!format!("{driver} {driver:?} {}", driver.report()).contains("hunter2"), "{driver:?}");
}

#[tokio::test]
async fn wrong_credentials_are_misconfigured_and_never_shown() {
    let address = server().address();
    let url = format!("mongodb://mallory:hunter2@{address}/{SHOP}?replicaSet=rs0&outbox.connect_timeout=2s");
    let error = MongoStorage::open(&url).await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Misconfigured, "{error:?}");
    assert!(error.to_string().contains("the user and the password"), "{error}");
    let shown = format!("{error} {error:?} {} {:?}", error.report(), MongoConfig::from_url(&url));
    assert!(!shown.contains("hunter2"), "{shown}");
}

#[tokio::test]
async fn a_server_that_comes_back_is_found_again() {
    let server = MongoServer::start().unwrap();
    let config = MongoConfig::from_url(&server.url(SHOP)).unwrap().connect_timeout(Duration::from_secs(2));
    let outbox = MongoStorage::connect(config).await.unwrap();
    outbox.enqueue_alone(&[message(None)]).await.unwrap();
    server.kill();
    let error = outbox.claim(ask(10)).await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Unavailable, "{error:?}");
    server.restart().unwrap();
    let mut claimed = outbox.claim(ask(10)).await;
    for _ in 0..10 {
        if claimed.is_ok() {
            break;
        }
        claimed = outbox.claim(ask(10)).await;
    }
    assert_eq!(claimed.unwrap().entries.len(), 1);
}

#[tokio::test]
async fn settings_are_stored_once_and_must_agree() {
    let name = fresh_name();
    let open = |options: &str| {
        let url = format!("{}&outbox.name={name}{options}", server().url(SHOP));
        async move { MongoStorage::open(&url).await }
    };
    let first = open("&outbox.lanes=8&outbox.head_policy=block&outbox.max_strikes=5&outbox.max_payload=10")
        .await
        .unwrap();
    assert_eq!((first.lanes(), first.name()), (8, &*name));
    let later = open("").await.unwrap();
    assert_eq!(later.lanes(), 8);
    let guarantees = later.guarantees();
    assert_eq!((guarantees.head_policy, guarantees.max_strikes), (HeadPolicy::Block, 5));
    for (options, part) in [
        ("&outbox.lanes=9", "`outbox.lanes` is 9"),
        ("&outbox.head_policy=continue", "`outbox.head_policy` is continue"),
        ("&outbox.max_strikes=3", "`outbox.max_strikes` is 3"),
        ("&outbox.max_payload=11", "`outbox.max_payload` is 11"),
        ("&outbox.keep_published=true", "`outbox.keep_published` is true"),
    ] {
        let error = open(options).await.unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Misconfigured);
        assert!(error.to_string().contains(part), "{error}");
    }
}

#[tokio::test]
async fn several_that_open_a_new_outbox_at_once_agree() {
    let url = format!("{}&outbox.name={}&outbox.lanes=5", server().url(SHOP), fresh_name());
    let opened = futures_util::future::join_all((0..4).map(|_| MongoStorage::open(&url))).await;
    for outbox in opened {
        assert_eq!(outbox.unwrap().lanes(), 5);
    }
}

#[tokio::test]
async fn a_missing_index_is_named_and_made_on_demand() {
    let config = MongoConfig::from_url(&server().url(SHOP)).unwrap().name(fresh_name()).lanes(4);
    let outbox = MongoStorage::connect(config.clone()).await.unwrap();
    let messages = format!("{}.messages", outbox.name());
    let collection = client(server()).await.database(SHOP).collection::<Document>(&messages);
    collection.drop_index("due").await.unwrap();
    let error = MongoStorage::connect(config.clone()).await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Misconfigured);
    let words = error.to_string();
    assert!(
        words.contains("`due`") && words.contains(&messages) && words.contains("MongoStorage::create"),
        "{words}"
    );
    MongoStorage::create(config.clone()).await.unwrap();
    MongoStorage::connect(config).await.unwrap();
}

#[tokio::test]
async fn an_index_that_expires_messages_is_refused() {
    let config = MongoConfig::from_url(&server().url(SHOP)).unwrap().name(fresh_name()).lanes(4);
    let outbox = MongoStorage::connect(config.clone()).await.unwrap();
    let dead = format!("{}.dead", outbox.name());
    let mut options = IndexOptions::default();
    options.expire_after = Some(Duration::from_secs(86_400));
    let index = IndexModel::builder().keys(doc! { "died_on": 1 }).options(options).build();
    client(server()).await.database(SHOP).collection::<Document>(&dead).create_index(index).await.unwrap();
    let error = MongoStorage::connect(config).await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Misconfigured);
    assert!(error.to_string().contains(&dead) && error.to_string().contains("dropIndex"), "{error}");
}

#[tokio::test]
async fn an_outbox_that_vanishes_is_told() {
    let config = MongoConfig::from_url(&server().url("vanishing")).unwrap();
    let outbox = MongoStorage::connect(config).await.unwrap();
    client(server()).await.database("vanishing").drop().await.unwrap();
    let error = outbox.claim(ask(1)).await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Misconfigured);
    assert!(error.to_string().contains("open it again"), "{error}");
}

#[tokio::test]
async fn a_client_of_the_application_s_own_serves() {
    let config = MongoConfig::new(SHOP).name(fresh_name());
    let outbox = MongoStorage::with_client(client(server()).await, config).await.unwrap();
    outbox.enqueue_alone(&[message(Some("a")), message(None)]).await.unwrap();
    assert_eq!(outbox.claim(ask(10)).await.unwrap().entries.len(), 2);
}

#[tokio::test]
async fn a_connection_that_hangs_is_given_up_and_made_again() {
    let server = MongoServer::start().unwrap();
    let proxy = Proxy::start(server.address()).unwrap();
    let url = proxy.through(&server.direct_url(SHOP));
    let config = MongoConfig::from_url(&url).unwrap().response_timeout(Duration::from_secs(2));
    let outbox = MongoStorage::connect(config).await.unwrap();
    outbox.enqueue_alone(&[message(Some("a")), message(Some("a"))]).await.unwrap();
    proxy.stall_replies();
    let claim = ask(10);
    let error = outbox.claim(claim).await.unwrap_err();
    assert_eq!((error.kind(), error.effect()), (ErrorKind::Unavailable, Effect::Unknown));
    proxy.heal().unwrap();
    // The claim whose answer was lost is repeated: nothing was charged.
    let mut claimed = outbox.claim(claim).await;
    for _ in 0..10 {
        if claimed.is_ok() {
            break;
        }
        claimed = outbox.claim(claim).await;
    }
    let claimed = claimed.unwrap();
    assert_eq!((claimed.runs.len(), claimed.entries.len(), claimed.runs[0].token.fence), (1, 2, 1));
    settle_all(&outbox, &claimed, &Verdict::Published).await;
}

#[tokio::test]
async fn a_server_that_is_no_replica_set_is_refused_and_told_how_to_become_one() {
    let server = MongoServer::start_standalone().unwrap();
    let url = server.direct_url(SHOP);
    let error = MongoStorage::open(&url).await.unwrap_err();
    assert_eq!((error.kind(), error.effect()), (ErrorKind::Misconfigured, Effect::NotApplied));
    let words = error.to_string();
    assert!(words.contains("--replSet") && words.contains(&server.address().to_string()), "{words}");
    // Nothing was made on it.
    let client = mongodb::Client::with_uri_str(&url).await.unwrap();
    assert!(client.database(SHOP).list_collection_names().await.unwrap().is_empty());
}

/// What this thread warns of.
#[derive(Clone, Default)]
struct Warnings(Arc<Mutex<Vec<String>>>);

impl tracing::Subscriber for Warnings {
    fn enabled(&self, metadata: &tracing::Metadata<'_>) -> bool {
        *metadata.level() == tracing::Level::WARN
    }

    fn new_span(&self, _: &tracing::span::Attributes<'_>) -> tracing::span::Id {
        tracing::span::Id::from_u64(1)
    }

    fn record(&self, _: &tracing::span::Id, _: &tracing::span::Record<'_>) {}

    fn record_follows_from(&self, _: &tracing::span::Id, _: &tracing::span::Id) {}

    fn event(&self, event: &tracing::Event<'_>) {
        let mut words = String::new();
        event.record(&mut |field: &tracing::field::Field, value: &dyn std::fmt::Debug| {
            words.push_str(&format!("{field}={value:?} "));
        });
        self.0.lock().unwrap().push(words);
    }

    fn enter(&self, _: &tracing::span::Id) {}

    fn exit(&self, _: &tracing::span::Id) {}
}

#[tokio::test]
async fn a_write_concern_that_a_failover_may_undo_is_warned_of() {
    let warnings = Warnings::default();
    let _guard = tracing::subscriber::set_default(warnings.clone());
    for (option, weak) in
        [("", None), ("&w=majority", None), ("&w=1", Some("w: 1")), ("&journal=false", Some("j: false"))]
    {
        let url = format!("{}{option}&outbox.name={}", server().url(SHOP), fresh_name());
        let outbox = MongoStorage::open(&url).await.unwrap();
        let told = std::mem::take(&mut *warnings.0.lock().unwrap());
        match weak {
            None => assert!(told.is_empty(), "{option}: {told:?}"),
            Some(weak) => {
                assert_eq!(told.len(), 1, "{option}: {told:?}");
                assert!(told[0].contains(weak) && told[0].contains("failover"), "{option}: {told:?}");
                assert!(told[0].contains(&server().address().to_string()), "{option}: {told:?}");
            }
        }
        // Claims and settlements go by the majority whatever the URL says.
        outbox.enqueue_alone(&[message(None)]).await.unwrap();
        let claimed = outbox.claim(ask(1)).await.unwrap();
        settle_all(&outbox, &claimed, &Verdict::Published).await;
    }
}
