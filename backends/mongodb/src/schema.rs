//! Collections, indexes and the first documents of an outbox.

use crate::config::misconfigured;
use crate::error;
use futures_util::TryStreamExt as _;
use mongodb::bson::{Bson, Document, doc};
use mongodb::error::Result as ClientResult;
use mongodb::options::{IndexOptions, WriteConcern};
use mongodb::{Database, IndexModel};
use pillarbox_core::Error;
use std::collections::HashMap;

/// An index: the collection's suffix, its name, its keys, and the documents that it has if not all.
struct Index {
    collection: &'static str,
    name: &'static str,
    keys: fn() -> Document,
    partial: fn() -> Option<Document>,
}

/// What claims and administration are built on. None of them expires anything. An index costs the deletion of a message about a tenth of its
/// time, also one that does not have the message; so there is none to find a waiting message by its id, but the ids stand in one of them,
/// which an operator's question looks through.
const INDEXES: [Index; 6] = [
    // What is new in a lane, in order.
    Index {
        collection: "messages",
        name: "due",
        keys: || doc! { "lane": 1, "at": 1, "seq": 1 },
        partial: || None,
    },
    // What is not due at once: by due time, across lanes, by merging as many scans as there are lanes, and behind a parked key, in order. In
    // the index above, each of those scans would begin by walking over what was deleted lately at the head of the next lane.
    Index {
        collection: "messages",
        name: "aside",
        keys: || doc! { "lane": 1, "at": 1, "key": 1, "seq": 1, "id": 1 },
        partial: || Some(doc! { "$or": [{ "at": { "$gt": 0_i64 } }, { "at": { "$lt": 0_i64 } }] }),
    },
    Index {
        collection: "messages",
        name: "suspects",
        keys: || doc! { "lane": 1, "suspect": 1, "seq": 1 },
        partial: || Some(doc! { "suspect": true }),
    },
    Index { collection: "parked", name: "due", keys: || doc! { "lane": 1, "until": 1 }, partial: || None },
    Index { collection: "dead", name: "died", keys: || doc! { "died": 1, "_id": 1 }, partial: || None },
    Index { collection: "dead", name: "id", keys: || doc! { "id": 1 }, partial: || None },
];
/// Only with retention, but cheap while the collection is empty.
const PUBLISHED: Index =
    Index { collection: "published", name: "published", keys: || doc! { "published": 1 }, partial: || None };

const COLLECTIONS: [&str; 6] = ["settings", "messages", "lanes", "parked", "dead", "published"];

fn indexes() -> impl Iterator<Item = &'static Index> {
    INDEXES.iter().chain(std::iter::once(&PUBLISHED))
}

pub(crate) async fn stored_settings(database: &Database, name: &str) -> ClientResult<Option<Document>> {
    database.collection::<Document>(&format!("{name}.settings")).find_one(doc! { "_id": "outbox" }).await
}

/// Makes what is missing, the settings last: who finds them finds everything. Answers the settings that are stored then.
pub(crate) async fn create(database: &Database, name: &str, wanted: Document) -> ClientResult<Document> {
    let lanes = match wanted.get("lanes") {
        Some(Bson::Int64(lanes)) => *lanes,
        Some(Bson::Int32(lanes)) => i64::from(*lanes),
        _ => 0,
    };
    for of in COLLECTIONS {
        let full = format!("{name}.{of}");
        let creating = database.create_collection(full).write_concern(WriteConcern::majority());
        let created = if of == "messages" {
            // What has no right place would never be claimed: better refused at once than lost.
            creating
                .validator(doc! {
                    "lane": { "$gte": 0, "$lt": lanes },
                    "at": { "$type": "long" },
                    "seq": { "$type": "timestamp" },
                })
                .await
        } else {
            creating.await
        };
        // 48: it is there already.
        match created {
            Err(failure) if error::code(&failure) != Some(48) => return Err(failure),
            _ => {}
        }
    }
    for of in COLLECTIONS {
        let models: Vec<IndexModel> =
            indexes().filter(|index| index.collection == of).map(Index::model).collect();
        if !models.is_empty() {
            database.collection::<Document>(&format!("{name}.{of}")).create_indexes(models).await?;
        }
    }
    let all = database.collection::<Document>(&format!("{name}.lanes"));
    let updates: Vec<Document> = (0..lanes)
        .map(|lane| {
            let first = doc! {
                "version": 1_i64, "fence": 0_i64, "held": false, "plain": false, "until": 0_i64, "not_before": 0_i64,
                "run": 0_i64,
            };
            doc! { "q": { "_id": lane }, "u": { "$setOnInsert": first }, "upsert": true }
        })
        .collect();
    let command = doc! { "update": all.name(), "updates": updates, "ordered": false, "writeConcern": { "w": "majority" } };
    database.run_command(command).await?;
    let stored = database.collection::<Document>(&format!("{name}.settings"));
    let insert = stored
        .update_one(doc! { "_id": "outbox" }, doc! { "$setOnInsert": wanted.clone() })
        .upsert(true)
        .write_concern(WriteConcern::majority())
        .await;
    match insert {
        // 11000: another handle was faster.
        Err(failure) if error::code(&failure) != Some(11000) => return Err(failure),
        _ => {}
    }
    Ok(stored_settings(database, name).await?.unwrap_or(wanted))
}

/// Holds the indexes that are there against those that are needed.
pub(crate) async fn check(database: &Database, name: &str) -> Result<(), Error> {
    let mut found: HashMap<&str, Vec<IndexModel>> = HashMap::new();
    for of in COLLECTIONS {
        let cursor = database.collection::<Document>(&format!("{name}.{of}")).list_indexes().await;
        let present = match cursor {
            Ok(cursor) => cursor.try_collect().await,
            Err(failure) => Err(failure),
        };
        let present = match present {
            Ok(present) => present,
            // 26: there is no such collection.
            Err(failure) if error::code(&failure) == Some(26) => Vec::new(),
            Err(failure) => return Err(error::map(failure, "open", name)),
        };
        found.insert(of, present);
    }
    judge(&found, name)
}

fn judge(found: &HashMap<&str, Vec<IndexModel>>, name: &str) -> Result<(), Error> {
    for (of, present) in found {
        for index in present {
            let options = index.options.as_ref();
            if options.is_some_and(|options| options.expire_after.is_some()) {
                let called = options.and_then(|options| options.name.as_deref()).unwrap_or("?");
                return Err(misconfigured(format!(
                    "the index `{called}` of `{name}.{of}` expires documents, and so loses messages; drop it with `db.getCollection(\"{name}.{of}\").dropIndex(\"{called}\")`"
                )));
            }
        }
    }
    let missing: Vec<String> = indexes()
        .filter(|index| {
            !found.get(index.collection).is_some_and(|present| present.iter().any(|one| index.is(one)))
        })
        .map(|index| format!("`{}` of `{name}.{}` {}", index.name, index.collection, (index.keys)()))
        .collect();
    if missing.is_empty() {
        return Ok(());
    }
    Err(misconfigured(format!(
        "the outbox lacks indexes: {}; make them with `MongoStorage::create`",
        missing.join(", ")
    )))
}

impl Index {
    fn model(&self) -> IndexModel {
        let mut options = IndexOptions::default();
        options.name = Some(self.name.to_owned());
        options.partial_filter_expression = (self.partial)();
        IndexModel::builder().keys((self.keys)()).options(options).build()
    }

    /// Whether `present` serves the same questions. Its numbers may have other types, and its name may be another one.
    fn is(&self, present: &IndexModel) -> bool {
        let partial = present.options.as_ref().and_then(|options| options.partial_filter_expression.clone());
        same(&present.keys, &(self.keys)())
            && match (&partial, (self.partial)()) {
                (None, None) => true,
                (Some(present), Some(needed)) => same(present, &needed),
                _ => false,
            }
    }
}

fn same(left: &Document, right: &Document) -> bool {
    let equal = |left: &Bson, right: &Bson| match (left, right) {
        (Bson::Document(left), Bson::Document(right)) => same(left, right),
        _ => left == right || (whole(left).is_some() && whole(left) == whole(right)),
    };
    left.len() == right.len()
        && left.iter().zip(right).all(|(left, right)| left.0 == right.0 && equal(left.1, right.1))
}

#[allow(clippy::cast_possible_truncation, reason = "directions of indexes and zero")]
fn whole(value: &Bson) -> Option<i64> {
    match value {
        Bson::Int32(number) => Some(i64::from(*number)),
        Bson::Int64(number) => Some(*number),
        Bson::Double(number) => Some(*number as i64),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn complete() -> HashMap<&'static str, Vec<IndexModel>> {
        let mut found: HashMap<&str, Vec<IndexModel>> = HashMap::new();
        for index in indexes() {
            found.entry(index.collection).or_default().push(index.model());
        }
        found
    }

    #[test]
    fn every_missing_index_is_named() {
        judge(&complete(), "orders").unwrap();
        for index in indexes() {
            let mut found = complete();
            found.get_mut(index.collection).unwrap().retain(|present| !index.is(present));
            let error = judge(&found, "orders").unwrap_err().to_string();
            assert!(error.contains(&format!("`{}` of `orders.{}`", index.name, index.collection)), "{error}");
        }
    }

    #[test]
    fn an_index_that_expires_messages_is_refused() {
        let mut found = complete();
        let mut options = IndexOptions::default();
        options.name = Some("ttl".to_owned());
        options.expire_after = Some(std::time::Duration::from_secs(60));
        let ttl = IndexModel::builder().keys(doc! { "created": 1 }).options(options).build();
        found.get_mut("messages").unwrap().push(ttl);
        let error = judge(&found, "orders").unwrap_err().to_string();
        assert!(error.contains("`ttl` of `orders.messages` expires"), "{error}");
    }

    #[test]
    fn settings_know_the_lanes() {
        let config = crate::MongoConfig::new("shop").lanes(7);
        assert_eq!(crate::settings::wanted(&config).get_i64("lanes").ok(), Some(7));
    }
}
