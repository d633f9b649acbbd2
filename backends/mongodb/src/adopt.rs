//! For applications without transactions: messages that wait in the aggregate's own document.

use crate::MongoStorage;
use crate::error;
use crate::layout::number;
use mongodb::Collection;
use mongodb::bson::raw::RawDocumentBuf;
use mongodb::bson::{Bson, Document, doc};
use mongodb::error::ErrorKind as Client;
use pillarbox_core::{Error, ErrorKind, Message};

/// So many aggregates are looked at by one call.
const AGGREGATES: i64 = 100;

impl MongoStorage {
    /// A message as an element of an array in the aggregate's own document: `$push` it in the update that changes the aggregate, and
    /// have it moved into the outbox by [`adopt`](Self::adopt).
    ///
    /// # Errors
    /// `Rejected` for a message over a limit of this outbox.
    pub fn embedded(&self, message: &Message) -> Result<Document, Error> {
        let documents = self.documents(std::slice::from_ref(message))?;
        let document = documents.first().map(Document::try_from).transpose();
        // What was built a moment ago can be read.
        Ok(document.ok().flatten().unwrap_or_default())
    }

    /// Moves messages from the array `field` of `aggregates` into the outbox, those of at most 100 aggregates; answers how many. Call
    /// it after each change, and now and then for what a crash left behind. It needs no transaction, also not on the server's side:
    /// inserted first, under the ids that they have, and removed from the aggregate then. A call that is cut off in between is repeated
    /// by the next one, which delivers a message again only if a relay had already published it.
    ///
    /// An index on `field._id` of `aggregates` keeps this from reading all of them; a sparse one is small.
    ///
    /// Messages of one aggregate keep their order if they share its key and calls for one aggregate do not run side by side.
    ///
    /// # Errors
    /// `Rejected` for a field that holds something else than messages, naming it; any other kind, and then some may have been moved.
    ///
    /// # Cancel safety
    /// Dropping the future leaves each message in the aggregate, in the outbox, or in both until the next call.
    pub async fn adopt(&self, aggregates: &Collection<Document>, field: &str) -> Result<u64, Error> {
        self.in_time("adopt", self.adopt_some(aggregates, field)).await
    }

    async fn adopt_some(&self, aggregates: &Collection<Document>, field: &str) -> Result<u64, Error> {
        let map = |failure| self.map(failure, "adopt");
        let filter = doc! { format!("{field}._id"): { "$gt": Bson::MinKey } };
        let finding = aggregates.find(filter).projection(doc! { field: 1 }).limit(AGGREGATES);
        let mut cursor = finding.await.map_err(map)?;
        let mut moved = 0;
        while cursor.advance().await.map_err(map)? {
            let aggregate: Document = cursor.deserialize_current().map_err(map)?;
            let embedded = aggregate.get_array(field).cloned().unwrap_or_default();
            let mut ids = Vec::with_capacity(embedded.len());
            for message in &embedded {
                ids.push(self.adopt_one(message, field).await?);
            }
            let id = aggregate.get("_id").cloned().unwrap_or(Bson::Null);
            let update = doc! { "$pull": { field: { "_id": { "$in": &ids } } } };
            aggregates.update_one(doc! { "_id": id }, update).await.map_err(map)?;
            moved += ids.len() as u64;
        }
        Ok(moved)
    }

    async fn adopt_one(&self, message: &Bson, field: &str) -> Result<Bson, Error> {
        let wrong = || {
            Error::new(ErrorKind::Rejected, "adopt")
                .describe(format!("`{field}` holds something that is no message of `MongoStorage::embedded`"))
                .not_applied()
        };
        let document = message.as_document().ok_or_else(wrong)?;
        let id = document.get("_id").cloned().ok_or_else(wrong)?;
        let raw = RawDocumentBuf::try_from(document).map_err(|_| wrong())?;
        let lane = raw.get("lane").ok().flatten().and_then(number);
        if lane.is_none_or(|lane| lane < 0 || lane >= i64::from(self.lanes())) {
            return Err(wrong());
        }
        match self.0.messages.insert_one(raw).await {
            Ok(_) => Ok(id),
            // An earlier call had come so far.
            Err(failure)
                if error::code(&failure) == Some(11000) && matches!(*failure.kind, Client::Write(_)) =>
            {
                Ok(id)
            }
            Err(failure) => Err(self.map(failure, "adopt")),
        }
    }
}
