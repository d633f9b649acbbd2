use crate::MemoryStorage;
use crate::outbox::{Outbox, Stored as Held};
use pillarbox_core::{
    Admin, Affected, BoxFuture, Cursor, Error, ErrorKind, Filter, ListState, Listing, MessageId, Page, State,
    Stats, Stored, Text, Timestamp,
};
use std::time::Duration;

/// How many places one page of a listing looks at.
const LOOKED_AT: u32 = 10_000;

impl Admin for MemoryStorage {
    fn stats(&self) -> BoxFuture<'_, Result<Stats, Error>> {
        Box::pin(async { Ok(self.locked(Outbox::stats)) })
    }

    fn list(&self, listing: Listing) -> BoxFuture<'_, Result<Page, Error>> {
        Box::pin(async move { self.locked(|outbox, now| list(outbox, &listing, now)) })
    }

    fn get(&self, id: MessageId) -> BoxFuture<'_, Result<Option<Stored>, Error>> {
        Box::pin(async move {
            Ok(self.locked(|outbox, now| {
                let held = outbox.message(id)?;
                let is_found = match held.record.state {
                    State::Dead => true,
                    State::Pending => outbox.is_waiting(held, now),
                    State::Claimed(_) | State::Published => false,
                };
                is_found.then(|| view(held, now))
            }))
        })
    }

    fn redrive(&self, filter: Filter, limit: u32, dry_run: bool) -> BoxFuture<'_, Result<Affected, Error>> {
        Box::pin(async move {
            let affected =
                self.locked(|outbox, now| mend(outbox, &filter, limit, dry_run, now, Outbox::redrive));
            if affected.count > 0 && !dry_run {
                self.subscribers().hint();
            }
            Ok(affected)
        })
    }

    fn discard(&self, filter: Filter, limit: u32, dry_run: bool) -> BoxFuture<'_, Result<Affected, Error>> {
        Box::pin(async move {
            let affected =
                self.locked(|outbox, now| mend(outbox, &filter, limit, dry_run, now, Outbox::discard));
            // A key that the letter has blocked goes on.
            if affected.count > 0 && !dry_run {
                self.subscribers().hint();
            }
            Ok(affected)
        })
    }

    fn purge_published(&self, older_than: Duration, limit: u32) -> BoxFuture<'_, Result<u64, Error>> {
        Box::pin(async move { Ok(self.locked(|outbox, now| outbox.purge(older_than, limit, now))) })
    }
}

/// Does something with every dead letter that matches.
fn mend(
    outbox: &mut Outbox,
    filter: &Filter,
    limit: u32,
    dry_run: bool,
    now: Timestamp,
    change: impl Fn(&mut Outbox, u64, Timestamp),
) -> Affected {
    let matching = outbox.dead_letters(0).filter(|(_, letter)| filter.matches(&view(letter, now)));
    let mut numbers: Vec<u64> = matching.map(|(number, _)| number).take(limit as usize + 1).collect();
    let more = numbers.len() > limit as usize;
    numbers.truncate(limit as usize);
    if !dry_run {
        for number in &numbers {
            change(outbox, *number, now);
        }
    }
    Affected { count: numbers.len() as u64, more }
}

fn list(outbox: &mut Outbox, listing: &Listing, now: Timestamp) -> Result<Page, Error> {
    let limit = listing.limit.clamp(1, 1_000) as usize;
    let from = start(listing.cursor.as_ref())?;
    let mut page = Page::default();
    if listing.state == ListState::Dead {
        for (number, letter) in outbox.dead_letters(from) {
            if page.messages.len() == limit {
                page.next = Some(cursor(number));
                break;
            }
            let stored = view(letter, now);
            if listing.filter.matches(&stored) {
                page.messages.push(stored);
            }
        }
        return Ok(page);
    }
    if listing.state == ListState::Pending && !listing.filter.is_all() {
        return Err(Error::new(ErrorKind::Misconfigured, "list")
            .describe(
                "pending messages cannot be filtered; list all of them, or filter dead or scheduled ones",
            )
            .not_applied());
    }
    let (found, next) = outbox.page(u32::try_from(from).unwrap_or(u32::MAX), LOOKED_AT);
    page.next = next.map(|place| cursor(u64::from(place)));
    for (place, held) in found.filter(|(_, held)| held.record.state == State::Pending) {
        if outbox.is_waiting(held, now) != (listing.state == ListState::Scheduled) {
            continue;
        }
        let stored = view(held, now);
        if listing.filter.matches(&stored) {
            if page.messages.len() == limit {
                page.next = Some(cursor(u64::from(place)));
                break;
            }
            page.messages.push(stored);
        }
    }
    Ok(page)
}

fn view(held: &Held, now: Timestamp) -> Stored {
    let record = &held.record;
    let is_dead = record.state == State::Dead;
    Stored {
        content: held.content.clone(),
        attempts: record.attempts,
        strikes: record.strikes,
        due_at: (!is_dead && record.due_at > now).then_some(record.due_at),
        died_at: held.ended_at.filter(|_| is_dead),
        reason: held.reason.clone(),
    }
}

fn cursor(place: u64) -> Cursor {
    Cursor(Text::from(place.to_string()))
}

fn start(cursor: Option<&Cursor>) -> Result<u64, Error> {
    let Some(Cursor(text)) = cursor else { return Ok(0) };
    text.parse().map_err(|_| {
        Error::new(ErrorKind::Misconfigured, "list")
            .describe("the cursor is not from a page of this outbox; leave it out to begin anew")
            .not_applied()
    })
}
