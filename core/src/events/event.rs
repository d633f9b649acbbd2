use super::publisher::{EventPublisher, PublishError};
use crate::Text;
use serde::Serialize;
use std::future::Future;

/// The header with the event's [`TOPIC`](Event::TOPIC): its name, whatever the topic of the message is.
pub const NAME_HEADER: &str = "event-name";
/// The header with the event's [`VERSION`](Event::VERSION), decimal.
pub const VERSION_HEADER: &str = "event-version";

/// Something that has happened, on the user's own serde type. Its JSON is the payload.
pub trait Event: Serialize + Send + Sync + 'static {
    /// Where it goes: [`Domain`] or [`Integration`].
    type Route: Route;

    /// The name of the event, and the topic it is published to unless [`topic`](Self::topic) says otherwise. 1 to 255 bytes.
    const TOPIC: &'static str;

    /// The version of the payload's form, for consumers. Default 1; raise it when an old consumer would misread the new form.
    const VERSION: u32 = 1;

    /// Where this one is published to. Default: [`TOPIC`](Self::TOPIC).
    fn topic(&self) -> Text {
        Text::from_static(Self::TOPIC)
    }

    /// The ordering key, most often the id of the aggregate: events of one key arrive in order. Default: none, no order.
    fn key(&self) -> Option<Text> {
        None
    }
}

/// The route of events that stay in the process: handlers get them, in the caller's transaction. They are never stored.
#[derive(Clone, Copy, Debug)]
pub enum Domain {}

/// The route of events for other services: they go to the [`EventBus`](super::EventBus), which is the outbox as a rule.
#[derive(Clone, Copy, Debug)]
pub enum Integration {}

/// Where an event goes. Two types have it, [`Domain`] and [`Integration`], and no others can.
pub trait Route: sealed::Sealed {
    /// Sends `event` on this route. Call [`EventPublisher::publish`], which calls this.
    ///
    /// # Errors
    /// As `EventPublisher::publish`.
    #[doc(hidden)]
    fn publish<Tx: Send + 'static, E: Event>(
        publisher: &EventPublisher<Tx>,
        transaction: &mut Tx,
        event: &E,
    ) -> impl Future<Output = Result<(), PublishError>> + Send;
}

impl Route for Domain {
    async fn publish<Tx: Send + 'static, E: Event>(
        publisher: &EventPublisher<Tx>,
        transaction: &mut Tx,
        event: &E,
    ) -> Result<(), PublishError> {
        publisher.handle(transaction, event).await
    }
}

impl Route for Integration {
    async fn publish<Tx: Send + 'static, E: Event>(
        publisher: &EventPublisher<Tx>,
        transaction: &mut Tx,
        event: &E,
    ) -> Result<(), PublishError> {
        publisher.send(transaction, event).await
    }
}

mod sealed {
    pub trait Sealed {}
    impl Sealed for super::Domain {}
    impl Sealed for super::Integration {}
}
