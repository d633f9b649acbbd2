//! For the tests of an application: which messages did a transaction leave behind?
//!
//! ```
//! # use pillarbox_core::Message;
//! # use pillarbox_memory::MemoryStorage;
//! use pillarbox_testkit::assertions::{Enqueued, Expected};
//!
//! # futures_executor::block_on(async {
//! # let storage = MemoryStorage::new();
//! let mut transaction = storage.transaction();
//! transaction.append(&[Message::to("orders.created").key("order-1").payload("{\"total\":12}")?])?;
//! transaction.commit();
//!
//! let enqueued = Enqueued::of(&storage).await?;
//! enqueued.assert_only(&[Expected::topic("orders.created").key("order-1").payload("{\"total\":12}")]);
//! # Ok::<_, Box<dyn std::error::Error>>(())
//! # }).unwrap();
//! ```

use pillarbox_core::{
    Cursor, Error, ErrorKind, Filter, ListState, Listing, Message, Storage, Stored, Text, Timestamp,
};
use std::fmt;

/// The messages that wait in an outbox, pending and scheduled. Reading them changes nothing and claims nothing.
#[derive(Clone, Debug)]
pub struct Enqueued {
    messages: Vec<Message>,
}

/// What a message should be. What is not given may be anything.
#[derive(Clone, Debug)]
pub struct Expected {
    topic: Text,
    key: Option<Option<Text>>,
    headers: Vec<(Text, Text)>,
    payload: Option<Vec<u8>>,
    deliver_at: Option<Timestamp>,
}

/// So many messages one page of a listing has.
const PAGE: u32 = 1_000;

impl Enqueued {
    /// Reads all messages that wait in `storage`, in the order in which the store lists them: within a key, the order of the
    /// commits. Run it without a relay beside it, since a claimed message waits no more.
    ///
    /// # Errors
    /// `Misconfigured` if the storage has no [`Admin`](pillarbox_core::Admin) to list them; otherwise the store's.
    pub async fn of(storage: &impl Storage) -> Result<Self, Error> {
        let admin = storage.admin().ok_or_else(|| {
            Error::new(ErrorKind::Misconfigured, "list")
                .describe("this storage lists no messages: its `Storage::admin` answers `None`")
                .not_applied()
        })?;
        let mut messages = Vec::new();
        for state in [ListState::Pending, ListState::Scheduled] {
            let mut cursor: Option<Cursor> = None;
            loop {
                let listing = Listing { state, filter: Filter::all(), cursor, limit: PAGE };
                let page = admin.list(listing).await?;
                messages.extend(page.messages.iter().filter_map(Stored::message).cloned());
                cursor = page.next;
                if cursor.is_none() {
                    break;
                }
            }
        }
        Ok(Self { messages })
    }

    /// The messages.
    pub fn messages(&self) -> &[Message] {
        &self.messages
    }

    /// A message that is as `expected`.
    ///
    /// # Panics
    /// If there is none. The text lists what is there, the nearest one first, with what differs.
    #[track_caller]
    pub fn assert_contains(&self, expected: &Expected) -> &Message {
        match self.messages.iter().find(|message| expected.differences(message).is_empty()) {
            Some(message) => message,
            None => panic!("no such message was enqueued\n{}", self.compared(expected)),
        }
    }

    /// Exactly these messages, each matched by another one, in any order between keys and in this order within a key. Each expectation
    /// takes the first message that it fits and that is left: name particular ones before general ones.
    ///
    /// # Panics
    /// If one is missing, one is too many, or a key is in another order.
    #[track_caller]
    pub fn assert_only(&self, expected: &[Expected]) {
        let mut left: Vec<&Message> = self.messages.iter().collect();
        for wanted in expected {
            let Some(place) = left.iter().position(|message| wanted.differences(message).is_empty()) else {
                panic!("a message is missing\n{}", self.compared(wanted));
            };
            let found = left.remove(place);
            let earlier =
                left[..place].iter().find(|other| other.key().is_some() && other.key() == found.key());
            if let Some(earlier) = earlier {
                panic!("{} comes before {}, which was expected first", Shown(earlier), Shown(found));
            }
        }
        assert!(left.is_empty(), "enqueued and not expected:{}", lines(&left));
    }

    /// No message at all: what a transaction that was rolled back leaves behind.
    ///
    /// # Panics
    /// If there is one.
    #[track_caller]
    pub fn assert_nothing(&self) {
        let all: Vec<_> = self.messages.iter().collect();
        assert!(all.is_empty(), "enqueued and not expected:{}", lines(&all));
    }

    fn compared(&self, expected: &Expected) -> String {
        let mut text = format!("  expected: {expected}");
        let mut nearest: Vec<_> =
            self.messages.iter().map(|message| (expected.differences(message), message)).collect();
        nearest.sort_by_key(|(differences, _)| differences.len());
        if nearest.is_empty() {
            text += "\n  there is nothing";
        }
        for (differences, message) in nearest.iter().take(10) {
            text += &format!("\n  there is: {}", Shown(message));
            if !differences.is_empty() {
                text += &format!("\n            {}", differences.join("; "));
            }
        }
        if nearest.len() > 10 {
            text += &format!("\n  and {} more", nearest.len() - 10);
        }
        text
    }
}

impl Expected {
    /// A message to `topic`.
    pub fn topic(topic: impl Into<Text>) -> Self {
        Self { topic: topic.into(), key: None, headers: Vec::new(), payload: None, deliver_at: None }
    }

    /// With this ordering key.
    #[must_use]
    pub fn key(mut self, key: impl Into<Text>) -> Self {
        self.key = Some(Some(key.into()));
        self
    }

    /// Without an ordering key.
    #[must_use]
    pub fn no_key(mut self) -> Self {
        self.key = Some(None);
        self
    }

    /// With this header, beside any others.
    #[must_use]
    pub fn header(mut self, name: impl Into<Text>, value: impl Into<Text>) -> Self {
        self.headers.push((name.into(), value.into()));
        self
    }

    /// With exactly these bytes of payload.
    #[must_use]
    pub fn payload(mut self, payload: impl AsRef<[u8]>) -> Self {
        self.payload = Some(payload.as_ref().to_vec());
        self
    }

    /// Not to be delivered before this time.
    #[must_use]
    pub fn deliver_at(mut self, time: Timestamp) -> Self {
        self.deliver_at = Some(time);
        self
    }

    fn differences(&self, message: &Message) -> Vec<String> {
        let mut differences = Vec::new();
        if *message.topic() != self.topic {
            differences.push(format!("the topic is {:?}", &**message.topic()));
        }
        if self.key.as_ref().is_some_and(|key| key.as_ref() != message.key()) {
            differences.push(match message.key() {
                Some(key) => format!("the key is {:?}", &**key),
                None => "it has no key".to_owned(),
            });
        }
        for (name, value) in &self.headers {
            match message.headers().iter().find(|(other, _)| *other == name) {
                Some((_, found)) if found == value => {}
                Some((_, found)) => differences.push(format!("the header {:?} is {found:?}", &**name)),
                None => differences.push(format!("it has no header {:?}", &**name)),
            }
        }
        if self.payload.as_ref().is_some_and(|payload| *payload != **message.payload()) {
            differences.push(format!("the payload is {}", shown_bytes(message.payload())));
        }
        if self.deliver_at.is_some_and(|time| message.deliver_at() != Some(time)) {
            differences.push(match message.deliver_at() {
                Some(time) => format!("it is to be delivered at {time:?}"),
                None => "it is to be delivered at once".to_owned(),
            });
        }
        differences
    }
}

impl fmt::Display for Expected {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(formatter, "to {:?}", &*self.topic)?;
        match &self.key {
            Some(Some(key)) => write!(formatter, ", key {:?}", &**key)?,
            Some(None) => write!(formatter, ", no key")?,
            None => {}
        }
        for (name, value) in &self.headers {
            write!(formatter, ", header {:?}: {:?}", &**name, &**value)?;
        }
        if let Some(payload) = &self.payload {
            write!(formatter, ", payload {}", shown_bytes(payload))?;
        }
        self.deliver_at.iter().try_for_each(|time| write!(formatter, ", at {time:?}"))
    }
}

/// A message in a line.
struct Shown<'a>(&'a Message);

impl fmt::Display for Shown<'_> {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        let message = self.0;
        write!(formatter, "to {:?}", &**message.topic())?;
        message.key().iter().try_for_each(|key| write!(formatter, ", key {:?}", &***key))?;
        write!(formatter, ", payload {}", shown_bytes(message.payload()))
    }
}

fn lines(messages: &[&Message]) -> String {
    messages.iter().map(|message| format!("\n  {}", Shown(message))).collect()
}

/// Text as text, anything else as its length; never more than a line.
fn shown_bytes(bytes: &[u8]) -> String {
    match std::str::from_utf8(bytes) {
        Ok(text) if text.len() <= 200 => format!("{text:?}"),
        _ => format!("of {} bytes", bytes.len()),
    }
}
