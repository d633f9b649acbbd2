//! Low-water marks: where the messages of each lane begin.
//!
//! A published message is deleted, and PostgreSQL keeps its row and its index entry until vacuum may remove them, which an idle
//! transaction of anybody can prevent for hours. A claim that searched its lane from the start would walk over all of them, more for
//! every message published. So a handle remembers where each lane begins, and searches from there.
//!
//! A mark may never pass a message that will yet be committed: it would be delivered late, or never. A place in the order is given out by
//! a sequence, inside an `INSERT`, while its transaction holds the lock `ROW EXCLUSIVE` on the table, which it keeps until it ends. Hence:
//! once every transaction that held this lock at a moment after place `M` was seen has ended, all places up to `M` are decided. An idle
//! transaction that has enqueued nothing holds no such lock.
//!
//! The rows of lanes are updated with every claim, and their old versions stay in the same way. A fence never falls, so a handle asks for
//! rows with the last fence that it has seen, or a later one, and the index passes the rest.
//!
//! All this holds for one server. After a failover the sequence may be behind what was seen, so marks are forgotten with the server.

use crate::SqlStorage;
use crate::dialect::{Argument, Dialect};
use crate::layout::in_list;
use crate::session::Failure;
use std::collections::HashSet;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

/// As many as there are lanes.
pub(crate) const COUNT: usize = 16;
/// So many places lie between two looks: what claims walk over meanwhile.
const STEP: i64 = 2_000;
/// Marks are forgotten after this time, and found anew: somebody may have set the sequence back by hand.
const FORGOTTEN_AFTER: Duration = Duration::from_secs(600);

/// The marks of one handle.
#[derive(Debug)]
pub(crate) struct Marks(Mutex<State>);

#[derive(Debug)]
struct State {
    known: Known,
    /// All places up to here are decided.
    decided: i64,
    /// The highest place that was seen committed.
    seen: i64,
    /// All places up to this one are decided when these transactions have ended.
    awaited: Option<(i64, HashSet<String>)>,
    /// The highest place that was seen when it was looked last.
    looked_at: i64,
    /// Two looks at a time could mix up what was running when.
    is_looking: bool,
    /// What tells the server from others: the time of its start.
    server: i64,
    begun_at: Instant,
}

/// What is known of the lanes.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Known {
    /// Of each a place below which nothing waits, and nothing ever will.
    pub(crate) from: [i64; COUNT],
    /// Of each a fence that was committed.
    fences: [i64; COUNT],
}

impl State {
    fn new() -> Self {
        Self {
            known: Known::default(),
            decided: 0,
            seen: 0,
            awaited: None,
            looked_at: 0,
            is_looking: false,
            server: 0,
            begun_at: Instant::now(),
        }
    }

    /// These transactions write to the table now.
    fn writers(&mut self, seen: i64, writers: HashSet<String>) {
        let (up_to, awaited) = match self.awaited.take() {
            // A transaction that was prepared to commit may have another name since.
            Some((up_to, before)) => {
                let is_same = |writer: &String| before.contains(writer) || writer.starts_with("-1/");
                (up_to, writers.into_iter().filter(is_same).collect())
            }
            None => (seen, writers),
        };
        if awaited.is_empty() {
            self.decided = self.decided.max(up_to);
        } else {
            self.awaited = Some((up_to, awaited));
        }
    }

    /// The first message of each lane, read after what is decided was known.
    fn heads(&mut self, decided: i64, heads: &[Option<i64>; COUNT]) {
        for (from, head) in self.known.from.iter_mut().zip(heads) {
            let begins = head.map_or(decided + 1, |head| head.min(decided + 1));
            *from = begins.max(*from);
        }
    }
}

impl Marks {
    pub(crate) fn new() -> Self {
        Self(Mutex::new(State::new()))
    }

    /// What is known of the lanes on this server.
    pub(crate) fn known(&self, server: i64) -> Known {
        let mut state = self.state();
        if state.server != server {
            *state = State { server, ..State::new() };
        }
        state.known
    }

    /// Notes fences that are committed on this server.
    pub(crate) fn see_fences(&self, server: i64, fences: impl Iterator<Item = (i64, i64)>) {
        let mut state = self.state();
        if state.server != server {
            return;
        }
        for (lane, fence) in fences {
            if let Some(known) = usize::try_from(lane).ok().and_then(|lane| state.known.fences.get_mut(lane))
            {
                *known = fence.max(*known);
            }
        }
    }

    /// Notes the places of messages that a claim has read on this server.
    pub(crate) fn see(&self, server: i64, places: impl Iterator<Item = i64>) {
        let Some(highest) = places.max() else { return };
        let mut state = self.state();
        if state.server == server {
            state.seen = state.seen.max(highest);
        }
    }

    /// The highest place that was seen, if it is time to look again.
    fn begin_look(&self) -> Option<Look<'_>> {
        let mut state = self.state();
        if state.begun_at.elapsed() > FORGOTTEN_AFTER {
            *state = State { server: state.server, ..State::new() };
            return None;
        }
        if state.is_looking || state.seen < state.looked_at.saturating_add(STEP) {
            return None;
        }
        state.looked_at = state.seen;
        state.is_looking = true;
        Some(Look { marks: self, seen: state.seen, begun_at: state.begun_at, server: state.server })
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// One look at what is decided.
#[derive(Debug)]
struct Look<'a> {
    marks: &'a Marks,
    /// The highest place that was seen.
    seen: i64,
    begun_at: Instant,
    server: i64,
}

impl Look<'_> {
    /// The marks, unless they were forgotten meanwhile.
    fn state(&self) -> Option<MutexGuard<'_, State>> {
        let state = self.marks.state();
        ((state.begun_at, state.server) == (self.begun_at, self.server)).then_some(state)
    }
}

impl Drop for Look<'_> {
    fn drop(&mut self) {
        if let Some(mut state) = self.state() {
            state.is_looking = false;
        }
    }
}

/// Moves the marks on, now and then.
pub(crate) async fn advance<D: Dialect>(storage: &SqlStorage<D>) -> Result<(), Failure> {
    let (Some(writers), Some(look)) = (D::WRITERS, storage.0.marks.begin_look()) else { return Ok(()) };
    let mut session = storage.begin().await?;
    if session.server().await? != look.server {
        session.roll_back().await;
        return Ok(());
    }
    let rows = session.rows(writers, Vec::new()).await?;
    let writers = rows.iter().map(|row| Ok(D::text(row, 0)?.unwrap_or_default()));
    let writers: HashSet<String> = writers.collect::<Result<_, sqlx::Error>>()?;
    let known = look.state().map(|mut state| {
        state.writers(look.seen, writers);
        (state.decided, state.known)
    });
    let Some((decided, known)) = known else {
        session.roll_back().await;
        return Ok(());
    };
    // A statement of its own, whose snapshot is younger than the decision.
    let ((above, mut arguments), (lanes, fences)) = (above::<D>(&known), lanes::<D>(&known));
    arguments.extend(fences);
    let sql = format!(
        "SELECT l.lane, (SELECT m.seq FROM {{message}} m WHERE m.line = l.lane{above} ORDER BY m.seq LIMIT 1), l.fence {lanes}"
    );
    let (mut heads, mut fences) = ([None; COUNT], Vec::new());
    for row in session.rows(&sql, arguments).await? {
        let lane = D::int(&row, 0)?.unwrap_or_default();
        if let Some(head) = usize::try_from(lane).ok().and_then(|lane| heads.get_mut(lane)) {
            *head = D::int(&row, 1)?;
        }
        fences.push((lane, D::int(&row, 2)?.unwrap_or_default()));
    }
    session.roll_back().await;
    storage.0.marks.see_fences(look.server, fences.into_iter());
    if let Some(mut state) = look.state() {
        state.heads(decided, &heads);
    }
    Ok(())
}

/// The condition that a message `m` is not below the mark of its lane `l`, with its argument.
pub(crate) fn above<D: Dialect>(known: &Known) -> (&'static str, Vec<Argument>) {
    match D::WRITERS {
        None => ("", Vec::new()),
        Some(_) => (" AND m.seq >= (?::bigint[])[l.lane + 1]", vec![array(&known.from)]),
    }
}

/// The table of lanes `l`, as a query reads it, with its argument.
pub(crate) fn lanes<D: Dialect>(known: &Known) -> (&'static str, Vec<Argument>) {
    match D::WRITERS {
        None => ("FROM {lane} l", Vec::new()),
        Some(_) => (
            "FROM unnest(?::bigint[]) WITH ORDINALITY AS k(least, place) JOIN {lane} l ON l.lane = k.place - 1 AND l.fence >= k.least",
            vec![array(&known.fences)],
        ),
    }
}

/// An array of PostgreSQL.
pub(crate) fn array(numbers: &[i64]) -> Argument {
    Argument::Text(format!("{{{}}}", in_list(numbers)))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn set(names: &[&str]) -> HashSet<String> {
        names.iter().map(ToString::to_string).collect()
    }

    #[test]
    fn a_mark_waits_for_those_that_may_have_places_below_it() {
        let mut state = State::new();
        let mut heads = [Some(90); COUNT];
        heads[1] = None;
        state.writers(100, set(&["3/1", "4/7"]));
        assert_eq!(state.decided, 0, "two transactions may yet commit places below 100");
        state.heads(state.decided, &heads);
        assert_eq!(state.known.from, [1; COUNT]);
        state.writers(120, set(&["4/7", "5/1"]));
        assert_eq!(state.decided, 0, "4/7 is still open");
        state.writers(150, set(&["5/1", "6/1"]));
        assert_eq!(state.decided, 100, "those that came later have places above 100");
        state.heads(state.decided, &heads);
        assert_eq!((state.known.from[0], state.known.from[1]), (90, 101));
        state.heads(state.decided, &[Some(50); COUNT]);
        assert_eq!((state.known.from[0], state.known.from[1]), (90, 101), "a mark never goes back");
        state.writers(160, set(&["6/1"]));
        state.writers(160, set(&["-1/99"]));
        assert_eq!(state.decided, 100, "6/1 may be the one that was prepared to commit");
        state.writers(170, HashSet::new());
        assert_eq!(state.decided, 160);
    }

    #[test]
    fn every_lane_has_a_mark() {
        assert_eq!(i64::try_from(COUNT), Ok(crate::layout::LANES));
    }

    #[test]
    fn looks_are_rare() {
        let marks = Marks::new();
        let seen = |look: Option<Look<'_>>| look.map(|look| look.seen);
        assert_eq!(seen(marks.begin_look()), None);
        marks.see(0, [3, STEP, 4].into_iter());
        assert_eq!(seen(marks.begin_look()), Some(STEP));
        marks.see(0, [2 * STEP - 1].into_iter());
        assert_eq!(seen(marks.begin_look()), None, "too early");
        marks.see(0, [2 * STEP].into_iter());
        assert_eq!(seen(marks.begin_look()), Some(2 * STEP));
        marks.state().begun_at -= 2 * FORGOTTEN_AFTER;
        assert_eq!((seen(marks.begin_look()), marks.state().seen), (None, 0), "forgotten");
    }

    #[test]
    fn there_is_one_look_at_a_time_and_none_outlives_its_server() {
        let marks = Marks::new();
        marks.known(1);
        marks.see(1, [STEP].into_iter());
        let look = marks.begin_look().expect("it is time");
        marks.see(1, [2 * STEP].into_iter());
        assert!(marks.begin_look().is_none(), "one is under way");
        drop(look);
        let look = marks.begin_look().expect("it has ended");
        marks.see_fences(1, [(3, 7), (3, 6), (-1, 9), (16, 9)].into_iter());
        look.state().expect("the same server").known.from = [5; COUNT];
        let known = marks.known(1);
        assert_eq!((known.from, known.fences[3], known.fences[4]), ([5; COUNT], 7, 0));
        assert_eq!(marks.known(2), Known::default(), "another server");
        marks.see_fences(1, [(3, 7)].into_iter());
        assert_eq!(marks.known(2), Known::default(), "fences of the other one");
        marks.see(1, [9 * STEP].into_iter());
        assert_eq!(marks.state().seen, 0, "places of the other one");
        assert!(look.state().is_none(), "what it finds is of no use");
        drop(look);
        marks.see(2, [STEP].into_iter());
        assert!(marks.begin_look().is_some());
    }
}
