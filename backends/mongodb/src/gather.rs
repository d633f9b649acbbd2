//! Chooses what a claim hands out: which lanes, and which of their messages.

use crate::MongoStorage;
use crate::claim::View;
use crate::lanes::{Lane, by_document, members_of};
use crate::layout::{Found, PARKED, READY, number, read};
use crate::storage::MAX_RUN;
use crate::transaction::{End, Failure};
use futures_util::future::try_join;
use mongodb::ClientSession;
use mongodb::bson::raw::{RawDocument, RawDocumentBuf};
use mongodb::bson::{Bson, Document, doc};
use mongodb::options::{Hint, SessionOptions};
use pillarbox_core::{Claim, Error, Text, Timestamp};
use std::collections::{BTreeMap, HashMap, HashSet};

/// A claim reads about so many bytes at most, however large its messages are.
const CLAIM_BYTES: usize = 8 * 1024 * 1024;
/// So many parked keys are read at once; where there are more, they are asked for by key.
pub(crate) const PARKED_KEYS: i64 = 200;
/// So many parked keys one claim hands out from.
const PARKED_RUNS: usize = 32;
/// So many scheduled messages with a key one claim moves to the tails of their keys.
const PROMOTED: usize = 200;
/// So many suspects one claim looks at.
const SUSPECTS: i64 = 100;

/// What was chosen.
#[derive(Default)]
pub(crate) struct Gathered {
    pub(crate) picks: Vec<Pick>,
    pub(crate) suspects: u32,
    /// Something was tidied up, so that choosing again may find more.
    pub(crate) again: bool,
    /// So many scheduled messages have moved to the tails of their keys.
    pub(crate) promoted: usize,
    /// Other claims of this handle want some of the lanes, so that more may be there than was chosen.
    pub(crate) left_out: bool,
}

/// What a claim takes of one lane.
pub(crate) struct Pick {
    pub(crate) lane: u16,
    pub(crate) version: i64,
    /// The run, in order.
    pub(crate) found: Vec<Found>,
    /// The parked keys that the run has messages of.
    pub(crate) keys: Vec<String>,
    /// Messages whose key is parked, to be moved out of the way.
    pub(crate) diverted: Vec<Bson>,
}

/// A key whose head waits, or is dead and blocks.
pub(crate) struct Park {
    pub(crate) lane: u16,
    pub(crate) until: i64,
}

/// The messages of one parked key that are due.
struct Group {
    key: String,
    lane: u16,
    found: Vec<Found>,
    /// Whether that is all that is parked of the key.
    whole: bool,
}

impl MongoStorage {
    /// Chooses from what is due, and not from the lanes that others want (`elsewhere`). With `promotes` it first
    /// moves scheduled messages to the tails of their keys, if there are any.
    pub(crate) async fn gather(
        &self,
        view: &mut View,
        claim: &Claim,
        promotes: bool,
        elsewhere: &HashSet<u16>,
    ) -> Result<Gathered, Error> {
        let now = view.now;
        let mut free: Vec<&Lane> = view.lanes.iter().filter(|lane| lane.is_free(now)).collect();
        let left_out = free.iter().any(|lane| elsewhere.contains(&lane.number));
        free.retain(|lane| !elsewhere.contains(&lane.number));
        let versions: HashMap<u16, i64> = free.iter().map(|lane| (lane.number, lane.version)).collect();
        let mut numbers: Vec<i64> = free.iter().map(|lane| i64::from(lane.number)).collect();
        let flagged: HashMap<u16, i64> =
            free.iter().filter(|lane| lane.suspects).map(|lane| (lane.number, lane.version)).collect();
        if numbers.is_empty() {
            return Ok(Gathered { left_out, ..Gathered::default() });
        }
        // Relays begin at different lanes, so that they rarely want the same one, where more is to be expected than one claim takes. To
        // begin anywhere but at the first lane can cost a question more.
        let drawn = crc32fast::hash(claim.nonce.as_bytes())
            .wrapping_add(crc32fast::hash(&now.as_micros().to_be_bytes()));
        let drawn = usize::try_from(drawn).unwrap_or(0);
        if self.0.listening.is_busy() {
            let first = drawn % numbers.len();
            numbers.rotate_left(first);
        }

        let suspects =
            if flagged.is_empty() { Vec::new() } else { self.suspects(&mut view.session, &flagged).await? };
        let parks = view.parks.take().map(|mut parks| {
            parks.retain(|_, park| versions.contains_key(&park.lane));
            parks
        });
        let barred = barred(&suspects);

        let limit = claim.limit.min(MAX_RUN) as usize;
        // Mostly nothing has waited: then what is new is all that there is to hand out.
        let is_due = |park: &Park| park.until <= now.as_micros();
        if parks.as_ref().is_some_and(|parks| !parks.values().any(is_due)) {
            let mut beside = self.beside(view).await?;
            let waiting = self.waiting(&mut beside, now, &numbers, limit);
            let ready = self.ready(&mut view.session, &numbers, limit, &barred);
            let (waiting, ready) = try_join(waiting, ready).await?;
            if waiting.is_empty() {
                let parks = parks.unwrap_or_default();
                let suspects = count(self.that_may_go(view, suspects, &parks).await?.len());
                let (picks, again) = assemble(Vec::new(), waiting, ready, &parks, &barred, &versions);
                return Ok(Gathered { picks, suspects, again, promoted: 0, left_out });
            }
        }
        // What has waited, and what is new, share a claim: neither keeps the other from its turn.
        let share = if limit == 1 { drawn % 2 } else { limit / 2 };
        let mut groups = self.due_groups(view, &numbers, &parks, &barred, share).await?;
        let mut special: usize = groups.iter().map(|group| group.found.len()).sum();
        let mut waiting =
            self.waiting(&mut view.session, now, &numbers, share.saturating_sub(special)).await?;
        if promotes && waiting.iter().any(|found| found.key.is_some()) {
            let promoted = self.promote(&waiting, &versions).await?;
            return Ok(Gathered { again: true, promoted, ..Gathered::default() });
        }
        waiting.retain(|found| found.key.is_none());
        special += waiting.len();
        let ready = self.ready(&mut view.session, &numbers, limit - special, &barred).await?;
        if special + ready.len() < limit && special >= share {
            // The new ones leave room.
            let room = limit - ready.len();
            groups = self.due_groups(view, &numbers, &parks, &barred, room).await?;
            special = groups.iter().map(|group| group.found.len()).sum();
            waiting = self.waiting(&mut view.session, now, &numbers, room.saturating_sub(special)).await?;
            if promotes && waiting.iter().any(|found| found.key.is_some()) {
                let promoted = self.promote(&waiting, &versions).await?;
                return Ok(Gathered { again: true, promoted, ..Gathered::default() });
            }
            waiting.retain(|found| found.key.is_none());
        }
        let parked = self.parked_among(&mut view.session, parks, &ready).await?;
        let suspects = count(self.that_may_go(view, suspects, &parked).await?.len());
        let (picks, again) = assemble(groups, waiting, ready, &parked, &barred, &versions);
        Ok(Gathered { picks, suspects, again, promoted: 0, left_out })
    }

    /// A second session that sees what the first one sees, to ask side by side.
    async fn beside(&self, view: &View) -> Result<ClientSession, Error> {
        let mut options = SessionOptions::default();
        options.snapshot = Some(true);
        options.snapshot_time = view.session.snapshot_time();
        let starting = self.0.client.start_session().with_options(options);
        starting.await.map_err(|failure| self.map(failure, "claim"))
    }

    /// Messages that only a solo claim may have, in the lanes that may have some, given with their versions.
    pub(crate) async fn suspects(
        &self,
        session: &mut ClientSession,
        lanes: &HashMap<u16, i64>,
    ) -> Result<Vec<Found>, Error> {
        let numbers: Vec<i64> = lanes.keys().copied().map(i64::from).collect();
        let filter = doc! { "lane": { "$in": numbers }, "suspect": true };
        let find = Find {
            filter,
            sort: doc! { "lane": 1, "suspect": 1, "seq": 1 },
            limit: SUSPECTS,
            hint: Some(suspects_index()),
        };
        let found = self.find(session, find).await?;
        if found.len() < usize::try_from(SUSPECTS).unwrap_or(usize::MAX) {
            // Where there is none any more, nobody needs to look again. The version says that there has been no strike since.
            let left: HashSet<u16> = found.iter().map(|found| found.lane).collect();
            for (lane, version) in lanes.iter().filter(|(lane, _)| !left.contains(lane)) {
                let filter = doc! { "_id": i64::from(*lane), "version": version, "held": false };
                let clearing = self.0.lanes.update_one(filter, doc! { "$set": { "suspects": false } });
                clearing.await.map_err(|failure| self.map(failure, "claim"))?;
            }
        }
        Ok(found)
    }

    /// Which of these keys are parked.
    pub(crate) async fn parks_of(
        &self,
        session: &mut ClientSession,
        keys: &[&str],
    ) -> Result<HashMap<String, Park>, Error> {
        if keys.is_empty() {
            return Ok(HashMap::new());
        }
        self.read_parks(session, self.0.parked.find(doc! { "_id": { "$in": keys } })).await
    }

    async fn read_parks(
        &self,
        session: &mut ClientSession,
        finding: mongodb::action::Find<'_, RawDocumentBuf>,
    ) -> Result<HashMap<String, Park>, Error> {
        let map = |failure| self.map(failure, "claim");
        let mut cursor = finding.session(&mut *session).await.map_err(map)?;
        let mut parks = HashMap::new();
        while let Some(document) = cursor.next(session).await {
            parks.extend(park(&document.map_err(map)?));
        }
        Ok(parks)
    }

    /// What is due of parked keys, at most `room` messages.
    async fn due_groups(
        &self,
        view: &mut View,
        lanes: &[i64],
        parks: &Option<HashMap<String, Park>>,
        barred: &Barred,
        room: usize,
    ) -> Result<Vec<Group>, Error> {
        let now = view.now.as_micros();
        let mut room = room;
        let read;
        let parks = match parks {
            Some(parks) => parks,
            None => {
                let filter = doc! { "lane": { "$in": lanes.to_vec() }, "until": { "$lte": now } };
                let finding =
                    self.0.parked.find(filter).sort(doc! { "lane": 1, "until": 1 }).limit(PARKED_KEYS);
                read = self.read_parks(&mut view.session, finding).await?;
                &read
            }
        };
        let mut due: Vec<(&String, &Park)> = parks.iter().filter(|(_, park)| park.until <= now).collect();
        due.sort_by_key(|(key, park)| (park.until, (*key).clone()));
        let mut groups = Vec::new();
        for (key, park) in due.into_iter().take(PARKED_RUNS) {
            if room == 0 {
                break;
            }
            let limit = i64::try_from(room).unwrap_or(i64::MAX).saturating_add(1);
            let mut found = self.behind(&mut view.session, park.lane, key, limit).await?;
            let mut whole = found.len() <= room;
            found.truncate(room);
            // A suspect goes alone, and what follows it waits.
            let bar = barred.get(key.as_str());
            let goes = |found: &&Found| found.wait <= now && bar.is_none_or(|bar| found.seq < *bar);
            let ready = found.iter().take_while(goes).count();
            whole &= ready == found.len();
            found.truncate(ready);
            room -= found.len();
            groups.push(Group { key: key.clone(), lane: park.lane, found, whole });
        }
        Ok(groups)
    }

    /// What waits behind a parked key, in order.
    pub(crate) async fn behind(
        &self,
        session: &mut ClientSession,
        lane: u16,
        key: &str,
        limit: i64,
    ) -> Result<Vec<Found>, Error> {
        let filter = doc! { "lane": i64::from(lane), "key": key, "at": PARKED };
        let sort = doc! { "key": 1, "seq": 1 };
        self.find(session, Find { filter, sort, limit, hint: Some(behind_index()) }).await
    }

    /// Messages whose time has come, those first that have waited for longest.
    async fn waiting(
        &self,
        session: &mut ClientSession,
        now: Timestamp,
        lanes: &[i64],
        room: usize,
    ) -> Result<Vec<Found>, Error> {
        if room == 0 {
            return Ok(Vec::new());
        }
        let limit = i64::try_from(room).unwrap_or(i64::MAX);
        let at = doc! { "$gt": READY, "$lte": now.as_micros() };
        let filter = doc! { "lane": { "$in": lanes.to_vec() }, "at": at };
        let find = Find { filter, sort: doc! { "at": 1, "seq": 1 }, limit, hint: Some(scheduled_index()) };
        let mut found = self.find(session, find).await?;
        found.retain(|found| !found.is_suspect());
        Ok(found)
    }

    /// New messages, lane by lane, beginning with the first of `lanes`.
    async fn ready(
        &self,
        session: &mut ClientSession,
        lanes: &[i64],
        room: usize,
        barred: &Barred,
    ) -> Result<Vec<Found>, Error> {
        let mut found = Vec::new();
        let mut bytes = 0;
        // The index has the lanes in ascending order: first those from the drawn one on, then those before it.
        let first = lanes.first().copied().unwrap_or_default();
        let (from, before): (Vec<i64>, Vec<i64>) = lanes.iter().partition(|lane| **lane >= first);
        for lanes in [from, before] {
            let limit = room.saturating_sub(found.len());
            if lanes.is_empty() || limit == 0 || bytes >= CLAIM_BYTES {
                continue;
            }
            let mut filter = doc! { "lane": { "$in": lanes }, "at": READY };
            if !barred.is_empty() {
                let keys: Vec<&str> = barred.keys().map(|key| &**key).collect();
                filter.insert("key", doc! { "$nin": keys });
            }
            let limit = i64::try_from(limit).unwrap_or(i64::MAX);
            let sort = doc! { "lane": 1, "at": 1, "seq": 1 };
            for one in self.find(session, Find { filter, sort, limit, hint: Some(due_index()) }).await? {
                bytes += one.size;
                found.push(one);
            }
        }
        // More suspects may lie here than were looked at. Of a key, each is read before what follows it.
        let mut waits = HashSet::new();
        found.retain(|found| match &found.key {
            Some(key) if found.is_suspect() => {
                waits.insert(key.clone());
                false
            }
            Some(key) => !waits.contains(key),
            None => !found.is_suspect(),
        });
        Ok(found)
    }

    /// The parked keys among those of `ready`, and all others that were read.
    async fn parked_among(
        &self,
        session: &mut ClientSession,
        parks: Option<HashMap<String, Park>>,
        ready: &[Found],
    ) -> Result<HashMap<String, Park>, Error> {
        if let Some(parks) = parks {
            return Ok(parks);
        }
        let keys: HashSet<&str> = ready.iter().filter_map(|found| found.key.as_deref()).collect();
        let keys: Vec<&str> = keys.into_iter().collect();
        self.parks_of(session, &keys).await
    }

    pub(crate) async fn find(&self, session: &mut ClientSession, find: Find) -> Result<Vec<Found>, Error> {
        let map = |failure| self.map(failure, "claim");
        let batch = u32::try_from(find.limit.saturating_add(1)).unwrap_or(MAX_RUN + 1);
        let mut finding =
            self.0.messages.find(find.filter).sort(find.sort).limit(find.limit).batch_size(batch);
        if let Some(hint) = find.hint {
            finding = finding.hint(hint);
        }
        let mut cursor = finding.session(&mut *session).await.map_err(map)?;
        let mut found = Vec::new();
        let mut bytes = 0;
        while let Some(document) = cursor.next(session).await {
            let one = read(document.map_err(map)?);
            bytes += one.size;
            found.push(one);
            if bytes >= CLAIM_BYTES {
                break;
            }
        }
        Ok(found)
    }

    /// Moves scheduled messages with a key, whose time has come, to the tails of their keys.
    async fn promote(&self, found: &[Found], versions: &HashMap<u16, i64>) -> Result<usize, Error> {
        let mut lanes: BTreeMap<u16, i64> = BTreeMap::new();
        let mut updates = Vec::new();
        let keyed = found.iter().filter(|found| found.key.is_some());
        for one in keyed.take(PROMOTED) {
            let Some(version) = versions.get(&one.lane) else { continue };
            lanes.insert(one.lane, *version);
            updates.push(doc! {
                "q": { "_id": one.document_id.clone(), "lane": i64::from(one.lane), "at": one.at },
                "hint": { "_id": 1 },
                "u": { "$set": { "at": READY }, "$currentDate": { "seq": { "$type": "timestamp" } } },
            });
        }
        let outbox = self.clone();
        let promoting = async move {
            let mut transaction = outbox.transaction("claim").await?;
            loop {
                transaction.start().await?;
                let work = outbox.promote_all(transaction.session(), &lanes, &updates).await;
                if let Some(done) = transaction.end(work).await? {
                    return Ok(if done { updates.len() } else { 0 });
                }
            }
        };
        self.to_the_end("claim", promoting).await
    }

    async fn promote_all(
        &self,
        session: &mut ClientSession,
        lanes: &BTreeMap<u16, i64>,
        updates: &[Document],
    ) -> Result<End<bool>, Failure> {
        for (lane, version) in lanes {
            if !self.touch(session, *lane, *version).await? {
                return Ok(End::Abort(false));
            }
        }
        self.update_all(session, self.0.messages.name(), updates).await?;
        Ok(End::Commit(true))
    }

    /// Moves messages out of the way of a lane whose keys are parked. Answers whether the lane was as it had been read.
    pub(crate) async fn divert(&self, lane: u16, version: i64, ids: Vec<Bson>) -> Result<bool, Error> {
        let outbox = self.clone();
        let diverting = async move {
            let mut transaction = outbox.transaction("claim").await?;
            loop {
                transaction.start().await?;
                let work = outbox.divert_all(transaction.session(), lane, version, &ids).await;
                if let Some(done) = transaction.end(work).await? {
                    return Ok(done);
                }
            }
        };
        self.to_the_end("claim", diverting).await
    }

    async fn divert_all(
        &self,
        session: &mut ClientSession,
        lane: u16,
        version: i64,
        ids: &[Bson],
    ) -> Result<End<bool>, Failure> {
        if !self.touch(session, lane, version).await? {
            return Ok(End::Abort(false));
        }
        let mut filter = members_of(&[lane], ids.to_vec());
        filter.insert("at", READY);
        let update = doc! { "$set": { "at": PARKED } };
        self.0.messages.update_many(filter, update).hint(by_document()).session(session).await?;
        Ok(End::Commit(true))
    }

    /// Notes that something in a free lane changes, so that whoever has read it before chooses again.
    pub(crate) async fn touch(
        &self,
        session: &mut ClientSession,
        lane: u16,
        version: i64,
    ) -> Result<bool, mongodb::error::Error> {
        let filter = doc! { "_id": i64::from(lane), "version": version, "held": false };
        let update = doc! { "$inc": { "version": 1_i64 } };
        let touched = self.0.lanes.update_one(filter, update).session(session).await?;
        Ok(touched.matched_count == 1)
    }

    /// When the next message falls due, or the next lease ends.
    pub(crate) async fn next_due(&self, view: &mut View) -> Result<Option<Timestamp>, Error> {
        let now = view.now.as_micros();
        let mut next: Option<i64> = None;
        let mut wait_for = |at: i64| next = Some(next.map_or(at, |next| next.min(at)));
        for lane in &view.lanes {
            if lane.is_live(view.now) {
                wait_for(lane.until);
            } else if lane.not_before > now {
                wait_for(lane.not_before);
            }
        }
        let lanes: Vec<i64> = view.lanes.iter().map(|lane| i64::from(lane.number)).collect();
        let filter = doc! { "lane": { "$in": lanes.clone() }, "at": { "$gt": now } };
        let find = Find { filter, sort: doc! { "at": 1 }, limit: 1, hint: Some(scheduled_index()) };
        let mut beside = self.beside(view).await?;
        let scheduled = self.find(&mut beside, find);
        let filter = doc! { "lane": { "$in": lanes }, "until": { "$gt": now, "$lt": i64::MAX } };
        let index = Hint::Keys(doc! { "lane": 1, "until": 1 });
        let finding = self.0.parked.find_one(filter).sort(doc! { "until": 1 }).hint(index);
        let parked =
            async { finding.session(&mut view.session).await.map_err(|failure| self.map(failure, "claim")) };
        let (scheduled, parked) = try_join(scheduled, parked).await?;
        scheduled.iter().for_each(|found| wait_for(found.at));
        if let Some((_, park)) = parked.and_then(|parked| park(&parked)) {
            wait_for(park.until);
        }
        Ok(next.map(Timestamp::from_micros))
    }
}

/// A question to the collection of messages.
pub(crate) struct Find {
    pub(crate) filter: Document,
    pub(crate) sort: Document,
    pub(crate) limit: i64,
    pub(crate) hint: Option<Hint>,
}

/// The server would sometimes rather sort than merge.
pub(crate) fn due_index() -> Hint {
    Hint::Keys(doc! { "lane": 1, "at": 1, "seq": 1 })
}

/// What has a due time, with none of the new messages between.
pub(crate) fn scheduled_index() -> Hint {
    Hint::Keys(doc! { "lane": 1, "at": 1, "seq": 1, "id": 1 })
}

pub(crate) fn suspects_index() -> Hint {
    Hint::Keys(doc! { "lane": 1, "suspect": 1, "seq": 1 })
}

/// What waits behind parked keys.
pub(crate) fn behind_index() -> Hint {
    Hint::Keys(doc! { "key": 1, "seq": 1, "id": 1 })
}

/// A parked key, if that is what a document is.
pub(crate) fn park(document: &RawDocument) -> Option<(String, Park)> {
    let field = |name| document.get(name).ok().flatten();
    let key = field("_id")?.as_str()?.to_owned();
    let lane = u16::try_from(number(field("lane")?)?).ok()?;
    Some((key, Park { lane, until: number(field("until")?)? }))
}

fn count(suspects: usize) -> u32 {
    u32::try_from(suspects).unwrap_or(u32::MAX)
}

/// Keys with a suspect, and the place of the first one of each.
type Barred = HashMap<Text, (u32, u32)>;

fn barred(suspects: &[Found]) -> Barred {
    let mut barred = Barred::new();
    for found in suspects {
        if let Some(key) = &found.key {
            let first = barred.entry(key.clone()).or_insert(found.seq);
            *first = found.seq.min(*first);
        }
    }
    barred
}

pub(crate) fn whole(value: &Bson) -> Option<i64> {
    match value {
        Bson::Int64(number) => Some(*number),
        Bson::Int32(number) => Some(i64::from(*number)),
        _ => None,
    }
}

/// Puts the messages of each lane into one run, in order.
fn assemble(
    groups: Vec<Group>,
    waiting: Vec<Found>,
    ready: Vec<Found>,
    parks: &HashMap<String, Park>,
    barred: &Barred,
    versions: &HashMap<u16, i64>,
) -> (Vec<Pick>, bool) {
    let mut lanes: BTreeMap<u16, Building> = BTreeMap::new();
    let mut drained = HashSet::new();
    for group in groups {
        let lane = lanes.entry(group.lane).or_default();
        let mut taken_all = group.whole;
        for found in group.found {
            taken_all &= lane.add(found);
        }
        if taken_all {
            drained.insert(group.key.clone());
        }
        lane.keys.push(group.key);
    }
    for found in waiting {
        lanes.entry(found.lane).or_default().add(found);
    }
    for found in ready {
        let lane = lanes.entry(found.lane).or_default();
        match found.key.as_deref() {
            // An earlier message of its key goes alone, and first.
            Some(key) if barred.contains_key(key) => {}
            Some(key) if parks.contains_key(key) && !drained.contains(key) => {
                lane.diverted.push(found.document_id);
            }
            _ => {
                lane.add(found);
            }
        }
    }
    let mut picks = Vec::with_capacity(lanes.len());
    let mut diverts = false;
    for (lane, building) in lanes {
        let Some(version) = versions.get(&lane) else { continue };
        let Building { found, keys, diverted, .. } = building;
        diverts |= !diverted.is_empty();
        if !found.is_empty() || !diverted.is_empty() {
            picks.push(Pick { lane, version: *version, found, keys, diverted });
        }
    }
    (picks, diverts)
}

/// A run that is being put together.
#[derive(Default)]
struct Building {
    found: Vec<Found>,
    keys: Vec<String>,
    diverted: Vec<Bson>,
    /// The smallest `limit` in the run.
    limit: Option<u32>,
    /// A message did not fit, so that nothing may follow it.
    full: bool,
}

impl Building {
    /// Adds a message, unless the run would be longer than it, or one before it, may be part of.
    fn add(&mut self, found: Found) -> bool {
        let limit = self.limit.unwrap_or(MAX_RUN).min(found.limit);
        if self.full || found.is_suspect() || self.found.len() as u64 >= u64::from(limit) {
            self.full = true;
            return false;
        }
        self.limit = Some(limit);
        self.found.push(found);
        true
    }
}
