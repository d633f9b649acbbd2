//! Transactions of the outbox's own, repeated as the client's documentation asks for.

use crate::MongoStorage;
use crate::error;
use mongodb::ClientSession;
use mongodb::bson::{Document, doc};
use mongodb::error::{Error as ClientError, TRANSIENT_TRANSACTION_ERROR, UNKNOWN_TRANSACTION_COMMIT_RESULT};
use mongodb::options::{ReadConcern, ReadPreference, SelectionCriteria, TransactionOptions, WriteConcern};
use pillarbox_core::{Error, ErrorKind};
use std::future::Future;
use std::sync::PoisonError;
use std::time::Duration;

/// How often a transaction that met another one is run again. Each failure is another's success, so few are enough.
const TRIES: u32 = 40;
/// How often a commit is repeated whose outcome is not known.
const COMMITS: u32 = 5;

/// What a step within a transaction may fail with.
pub(crate) enum Failure {
    /// The client's error; the transaction is run again if that may help.
    Client(ClientError),
    /// Our own: the transaction is given up with it.
    Ours(Error),
}

impl From<ClientError> for Failure {
    fn from(error: ClientError) -> Self {
        Self::Client(error)
    }
}

impl From<Error> for Failure {
    fn from(error: Error) -> Self {
        Self::Ours(error)
    }
}

/// What to do with a transaction whose work is done.
pub(crate) enum End<T> {
    Commit(T),
    Abort(T),
}

impl<T> End<T> {
    pub(crate) fn some(self) -> End<Option<T>> {
        match self {
            Self::Commit(done) => End::Commit(Some(done)),
            Self::Abort(done) => End::Abort(Some(done)),
        }
    }
}

/// A transaction that reads one snapshot and commits at the majority. It is run in a loop, of [`start`](Self::start), the work
/// and [`end`](Self::end), until the end answers something: it is run again while it meets others.
///
/// A session whose transaction may still be open at the server is kept, and the next transaction takes it: whoever begins one on a session ends
/// what was open there. Else a connection that is lost in the middle would keep a lane locked until the server gives the transaction up.
pub(crate) struct Transaction<'a> {
    /// There until it is dropped.
    session: Option<ClientSession>,
    may_be_open: bool,
    outbox: &'a MongoStorage,
    operation: &'static str,
    tries: u32,
}

impl Transaction<'_> {
    #[allow(clippy::expect_used, reason = "it is taken by the drop alone")]
    pub(crate) fn session(&mut self) -> &mut ClientSession {
        self.session.as_mut().expect("a transaction has its session until it is dropped")
    }

    pub(crate) async fn start(&mut self) -> Result<(), Error> {
        self.tries += 1;
        self.may_be_open = true;
        let options = TransactionOptions::builder()
            .read_concern(ReadConcern::snapshot())
            .write_concern(WriteConcern::majority())
            .selection_criteria(SelectionCriteria::ReadPreference(ReadPreference::Primary))
            .build();
        let starting = self.session().start_transaction().with_options(options).await;
        starting.map_err(|failure| self.outbox.map(failure, self.operation))
    }

    /// Commits or gives up what was begun; `None` asks for another round.
    pub(crate) async fn end<T>(&mut self, work: Result<End<T>, Failure>) -> Result<Option<T>, Error> {
        let failure = match work {
            Ok(End::Commit(done)) => match self.commit().await {
                Ok(()) => {
                    self.may_be_open = false;
                    return Ok(Some(done));
                }
                Err(failure) => failure,
            },
            Ok(End::Abort(done)) => {
                // Nothing was written that has to be kept.
                self.give_up(None).await;
                return Ok(Some(done));
            }
            Err(failure) => match failure {
                Failure::Ours(error) => {
                    self.give_up(None).await;
                    return Err(error);
                }
                Failure::Client(failure) => {
                    self.give_up(Some(&failure)).await;
                    failure
                }
            },
        };
        if self.tries >= TRIES || !failure.contains_label(TRANSIENT_TRANSACTION_ERROR) {
            return Err(self.outbox.map(failure, self.operation));
        }
        // Whoever it met is at its commit; a pause lets that one through, and its length differs between those who wait.
        let spread = std::ptr::from_ref(self).addr() as u64 / 64 % 5;
        tokio::time::sleep(Duration::from_millis(u64::from(self.tries.min(10)) + spread)).await;
        Ok(None)
    }

    /// Ends it at the server. The client hides whether that worked, but not whether `failure`, that it is given up for, came from the server.
    async fn give_up(&mut self, failure: Option<&ClientError>) {
        let _ = self.session().abort_transaction().await;
        self.may_be_open = failure.is_some_and(|failure| error::code(failure).is_none());
    }

    async fn commit(&mut self) -> Result<(), ClientError> {
        for _ in 1..COMMITS {
            match self.session().commit_transaction().await {
                Err(error) if error.contains_label(UNKNOWN_TRANSACTION_COMMIT_RESULT) => {}
                ended => return ended,
            }
        }
        self.session().commit_transaction().await
    }
}

impl Drop for Transaction<'_> {
    fn drop(&mut self) {
        if let Some(session) = self.session.take().filter(|_| self.may_be_open) {
            self.outbox.0.left_open.lock().unwrap_or_else(PoisonError::into_inner).push(session);
        }
    }
}

impl MongoStorage {
    /// A transaction to run.
    pub(crate) async fn transaction(&self, operation: &'static str) -> Result<Transaction<'_>, Error> {
        let left = self.0.left_open.lock().unwrap_or_else(PoisonError::into_inner).pop();
        if let Some(session) = left {
            let mut transaction =
                Transaction { session: Some(session), may_be_open: true, outbox: self, operation, tries: 0 };
            // The client wants to hear of the end too before it begins another one.
            let _ = transaction.session().abort_transaction().await;
            return Ok(transaction);
        }
        let session = self.0.client.start_session().await.map_err(|failure| self.map(failure, operation))?;
        Ok(Transaction { session: Some(session), may_be_open: false, outbox: self, operation, tries: 0 })
    }

    /// Runs what has transactions on a task of its own, so that it comes to its end although the caller drops the future: a transaction
    /// that is left in the middle locks what it wrote until the server gives it up.
    pub(crate) async fn to_the_end<T: Send + 'static>(
        &self,
        operation: &'static str,
        work: impl Future<Output = Result<T, Error>> + Send + 'static,
    ) -> Result<T, Error> {
        let outbox = self.clone();
        match tokio::spawn(async move { outbox.in_time(operation, work).await }).await {
            Ok(ended) => ended,
            Err(failure) => match failure.try_into_panic() {
                Ok(panic) => std::panic::resume_unwind(panic),
                Err(_) => Err(Error::new(ErrorKind::Unavailable, operation)
                    .describe("the runtime that the client runs on is shutting down")),
            },
        }
    }

    /// Runs several updates of one collection in one command.
    pub(crate) async fn update_all(
        &self,
        session: &mut ClientSession,
        collection: &str,
        updates: &[Document],
    ) -> Result<(), Failure> {
        for updates in updates.chunks(500) {
            let command = doc! { "update": collection, "updates": updates.to_vec(), "ordered": true };
            let answer = self.0.database.run_command(command).session(&mut *session).await?;
            if answer.contains_key("writeErrors") {
                return Err(Error::new(ErrorKind::Unexpected, "settle")
                    .describe("the server refused an update within a transaction")
                    .not_applied()
                    .into());
            }
        }
        Ok(())
    }

    pub(crate) fn map(&self, failure: ClientError, operation: &'static str) -> Error {
        error::map(failure, operation, &self.0.place)
    }
}
