use crate::{BoxError, Subject};
use pillarbox_core::{Enqueue as _, Message};
use pillarbox_sql::{Dialect, SqlConfig, SqlStorage};
use pillarbox_testkit::servers::{MariaDbServer, PostgresServer, ServerFolder};
use sqlx::pool::PoolConnection;
use sqlx::{MySql, Postgres, Sqlite};
use std::sync::atomic::{AtomicI64, Ordering};

/// The bytes of a message in the floor's table.
const FLOOR_BYTES: usize = 362;

/// Measures a storage in a SQL database, on a server or a file of its own.
#[derive(Debug)]
pub struct SqlBench<D: Dialect, Place> {
    name: &'static str,
    outbox: SqlStorage<D>,
    statements: Statements,
    /// The number of the next row of the floor.
    floor: AtomicI64,
    place: Place,
}

/// What each database says in its own words.
#[derive(Clone, Copy, Debug)]
struct Statements {
    /// Takes so many rows from the front of the floor's table.
    take: &'static str,
    /// Empties a table, and leaves nothing of its rows behind.
    empty: &'static str,
    /// Tells the bytes of the table of messages with its indexes.
    bytes: &'static str,
}

/// Where a database is.
pub trait Place {
    /// The process of its server, if there is one.
    fn process_id(&self) -> Option<u32>;
    /// What a client opens.
    fn url(&self) -> String;
}

impl Place for ServerFolder {
    fn process_id(&self) -> Option<u32> {
        None
    }

    fn url(&self) -> String {
        format!("sqlite://{}?mode=rwc", self.path().join("bench.db").display())
    }
}

impl Place for PostgresServer {
    fn process_id(&self) -> Option<u32> {
        self.process().process_id()
    }

    fn url(&self) -> String {
        Self::url(self)
    }
}

impl Place for MariaDbServer {
    fn process_id(&self) -> Option<u32> {
        self.process().process_id()
    }

    fn url(&self) -> String {
        Self::url(self)
    }
}

impl SqlBench<Sqlite, ServerFolder> {
    /// Makes the file, in the folder for temporary files.
    ///
    /// # Errors
    /// If it cannot be made.
    pub async fn sqlite() -> Result<Self, BoxError> {
        let folder = ServerFolder::create("sqlite")?;
        let statements = Statements {
            take: "DELETE FROM floor WHERE id IN (SELECT id FROM floor ORDER BY id LIMIT $1) RETURNING *",
            empty: "DELETE FROM",
            bytes: "SELECT (page_count - freelist_count) * page_size \
                    FROM pragma_page_count, pragma_freelist_count, pragma_page_size",
        };
        Self::open("sqlite", statements, folder).await
    }
}

impl SqlBench<Postgres, PostgresServer> {
    /// Starts the server.
    ///
    /// # Errors
    /// If it does not start.
    pub async fn postgres() -> Result<Self, BoxError> {
        let server = PostgresServer::start()?;
        let statements = Statements {
            take: "DELETE FROM floor WHERE id IN (SELECT id FROM floor ORDER BY id LIMIT $1 FOR UPDATE SKIP LOCKED) \
                   RETURNING *",
            empty: "TRUNCATE",
            bytes: "SELECT pg_total_relation_size('pillarbox_message')",
        };
        Self::open("postgres", statements, server).await
    }
}

impl SqlBench<MySql, MariaDbServer> {
    /// Starts the server.
    ///
    /// # Errors
    /// If it does not start.
    pub async fn mariadb() -> Result<Self, BoxError> {
        let server = MariaDbServer::start()?;
        let statements = Statements {
            take: "DELETE FROM floor ORDER BY id LIMIT ? RETURNING *",
            empty: "TRUNCATE TABLE",
            bytes: "SELECT CAST(file_size AS SIGNED) FROM information_schema.innodb_sys_tablespaces \
                    WHERE name LIKE '%/pillarbox_message'",
        };
        Self::open("mariadb", statements, server).await
    }
}

impl<D: Dialect, P: Place> SqlBench<D, P> {
    async fn open(name: &'static str, statements: Statements, place: P) -> Result<Self, BoxError> {
        let config = SqlConfig::<D>::from_url(&place.url())?;
        SqlStorage::migrate(&config).await?;
        let outbox = SqlStorage::connect(config).await?;
        let blob = if D::NUMBERED { "bytea" } else { "blob" };
        let mut connection = outbox.pool().acquire().await?;
        for table in [
            format!("CREATE TABLE floor (id BIGINT PRIMARY KEY, payload {blob} NOT NULL)"),
            "CREATE TABLE business (id CHAR(36) PRIMARY KEY, state VARCHAR(20) NOT NULL)".to_owned(),
        ] {
            D::script(&mut connection, table).await?;
        }
        drop(connection);
        Ok(Self { name, outbox, statements, floor: AtomicI64::new(1), place })
    }

    /// What a client opens.
    pub fn url(&self) -> String {
        self.place.url()
    }

    async fn connection(&self) -> Result<PoolConnection<D>, BoxError> {
        Ok(self.outbox.pool().acquire().await?)
    }

    /// Rows of the floor's table, as they stand in an `INSERT`.
    fn floor_rows(&self, count: usize) -> String {
        let body = "ab".repeat(FLOOR_BYTES);
        let body = if D::NUMBERED { format!("'\\x{body}'") } else { format!("x'{body}'") };
        let first = self.floor.fetch_add(i64::try_from(count).unwrap_or(i64::MAX), Ordering::Relaxed);
        let rows: Vec<String> = (first..).take(count).map(|number| format!("({number},{body})")).collect();
        rows.join(",")
    }

    async fn insert_business(
        &self,
        connection: &mut D::Connection,
        message: &Message,
    ) -> Result<(), BoxError> {
        let id = message.id();
        let statement = format!("INSERT INTO business VALUES ('{id}', 'created')");
        Ok(D::script(connection, statement).await?)
    }
}

impl<D: Dialect, P: Place> Subject for SqlBench<D, P> {
    type Storage = SqlStorage<D>;

    fn name(&self) -> &'static str {
        self.name
    }

    fn storage(&self) -> &SqlStorage<D> {
        &self.outbox
    }

    fn server(&self) -> Option<u32> {
        self.place.process_id()
    }

    async fn clear(&mut self) -> Result<(), BoxError> {
        let mut connection = self.connection().await?;
        for table in ["floor", "business", "pillarbox_message"] {
            D::script(&mut connection, format!("{} {table}", self.statements.empty)).await?;
        }
        Ok(())
    }

    async fn stored_bytes(&self) -> Result<u64, BoxError> {
        let mut connection = self.connection().await?;
        let rows = D::query(&mut connection, self.statements.bytes.to_owned(), Vec::new(), false).await?;
        let row = rows.first().ok_or("the database does not tell its size")?;
        Ok(u64::try_from(D::int(row, 0)?.unwrap_or_default())?)
    }

    async fn enqueue(&self, batch: &[Message]) -> Result<(), BoxError> {
        Ok(self.outbox.enqueue_alone(batch).await?)
    }

    async fn enqueue_with_business(&self, message: &Message) -> Result<(), BoxError> {
        let mut transaction = self.outbox.pool().begin().await?;
        self.insert_business(&mut transaction, message).await?;
        self.outbox.enqueue(&mut transaction, std::slice::from_ref(message)).await?;
        Ok(transaction.commit().await?)
    }

    const INSERT_FLOOR: &'static str = "insert";

    async fn insert_floor(&self, batch: &[Message]) -> Result<(), BoxError> {
        let mut connection = self.connection().await?;
        let rows = self.floor_rows(batch.len());
        Ok(D::script(&mut connection, format!("INSERT INTO floor VALUES {rows}")).await?)
    }

    async fn insert_floor_with_business(&self, message: &Message) -> Result<(), BoxError> {
        let mut transaction = self.outbox.pool().begin().await?;
        self.insert_business(&mut transaction, message).await?;
        let rows = self.floor_rows(1);
        D::script(&mut transaction, format!("INSERT INTO floor VALUES {rows}")).await?;
        Ok(transaction.commit().await?)
    }

    const DRAIN_FLOOR: &'static str = "delete-returning";

    async fn drain_floor(&self, batch: u32) -> Result<u32, BoxError> {
        let mut connection = self.connection().await?;
        let mut taken = 0;
        loop {
            let arguments = vec![pillarbox_sql::Argument::Int(i64::from(batch))];
            let rows = D::query(&mut connection, self.statements.take.to_owned(), arguments, true).await?;
            if rows.is_empty() {
                return Ok(taken);
            }
            taken += u32::try_from(rows.len())?;
        }
    }
}
