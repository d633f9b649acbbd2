//! Carries out the verdicts of one run, within its transaction.

use crate::MongoStorage;
use crate::dead::{Burial, cut, kept};
use crate::lanes::{Lane, by_document, members_of, micros};
use crate::layout::{Found, PARKED, read};
use crate::take::shown;
use crate::transaction::Failure;
use mongodb::ClientSession;
use mongodb::bson::raw::RawDocumentBuf;
use mongodb::bson::{Bson, Document, doc};
use pillarbox_core::{Error, ErrorKind, HeadPolicy, Text, Timestamp, Token, Verdict, check_verdicts};
use std::collections::{HashMap, HashSet};

/// What the verdicts of a run change.
#[derive(Default)]
struct Changes {
    gone: Vec<Bson>,
    published: Vec<RawDocumentBuf>,
    burials: Vec<Burial>,
    updates: Vec<Document>,
    /// Until when keys are parked; the first message of each decides.
    parks: Vec<(Text, i64)>,
}

impl MongoStorage {
    pub(crate) async fn apply(
        &self,
        session: &mut ClientSession,
        lane: &Lane,
        token: &Token,
        verdicts: &[Verdict],
        now: Timestamp,
    ) -> Result<(), Failure> {
        if verdicts.len() != lane.run as usize {
            return Err(misfit(token, lane.run, verdicts.len()).into());
        }
        let mut documents = self.run_of(session, lane).await?;
        // What is gone was deleted by hand, or lost in a failover: there is nothing to change.
        let members: Vec<Option<(RawDocumentBuf, Found)>> =
            lane.members.iter().map(|id| documents.remove(&shown(id))).collect();
        let keys = members.iter().map(|member| member.as_ref().and_then(|(_, found)| found.key.as_ref()));
        check_verdicts(keys.zip(verdicts), self.0.settings.head_policy)?;
        let parked = self.parked_by(&members, verdicts);
        let mut changes = Changes::default();
        for (member, verdict) in members.into_iter().zip(verdicts) {
            if let Some((document, found)) = member {
                self.judge(&mut changes, document, found, verdict, &parked, lane.number, now);
            }
        }
        self.change(session, lane, changes, now).await
    }

    /// The keys of which something has to wait after this settlement.
    fn parked_by(&self, members: &[Option<(RawDocumentBuf, Found)>], verdicts: &[Verdict]) -> HashSet<Text> {
        let blocks = self.0.settings.head_policy == HeadPolicy::Block;
        let waits = |verdict: &Verdict| match verdict {
            Verdict::Published => false,
            Verdict::Retry { .. } => true,
            Verdict::Release { after } => !after.is_zero(),
            Verdict::Bury { .. } => blocks,
        };
        let waiting = members.iter().zip(verdicts).filter(|(_, verdict)| waits(verdict));
        waiting.filter_map(|(member, _)| member.as_ref()?.1.key.clone()).collect()
    }

    #[allow(clippy::too_many_arguments, reason = "a message, its verdict and its surroundings")]
    fn judge(
        &self,
        changes: &mut Changes,
        document: RawDocumentBuf,
        found: Found,
        verdict: &Verdict,
        parked: &HashSet<Text>,
        lane: u16,
        now: Timestamp,
    ) {
        let is_parked = found.key.as_ref().is_some_and(|key| parked.contains(key));
        let (after, charge) = match verdict {
            Verdict::Published => {
                if self.0.settings.keep_published {
                    changes.published.push(kept(&document, now));
                }
                changes.gone.push(found.document_id);
                return;
            }
            Verdict::Bury { reason } => {
                changes.gone.push(found.document_id);
                let Found { attempts, key, .. } = found;
                let reason = reason.to_string();
                changes.burials.push(Burial { document, attempts, strikes: 0, reason, key, lane });
                return;
            }
            Verdict::Retry { after, error } => (*after, Some(error)),
            Verdict::Release { after } => (*after, None),
        };
        let due = now.as_micros().saturating_add(micros(after));
        let mut set = Document::new();
        let mut update = Document::new();
        if let Some(error) = charge {
            set.insert("attempts", i64::from(found.attempts.saturating_add(1)));
            set.insert("reason", cut(error));
            update.insert("$unset", doc! { "strikes": "", "limit": "", "suspect": "" });
        }
        match &found.key {
            Some(key) if is_parked => {
                let wait = if charge.is_some() || !after.is_zero() { due } else { 0 };
                set.insert("at", PARKED);
                set.insert("wait", wait);
                changes.parks.push((key.clone(), wait));
            }
            // It stays where it is, in its lane or behind its key.
            Some(_) => {}
            None if charge.is_some() || !after.is_zero() => {
                set.insert("at", due.max(1));
            }
            None => {}
        }
        if !set.is_empty() {
            update.insert("$set", set);
            changes.updates.push(doc! {
                "q": { "_id": found.document_id, "lane": i64::from(lane) }, "u": update, "hint": { "_id": 1 },
            });
        }
    }

    async fn change(
        &self,
        session: &mut ClientSession,
        lane: &Lane,
        changes: Changes,
        now: Timestamp,
    ) -> Result<(), Failure> {
        let Changes { gone, published, burials, updates, parks } = changes;
        let blocked: HashSet<Text> = match self.0.settings.head_policy {
            HeadPolicy::Block => burials.iter().filter_map(|burial| burial.key.clone()).collect(),
            HeadPolicy::Continue => HashSet::new(),
        };
        if !published.is_empty() {
            self.0.published.insert_many(published).session(&mut *session).await?;
        }
        self.bury(session, burials, now).await?;
        if !gone.is_empty() {
            let deleting = self.0.messages.delete_many(members_of(lane.number, gone));
            deleting.hint(by_document()).session(&mut *session).await?;
        }
        if !updates.is_empty() {
            self.update_all(session, self.0.messages.name(), &updates).await?;
        }
        let mut firsts: HashMap<Text, i64> = HashMap::new();
        for (key, wait) in parks {
            firsts.entry(key).or_insert(wait);
        }
        let parks: Vec<Document> = firsts
            .iter()
            .filter(|(key, _)| !blocked.contains(*key))
            .map(|(key, until)| {
                let set = doc! { "lane": i64::from(lane.number), "until": until };
                doc! { "q": { "_id": &**key }, "u": { "$set": set }, "upsert": true }
            })
            .collect();
        if !parks.is_empty() {
            self.update_all(session, self.0.parked.name(), &parks).await?;
        }
        // Keys that were parked before: something else of theirs may wait, or nothing any more.
        let before: Vec<String> =
            lane.keys.iter().filter(|key| !firsts.contains_key(key.as_str())).cloned().collect();
        self.refresh_parks(session, lane.number, &before).await
    }

    async fn run_of(
        &self,
        session: &mut ClientSession,
        lane: &Lane,
    ) -> Result<HashMap<String, (RawDocumentBuf, Found)>, Failure> {
        let finding = self.0.messages.find(members_of(lane.number, lane.members.clone()));
        let mut cursor = finding.hint(by_document()).session(&mut *session).await?;
        let mut documents = HashMap::with_capacity(lane.members.len());
        while let Some(document) = cursor.next(session).await {
            let document = document?;
            let found = read(document.clone());
            documents.insert(shown(&found.document_id), (document, found));
        }
        Ok(documents)
    }
}

/// Verdicts whose number is not that of their run.
pub(crate) fn misfit(token: &Token, run: u32, given: usize) -> Error {
    Error::new(ErrorKind::Rejected, "settle")
        .describe(format!("{given} verdicts were given for the {run} messages of run {token:?}"))
        .not_applied()
}
