//! Transactions of the outbox's own, on connections of its pool.

use crate::dialect::Dialect;
use crate::error;
use crate::session::Failure;
use pillarbox_core::{Error, ErrorKind};
use sqlx::Pool;
use sqlx::pool::PoolConnection;
use std::ops::{Deref, DerefMut};
use std::sync::Arc;
use std::time::Duration;
use tokio::runtime::Handle;
use tokio::sync::{Mutex, OwnedMutexGuard};

/// How often a transaction that collided with others is run before the error is given back.
const TRIES: u32 = 8;

/// How long the pool waits for a connection that comes back: for the end of a transaction that nobody waits for any more, and for the
/// client's own question whether it still works.
const END_LIMIT: Duration = Duration::from_secs(1);
const TAKEN_AT_THE_END: &str = "only dropping it takes the connection";

/// A transaction that is rolled back unless it is committed. The pool itself would wait for that as long as TCP does, with one place less
/// for everybody, if the future of a call was dropped because its connection is half open.
pub(crate) struct Transaction<D: Dialect> {
    connection: Option<PoolConnection<D>>,
    is_open: bool,
    turn: Option<OwnedMutexGuard<()>>,
}

/// Where a database has one writer at a time, those of one handle take turns: the database itself has who waits look again after
/// milliseconds.
pub(crate) type Turns = Option<Arc<Mutex<()>>>;

impl<D: Dialect> Transaction<D> {
    pub(crate) async fn begin(pool: &Pool<D>, turns: &Turns, statement: &str) -> Result<Self, Failure> {
        let turn = match turns {
            Some(turns) => Some(Arc::clone(turns).lock_owned().await),
            None => None,
        };
        let mut transaction = Self { connection: Some(pool.acquire().await?), is_open: true, turn };
        D::script(&mut transaction, statement.to_owned()).await?;
        Ok(transaction)
    }

    /// Makes its changes last.
    pub(crate) async fn commit(self) -> Result<(), Failure> {
        self.commit_by("COMMIT".to_owned()).await
    }

    /// Makes its changes last, by a script that commits.
    pub(crate) async fn commit_by(mut self, script: String) -> Result<(), Failure> {
        D::script(&mut self, script).await.map_err(Failure::Commit)?;
        self.is_open = false;
        Ok(())
    }

    /// Ends it without a change. Whether that is heard does not matter.
    pub(crate) async fn roll_back(self) {
        self.roll_back_by("ROLLBACK".to_owned()).await;
    }

    /// Ends it without a change, by a script that rolls back.
    pub(crate) async fn roll_back_by(mut self, script: String) {
        match D::script(&mut self, script).await {
            Ok(()) => self.is_open = false,
            Err(error) => tracing::debug!(%error, "a transaction without changes could not be ended"),
        }
    }
}

impl<D: Dialect> Deref for Transaction<D> {
    type Target = D::Connection;

    fn deref(&self) -> &D::Connection {
        self.connection.as_ref().expect(TAKEN_AT_THE_END)
    }
}

impl<D: Dialect> DerefMut for Transaction<D> {
    fn deref_mut(&mut self) -> &mut D::Connection {
        self.connection.as_mut().expect(TAKEN_AT_THE_END)
    }
}

impl<D: Dialect> Drop for Transaction<D> {
    fn drop(&mut self) {
        let (Some(mut connection), is_open) = (self.connection.take(), self.is_open) else { return };
        let turn = self.turn.take();
        let Ok(runtime) = Handle::try_current() else { return connection.close_on_drop() };
        runtime.spawn(async move {
            let end = async {
                if is_open {
                    let rollback = D::script(&mut connection, "ROLLBACK".to_owned()).await;
                    // That there is nothing to roll back is an answer too.
                    let is_over = matches!(rollback, Ok(()) | Err(sqlx::Error::Database(_)));
                    // Apart, since it must run in that case too.
                    if !is_over || end_of_claim::<D>(&mut connection).await.is_err() {
                        connection.close_on_drop();
                        return;
                    }
                }
                connection.return_to_pool().await;
            };
            if tokio::time::timeout(END_LIMIT, end).await.is_err() {
                connection.close_on_drop();
            }
            // Now the next one finds this connection, whose cache of pages no other has made stale.
            drop(turn);
        });
    }
}

async fn end_of_claim<D: Dialect>(connection: &mut D::Connection) -> Result<(), sqlx::Error> {
    if D::CLAIM_END.is_empty() {
        return Ok(());
    }
    D::script(connection, D::CLAIM_END.to_owned()).await
}

/// Runs a whole transaction again while it collides with others, for as long as one call may take.
pub(crate) async fn retried<D: Dialect, T, F>(
    place: &str,
    limit: Duration,
    operation: &'static str,
    mut transaction: impl FnMut() -> F,
) -> Result<T, Error>
where
    F: Future<Output = Result<T, Failure>>,
{
    let mut collided = None;
    let tries = async {
        let mut tries = 1;
        loop {
            match transaction().await {
                Err(failure) if tries < TRIES && failure.is_transient::<D>() => {
                    tracing::debug!(place, operation, tries, "transactions collided; trying again");
                    collided = Some(failure);
                    tokio::time::sleep(Duration::from_millis(1 << tries)).await;
                    tries += 1;
                }
                outcome => return outcome,
            }
        }
    };
    match tokio::time::timeout(limit, tries).await {
        Ok(outcome) => outcome.map_err(|failure| failure.into_error::<D>(operation, place)),
        Err(_) => Err(collided.map_or_else(
            || no_answer::<D>(place, limit, operation),
            // The try that was cut off may have taken effect all the same.
            |failure| error::map::<D>(failure.into_cause(), operation, place),
        )),
    }
}

/// Gives a call as long as it may take.
pub(crate) async fn within<D: Dialect, T>(
    place: &str,
    limit: Duration,
    operation: &'static str,
    call: impl Future<Output = Result<T, Error>>,
) -> Result<T, Error> {
    let answered = tokio::time::timeout(limit, call).await;
    answered.unwrap_or_else(|_| Err(no_answer::<D>(place, limit, operation)))
}

fn no_answer<D: Dialect>(place: &str, limit: Duration, operation: &'static str) -> Error {
    Error::new(ErrorKind::Unavailable, operation).describe(format!(
        "{} at {place} did not answer within {limit:?} (`outbox.response_timeout`)",
        D::PRODUCT
    ))
}
