//! One transaction of the outbox's own.

use crate::SqlStorage;
use crate::dialect::{Argument, Dialect};
use crate::error;
use crate::layout::{Tables, in_list};
use crate::record::{Read, Row};
use crate::transaction::{Transaction, Turns};
use pillarbox_core::{Error, Nonce, Timestamp};

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
            // Some answers say that it was refused; without one of them nobody knows.
            Self::Commit(failure) if error::is_refused_commit::<D>(&failure) => {
                error::map::<D>(failure, operation, place).not_applied()
            }
            Self::Commit(failure) => error::map::<D>(failure, operation, place),
            Self::Refused(error) => error,
        }
    }

    /// What the client said.
    pub(crate) fn into_cause(self) -> sqlx::Error {
        match self {
            Self::Before(failure) | Self::Commit(failure) => failure,
            Self::Refused(error) => sqlx::Error::Protocol(error.to_string()),
        }
    }

    pub(crate) fn is_transient<D: Dialect>(&self) -> bool {
        match self {
            Self::Before(failure) | Self::Commit(failure) => error::is_transient::<D>(failure),
            Self::Refused(_) => false,
        }
    }
}

/// What a claim has changed so far.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Change {
    Nothing,
    /// Lanes were taken.
    Leases,
    /// Messages were moved, struck or buried.
    Messages,
}

/// A transaction, with the words of its dialect.
pub(crate) struct Session<'a, D: Dialect> {
    transaction: Transaction<D>,
    tables: &'a Tables,
    /// Whether statements that come again are prepared under a name.
    is_prepared: bool,
}

/// The arguments of a statement.
macro_rules! arguments {
    ($($argument:expr),* $(,)?) => { vec![$($crate::dialect::Argument::from($argument)),*] };
}
pub(crate) use arguments;

impl<'a, D: Dialect> Session<'a, D> {
    /// The transaction of a claim, which no other claim of this nonce runs beside.
    pub(crate) async fn begin_claim(storage: &'a SqlStorage<D>, nonce: &Nonce) -> Result<Self, Failure> {
        let high = nonce.as_bytes().first_chunk().map_or(0, |high| i64::from_be_bytes(*high));
        let nonce = D::CLAIM_BEGIN.replace('@', &high.to_string());
        let statement = format!("{}{}{nonce}", D::BEFORE_CLAIM, storage.0.begin);
        Self::begin(storage, &storage.0.turns, &statement).await
    }

    /// A transaction that only reads.
    pub(crate) async fn begin_read(storage: &'a SqlStorage<D>, statement: &str) -> Result<Self, Failure> {
        Self::begin(storage, &None, statement).await
    }

    pub(crate) async fn begin(
        storage: &'a SqlStorage<D>,
        turns: &Turns,
        statement: &str,
    ) -> Result<Self, Failure> {
        let transaction = Transaction::begin(&storage.0.pool, turns, statement).await?;
        let is_prepared = !storage.0.config.transaction_pooler;
        Ok(Self { transaction, tables: &storage.0.tables, is_prepared })
    }

    /// For statements that are none of the usual ones.
    pub(crate) fn connection(&mut self) -> &mut D::Connection {
        &mut self.transaction
    }

    /// Rows of a query.
    pub(crate) async fn rows(
        &mut self,
        sql: &str,
        arguments: Vec<Argument>,
    ) -> Result<Vec<D::Row>, sqlx::Error> {
        let sql = self.words(sql);
        D::query(&mut self.transaction, sql, arguments, self.is_prepared).await
    }

    /// Rows of a query with a list of places for its `@`, which stands behind all other arguments.
    pub(crate) async fn rows_in(
        &mut self,
        sql: &str,
        mut arguments: Vec<Argument>,
        places: &[i64],
    ) -> Result<Vec<D::Row>, sqlx::Error> {
        let sql = self.words(&among::<D>(sql, places, &mut arguments));
        D::query(&mut self.transaction, sql, arguments, D::HAS_ARRAYS && self.is_prepared).await
    }

    /// Rows of a query whose text will not come again.
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
        read: Read,
        condition: &str,
        arguments: Vec<Argument>,
        comes_again: bool,
    ) -> Result<Vec<Row>, sqlx::Error> {
        let sql = format!("SELECT {} FROM {{message}} m {condition}", read.columns::<D>());
        let sql = self.words(&sql);
        let rows = D::query(&mut self.transaction, sql, arguments, comes_again && self.is_prepared).await?;
        rows.iter().map(|row| Row::read::<D>(row, read)).collect()
    }

    /// The messages at these places, in any order.
    pub(crate) async fn messages_in(&mut self, read: Read, places: &[i64]) -> Result<Vec<Row>, sqlx::Error> {
        let sql = format!("SELECT {} FROM {{message}} WHERE seq @", read.columns::<D>());
        let rows = self.rows_in(&sql, Vec::new(), places).await?;
        rows.iter().map(|row| Row::read::<D>(row, read)).collect()
    }

    /// Changes rows; answers how many.
    pub(crate) async fn execute(&mut self, sql: &str, arguments: Vec<Argument>) -> Result<u64, sqlx::Error> {
        let sql = self.words(sql);
        D::execute(&mut self.transaction, sql, arguments, self.is_prepared).await
    }

    /// Changes rows by a statement with a list of places for its `@`, which stands behind all other arguments.
    pub(crate) async fn execute_in(
        &mut self,
        sql: &str,
        mut arguments: Vec<Argument>,
        places: &[i64],
    ) -> Result<u64, sqlx::Error> {
        let sql = self.words(&among::<D>(sql, places, &mut arguments));
        D::execute(&mut self.transaction, sql, arguments, D::HAS_ARRAYS && self.is_prepared).await
    }

    /// Deletes the messages at these places; answers how many.
    pub(crate) async fn delete(&mut self, places: &[i64]) -> Result<u64, sqlx::Error> {
        let Some(list) = D::LIST else {
            return self.execute_in("DELETE FROM {message} WHERE seq @", Vec::new(), places).await;
        };
        let (list, by_place) = (list.replace('@', &in_list(places)), D::BY_PLACE);
        let sql = format!("DELETE m FROM {list} {{message}} m{by_place} ON m.seq = p.place");
        self.execute_once(&sql, Vec::new()).await
    }

    /// Changes rows by a statement that comes again where lists are arguments.
    pub(crate) async fn execute_either(
        &mut self,
        sql: &str,
        arguments: Vec<Argument>,
    ) -> Result<u64, sqlx::Error> {
        let sql = self.words(sql);
        D::execute(&mut self.transaction, sql, arguments, D::HAS_ARRAYS && self.is_prepared).await
    }

    /// Rows of a query that comes again where lists are arguments.
    pub(crate) async fn rows_either(
        &mut self,
        sql: &str,
        arguments: Vec<Argument>,
    ) -> Result<Vec<D::Row>, sqlx::Error> {
        let sql = self.words(sql);
        D::query(&mut self.transaction, sql, arguments, D::HAS_ARRAYS && self.is_prepared).await
    }

    /// Changes rows by a text that will not come again.
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

    /// What tells this server from one that takes its place.
    pub(crate) async fn server(&mut self) -> Result<i64, sqlx::Error> {
        let rows = self.rows(&format!("SELECT {}", D::SERVER), Vec::new()).await?;
        Ok(rows.first().map(|row| D::int(row, 0)).transpose()?.flatten().unwrap_or_default())
    }

    pub(crate) async fn commit(self) -> Result<(), Failure> {
        self.transaction.commit().await
    }

    /// Ends it without a change.
    pub(crate) async fn roll_back(self) {
        self.transaction.roll_back().await;
    }

    /// Ends the transaction of a claim.
    pub(crate) async fn end_claim(self, change: Change) -> Result<(), Failure> {
        let by = |statement| format!("{statement}; {}", D::CLAIM_END);
        match change {
            Change::Nothing => {
                self.transaction.roll_back_by(by("ROLLBACK")).await;
                Ok(())
            }
            Change::Leases => self.transaction.commit_by(by(D::COMMIT_LEASES)).await,
            Change::Messages => self.transaction.commit_by(by("COMMIT")).await,
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

/// Writes that a column is one of these places: as an array, so that the statement is prepared once, or as a list.
fn among<D: Dialect>(sql: &str, places: &[i64], arguments: &mut Vec<Argument>) -> String {
    if D::HAS_ARRAYS {
        arguments.push(Argument::Ints(places.to_vec()));
        return sql.replace('@', "= ANY(?::bigint[])");
    }
    sql.replace('@', &format!("IN ({})", in_list(places)))
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
