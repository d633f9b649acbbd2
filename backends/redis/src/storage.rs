use crate::config::RedisConfig;
use crate::connection::{Connection, Failure};
use crate::scripts::{self, Script};
use crate::settings::{self, Settings};
use crate::{checks, error, reply};
use pillarbox_core::{
    Admin, Claim, Claimed, Error, ErrorKind, HeadPolicy, Order, Renewed, RepeatedIds, Settled, Settlement,
    Settlements, Storage, StorageGuarantees, Token, Verdict, Wakeup,
};
use redis::{Cmd, Value};
use std::fmt;
use std::sync::Arc;
use std::time::Duration;

/// An outbox in Redis. Clones share one connection, which is made again when it breaks.
#[derive(Clone)]
pub struct RedisStorage(pub(crate) Arc<Shared>);

pub(crate) struct Shared {
    pub(crate) config: RedisConfig,
    pub(crate) settings: Settings,
    pub(crate) connection: Connection,
    /// For commands that block: they hold up whatever shares their connection.
    pub(crate) blocking: tokio::sync::Mutex<Connection>,
    pub(crate) place: String,
    /// `PUBLISH`, or on a cluster `SPUBLISH`, which reaches one node instead of all.
    pub(crate) publish: &'static str,
    pub(crate) state_key: String,
    /// The lists of the lanes, and that of scheduled messages.
    pub(crate) lists: Vec<String>,
    pub(crate) inbox: String,
    /// What tells relays of messages, where that is wanted.
    pub(crate) hint: Option<Cmd>,
}

/// The longest run, and the most messages of one claim: a longer one holds the server up and gains nothing.
const MAX_RUN: u32 = 1_000;
/// A claim answers about so many bytes at most, however large its messages are.
const CLAIM_BYTES: u32 = 8 * 1024 * 1024;
/// So many verdicts go into one call of the script at most.
const VERDICTS_PER_CALL: usize = 2_000;
/// Reasons are cut here: they are read by people, and a stack trace for each of a million messages is memory.
const REASON_BYTES: usize = 4 * 1024;

impl RedisStorage {
    /// Opens the outbox that a URL names: see [`RedisConfig::from_url`].
    ///
    /// # Errors
    /// `Misconfigured` for a URL, an option or a server that cannot be used, naming it; `Unavailable` if the server does not
    /// answer, naming its host and port.
    ///
    /// # Cancel safety
    /// Dropping the future leaves at most the settings of a new outbox stored.
    pub async fn open(url: &str) -> Result<Self, Error> {
        Self::connect(RedisConfig::from_url(url)?).await
    }

    /// Opens an outbox: connects, checks the server, and stores or compares the outbox's settings.
    ///
    /// # Errors
    /// As [`open`](Self::open).
    ///
    /// # Cancel safety
    /// As [`open`](Self::open).
    pub async fn connect(config: RedisConfig) -> Result<Self, Error> {
        config.check()?;
        let connection = Connection::new(&config);
        let place = config.target.place();
        let state_key = key(&config.name, "state");
        let server = checks::check(&connection, &state_key, &place).await?;
        let stored = store_settings(&connection, &config, &state_key)
            .await
            .map_err(|failure| error::map(failure, "open", &place))?;
        let settings = settings::agreed(&config, stored)?;
        let slowest = config.response_timeout + config.durability_timeout;
        let blocking = tokio::sync::Mutex::new(Connection::with_timeout(&config, slowest));
        let sharded = config.target.is_cluster() && server.has_sharded_channels;
        let publish = if sharded { "SPUBLISH" } else { "PUBLISH" };
        let key = |suffix: &str| key(&config.name, suffix);
        let lists = (0..settings.lanes).map(|lane| key(&format!("lane:{lane}"))).collect();
        let inbox = key("inbox");
        let hint = config.notify.then(|| redis::cmd(publish).arg(key("wake")).arg("").take());
        Ok(Self(Arc::new(Shared {
            config,
            settings,
            connection,
            blocking,
            place,
            publish,
            state_key,
            lists,
            inbox,
            hint,
        })))
    }

    /// The outbox's name.
    pub fn name(&self) -> &str {
        &self.0.config.name
    }

    /// How many lanes the outbox has.
    pub fn lanes(&self) -> u16 {
        self.0.settings.lanes
    }

    pub(crate) fn key(&self, suffix: &str) -> String {
        key(&self.0.config.name, suffix)
    }

    pub(crate) async fn run(
        &self,
        operation: &'static str,
        script: &Script,
        add: impl Fn(&mut Cmd),
    ) -> Result<Value, Error> {
        let Shared { connection, state_key, place, .. } = &*self.0;
        script.run(connection, state_key, add).await.map_err(|failure| error::map(failure, operation, place))
    }

    async fn try_claim(&self, claim: &Claim) -> Result<Value, Error> {
        let Settings { lanes, head_policy, max_strikes, limits } = self.0.settings;
        let first_peek = (CLAIM_BYTES / limits.max_payload()).clamp(1, 64);
        self.run("claim", &scripts::CLAIM, |command| {
            command
                .arg(self.0.config.clock_offset())
                .arg(claim.limit.min(MAX_RUN))
                .arg(micros(claim.lease))
                .arg(claim.nonce.as_bytes())
                .arg(u8::from(claim.solo))
                .arg(lanes)
                .arg(max_strikes)
                .arg(u8::from(head_policy == HeadPolicy::Block))
                .arg(CLAIM_BYTES)
                .arg(first_peek);
        })
        .await
    }

    /// Reads the long runs of a claim. Whoever holds a lane is the only one who touches its head, so what lies there is what was
    /// leased, as long as nobody has taken the lane since: the lane's state is read last, and a nonce that was replaced never
    /// comes back.
    async fn read(&self, claiming: reply::Claiming) -> Result<Claimed, Error> {
        let Shared { connection, state_key, lists, place, .. } = &*self.0;
        let mut reading = redis::pipe();
        let mut holders = redis::cmd("HMGET");
        holders.arg(state_key);
        for run in claiming.unread() {
            let list = usize::try_from(run.token.unit).ok().and_then(|lane| lists.get(lane));
            let list = list.ok_or_else(|| reply::unexpected("claim"))?;
            reading.cmd("LRANGE").arg(list).arg(0).arg(i64::from(run.len) - 1);
            holders.arg(run.token.unit);
        }
        reading.add_command(holders);
        let read = connection.read_pipeline(&reading).await;
        claiming.with(read.map_err(|failure| error::map(failure, "claim", place))?)
    }

    async fn settle_runs(
        &self,
        runs: &[(Token, Settlement<'_>)],
        answers: &mut Vec<Settled>,
    ) -> Result<(), Error> {
        let Settings { lanes, head_policy, .. } = self.0.settings;
        let value = self
            .run("settle", &scripts::SETTLE, |command| {
                command
                    .arg(self.0.config.clock_offset())
                    .arg(lanes)
                    .arg(u8::from(head_policy == HeadPolicy::Block));
                for (token, settlement) in runs {
                    add_run(command, token, settlement);
                }
            })
            .await?;
        let before = answers.len();
        reply::settled(value, answers)?;
        if answers.len() - before == runs.len() { Ok(()) } else { Err(reply::unexpected("settle")) }
    }
}

fn key(name: &str, suffix: &str) -> String {
    format!("{{{name}}}:{suffix}")
}

async fn store_settings(
    connection: &Connection,
    config: &RedisConfig,
    state_key: &str,
) -> Result<Value, Failure> {
    let wanted = settings::wanted(config);
    scripts::OPEN
        .run(connection, state_key, |command| {
            for (name, value) in &wanted {
                command.arg(name).arg(value);
            }
        })
        .await
}

impl Storage for RedisStorage {
    fn guarantees(&self) -> StorageGuarantees {
        StorageGuarantees {
            order: Order::CommitOrdered,
            repeated_ids: RepeatedIds::SecondCopy,
            head_policy: self.0.settings.head_policy,
            max_strikes: self.0.settings.max_strikes,
            max_run: MAX_RUN,
        }
    }

    async fn claim(&self, claim: Claim) -> Result<Claimed, Error> {
        let mut value = self.try_claim(&claim).await?;
        if value == Value::BulkString(b"settings".to_vec()) {
            // The server has lost its data, or the outbox was stored anew: what is there now must agree.
            let Shared { connection, config, state_key, place, .. } = &*self.0;
            let stored = store_settings(connection, config, state_key).await;
            let stored = stored.map_err(|failure| error::map(failure, "claim", place))?;
            if settings::agreed(config, stored)? != self.0.settings {
                return Err(Error::new(ErrorKind::Misconfigured, "claim")
                    .describe("the settings of the outbox have changed; open it again")
                    .not_applied());
            }
            value = self.try_claim(&claim).await?;
        }
        match reply::claiming(value, claim.nonce)?.read() {
            Ok(claimed) => Ok(claimed),
            Err(claiming) => self.read(claiming).await,
        }
    }

    async fn renew(&self, tokens: &[Token], lease: Duration) -> Result<Vec<Renewed>, Error> {
        let mut answers = Vec::with_capacity(tokens.len());
        for tokens in tokens.chunks(MAX_RUN as usize) {
            let value = self
                .run("renew", &scripts::RENEW, |command| {
                    command.arg(self.0.config.clock_offset()).arg(micros(lease));
                    for token in tokens {
                        command.arg(token.unit).arg(token.fence).arg(token.nonce.as_bytes());
                    }
                })
                .await?;
            let some = reply::renewed(value)?;
            if some.len() != tokens.len() {
                return Err(reply::unexpected("renew"));
            }
            answers.extend(some);
        }
        Ok(answers)
    }

    async fn settle(&self, settlements: &Settlements) -> Result<Vec<Settled>, Error> {
        let mut answers = Vec::with_capacity(settlements.len());
        let mut runs = Vec::with_capacity(settlements.len());
        let mut weight = 0;
        for (token, settlement) in settlements.iter() {
            let more = match settlement {
                Settlement::Verdicts(verdicts) => verdicts.len(),
                Settlement::HandBack { .. } => 1,
            };
            if weight + more > VERDICTS_PER_CALL && !runs.is_empty() {
                self.settle_runs(&runs, &mut answers).await?;
                runs.clear();
                weight = 0;
            }
            weight += more;
            runs.push((token, settlement));
        }
        if !runs.is_empty() {
            self.settle_runs(&runs, &mut answers).await?;
        }
        Ok(answers)
    }

    fn wakeup(&self) -> Option<&dyn Wakeup> {
        Some(self)
    }

    fn admin(&self) -> Option<&dyn Admin> {
        Some(self)
    }
}

impl fmt::Debug for RedisStorage {
    /// Shows the place and the settings, never a credential.
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter
            .debug_struct("RedisStorage")
            .field("place", &self.0.place)
            .field("name", &self.0.config.name)
            .field("settings", &self.0.settings)
            .finish_non_exhaustive()
    }
}

fn add_run(command: &mut Cmd, token: &Token, settlement: &Settlement<'_>) {
    command.arg(token.unit).arg(token.fence).arg(token.nonce.as_bytes());
    let verdicts = match settlement {
        Settlement::HandBack { after } => {
            command.arg("H").arg(micros(*after));
            return;
        }
        Settlement::Verdicts(verdicts) => *verdicts,
    };
    if verdicts.iter().all(|verdict| *verdict == Verdict::Published) {
        command.arg("P").arg(verdicts.len());
        return;
    }
    let letters: Vec<u8> = verdicts
        .iter()
        .map(|verdict| match verdict {
            Verdict::Published => b'P',
            Verdict::Retry { .. } => b'R',
            Verdict::Release { .. } => b'L',
            Verdict::Bury { .. } => b'B',
        })
        .collect();
    command.arg("V").arg(letters);
    for verdict in verdicts {
        match verdict {
            Verdict::Published => {}
            Verdict::Retry { after, error } => {
                command.arg(micros(*after)).arg(cut(error));
            }
            Verdict::Release { after } => {
                command.arg(micros(*after));
            }
            Verdict::Bury { reason } => {
                command.arg(cut(reason));
            }
        }
    }
}

fn cut(reason: &str) -> &str {
    &reason[..reason.floor_char_boundary(REASON_BYTES)]
}

/// Durations for the scripts, in microseconds; longer ones than 30 years are as good as 30 years, and exact in Lua.
fn micros(duration: Duration) -> u64 {
    const LONGEST: u64 = 30 * 365 * 86_400 * 1_000_000;
    u64::try_from(duration.as_micros()).unwrap_or(LONGEST).min(LONGEST)
}
