//! Looking and mending. Every call reads or changes a bounded number of messages.

use crate::MongoStorage;
use crate::dead::{id_of, redriven};
use crate::lanes::{by_document, members_of};
use crate::layout::{Found, PARKED, READY, read};
use crate::questions::{aside_index, due_index, park as park_of};
use crate::transaction::{End, Failure};
use mongodb::bson::raw::RawDocumentBuf;
use mongodb::bson::spec::BinarySubtype;
use mongodb::bson::{Binary, Bson, Document, Timestamp as Seq, doc, oid::ObjectId};
use mongodb::{ClientSession, Collection};
use pillarbox_core::{
    Admin, Affected, BoxFuture, Content, Cursor, Error, ErrorKind, Filter, HeadPolicy, ListState, Listing,
    MessageId, Page, Stats, Stored, Text, Timestamp,
};
use std::collections::HashSet;
use std::time::Duration;

/// So many dead letters are looked at, or changed, in one transaction.
const PAGE: i64 = 200;
/// So many waiting messages are counted at most; above that the number is a lower bound.
const COUNTED: u64 = 1_000_000;

impl Admin for MongoStorage {
    fn stats(&self) -> BoxFuture<'_, Result<Stats, Error>> {
        Box::pin(self.in_time("stats", self.count()))
    }

    fn list(&self, listing: Listing) -> BoxFuture<'_, Result<Page, Error>> {
        Box::pin(async move { self.in_time("list", self.page(&listing)).await })
    }

    fn get(&self, id: MessageId) -> BoxFuture<'_, Result<Option<Stored>, Error>> {
        Box::pin(self.in_time("get", async move { Ok(self.by_id(id).await?.into_iter().next()) }))
    }

    fn redrive(&self, filter: Filter, limit: u32, dry_run: bool) -> BoxFuture<'_, Result<Affected, Error>> {
        Box::pin(self.change_dead(Change::Redrive, filter, limit, dry_run))
    }

    fn discard(&self, filter: Filter, limit: u32, dry_run: bool) -> BoxFuture<'_, Result<Affected, Error>> {
        Box::pin(self.change_dead(Change::Discard, filter, limit, dry_run))
    }

    fn purge_published(&self, older_than: Duration, limit: u32) -> BoxFuture<'_, Result<u64, Error>> {
        Box::pin(self.in_time("purge", self.purge(older_than, limit)))
    }
}

/// What becomes of dead letters.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Change {
    Redrive,
    Discard,
}

impl Change {
    const fn name(self) -> &'static str {
        match self {
            Self::Redrive => "redrive",
            Self::Discard => "discard",
        }
    }
}

/// A page of one collection: the documents, and the place behind the last one.
type Documents = (Vec<RawDocumentBuf>, Option<String>);

impl MongoStorage {
    async fn count(&self) -> Result<Stats, Error> {
        let map = |failure| self.map(failure, "stats");
        let view = self.look().await?;
        let now = view.now;
        let mut claimed: u64 =
            view.lanes.iter().filter(|lane| lane.held).map(|lane| u64::from(lane.run)).sum();
        let lanes: Vec<i64> = view.lanes.iter().map(|lane| i64::from(lane.number)).collect();
        let all = self.0.messages.estimated_document_count().await.map_err(map)?;
        let later = doc! { "lane": { "$in": lanes.clone() }, "at": { "$gt": now.as_micros() } };
        let later =
            self.0.messages.count_documents(later).hint(aside_index()).limit(COUNTED).await.map_err(map)?;
        let parked = doc! { "lane": { "$in": lanes.clone() }, "at": PARKED };
        let parked =
            self.0.messages.count_documents(parked).hint(aside_index()).limit(COUNTED).await.map_err(map)?;
        // Those of a run that belong to a parked key are claimed, and still stand behind their key.
        let mut parked_claimed = 0;
        for lane in self.whole_lanes(&busy(&view.lanes), "stats").await? {
            let mut members = members_of(lane.number, lane.members);
            if lane.clearing {
                // Some may be deleted by now.
                let counting = self.0.messages.count_documents(members).hint(by_document());
                claimed += counting.await.map_err(map)?;
            } else if !lane.keys.is_empty() {
                members.insert("at", PARKED);
                let counting = self.0.messages.count_documents(members).hint(by_document());
                parked_claimed += counting.await.map_err(map)?;
            }
        }
        let scheduled = later + parked.saturating_sub(parked_claimed);
        let oldest = self
            .0
            .messages
            .find_one(doc! { "lane": { "$in": lanes }, "at": READY })
            .sort(doc! { "seq": 1 })
            .hint(due_index())
            .await
            .map_err(map)?;
        let oldest_due_age = oldest.and_then(|document| match read(document).content {
            Content::Message(message) => Some(now.since(message.created_at())),
            Content::Undecodable(_) => None,
        });
        Ok(Stats {
            pending: all.saturating_sub(scheduled).saturating_sub(claimed),
            scheduled,
            claimed,
            dead: self.0.dead.estimated_document_count().await.map_err(map)?,
            published: self.0.published.estimated_document_count().await.map_err(map)?,
            oldest_due_age,
        })
    }

    async fn page(&self, listing: &Listing) -> Result<Page, Error> {
        let Listing { state, filter, cursor, limit } = listing;
        if *state == ListState::Pending && !filter.is_all() {
            return Err(misconfigured(
                "pending messages cannot be filtered; list them all, or filter scheduled or dead ones",
            ));
        }
        if *limit == 0 || *limit > 1_000 {
            return Err(misconfigured("the limit of a listing is 1 to 1,000"));
        }
        if !filter.ids.is_empty() {
            let mut messages = Vec::new();
            for id in &filter.ids {
                let stored = self.by_id(*id).await?.into_iter();
                messages.extend(stored.filter(|stored| {
                    stored.died_at.is_some() == (*state == ListState::Dead) && filter.matches(stored)
                }));
            }
            return Ok(Page { messages, next: None });
        }
        let place = cursor.as_ref().map(|Cursor(place)| &**place);
        let (documents, next) = match state {
            ListState::Dead => self.dead_after(place, i64::from(*limit)).await?,
            ListState::Pending => self.ready_after(place, i64::from(*limit)).await?,
            ListState::Scheduled => self.scheduled_after(place, i64::from(*limit)).await?,
        };
        let mut messages = Vec::with_capacity(documents.len());
        for document in documents {
            messages.push(self.stored(read(document)).await?);
        }
        messages.retain(|stored| filter.matches(stored));
        Ok(Page { messages, next: next.map(|next| Cursor(Text::from(next))) })
    }

    /// Dead letters in the order of their deaths.
    async fn dead_after(&self, place: Option<&str>, limit: i64) -> Result<Documents, Error> {
        let filter = match place.map(|place| {
            place
                .split_once('.')
                .and_then(|(died, id)| Some((died.parse::<i64>().ok()?, ObjectId::parse_str(id).ok()?)))
        }) {
            None => doc! {},
            Some(None) => return Err(no_cursor()),
            Some(Some((died, id))) => {
                doc! { "$or": [{ "died": { "$gt": died } }, { "died": died, "_id": { "$gt": id } }] }
            }
        };
        let documents =
            self.read_page(&self.0.dead, filter, doc! { "died": 1, "_id": 1 }, limit, "list").await?;
        let place = |last: &RawDocumentBuf| {
            Some(format!("{}.{}", last.get_i64("died").ok()?, last.get_object_id("_id").ok()?.to_hex()))
        };
        let next = full(&documents, limit).and_then(place);
        Ok((documents, next))
    }

    /// New messages, lane by lane; what a claim holds is passed over.
    async fn ready_after(&self, place: Option<&str>, limit: i64) -> Result<Documents, Error> {
        let (lane, at, seq) = match place {
            None => (0, READY, Seq { time: 0, increment: 0 }),
            Some(place) => parse(place).ok_or_else(no_cursor)?,
        };
        let (mut documents, next) = self.in_lanes(lane, at, seq, READY, READY, limit).await?;
        let mut held = HashSet::new();
        for lane in self.whole_lanes(&busy(&self.look().await?.lanes), "list").await? {
            held.extend(lane.members.iter().map(ToString::to_string));
        }
        documents.retain(|document| !held.contains(&id_of(document).to_string()));
        Ok((documents, next))
    }

    /// What waits for a time, lane by lane, then what waits behind parked keys.
    async fn scheduled_after(&self, place: Option<&str>, limit: i64) -> Result<Documents, Error> {
        let (phase, place) = match place {
            None => ("t", None),
            Some(place) => {
                let (phase, place) = place.split_once(':').ok_or_else(no_cursor)?;
                (phase, Some(place).filter(|place| !place.is_empty()))
            }
        };
        let (from, to, following) = match phase {
            "t" => (1, i64::MAX, Some("b:".to_owned())),
            "b" => (PARKED, PARKED, None),
            _ => return Err(no_cursor()),
        };
        let (lane, at, seq) = match place {
            None => (0, from, Seq { time: 0, increment: 0 }),
            Some(place) => parse(place).ok_or_else(no_cursor)?,
        };
        let (documents, next) = self.in_lanes(lane, at, seq, from, to, limit).await?;
        Ok((documents, next.map(|next| format!("{phase}:{next}")).or(following)))
    }

    /// Messages in the order of lanes and due times, behind a place, with due times in a range.
    async fn in_lanes(
        &self,
        lane: i64,
        at: i64,
        seq: Seq,
        from: i64,
        to: i64,
        limit: i64,
    ) -> Result<Documents, Error> {
        let mut documents: Vec<RawDocumentBuf> = Vec::new();
        let sort = doc! { "lane": 1, "at": 1, "seq": 1 };
        let rest: Vec<i64> = (lane + 1..i64::from(self.lanes())).collect();
        // First what has the same due time, then what has a later one in the same lane, then the other lanes.
        for filter in [
            doc! { "lane": lane, "at": at, "seq": { "$gt": seq } },
            doc! { "lane": lane, "at": { "$gt": at, "$lte": to } },
            doc! { "lane": { "$in": rest }, "at": { "$gte": from, "$lte": to } },
        ] {
            let room = limit - i64::try_from(documents.len()).unwrap_or(limit);
            if room > 0 {
                documents.extend(self.read_page(&self.0.messages, filter, sort.clone(), room, "list").await?);
            }
        }
        let place = |last: &RawDocumentBuf| {
            let found = read(last.clone());
            Some(format!("{}.{}.{}.{}", found.lane, found.at, found.seq.0, found.seq.1))
        };
        let next = full(&documents, limit).and_then(place);
        Ok((documents, next))
    }

    async fn read_page(
        &self,
        collection: &Collection<RawDocumentBuf>,
        filter: Document,
        sort: Document,
        limit: i64,
        operation: &'static str,
    ) -> Result<Vec<RawDocumentBuf>, Error> {
        let map = |failure| self.map(failure, operation);
        let mut cursor = collection.find(filter).sort(sort).limit(limit).await.map_err(map)?;
        let mut documents = Vec::new();
        while cursor.advance().await.map_err(map)? {
            documents.push(cursor.current().to_owned());
        }
        Ok(documents)
    }

    /// Dead letters and waiting messages with this id.
    async fn by_id(&self, id: MessageId) -> Result<Vec<Stored>, Error> {
        let id = || Binary { subtype: BinarySubtype::Uuid, bytes: id.to_bytes().to_vec() };
        let map = |failure| self.map(failure, "get");
        let dead = doc! { "id": id() };
        let mut documents = self.read_page(&self.0.dead, dead, doc! {}, PAGE, "get").await?;
        let lanes: Vec<i64> = (0..self.lanes()).map(i64::from).collect();
        for at in [doc! { "$gt": READY }, doc! { "$eq": PARKED }] {
            let filter = doc! { "lane": { "$in": lanes.clone() }, "at": at, "id": id() };
            let mut cursor =
                self.0.messages.find(filter).hint(aside_index()).limit(PAGE).await.map_err(map)?;
            while cursor.advance().await.map_err(map)? {
                documents.push(cursor.current().to_owned());
            }
        }
        let mut stored = Vec::with_capacity(documents.len());
        for document in documents {
            stored.push(self.stored(read(document)).await?);
        }
        Ok(stored)
    }

    async fn stored(&self, found: Found) -> Result<Stored, Error> {
        let due_at = match (found.died, found.at, &found.key) {
            (None, PARKED, Some(key)) => {
                let park = self.0.parked.find_one(doc! { "_id": &**key }).await;
                let park = park.map_err(|failure| self.map(failure, "get"))?;
                let until = park.and_then(|document| Some(park_of(&document)?.1.until));
                until.filter(|until| *until < i64::MAX).map(|until| until.max(found.wait))
            }
            (None, at, _) if at > READY => Some(at),
            _ => None,
        };
        Ok(Stored {
            content: found.content,
            attempts: found.attempts,
            strikes: found.strikes,
            due_at: due_at.map(Timestamp::from_micros),
            died_at: found.died.map(Timestamp::from_micros),
            reason: found.reason,
        })
    }

    async fn change_dead(
        &self,
        change: Change,
        filter: Filter,
        limit: u32,
        dry_run: bool,
    ) -> Result<Affected, Error> {
        let limit = u64::from(limit);
        let mut affected = Affected::default();
        let mut ids = filter.ids.iter();
        let mut place: Option<String> = None;
        loop {
            let (documents, next) = if filter.ids.is_empty() {
                self.dead_after(place.as_deref(), PAGE).await?
            } else {
                let Some(id) = ids.next() else { return Ok(affected) };
                let id = Binary { subtype: BinarySubtype::Uuid, bytes: id.to_bytes().to_vec() };
                let found =
                    self.read_page(&self.0.dead, doc! { "id": id }, doc! {}, PAGE, change.name()).await?;
                (found, Some(String::new()))
            };
            let mut matching = Vec::new();
            for document in documents {
                let id = id_of(&document);
                if filter.matches(&self.stored(read(document)).await?) {
                    matching.push(id);
                }
            }
            let room = usize::try_from(limit - affected.count).unwrap_or(usize::MAX);
            affected.more = matching.len() > room;
            matching.truncate(room);
            let changed = if dry_run || matching.is_empty() {
                matching.len() as u64
            } else {
                let outbox = self.clone();
                let changing = async move { outbox.change_letters(change, &matching).await };
                self.to_the_end(change.name(), changing).await?
            };
            affected.count += changed;
            if affected.more || next.is_none() {
                return Ok(affected);
            }
            place = next;
        }
    }

    async fn change_letters(&self, change: Change, ids: &[Bson]) -> Result<u64, Error> {
        let mut transaction = self.transaction(change.name()).await?;
        loop {
            transaction.start().await?;
            let work = self.change_within(transaction.session(), change, ids).await;
            if let Some(changed) = transaction.end(work).await? {
                return Ok(changed);
            }
        }
    }

    /// Answers how many were still dead.
    async fn change_within(
        &self,
        session: &mut ClientSession,
        change: Change,
        ids: &[Bson],
    ) -> Result<End<u64>, Failure> {
        let filter = doc! { "_id": { "$in": ids } };
        let finding = self.0.dead.find(filter.clone()).sort(doc! { "died": 1, "_id": 1 });
        let mut cursor = finding.session(&mut *session).await?;
        let mut letters = Vec::new();
        while let Some(letter) = cursor.next(session).await {
            letters.push(letter?);
        }
        let blocks = self.0.settings.head_policy == HeadPolicy::Block;
        let mut messages = Vec::new();
        let mut freed = Vec::new();
        let mut lanes = HashSet::new();
        for letter in &letters {
            let found = read(letter.clone());
            let key = found.key.as_deref().filter(|_| blocks);
            let mut to_head = false;
            if let Some(key) = key {
                let filter = doc! { "_id": key, "blocked": found.document_id.clone() };
                let update = doc! { "$set": { "until": 0_i64 }, "$unset": { "blocked": "" } };
                let unblocked = self.0.parked.update_one(filter, update).session(&mut *session).await?;
                to_head = unblocked.matched_count == 1;
                if to_head {
                    freed.push((found.lane, key.to_owned()));
                    lanes.insert(i64::from(found.lane));
                }
            }
            if change == Change::Redrive {
                messages.push(redriven(letter, to_head));
            }
        }
        if !lanes.is_empty() {
            // Claims that have read these lanes choose again.
            let lanes: Vec<i64> = lanes.into_iter().collect();
            let update = doc! { "$inc": { "version": 1_i64 } };
            self.0.lanes.update_many(doc! { "_id": { "$in": lanes } }, update).session(&mut *session).await?;
        }
        if !messages.is_empty() {
            self.0.messages.insert_many(messages).session(&mut *session).await?;
        }
        for (lane, key) in freed {
            self.refresh_parks(session, lane, &[key]).await?;
        }
        self.0.dead.delete_many(filter).session(session).await?;
        Ok(End::Commit(letters.len() as u64))
    }

    async fn purge(&self, older_than: Duration, limit: u32) -> Result<u64, Error> {
        let map = |failure| self.map(failure, "purge");
        let before = self.server_time("purge").await?.before(older_than).as_micros();
        let filter = doc! { "published": { "$lt": before } };
        let finding = self.0.published.find(filter).sort(doc! { "published": 1 }).limit(i64::from(limit));
        let mut cursor = finding.projection(doc! { "_id": 1 }).await.map_err(map)?;
        let mut ids = Vec::new();
        // A limit of 0 would be none to the server.
        while limit > 0 && cursor.advance().await.map_err(map)? {
            ids.push(id_of(cursor.current()));
        }
        let mut purged = 0;
        for ids in ids.chunks(1_000) {
            let deleted = self.0.published.delete_many(doc! { "_id": { "$in": ids } }).await.map_err(map)?;
            purged += deleted.deleted_count;
        }
        Ok(purged)
    }
}

fn busy(lanes: &[crate::lanes::Lane]) -> Vec<u16> {
    lanes.iter().filter(|lane| lane.is_busy()).map(|lane| lane.number).collect()
}

/// The last document of a page that is full, behind which there may be more.
fn full(documents: &[RawDocumentBuf], limit: i64) -> Option<&RawDocumentBuf> {
    documents.last().filter(|_| i64::try_from(documents.len()) == Ok(limit))
}

fn parse(place: &str) -> Option<(i64, i64, Seq)> {
    let mut parts = place.split('.');
    let lane = parts.next()?.parse().ok()?;
    let at = parts.next()?.parse().ok()?;
    let seq = Seq { time: parts.next()?.parse().ok()?, increment: parts.next()?.parse().ok()? };
    parts.next().is_none().then_some((lane, at, seq))
}

fn no_cursor() -> Error {
    misconfigured("the cursor is none that a page of this outbox ended with")
}

fn misconfigured(description: &'static str) -> Error {
    Error::new(ErrorKind::Misconfigured, "list").describe(description).not_applied()
}
