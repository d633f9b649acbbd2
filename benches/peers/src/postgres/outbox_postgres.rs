use crate::peer::{Measured, Peer, payload};
use ::outbox_postgres::PostgresOutbox;
use async_trait::async_trait;
use outbox_core::prelude::{Event, OutboxConfig, OutboxError, OutboxManagerBuilder, Transport};
use pillarbox_benches::BoxError;
use sqlx::postgres::{PgPool, PgPoolOptions};
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Instant;
use tokio::sync::watch;

/// The table, the index and the trigger that outbox-postgres asks for in its documentation.
const SCHEMA: &str = "
    CREATE TYPE status AS ENUM ('Pending', 'Processing', 'Sent');
    CREATE TABLE outbox_events (
        id uuid PRIMARY KEY DEFAULT gen_random_uuid(), idempotency_token text DEFAULT NULL,
        event_type text NOT NULL, payload jsonb NOT NULL, status status NOT NULL DEFAULT 'Pending',
        created_at timestamptz NOT NULL DEFAULT now(), locked_until timestamptz NOT NULL DEFAULT '-infinity');
    CREATE INDEX idx_outbox_processing_queue ON outbox_events (locked_until ASC, status)
        WHERE status IN ('Pending', 'Processing');
    CREATE UNIQUE INDEX idx_outbox_idempotency ON outbox_events (idempotency_token);
    CREATE OR REPLACE FUNCTION notify_outbox_event() RETURNS trigger AS $$
        BEGIN PERFORM pg_notify('outbox_event', 'ping'); RETURN new; END; $$ LANGUAGE plpgsql;
    CREATE TRIGGER outbox_events_notify_trigger AFTER INSERT OR UPDATE ON outbox_events
        FOR EACH ROW EXECUTE FUNCTION notify_outbox_event();";

/// outbox-core with outbox-postgres: claims a batch, sends one by one, marks the batch.
pub(crate) struct OutboxPostgres {
    pool: PgPool,
    batch: u32,
}

impl OutboxPostgres {
    pub(crate) async fn connect(url: &str, batch: u32) -> Result<Self, BoxError> {
        let pool = PgPoolOptions::new().max_connections(4).connect(url).await?;
        sqlx::raw_sql(SCHEMA).execute(&pool).await?;
        Ok(Self { pool, batch })
    }
}

/// A receiver that counts, and says when all are there.
struct Receiver {
    published: AtomicU32,
    wanted: u32,
    all: watch::Sender<Option<Instant>>,
}

#[async_trait]
impl Transport<String> for Receiver {
    async fn publish(&self, event: Event<String>) -> Result<(), OutboxError> {
        drop(event);
        if self.published.fetch_add(1, Ordering::Relaxed) + 1 == self.wanted {
            self.all.send_replace(Some(Instant::now()));
        }
        Ok(())
    }
}

#[async_trait(?Send)]
impl Peer for OutboxPostgres {
    fn name(&self) -> &'static str {
        "outbox-postgres 0.3"
    }

    fn promises_less(&self) -> &'static str {
        "lease of minutes, not renewed; no fence, no order per key; the rows stay"
    }

    fn part(&self) -> u32 {
        3
    }

    async fn drain(&mut self, messages: u32) -> Result<Measured, BoxError> {
        sqlx::query("TRUNCATE outbox_events").execute(&self.pool).await?;
        sqlx::query(
            "INSERT INTO outbox_events (event_type, payload)
             SELECT 'orders.created', to_jsonb($2::text) FROM generate_series(1, $1)",
        )
        .bind(i64::from(messages))
        .bind(payload())
        .execute(&self.pool)
        .await?;
        let mut config = OutboxConfig::default();
        config.batch_size = self.batch;
        let config = Arc::new(config);
        let (all, mut ended) = watch::channel(None);
        let receiver = Arc::new(Receiver { published: AtomicU32::new(0), wanted: messages, all });
        let (stop, stopped) = watch::channel(false);
        let manager = OutboxManagerBuilder::new()
            .storage(Arc::new(PostgresOutbox::<String>::new(self.pool.clone(), Arc::clone(&config))))
            .publisher(Arc::clone(&receiver))
            .config(config)
            .shutdown_rx(stopped)
            .build()?;
        let begun = Instant::now();
        let running = tokio::spawn(manager.run());
        // Its last mark is not waited for.
        let at = ended.wait_for(Option::is_some).await?.unwrap_or(begun);
        stop.send_replace(true);
        running.await??;
        Ok(Measured { drained: receiver.published.load(Ordering::Relaxed), took: at.duration_since(begun) })
    }
}
