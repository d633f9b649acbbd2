//! Renewals and settlements: one transaction locks the lanes, checks everything, then changes everything.

use crate::SqlStorage;
use crate::dialect::{Argument, Dialect};
use crate::keys::{self, Held};
use crate::lane::{self, Lane};
use crate::layout::{in_list, state};
use crate::marks::Marks;
use crate::partitions;
use crate::record::{Read, Row, Spot};
use crate::session::{Failure, Session, arguments};
use crate::settings::Settings;
use pillarbox_core::{
    Error, ErrorKind, HeadPolicy, Outcome, Renewed, Settled, Settlement, Text, Timestamp, Token, Verdict,
    check_verdicts,
};
use std::collections::{BTreeMap, HashMap, HashSet};
use std::fmt::Write as _;
use std::time::Duration;

/// Reasons are cut here: they are read by people, and a stack trace for each of a million messages is a table of its own.
const REASON_BYTES: usize = 4 * 1024;

/// Lanes by number, locked, with the time of the lock.
async fn lock<D: Dialect>(
    storage: &SqlStorage<D>,
    session: &mut Session<'_, D>,
    tokens: impl Iterator<Item = Token>,
) -> Result<(BTreeMap<i64, Lane>, Timestamp), Failure> {
    // A lane whose fence is below that of a token has lost it: there is nothing to find.
    let mut fences: BTreeMap<i64, i64> = BTreeMap::new();
    for token in tokens {
        if let (Some(lane), Ok(fence)) = (lane::number(&token), i64::try_from(token.fence)) {
            let lowest = fences.entry(lane).or_insert(fence);
            *lowest = fence.min(*lowest);
        }
    }
    let mut lanes = BTreeMap::new();
    let mut now = None;
    if !fences.is_empty() {
        let (numbers, fences): (Vec<i64>, Vec<i64>) = fences.into_iter().unzip();
        let (from, arguments) = match D::HAS_ARRAYS {
            true => (
                "FROM unnest(?::bigint[], ?::bigint[]) AS k(place, least) JOIN {lane} l ON l.lane = k.place AND l.fence >= k.least".to_owned(),
                vec![Argument::Ints(numbers.clone()), Argument::Ints(fences)],
            ),
            false => (
                match D::LIST {
                    Some(list) => format!(
                        "FROM {} {{lane}} l{} ON l.lane = p.place",
                        list.replace('@', &in_list(&numbers)),
                        D::BY_PLACE
                    ),
                    None => format!("FROM {{lane}} l WHERE l.lane IN ({})", in_list(&numbers)),
                },
                Vec::new(),
            ),
        };
        let mut sql = format!("SELECT {} {from} ORDER BY l.lane{}", lane::COLUMNS, D::FOR_UPDATE);
        let mut arguments = arguments;
        if D::LOCKS_IN_PARTS {
            // The time is told of each row once it is locked.
            sql = format!("WITH l AS MATERIALIZED ({sql}) SELECT l.*, {} + ? FROM l", D::NOW);
            arguments.extend(arguments![storage.now_offset()]);
        }
        let rows = session.rows_either(&sql, arguments).await?;
        if D::LOCKS_IN_PARTS {
            let times = rows.iter().map(|row| D::int(row, lane::BESIDE));
            now =
                times.collect::<Result<Vec<_>, _>>()?.into_iter().max().flatten().map(Timestamp::from_micros);
        }
        lanes.extend(Lane::read_all::<D>(&rows)?.into_iter().map(|lane| (lane.lane, lane)));
    }
    // Read once the locks are held: a decision is never earlier than what it follows.
    let now = match now {
        Some(now) => now,
        None => session.now(storage.now_offset()).await?,
    };
    Ok((lanes, now))
}

fn standing(lanes: &BTreeMap<i64, Lane>, token: &Token) -> Outcome {
    let lane = lane::number(token).and_then(|number| lanes.get(&number));
    lane.map_or(Outcome::Fenced, |lane| lane.standing(token))
}

pub(crate) async fn renew<D: Dialect>(
    storage: &SqlStorage<D>,
    tokens: &[Token],
    lease: Duration,
) -> Result<Vec<Renewed>, Failure> {
    let mut session = storage.begin().await?;
    let (mut lanes, now) = lock(storage, &mut session, tokens.iter().copied()).await?;
    let mut answers = Vec::with_capacity(tokens.len());
    let mut renewed = Vec::new();
    for token in tokens {
        let outcome = standing(&lanes, token);
        let mut lease_until = None;
        if outcome == Outcome::Applied
            && let Some(lane) = lane::number(token).and_then(|number| lanes.get_mut(&number))
        {
            lane.lease_until = lane.lease_until.max(now.after(lease).as_micros());
            lease_until = Some(Timestamp::from_micros(lane.lease_until));
            renewed.push((lane.lane, lane.fence));
        }
        answers.push(Renewed { outcome, at: now, lease_until });
    }
    if renewed.is_empty() {
        session.roll_back().await;
        return Ok(answers);
    }
    let until = now.after(lease).as_micros();
    let among = lane::among::<D>(&renewed);
    let sql = format!(
        "UPDATE {{lane}}{} SET renewed = 1, lease_until = CASE WHEN lease_until < ? THEN ? ELSE lease_until END WHERE {}",
        D::BY_PLACE,
        among.0
    );
    let mut arguments = arguments![until, until];
    arguments.extend(among.1);
    session.execute_either(&sql, arguments).await?;
    session.commit().await?;
    Ok(answers)
}

/// A run whose token is current, with its messages where they are needed.
struct Part<'a> {
    lane: i64,
    settlement: Settlement<'a>,
    /// Empty if all were published, or all go back untouched.
    messages: Vec<Row>,
}

/// Checks runs without changing anything, for a call that is too large for one transaction.
pub(crate) async fn check<D: Dialect>(
    storage: &SqlStorage<D>,
    runs: &[(Token, Settlement<'_>)],
) -> Result<(), Failure> {
    let mut session = storage.begin().await?;
    let (lanes, _) = lock(storage, &mut session, runs.iter().map(|(token, _)| *token)).await?;
    for (token, settlement) in runs {
        if standing(&lanes, token) == Outcome::Applied
            && let Some(lane) = lane::number(token).and_then(|number| lanes.get(&number))
        {
            read_part(storage, &mut session, lane, *settlement).await?;
        }
    }
    session.roll_back().await;
    Ok(())
}

pub(crate) async fn settle<D: Dialect>(
    storage: &SqlStorage<D>,
    runs: &[(Token, Settlement<'_>)],
) -> Result<Vec<Settled>, Failure> {
    loop {
        // The second time nobody says where messages lie.
        if let Some(answers) = settle_once(storage, runs).await? {
            return Ok(answers);
        }
    }
}

/// Answers nothing, and changes nothing, if messages lie elsewhere by now.
async fn settle_once<D: Dialect>(
    storage: &SqlStorage<D>,
    runs: &[(Token, Settlement<'_>)],
) -> Result<Option<Vec<Settled>>, Failure> {
    let mut session = storage.begin().await?;
    let (mut lanes, now) = lock(storage, &mut session, runs.iter().map(|(token, _)| *token)).await?;
    let mut answers = Vec::with_capacity(runs.len());
    let mut parts = Vec::new();
    let mut once = HashSet::new();
    for (token, settlement) in runs {
        let mut outcome = standing(&lanes, token);
        if outcome == Outcome::Applied && !once.insert(*token) {
            outcome = Outcome::AlreadyApplied;
        }
        if outcome == Outcome::Applied
            && let Some(lane) = lane::number(token).and_then(|number| lanes.get(&number))
        {
            parts.push(read_part(storage, &mut session, lane, *settlement).await?);
        }
        answers.push(Settled { outcome, at: now });
    }
    if parts.is_empty() {
        session.roll_back().await;
        return Ok(Some(answers));
    }
    let mut published = Vec::new();
    let (mut freed, mut emptied) = (Vec::new(), Vec::new());
    for part in parts {
        let Some(lane) = lanes.get_mut(&part.lane) else { continue };
        let mut not_before = 0;
        match part.settlement {
            Settlement::HandBack { after } if after > Duration::ZERO => {
                not_before = now.after(after).as_micros();
            }
            Settlement::HandBack { .. } => {}
            Settlement::Verdicts(_) if part.messages.is_empty() => {
                published.extend_from_slice(&lane.run);
                emptied.push((lane.lane, lane.fence));
            }
            Settlement::Verdicts(verdicts) => {
                let head_policy = storage.0.settings.head_policy;
                apply(&mut session, &part.messages, verdicts, head_policy, now, &mut published).await?;
            }
        }
        lane.settled(not_before);
        match not_before {
            0 => freed.push((lane.lane, lane.fence)),
            _ => free(&mut session, &[(lane.lane, lane.fence)], not_before).await?,
        }
    }
    let settings = &storage.0.settings;
    let is_removed = !settings.keep_published && settings.published_partitions.is_none();
    if D::HAS_ARRAYS && is_removed && !published.is_empty() && !freed.is_empty() {
        let spots = spots_of(&storage.0.marks, &emptied, published.len());
        if !remove_and_free(&mut session, &published, spots, &freed).await? {
            session.roll_back().await;
            return Ok(None);
        }
    } else {
        if !published.is_empty() {
            publish(&mut session, &published, settings, now).await?;
        }
        if !freed.is_empty() {
            free(&mut session, &freed, 0).await?;
        }
    }
    session.commit().await?;
    for (lane, fence) in emptied {
        storage.0.marks.published(lane, fence);
    }
    Ok(Some(answers))
}

/// Where the messages of these runs lie, if it is known of all `count` of them.
fn spots_of(marks: &Marks, runs: &[(i64, i64)], count: usize) -> Option<Vec<Spot>> {
    let mut spots = Vec::with_capacity(count);
    for (lane, fence) in runs {
        spots.extend(marks.take_spots(*lane, *fence)?);
    }
    (spots.len() == count).then_some(spots)
}

/// Removes what was published and frees its lanes, in one statement. Answers false if other messages lie where these should, and then it
/// has to be rolled back.
async fn remove_and_free<D: Dialect>(
    session: &mut Session<'_, D>,
    published: &[i64],
    spots: Option<Vec<Spot>>,
    lanes: &[(i64, i64)],
) -> Result<bool, Failure> {
    let (free, freeing) = freeing::<D>(lanes, 0);
    let Some(spots) = spots else {
        let sql = format!("WITH gone AS (DELETE FROM {{message}} WHERE seq = ANY(?::bigint[])) {free}");
        let mut arguments = vec![Argument::Ints(published.to_vec())];
        arguments.extend(freeing);
        session.execute(&sql, arguments).await?;
        return Ok(true);
    };
    let mut removed: Vec<(Spot, i64)> = spots.into_iter().zip(published.iter().copied()).collect();
    removed.sort_unstable();
    let (spots, places): (Vec<Spot>, Vec<i64>) = removed.into_iter().unzip();
    let sql = format!(
        "WITH gone AS (DELETE FROM {{message}} WHERE ctid = ANY(?::text::tid[]) RETURNING seq), freed AS ({free}) \
         SELECT 1 WHERE (SELECT array_agg(seq) FROM gone) = ?::bigint[]"
    );
    let mut arguments = vec![spots_array(&spots)];
    arguments.extend(freeing);
    arguments.push(Argument::Ints(places));
    Ok(!session.rows(&sql, arguments).await?.is_empty())
}

/// An array of PostgreSQL as text: the client does not know the type of its elements, and would ask the server for it.
fn spots_array(spots: &[Spot]) -> Argument {
    let mut text = String::with_capacity(spots.len() * 16 + 2);
    text.push('{');
    for (index, spot) in spots.iter().enumerate() {
        let comma = if index == 0 { "" } else { "," };
        // Writing to a `String` cannot fail.
        let _ = write!(text, "{comma}\"{spot}\"");
    }
    text.push('}');
    Argument::Text(text)
}

/// Notes the token as settled, and lets go of the lanes.
async fn free<D: Dialect>(
    session: &mut Session<'_, D>,
    lanes: &[(i64, i64)],
    not_before: i64,
) -> Result<(), Failure> {
    let (sql, arguments) = freeing::<D>(lanes, not_before);
    session.execute_either(&sql, arguments).await?;
    Ok(())
}

fn freeing<D: Dialect>(lanes: &[(i64, i64)], not_before: i64) -> (String, Vec<Argument>) {
    let among = lane::among::<D>(lanes);
    // The nonce last: MySQL assigns from left to right.
    let sql = format!(
        "UPDATE {{lane}}{} SET settled_fence = fence, settled_nonce = nonce, run = NULL, run_length = 0, not_before = ?, nonce = NULL WHERE {}",
        D::BY_PLACE,
        among.0
    );
    let mut arguments = arguments![not_before];
    arguments.extend(among.1);
    (sql, arguments)
}

async fn publish<D: Dialect>(
    session: &mut Session<'_, D>,
    messages: &[i64],
    settings: &Settings,
    now: Timestamp,
) -> Result<(), Failure> {
    if settings.published_partitions.is_some() {
        session.execute_in(partitions::MOVE, arguments![now.as_micros()], messages).await?;
    } else if settings.keep_published {
        let sql = format!(
            "UPDATE {{message}}{} SET state = 4, strikes = 0, run_limit = NULL, due_at = NULL, ended_at = ? WHERE seq @",
            D::BY_PLACE
        );
        session.execute_in(&sql, arguments![now.as_micros()], messages).await?;
    } else {
        session.delete(messages).await?;
    }
    Ok(())
}

/// Holds the verdicts against the run: one per message, and per key the shape that [`Verdict`] states.
async fn read_part<'a, D: Dialect>(
    storage: &SqlStorage<D>,
    session: &mut Session<'_, D>,
    lane: &Lane,
    settlement: Settlement<'a>,
) -> Result<Part<'a>, Failure> {
    let mut part = Part { lane: lane.lane, settlement, messages: Vec::new() };
    let Settlement::Verdicts(verdicts) = settlement else { return Ok(part) };
    if verdicts.len() != lane.run.len() {
        let (messages, given) = (lane.run.len(), verdicts.len());
        return Err(Failure::Refused(
            Error::new(ErrorKind::Rejected, "settle")
                .describe(format!("a run has {messages} messages and was given {given} verdicts"))
                .not_applied(),
        ));
    }
    if verdicts.iter().all(|verdict| *verdict == Verdict::Published) {
        return Ok(part);
    }
    let rows = session.messages_in(Read::WithoutPayload, &lane.run).await?;
    let mut found: HashMap<i64, Row> = rows.into_iter().map(|row| (row.seq, row)).collect();
    part.messages = lane.run.iter().filter_map(|seq| found.remove(seq)).collect();
    if part.messages.len() != verdicts.len() {
        return Err(Failure::Refused(
            Error::new(ErrorKind::Unexpected, "settle")
                .describe("rows of a claimed run are missing; was the table changed by hand?")
                .not_applied(),
        ));
    }
    let keys = part.messages.iter().map(Row::readable_key);
    check_verdicts(keys.zip(verdicts), storage.0.settings.head_policy).map_err(Failure::Refused)?;
    Ok(part)
}

/// What a message becomes. Messages that become the same are changed by one statement.
#[derive(PartialEq, Eq, PartialOrd, Ord)]
enum Change {
    Retry { error: String },
    Wait { is_suspect: bool },
    Bury { state: i64, reason: String },
}

/// Carries out verdicts; what was published is added to `published`.
async fn apply<D: Dialect>(
    session: &mut Session<'_, D>,
    messages: &[Row],
    verdicts: &[Verdict],
    head_policy: HeadPolicy,
    now: Timestamp,
    published: &mut Vec<i64>,
) -> Result<(), Failure> {
    let now_micros = now.as_micros();
    // Keys of which something has to wait: all of them that come back leave the line, or they would be passed.
    let waits = |verdict: &Verdict| match verdict {
        Verdict::Retry { .. } => true,
        Verdict::Release { after } => *after > Duration::ZERO,
        Verdict::Published | Verdict::Bury { .. } => false,
    };
    let waiting: HashSet<&str> = messages
        .iter()
        .zip(verdicts)
        .filter(|(_, verdict)| waits(verdict))
        .filter_map(|(row, _)| row.key.as_deref())
        .collect();
    let mut changes: BTreeMap<Change, Vec<(i64, i64)>> = BTreeMap::new();
    let mut dues: HashMap<&Text, Held> = HashMap::new();
    for (row, verdict) in messages.iter().zip(verdicts) {
        let (change, own_due) = match verdict {
            Verdict::Published => {
                published.push(row.seq);
                continue;
            }
            Verdict::Bury { reason } => {
                let holds = head_policy == HeadPolicy::Block && row.readable_key().is_some();
                let state = if holds { state::DEAD_AND_HOLDS } else { state::DEAD };
                changes
                    .entry(Change::Bury { state, reason: cut(reason).to_owned() })
                    .or_default()
                    .push((row.seq, now_micros));
                continue;
            }
            Verdict::Retry { after, error } => {
                (Change::Retry { error: cut(error).to_owned() }, now.after(*after).as_micros())
            }
            Verdict::Release { after } => {
                let is_held_up = row.key.as_deref().is_some_and(|key| waiting.contains(key));
                if after.is_zero() && !is_held_up {
                    // It stays where it is.
                    continue;
                }
                (Change::Wait { is_suspect: row.state == state::SUSPECT }, now.after(*after).as_micros())
            }
        };
        let due = match row.key.as_ref() {
            None => own_due,
            Some(key) => {
                let held = dues.entry(key).or_insert(Held { seq: row.seq, due_at: own_due });
                held.seq = row.seq;
                held.due_at = held.due_at.max(own_due);
                held.due_at
            }
        };
        changes.entry(change).or_default().push((row.seq, due));
    }
    for (change, messages) in &changes {
        change.store(session, messages).await?;
    }
    keys::hold_back(session, dues.into_iter().map(|(key, held)| (key.clone(), held))).await?;
    Ok(())
}

impl Change {
    /// Stores it for these messages, each with its due time, or for buried ones the time of their death.
    async fn store<D: Dialect>(
        &self,
        session: &mut Session<'_, D>,
        messages: &[(i64, i64)],
    ) -> Result<(), Failure> {
        let list = in_list(&messages.iter().map(|(seq, _)| *seq).collect::<Vec<_>>());
        let (due, by_place) = (due_expression(messages), D::BY_PLACE);
        match self {
            Self::Retry { error } => {
                let sql = format!(
                    "UPDATE {{message}}{by_place} SET state = 2, attempts = attempts + 1, strikes = 0, run_limit = NULL, due_at = {due}, reason = ? WHERE seq IN ({list})"
                );
                session.execute_once(&sql, arguments![error.as_str()]).await?;
            }
            Self::Wait { is_suspect } => {
                let state = if *is_suspect { state::SUSPECT } else { state::CAME_BACK };
                let sql = format!(
                    "UPDATE {{message}}{by_place} SET state = {state}, due_at = {due} WHERE seq IN ({list})"
                );
                session.execute_once(&sql, Vec::new()).await?;
            }
            Self::Bury { state, reason } => {
                let sql = format!(
                    "UPDATE {{message}}{by_place} SET state = {state}, strikes = 0, run_limit = NULL, due_at = NULL, ended_at = {due}, reason = ? WHERE seq IN ({list})"
                );
                session.execute_once(&sql, arguments![reason.as_str()]).await?;
            }
        }
        Ok(())
    }
}

/// The time of each message. Numbers need no escaping.
fn due_expression(messages: &[(i64, i64)]) -> String {
    use std::fmt::Write as _;
    let first = messages.first().map_or(0, |(_, due)| *due);
    if messages.iter().all(|(_, due)| *due == first) {
        return first.to_string();
    }
    let mut expression = String::from("CASE seq");
    for (seq, due) in messages {
        // Writing to a `String` cannot fail.
        let _ = write!(expression, " WHEN {seq} THEN {due}");
    }
    expression.push_str(" END");
    expression
}

fn cut(reason: &str) -> &str {
    &reason[..reason.floor_char_boundary(REASON_BYTES)]
}
