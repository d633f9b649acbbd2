//! The contract for producers in other languages: plain SQL, as the documentation of `layout` says.

use crate::support::{ask, mariadb, postgres, settle_all, sqlite};
use pillarbox_core::{Content, Storage, Verdict, Wakeup as _};
use pillarbox_sql::{Dialect, SqlConfig, SqlStorage};
use pillarbox_testkit::storage::OutboxSettings;
use std::time::Duration;

/// The statement of the documentation, with the outbox's name and the id as this database writes it.
fn documented<D: Dialect>(name: &str) -> String {
    let documentation = include_str!("../../src/layout.rs");
    let (_, rest) = documentation.split_once("//! ```sql\n").unwrap();
    let (statement, _) = rest.split_once("//! ```").unwrap();
    let statement = statement.replace("//! ", "").replace("pillarbox_message", &format!("{name}_message"));
    let statement = match D::PRODUCT {
        "SQLite" => statement.replace(r#"'{"total":12}'"#, r#"CAST('{"total":12}' AS BLOB)"#),
        _ => statement,
    };
    match D::NUMBERED {
        true => statement,
        false => {
            statement.replace("'018f4e5e-7b1c-7cc0-a0a0-0123456789ab'", "x'018f4e5e7b1c7cc0a0a00123456789ab'")
        }
    }
}

async fn plain_sql_enqueues<D: Dialect>(config: SqlConfig<D>)
where
    SqlStorage<D>: Storage,
{
    SqlStorage::migrate(&config).await.unwrap();
    let outbox = SqlStorage::connect(config).await.unwrap();
    let mut connection = outbox.pool().acquire().await.unwrap();
    D::script(&mut connection, documented::<D>(outbox.name())).await.unwrap();
    // Only what may not be left out, as text that is no JSON.
    let id = match D::NUMBERED {
        true => "'018f4e5e-7b1c-7cc0-a0a0-0123456789ac'",
        false => "x'018f4e5e7b1c7cc0a0a00123456789ac'",
    };
    let payload = if D::NUMBERED { "'\\x00ff'" } else { "x'00ff'" };
    let least =
        format!("INSERT INTO {}_message (id, topic, payload) VALUES ({id}, 'a', {payload})", outbox.name());
    D::script(&mut connection, least).await.unwrap();
    let claimed = outbox.claim(ask(10)).await.unwrap();
    let mut messages: Vec<_> = claimed
        .entries
        .iter()
        .map(|entry| match &entry.content {
            Content::Message(message) => message.clone(),
            Content::Undecodable(record) => panic!("{}", record.reason),
        })
        .collect();
    messages.sort_by_key(|message| message.id().to_string());
    let [full, least] = &messages[..] else { panic!("{messages:?}") };
    assert_eq!(full.id().to_string(), "018f4e5e-7b1c-7cc0-a0a0-0123456789ab");
    assert_eq!(full.topic().to_string(), "orders.created");
    assert_eq!(full.key().map(ToString::to_string).as_deref(), Some("order-1"));
    let headers: Vec<_> =
        full.headers().iter().map(|(name, value)| (name.to_string(), value.to_string())).collect();
    let traceparent = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01";
    assert_eq!(headers, [("traceparent".to_owned(), traceparent.to_owned())]);
    assert_eq!(&full.payload()[..], br#"{"total":12}"#);
    assert_eq!(full.content_type().map(ToString::to_string).as_deref(), Some("application/json"));
    // Within a day of the database's own time: a wrong unit would be centuries away.
    assert!(claimed.now.since(full.created_at()) < Duration::from_secs(86_400), "{:?}", full.created_at());
    assert_eq!(
        (&least.payload()[..], least.key().is_none(), least.headers().is_empty()),
        (&[0, 255][..], true, true)
    );
    settle_all(&outbox, &claimed, &Verdict::Published).await;
    assert!(outbox.claim(ask(10)).await.unwrap().entries.is_empty());
}

#[tokio::test]
async fn plain_sql_enqueues_on_sqlite() {
    let (_folder, config) = sqlite(&OutboxSettings::default());
    plain_sql_enqueues(config).await;
}

#[tokio::test]
async fn plain_sql_enqueues_on_postgres() {
    plain_sql_enqueues(postgres(&OutboxSettings::default())).await;
}

#[tokio::test]
async fn plain_sql_enqueues_on_mariadb() {
    plain_sql_enqueues(mariadb(&OutboxSettings::default())).await;
}

/// A plain `NOTIFY` in the producer's transaction wakes a waiting relay.
#[tokio::test]
async fn a_plain_notify_wakes() {
    let config = postgres(&OutboxSettings::default());
    SqlStorage::migrate(&config).await.unwrap();
    let outbox = SqlStorage::connect(config).await.unwrap();
    let mut hints = outbox.subscribe();
    // The first one says only that it listens now.
    hints.hinted().await;
    let mut transaction = outbox.pool().begin().await.unwrap();
    sqlx::raw_sql(sqlx::AssertSqlSafe(format!("NOTIFY {}", outbox.name())))
        .execute(&mut *transaction)
        .await
        .unwrap();
    transaction.commit().await.unwrap();
    tokio::time::timeout(Duration::from_secs(60), hints.hinted()).await.expect("a hint");
}
