//! Looking into Spakky's table and mending it.

use super::SpakkyStorage;
use super::record::{content, id_of};
use crate::session::Failure;
use pillarbox_core::{
    Admin, Affected, BoxFuture, Content, Cursor, Error, ErrorKind, Filter, ListState, Listing, MessageId,
    Page, Stats, Stored, Text, Timestamp,
};
use sqlx::Row as _;
use sqlx::postgres::PgRow;
use std::time::Duration;
use uuid::Uuid;

/// A page has at most so many messages.
const LONGEST_PAGE: u32 = 1_000;
const COLUMNS: &str = "SELECT uuid_send(id), event_name, payload, headers::text, (extract(epoch FROM created_at) * 1000000)::bigint, retry_count FROM spakky_event_outbox ";

impl SpakkyStorage {
    /// Dead letters behind an id, in the order of ids.
    async fn dead(&self, behind: Uuid, filter: &Filter, limit: u32) -> Result<Vec<PgRow>, sqlx::Error> {
        let ids: Vec<Uuid> = filter.ids.iter().map(|id| *id.as_uuid()).collect();
        sqlx::query(sqlx::AssertSqlSafe(format!(
            "{COLUMNS} WHERE published_at IS NULL AND retry_count >= $1 AND id > $2 AND (cardinality($3::uuid[]) = 0 OR id = ANY($3)) ORDER BY id LIMIT $4"
        )))
        .bind(self.0.max_retries)
        .bind(behind)
        .bind(ids)
        .bind(i64::from(limit))
        .fetch_all(&self.0.pool)
        .await
    }

    /// Dead letters that match, and whether more do.
    async fn matching(&self, filter: &Filter, limit: u32) -> Result<(Vec<Uuid>, bool), sqlx::Error> {
        let (mut found, mut behind) = (Vec::new(), Uuid::nil());
        loop {
            let rows = self.dead(behind, filter, LONGEST_PAGE).await?;
            for row in &rows {
                behind = id_of(row)?;
                if filter.matches(&stored(row)?) {
                    if found.len() == limit as usize {
                        return Ok((found, true));
                    }
                    found.push(behind);
                }
            }
            if rows.len() < LONGEST_PAGE as usize {
                return Ok((found, false));
            }
        }
    }

    async fn mend(
        &self,
        filter: &Filter,
        limit: u32,
        dry_run: bool,
        sql: &'static str,
    ) -> Result<Affected, Failure> {
        let (found, more) = self.matching(filter, limit).await?;
        if dry_run || found.is_empty() {
            return Ok(Affected { count: found.len() as u64, more });
        }
        let done = sqlx::query(sql).bind(&found).bind(self.0.max_retries).execute(&self.0.pool).await?;
        Ok(Affected { count: done.rows_affected(), more })
    }
}

impl Admin for SpakkyStorage {
    fn stats(&self) -> BoxFuture<'_, Result<Stats, Error>> {
        Box::pin(self.retried("stats", || async {
            let (mut transaction, now) = self.begin().await?;
            let row = sqlx::query(
                "SELECT count(*) FILTER (WHERE published_at IS NULL AND retry_count < $1), \
                 count(*) FILTER (WHERE published_at IS NULL AND retry_count < $1 AND (extract(epoch FROM claimed_at) * 1000000)::bigint >= $2), \
                 count(*) FILTER (WHERE published_at IS NULL AND retry_count >= $1), count(*) FILTER (WHERE published_at IS NOT NULL) \
                 FROM spakky_event_outbox",
            )
            .bind(self.0.max_retries)
            .bind(now.before(self.0.claim_timeout).as_micros())
            .fetch_one(&mut *transaction)
            .await?;
            transaction.roll_back().await;
            let number = |column| Ok::<_, sqlx::Error>(row.try_get::<i64, _>(column)?.unsigned_abs());
            let (open, claimed) = (number(0)?, number(1)?);
            let (dead, published) = (number(2)?, number(3)?);
            // A delay and a claim look the same in this table.
            Ok(Stats { pending: open - claimed, claimed, dead, published, ..Stats::default() })
        }))
    }

    fn list(&self, listing: Listing) -> BoxFuture<'_, Result<Page, Error>> {
        Box::pin(async move {
            if listing.state != ListState::Dead {
                return Err(Error::new(ErrorKind::Misconfigured, "list")
                    .describe("only dead letters can be listed in Spakky's table")
                    .not_applied());
            }
            let behind = listing
                .cursor
                .as_ref()
                .map_or(Ok(Uuid::nil()), |cursor| Uuid::parse_str(&cursor.0))
                .map_err(|_| {
                    Error::new(ErrorKind::Misconfigured, "list")
                        .describe("the cursor is none of this outbox's")
                        .not_applied()
                })?;
            let limit = listing.limit.clamp(1, LONGEST_PAGE);
            let all: Vec<Stored> = self
                .retried("list", || async {
                    let rows = self.dead(behind, &listing.filter, limit).await?;
                    Ok(rows.iter().map(stored).collect::<Result<_, _>>()?)
                })
                .await?;
            let last = all.last().and_then(Stored::id).filter(|_| all.len() == limit as usize);
            let next = last.map(|id| Cursor(Text::from(id.to_string())));
            Ok(Page { messages: all.into_iter().filter(|one| listing.filter.matches(one)).collect(), next })
        })
    }

    fn get(&self, id: MessageId) -> BoxFuture<'_, Result<Option<Stored>, Error>> {
        Box::pin(self.retried("get", move || async move {
            let sql = format!(
                "{COLUMNS} WHERE id = $1 AND published_at IS NULL AND (retry_count >= $2 OR claimed_at IS NOT NULL)"
            );
            let found = sqlx::query(sqlx::AssertSqlSafe(sql)).bind(*id.as_uuid()).bind(self.0.max_retries);
            Ok(found.fetch_optional(&self.0.pool).await?.as_ref().map(stored).transpose()?)
        }))
    }

    fn redrive(&self, filter: Filter, limit: u32, dry_run: bool) -> BoxFuture<'_, Result<Affected, Error>> {
        let sql = "UPDATE spakky_event_outbox SET retry_count = 0, claimed_at = NULL WHERE id = ANY($1) AND published_at IS NULL AND retry_count >= $2";
        Box::pin(async move { self.retried("redrive", || self.mend(&filter, limit, dry_run, sql)).await })
    }

    fn discard(&self, filter: Filter, limit: u32, dry_run: bool) -> BoxFuture<'_, Result<Affected, Error>> {
        let sql = "DELETE FROM spakky_event_outbox WHERE id = ANY($1) AND published_at IS NULL AND retry_count >= $2";
        Box::pin(async move { self.retried("discard", || self.mend(&filter, limit, dry_run, sql)).await })
    }

    fn purge_published(&self, older_than: Duration, limit: u32) -> BoxFuture<'_, Result<u64, Error>> {
        Box::pin(self.retried("purge", move || async move {
            let (mut transaction, now) = self.begin().await?;
            let done = sqlx::query(
                "DELETE FROM spakky_event_outbox WHERE id IN (SELECT id FROM spakky_event_outbox \
                 WHERE published_at IS NOT NULL AND (extract(epoch FROM published_at) * 1000000)::bigint < $1 LIMIT $2 FOR UPDATE SKIP LOCKED)",
            )
            .bind(now.before(older_than).as_micros())
            .bind(i64::from(limit))
            .execute(&mut *transaction)
            .await?;
            transaction.commit().await?;
            Ok(done.rows_affected())
        }))
    }
}

fn stored(row: &PgRow) -> Result<Stored, sqlx::Error> {
    let attempts = row.try_get::<i32, _>(5)?;
    let content: Content = content(row)?;
    let none: Option<Timestamp> = None;
    let attempts = u32::try_from(attempts).unwrap_or(0);
    Ok(Stored { content, attempts, strikes: 0, due_at: none, died_at: none, reason: None })
}
