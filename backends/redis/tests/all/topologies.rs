//! Clusters and sentinels.

use crate::support::{ask, message, settle_all};
use pillarbox_core::{ErrorKind, Message, Storage as _, Text, Verdict};
use pillarbox_redis::{RedisConfig, RedisStorage};
use pillarbox_testkit::servers::{RedisCluster, RedisSentinels};
use std::time::{Duration, Instant};

#[tokio::test(flavor = "multi_thread")]
async fn a_cluster_is_used_as_one_server() {
    let cluster = RedisCluster::start().unwrap();
    let hosts: Vec<_> = cluster.nodes().iter().map(|node| node.address().to_string()).collect();
    let url = format!("redis+cluster://{}/?outbox.lanes=4", hosts.join(","));
    // Names in the slots of different nodes.
    for name in ["orders", "payments", "mails", "a", "b"] {
        let outbox = RedisStorage::open(&format!("{url}&outbox.name={name}")).await.unwrap();
        let mut hints = outbox.wakeup().unwrap().subscribe();
        hints.hinted().await;
        // The caller's own transaction, with a business key under the outbox's tag.
        let client = redis::cluster::ClusterClient::new(cluster.urls()).unwrap();
        let mut connection = client.get_async_connection().await.unwrap();
        let mut transaction = redis::pipe();
        transaction.atomic().cmd("SET").arg(format!("{{{name}}}order:1")).arg("created");
        let messages: Vec<Message> = (0..400).map(|n| message(Some(&format!("key-{}", n % 3)))).collect();
        outbox.append(&mut transaction, &messages).unwrap();
        let (set,): (String,) = transaction.query_async(&mut connection).await.unwrap();
        assert_eq!(set, "OK");
        hints.hinted().await;
        outbox.enqueue_alone(&[message(None)]).await.unwrap();
        // Some of the runs are so long that they are read from their lanes.
        let claimed = outbox.claim(ask(500)).await.unwrap();
        assert_eq!(claimed.entries.len(), 401, "{name}");
        let retry = Verdict::Release { after: Duration::from_secs(9) };
        settle_all(&outbox, &claimed, &retry).await;
        let stats = outbox.admin().unwrap().stats().await.unwrap();
        assert_eq!((stats.pending, stats.scheduled), (0, 401), "{name}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_node_of_a_cluster_says_how_to_open_it() {
    let cluster = RedisCluster::start().unwrap();
    let mut told = 0;
    for name in ["orders", "payments", "mails"] {
        let url = format!("{}?outbox.name={name}", cluster.urls()[0]);
        match RedisStorage::open(&url).await {
            // This node has the outbox's slot.
            Ok(_) => {}
            Err(error) => {
                assert_eq!(error.kind(), ErrorKind::Misconfigured, "{error:?}");
                assert!(error.to_string().contains("redis+cluster://"), "{error}");
                told += 1;
            }
        }
    }
    assert!(told > 0, "no name lies on another node");
}

#[tokio::test(flavor = "multi_thread")]
async fn sentinels_lead_to_the_new_primary() {
    let set = RedisSentinels::start().unwrap();
    let hosts: Vec<_> = set.sentinels().iter().map(|node| node.address().to_string()).collect();
    let url = format!("redis+sentinel://{}/{}", hosts.join(","), set.service());
    let config = RedisConfig::from_url(&format!(
        "{url}?outbox.lanes=4&outbox.durability=wait&outbox.durability_timeout=10s"
    ))
    .unwrap()
    .response_timeout(Duration::from_secs(2));
    let outbox = RedisStorage::connect(config).await.unwrap();
    // Confirmed by a replica: the failover may not lose it.
    outbox.enqueue_alone(&[message(Some("a")), message(Some("a"))]).await.unwrap();
    let old = set.primary().unwrap();
    let address = old.address();
    old.kill();
    set.wait_for_primary_other_than(address).unwrap();
    // Until all sentinels agree, some call the new primary down as well.
    let patience = Instant::now() + Duration::from_secs(30);
    let claimed = loop {
        match outbox.claim(ask(10)).await {
            Ok(claimed) => break claimed,
            Err(error) => assert_eq!(error.kind(), ErrorKind::Unavailable, "{error}"),
        }
        assert!(Instant::now() < patience, "no claim for half a minute after the failover");
        tokio::time::sleep(Duration::from_millis(50)).await;
    };
    // A replica that was not the confirming one may have been promoted only if it had the write, too.
    assert_eq!(claimed.entries.len(), 2);
    settle_all(&outbox, &claimed, &Verdict::Bury { reason: Text::from("no") }).await;
}

#[tokio::test]
async fn a_service_that_no_sentinel_knows_is_unavailable() {
    let set = RedisSentinels::start().unwrap();
    let url = format!("redis+sentinel://{}/nobody", set.sentinels()[0].address());
    let error = RedisStorage::open(&url).await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Unavailable);
    assert!(error.to_string().contains("\"nobody\""), "{error}");
}
