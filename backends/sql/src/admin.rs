//! Looking into an outbox and mending it.

use crate::SqlStorage;
use crate::dialect::{Argument, Dialect};
use crate::keys::{self, Held};
use crate::lane::{self, Lane};
use crate::layout::{in_list, state};
use crate::partitions;
use crate::record::{Read, Row};
use crate::session::{Failure, Session, arguments};
use pillarbox_core::{
    Admin, Affected, BoxFuture, Cursor, Error, ErrorKind, Filter, ListState, Listing, MessageId, Page, Stats,
    Stored, Text, Timestamp,
};
use std::collections::HashSet;
use std::time::Duration;

/// A page has at most so many messages.
const LONGEST_PAGE: u32 = 1_000;
/// So many dead letters are read at a time.
const BATCH: usize = 500;

impl<D: Dialect> Admin for SqlStorage<D> {
    fn stats(&self) -> BoxFuture<'_, Result<Stats, Error>> {
        Box::pin(self.retried("stats", || stats(self)))
    }

    fn list(&self, listing: Listing) -> BoxFuture<'_, Result<Page, Error>> {
        Box::pin(async move {
            if listing.state == ListState::Pending && !listing.filter.is_all() {
                return Err(Error::new(ErrorKind::Misconfigured, "list")
                    .describe("pending messages cannot be filtered; leave the filter out")
                    .not_applied());
            }
            self.retried("list", || list(self, &listing)).await
        })
    }

    fn get(&self, id: MessageId) -> BoxFuture<'_, Result<Option<Stored>, Error>> {
        Box::pin(self.retried("get", move || async move {
            let mut session = self.begin().await?;
            let now = session.now(self.now_offset()).await?;
            let condition = format!("WHERE kept_id = {} AND state <> 4 ORDER BY seq LIMIT 1", D::ID_ARGUMENT);
            let found = session.messages(Read::All, &condition, arguments![&id.to_bytes()[..]], true).await?;
            session.roll_back().await;
            Ok(found.into_iter().next().map(|row| row.into_stored(now)))
        }))
    }

    fn redrive(&self, filter: Filter, limit: u32, dry_run: bool) -> BoxFuture<'_, Result<Affected, Error>> {
        Box::pin(async move { self.retried("redrive", || mend(self, &filter, limit, dry_run, true)).await })
    }

    fn discard(&self, filter: Filter, limit: u32, dry_run: bool) -> BoxFuture<'_, Result<Affected, Error>> {
        Box::pin(async move { self.retried("discard", || mend(self, &filter, limit, dry_run, false)).await })
    }

    fn purge_published(&self, older_than: Duration, limit: u32) -> BoxFuture<'_, Result<u64, Error>> {
        Box::pin(async move {
            match self.0.settings.published_partitions {
                Some(length) => {
                    self.retried("purge", || partitions::purge(self, length, older_than, limit)).await
                }
                None => self.retried("purge", || purge(self, older_than, limit)).await,
            }
        })
    }
}

impl Row {
    fn into_stored(self, now: Timestamp) -> Stored {
        let is_dead = matches!(self.state, state::DEAD | state::DEAD_AND_HOLDS);
        let due_at = match self.state {
            0 => self.deliver_at,
            _ => self.due_at,
        };
        Stored {
            content: self.content,
            attempts: self.attempts,
            strikes: self.strikes,
            due_at: due_at.map(Timestamp::from_micros).filter(|due| !is_dead && *due > now),
            died_at: self.ended_at.filter(|_| is_dead).map(Timestamp::from_micros),
            reason: self.reason.map(Text::from),
        }
    }
}

async fn stats<D: Dialect>(storage: &SqlStorage<D>) -> Result<Stats, Failure> {
    let mut session = Session::begin(storage, &storage.0.turns, D::BEGIN).await?;
    let now = session.now(storage.now_offset()).await?;
    let micros = now.as_micros();
    let counts = session
        .rows(
            "SELECT (SELECT count(*) FROM {message} WHERE line IS NOT NULL), \
             (SELECT count(*) FROM {message} m WHERE m.line IS NOT NULL AND EXISTS (SELECT 1 FROM {message} h WHERE h.held_key = m.ordering_key AND (h.state = 5 OR h.due_at > ?))), \
             (SELECT count(*) FROM {message} WHERE back IS NOT NULL AND due_at <= ?), \
             (SELECT count(*) FROM {message} WHERE back IS NOT NULL AND due_at > ?), \
             (SELECT count(*) FROM {message} WHERE scheduled_at IS NOT NULL), \
             (SELECT count(*) FROM {message} WHERE ended_at IS NOT NULL AND state IN (3, 5)), \
             (SELECT count(*) FROM {message} WHERE ended_at IS NOT NULL AND state = 4), \
             (SELECT min(due_at) FROM {message} WHERE back IS NOT NULL AND due_at <= ?)",
            arguments![micros, micros, micros, micros],
        )
        .await?;
    let lanes = session
        .rows("SELECT run_length, (SELECT m.enqueued_at FROM {message} m WHERE m.line = l.lane ORDER BY m.seq LIMIT 1) FROM {lane} l", Vec::new())
        .await?;
    let (mut claimed, mut oldest): (u64, Option<i64>) = (0, None);
    for lane in &lanes {
        claimed += D::int(lane, 0)?.unwrap_or_default().unsigned_abs();
        oldest = [oldest, D::int(lane, 1)?].into_iter().flatten().min();
    }
    let mut in_partitions = 0;
    if storage.0.settings.published_partitions.is_some() {
        let rows = session.rows(partitions::COUNT, Vec::new()).await?;
        in_partitions =
            rows.first().map(|row| D::int(row, 0)).transpose()?.flatten().unwrap_or_default().unsigned_abs();
    }
    session.roll_back().await;
    let Some(row) = counts.first() else { return Ok(Stats::default()) };
    let count = |column| Ok::<_, sqlx::Error>(D::int(row, column)?.unwrap_or_default().unsigned_abs());
    let (line, parked, due) = (count(0)?, count(1)?, count(2)?);
    let pending = (line + due).saturating_sub(parked + claimed);
    let oldest = [oldest, D::int(row, 7)?].into_iter().flatten().min().filter(|_| pending > 0);
    Ok(Stats {
        pending,
        scheduled: parked + count(3)? + count(4)?,
        claimed,
        dead: count(5)?,
        published: count(6)? + in_partitions,
        oldest_due_age: oldest.map(|oldest| now.since(Timestamp::from_micros(oldest))),
    })
}

async fn list<D: Dialect>(storage: &SqlStorage<D>, listing: &Listing) -> Result<Page, Failure> {
    let limit = listing.limit.clamp(1, LONGEST_PAGE) as usize;
    let from = match &listing.cursor {
        None => Place::START,
        Some(cursor) => Place::read(cursor).ok_or_else(|| {
            Failure::Refused(
                Error::new(ErrorKind::Misconfigured, "list")
                    .describe("the cursor is none of this outbox's; begin without one")
                    .not_applied(),
            )
        })?,
    };
    let mut session = Session::begin(storage, &storage.0.turns, D::BEGIN).await?;
    let now = session.now(storage.now_offset()).await?;
    let rows = match listing.state {
        ListState::Dead => dead(&mut session, &listing.filter, from, limit, Read::All).await?,
        ListState::Scheduled => {
            let condition = format!(
                "WHERE seq > ? AND (scheduled_at IS NOT NULL OR back IS NOT NULL) ORDER BY seq LIMIT {limit}"
            );
            session.messages(Read::All, &condition, arguments![from.seq], true).await?
        }
        ListState::Pending => {
            let condition = format!(
                "WHERE seq > ? AND (line IS NOT NULL OR (back IS NOT NULL AND due_at <= ?)) ORDER BY seq LIMIT {limit}"
            );
            session.messages(Read::All, &condition, arguments![from.seq, now.as_micros()], true).await?
        }
    };
    let held: HashSet<i64> = match listing.state {
        ListState::Pending => {
            let sql = format!("SELECT {} FROM {{lane}} WHERE nonce IS NOT NULL", lane::COLUMNS);
            let lanes = session.rows(&sql, Vec::new()).await?;
            Lane::read_all::<D>(&lanes)?.into_iter().flat_map(|lane| lane.run).collect()
        }
        ListState::Scheduled | ListState::Dead => HashSet::new(),
    };
    session.roll_back().await;
    let next = rows.last().filter(|_| rows.len() == limit).map(|row| Place::of(row).as_cursor());
    let is_listed = |row: &Row| match listing.state {
        ListState::Pending => !held.contains(&row.seq),
        ListState::Scheduled => row.due_at.or(row.deliver_at).is_some_and(|due| due > now.as_micros()),
        ListState::Dead => true,
    };
    let messages = rows.into_iter().filter(is_listed).map(|row| row.into_stored(now));
    Ok(Page { messages: messages.filter(|stored| listing.filter.matches(stored)).collect(), next })
}

/// Where a page ends: the time of death, for dead letters, and the place in the order of enqueueing.
#[derive(Clone, Copy)]
struct Place {
    ended_at: i64,
    seq: i64,
}

impl Place {
    const START: Self = Self { ended_at: i64::MIN, seq: i64::MIN };

    fn of(row: &Row) -> Self {
        Self { ended_at: row.ended_at.unwrap_or_default(), seq: row.seq }
    }

    fn read(cursor: &Cursor) -> Option<Self> {
        let (ended_at, seq) = cursor.0.split_once(':')?;
        Some(Self { ended_at: ended_at.parse().ok()?, seq: seq.parse().ok()? })
    }

    fn as_cursor(self) -> Cursor {
        Cursor(Text::from(format!("{}:{}", self.ended_at, self.seq)))
    }
}

/// Dead letters behind a place, in the order of their deaths; what the database can decide of the filter is decided there.
async fn dead<D: Dialect>(
    session: &mut Session<'_, D>,
    filter: &Filter,
    from: Place,
    limit: usize,
    read: Read,
) -> Result<Vec<Row>, sqlx::Error> {
    let mut condition = String::from(
        "WHERE state IN (3, 5) AND ended_at IS NOT NULL AND (ended_at > ? OR (ended_at = ? AND seq > ?))",
    );
    let mut arguments = arguments![from.ended_at, from.ended_at, from.seq];
    if !filter.ids.is_empty() {
        let places = vec![D::ID_ARGUMENT; filter.ids.len()].join(", ");
        condition.push_str(&format!(" AND kept_id IN ({places})"));
        arguments.extend(filter.ids.iter().map(|id| Argument::Bytes(id.to_bytes().to_vec())));
    }
    for (column, wanted) in [("topic", &filter.topic), ("ordering_key", &filter.key)] {
        if let Some(wanted) = wanted {
            condition.push_str(&format!(" AND {column} = ?"));
            arguments.push(Argument::Text(wanted.to_string()));
        }
    }
    condition.push_str(&format!(" ORDER BY ended_at, seq LIMIT {limit}"));
    session.messages(read, &condition, arguments, filter.ids.is_empty()).await
}

/// Redrives or discards dead letters.
async fn mend<D: Dialect>(
    storage: &SqlStorage<D>,
    filter: &Filter,
    limit: u32,
    dry_run: bool,
    is_redrive: bool,
) -> Result<Affected, Failure> {
    let mut session = storage.begin().await?;
    let now = session.now(storage.now_offset()).await?;
    let limit = limit as usize;
    let (mut found, mut more, mut from) = (Vec::new(), false, Place::START);
    'search: loop {
        let rows = dead(&mut session, filter, from, BATCH, Read::WithoutPayload).await?;
        let Some(last) = rows.last() else { break };
        (from, more) = (Place::of(last), false);
        let is_last = rows.len() < BATCH;
        for row in rows {
            if !filter.matches(&row.clone().into_stored(now)) {
                continue;
            }
            if found.len() == limit {
                more = true;
                break 'search;
            }
            found.push(row);
        }
        if is_last {
            break;
        }
    }
    let answer = |count: usize| Affected { count: count as u64, more };
    if dry_run || found.is_empty() {
        session.roll_back().await;
        return Ok(answer(found.len()));
    }
    // Locked and looked at again: another call may have mended them meanwhile.
    let list = in_list(&found.iter().map(|row| row.seq).collect::<Vec<_>>());
    let sql =
        format!("SELECT seq FROM {{message}} WHERE seq IN ({list}) AND state IN (3, 5){}", D::SKIP_LOCKED);
    let rows = session.rows_once(&sql, Vec::new()).await?;
    let still = rows.iter().map(|row| Ok(D::int(row, 0)?.unwrap_or_default()));
    let still: HashSet<i64> = still.collect::<Result<_, sqlx::Error>>()?;
    found.retain(|row| still.contains(&row.seq));
    if is_redrive {
        redrive(&mut session, &found, now).await?;
    } else if !found.is_empty() {
        session.delete(&found.iter().map(|row| row.seq).collect::<Vec<_>>()).await?;
    }
    session.commit().await?;
    Ok(answer(found.len()))
}

/// Those that hold their key return to its head; the others count as new.
async fn redrive<D: Dialect>(
    session: &mut Session<'_, D>,
    letters: &[Row],
    now: Timestamp,
) -> Result<(), Failure> {
    let micros = now.as_micros();
    let (heads, others): (Vec<_>, Vec<_>) =
        letters.iter().partition(|row| row.state == state::DEAD_AND_HOLDS);
    let seqs = |rows: &[&Row]| rows.iter().map(|row| row.seq).collect::<Vec<_>>();
    if !heads.is_empty() {
        let sql = format!(
            "UPDATE {{message}}{} SET state = 2, attempts = 0, strikes = 0, run_limit = NULL, due_at = ?, ended_at = NULL, reason = NULL WHERE seq IN ({})",
            D::BY_PLACE,
            in_list(&seqs(&heads))
        );
        session.execute_once(&sql, arguments![micros]).await?;
        let held =
            heads.iter().filter_map(|row| Some((row.key.clone()?, Held { seq: row.seq, due_at: micros })));
        keys::hold_back(session, held).await?;
    }
    if !others.is_empty() {
        keys::enqueue_again(session, &seqs(&others), &micros.to_string(), "ended_at, seq").await?;
    }
    Ok(())
}

async fn purge<D: Dialect>(
    storage: &SqlStorage<D>,
    older_than: Duration,
    limit: u32,
) -> Result<u64, Failure> {
    let mut session = storage.begin().await?;
    let before = session.now(storage.now_offset()).await?.before(older_than).as_micros();
    let sql = format!(
        "SELECT seq FROM {{message}} WHERE state = 4 AND ended_at < ? ORDER BY ended_at LIMIT ?{}",
        D::SKIP_LOCKED
    );
    let rows = session.rows(&sql, arguments![before, i64::from(limit)]).await?;
    let old = rows.iter().map(|row| Ok(D::int(row, 0)?.unwrap_or_default()));
    let old: Vec<i64> = old.collect::<Result<_, sqlx::Error>>()?;
    if old.is_empty() {
        session.roll_back().await;
        return Ok(0);
    }
    let purged = session.delete(&old).await?;
    session.commit().await?;
    Ok(purged)
}
