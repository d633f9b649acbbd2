//! Claims: one transaction that locks lanes, reads their messages and starts their leases.

mod ahead;

use crate::SqlStorage;
use crate::dialect::Dialect;
use crate::keys::{self, Held};
use crate::lane::{self, Lane};
use crate::layout::{LANES, in_list, state};
use crate::marks::{self, above, lanes};
use crate::record::{Read, Row};
use crate::session::{Failure, Session, arguments, time};
use crate::storage::MAX_RUN;
use pillarbox_core::{Claim, Claimed, Entry, HeadPolicy};
use std::collections::{HashMap, HashSet};
use std::sync::atomic::Ordering;

/// A claim answers about so many bytes at most, however large its messages are.
const CLAIM_BYTES: usize = 8 * 1024 * 1024;
/// How many scheduled messages one claim lets join at most.
const PROMOTED: i64 = 500;
/// How many messages of held keys one claim takes out of a lane's line at most.
const DIVERTED: i64 = 1_000;

/// A message may not pass one of its key that is a suspect, or dead and holds the key, or that came back.
const NOT_BEHIND_A_STOP: &str = "(m.ordering_key IS NULL OR NOT EXISTS (SELECT 1 FROM {message} h WHERE h.held_key = m.ordering_key AND h.state IN (5, 6) AND h.seq < m.seq))";
const NOT_BEHIND_ANY: &str = "(m.ordering_key IS NULL OR NOT EXISTS (SELECT 1 FROM {message} h WHERE h.held_key = m.ordering_key AND h.state IN (2, 5, 6) AND h.seq < m.seq))";
const KEY_IS_FREE: &str = "(m.ordering_key IS NULL OR (SELECT 1 FROM {message} h WHERE h.held_key = m.ordering_key LIMIT 1) IS NULL)";

pub(crate) async fn claim<D: Dialect>(storage: &SqlStorage<D>, claim: &Claim) -> Result<Claimed, Failure> {
    // Marks only save time: a claim without them is as right.
    if let Err(Failure::Before(error) | Failure::Commit(error)) = marks::advance(storage).await {
        tracing::debug!(%error, "low-water marks stay where they are");
    }
    // After a claim that found something the next one expects more.
    if let Some(read) = D::BEGIN_READ
        && !storage.0.had_work.load(Ordering::Relaxed)
    {
        let session = Session::begin(storage, read).await?;
        let mut claiming = Claiming::begin(storage, session, claim).await?;
        if !claiming.has_work().await? {
            return claiming.end().await;
        }
        claiming.session.end_claim(false).await?;
    }
    let mut claiming = Claiming::begin(storage, storage.begin().await?, claim).await?;
    let (is_repeated, is_scheduled) = claiming.glance().await?;
    if !(is_repeated && claiming.repeat().await?) && claim.limit > 0 {
        if is_scheduled {
            claiming.promote().await?;
        }
        if claim.solo {
            claiming.solo().await?;
        } else {
            claiming.ordinary().await?;
        }
    }
    let claimed = claiming.end().await?;
    storage.0.had_work.store(!claimed.runs.is_empty(), Ordering::Relaxed);
    Ok(claimed)
}

struct Claiming<'a, D: Dialect> {
    storage: &'a SqlStorage<D>,
    session: Session<'a, D>,
    claim: &'a Claim,
    answer: Claimed,
    room: usize,
    bytes: usize,
    /// Whether more was there than this claim may take.
    is_cut_short: bool,
    changed: bool,
    /// The lanes that were looked at.
    seen: Vec<i64>,
    /// What is known of the lanes on this server.
    known: marks::Known,
    server: i64,
}

impl<'a, D: Dialect> Claiming<'a, D> {
    async fn begin(
        storage: &'a SqlStorage<D>,
        mut session: Session<'a, D>,
        claim: &'a Claim,
    ) -> Result<Self, Failure> {
        let high = claim.nonce.as_bytes().first_chunk().map_or(0, |high| i64::from_be_bytes(*high));
        let rows = session.rows(D::CLAIM_START, arguments![storage.now_offset(), high]).await?;
        let now = time::<D>(&rows)?;
        let server = match D::WRITERS {
            Some(_) => rows.first().map(|row| D::int(row, 1)).transpose()?.flatten().unwrap_or_default(),
            None => 0,
        };
        Ok(Self {
            storage,
            session,
            claim,
            answer: Claimed { now, ..Claimed::default() },
            room: claim.limit.min(MAX_RUN) as usize,
            bytes: 0,
            is_cut_short: false,
            changed: false,
            seen: Vec::new(),
            known: storage.0.marks.known(server),
            server,
        })
    }

    /// The mark of a lane.
    fn mark(&self, lane: &Lane) -> i64 {
        usize::try_from(lane.lane)
            .ok()
            .and_then(|lane| self.known.from.get(lane).copied())
            .unwrap_or_default()
    }

    async fn end(mut self) -> Result<Claimed, Failure> {
        self.look_ahead().await?;
        self.session.end_claim(self.changed).await?;
        Ok(self.answer)
    }

    fn now(&self) -> i64 {
        self.answer.now.as_micros()
    }

    /// Whether runs of this very claim are live, and whether scheduled messages are due: mostly neither.
    async fn glance(&mut self) -> Result<(bool, bool), Failure> {
        let (lanes, mut arguments) = lanes::<D>(&self.known);
        let sql = format!(
            "SELECT CASE WHEN EXISTS (SELECT 1 {lanes} WHERE l.nonce = ? AND l.lease_until > ?) THEN 1 ELSE 0 END, \
             CASE WHEN EXISTS (SELECT 1 FROM {{message}} WHERE scheduled_at <= ?) THEN 1 ELSE 0 END"
        );
        let (now, nonce) = (self.now(), &self.claim.nonce.as_bytes()[..]);
        arguments.extend(arguments![nonce, now, now]);
        let rows = self.session.rows(&sql, arguments).await?;
        let Some(row) = rows.first() else { return Ok((false, false)) };
        Ok((D::int(row, 0)? == Some(1), D::int(row, 1)? == Some(1)))
    }

    /// The same runs again, for a claimant that did not get the answer.
    async fn repeat(&mut self) -> Result<bool, Failure> {
        let (lanes, mut arguments) = lanes::<D>(&self.known);
        let sql = format!(
            "SELECT {} {lanes} WHERE l.nonce = ? AND l.lease_until > ? ORDER BY l.lane",
            lane::COLUMNS
        );
        arguments.extend(arguments![&self.claim.nonce.as_bytes()[..], self.now()]);
        let rows = self.session.rows(&sql, arguments).await?;
        for lane in Lane::read_all::<D>(&rows)? {
            let rows = self.session.messages_in(Read::All, &lane.run).await?;
            let mut found: HashMap<i64, Row> = rows.into_iter().map(|row| (row.seq, row)).collect();
            let messages = lane.run.iter().filter_map(|seq| found.remove(seq)).collect();
            self.hand_out(&lane, messages);
        }
        Ok(!self.answer.runs.is_empty())
    }

    /// Lets scheduled messages that are due join their lines, behind everything that is there.
    async fn promote(&mut self) -> Result<(), Failure> {
        let sql = format!(
            "SELECT seq FROM {{message}} WHERE scheduled_at <= ? ORDER BY scheduled_at, seq LIMIT ?{}",
            D::SKIP_LOCKED
        );
        let rows = self.session.rows(&sql, arguments![self.now(), PROMOTED]).await?;
        let due = rows.iter().map(|row| Ok(D::int(row, 0)?.unwrap_or_default()));
        let due: Vec<i64> = due.collect::<Result<_, sqlx::Error>>()?;
        if !due.is_empty() {
            keys::enqueue_again(&mut self.session, &due, "deliver_at", "scheduled_at, seq").await?;
            self.changed = true;
        }
        Ok(())
    }

    async fn ordinary(&mut self) -> Result<(), Failure> {
        while self.room > 0 && self.bytes < CLAIM_BYTES {
            let lanes = self.lock_lanes().await?;
            if lanes.is_empty() {
                return Ok(());
            }
            for mut lane in lanes {
                self.seen.push(lane.lane);
                if self.room == 0 || self.bytes >= CLAIM_BYTES {
                    self.is_cut_short = true;
                    return Ok(());
                }
                let is_expired = lane.nonce.is_some();
                if is_expired {
                    self.strike(&mut lane).await?;
                }
                let messages = self.next_run(&lane).await?;
                if !messages.is_empty() {
                    self.take(&mut lane, messages).await?;
                } else if is_expired {
                    lane.store(&mut self.session).await?;
                }
            }
        }
        self.is_cut_short = true;
        Ok(())
    }

    /// Locks lanes that are free or whose lease ran out, and that seem to have work: those first that have waited for longest.
    async fn lock_lanes(&mut self) -> Result<Vec<Lane>, Failure> {
        let mut not_seen = (String::new(), Vec::new());
        if D::HAS_ARRAYS {
            not_seen = ("AND l.lane <> ALL(?::bigint[]) ".to_owned(), vec![marks::array(&self.seen)]);
        } else if !self.seen.is_empty() {
            not_seen.0 = format!("AND l.lane NOT IN ({}) ", in_list(&self.seen));
        }
        let ((above, marks), (lanes, mut arguments)) = (above::<D>(&self.known), lanes::<D>(&self.known));
        let is_free = "(l.nonce IS NULL OR l.lease_until <= ?) AND l.not_before <= ?";
        let candidates = format!(
            "{lanes} WHERE {is_free} {}\
             AND (l.nonce IS NOT NULL OR EXISTS (SELECT 1 FROM {{message}} m WHERE m.back = l.lane AND m.state = 2 AND m.due_at <= ?) \
             OR EXISTS (SELECT 1 FROM {{message}} m WHERE m.line = l.lane{above})) ORDER BY l.claimed_at, l.lane",
            not_seen.0
        );
        let now = self.now();
        arguments.extend(arguments![now, now]);
        arguments.extend(not_seen.1);
        arguments.extend(arguments![now]);
        arguments.extend(marks);
        let chosen = if D::LOCKS_BY_LIMIT {
            candidates
        } else {
            // Chosen without locks, and locked one after the other.
            arguments.extend(arguments![now, now]);
            format!(
                "FROM (SELECT l.lane AS place {candidates} LIMIT {LANES}) c STRAIGHT_JOIN {{lane}} l ON l.lane = c.place WHERE {is_free}"
            )
        };
        let sql = format!("SELECT {} {chosen} LIMIT {}{}", lane::COLUMNS, D::LANES_AT_ONCE, D::SKIP_LOCKED);
        let rows = match self.seen.is_empty() {
            true => self.session.rows(&sql, arguments).await?,
            false => self.session.rows_either(&sql, arguments).await?,
        };
        let lanes = Lane::read_all::<D>(&rows)?;
        self.storage.0.marks.see_fences(self.server, lanes.iter().map(|lane| (lane.lane, lane.fence)));
        Ok(lanes)
    }

    /// A claim of this lane ended without an outcome: its messages may be part of runs half as long, and the last of all is buried.
    async fn strike(&mut self, lane: &mut Lane) -> Result<(), Failure> {
        let now = self.now();
        let rows = match lane.run.is_empty() {
            true => Vec::new(),
            false => self.session.messages_in(Read::WithoutPayload, &lane.run).await?,
        };
        let is_charged = lane.solo && lane.renewed;
        let settings = &self.storage.0.settings;
        let mut marked = Vec::new();
        for row in &rows {
            let strikes = row.strikes + u32::from(is_charged);
            if is_charged && strikes >= settings.max_strikes {
                let holds = settings.head_policy == HeadPolicy::Block && row.readable_key().is_some();
                let reason = format!(
                    "its relay died {strikes} times while it held this message alone (`max_strikes`)"
                );
                let arguments = arguments![
                    if holds { state::DEAD_AND_HOLDS } else { state::DEAD },
                    i64::from(strikes),
                    now,
                    reason.as_str(),
                    row.seq
                ];
                self.session
                    .execute("UPDATE {message} SET state = ?, strikes = ?, due_at = NULL, run_limit = NULL, ended_at = ?, reason = ? WHERE seq = ?", arguments)
                    .await?;
                self.answer.buried += 1;
            } else {
                marked.push(row);
            }
        }
        if !marked.is_empty() {
            let limit = i64::try_from(lane.run.len() / 2).unwrap_or(1).max(1);
            let seqs: Vec<i64> = marked.iter().map(|row| row.seq).collect();
            let sql = format!(
                "UPDATE {{message}}{} SET state = ?, strikes = strikes + ?, run_limit = ?, due_at = ? WHERE seq IN ({})",
                D::BY_PLACE,
                in_list(&seqs)
            );
            let state = if limit == 1 { state::SUSPECT } else { state::CAME_BACK };
            self.session.execute_once(&sql, arguments![state, i64::from(is_charged), limit, now]).await?;
            let held =
                marked.iter().filter_map(|row| Some((row.key.clone()?, Held { seq: row.seq, due_at: now })));
            keys::hold_back(&mut self.session, held).await?;
        }
        lane.nonce = None;
        lane.run.clear();
        lane.not_before = 0;
        self.changed = true;
        Ok(())
    }

    /// What a claim gets from a lane: messages of one suspicion, in order.
    async fn next_run(&mut self, lane: &Lane) -> Result<Vec<Row>, Failure> {
        let weight = self.storage.0.weight.load(Ordering::Relaxed).max(1);
        let room = self.room.min((CLAIM_BYTES - self.bytes).div_ceil(weight)).max(1);
        self.is_cut_short |= room < self.room;
        let limit = i64::try_from(room).unwrap_or(i64::MAX);
        let condition = format!(
            "WHERE m.back = ? AND m.state = 2 AND m.due_at <= ? AND {NOT_BEHIND_A_STOP} ORDER BY m.due_at, m.seq LIMIT ?"
        );
        let arguments = arguments![lane.lane, self.now(), limit];
        let returned = self.session.messages(Read::All, &condition, arguments, true).await?;
        self.is_cut_short |= returned.len() == room;
        let mark = returned.first().and_then(|row| row.run_limit);
        let most = mark.map_or(room, |mark| room.min(mark as usize));
        // Of a key only what stands first: one under another suspicion stops those behind it.
        let mut stopped: HashSet<String> = HashSet::new();
        let mut chosen: Vec<Row> = Vec::new();
        for row in returned {
            let is_stopped = row.key.as_ref().is_some_and(|key| stopped.contains(key));
            if row.run_limit == mark && !is_stopped && chosen.len() < most {
                chosen.push(row);
            } else {
                self.is_cut_short = true;
                stopped.extend(row.key);
            }
        }
        if mark.is_some() {
            return Ok(chosen);
        }
        // Messages that come back get up to half of a claim while new ones wait, so that neither starve.
        let odd = usize::from(lane.fence % 2 != 0);
        let reserved = chosen.len().min((room + odd) / 2);
        let wanted = i64::try_from(room - reserved).unwrap_or(i64::MAX);
        let condition = format!("WHERE m.line = ? AND m.seq >= ? AND {KEY_IS_FREE} ORDER BY m.seq LIMIT ?");
        let arguments = arguments![lane.lane, self.mark(lane), wanted];
        let new = match wanted {
            0 => Vec::new(),
            _ => self.session.messages(Read::New, &condition, arguments, true).await?,
        };
        let room_for_returned = room - new.len();
        if chosen.len() > room_for_returned {
            chosen.truncate(room_for_returned);
            self.is_cut_short = true;
        }
        chosen.extend(new);
        if chosen.len() < room {
            self.divert(lane).await?;
        }
        Ok(chosen)
    }

    /// Takes messages of held keys out of the line, so that claims need not pass over them again and again.
    async fn divert(&mut self, lane: &Lane) -> Result<(), Failure> {
        let condition = "WHERE m.line = ? AND m.seq >= ? AND EXISTS (SELECT 1 FROM {message} h WHERE h.held_key = m.ordering_key) ORDER BY m.seq LIMIT ?";
        let arguments = arguments![lane.lane, self.mark(lane), DIVERTED];
        let rows = self.session.messages(Read::WithoutPayload, condition, arguments, true).await?;
        if rows.is_empty() {
            return Ok(());
        }
        let dues =
            keys::latest_dues(&mut self.session, rows.iter().filter_map(|row| row.key.clone())).await?;
        let mut by_due: HashMap<i64, Vec<i64>> = HashMap::new();
        for row in &rows {
            let due = row.key.as_ref().and_then(|key| dues.get(key)).copied().unwrap_or_default();
            by_due.entry(due).or_default().push(row.seq);
        }
        for (due, seqs) in by_due {
            let sql = format!(
                "UPDATE {{message}}{} SET state = 2, due_at = ? WHERE seq IN ({})",
                D::BY_PLACE,
                in_list(&seqs)
            );
            self.session.execute_once(&sql, arguments![due]).await?;
        }
        self.changed = true;
        Ok(())
    }

    /// One suspect, alone. First what lost holders left is charged, since suspects come of that.
    async fn solo(&mut self) -> Result<(), Failure> {
        let now = self.now();
        let (lanes, fences) = lanes::<D>(&self.known);
        let sql = format!(
            "SELECT {} {lanes} WHERE l.nonce IS NOT NULL AND l.lease_until <= ? ORDER BY l.lane{}",
            lane::COLUMNS,
            D::SKIP_LOCKED
        );
        let mut arguments = fences.clone();
        arguments.extend(arguments![now]);
        let rows = self.session.rows(&sql, arguments).await?;
        for mut lane in Lane::read_all::<D>(&rows)? {
            self.strike(&mut lane).await?;
            lane.store(&mut self.session).await?;
        }
        let is_first = format!("m.state = 6 AND m.due_at <= ? AND {NOT_BEHIND_ANY}");
        let sql = format!(
            "SELECT m.back, m.seq {lanes} JOIN {{message}} m ON m.back = l.lane WHERE {is_first} \
             AND l.nonce IS NULL AND l.not_before <= ? ORDER BY m.due_at, m.seq LIMIT 4"
        );
        let mut arguments = fences.clone();
        arguments.extend(arguments![now, now]);
        let found = self.session.rows(&sql, arguments).await?;
        for row in found {
            let (lane, seq) = (D::int(&row, 0)?.unwrap_or_default(), D::int(&row, 1)?.unwrap_or_default());
            let sql = format!(
                "SELECT {} {lanes} WHERE l.lane = ? AND l.nonce IS NULL AND l.not_before <= ?{}",
                lane::COLUMNS,
                D::SKIP_LOCKED
            );
            let mut arguments = fences.clone();
            arguments.extend(arguments![lane, now]);
            let locked = self.session.rows(&sql, arguments).await?;
            let Some(mut lane) = Lane::read_all::<D>(&locked)?.pop() else { continue };
            // Read again, now that nobody else can take it.
            let condition = format!("WHERE m.seq = ? AND {is_first}");
            let messages = self.session.messages(Read::All, &condition, arguments![seq, now], true).await?;
            if !messages.is_empty() {
                return self.take(&mut lane, messages).await;
            }
        }
        Ok(())
    }

    async fn take(&mut self, lane: &mut Lane, messages: Vec<Row>) -> Result<(), Failure> {
        lane.fence += 1;
        lane.nonce = Some(self.claim.nonce);
        lane.claimed_at = self.now();
        lane.lease_until = self.answer.now.after(self.claim.lease).as_micros();
        lane.solo = self.claim.solo;
        lane.run = messages.iter().map(|row| row.seq).collect();
        self.storage.0.marks.see(self.server, lane.run.iter().copied());
        lane.store(&mut self.session).await?;
        self.changed = true;
        self.hand_out(lane, messages);
        Ok(())
    }

    fn hand_out(&mut self, lane: &Lane, messages: Vec<Row>) {
        let Some(mut run) = lane.as_run(self.answer.entries.len()) else { return };
        run.len = u32::try_from(messages.len()).unwrap_or(u32::MAX);
        if messages.is_empty() {
            return;
        }
        let size: usize = messages.iter().map(Row::size).sum();
        self.storage.0.weight.store(size / messages.len() + 256, Ordering::Relaxed);
        self.bytes += size;
        self.room = self.room.saturating_sub(messages.len());
        let entries: Vec<Entry> = messages.into_iter().map(Row::into_entry).collect();
        self.answer.entries.extend(entries);
        self.answer.runs.push(run);
    }
}
