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
//! Among decided places a mark moves as lanes are read and emptied: to the first message that a claim finds, and past a run that was
//! published as a whole, if the claim left out no message between. Now and then a look finds where each lane begins, whoever emptied it.
//!
//! The rows of lanes are updated with every claim, and their old versions stay in the same way. A fence that was settled never falls, so a
//! handle asks for rows with the last such fence that it has seen, or a later one, and the index passes the rest. That of a claim can fall:
//! a claim need not be on the disk when the server crashes.
//!
//! All this holds for one server. After a failover the sequence may be behind what was seen, so marks are forgotten with the server.

use crate::SqlStorage;
use crate::dialect::{Argument, Dialect};
use crate::record::Spot;
use crate::session::Failure;
use std::collections::HashSet;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

/// As many as there are lanes.
pub(crate) const COUNT: usize = 16;
/// So many messages are claimed between two looks at least: what claims walk over meanwhile.
const STEP: usize = 2_000;
/// After so many, lanes are looked at even where all that was seen is decided: other handles empty them too.
const LONG_STEP: usize = 20 * STEP;
/// Marks are forgotten after this time, and found anew: somebody may have set the sequence back by hand.
const FORGOTTEN_AFTER: Duration = Duration::from_secs(600);

/// The marks of one handle.
#[derive(Debug)]
pub(crate) struct Marks(Mutex<State>);

#[derive(Debug)]
struct State {
    known: Known,
    /// Of each lane the fence of its last claim here, and the place past which the mark moves once all of its run was published.
    runs: [Option<(i64, i64)>; COUNT],
    /// Of each lane the fence of its last claim here, and where each message of its run lies.
    spots: [Option<(i64, Vec<Spot>)>; COUNT],
    /// The highest place that was seen committed.
    seen: i64,
    /// All places up to this one are decided when these transactions have ended.
    awaited: Option<(i64, HashSet<String>)>,
    /// How many messages were claimed since the last look.
    claimed: usize,
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
    /// Of each a fence that was settled.
    fences: [i64; COUNT],
    /// All places up to here are decided.
    decided: i64,
    /// Of each whether its last claim left some of its messages behind: then the next one need not ask whether there are any.
    has_more: [bool; COUNT],
}

impl State {
    fn new() -> Self {
        Self {
            known: Known::default(),
            runs: [None; COUNT],
            spots: [const { None }; COUNT],
            seen: 0,
            awaited: None,
            claimed: 0,
            is_looking: false,
            server: 0,
            begun_at: Instant::now(),
        }
    }

    /// These transactions write to the table now, and places up to this one had been given out before.
    fn writers(&mut self, given_out: i64, writers: HashSet<String>) {
        let (up_to, awaited) = match self.awaited.take() {
            // A transaction that was prepared to commit may have another name since.
            Some((up_to, before)) => {
                let is_same = |writer: &String| before.contains(writer) || writer.starts_with("-1/");
                (up_to, writers.into_iter().filter(is_same).collect())
            }
            None => (given_out, writers),
        };
        if awaited.is_empty() {
            self.known.decided = self.known.decided.max(up_to);
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

    /// The state, unless it is that of another server.
    fn of(&mut self, server: i64) -> Option<&mut Self> {
        (self.server == server).then_some(self)
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

    /// The server of the last claim, and what is known of its lanes.
    pub(crate) fn last(&self) -> (i64, Known) {
        let state = self.state();
        (state.server, state.known)
    }

    /// Notes fences that were settled on this server.
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

    /// Notes whether a claim of a lane on this server left messages behind.
    pub(crate) fn see_more(&self, server: i64, lane: i64, has_more: bool) {
        let mut state = self.state();
        let (Some(state), Ok(lane)) = (state.of(server), usize::try_from(lane)) else { return };
        if let Some(known) = state.known.has_more.get_mut(lane) {
            *known = has_more;
        }
    }

    /// Notes the places of messages that a claim has read on this server.
    pub(crate) fn see(&self, server: i64, places: &[i64]) {
        let Some(highest) = places.iter().copied().max() else { return };
        if let Some(state) = self.state().of(server) {
            state.seen = state.seen.max(highest);
            state.claimed = state.claimed.saturating_add(places.len());
        }
    }

    /// Notes the new messages of a lane that a claim with this knowledge has read as one row after the other from the mark on, none left out:
    /// the first is where the lane begins, and behind the last it begins once they are published.
    pub(crate) fn see_row(&self, server: i64, known: &Known, claimed: (i64, i64), first: i64, last: i64) {
        let ((lane, fence), mut state) = (claimed, self.state());
        let (Some(state), Ok(lane)) = (state.of(server), usize::try_from(lane)) else { return };
        if let (Some(from), Some(run)) = (state.known.from.get_mut(lane), state.runs.get_mut(lane)) {
            *from = first.min(known.decided + 1).max(*from);
            *run = Some((fence, last.min(known.decided)));
        }
    }

    /// Notes that a lane's whole run was published: the one that was claimed with this fence.
    pub(crate) fn published(&self, lane: i64, fence: i64) {
        let mut state = self.state();
        let state = &mut *state;
        let Ok(lane) = usize::try_from(lane) else { return };
        if let (Some(from), Some(run)) = (state.known.from.get_mut(lane), state.runs.get_mut(lane))
            && let Some((_, up_to)) = run.take_if(|(claimed, _)| *claimed == fence)
        {
            *from = (up_to + 1).max(*from);
        }
    }

    /// Notes where the messages of a run lie, in its order.
    pub(crate) fn see_spots(&self, server: i64, (lane, fence): (i64, i64), spots: Vec<Spot>) {
        let mut state = self.state();
        let (Some(state), Ok(lane)) = (state.of(server), usize::try_from(lane)) else { return };
        if let Some(known) = state.spots.get_mut(lane) {
            *known = Some((fence, spots));
        }
    }

    /// Where the messages of a run lay when they were claimed; told once.
    pub(crate) fn take_spots(&self, lane: i64, fence: i64) -> Option<Vec<Spot>> {
        let mut state = self.state();
        let known = state.spots.get_mut(usize::try_from(lane).ok()?)?;
        known.take_if(|(claimed, _)| *claimed == fence).map(|(_, spots)| spots)
    }

    /// A look, if it is time for one.
    fn begin_look(&self) -> Option<Look<'_>> {
        let mut state = self.state();
        if state.begun_at.elapsed() > FORGOTTEN_AFTER {
            *state = State { server: state.server, ..State::new() };
            return None;
        }
        let is_time = match state.seen > state.known.decided {
            true => state.claimed >= STEP,
            false => state.claimed >= LONG_STEP,
        };
        if state.is_looking || !is_time {
            return None;
        }
        state.claimed = 0;
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
    // Which places were given out is asked before who may have got them.
    let rows = session.rows(D::GIVEN_OUT, Vec::new()).await?;
    let given_out = rows.first().map(|row| D::int(row, 0)).transpose()?.flatten();
    let given_out = given_out.map_or(look.seen, |place| place.max(look.seen));
    let rows = session.rows(writers, Vec::new()).await?;
    let writers = rows.iter().map(|row| Ok(D::text(row, 0)?.unwrap_or_default()));
    let writers: HashSet<String> = writers.collect::<Result<_, sqlx::Error>>()?;
    let known = look.state().map(|mut state| {
        state.writers(given_out, writers);
        (state.known.decided, state.known)
    });
    let Some((decided, known)) = known else {
        session.roll_back().await;
        return Ok(());
    };
    // A statement of its own, whose snapshot is younger than the decision.
    let ((above, mut arguments), (lanes, fences)) = (above::<D>(&known), lanes::<D>(&known));
    arguments.extend(fences);
    let sql = format!(
        "SELECT l.lane, (SELECT m.seq FROM {{message}} m WHERE {}{above} ORDER BY m.line, m.seq LIMIT 1), l.settled_fence {lanes}",
        D::in_line("l.lane")
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
        Some(_) => (" AND m.seq >= (?::bigint[])[l.lane + 1]", vec![Argument::Ints(known.from.to_vec())]),
    }
}

/// The condition that messages of a lane `l` are known to wait, with its argument.
pub(crate) fn with_more<D: Dialect>(known: &Known) -> (&'static str, Vec<Argument>) {
    match D::WRITERS {
        None => ("", Vec::new()),
        Some(_) => {
            let lanes = (0_i64..).zip(known.has_more).filter(|(_, has_more)| *has_more);
            (" OR l.lane = ANY(?::bigint[])", vec![Argument::Ints(lanes.map(|(lane, _)| lane).collect())])
        }
    }
}

/// The table of lanes `l`, as a query reads it, with its argument.
pub(crate) fn lanes<D: Dialect>(known: &Known) -> (&'static str, Vec<Argument>) {
    match D::WRITERS {
        None => ("FROM {lane} l", Vec::new()),
        Some(_) => (
            "FROM unnest(?::bigint[]) WITH ORDINALITY AS k(least, place) JOIN {lane} l ON l.lane = k.place - 1 AND l.fence >= k.least",
            vec![Argument::Ints(known.fences.to_vec())],
        ),
    }
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
        assert_eq!(state.known.decided, 0, "two transactions may yet commit places below 100");
        state.heads(state.known.decided, &heads);
        assert_eq!(state.known.from, [1; COUNT]);
        state.writers(120, set(&["4/7", "5/1"]));
        assert_eq!(state.known.decided, 0, "4/7 is still open");
        state.writers(150, set(&["5/1", "6/1"]));
        assert_eq!(state.known.decided, 100, "those that came later have places above 100");
        state.heads(state.known.decided, &heads);
        assert_eq!((state.known.from[0], state.known.from[1]), (90, 101));
        state.heads(state.known.decided, &[Some(50); COUNT]);
        assert_eq!((state.known.from[0], state.known.from[1]), (90, 101), "a mark never goes back");
        state.writers(160, set(&["6/1"]));
        state.writers(160, set(&["-1/99"]));
        assert_eq!(state.known.decided, 100, "6/1 may be the one that was prepared to commit");
        state.writers(170, HashSet::new());
        assert_eq!(state.known.decided, 160);
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
        marks.see(0, &[7; STEP]);
        assert_eq!(seen(marks.begin_look()), Some(7));
        marks.see(0, &[8; STEP - 1]);
        assert_eq!(seen(marks.begin_look()), None, "too early");
        marks.see(0, &[3]);
        assert_eq!(seen(marks.begin_look()), Some(8));
        marks.state().known.decided = 8;
        marks.see(0, &[8; STEP]);
        assert_eq!(seen(marks.begin_look()), None, "all that was seen is decided");
        marks.see(0, &[8; LONG_STEP]);
        assert_eq!(seen(marks.begin_look()), Some(8), "others empty lanes too");
        marks.state().begun_at -= 2 * FORGOTTEN_AFTER;
        assert_eq!((seen(marks.begin_look()), marks.state().seen), (None, 0), "forgotten");
    }

    #[test]
    fn a_mark_moves_to_what_was_read_and_past_what_was_published() {
        let marks = Marks::new();
        let known = |marks: &Marks| marks.known(0);
        marks.see_row(0, &known(&marks), (2, 1), 40, 60);
        assert_eq!(known(&marks).from[2], 1, "nothing is decided");
        marks.published(2, 1);
        assert_eq!(known(&marks).from[2], 1);
        let before = known(&marks);
        marks.state().known.decided = 50;
        marks.see_row(0, &before, (3, 4), 40, 60);
        assert_eq!(known(&marks).from[3], 1, "what was decided after the claim had begun does not count");
        marks.see_row(0, &known(&marks), (2, 2), 40, 60);
        assert_eq!(known(&marks).from[2], 40);
        marks.published(2, 1);
        assert_eq!(known(&marks).from[2], 40, "another run");
        marks.published(2, 2);
        assert_eq!(known(&marks).from[2], 51, "places above 50 are not decided");
        marks.see_row(0, &known(&marks), (2, 3), 30, 45);
        marks.published(2, 3);
        marks.published(2, 3);
        assert_eq!(known(&marks).from[2], 51, "a mark never goes back");
        marks.see_row(7, &known(&marks), (2, 4), 51, 55);
        marks.published(2, 4);
        assert_eq!(known(&marks).from[2], 51, "on another server");
    }

    #[test]
    fn there_is_one_look_at_a_time_and_none_outlives_its_server() {
        let marks = Marks::new();
        marks.known(1);
        marks.see(1, &[9; STEP]);
        let look = marks.begin_look().expect("it is time");
        marks.see(1, &[10; STEP]);
        assert!(marks.begin_look().is_none(), "one is under way");
        drop(look);
        let look = marks.begin_look().expect("it has ended");
        marks.see_fences(1, [(3, 7), (3, 6), (-1, 9), (16, 9)].into_iter());
        look.state().expect("the same server").known.from = [5; COUNT];
        let known = marks.known(1);
        assert_eq!((known.from, known.fences[3], known.fences[4]), ([5; COUNT], 7, 0));
        assert_eq!(marks.known(2), Known::default(), "another server");
        marks.see_fences(1, [(3, 7)].into_iter());
        marks.see_more(1, 3, true);
        assert_eq!(marks.known(2), Known::default(), "fences of the other one");
        marks.see(1, &[99; STEP]);
        assert_eq!(marks.state().seen, 0, "places of the other one");
        assert!(look.state().is_none(), "what it finds is of no use");
        drop(look);
        marks.see(2, &[9; STEP]);
        assert!(marks.begin_look().is_some());
    }
}
