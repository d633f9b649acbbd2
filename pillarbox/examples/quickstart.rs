//! An order service with an outbox in SQLite, two relays in processes of their own, and one of them killed with SIGKILL at the worst
//! moment. Needs nothing installed.
//!
//! `cargo run -p pillarbox --example quickstart --features sqlite`

use pillarbox::sql::{SqlConfig, SqliteStorage};
use pillarbox::{
    Admin as _, Destination, Enqueue as _, Error, ErrorKind, Message, Outcomes, Relay, RelayConfig,
    TokioTimer, Transport, TransportGuarantees,
};
use std::collections::HashMap;
use std::fs::{self, File};
use std::io::{BufRead, BufReader, Read as _, Write as _};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::Duration;
use tokio::task::block_in_place;

type Failure = Box<dyn std::error::Error + Send + Sync>;

const ORDERS: u32 = 500;
const CUSTOMERS: u32 = 20;
/// Short, so that nobody has to wait for long. The default is 30 s, and a live relay renews its leases.
const LEASE: Duration = Duration::from_secs(1);
/// What a relay prints for who started it.
const SENT: &str = "sent";
const WORST_MOMENT: &str = "sent, and never confirmed";

#[tokio::main]
async fn main() -> Result<(), Failure> {
    // This program starts itself again as relay A and as relay B.
    let arguments: Vec<String> = std::env::args().collect();
    match &arguments[1..] {
        [name, folder] => relay(name, Path::new(folder)).await,
        _ => {
            let folder = std::env::temp_dir().join(format!("pillarbox-quickstart-{}", std::process::id()));
            fs::create_dir_all(&folder)?;
            let told = tell(&folder).await;
            fs::remove_dir_all(&folder)?;
            told
        }
    }
}

async fn tell(folder: &Path) -> Result<(), Failure> {
    let outbox = SqlConfig::from_url(&url(folder))?;
    SqliteStorage::migrate(&outbox).await?;
    let outbox = SqliteStorage::connect(outbox).await?;
    let table = "CREATE TABLE orders (number INTEGER PRIMARY KEY, customer TEXT NOT NULL)";
    sqlx::query(table).execute(outbox.pool()).await?;

    println!("1. A service writes {ORDERS} orders. Each is written with its message in one transaction.");
    let mut committed = Vec::new();
    for number in 1..=ORDERS {
        let customer = format!("customer-{}", number % CUSTOMERS);
        let message = Message::to("orders.created").key(customer.clone()).payload(number.to_string())?;

        let mut transaction = outbox.pool().begin().await?;
        let order = sqlx::query("INSERT INTO orders VALUES (?, ?)").bind(number).bind(customer);
        order.execute(&mut *transaction).await?;
        outbox.enqueue(&mut transaction, &[message]).await?;
        if number % 10 == 0 {
            transaction.rollback().await?; // say, the payment was refused
        } else {
            transaction.commit().await?;
            committed.push(number);
        }
    }
    let written: i64 = sqlx::query_scalar("SELECT count(*) FROM orders").fetch_one(outbox.pool()).await?;
    let stored = outbox.stats().await?.pending;
    println!(
        "   Every tenth was rolled back, order and message: {written} orders and {stored} messages are stored."
    );

    println!("2. Relays A and B, two processes, compete for the messages.");
    let mut b = start("B", folder)?;
    let mut heard = BufReader::new(b.stdout.take().ok_or("B has no output")?);
    // A starts once B has sent something, so that B gets its share however slowly it starts.
    block_in_place(|| hear(&mut heard, SENT))?;
    let mut a = start("A", folder)?;
    // B says when the broker has taken messages, and B has not yet noted it.
    block_in_place(|| hear(&mut heard, WORST_MOMENT))?;
    b.kill()?; // SIGKILL
    b.wait()?;
    println!("   B was killed with SIGKILL: the broker had just taken some of its messages.");
    println!("   A goes on. What B held is A's as soon as B's lease of {LEASE:?} has run out.");

    loop {
        let stats = outbox.stats().await?;
        if stats.pending + stats.scheduled + stats.claimed == 0 {
            break;
        }
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    drop(a.stdin.take());
    if !a.wait()?.success() {
        return Err("A did not end well".into());
    }
    println!("3. The outbox is empty, and A has stopped.");
    tell_totals(&committed, &received(folder)?);
    Ok(())
}

fn tell_totals(committed: &[u32], received: &[u32]) {
    let mut deliveries: HashMap<u32, u32> = HashMap::new();
    let (mut first_deliveries, mut is_ordered) = (HashMap::new(), true);
    for number in received {
        let times = deliveries.entry(*number).or_default();
        *times += 1;
        if *times == 1 {
            let before = first_deliveries.insert(number % CUSTOMERS, *number);
            is_ordered &= before.is_none_or(|before| before < *number);
        }
    }
    let attempted = committed.len();
    let delivered = committed.iter().filter(|number| deliveries.contains_key(number)).count();
    let unexpected = deliveries.keys().filter(|number| !committed.contains(number)).count();
    let duplicated: u32 = deliveries.values().map(|times| times - 1).sum();
    let lost = attempted - delivered;
    println!("   Each customer's orders arrived in their order: {}.", if is_ordered { "yes" } else { "NO" });
    println!("   What B had sent was sent again, with the same ids: that is what \"at least once\" means.\n");
    // Nothing was indeterminate here, so nothing was recovered: every commit was answered.
    println!(
        "attempted {attempted} acknowledged {attempted} delivered {delivered} duplicated {duplicated} recovered 0 \
         lost {lost} unexpected {unexpected}"
    );
    assert!(is_ordered && lost == 0 && unexpected == 0, "a promise was broken");
}

fn url(folder: &Path) -> String {
    format!("sqlite://{}?mode=rwc", folder.join("service.db").display())
}

fn start(name: &str, folder: &Path) -> std::io::Result<Child> {
    let mut command = Command::new(std::env::current_exe()?);
    command.arg(name).arg(folder).stdin(Stdio::piped()).stdout(Stdio::piped()).spawn()
}

/// Waits until a relay has printed this line.
fn hear(output: &mut impl BufRead, line: &str) -> Result<(), Failure> {
    for heard in output.lines() {
        if heard? == line {
            return Ok(());
        }
    }
    Err(format!("a relay ended before it said: {line}").into())
}

/// One of the two relay processes. It stops when its input ends.
async fn relay(name: &str, folder: &Path) -> Result<(), Failure> {
    let outbox = SqliteStorage::open(&url(folder)).await?;
    let transport = Broker { log: folder.join("broker"), dies_after: (name == "B").then_some(100) };
    let config = RelayConfig::default().batch_size(20).lease(LEASE);
    let (stop, stopped) = tokio::sync::oneshot::channel();
    std::thread::spawn(move || stop.send(std::io::stdin().read_to_end(&mut Vec::new())));
    let shutdown = async {
        let _ = stopped.await;
    };
    Relay::new(outbox, transport, config)?.timer(TokioTimer::new()).run(shutdown).await?;
    Ok(())
}

/// Stands for a message broker: it keeps what it was sent, in a file to which both relays append.
struct Broker {
    log: PathBuf,
    /// Once the broker has so many messages, this relay hears nothing of it any more.
    dies_after: Option<usize>,
}

fn received(folder: &Path) -> Result<Vec<u32>, Failure> {
    let log = fs::read_to_string(folder.join("broker"))?;
    Ok(log.lines().map(str::parse).collect::<Result<_, _>>()?)
}

impl Broker {
    /// Answers how many messages it has now.
    fn take(&self, batch: &[Message]) -> std::io::Result<usize> {
        let lines: Vec<u8> =
            batch.iter().flat_map(|message| [message.payload(), &b"\n"[..]].concat()).collect();
        File::options().create(true).append(true).open(&self.log)?.write_all(&lines)?;
        Ok(fs::read_to_string(&self.log)?.lines().count())
    }
}

impl Transport for Broker {
    async fn publish(&self, batch: &[Message], outcomes: &mut Outcomes) {
        tokio::time::sleep(Duration::from_millis(1)).await; // the way to the broker
        match self.take(batch) {
            Ok(total) if self.dies_after.is_some_and(|limit| total >= limit) => {
                println!("{WORST_MOMENT}");
                std::future::pending::<()>().await;
            }
            Ok(_) => {
                println!("{SENT}");
                outcomes.fill(|| Ok(()));
            }
            Err(error) => outcomes.fill(|| {
                Err(Error::new(ErrorKind::Unavailable, "publish")
                    .describe(format!("the broker's file: {error}")))
            }),
        }
    }

    async fn probe(&self, _: Destination) -> Result<(), Error> {
        Ok(())
    }

    fn guarantees(&self, _: Destination) -> TransportGuarantees {
        TransportGuarantees { deduplicates: false, max_payload: u32::MAX, prefix_per_key: true }
    }
}
