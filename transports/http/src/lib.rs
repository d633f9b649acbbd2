//! The HTTP transport of the Pillarbox outbox, on [`reqwest`]: one `POST` per message, for webhooks.
//!
//! Each request is a [CloudEvent](pillarbox_core::CloudEvents) in binary mode: attributes in `ce-` headers, the content type in
//! `Content-Type`, the payload as the body. A message's other headers travel behind [`HEADER_PREFIX`]. With a
//! [secret](HttpConfig::secret) it is signed as [Standard Webhooks](https://www.standardwebhooks.com) says, so that receivers verify it
//! with any library for that: the signature covers the id, the time of sending and the body, not the other headers.
//!
//! ```no_run
//! # async fn open() -> Result<(), pillarbox_core::Error> {
//! use pillarbox_http::HttpTransport;
//!
//! let transport = HttpTransport::open("https://hooks.example/orders?transport.source=/shop").await?;
//! # Ok(())
//! # }
//! ```
//!
//! # Order
//!
//! Messages of different keys are sent side by side, and of one key one after the other: the next one leaves only when the one
//! before was answered with success.
//!
//! # Safety of the network
//!
//! URLs often come from customers. So redirects are not followed, proxies of the environment are not used, and addresses within
//! private networks are [refused](HttpConfig::allow_private): the address that a name resolves to is checked and is the very one that
//! is connected to, so that a name which changes its address in between gains nothing. Answers are read up to a limit of size and time.
//!
//! **Architecture invariant:** nothing is published by a background task, and no request is repeated by the client once a byte of it was
//! written: only the relay decides to send again.

mod address;
mod config;
mod connection;
mod driver;
mod error;
mod flight;
mod judge;
mod properties;
mod signature;
mod transport;

pub use config::HttpConfig;
pub use driver::DRIVER;
pub use properties::HEADER_PREFIX;
pub use transport::HttpTransport;
