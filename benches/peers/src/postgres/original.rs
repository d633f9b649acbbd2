use crate::peer::{Measured, Peer, payload};
use async_trait::async_trait;
use pillarbox_benches::BoxError;
use sqlx::Row as _;
use sqlx::postgres::{PgPool, PgPoolOptions, PgRow};
use std::time::Instant;

/// The algorithm of the Python framework Spakky, with its statements: claim 100, then send one by one and mark one by one, a transaction
/// each.
pub(crate) struct Original(PgPool);

const BATCH: i64 = 100;

impl Original {
    pub(crate) async fn connect(url: &str) -> Result<Self, BoxError> {
        let pool = PgPoolOptions::new().max_connections(2).connect(url).await?;
        sqlx::raw_sql(
            "CREATE TABLE spakky_event_outbox (
                 id uuid PRIMARY KEY, event_name varchar(255) NOT NULL, payload bytea NOT NULL,
                 headers jsonb NOT NULL DEFAULT '{}', created_at timestamptz NOT NULL,
                 published_at timestamptz, retry_count integer NOT NULL DEFAULT 0, claimed_at timestamptz);
             CREATE INDEX spakky_event_outbox_pending ON spakky_event_outbox (published_at, created_at)",
        )
        .execute(&pool)
        .await?;
        Ok(Self(pool))
    }

    async fn claim(&self) -> Result<Vec<PgRow>, sqlx::Error> {
        let mut transaction = self.0.begin().await?;
        let rows = sqlx::query(
            "UPDATE spakky_event_outbox SET claimed_at = now() WHERE id IN (
                 SELECT id FROM spakky_event_outbox
                 WHERE published_at IS NULL AND retry_count < 5
                     AND (claimed_at IS NULL OR claimed_at < now() - interval '300 seconds')
                 ORDER BY created_at LIMIT $1 FOR UPDATE SKIP LOCKED)
             RETURNING id, event_name, payload, headers",
        )
        .bind(BATCH)
        .fetch_all(&mut *transaction)
        .await?;
        transaction.commit().await?;
        Ok(rows)
    }

    async fn mark(&self, row: &PgRow) -> Result<(), sqlx::Error> {
        let mut transaction = self.0.begin().await?;
        sqlx::query("UPDATE spakky_event_outbox SET published_at = now() WHERE id = $1")
            .bind(row.get::<sqlx::types::Uuid, _>("id"))
            .execute(&mut *transaction)
            .await?;
        transaction.commit().await
    }
}

#[async_trait(?Send)]
impl Peer for Original {
    fn name(&self) -> &'static str {
        "original's algorithm"
    }

    fn promises_less(&self) -> &'static str {
        "claims are not renewed, no fence, no order per key; the rows stay"
    }

    fn part(&self) -> u32 {
        10
    }

    async fn drain(&mut self, messages: u32) -> Result<Measured, BoxError> {
        sqlx::query("TRUNCATE spakky_event_outbox").execute(&self.0).await?;
        sqlx::query(
            "INSERT INTO spakky_event_outbox (id, event_name, payload, created_at)
             SELECT gen_random_uuid(), 'orders.created', $2, clock_timestamp() FROM generate_series(1, $1)",
        )
        .bind(i64::from(messages))
        .bind(payload().into_bytes())
        .execute(&self.0)
        .await?;
        let (begun, mut drained) = (Instant::now(), 0);
        loop {
            let rows = self.claim().await?;
            if rows.is_empty() {
                return Ok(Measured { drained, took: begun.elapsed() });
            }
            for row in &rows {
                // Here it sends, to a receiver that takes everything at once.
                self.mark(row).await?;
                drained += 1;
            }
        }
    }
}
