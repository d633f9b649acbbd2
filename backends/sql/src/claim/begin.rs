//! What a claim sees first.

use super::Claiming;
use super::choose::Choice;
use crate::dialect::{Argument, Dialect};
use crate::lane;
use crate::layout::{LANES, in_list};
use crate::marks::lanes;
use crate::session::{Failure, arguments};
use pillarbox_core::Timestamp;

/// Where the columns that [`Claiming::look`] asks for begin, if lanes stand before them.
const BEHIND_LANES: usize = lane::BESIDE + 1;

/// What there is beside lanes with work: mostly neither.
#[derive(Clone, Copy, Debug)]
pub(super) struct Found {
    /// Whether runs of this very claim are live.
    pub(super) is_repeated: bool,
    /// Whether scheduled messages are due.
    pub(super) is_scheduled: bool,
}

impl<D: Dialect> Claiming<'_, D> {
    /// Begins a claim, and tells its time. Where a part of a query may lock rows, and if the claim takes lanes, it locks the first of them
    /// at once: that spares a round trip.
    pub(super) async fn begin(&mut self, takes_lanes: bool) -> Result<(Found, Option<Vec<Choice>>), Failure> {
        if !(takes_lanes && D::LOCKS_BY_LIMIT && D::LOCKS_IN_PARTS) {
            return Ok((self.look().await?, None));
        }
        loop {
            let (choice, chosen) = self.choice();
            let (columns, looked_at) = self.look_columns("(SELECT now FROM t)");
            let sql = format!(
                "WITH t AS MATERIALIZED (SELECT {} + ? AS now), {choice} SELECT taken.*, t.now, {columns} FROM t LEFT JOIN taken ON TRUE",
                D::NOW
            );
            let mut arguments = arguments![self.storage.now_offset()];
            arguments.extend(chosen);
            arguments.extend(looked_at);
            let rows = self.session.rows(&sql, arguments).await?;
            if let Some(found) = self.found(&rows, BEHIND_LANES)? {
                return Ok((found, Some(self.choices(&rows)?)));
            }
        }
    }

    async fn look(&mut self) -> Result<Found, Failure> {
        loop {
            let (columns, looked_at) = self.look_columns("t.now");
            let sql = format!("SELECT t.now, {columns} FROM (SELECT {} + ? AS now) t", D::NOW);
            // The time stands last.
            let mut arguments = looked_at;
            arguments.extend(arguments![self.storage.now_offset()]);
            let rows = self.session.rows(&sql, arguments).await?;
            if let Some(found) = self.found(&rows, 0)? {
                return Ok(found);
            }
        }
    }

    fn look_columns(&self, now: &str) -> (String, Vec<Argument>) {
        let all = in_list(&(0..LANES).collect::<Vec<_>>());
        let (lanes, mut arguments) = lanes::<D>(&self.known);
        arguments.extend(arguments![&self.claim.nonce.as_bytes()[..]]);
        let columns = format!(
            "{}, (SELECT 1 {lanes} WHERE l.nonce = ? AND l.lease_until > {now} LIMIT 1), \
             (SELECT 1 FROM {{message}} WHERE scheduled_at <= {now} LIMIT 1), \
             (SELECT 1 FROM {{message}} WHERE held_key IS NOT NULL LIMIT 1), \
             (SELECT 1 FROM {{message}} WHERE back IN ({all}) AND state = 6 LIMIT 1)",
            D::SERVER
        );
        (columns, arguments)
    }

    /// Reads those columns; nothing if what was known is of another server, so that it must be asked again.
    fn found(&mut self, rows: &[D::Row], start: usize) -> Result<Option<Found>, Failure> {
        let row = rows.first().ok_or(sqlx::Error::RowNotFound)?;
        let int = |column| D::int(row, start + column);
        self.answer.now = Timestamp::from_micros(int(0)?.unwrap_or_default());
        let server = int(1)?.unwrap_or_default();
        if server != self.server {
            self.known = self.storage.0.marks.known(server);
            self.server = server;
            return Ok(None);
        }
        self.has_held = int(4)?.is_some();
        self.has_suspects = int(5)?.is_some();
        Ok(Some(Found { is_repeated: int(2)?.is_some(), is_scheduled: int(3)?.is_some() }))
    }
}
