//! The MongoDB storage of the Pillarbox outbox: hashed lanes, each leased by a document, and settled by one deletion for many.
//!
//! ```no_run
//! # async fn example() -> Result<(), Box<dyn std::error::Error>> {
//! use mongodb::bson::doc;
//! use pillarbox_core::{Enqueue as _, Message, MessageId, Timestamp};
//! use pillarbox_mongodb::MongoStorage;
//!
//! let outbox = MongoStorage::open("mongodb://localhost/shop?replicaSet=rs0&outbox.name=orders").await?;
//! # let client = mongodb::Client::with_uri_str("mongodb://localhost/?replicaSet=rs0").await?;
//! # let message = Message::given(MessageId::from_bytes([7; 16]), Timestamp::EPOCH, "orders.created").payload("{}")?;
//! // The application's own transaction: business data and messages, both or neither.
//! let mut session = client.start_session().await?;
//! session.start_transaction().await?;
//! let orders = client.database("shop").collection("orders");
//! orders.insert_one(doc! { "_id": 1, "state": "created" }).session(&mut session).await?;
//! outbox.enqueue(&mut session, &[message]).await?;
//! session.commit_transaction().await?;
//! # Ok(())
//! # }
//! ```
//!
//! # How it works
//!
//! A message is a document in one of the outbox's lanes, chosen by the hash of its ordering key; the server numbers it when it is
//! inserted. A claim reads, in one snapshot of what the majority has, the leases of all lanes and the first messages of some that are
//! free, and takes those lanes by one command, of each only if it has not changed since. Claims of one handle
//! choose one after another, and none the lanes that another is just taking; so give the relays of a process clones of one handle.
//!
//! Runs that are published as a whole are settled together, without a transaction: one command notes in their lanes' documents, matched by
//! the tokens, that they are published; once the majority has that, their messages are deleted, and then the lanes are free. Whatever cuts
//! that off, the note has decided: a repetition goes on with it, or the claim that finds the lane when `outbox.response_timeout` is over, or its
//! lease. Any other
//! settlement is one transaction: it writes to the lane's document, matched by the token, and so meets whoever else wants the lane,
//! and it deletes or changes the messages of the run. A settlement runs on a task of its own, so
//! that it ends although its caller drops it. A key whose head waits is *parked*, and its later messages wait
//! behind it, in order, while the other keys of its lane go on. [`layout`] documents collections
//! and fields, so that a program in another language can enqueue.
//!
//! # What it promises
//!
//! [`Order::InsertOrdered`](pillarbox_core::Order): of two concurrent transactions on one key the one that enqueued first comes first, also if
//! it commits last. Update the aggregate first, then enqueue: the update makes the other transaction wait or fail. A message with a
//! time to be delivered at joins its key at the first claim after it is due.
//! [`RepeatedIds::SecondCopy`](pillarbox_core::RepeatedIds): an id that is enqueued twice is delivered twice.
//!
//! Claims and settlements are acknowledged by the majority, and so survive a failover. So do messages whose transaction was
//! committed with the write concern `majority`, which is the server's default; with `w: 1` a failover may lose them.
//!
//! # Without transactions
//!
//! A change of one document is atomic, so an application that has no transactions can keep new messages in the aggregate's own
//! document, and have them moved later: see [`MongoStorage::adopt`].
//!
//! # A lane is held as a whole
//!
//! While one relay holds a run of a lane, the messages behind it wait, also those of other keys; so they do while a run was handed back
//! with a delay. More lanes mean less waiting for others: see [`MongoConfig::lanes`].
//!
//! # When a relay is killed
//!
//! Its lanes are taken by others when their leases have run out. A transaction that a lost connection has left open is ended by the same
//! relay's next one. A lane whose run a killed relay was just settling message by message may have to wait for longer: the server
//! gives up a transaction that nobody ends only after `transactionLifetimeLimitSeconds`, a minute by default. Set it to the length of a
//! lease, or below, where that is too long. The other lanes go on meanwhile, and nothing is lost.
//!
//! # Clocks
//!
//! Leases and due times go by the wall clock of the primary, `$$NOW`; order does not: the server's own logical time numbers messages, and
//! that never goes back, also not in a failover. Where the clock steps forward, or the next primary's is ahead, leases end early: another relay may send
//! a message again, and the first one's settlement is fenced. Where it steps back, leases and delays last for longer by that much.
//! Keep the clocks of the set's members together, as MongoDB's own documentation asks for.
//!
//! **Architecture invariant:** no index here ever expires a document, no relay's clock decides anything, and a claim reads a number of
//! messages that is bounded by its limit.

mod admin;
mod adopt;
mod assemble;
mod checks;
mod claim;
mod config;
mod dead;
mod driver;
mod enqueue;
mod error;
mod gather;
mod lanes;
pub mod layout;
mod moves;
mod publish;
mod questions;
mod reap;
mod runs;
mod schema;
mod settings;
mod settle;
mod solo;
mod storage;
mod take;
mod transaction;
mod turns;
mod url;
mod verdicts;
mod wakeup;
mod write;

pub use config::MongoConfig;
pub use driver::DRIVER;
pub use storage::MongoStorage;
