//! Typed events on the user's own serde types. A domain event goes to handlers in the process, an integration event to the
//! outbox; both belong to the caller's transaction.
//!
//! ```
//! use pillarbox_core::events::{Event, Integration};
//! use pillarbox_core::Text;
//!
//! #[derive(serde::Serialize)]
//! struct OrderCreated {
//!     order: String,
//!     total: u32,
//! }
//!
//! impl Event for OrderCreated {
//!     type Route = Integration;
//!     const TOPIC: &'static str = "orders.created";
//!
//!     fn key(&self) -> Option<Text> {
//!         Some(self.order.clone().into())
//!     }
//! }
//! ```

mod bus;
mod event;
mod handler;
mod publisher;

pub use bus::{DirectEventBus, EventBus, OutboxEventBus};
pub use event::{Domain, Event, Integration, NAME_HEADER, Route, VERSION_HEADER};
pub use handler::{Handler, HandlerError};
pub use publisher::{EventPublisher, PublishError};
