//! Peers on PostgreSQL.

mod original;
mod outbox_postgres;

pub(crate) use original::Original;
pub(crate) use outbox_postgres::OutboxPostgres;
