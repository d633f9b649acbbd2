//! Dead letters: burying them, and what people do with them.

use crate::MongoStorage;
use crate::layout::{PARKED, READY};
use crate::transaction::Failure;
use mongodb::ClientSession;
use mongodb::bson::raw::{CStr, RawDocument, RawDocumentBuf, cstr};
use mongodb::bson::{Bson, Timestamp as Seq, doc, oid::ObjectId};
use pillarbox_core::{HeadPolicy, Text, Timestamp};

/// Reasons are cut here: they are read by people, and a stack trace for each of a million messages is storage.
const REASON_BYTES: usize = 4 * 1024;
/// What relays note at a message, and a dead letter that comes back loses.
const NOTES: [&str; 9] = ["_id", "at", "attempts", "strikes", "limit", "suspect", "wait", "reason", "died"];

/// A message that dies.
pub(crate) struct Burial {
    pub(crate) document: RawDocumentBuf,
    pub(crate) attempts: u32,
    pub(crate) strikes: u32,
    pub(crate) reason: String,
    pub(crate) key: Option<Text>,
    pub(crate) lane: u16,
}

impl MongoStorage {
    /// Stores dead letters; under the policy `Block` they hold their keys. Whoever calls removes the messages.
    pub(crate) async fn bury(
        &self,
        session: &mut ClientSession,
        burials: Vec<Burial>,
        now: Timestamp,
    ) -> Result<(), Failure> {
        if burials.is_empty() {
            return Ok(());
        }
        let mut blocks = Vec::new();
        let mut letters = Vec::with_capacity(burials.len());
        for burial in burials {
            let id = ObjectId::new();
            if let (HeadPolicy::Block, Some(key)) = (self.0.settings.head_policy, &burial.key) {
                blocks.push(doc! {
                    "q": { "_id": &**key },
                    "u": { "$set": { "lane": i64::from(burial.lane), "until": i64::MAX, "blocked": id } },
                    "upsert": true,
                });
            }
            letters.push(letter(&burial, id, now));
        }
        self.0.dead.insert_many(letters).session(&mut *session).await?;
        if !blocks.is_empty() {
            self.update_all(session, self.0.parked.name(), &blocks).await?;
        }
        Ok(())
    }
}

pub(crate) fn cut(reason: &str) -> &str {
    &reason[..reason.floor_char_boundary(REASON_BYTES)]
}

fn letter(burial: &Burial, id: ObjectId, now: Timestamp) -> RawDocumentBuf {
    let mut letter = without(&burial.document, &NOTES);
    letter.append(cstr!("_id"), id);
    letter.append(cstr!("attempts"), i64::from(burial.attempts));
    letter.append(cstr!("strikes"), i64::from(burial.strikes));
    letter.append(cstr!("reason"), cut(&burial.reason));
    letter.append(cstr!("died"), now.as_micros());
    letter
}

/// A dead letter as a message again: at the tail, as a new one, or at the head of its key, where it was.
pub(crate) fn redriven(letter: &RawDocument, to_head: bool) -> RawDocumentBuf {
    let notes = NOTES.iter().chain(if to_head { &[][..] } else { &["seq"][..] });
    let notes: Vec<&str> = notes.copied().collect();
    let mut message = without(letter, &notes);
    message.append(cstr!("_id"), ObjectId::new());
    message.append(cstr!("at"), if to_head { PARKED } else { READY });
    if !to_head {
        message.append(cstr!("seq"), Seq { time: 0, increment: 0 });
    }
    message
}

/// A copy for the collection of published messages.
pub(crate) fn kept(document: &RawDocument, now: Timestamp) -> RawDocumentBuf {
    let mut kept = without(document, &["at", "limit", "suspect", "wait"]);
    kept.append(cstr!("published"), now.as_micros());
    kept
}

/// A copy without some fields. A field that cannot be read is left out, and so is whatever follows it.
fn without(document: &RawDocument, names: &[&str]) -> RawDocumentBuf {
    let mut copy = RawDocumentBuf::new();
    for element in document.iter_elements().map_while(Result::ok) {
        let name: &CStr = element.key();
        if let (false, Ok(value)) = (names.contains(&name.as_str()), element.value()) {
            copy.append(name, value);
        }
    }
    copy
}

/// The field `_id` of a document.
pub(crate) fn id_of(document: &RawDocument) -> Bson {
    let id = document.get("_id").ok().flatten();
    id.and_then(|id| Bson::try_from(id).ok()).unwrap_or(Bson::Null)
}
