//! The Redis storage of the Pillarbox outbox.
