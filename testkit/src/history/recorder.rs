use super::{Event, Planned, Record};
use pillarbox_core::{Message, MessageId, Timestamp};
use std::fmt;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

/// Writes a history, for one actor. Clones write the same history.
#[derive(Clone)]
pub struct Recorder {
    shared: Arc<Shared>,
    by: u16,
}

struct Shared {
    messages: Vec<Planned>,
    clock: Box<dyn Fn() -> Duration + Send + Sync>,
    records: Mutex<Vec<Record>>,
}

impl Recorder {
    /// A new history of these messages, whose numbers are their places. Their ids come from [`Recorder::id`].
    pub fn new(messages: Vec<Planned>, clock: impl Fn() -> Duration + Send + Sync + 'static) -> Self {
        let records = Mutex::new(Vec::with_capacity(256));
        Self { shared: Arc::new(Shared { messages, clock: Box::new(clock), records }), by: 0 }
    }

    /// The id of the message with this number.
    pub fn id(number: u32) -> MessageId {
        let mut bytes = [0x5a; 16];
        bytes[12..].copy_from_slice(&number.to_be_bytes());
        MessageId::from_bytes(bytes)
    }

    /// The same history, written by actor `by`.
    #[must_use]
    pub fn by(&self, by: u16) -> Self {
        Self { shared: Arc::clone(&self.shared), by }
    }

    /// Writes down what happened just now.
    pub fn note(&self, event: Event) {
        let at = (self.shared.clock)();
        self.records().push(Record { at, by: self.by, event });
    }

    /// How much is written.
    pub fn length(&self) -> u32 {
        u32::try_from(self.records().len()).unwrap_or(u32::MAX)
    }

    /// The number of the message with this id, if it is one of this history's.
    pub fn number(&self, id: MessageId) -> Option<u32> {
        let bytes = id.to_bytes();
        let number = u32::from_be_bytes([bytes[12], bytes[13], bytes[14], bytes[15]]);
        (Self::id(number) == id && (number as usize) < self.shared.messages.len()).then_some(number)
    }

    /// The messages, by number.
    pub fn messages(&self) -> &[Planned] {
        &self.shared.messages
    }

    /// Writes down that the broker took `message`.
    pub fn delivered(&self, message: &Message) {
        let number = self.number(message.id());
        let intact = number.is_some_and(|number| self.shared.messages[number as usize].message == *message);
        self.note(Event::Delivered { message: number, intact });
    }

    /// Takes out what is written.
    pub fn take(&self) -> Vec<Record> {
        std::mem::take(&mut self.records())
    }

    fn records(&self) -> MutexGuard<'_, Vec<Record>> {
        // Nothing panics under the lock.
        self.shared.records.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl fmt::Debug for Recorder {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(formatter, "Recorder({})", self.by)
    }
}

/// When a planned message was made. The producer's clock is information only.
pub(crate) const CREATED: Timestamp = Timestamp::from_millis(1_780_000_000_000);
