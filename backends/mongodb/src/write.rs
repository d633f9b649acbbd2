//! Commands that write several documents outside a transaction.

use crate::layout::whole;
use crate::{MongoStorage, error};
use mongodb::bson::{Document, doc};
use pillarbox_core::Error;

impl MongoStorage {
    /// Changes lanes in one command, of each only if it is as its update says; answers how many were.
    pub(crate) async fn update_lanes(
        &self,
        updates: Vec<Document>,
        operation: &'static str,
    ) -> Result<usize, Error> {
        self.write(doc! { "update": self.0.lanes.name(), "updates": updates }, operation).await
    }

    /// Deletes published messages in one command, a statement for each lane: on a sharded cluster each goes to the one shard that has the lane, and
    /// takes part in its migrations.
    pub(crate) async fn delete_published(&self, deletes: Vec<Document>) -> Result<(), Error> {
        let deleting = self.write(doc! { "delete": self.0.messages.name(), "deletes": deletes }, "settle");
        deleting.await.map(drop)
    }

    /// Answers how many documents matched, as soon as the majority has what was written: to wait for that is most of the price of a small
    /// command, and it is paid once.
    async fn write(&self, mut command: Document, operation: &'static str) -> Result<usize, Error> {
        // Else it would wait within the server for somebody's transaction, long after its caller has given up.
        let patience = i32::try_from(self.0.config.response_timeout.as_millis()).unwrap_or(i32::MAX);
        command.extend(
            doc! { "ordered": false, "maxTimeMS": patience.max(1), "writeConcern": { "w": "majority" } },
        );
        let answer = self.0.database.run_command(command).await;
        let answer = answer.map_err(|failure| self.map(failure, operation))?;
        let refused = answer.get_array("writeErrors").ok().and_then(|errors| errors.first()?.as_document());
        match refused.or_else(|| answer.get_document("writeConcernError").ok()) {
            Some(failure) => Err(error::written(failure, operation, &self.0.place)),
            None => {
                Ok(answer.get("n").and_then(whole).and_then(|n| usize::try_from(n).ok()).unwrap_or_default())
            }
        }
    }
}
