//! Retention in partitions, on PostgreSQL: a table of published messages of which whole partitions are dropped, which leaves nothing for
//! vacuum to do.
//!
//! A settlement moves what was published into the partition of its time, or, where there is none, into the rest, so that nothing
//! depends on partitions being made in time. They are made ahead by a migration and by each purge.

use crate::SqlConfig;
use crate::SqlStorage;
use crate::dialect::Dialect;
use crate::layout::Tables;
use crate::session::{Failure, arguments, words};
use pillarbox_core::Timestamp;
use std::time::Duration;

/// A partition is made or dropped at once, or another time: who waits for a table holds up everybody behind.
const PATIENCE: &str = "SET LOCAL lock_timeout = '1s'";
/// So many partitions are made ahead.
const AHEAD: i64 = 2;
/// Takes published messages out of the outbox's table and puts them into the other. Arguments: the time, and the places.
pub(crate) const MOVE: &str = "WITH gone AS (DELETE FROM {message} m USING (SELECT ?::bigint AS at) now WHERE m.seq @ \
    RETURNING seq, id, topic, ordering_key, headers, payload, content_type, created_at, deliver_at, enqueued_at, attempts, now.at) \
    INSERT INTO {published} (seq, id, topic, ordering_key, headers, payload, content_type, created_at, deliver_at, enqueued_at, attempts, published_at) \
    SELECT * FROM gone";
/// How many there are: of partitions as the database estimates, of the rest exactly.
pub(crate) const COUNT: &str = "SELECT (SELECT coalesce(sum(greatest(c.reltuples, 0)), 0)::bigint FROM pg_inherits i JOIN pg_class c ON c.oid = i.inhrelid \
    WHERE i.inhparent = '{published}'::regclass AND c.oid <> '{published}_rest'::regclass) + (SELECT count(*) FROM {published}_rest)";
/// The partitions: name and bounds, in order.
const LIST: &str = "SELECT name, begins, ends FROM (SELECT c.oid::regclass::text AS name, \
    (regexp_match(pg_get_expr(c.relpartbound, c.oid), 'FROM \\(''(\\d+)''\\)'))[1]::bigint AS begins, \
    (regexp_match(pg_get_expr(c.relpartbound, c.oid), 'TO \\(''(\\d+)''\\)'))[1]::bigint AS ends \
    FROM pg_inherits i JOIN pg_class c ON c.oid = i.inhrelid WHERE i.inhparent = '{published}'::regclass) p \
    WHERE ends IS NOT NULL ORDER BY ends";

/// A partition by its name, and when it ends.
struct Partition {
    name: String,
    ends: i64,
}

async fn list<D: Dialect>(
    connection: &mut D::Connection,
    tables: &Tables,
) -> Result<Vec<Partition>, sqlx::Error> {
    let rows = D::query(connection, tables.fill(LIST), Vec::new(), false).await?;
    let read = |row: &D::Row| -> Result<Partition, sqlx::Error> {
        Ok(Partition {
            name: D::text(row, 0)?.unwrap_or_default(),
            ends: D::int(row, 2)?.unwrap_or_default(),
        })
    };
    rows.iter().map(read).collect()
}

/// Makes the partitions of this time and the next ones, where the outbox has any.
pub(crate) async fn make_ahead<D: Dialect>(
    connection: &mut D::Connection,
    config: &SqlConfig<D>,
    length: Duration,
) -> Result<(), sqlx::Error> {
    let tables = Tables::new(&config.name);
    D::script(connection, PATIENCE.to_owned()).await?;
    let now = format!("SELECT {} + ?", D::NOW);
    let now =
        D::query(connection, words::<D>(&tables, &now), arguments![config.clock_offset()], false).await?;
    let now = now.first().map(|row| D::int(row, 0)).transpose()?.flatten().unwrap_or_default();
    let length = i64::try_from(length.as_micros()).unwrap_or(i64::MAX);
    let last = list::<D>(connection, &tables).await?.last().map_or(i64::MIN, |partition| partition.ends);
    let aligned = |time: i64| time.div_euclid(length).saturating_mul(length);
    let mut begins = aligned(now).max(last);
    while begins <= aligned(now).saturating_add(AHEAD.saturating_mul(length)) {
        let ends = aligned(begins).saturating_add(length);
        // What was published before there was a partition for it stays in the rest.
        let taken = format!(
            "SELECT CASE WHEN EXISTS (SELECT 1 FROM {{published}}_rest WHERE published_at >= {begins} AND published_at < {ends}) THEN 1 ELSE 0 END"
        );
        let taken = D::query(connection, tables.fill(&taken), Vec::new(), false).await?;
        if taken.first().map(|row| D::int(row, 0)).transpose()?.flatten() == Some(0) {
            let name = format!("{{published}}_{}", begins / 1_000_000);
            let make = format!(
                "CREATE TABLE {name} PARTITION OF {{published}} FOR VALUES FROM ('{begins}') TO ('{ends}')"
            );
            D::script(connection, tables.fill(&make)).await?;
        }
        begins = ends;
    }
    Ok(())
}

/// Drops the oldest partition whose messages are all older, or deletes as many old ones of the rest. Answers how many are gone.
pub(crate) async fn purge<D: Dialect>(
    storage: &SqlStorage<D>,
    length: Duration,
    older_than: Duration,
    limit: u32,
) -> Result<u64, Failure> {
    let tables = &storage.0.tables;
    let mut making = storage.begin().await?;
    make_ahead::<D>(making.connection(), &storage.0.config, length).await?;
    making.commit().await?;
    let mut session = storage.begin().await?;
    D::script(session.connection(), PATIENCE.to_owned()).await?;
    let before: Timestamp = session.now(storage.now_offset()).await?.before(older_than);
    let mut gone = 0;
    for partition in list::<D>(session.connection(), tables).await? {
        if gone > 0 || partition.ends > before.as_micros() {
            break;
        }
        let count = format!("SELECT count(*) FROM {}", partition.name);
        let rows = session.rows_once(&count, Vec::new()).await?;
        gone =
            rows.first().map(|row| D::int(row, 0)).transpose()?.flatten().unwrap_or_default().unsigned_abs();
        D::script(session.connection(), format!("DROP TABLE {}", partition.name)).await?;
    }
    if gone == 0 {
        let sql = "DELETE FROM {published}_rest WHERE ctid = ANY(ARRAY(SELECT ctid FROM {published}_rest WHERE published_at < ? LIMIT ? FOR UPDATE SKIP LOCKED))";
        gone = session.execute(sql, arguments![before.as_micros(), i64::from(limit)]).await?;
    }
    session.commit().await?;
    Ok(gone)
}
