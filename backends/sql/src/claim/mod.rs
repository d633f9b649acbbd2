//! Claims: one transaction that locks lanes, reads their messages and starts their leases.

mod ahead;
mod begin;
mod choose;

use self::choose::Choice;
use crate::SqlStorage;
use crate::dialect::Dialect;
use crate::keys::{self, Held};
use crate::lane::{self, Lane};
use crate::layout::{in_list, state};
use crate::marks::{self, lanes};
use crate::record::{Read, Row, Spot};
use crate::session::{Change, Failure, Session, arguments};
use crate::storage::MAX_RUN;
use pillarbox_core::{Claim, Claimed, Entry, HeadPolicy, Text};
use std::collections::{HashMap, HashSet};
use std::sync::atomic::Ordering;

/// A claim answers about so many bytes at most, however large its messages are.
const CLAIM_BYTES: usize = 8 * 1024 * 1024;
/// How many scheduled messages one claim lets join at most.
const PROMOTED: i64 = 500;
/// How many messages of held keys one claim takes out of a lane's line at most.
const DIVERTED: i64 = 1_000;

/// A message may not pass one of its key that is a suspect, or dead and holds the key, or that came back.
const NOT_BEHIND_A_STOP: &str = "(m.ordering_key IS NULL OR (SELECT 1 FROM {message} h WHERE h.held_key = m.ordering_key AND h.state IN (5, 6) AND h.seq < m.seq LIMIT 1) IS NULL)";
const NOT_BEHIND_ANY: &str = "(m.ordering_key IS NULL OR (SELECT 1 FROM {message} h WHERE h.held_key = m.ordering_key AND h.state IN (2, 5, 6) AND h.seq < m.seq LIMIT 1) IS NULL)";
/// Mostly no key is held: that is asked once for all messages. As a value and not as `EXISTS`, which a planner may answer for a whole
/// table at once.
const KEY_IS_FREE: &str = "((SELECT 1 FROM {message} h WHERE h.held_key IS NOT NULL LIMIT 1) IS NULL OR m.ordering_key IS NULL \
    OR (SELECT 1 FROM {message} h WHERE h.held_key = m.ordering_key LIMIT 1) IS NULL)";

pub(crate) async fn claim<D: Dialect>(storage: &SqlStorage<D>, claim: &Claim) -> Result<Claimed, Failure> {
    // Marks only save time: a claim without them is as right.
    if let Err(Failure::Before(error) | Failure::Commit(error)) = marks::advance(storage).await {
        tracing::debug!(%error, "low-water marks stay where they are");
    }
    // After a claim that found something the next one expects more.
    if let Some(read) = D::BEGIN_READ
        && !storage.0.had_work.load(Ordering::Relaxed)
    {
        let session = Session::begin_read(storage, read).await?;
        let mut claiming = Claiming::new(storage, session, claim);
        if !claiming.has_work().await? {
            return claiming.end().await;
        }
        claiming.session.end_claim(Change::Nothing).await?;
    }
    let session = Session::begin_claim(storage, &claim.nonce).await?;
    let mut claiming = Claiming::new(storage, session, claim);
    let takes_lanes = claim.limit > 0 && !claim.solo;
    let (found, lanes) = claiming.begin(takes_lanes).await?;
    if !(found.is_repeated && claiming.repeat().await?) && claim.limit > 0 {
        if found.is_scheduled {
            claiming.promote().await?;
        }
        if claim.solo {
            claiming.solo().await?;
        } else {
            claiming.ordinary(lanes, found.is_scheduled).await?;
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
    changed: Change,
    /// The lanes that were looked at.
    seen: Vec<i64>,
    /// The lanes of which messages that came back were not read, since none seemed to be due.
    not_asked: Vec<i64>,
    /// Whether some key may be held, and whether some message may be a suspect.
    has_held: bool,
    has_suspects: bool,
    /// What is known of the lanes on this server.
    known: marks::Known,
    server: i64,
}

impl<'a, D: Dialect> Claiming<'a, D> {
    fn new(storage: &'a SqlStorage<D>, session: Session<'a, D>, claim: &'a Claim) -> Self {
        let (server, known) = storage.0.marks.last();
        Self {
            storage,
            session,
            claim,
            answer: Claimed::default(),
            room: claim.limit.min(MAX_RUN) as usize,
            bytes: 0,
            is_cut_short: false,
            changed: Change::Nothing,
            seen: Vec::new(),
            not_asked: Vec::new(),
            has_held: true,
            has_suspects: true,
            known,
            server,
        }
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
            self.changed = Change::Messages;
        }
        Ok(())
    }

    /// Takes lanes: first those that are locked already, chosen before some messages may have joined others.
    async fn ordinary(&mut self, locked: Option<Vec<Choice>>, has_joined: bool) -> Result<(), Failure> {
        let (mut locked, mut has_joined) = (locked, has_joined);
        while self.has_room() {
            let lanes = match locked.take() {
                Some(lanes) => lanes,
                None => self.lock_lanes().await?,
            };
            // Then there are no others to ask for.
            let are_all = lanes.len() < D::LANES_AT_ONCE && !std::mem::take(&mut has_joined);
            for (mut lane, has_returned) in lanes {
                self.seen.push(lane.lane);
                if !self.has_room() {
                    self.is_cut_short = true;
                    return Ok(());
                }
                let is_expired = lane.nonce.is_some();
                if is_expired {
                    self.strike(&mut lane).await?;
                }
                let messages = self.next_run(&lane, has_returned || is_expired).await?;
                if !messages.is_empty() {
                    self.take(&mut lane, messages).await?;
                } else if is_expired {
                    lane.store(&mut self.session).await?;
                }
            }
            if are_all && self.has_room() {
                return Ok(());
            }
        }
        self.is_cut_short = true;
        Ok(())
    }

    fn has_room(&self) -> bool {
        self.room > 0 && self.bytes < CLAIM_BYTES
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
            (self.has_held, self.has_suspects) = (true, true);
            self.session.execute_once(&sql, arguments![state, i64::from(is_charged), limit, now]).await?;
            let held =
                marked.iter().filter_map(|row| Some((row.key.clone()?, Held { seq: row.seq, due_at: now })));
            keys::hold_back(&mut self.session, held).await?;
        }
        lane.nonce = None;
        lane.run.clear();
        lane.not_before = 0;
        self.changed = Change::Messages;
        Ok(())
    }

    /// What a claim gets from a lane: messages of one suspicion, in order.
    async fn next_run(&mut self, lane: &Lane, has_returned: bool) -> Result<Vec<Row>, Failure> {
        let weight = self.storage.0.weight.load(Ordering::Relaxed).max(1);
        let room = self.room.min((CLAIM_BYTES - self.bytes).div_ceil(weight)).max(1);
        self.is_cut_short |= room < self.room;
        let limit = i64::try_from(room).unwrap_or(i64::MAX);
        let returned = if has_returned {
            let condition = format!(
                "WHERE m.back = ? AND m.state = 2 AND m.due_at <= ? AND {NOT_BEHIND_A_STOP} ORDER BY m.due_at, m.seq LIMIT ?"
            );
            let arguments = arguments![lane.lane, self.now(), limit];
            self.session.messages(Read::All, &condition, arguments, true).await?
        } else {
            self.not_asked.push(lane.lane);
            Vec::new()
        };
        self.is_cut_short |= returned.len() == room;
        let mark = returned.first().and_then(|row| row.run_limit);
        let most = mark.map_or(room, |mark| room.min(mark as usize));
        // Of a key only what stands first: one under another suspicion stops those behind it.
        let mut stopped: HashSet<Text> = HashSet::new();
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
        let in_line = D::in_line("?");
        let condition =
            format!("WHERE {in_line} AND m.seq >= ? AND {KEY_IS_FREE} ORDER BY m.line, m.seq LIMIT ?");
        let arguments = arguments![lane.lane, self.mark(lane), wanted];
        let new = match wanted {
            0 => Vec::new(),
            _ => self.session.messages(Read::New, &condition, arguments, true).await?,
        };
        let has_more = wanted > 0 && i64::try_from(new.len()) == Ok(wanted);
        self.storage.0.marks.see_more(self.server, lane.lane, has_more);
        if let (Some(first), Some(last)) = (new.first(), new.last())
            && !first.is_some_key_held
        {
            let claimed = (lane.lane, lane.fence + 1);
            self.storage.0.marks.see_row(self.server, &self.known, claimed, first.seq, last.seq);
        }
        let room_for_returned = room - new.len();
        if chosen.len() > room_for_returned {
            chosen.truncate(room_for_returned);
            self.is_cut_short = true;
        }
        chosen.extend(new);
        if chosen.len() < room && self.has_held {
            self.divert(lane).await?;
        }
        Ok(chosen)
    }

    /// Takes messages of held keys out of the line, so that claims need not pass over them again and again.
    async fn divert(&mut self, lane: &Lane) -> Result<(), Failure> {
        let condition = format!(
            "WHERE {} AND m.seq >= ? AND (SELECT 1 FROM {{message}} h WHERE h.held_key = m.ordering_key LIMIT 1) IS NOT NULL \
             ORDER BY m.line, m.seq LIMIT ?",
            D::in_line("?")
        );
        let arguments = arguments![lane.lane, self.mark(lane), DIVERTED];
        let rows = self.session.messages(Read::WithoutPayload, &condition, arguments, true).await?;
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
        self.changed = Change::Messages;
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
        self.storage.0.marks.see(self.server, &lane.run);
        let spots: Option<Vec<Spot>> = messages.iter().map(|row| row.spot).collect();
        if let Some(spots) = spots {
            self.storage.0.marks.see_spots(self.server, (lane.lane, lane.fence), spots);
        }
        lane.store(&mut self.session).await?;
        self.changed = self.changed.max(Change::Leases);
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
