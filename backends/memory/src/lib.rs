//! The in-memory storage of the Pillarbox outbox: the reference backend.
