//! Which lanes a claim takes.

use super::Claiming;
use crate::dialect::Dialect;
use crate::lane::{self, Lane};
use crate::layout::{LANES, in_list};
use crate::marks::{above, array, lanes, with_more};
use crate::session::{Failure, arguments};

impl<D: Dialect> Claiming<'_, D> {
    /// Locks lanes that are free or whose lease ran out, and that seem to have work: those first that have waited for longest. Says of each
    /// whether messages that came back seem to be due.
    pub(super) async fn lock_lanes(&mut self) -> Result<Vec<(Lane, bool)>, Failure> {
        let mut not_seen = (String::new(), Vec::new());
        if D::HAS_ARRAYS {
            not_seen = ("AND l.lane <> ALL(?::bigint[]) ".to_owned(), vec![array(&self.seen)]);
        } else if !self.seen.is_empty() {
            not_seen.0 = format!("AND l.lane NOT IN ({}) ", in_list(&self.seen));
        }
        let ((above, marks), (lanes, fences)) = (above::<D>(&self.known), lanes::<D>(&self.known));
        let (with_more, more) = with_more::<D>(&self.known);
        let is_free = "(l.nonce IS NULL OR l.lease_until <= ?) AND l.not_before <= ?";
        let returned = "(SELECT 1 FROM {message} m WHERE m.back = l.lane AND m.state = 2 AND m.due_at <= ? ORDER BY m.due_at LIMIT 1)";
        let line = format!(
            "(SELECT 1 FROM {{message}} m WHERE {}{above} ORDER BY m.line, m.seq LIMIT 1)",
            D::in_line("l.lane")
        );
        let has_work =
            format!("(l.nonce IS NOT NULL{with_more} OR {line} IS NOT NULL OR {returned} IS NOT NULL)");
        let order = "ORDER BY l.claimed_at, l.lane";
        let (columns, not_seen_lanes) = (lane::COLUMNS, not_seen.0);
        let now = self.now();
        let mut arguments = Vec::new();
        let chosen = if D::LOCKS_BY_LIMIT {
            // First put in order, so that the messages of no more lanes are looked for than it takes to find some.
            arguments.extend(fences);
            arguments.extend(arguments![now, now]);
            arguments.extend(not_seen.1);
            arguments.extend(arguments![now, now, now]);
            arguments.extend(more);
            arguments.extend(marks);
            arguments.extend(arguments![now]);
            format!(
                "WITH c AS MATERIALIZED (SELECT l.lane AS place, l.fence AS read_fence {lanes} WHERE {is_free} {not_seen_lanes}{order}) \
                 SELECT {columns}, {returned} FROM c CROSS JOIN {{lane}} l \
                 WHERE l.lane = c.place AND l.fence = c.read_fence AND {is_free} AND {has_work}"
            )
        } else {
            // Chosen without locks, and locked one after the other.
            arguments.extend(arguments![now, now, now, now, now, now]);
            format!(
                "SELECT {columns}, {returned} FROM (SELECT l.lane AS place {lanes} WHERE {is_free} {not_seen_lanes}AND {has_work} \
                 {order} LIMIT {LANES}) c STRAIGHT_JOIN {{lane}} l ON l.lane = c.place WHERE {is_free}"
            )
        };
        let sql = format!("{chosen} LIMIT {}{}", D::LANES_AT_ONCE, D::SKIP_LOCKED);
        let rows = match self.seen.is_empty() {
            true => self.session.rows(&sql, arguments).await?,
            false => self.session.rows_either(&sql, arguments).await?,
        };
        let has_returned = rows.iter().map(|row| Ok(D::int(row, lane::BESIDE)?.is_some()));
        let has_returned = has_returned.collect::<Result<Vec<bool>, sqlx::Error>>()?;
        let lanes = Lane::read_all::<D>(&rows)?;
        let settled = lanes.iter().filter_map(|lane| Some((lane.lane, lane.settled_fence?)));
        self.storage.0.marks.see_fences(self.server, settled);
        Ok(lanes.into_iter().zip(has_returned).collect())
    }
}
