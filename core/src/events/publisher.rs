use super::bus::EventBus;
use super::event::{Event, NAME_HEADER, Route, VERSION_HEADER};
use super::handler::{ErasedHandler, Handler, HandlerError};
use crate::{Error, InvalidMessage, Message, MessageId, Text, Timestamp, TraceSource};
use std::any::{Any, TypeId};
use std::collections::HashMap;
use std::fmt;
use std::sync::Arc;

/// Publishes events within the caller's transaction `Tx`: domain events to handlers, integration events to a bus.
///
/// Made once, when the program starts, and shared from then on.
pub struct EventPublisher<Tx> {
    bus: Arc<dyn EventBus<Tx>>,
    stamp: Box<dyn Fn() -> (MessageId, Timestamp) + Send + Sync>,
    trace: Option<Box<dyn TraceSource>>,
    /// For each type of event a `Handlers<E, Tx>`.
    handlers: HashMap<TypeId, Box<dyn Any + Send + Sync>>,
}

type Handlers<E, Tx> = Vec<Box<dyn ErasedHandler<E, Tx>>>;

impl<Tx: Send + 'static> EventPublisher<Tx> {
    /// A publisher to `bus` whose messages get their ids and times from the system. Needs the feature `clock`.
    #[cfg(feature = "clock")]
    pub fn new(bus: impl EventBus<Tx> + 'static) -> Self {
        Self::with_stamps(bus, || (MessageId::generate(), Timestamp::now()))
    }

    /// A publisher to `bus` whose messages get their ids and times of creation from `stamp`, which must never repeat an id.
    pub fn with_stamps(
        bus: impl EventBus<Tx> + 'static,
        stamp: impl Fn() -> (MessageId, Timestamp) + Send + Sync + 'static,
    ) -> Self {
        Self { bus: Arc::new(bus), stamp: Box::new(stamp), trace: None, handlers: HashMap::new() }
    }

    /// Writes the trace that `source` tells into the headers of every message. Default: none.
    #[must_use]
    pub fn trace(mut self, source: impl TraceSource + 'static) -> Self {
        self.trace = Some(Box::new(source));
        self
    }

    /// Adds a handler of the domain event `E`. Handlers run one after another, in the order in which they were added.
    #[must_use]
    pub fn on<E: Event<Route = super::Domain>>(mut self, handler: impl Handler<E, Tx> + 'static) -> Self {
        let handlers = self
            .handlers
            .entry(TypeId::of::<E>())
            .or_insert_with(|| Box::new(Handlers::<E, Tx>::new()))
            .downcast_mut::<Handlers<E, Tx>>();
        if let Some(handlers) = handlers {
            handlers.push(Box::new(handler));
        }
        self
    }

    /// Publishes `event` within `transaction`, on its [`Route`](Event::Route): a domain event to every handler of its type, and
    /// none is no error; an integration event to the bus.
    ///
    /// # Errors
    /// [`PublishError`]: the first handler that fails ends it, and so does a bus that does not take the event. Nothing is
    /// swallowed: roll the transaction back.
    ///
    /// # Cancel safety
    /// After the future was dropped a part may be done in the transaction: roll it back.
    pub async fn publish<E: Event>(&self, transaction: &mut Tx, event: &E) -> Result<(), PublishError> {
        <E::Route as Route>::publish(self, transaction, event).await
    }

    /// The message that an event becomes, with the current trace.
    ///
    /// # Errors
    /// [`PublishError::Encode`] or [`PublishError::Invalid`].
    pub fn message<E: Event>(&self, event: &E) -> Result<Message, PublishError> {
        let payload =
            serde_json::to_vec(event).map_err(|source| PublishError::Encode { event: E::TOPIC, source })?;
        let (id, created_at) = (self.stamp)();
        let mut headers = crate::Headers::new();
        headers.insert(Text::from_static(NAME_HEADER), Text::from_static(E::TOPIC));
        headers.insert(Text::from_static(VERSION_HEADER), E::VERSION.to_string());
        if let Some(context) = self.trace.as_ref().and_then(|source| source.current()) {
            context.write_to(&mut headers);
        }
        let mut builder = Message::given(id, created_at, event.topic())
            .headers(headers)
            .limits(crate::Limits::highest())
            .content_type(Text::from_static("application/json"));
        if let Some(key) = event.key() {
            builder = builder.key(key);
        }
        builder.payload(payload).map_err(|source| PublishError::Invalid { event: E::TOPIC, source })
    }

    pub(super) async fn handle<E: Event>(&self, transaction: &mut Tx, event: &E) -> Result<(), PublishError> {
        let handlers = self.handlers.get(&TypeId::of::<E>());
        let Some(handlers) = handlers.and_then(|any| any.downcast_ref::<Handlers<E, Tx>>()) else {
            return Ok(());
        };
        for handler in handlers {
            handler
                .handle(event, transaction)
                .await
                .map_err(|source| PublishError::Handler { event: E::TOPIC, source })?;
        }
        Ok(())
    }

    pub(super) async fn send<E: Event>(&self, transaction: &mut Tx, event: &E) -> Result<(), PublishError> {
        let message = self.message(event)?;
        self.bus.publish(transaction, std::slice::from_ref(&message)).await.map_err(PublishError::Bus)
    }
}

impl<Tx> fmt::Debug for EventPublisher<Tx> {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter
            .debug_struct("EventPublisher")
            .field("handled_types", &self.handlers.len())
            .finish_non_exhaustive()
    }
}

/// Why an event was not published. The transaction it belonged to must be rolled back.
#[derive(Debug)]
#[non_exhaustive]
pub enum PublishError {
    /// A handler failed.
    Handler {
        /// The event's name.
        event: &'static str,
        /// The handler's own error.
        source: HandlerError,
    },
    /// The event could not be written as JSON.
    Encode {
        /// The event's name.
        event: &'static str,
        /// The serializer's error.
        source: serde_json::Error,
    },
    /// Topic, key or payload are over a limit.
    Invalid {
        /// The event's name.
        event: &'static str,
        /// The limit.
        source: InvalidMessage,
    },
    /// The bus did not take the message.
    Bus(Error),
}

impl fmt::Display for PublishError {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Handler { event, .. } => write!(formatter, "a handler of the event `{event}` failed"),
            Self::Encode { event, .. } => {
                write!(formatter, "the event `{event}` could not be written as JSON")
            }
            Self::Invalid { event, .. } => write!(formatter, "the event `{event}` makes no valid message"),
            Self::Bus(_) => formatter.write_str("the event bus did not take the event"),
        }
    }
}

impl std::error::Error for PublishError {
    fn source(&self) -> Option<&(dyn std::error::Error + 'static)> {
        match self {
            Self::Handler { source, .. } => Some(source.as_ref()),
            Self::Encode { source, .. } => Some(source),
            Self::Invalid { source, .. } => Some(source),
            Self::Bus(source) => Some(source),
        }
    }
}
