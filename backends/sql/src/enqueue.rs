//! The producer's half.

use crate::SqlStorage;
use crate::dialect::Dialect;
use crate::session::Failure;
use crate::transaction::Transaction as Own;
use pillarbox_core::{BoxFuture, Enqueue, EnqueueAlone, Error, Message};
use sqlx::Transaction;

impl<D: Dialect> SqlStorage<D> {
    /// Adds messages to the transaction that is open on `connection`, which may be any connection to the outbox's database: a
    /// `sqlx::Transaction` dereferences to one. Without a transaction each statement would commit by itself; then use
    /// [`enqueue_alone`](Self::enqueue_alone).
    ///
    /// # Errors
    /// `Rejected` for a message over a limit of this outbox, and then nothing is written; else any kind, and then the transaction
    /// must be rolled back.
    ///
    /// # Cancel safety
    /// After the future was dropped some of the messages may be part of the transaction: roll it back.
    pub async fn append(&self, connection: &mut D::Connection, messages: &[Message]) -> Result<(), Error> {
        for message in messages {
            self.0.settings.limits.check(message)?;
        }
        if messages.is_empty() {
            return Ok(());
        }
        let inserted = D::insert(connection, &self.0.tables, messages, &self.0.config).await;
        inserted.map_err(|failure| Failure::Before(failure).into_error::<D>("enqueue", &self.0.config.place))
    }

    /// Stores messages in a transaction of their own. Beside business data this is *not* an outbox: whoever writes both uses
    /// [`Enqueue`] with the transaction of the data.
    ///
    /// # Errors
    /// `Rejected` for a message over a limit of this outbox, and then nothing is stored; else any kind, whose effect says whether the
    /// messages may be stored all the same.
    ///
    /// # Cancel safety
    /// Dropping the future leaves all messages stored, or none.
    pub async fn enqueue_alone(&self, messages: &[Message]) -> Result<(), Error> {
        for message in messages {
            self.0.settings.limits.check(message)?;
        }
        if messages.is_empty() {
            return Ok(());
        }
        self.retried("enqueue", || async {
            let mut transaction = Own::begin(&self.0.pool, &self.0.turns, &self.0.begin).await?;
            D::insert(&mut transaction, &self.0.tables, messages, &self.0.config).await?;
            transaction.commit().await
        })
        .await
    }
}

impl<D: Dialect> Enqueue<Transaction<'_, D>> for SqlStorage<D> {
    async fn enqueue(&self, transaction: &mut Transaction<'_, D>, messages: &[Message]) -> Result<(), Error> {
        self.append(transaction, messages).await
    }
}

impl<D: Dialect> EnqueueAlone for SqlStorage<D> {
    fn enqueue_alone<'a>(&'a self, messages: &'a [Message]) -> BoxFuture<'a, Result<(), Error>> {
        Box::pin(self.enqueue_alone(messages))
    }
}
