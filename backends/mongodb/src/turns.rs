//! Where the claims of one handle begin, so that they do not want the same lane.

use std::collections::HashSet;
use std::sync::{Arc, Mutex, PoisonError};

/// The lanes at which claims of this handle have begun and that are not taken yet. It decides nothing: claims of other handles do
/// not know of it, and the lane's document tells who has it.
#[derive(Clone, Debug, Default)]
pub(crate) struct Turns(Arc<Mutex<HashSet<i64>>>);

/// One of them, for as long as this lives.
#[derive(Debug)]
pub(crate) struct Turn {
    turns: Turns,
    lane: i64,
}

impl Turns {
    /// Leaves out those of `lanes` at which others have begun, unless there is nothing else, and puts first one of the rest, as it was
    /// drawn.
    pub(crate) fn take(&self, lanes: &mut Vec<i64>, drawn: usize) -> Option<Turn> {
        let mut begun = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if lanes.iter().any(|lane| !begun.contains(lane)) {
            lanes.retain(|lane| !begun.contains(lane));
        }
        let turn = drawn.checked_rem(lanes.len())?;
        lanes.rotate_left(turn);
        let lane = lanes.first().copied()?;
        begun.insert(lane).then(|| Turn { turns: self.clone(), lane })
    }
}

impl Drop for Turn {
    fn drop(&mut self) {
        self.turns.0.lock().unwrap_or_else(PoisonError::into_inner).remove(&self.lane);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn claims_begin_at_different_lanes_while_there_are_enough() {
        let turns = Turns::default();
        let mut first = vec![0, 1, 2];
        let held = turns.take(&mut first, 4).unwrap();
        assert_eq!(first, [1, 2, 0]);
        let mut second = vec![0, 1, 2];
        let also_held = turns.take(&mut second, 4);
        assert_eq!(second, [0, 2]);
        assert!(also_held.is_some());
        let mut third = vec![1];
        assert!(turns.take(&mut third, 0).is_none());
        assert_eq!(third, [1], "there is nothing else");
        drop(held);
        assert!(turns.take(&mut vec![1], 0).is_some());
        assert!(turns.take(&mut Vec::new(), 0).is_none());
    }
}
