//! The producer's half.

use super::{Own, SpakkyStorage, at};
use crate::session::Failure;
use pillarbox_core::{BoxFuture, Enqueue, EnqueueAlone, Error, ErrorKind, Limits, Message};
use sqlx::{PgConnection, Postgres, Transaction};
use std::collections::BTreeMap;

impl SpakkyStorage {
    /// Adds messages to the transaction that is open on `connection`.
    ///
    /// # Errors
    /// `Rejected` for a message that this layout cannot hold, and then nothing is written; else any kind, and then the transaction must be
    /// rolled back.
    ///
    /// # Cancel safety
    /// After the future was dropped some of the messages may be part of the transaction: roll it back.
    pub async fn append(&self, connection: &mut PgConnection, messages: &[Message]) -> Result<(), Error> {
        self.insert(connection, messages).await.map_err(|failure| self.error(failure, "enqueue"))
    }

    async fn insert(&self, connection: &mut PgConnection, messages: &[Message]) -> Result<(), Failure> {
        for message in messages {
            Limits::default().check(message).map_err(|invalid| Failure::Refused(invalid.into()))?;
            let absent = [
                ("an ordering key", message.key().is_some()),
                ("a time of delivery", message.deliver_at().is_some()),
            ];
            if let Some((what, _)) = absent.into_iter().find(|(_, is_there)| *is_there) {
                return Err(Failure::Refused(
                    Error::new(ErrorKind::Rejected, "enqueue")
                        .describe(format!(
                            "the message {} has {what}, for which Spakky's table has no column",
                            message.id()
                        ))
                        .not_applied(),
                ));
            }
        }
        for message in messages {
            let mut headers: BTreeMap<&str, &str> =
                message.headers().iter().map(|(name, value)| (&**name, &**value)).collect();
            if let Some(content_type) = message.content_type() {
                headers.insert("content-type", content_type);
            }
            // A map of strings is always JSON.
            let headers = serde_json::to_string(&headers).unwrap_or_default();
            sqlx::query(concat!(
                "INSERT INTO spakky_event_outbox (id, event_name, payload, headers, created_at, retry_count) ",
                "VALUES ($1, $2, $3, $4::json, ", at!(5), ", 0) ON CONFLICT DO NOTHING"
            ))
            .bind(*message.id().as_uuid())
            .bind(&**message.topic())
            .bind(&message.payload()[..])
            .bind(headers)
            .bind(message.created_at().as_micros())
            .execute(&mut *connection)
            .await?;
        }
        Ok(())
    }
}

impl Enqueue<Transaction<'_, Postgres>> for SpakkyStorage {
    async fn enqueue(
        &self,
        transaction: &mut Transaction<'_, Postgres>,
        messages: &[Message],
    ) -> Result<(), Error> {
        self.append(transaction, messages).await
    }
}

impl EnqueueAlone for SpakkyStorage {
    fn enqueue_alone<'a>(&'a self, messages: &'a [Message]) -> BoxFuture<'a, Result<(), Error>> {
        Box::pin(self.retried("enqueue", move || async move {
            let mut transaction = Own::begin(&self.0.pool, &None, &self.0.begin).await?;
            self.insert(&mut transaction, messages).await?;
            transaction.commit().await
        }))
    }
}
