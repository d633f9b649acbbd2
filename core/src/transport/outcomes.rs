use crate::Error;

/// The outcomes of one publish, message by message. Reused from one publish to the next.
#[derive(Debug, Default)]
pub struct Outcomes(Vec<Option<Result<(), Error>>>);

impl Outcomes {
    /// Room for nothing yet; [`reset`](Self::reset) makes it.
    pub const fn new() -> Self {
        Self(Vec::new())
    }

    /// Forgets all outcomes and makes room for `count` messages. Keeps its buffer.
    pub fn reset(&mut self, count: usize) {
        self.0.clear();
        self.0.resize_with(count, || None);
    }

    /// Writes the outcome of the message at `index`. The first word stands: a later one for the same message is dropped, and
    /// so is an index outside of the batch.
    pub fn set(&mut self, index: usize, outcome: Result<(), Error>) {
        if let Some(slot @ None) = self.0.get_mut(index) {
            *slot = Some(outcome);
        }
    }

    /// Writes an outcome, made by `make`, for every message that has none yet.
    pub fn fill(&mut self, mut make: impl FnMut() -> Result<(), Error>) {
        for slot in self.0.iter_mut().filter(|slot| slot.is_none()) {
            *slot = Some(make());
        }
    }

    /// The outcome of the message at `index`; `None` while it is unknown.
    pub fn outcome(&self, index: usize) -> Option<&Result<(), Error>> {
        self.0.get(index).and_then(Option::as_ref)
    }

    /// Takes the outcome of the message at `index` out; `None` if it is unknown.
    pub fn take(&mut self, index: usize) -> Option<Result<(), Error>> {
        self.0.get_mut(index).and_then(Option::take)
    }

    /// How many messages the batch has.
    pub fn len(&self) -> usize {
        self.0.len()
    }

    /// Whether the batch has no messages.
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// Whether every message has an outcome.
    pub fn is_complete(&self) -> bool {
        self.0.iter().all(Option::is_some)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::ErrorKind;

    #[test]
    fn the_first_word_stands() {
        let mut outcomes = Outcomes::new();
        outcomes.reset(2);
        outcomes.set(0, Ok(()));
        outcomes.set(0, Err(Error::new(ErrorKind::Unexpected, "publish")));
        outcomes.set(9, Ok(()));
        assert!(matches!(outcomes.outcome(0), Some(Ok(()))));
        assert!(!outcomes.is_complete());
        outcomes.fill(|| Err(Error::new(ErrorKind::Unavailable, "publish")));
        assert!(outcomes.is_complete());
        assert!(matches!(outcomes.take(1), Some(Err(_))));
        assert!(outcomes.take(1).is_none());
    }
}
