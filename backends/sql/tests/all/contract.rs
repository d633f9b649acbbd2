//! The contract for producers in other languages: plain SQL, as the documentation of `layout` says.

use crate::clients::{Client, Own};
use crate::support::{ask, ids, mariadb, message, opened, postgres, postgres_server, settle_all, sqlite};
use pillarbox_core::{Content, ErrorKind, Storage, Verdict, Wakeup as _};
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

/// Another driver writes business data and the documented statement in one transaction, twice: once it commits, once it does not.
async fn another_driver_enqueues<D: Dialect>(client: Client)
where
    SqlStorage<D>: Storage,
{
    let client = Own::new(client);
    let outbox = opened(SqlConfig::<D>::from_url(&client.url()).unwrap()).await;
    client.run("CREATE TABLE orders (number INTEGER)");
    let statement = documented::<D>(outbox.name());
    let (begin, end) = ("BEGIN;\nINSERT INTO orders VALUES (1);\n", "COMMIT;\n");
    client.run(&format!("{begin}{}{end}", statement.replace("0123456789ab", "0123456789ac")));
    client.run(&format!("{begin}{statement}ROLLBACK;\n"));
    let claimed = outbox.claim(ask(10)).await.unwrap();
    let delivered: Vec<_> = ids(&claimed).iter().map(ToString::to_string).collect();
    assert_eq!(delivered, ["018f4e5e-7b1c-7cc0-a0a0-0123456789ac"], "what was committed, and nothing else");
    settle_all(&outbox, &claimed, &Verdict::Published).await;
}

#[tokio::test]
async fn another_driver_enqueues_on_sqlite() {
    another_driver_enqueues::<sqlx::Sqlite>(Client::Python).await;
}

#[tokio::test]
async fn another_driver_enqueues_on_postgres() {
    another_driver_enqueues::<sqlx::Postgres>(Client::Psql).await;
}

#[tokio::test]
async fn another_driver_enqueues_on_mariadb() {
    another_driver_enqueues::<sqlx::MySql>(Client::MariaDb).await;
}

/// A producer's user needs to insert messages and to read settings, and may do nothing else.
#[tokio::test]
async fn a_producer_needs_two_rights() {
    let config = postgres(&OutboxSettings::default());
    let outbox = opened(config.clone()).await;
    let name = outbox.name().to_owned();
    let rights = format!(
        "CREATE ROLE {name}_producer LOGIN; GRANT INSERT ON {name}_message TO {name}_producer; GRANT SELECT ON {name}_setting TO {name}_producer"
    );
    sqlx::raw_sql(sqlx::AssertSqlSafe(rights)).execute(outbox.pool()).await.unwrap();
    let url = postgres_server().url().replace("//postgres@", &format!("//{name}_producer@"));
    let producer = SqlStorage::connect(SqlConfig::<sqlx::Postgres>::from_url(&url).unwrap().name(&name));
    let producer = producer.await.unwrap();
    let sent = message(Some("key"));
    producer.enqueue_alone(std::slice::from_ref(&sent)).await.unwrap();
    let refused = producer.claim(ask(10)).await.unwrap_err();
    assert_eq!(refused.kind(), ErrorKind::Misconfigured, "{}", refused.report());
    assert_eq!(ids(&outbox.claim(ask(10)).await.unwrap()), [sent.id()]);
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
