//! The core of the Pillarbox outbox.
//!
//! An application writes its business data and its messages in one transaction of its own database; a relay claims the
//! messages from the [`Storage`], publishes them to a [`Transport`] and settles them: at least once, in order per key,
//! with any number of relays side by side. The [architecture](docs::architecture) tells how, and its numbered rules are
//! what every storage and relay is tested against.
//!
//! **Architecture invariant:** nothing here knows a runtime, a clock, a network or a client library. Time comes from the
//! store ([`Timestamp`]) and from the relay's [`Timer`] ([`Moment`]), randomness from an injected source.

pub mod docs;

mod admin;
mod backoff;
mod cloudevents;
mod enqueue;
mod erased;
mod error;
#[cfg(feature = "events")]
pub mod events;
mod message;
mod options;
mod records;
mod registry;
mod relay;
mod state;
mod storage;
mod time;
mod timer;
mod trace;
mod transport;
mod wakeup;

pub use admin::{Admin, Affected, Cursor, Filter, ListState, Listing, Page, Stats, Stored};
pub use backoff::Backoff;
pub use cloudevents::CloudEvents;
pub use enqueue::{Enqueue, EnqueueAlone};
pub use erased::{AnyStorage, AnyTransport};
pub use error::{Effect, Error, ErrorKind};
pub use futures_util::future::BoxFuture;
pub use message::{Headers, InvalidMessage, Limits, Message, MessageBuilder, MessageId, Text};
pub use options::{UrlOptions, nearest, parse_duration};
pub use records::{Change, Due, Loaded, RecordStorage, Records, StoredRecord};
pub use registry::{OpenedStorage, Registry, StorageDriver, TransportDriver};
pub use relay::{DEFAULT_PREFIX, Observation, Observer, Relay, RelayConfig, Silent, machine};
pub use state::{Command, Lease, Record, Rejected, State, Transition, step};
pub use storage::{
    Claim, Claimed, Content, Entry, HeadPolicy, Nonce, Order, Outcome, Renewed, RepeatedIds, Run, Settled,
    Settlement, Settlements, Storage, StorageGuarantees, Token, Undecodable, Verdict, check_verdicts,
};
#[cfg(feature = "test-clock")]
pub use time::TestClock;
pub use time::{Moment, Timestamp};
pub use timer::Timer;
pub use trace::{InvalidTraceContext, TRACEPARENT, TRACESTATE, TraceContext, TraceSource};
pub use transport::{Destination, Outcomes, Routes, TopicPattern, Transport, TransportGuarantees};
pub use wakeup::{Hints, Wakeup};
