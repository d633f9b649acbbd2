//! What can go wrong with the database and with relays.

use crate::support::{ask, message, settle_all, sqlite};
use pillarbox_core::{Claim, Effect, ErrorKind, Storage as _, TestClock, Verdict};
use pillarbox_sql::{MySqlStorage, PostgresStorage, SqlConfig, SqliteStorage};
use pillarbox_testkit::storage::OutboxSettings;
use sqlx::{MySql, Postgres};
use std::collections::HashSet;
use std::time::Duration;

/// A full disk refuses the enqueue, and says so; relays go on, and make the room with which it works again.
#[tokio::test]
async fn a_full_disk_refuses_and_recovers() {
    let (_folder, config) = sqlite(&OutboxSettings::default());
    SqliteStorage::migrate(&config).await.unwrap();
    // One connection, since the limit belongs to a connection.
    let outbox = SqliteStorage::connect(config.max_connections(1)).await.unwrap();
    sqlx::query("PRAGMA max_page_count = 200").execute(outbox.pool()).await.unwrap();
    let large = || pillarbox_core::Message::to("orders.created").payload(vec![7_u8; 20_000]).unwrap();
    let mut stored = 0;
    let full = loop {
        match outbox.enqueue_alone(&[large(), large()]).await {
            Ok(()) => stored += 2,
            Err(error) => break error,
        }
        assert!(stored < 1_000, "the disk is never full");
    };
    assert_eq!(
        (full.kind(), full.effect()),
        (ErrorKind::Unavailable, Effect::NotApplied),
        "{}",
        full.report()
    );
    assert!(full.to_string().contains("disk is full"), "{full}");
    let mut delivered = 0;
    for _ in 0..50 {
        let claimed = outbox.claim(ask(100)).await.unwrap();
        delivered += claimed.entries.len();
        settle_all(&outbox, &claimed, &Verdict::Published).await;
    }
    assert_eq!(delivered, stored, "what was acknowledged is there, and nothing of what was refused");
    let limit: i64 = sqlx::query_scalar("PRAGMA max_page_count").fetch_one(outbox.pool()).await.unwrap();
    assert_eq!(limit, 200, "there was no more room for relays than for producers");
    outbox.enqueue_alone(&[large(), large()]).await.unwrap();
}

/// A claim that is dropped at any point leaves nothing that another cannot have, at the latest after its lease.
#[tokio::test]
async fn dropped_claims_strand_nothing() {
    let clock = TestClock::new();
    let (_folder, config) = sqlite(&OutboxSettings::default());
    SqliteStorage::migrate(&config).await.unwrap();
    let outbox = SqliteStorage::connect(config.test_clock(clock.clone())).await.unwrap();
    outbox.enqueue_alone(&(0..20).map(|_| message(None)).collect::<Vec<_>>()).await.unwrap();
    for micros in (0..3_000).step_by(100) {
        let _ = tokio::time::timeout(Duration::from_micros(micros), outbox.claim(ask(5))).await;
    }
    clock.advance(Duration::from_secs(60));
    let mut delivered = HashSet::new();
    for _ in 0..200 {
        let mut claimed = outbox.claim(ask(5)).await.unwrap();
        if claimed.runs.is_empty() && claimed.suspects > 0 {
            claimed = outbox.claim(Claim { solo: true, ..ask(1) }).await.unwrap();
        }
        for entry in &claimed.entries {
            if let pillarbox_core::Content::Message(message) = &entry.content {
                delivered.insert(message.id());
            }
        }
        settle_all(&outbox, &claimed, &Verdict::Published).await;
    }
    assert_eq!(delivered.len(), 20);
}

/// No credential in anything that an outbox says of itself or of its failures.
#[tokio::test]
async fn no_credential_is_ever_shown() {
    const SECRET: &str = "hunter2";
    let port = pillarbox_testkit::servers::free_port().unwrap();
    for form in ["postgres", "mysql"] {
        let url = format!("{form}://me:{SECRET}@127.0.0.1:{port}/database?outbox.connect_timeout=500ms");
        let (shown, error) = match form {
            "postgres" => {
                let config = SqlConfig::<Postgres>::from_url(&url).unwrap();
                (format!("{config:?}"), PostgresStorage::connect(config).await.unwrap_err())
            }
            _ => {
                let config = SqlConfig::<MySql>::from_url(&url).unwrap();
                (format!("{config:?}"), MySqlStorage::connect(config).await.unwrap_err())
            }
        };
        assert_eq!(error.kind(), ErrorKind::Unavailable, "{}", error.report());
        let all = format!("{shown} {error} {error:?} {}", error.report());
        assert!(all.contains(&port.to_string()) && !all.contains(SECRET), "{all}");
        for (wrong, part) in [
            ("outbox.nam=x", "did you mean `outbox.name`?"),
            ("outbox.name=A-B", "`outbox.name`"),
            ("outbox.max_strikes=0", "`outbox.max_strikes`"),
            ("outbox.max_connections=0", "`outbox.max_connections`"),
            ("outbox.connect_timeout=0s", "`outbox.connect_timeout`"),
            ("passwort=hunter2", "`passwort` is no option"),
        ] {
            let url = format!("{form}://me:{SECRET}@127.0.0.1:{port}/database?{wrong}");
            let error = match form {
                "postgres" => SqlConfig::<Postgres>::from_url(&url).unwrap_err(),
                _ => SqlConfig::<MySql>::from_url(&url).unwrap_err(),
            };
            let all = format!("{error:?} {}", error.report());
            assert_eq!(error.kind(), ErrorKind::Misconfigured, "{all}");
            assert!(all.contains(part) && !all.contains(SECRET), "{all}");
        }
    }
}

/// The schema is checked, and settings have to agree.
#[tokio::test]
async fn an_outbox_is_checked_when_it_is_opened() {
    let (_folder, config) = sqlite(&OutboxSettings::default());
    let missing = SqliteStorage::connect(config.clone()).await.unwrap_err();
    assert_eq!(missing.kind(), ErrorKind::Misconfigured, "{}", missing.report());
    assert!(missing.to_string().contains("pillarbox migrate"), "{missing}");
    assert_eq!(SqliteStorage::migrate(&config).await.unwrap(), [1]);
    assert!(SqliteStorage::migrate(&config).await.unwrap().is_empty());
    let outbox = SqliteStorage::connect(config.clone()).await.unwrap();
    let other = SqliteStorage::connect(config.clone().max_strikes(7)).await.unwrap_err();
    assert!(other.to_string().contains("`outbox.max_strikes` is \"7\""), "{other}");
    sqlx::query("UPDATE pillarbox_setting SET value = '2' WHERE name = 'schema_version'")
        .execute(outbox.pool())
        .await
        .unwrap();
    for error in [
        SqliteStorage::connect(config.clone()).await.unwrap_err(),
        SqliteStorage::migrate(&config).await.unwrap_err(),
    ] {
        assert!(
            error.to_string().contains("version 2") && error.to_string().contains("update it"),
            "{error}"
        );
    }
}
