//! Which lanes a claim takes.

use super::Claiming;
use crate::dialect::{Argument, Dialect};
use crate::lane::{self, Lane};
use crate::layout::{LANES, in_list};
use crate::marks::{above, lanes, with_more};
use crate::session::{Failure, arguments};

/// A lane that was locked, and whether messages that came back seem to be due in it.
pub(super) type Choice = (Lane, bool);

const ORDER: &str = "ORDER BY l.claimed_at, l.lane";

impl<D: Dialect> Claiming<'_, D> {
    /// Locks lanes that are free or whose lease ran out, and that seem to have work: those first that have waited for longest.
    pub(super) async fn lock_lanes(&mut self) -> Result<Vec<Choice>, Failure> {
        let now = arguments![self.now()];
        let (sql, arguments) = if D::LOCKS_BY_LIMIT {
            let (choice, chosen) = self.choice();
            let sql = format!(
                "WITH t AS MATERIALIZED (SELECT CAST(? AS bigint) AS now), {choice} SELECT * FROM taken"
            );
            (sql, [now, chosen].concat())
        } else {
            self.choice_one_by_one()
        };
        let rows = match self.seen.is_empty() {
            true => self.session.rows(&sql, arguments).await?,
            false => self.session.rows_either(&sql, arguments).await?,
        };
        self.choices(&rows)
    }

    /// Parts of a query of which the last, `taken`, locks lanes at the time of the part `t`.
    pub(super) fn choice(&self) -> (String, Vec<Argument>) {
        let ((above, marks), (lanes, fences)) = (above::<D>(&self.known), lanes::<D>(&self.known));
        let (with_more, more) = with_more::<D>(&self.known);
        let (not_seen, seen) = self.not_seen();
        let now = "(SELECT now FROM t)";
        let (is_free, returned) = (is_free(now), returned(now));
        let has_work = has_work(with_more, &line::<D>(above), &returned);
        let (columns, most, skip) = (lane::COLUMNS, D::LANES_AT_ONCE, D::SKIP_LOCKED);
        // First put in order, so that the messages of no more lanes are looked for than it takes to find some.
        let parts = format!(
            "c AS MATERIALIZED (SELECT l.lane AS place, l.fence AS read_fence {lanes} WHERE {is_free} {not_seen}{ORDER}), \
             taken AS MATERIALIZED (SELECT {columns}, {returned} AS returned FROM c CROSS JOIN {{lane}} l \
             WHERE l.lane = c.place AND l.fence = c.read_fence AND {is_free} AND {has_work} LIMIT {most}{skip})"
        );
        (parts, [fences, seen, more, marks].concat())
    }

    /// A query that chooses lanes without locks, and locks one after the other.
    fn choice_one_by_one(&self) -> (String, Vec<Argument>) {
        let ((above, _), (lanes, _)) = (above::<D>(&self.known), lanes::<D>(&self.known));
        let (with_more, _) = with_more::<D>(&self.known);
        let (not_seen, _) = self.not_seen();
        let (is_free, returned) = (is_free("?"), returned("?"));
        let has_work = has_work(with_more, &line::<D>(above), &returned);
        let (columns, most, skip) = (lane::COLUMNS, D::LANES_AT_ONCE, D::SKIP_LOCKED);
        let sql = format!(
            "SELECT {columns}, {returned} FROM (SELECT l.lane AS place {lanes} WHERE {is_free} {not_seen}AND {has_work} \
             {ORDER} LIMIT {LANES}) c STRAIGHT_JOIN {{lane}} l ON l.lane = c.place WHERE {is_free} LIMIT {most}{skip}"
        );
        (sql, vec![Argument::from(self.now()); 6])
    }

    /// Reads what was locked.
    pub(super) fn choices(&self, rows: &[D::Row]) -> Result<Vec<Choice>, Failure> {
        let mut choices = Vec::with_capacity(rows.len());
        for row in rows {
            // Where nothing was, one row says so.
            if D::int(row, 0)?.is_some() {
                choices.push((Lane::read::<D>(row)?, D::int(row, lane::BESIDE)?.is_some()));
            }
        }
        let settled = choices.iter().filter_map(|(lane, _)| Some((lane.lane, lane.settled_fence?)));
        self.storage.0.marks.see_fences(self.server, settled);
        Ok(choices)
    }

    /// The condition that a claim has not looked at a lane.
    fn not_seen(&self) -> (String, Vec<Argument>) {
        if D::HAS_ARRAYS {
            ("AND l.lane <> ALL(?::bigint[]) ".to_owned(), vec![Argument::Ints(self.seen.clone())])
        } else if self.seen.is_empty() {
            (String::new(), Vec::new())
        } else {
            (format!("AND l.lane NOT IN ({}) ", in_list(&self.seen)), Vec::new())
        }
    }
}

fn is_free(now: &str) -> String {
    format!("(l.nonce IS NULL OR l.lease_until <= {now}) AND l.not_before <= {now}")
}

/// The first message of a lane that came back and is due.
fn returned(now: &str) -> String {
    format!(
        "(SELECT 1 FROM {{message}} m WHERE m.back = l.lane AND m.state = 2 AND m.due_at <= {now} ORDER BY m.due_at LIMIT 1)"
    )
}

/// The first new message of a lane.
fn line<D: Dialect>(above: &str) -> String {
    format!(
        "(SELECT 1 FROM {{message}} m WHERE {}{above} ORDER BY m.line, m.seq LIMIT 1)",
        D::in_line("l.lane")
    )
}

fn has_work(with_more: &str, line: &str, returned: &str) -> String {
    format!("(l.nonce IS NOT NULL{with_more} OR {line} IS NOT NULL OR {returned} IS NOT NULL)")
}
