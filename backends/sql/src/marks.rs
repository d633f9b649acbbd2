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

use crate::SqlStorage;
use crate::dialect::{Argument, Dialect};
use crate::session::Failure;
use std::collections::HashSet;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

/// As many as there are lanes.
pub(crate) const COUNT: usize = 16;
/// So many places lie between two looks: what claims walk over meanwhile.
const STEP: i64 = 2_000;
/// Marks are forgotten after this time, and found anew: somebody may have set the sequence back by hand.
const FORGOTTEN_AFTER: Duration = Duration::from_secs(60);

/// The marks of one handle.
#[derive(Debug)]
pub(crate) struct Marks(Mutex<State>);

#[derive(Debug)]
struct State {
    /// Of each lane a place below which nothing waits, and nothing ever will.
    from: [i64; COUNT],
    /// All places up to here are decided.
    decided: i64,
    /// The highest place that was seen committed.
    seen: i64,
    /// All places up to this one are decided when these transactions have ended.
    awaited: Option<(i64, HashSet<String>)>,
    /// The highest place that was seen when it was looked last.
    looked_at: i64,
    begun_at: Instant,
}

impl State {
    fn new() -> Self {
        Self { from: [0; COUNT], decided: 0, seen: 0, awaited: None, looked_at: 0, begun_at: Instant::now() }
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
        for (from, head) in self.from.iter_mut().zip(heads) {
            let begins = head.map_or(decided + 1, |head| head.min(decided + 1));
            *from = begins.max(*from);
        }
    }
}

impl Marks {
    pub(crate) fn new() -> Self {
        Self(Mutex::new(State::new()))
    }

    /// Where each lane begins.
    pub(crate) fn from(&self) -> [i64; COUNT] {
        self.state().from
    }

    /// Notes the places of messages that a claim has read.
    pub(crate) fn see(&self, places: impl Iterator<Item = i64>) {
        let Some(highest) = places.max() else { return };
        let mut state = self.state();
        state.seen = state.seen.max(highest);
    }

    /// The highest place that was seen, if it is time to look again.
    fn begin_look(&self) -> Option<i64> {
        let mut state = self.state();
        if state.begun_at.elapsed() > FORGOTTEN_AFTER {
            *state = State::new();
            return None;
        }
        let is_due = state.seen >= state.looked_at.saturating_add(STEP);
        is_due.then(|| {
            state.looked_at = state.seen;
            state.seen
        })
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Moves the marks on, now and then.
pub(crate) async fn advance<D: Dialect>(storage: &SqlStorage<D>) -> Result<(), Failure> {
    let (Some(writers), Some(seen)) = (D::WRITERS, storage.0.marks.begin_look()) else { return Ok(()) };
    let mut session = storage.begin().await?;
    let rows = session.rows(writers, Vec::new()).await?;
    let writers = rows.iter().map(|row| Ok(D::text(row, 0)?.unwrap_or_default()));
    let writers: HashSet<String> = writers.collect::<Result<_, sqlx::Error>>()?;
    let decided = {
        let mut state = storage.0.marks.state();
        state.writers(seen, writers);
        state.decided
    };
    // A statement of its own, whose snapshot is younger than the decision.
    let (above, arguments) = above::<D>(&storage.0.marks.from());
    let sql = format!(
        "SELECT l.lane, (SELECT m.seq FROM {{message}} m WHERE m.line = l.lane{above} ORDER BY m.seq LIMIT 1) FROM {{lane}} l"
    );
    let mut heads = [None; COUNT];
    for row in session.rows(&sql, arguments).await? {
        let lane = D::int(&row, 0)?.and_then(|lane| usize::try_from(lane).ok());
        if let Some(head) = lane.and_then(|lane| heads.get_mut(lane)) {
            *head = D::int(&row, 1)?;
        }
    }
    session.roll_back().await;
    storage.0.marks.state().heads(decided, &heads);
    Ok(())
}

/// The condition that a message `m` is not below the mark of its lane `l`, with its argument.
pub(crate) fn above<D: Dialect>(from: &[i64; COUNT]) -> (&'static str, Vec<Argument>) {
    match D::WRITERS {
        None => ("", Vec::new()),
        Some(_) => {
            let marks = from.map(|mark| mark.to_string()).join(",");
            (" AND m.seq >= (?::bigint[])[l.lane + 1]", vec![Argument::Text(format!("{{{marks}}}"))])
        }
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
        assert_eq!(state.decided, 0, "two transactions may yet commit places below 100");
        state.heads(state.decided, &heads);
        assert_eq!(state.from, [1; COUNT]);
        state.writers(120, set(&["4/7", "5/1"]));
        assert_eq!(state.decided, 0, "4/7 is still open");
        state.writers(150, set(&["5/1", "6/1"]));
        assert_eq!(state.decided, 100, "those that came later have places above 100");
        state.heads(state.decided, &heads);
        assert_eq!((state.from[0], state.from[1]), (90, 101));
        state.heads(state.decided, &[Some(50); COUNT]);
        assert_eq!((state.from[0], state.from[1]), (90, 101), "a mark never goes back");
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
        assert_eq!(marks.begin_look(), None);
        marks.see([3, STEP, 4].into_iter());
        assert_eq!(marks.begin_look(), Some(STEP));
        marks.see([2 * STEP - 1].into_iter());
        assert_eq!(marks.begin_look(), None, "too early");
        marks.see([2 * STEP].into_iter());
        assert_eq!(marks.begin_look(), Some(2 * STEP));
        marks.state().begun_at -= 2 * FORGOTTEN_AFTER;
        assert_eq!((marks.begin_look(), marks.state().seen), (None, 0), "forgotten");
    }
}
