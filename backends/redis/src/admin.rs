//! Looking and mending. Every call of a script reads or changes a bounded number of messages.

use crate::reply::{content, text, unexpected};
use crate::{RedisStorage, layout, scripts};
use bytes::Bytes;
use pillarbox_core::{
    Admin, Affected, BoxFuture, Cursor, Error, ErrorKind, Filter, ListState, Listing, MessageId, Page, Stats,
    Stored, Text, Timestamp,
};
use redis::{FromRedisValue, Value};
use std::time::Duration;

/// So many dead letters are looked at, or changed, by one call of a script.
const PAGE: u32 = 200;

impl Admin for RedisStorage {
    fn stats(&self) -> BoxFuture<'_, Result<Stats, Error>> {
        Box::pin(self.count())
    }

    fn list(&self, listing: Listing) -> BoxFuture<'_, Result<Page, Error>> {
        Box::pin(self.page(listing))
    }

    fn get(&self, id: MessageId) -> BoxFuture<'_, Result<Option<Stored>, Error>> {
        Box::pin(async move { Ok(self.find(id).await?.into_iter().next().map(|found| found.stored)) })
    }

    fn redrive(&self, filter: Filter, limit: u32, dry_run: bool) -> BoxFuture<'_, Result<Affected, Error>> {
        Box::pin(self.change_dead("redrive", filter, limit, dry_run))
    }

    fn discard(&self, filter: Filter, limit: u32, dry_run: bool) -> BoxFuture<'_, Result<Affected, Error>> {
        Box::pin(self.change_dead("discard", filter, limit, dry_run))
    }

    /// Published messages are removed when they are settled, so there are none.
    fn purge_published(&self, _older_than: Duration, _limit: u32) -> BoxFuture<'_, Result<u64, Error>> {
        Box::pin(async { Ok(0) })
    }
}

/// Where a page begins: a place, such as a lane, and an offset in it.
type Place = (u64, u64);

/// A message with the number that it has as a dead letter.
struct Found {
    stored: Stored,
    number: String,
}

impl RedisStorage {
    async fn count(&self) -> Result<Stats, Error> {
        let value = self
            .run("stats", &scripts::STATS, |command| {
                command.arg(self.0.settings.lanes).arg(self.0.config.clock_offset());
            })
            .await?;
        type Counts = (u64, u64, u64, u64, String, Vec<Vec<u8>>);
        let (pending, scheduled, claimed, dead, now, heads) =
            Counts::from_redis_value(value).map_err(|_| unexpected("stats"))?;
        let now = Timestamp::from_micros(now.parse().map_err(|_| unexpected("stats"))?);
        // A lane is in the order of commits, so the oldest of each is its head. Its age is by its producer's clock.
        let oldest_due_age =
            heads.iter().filter_map(|head| due_since(head)).min().map(|since| now.since(since));
        Ok(Stats { pending, scheduled, claimed, dead, published: 0, oldest_due_age })
    }

    async fn page(&self, listing: Listing) -> Result<Page, Error> {
        let Listing { state, filter, cursor, limit } = listing;
        if state == ListState::Pending && !filter.is_all() {
            return Err(misconfigured(
                "pending messages cannot be filtered; list them all, or filter scheduled or dead ones",
            ));
        }
        if limit == 0 || limit > 1_000 {
            return Err(misconfigured("the limit of a listing is 1 to 1,000"));
        }
        if !filter.ids.is_empty() {
            return self.page_of_ids(state, &filter).await;
        }
        let place = match &cursor {
            None => (0, 0),
            Some(Cursor(place)) => place
                .split_once('.')
                .and_then(|(place, offset)| Some((place.parse().ok()?, offset.parse().ok()?)))
                .ok_or_else(|| misconfigured("the cursor is none that a page of this outbox ended with"))?,
        };
        let (found, next) = self.read_page(state, place, limit).await?;
        let messages = found.into_iter().map(|found| found.stored);
        Ok(Page {
            messages: messages.filter(|stored| filter.matches(stored)).collect(),
            next: next.map(|(place, offset)| Cursor(Text::from(format!("{place}.{offset}")))),
        })
    }

    async fn page_of_ids(&self, state: ListState, filter: &Filter) -> Result<Page, Error> {
        let mut messages = Vec::new();
        for id in &filter.ids {
            for Found { stored, .. } in self.find(*id).await? {
                if stored.died_at.is_some() == (state == ListState::Dead) && filter.matches(&stored) {
                    messages.push(stored);
                }
            }
        }
        Ok(Page { messages, next: None })
    }

    /// One page, and the place and offset where the next one begins.
    async fn read_page(
        &self,
        state: ListState,
        (place, offset): Place,
        limit: u32,
    ) -> Result<(Vec<Found>, Option<Place>), Error> {
        let name = match state {
            ListState::Pending => "pending",
            ListState::Scheduled => "scheduled",
            ListState::Dead => "dead",
        };
        let value = self
            .run("list", &scripts::LIST, |command| {
                command.arg(name).arg(place).arg(offset).arg(limit).arg(self.0.settings.lanes);
            })
            .await?;
        groups(value)
    }

    async fn find(&self, id: MessageId) -> Result<Vec<Found>, Error> {
        let value = self
            .run("get", &scripts::FIND, |command| {
                command.arg(self.0.config.clock_offset()).arg(self.0.settings.lanes).arg(&id.to_bytes());
            })
            .await?;
        Ok(groups(value)?.0)
    }

    async fn change_dead(
        &self,
        action: &'static str,
        filter: Filter,
        limit: u32,
        dry_run: bool,
    ) -> Result<Affected, Error> {
        let limit = u64::from(limit);
        let mut affected = Affected::default();
        let mut offset = 0;
        let mut ids = filter.ids.iter();
        loop {
            let by_id = !filter.ids.is_empty();
            let (found, next) = if by_id {
                let Some(id) = ids.next() else { return Ok(affected) };
                (self.find(*id).await?, Some((0, 0)))
            } else {
                self.read_page(ListState::Dead, (0, offset), PAGE).await?
            };
            let seen = found.len() as u64;
            let matching = |found: &Found| found.stored.died_at.is_some() && filter.matches(&found.stored);
            let mut numbers: Vec<String> =
                found.into_iter().filter(matching).map(|found| found.number).collect();
            let room = usize::try_from(limit - affected.count).unwrap_or(usize::MAX);
            affected.more = numbers.len() > room;
            numbers.truncate(room);
            let changed =
                if dry_run || numbers.is_empty() { 0 } else { self.change_numbers(action, &numbers).await? };
            affected.count += if dry_run { numbers.len() as u64 } else { changed };
            // What was changed is no longer in front of the next page.
            offset += seen - changed.min(seen);
            if affected.more || next.is_none() {
                return Ok(affected);
            }
        }
    }

    async fn change_numbers(&self, action: &'static str, numbers: &[String]) -> Result<u64, Error> {
        let value = self
            .run(action, &scripts::DEAD, |command| {
                command.arg(self.0.config.clock_offset()).arg(self.0.settings.lanes).arg(action).arg(numbers);
            })
            .await?;
        u64::from_redis_value(value).map_err(|_| unexpected(action))
    }
}

/// Reads flat groups of record, due time, time of death, reason and number, behind the next place and offset.
fn groups(value: Value) -> Result<(Vec<Found>, Option<Place>), Error> {
    let fields = Vec::<Vec<u8>>::from_redis_value(value).map_err(|_| unexpected("list"))?;
    let mut fields = fields.into_iter();
    let mut field = || fields.next();
    let place = field().ok_or_else(|| unexpected("list"))?;
    let offset = field().ok_or_else(|| unexpected("list"))?;
    let next = match (number(&place)?, number(&offset)?) {
        (Some(place), Some(offset)) => Some((place, offset)),
        _ => None,
    };
    let mut found = Vec::new();
    while let (Some(record), Some(due), Some(died), Some(reason), Some(number)) =
        (field(), field(), field(), field(), field())
    {
        let layout::Opened { record, attempts, strikes } = layout::open(Bytes::from(record));
        let reason = text(Value::BulkString(reason), "list")?;
        found.push(Found {
            stored: Stored {
                content: content(record),
                attempts,
                strikes,
                due_at: time(&due)?,
                died_at: time(&died)?,
                reason: Some(reason).filter(|reason| !reason.is_empty()).map(Text::from),
            },
            number: text(Value::BulkString(number), "list")?,
        });
    }
    Ok((found, next))
}

fn number<T: std::str::FromStr>(field: &[u8]) -> Result<Option<T>, Error> {
    if field.is_empty() {
        return Ok(None);
    }
    let parsed = std::str::from_utf8(field).ok().and_then(|text| text.parse().ok());
    parsed.map(Some).ok_or_else(|| unexpected("list"))
}

/// Scores are doubles: exact for every time until the year 2255, and in exponential form beyond.
#[allow(clippy::cast_possible_truncation, reason = "a conversion from a float saturates")]
fn time(field: &[u8]) -> Result<Option<Timestamp>, Error> {
    Ok(number::<f64>(field)?.map(|micros| Timestamp::from_micros(micros as i64)))
}

/// Since when the record with this fixed part has been due.
fn due_since(head: &[u8]) -> Option<Timestamp> {
    let time = |at: usize| Some(i64::from_be_bytes(head.get(at..at + 8)?.try_into().ok()?));
    (head.first() == Some(&layout::VERSION)).then_some(())?;
    Some(Timestamp::from_micros(time(20)?.max(time(28)?)))
}

fn misconfigured(description: &'static str) -> Error {
    Error::new(ErrorKind::Misconfigured, "list").describe(description).not_applied()
}
