//! One transaction of the outbox's own.

use crate::dialect::{Argument, Dialect};
use crate::error;
use crate::layout::Tables;
use crate::record::{Row, columns};
use pillarbox_core::{Error, Timestamp};
use sqlx::{Pool, Transaction};

/// What went wrong: the client's failure, so that a collision can be told from the rest, or an answer that stands.
pub(crate) enum Failure {
    /// Before the commit: nothing was changed.
    Before(sqlx::Error),
    /// In the commit: it may have been carried out.
    Commit(sqlx::Error),
    /// Refused by the outbox itself; nothing was changed.
    Refused(Error),
}

impl From<sqlx::Error> for Failure {
    fn from(failure: sqlx::Error) -> Self {
        Self::Before(failure)
    }
}

impl Failure {
    pub(crate) fn into_error<D: Dialect>(self, operation: &'static str, place: &str) -> Error {
        match self {
            Self::Before(failure) => error::map::<D>(failure, operation, place).not_applied(),
            // An answer of the database says that it refused; without one nobody knows.
            Self::Commit(failure @ sqlx::Error::Database(_)) => {
                error::map::<D>(failure, operation, place).not_applied()
            }
            Self::Commit(failure) => error::map::<D>(failure, operation, place),
            Self::Refused(error) => error,
        }
    }

    pub(crate) fn is_transient<D: Dialect>(&self) -> bool {
        match self {
            Self::Before(failure) | Self::Commit(failure) => error::is_transient::<D>(failure),
            Self::Refused(_) => false,
        }
    }
}

/// A transaction, with the words of its dialect.
pub(crate) struct Session<'a, D: Dialect> {
    transaction: Transaction<'static, D>,
    tables: &'a Tables,
}

/// The arguments of a statement.
macro_rules! arguments {
    ($($argument:expr),* $(,)?) => { vec![$($crate::dialect::Argument::from($argument)),*] };
}
pub(crate) use arguments;

impl<'a, D: Dialect> Session<'a, D> {
    pub(crate) async fn begin(pool: &Pool<D>, tables: &'a Tables) -> Result<Self, Failure> {
        Self::begin_with(pool, tables, D::BEGIN).await
    }

    pub(crate) async fn begin_with(
        pool: &Pool<D>,
        tables: &'a Tables,
        statement: &'static str,
    ) -> Result<Self, Failure> {
        let transaction = pool.begin_with(statement).await?;
        Ok(Self { transaction, tables })
    }

    /// Rows of a query.
    pub(crate) async fn rows(
        &mut self,
        sql: &str,
        arguments: Vec<Argument>,
    ) -> Result<Vec<D::Row>, sqlx::Error> {
        let sql = self.words(sql);
        D::query(&mut self.transaction, sql, arguments, true).await
    }

    /// Rows of a query whose text holds a list and will not come again.
    pub(crate) async fn rows_once(
        &mut self,
        sql: &str,
        arguments: Vec<Argument>,
    ) -> Result<Vec<D::Row>, sqlx::Error> {
        let sql = self.words(sql);
        D::query(&mut self.transaction, sql, arguments, false).await
    }

    /// Messages that a condition chooses.
    pub(crate) async fn messages(
        &mut self,
        with_payload: bool,
        condition: &str,
        arguments: Vec<Argument>,
        comes_again: bool,
    ) -> Result<Vec<Row>, sqlx::Error> {
        let sql = format!("SELECT {} FROM {{message}} m {condition}", columns::<D>(with_payload));
        let sql = self.words(&sql);
        let rows = D::query(&mut self.transaction, sql, arguments, comes_again).await?;
        rows.iter().map(Row::read::<D>).collect()
    }

    /// Changes rows; answers how many.
    pub(crate) async fn execute(&mut self, sql: &str, arguments: Vec<Argument>) -> Result<u64, sqlx::Error> {
        let sql = self.words(sql);
        D::execute(&mut self.transaction, sql, arguments, true).await
    }

    /// Changes rows by a text that holds a list and will not come again.
    pub(crate) async fn execute_once(
        &mut self,
        sql: &str,
        arguments: Vec<Argument>,
    ) -> Result<u64, sqlx::Error> {
        let sql = self.words(sql);
        D::execute(&mut self.transaction, sql, arguments, false).await
    }

    /// The store's time. `offset` is what tests add to it.
    pub(crate) async fn now(&mut self, offset: i64) -> Result<Timestamp, sqlx::Error> {
        let rows = self.rows(&format!("SELECT {} + ?", D::NOW), arguments![offset]).await?;
        time::<D>(&rows)
    }

    pub(crate) async fn commit(self) -> Result<(), Failure> {
        self.transaction.commit().await.map_err(Failure::Commit)
    }

    /// Ends it without a change. Whether that is heard does not matter.
    pub(crate) async fn roll_back(self) {
        if let Err(error) = self.transaction.rollback().await {
            tracing::debug!(%error, "a transaction without changes could not be ended; its connection is closed");
        }
    }

    fn words(&self, sql: &str) -> String {
        words::<D>(self.tables, sql)
    }
}

/// The first column of the first row, as a time.
pub(crate) fn time<D: Dialect>(rows: &[D::Row]) -> Result<Timestamp, sqlx::Error> {
    let row = rows.first().ok_or(sqlx::Error::RowNotFound)?;
    Ok(Timestamp::from_micros(D::int(row, 0)?.unwrap_or_default()))
}

/// A statement with its tables' names, and its arguments as the database writes them.
pub(crate) fn words<D: Dialect>(tables: &Tables, sql: &str) -> String {
    let filled = tables.fill(sql);
    if !D::NUMBERED {
        return filled;
    }
    let mut numbered = String::with_capacity(filled.len() + 16);
    for (number, part) in filled.split('?').enumerate() {
        if number > 0 {
            numbered.push('$');
            numbered.push_str(&number.to_string());
        }
        numbered.push_str(part);
    }
    numbered
}
