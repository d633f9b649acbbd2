use crate::row::{hundredths, per_second};
use crate::{BoxError, Keys, Row, Work, drain};
use futures_util::future::try_join_all;
use pillarbox_core::Message;
use pillarbox_sql::{Dialect, SqlConfig, SqlStorage};
use pillarbox_testkit::servers::{MariaDbServer, PostgresServer, ServerFolder};
use sqlx::{MySql, Postgres, Sqlite};
use std::time::{Duration, Instant};

/// The bytes of a message in the floor's table.
const FLOOR_BYTES: usize = 362;

/// Measures a storage in a SQL database, on a server or a file of its own.
#[derive(Debug)]
pub struct SqlBench<D: Dialect, Place> {
    name: &'static str,
    outbox: SqlStorage<D>,
    /// Takes so many rows from the front of the floor's table.
    take: &'static str,
    messages: u32,
    batch: u32,
    _place: Place,
}

impl SqlBench<Sqlite, ServerFolder> {
    /// Makes the file, in the folder for temporary files.
    ///
    /// # Errors
    /// If it cannot be made.
    pub async fn sqlite(messages: u32, batch: u32) -> Result<Self, BoxError> {
        let folder = ServerFolder::create("sqlite")?;
        let url = format!("sqlite://{}?mode=rwc", folder.path().join("bench.db").display());
        let take =
            "DELETE FROM floor WHERE id IN (SELECT id FROM floor ORDER BY id LIMIT $1) RETURNING payload";
        Self::open("sqlite", &url, take, folder, messages, batch).await
    }
}

impl SqlBench<Postgres, PostgresServer> {
    /// Starts the server.
    ///
    /// # Errors
    /// If it does not start.
    pub async fn postgres(messages: u32, batch: u32) -> Result<Self, BoxError> {
        let server = PostgresServer::start()?;
        let take = "DELETE FROM floor WHERE id IN (SELECT id FROM floor ORDER BY id LIMIT $1 FOR UPDATE SKIP LOCKED) RETURNING payload";
        Self::open("postgres", &server.url(), take, server, messages, batch).await
    }
}

impl SqlBench<MySql, MariaDbServer> {
    /// Starts the server.
    ///
    /// # Errors
    /// If it does not start.
    pub async fn mariadb(messages: u32, batch: u32) -> Result<Self, BoxError> {
        let server = MariaDbServer::start()?;
        let take = "DELETE FROM floor ORDER BY id LIMIT ? RETURNING payload";
        Self::open("mariadb", &server.url(), take, server, messages, batch).await
    }
}

impl<D: Dialect, Place> SqlBench<D, Place> {
    async fn open(
        name: &'static str,
        url: &str,
        take: &'static str,
        place: Place,
        messages: u32,
        batch: u32,
    ) -> Result<Self, BoxError> {
        let config = SqlConfig::<D>::from_url(url)?;
        SqlStorage::migrate(&config).await?;
        let outbox = SqlStorage::connect(config).await?;
        let blob = if D::NUMBERED { "bytea" } else { "blob" };
        let mut connection = outbox.pool().acquire().await?;
        D::script(
            &mut connection,
            format!("CREATE TABLE floor (id BIGINT PRIMARY KEY, payload {blob} NOT NULL)"),
        )
        .await?;
        drop(connection);
        Ok(Self { name, outbox, take, messages, batch, _place: place })
    }

    /// Measures one case, floor and outbox one after the other.
    ///
    /// # Errors
    /// Whatever stops it.
    pub async fn measure(&mut self, work: Work, keys: Keys, relays: u32) -> Result<Row, BoxError> {
        self.clear().await?;
        let filling = self.fill_floor().await?;
        let numbers: Vec<u32> = (0..self.messages).collect();
        let batch = |numbers: &[u32]| numbers.iter().map(|number| keys.message(*number)).collect();
        let batches: Vec<Vec<Message>> =
            numbers.chunks(self.batch as usize).map(batch).collect::<Result<_, _>>()?;
        let count = u64::from(self.messages);
        let (floor, floor_took, ours, plain) = match work {
            Work::Enqueue => {
                let begun = Instant::now();
                let share = batches.len().div_ceil(relays as usize);
                try_join_all(batches.chunks(share).map(|batches| self.enqueue_all(batches))).await?;
                ("insert", filling, begun.elapsed(), None)
            }
            Work::Drain => {
                let floor = self.take_floor().await?;
                self.enqueue_all(&batches).await?;
                let ours = drain::by_relays(&self.outbox, relays, self.batch, count).await?;
                self.enqueue_all(&batches).await?;
                let plain = drain::by_loop(&self.outbox, self.batch, count).await?;
                ("delete-returning", floor, ours, Some(plain))
            }
        };
        let (floor_per_s, ours_per_s) =
            (per_second(self.messages, floor_took), per_second(self.messages, ours));
        #[allow(clippy::cast_precision_loss, reason = "rates are far below 2^52")]
        let ratio = hundredths(ours_per_s as f64 / floor_per_s.max(1) as f64);
        Ok(Row {
            storage: self.name,
            work,
            case: keys.name(),
            relays,
            batch: self.batch,
            floor,
            floor_per_s,
            ours_per_s,
            ratio,
            loop_per_s: plain.map(|plain| per_second(self.messages, plain)),
            server_us: None,
            floor_server_us: None,
        })
    }

    async fn enqueue_all(&self, batches: &[Vec<Message>]) -> Result<(), BoxError> {
        for batch in batches {
            self.outbox.enqueue_alone(batch).await?;
        }
        Ok(())
    }

    /// One `INSERT` of many rows for each batch, in one transaction each.
    async fn fill_floor(&self) -> Result<Duration, BoxError> {
        let mut connection = self.outbox.pool().acquire().await?;
        let body = "ab".repeat(FLOOR_BYTES);
        let body = if D::NUMBERED { format!("'\\x{body}'") } else { format!("x'{body}'") };
        let numbers: Vec<u32> = (0..self.messages).collect();
        let begun = Instant::now();
        for batch in numbers.chunks(self.batch as usize) {
            let rows: Vec<String> = batch.iter().map(|number| format!("({number},{body})")).collect();
            D::script(&mut connection, format!("INSERT INTO floor VALUES {}", rows.join(","))).await?;
        }
        Ok(begun.elapsed())
    }

    async fn take_floor(&self) -> Result<Duration, BoxError> {
        let mut connection = self.outbox.pool().acquire().await?;
        let (begun, mut taken) = (Instant::now(), 0);
        while taken < self.messages as usize {
            let arguments = vec![pillarbox_sql::Argument::Int(i64::from(self.batch))];
            taken += D::query(&mut connection, self.take.to_owned(), arguments, true).await?.len();
        }
        Ok(begun.elapsed())
    }

    async fn clear(&self) -> Result<(), BoxError> {
        let mut connection = self.outbox.pool().acquire().await?;
        for table in ["floor", "pillarbox_message"] {
            D::script(&mut connection, format!("DELETE FROM {table}")).await?;
        }
        Ok(())
    }
}
