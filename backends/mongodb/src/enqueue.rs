//! The producer's half.

use crate::transaction::{End, Failure};
use crate::{MongoStorage, layout};
use mongodb::ClientSession;
use mongodb::bson::raw::RawDocumentBuf;
use mongodb::error::{Error as ClientError, ErrorKind as Client};
use pillarbox_core::{BoxFuture, Enqueue, EnqueueAlone, Error, ErrorKind, Message};

/// Messages without a key that are enqueued together share lanes in runs of so many, so that few lanes have to be taken for them.
const UNKEYED_RUN: usize = 100;

impl MongoStorage {
    /// Stores messages in a transaction of their own, committed at the majority. Beside business data this is *not* an outbox: whoever
    /// writes both uses [`Enqueue::enqueue`] with the transaction of the data.
    ///
    /// # Errors
    /// `Rejected` for a message over a limit of this outbox, and then nothing is stored; else any kind, whose effect says
    /// whether the messages may be stored all the same.
    ///
    /// # Cancel safety
    /// Dropping the future leaves all messages stored, or none.
    pub async fn enqueue_alone(&self, messages: &[Message]) -> Result<(), Error> {
        let documents = self.documents(messages)?;
        match &documents[..] {
            [] => Ok(()),
            // One document is a transaction by itself.
            [document] => {
                let inserting = async {
                    let inserting = self.0.messages.insert_one(document.clone());
                    inserting.await.map(drop).map_err(|failure| self.map(failure, "enqueue"))
                };
                self.in_time("enqueue", inserting).await
            }
            _ => self.in_time("enqueue", self.insert_all(&documents)).await,
        }
    }

    async fn insert_all(&self, documents: &[RawDocumentBuf]) -> Result<(), Error> {
        let mut transaction = self.transaction("enqueue").await?;
        loop {
            transaction.start().await?;
            let inserting = self.0.messages.insert_many(documents).session(transaction.session());
            let work = inserting.await.map(|_| End::Commit(())).map_err(Failure::from);
            if transaction.end(work).await?.is_some() {
                return Ok(());
            }
        }
    }

    /// The documents of messages, each for its lane: what [`Enqueue::enqueue`] inserts.
    ///
    /// # Errors
    /// `Rejected` for a message over a limit of this outbox.
    pub fn documents(&self, messages: &[Message]) -> Result<Vec<RawDocumentBuf>, Error> {
        for message in messages {
            self.0.settings.limits.check(message)?;
        }
        let lanes = self.lanes();
        let spread = messages.first().map_or(0, |message| crc32fast::hash(&message.id().to_bytes()));
        let mut unkeyed = 0_usize;
        let document = |message: &Message| {
            let lane = match message.key() {
                Some(key) => layout::lane_of(key, lanes),
                None => {
                    let run = u32::try_from(unkeyed / UNKEYED_RUN).unwrap_or(0);
                    unkeyed += 1;
                    u16::try_from(spread.wrapping_add(run) % u32::from(lanes)).unwrap_or_default()
                }
            };
            layout::encode(message, lane)
        };
        Ok(messages.iter().map(document).collect())
    }
}

/// Into the caller's own transaction, which has to be open: [`ClientSession::start_transaction`] comes first. Commit it with the write
/// concern `majority`, the server's default.
impl Enqueue<ClientSession> for MongoStorage {
    async fn enqueue(&self, transaction: &mut ClientSession, messages: &[Message]) -> Result<(), Error> {
        let documents = self.documents(messages)?;
        // The client does not tell whether a transaction is open, but it refuses to begin a second one. Neither call asks the server.
        match transaction.start_transaction().await {
            Err(failure) if is_open(&failure) => {}
            Err(failure) => return Err(self.map(failure, "enqueue")),
            Ok(()) => {
                let _ = transaction.abort_transaction().await;
                return Err(Error::new(ErrorKind::Misconfigured, "enqueue")
                    .describe(
                        "the session has no transaction, so that data and messages could be split; call `start_transaction()` on it before messages are enqueued",
                    )
                    .not_applied());
            }
        }
        if documents.is_empty() {
            return Ok(());
        }
        // Through the session's own client, which may be another one than ours.
        let database = transaction.client().database(self.0.database.name());
        let collection = database.collection::<RawDocumentBuf>(self.0.messages.name());
        let inserting = async {
            let inserting = collection.insert_many(documents).session(transaction);
            inserting.await.map(drop).map_err(|failure| self.map(failure, "enqueue"))
        };
        self.in_time("enqueue", inserting).await
    }
}

impl EnqueueAlone for MongoStorage {
    fn enqueue_alone<'a>(&'a self, messages: &'a [Message]) -> BoxFuture<'a, Result<(), Error>> {
        Box::pin(self.enqueue_alone(messages))
    }
}

/// Whether a second transaction was refused since one is open.
fn is_open(failure: &ClientError) -> bool {
    matches!(failure.kind.as_ref(), Client::Transaction { message, .. } if message.contains("already in progress"))
}
