//! What a claim asks the server for, within its snapshot.

use crate::MongoStorage;
use crate::assemble::{Barred, Group};
use crate::claim::View;
use crate::layout::{Found, PARKED, READY, number, read};
use crate::storage::MAX_RUN;
use futures_util::future::try_join;
use mongodb::ClientSession;
use mongodb::bson::raw::{RawDocument, RawDocumentBuf};
use mongodb::bson::{Document, doc};
use mongodb::options::{Hint, SessionOptions};
use pillarbox_core::{Error, Timestamp};
use std::collections::{HashMap, HashSet};

/// A claim reads about so many bytes at most, however large its messages are.
const CLAIM_BYTES: usize = 8 * 1024 * 1024;
/// So many parked keys are read at once; where there are more, they are asked for by key.
pub(crate) const PARKED_KEYS: i64 = 200;
/// So many parked keys one claim hands out from.
const PARKED_RUNS: usize = 32;
/// So many suspects one claim looks at.
const SUSPECTS: i64 = 100;

/// A key whose head waits, or is dead and blocks.
pub(crate) struct Park {
    pub(crate) lane: u16,
    pub(crate) until: i64,
}

impl MongoStorage {
    /// A second session that sees what the first one sees, to ask side by side.
    pub(crate) async fn beside(&self, view: &View) -> Result<ClientSession, Error> {
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
    pub(crate) async fn due_groups(
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
        let sort = doc! { "seq": 1 };
        self.find(session, Find { filter, sort, limit, hint: Some(aside_index()) }).await
    }

    /// Messages whose time has come, those first that have waited for longest.
    pub(crate) async fn waiting(
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
        let find =
            Find { filter, sort: doc! { "at": 1, "key": 1, "seq": 1 }, limit, hint: Some(aside_index()) };
        let mut found = self.find(session, find).await?;
        found.retain(|found| !found.is_suspect());
        Ok(found)
    }

    /// New messages, lane by lane, beginning with the first of `lanes`.
    pub(crate) async fn ready(
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
    pub(crate) async fn parked_among(
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
        let find = Find { filter, sort: doc! { "at": 1 }, limit: 1, hint: Some(aside_index()) };
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

/// What waits for a time or behind a parked key, with none of the new messages between.
pub(crate) fn aside_index() -> Hint {
    Hint::Keys(doc! { "lane": 1, "at": 1, "key": 1, "seq": 1, "id": 1 })
}

pub(crate) fn suspects_index() -> Hint {
    Hint::Keys(doc! { "lane": 1, "suspect": 1, "seq": 1 })
}

/// A parked key, if that is what a document is.
pub(crate) fn park(document: &RawDocument) -> Option<(String, Park)> {
    let field = |name| document.get(name).ok().flatten();
    let key = field("_id")?.as_str()?.to_owned();
    let lane = u16::try_from(number(field("lane")?)?).ok()?;
    Some((key, Park { lane, until: number(field("until")?)? }))
}
