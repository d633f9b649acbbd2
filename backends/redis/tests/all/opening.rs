//! Opening: what a server and a URL must be, and that no secret is shown.

use crate::support::{ask, connection, fresh_name, message, server, settle_all};
use pillarbox_core::{Effect, ErrorKind, HeadPolicy, Storage as _, Verdict};
use pillarbox_redis::{DRIVER, RedisConfig, RedisStorage};
use pillarbox_testkit::servers::{Proxy, RedisServer, free_port};
use std::time::Duration;

#[tokio::test]
async fn a_server_that_is_not_there_is_named() {
    let port = free_port().unwrap();
    let error = RedisStorage::open(&format!("redis://:hunter2@127.0.0.1:{port}/")).await.unwrap_err();
    assert_eq!((error.kind(), error.effect()), (ErrorKind::Unavailable, Effect::NotApplied));
    assert!(error.to_string().contains(&format!("127.0.0.1:{port}")), "{error}");
    assert!(!format!("{error:?} {}", error.report()).contains("hunter2"), "{error:?}");
}

#[tokio::test]
async fn a_server_that_comes_back_is_found_again() {
    let server = RedisServer::options().append_only().start().unwrap();
    let outbox = RedisStorage::open(&server.url()).await.unwrap();
    outbox.enqueue_alone(&[message(None)]).await.unwrap();
    server.kill();
    let error = outbox.claim(ask(10)).await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Unavailable);
    // The broken connection was noticed; from now on there is none.
    let error = outbox.claim(ask(10)).await.unwrap_err();
    assert_eq!((error.kind(), error.effect()), (ErrorKind::Unavailable, Effect::NotApplied));
    server.restart().unwrap();
    assert_eq!(outbox.claim(ask(10)).await.unwrap().entries.len(), 1);
}

#[tokio::test]
async fn wrong_credentials_are_misconfigured_and_never_shown() {
    let server = RedisServer::options().password("correct-horse").start().unwrap();
    let right = RedisStorage::open(&server.url()).await.unwrap();
    let address = server.address();
    let mut shown = format!("{right:?} {:?}", RedisConfig::from_url(&server.url()).unwrap());
    for url in [
        format!("redis://:hunter2-secret@{address}/"),
        format!("redis://mallory:hunter2-secret@{address}/"),
        format!("redis://{address}/"),
    ] {
        let error = RedisStorage::open(&url).await.unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Misconfigured, "{error:?}");
        assert!(error.to_string().contains(&address.to_string()), "{error}");
        shown += &format!("{error} {error:?} {}", error.report());
        let driver = (DRIVER.open)(&url).await.err().unwrap();
        shown += &format!("{driver} {driver:?} {}", driver.report());
    }
    for secret in ["hunter2", "correct-horse"] {
        assert!(!shown.contains(secret), "{shown}");
    }
}

#[tokio::test]
async fn a_user_without_permission_is_misconfigured() {
    let server = RedisServer::start().unwrap();
    server.command(&["ACL", "SETUSER", "producer", "on", ">pw", "~other:*", "&*", "+@all"]).unwrap();
    let error = RedisStorage::open(&format!("redis://producer:pw@{}/", server.address())).await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Misconfigured, "{error:?}");
}

#[tokio::test]
async fn a_server_that_evicts_is_refused() {
    let server =
        RedisServer::options().argument("--maxmemory-policy").argument("allkeys-lru").start().unwrap();
    let error = RedisStorage::open(&server.url()).await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Misconfigured);
    let advice = error.to_string();
    assert!(advice.contains("`maxmemory-policy` allkeys-lru"), "{advice}");
    assert!(advice.contains("CONFIG SET maxmemory-policy noeviction"), "{advice}");
    server.command(&["CONFIG", "SET", "maxmemory-policy", "noeviction"]).unwrap();
    RedisStorage::open(&server.url()).await.unwrap();
}

#[tokio::test]
async fn settings_are_stored_once_and_must_agree() {
    let name = fresh_name();
    let open = |options: &str| {
        let url = format!("{}?outbox.name={name}{options}", server().url());
        async move { RedisStorage::open(&url).await }
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
    ] {
        let error = open(options).await.unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Misconfigured);
        assert!(error.to_string().contains(part), "{error}");
    }
    let mut connection = connection(server()).await;
    let settings = format!("{{{name}}}:settings");
    redis::cmd("HSET").arg(settings).arg("layout").arg("2").exec_async(&mut connection).await.unwrap();
    let error = open("").await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Misconfigured);
    assert!(error.to_string().contains("layout \"2\""), "{error}");
}

#[tokio::test]
async fn an_outbox_whose_server_lost_everything_goes_on() {
    let server = RedisServer::start().unwrap();
    let outbox = RedisStorage::open(&server.url()).await.unwrap();
    server.command(&["FLUSHALL"]).unwrap();
    assert_eq!(outbox.claim(ask(1)).await.unwrap().runs.len(), 0);
    // Somebody stored it anew with other lanes: claiming by the old ones would reorder keys.
    server.command(&["FLUSHALL"]).unwrap();
    RedisStorage::open(&format!("{}?outbox.lanes=4", server.url())).await.unwrap();
    let error = outbox.claim(ask(1)).await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Misconfigured);
    assert!(error.to_string().contains("open it again"), "{error}");
}

#[tokio::test]
async fn a_name_that_something_else_uses_is_told() {
    let name = fresh_name();
    let mut connection = connection(server()).await;
    let settings = format!("{{{name}}}:settings");
    redis::cmd("SET").arg(settings).arg("mine").exec_async(&mut connection).await.unwrap();
    let error = RedisStorage::open(&format!("{}?outbox.name={name}", server().url())).await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Misconfigured);
    assert!(error.to_string().contains("another name"), "{error}");
}

#[tokio::test]
async fn a_connection_that_hangs_is_given_up_and_made_again() {
    let server = RedisServer::start().unwrap();
    let proxy = Proxy::start(server.address()).unwrap();
    let url = proxy.through(&server.url());
    let config = RedisConfig::from_url(&url).unwrap().response_timeout(Duration::from_millis(200));
    let outbox = RedisStorage::connect(config).await.unwrap();
    outbox.enqueue_alone(&[message(Some("a")), message(Some("a"))]).await.unwrap();
    proxy.stall_replies();
    let claim = ask(10);
    let error = outbox.claim(claim).await.unwrap_err();
    assert_eq!((error.kind(), error.effect()), (ErrorKind::Unavailable, Effect::Unknown));
    proxy.heal().unwrap();
    // The claim whose answer was lost is repeated: the same run, and nothing was charged.
    let mut claimed = outbox.claim(claim).await;
    for _ in 0..5 {
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
async fn connections_that_are_cut_are_made_again() {
    let server = RedisServer::start().unwrap();
    let proxy = Proxy::start(server.address()).unwrap();
    let outbox = RedisStorage::open(&proxy.through(&server.url())).await.unwrap();
    for _ in 0..3 {
        proxy.cut();
        // The first call may find the broken connection, the second one makes a new one.
        let first = outbox.enqueue_alone(&[message(None)]).await;
        assert!(first.is_ok() || first.unwrap_err().kind() == ErrorKind::Unavailable);
        outbox.enqueue_alone(&[message(None)]).await.unwrap();
    }
    assert!(outbox.claim(ask(100)).await.unwrap().entries.len() >= 3);
}
