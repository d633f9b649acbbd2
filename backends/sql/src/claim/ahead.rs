//! What there is to do, now and later, without doing it.

use super::Claiming;
use crate::dialect::Dialect;
use crate::marks::{above, lanes};
use crate::session::{Failure, arguments, time};
use pillarbox_core::Timestamp;
use std::time::Duration;

/// When to ask again where every lane with work is locked by claims of others at this moment, or where it was not looked.
const MOMENT: Duration = Duration::from_millis(10);

impl<D: Dialect> Claiming<'_, D> {
    /// Whether it is worth to wait for the database's only writer: not while nothing is due.
    pub(super) async fn has_work(&mut self) -> Result<bool, Failure> {
        let sql = format!(
            "SELECT c.now, CASE WHEN EXISTS (SELECT 1 FROM {{lane}} WHERE nonce = ? AND lease_until > c.now) OR (? > 0 AND (\
            EXISTS (SELECT 1 FROM {{message}} WHERE scheduled_at <= c.now) \
            OR EXISTS (SELECT 1 FROM {{lane}} WHERE nonce IS NOT NULL AND lease_until <= c.now) \
            OR EXISTS (SELECT 1 FROM {{lane}} l WHERE nonce IS NULL AND not_before <= c.now AND ( \
                EXISTS (SELECT 1 FROM {{message}} m WHERE m.line = l.lane) \
                OR EXISTS (SELECT 1 FROM {{message}} m WHERE m.back = l.lane AND m.state = 2 AND m.due_at <= c.now) \
                OR EXISTS (SELECT 1 FROM {{message}} m WHERE m.back = l.lane AND m.state = 6 AND m.due_at <= c.now))))) THEN 1 ELSE 0 END \
            FROM (SELECT {} + ? AS now) c",
            D::NOW
        );
        let (nonce, limit) = (&self.claim.nonce.as_bytes()[..], i64::from(self.claim.limit));
        let rows = self.session.rows(&sql, arguments![nonce, limit, self.storage.now_offset()]).await?;
        self.answer.now = time::<D>(&rows)?;
        Ok(rows.first().map(|row| D::int(row, 1)).transpose()?.flatten() == Some(1))
    }

    /// What the claimant should know of what it did not get.
    pub(super) async fn look_ahead(&mut self) -> Result<(), Failure> {
        let now = self.now();
        let is_full =
            !self.answer.entries.is_empty() && self.answer.entries.len() >= self.claim.limit as usize;
        if !self.answer.entries.is_empty() && !self.has_suspects {
            // A full claim is followed by another at once. Who got less asks again when that is settled, and if that takes long, soon.
            if !is_full {
                let moment = if self.is_cut_short { Duration::ZERO } else { MOMENT };
                self.answer.next_due = Some(self.answer.now.after(moment));
            }
            return Ok(());
        }
        let ((above, marks), (lanes, fences)) = (above::<D>(&self.known), lanes::<D>(&self.known));
        let in_line = D::in_line("l.lane");
        let sql = format!(
            "SELECT l.lane, CASE WHEN l.nonce IS NULL THEN 0 ELSE 1 END, l.lease_until, l.not_before, \
            (SELECT m.due_at FROM {{message}} m WHERE m.back = l.lane AND m.state = 2 ORDER BY m.due_at LIMIT 1), \
            (SELECT m.due_at FROM {{message}} m WHERE m.back = l.lane AND m.state = 2 AND m.due_at > ? ORDER BY m.due_at LIMIT 1), \
            (SELECT m.due_at FROM {{message}} m WHERE m.back = l.lane AND m.state = 6 ORDER BY m.due_at LIMIT 1), \
            (SELECT m.seq FROM {{message}} m WHERE {in_line}{above} ORDER BY m.line, m.seq LIMIT 1), \
            (SELECT m.scheduled_at FROM {{message}} m WHERE m.scheduled_at IS NOT NULL ORDER BY m.scheduled_at LIMIT 1) {lanes}"
        );
        let mut arguments = arguments![now];
        arguments.extend(marks);
        arguments.extend(fences);
        let rows = self.session.rows(&sql, arguments).await?;
        let mut next: Option<i64> = None;
        let mut wait_for = |at: i64| next = Some(next.map_or(at, |next| next.min(at)));
        for row in &rows {
            let int = |column| D::int(row, column);
            let lane = int(0)?.unwrap_or_default();
            let (is_held, until) = (int(1)? == Some(1), int(2)?.unwrap_or_default());
            let not_before = int(3)?.unwrap_or_default();
            let (first, later, suspect, line) = (int(4)?, int(5)?, int(6)?, int(7)?);
            if let Some(scheduled) = int(8)? {
                wait_for(scheduled);
            }
            if is_held && until > now {
                wait_for(until);
                continue;
            }
            if let Some(suspect) = suspect {
                let due = suspect.max(not_before);
                if due <= now {
                    self.answer.suspects += 1;
                } else {
                    wait_for(due);
                }
            }
            if let Some(later) = later {
                wait_for(later.max(not_before));
            }
            let has_work = line.is_some() || first.is_some_and(|first| first <= now);
            if not_before > now && has_work {
                wait_for(not_before);
            } else if (has_work || is_held) && !self.seen.contains(&lane) && !self.claim.solo {
                // Another claim has it locked at this moment, or this one had no room for it.
                wait_for(self.answer.now.after(MOMENT).as_micros());
            } else if first.is_some_and(|first| first <= now) && self.not_asked.contains(&lane) {
                // It came back while this claim took the lane.
                wait_for(now);
            }
        }
        if self.is_cut_short {
            wait_for(now);
        }
        if self.answer.entries.len() < self.claim.limit as usize {
            self.answer.next_due = next.map(|at| Timestamp::from_micros(at.max(now)));
        }
        Ok(())
    }
}
