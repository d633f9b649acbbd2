use crate::SqlStorage;
use crate::dialect::Dialect;
use pillarbox_core::{Error, OpenedStorage, StorageDriver};

async fn open<D: Dialect>(url: &str) -> Result<OpenedStorage, Error> {
    Ok(OpenedStorage::new(SqlStorage::<D>::open(url).await?))
}

/// The options that all databases share, for people.
macro_rules! description {
    ($form:literal) => {
        concat!(
            $form,
            "
  outbox.name             its name, which its tables begin with; default pillarbox
  outbox.head_policy      what a dead head of a key does: continue (default) or block; stored with the outbox
  outbox.max_strikes      how many dead relays bury a message; default 3, stored with the outbox
  outbox.max_payload      the largest payload in bytes; default 1048576, stored with the outbox
  outbox.keep_published   whether published messages are kept until they are purged; default false, stored with the outbox
  outbox.max_connections  how many connections are opened at most; default 8
  outbox.connect_timeout  how long a call waits for a connection; default 10s
  outbox.response_timeout how long one transaction may take; default 20s
  outbox.notify           whether a commit wakes waiting relays: true (default) or false"
        )
    };
}

/// Opens outboxes in SQLite by URL, with the options of [`SqlConfig`](crate::SqlConfig).
#[cfg(feature = "sqlite")]
pub const SQLITE: StorageDriver = StorageDriver {
    schemes: <sqlx::Sqlite as Dialect>::SCHEMES,
    description: description!("An outbox in SQLite: sqlite://folder/file.db?mode=rwc&outbox.name=orders"),
    open: |url| Box::pin(open::<sqlx::Sqlite>(url)),
};

/// Opens outboxes in PostgreSQL by URL, with the options of [`SqlConfig`](crate::SqlConfig).
#[cfg(feature = "postgres")]
pub const POSTGRES: StorageDriver = StorageDriver {
    schemes: <sqlx::Postgres as Dialect>::SCHEMES,
    description: description!(
        "An outbox in PostgreSQL: postgres://user:password@host:5432/database?outbox.name=orders
  outbox.transaction_pooler  true behind a pooler in transaction mode, such as PgBouncer; default false
  outbox.published_partitions  keeps published messages in partitions of this time, such as 24h, which a purge drops; default none
  outbox.layout           spakky, for the table of that framework; with outbox.claim_timeout and outbox.max_retries as there"
    ),
    open: |url| {
        Box::pin(async move {
            if crate::SpakkyStorage::is_meant(url) {
                return Ok(OpenedStorage::new(crate::SpakkyStorage::open(url).await?));
            }
            open::<sqlx::Postgres>(url).await
        })
    },
};

/// Opens outboxes in MySQL and MariaDB by URL, with the options of [`SqlConfig`](crate::SqlConfig).
#[cfg(feature = "mysql")]
pub const MYSQL: StorageDriver = StorageDriver {
    schemes: <sqlx::MySql as Dialect>::SCHEMES,
    description: description!(
        "An outbox in MySQL or MariaDB: mysql://user:password@host:3306/database?outbox.name=orders"
    ),
    open: |url| Box::pin(open::<sqlx::MySql>(url)),
};
