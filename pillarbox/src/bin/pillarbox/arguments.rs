//! The command line.

use crate::address::redacted;
use crate::{dead, duration};
use clap::builder::NonEmptyStringValueParser;
use clap::{Args, Parser, Subcommand};
use pillarbox::MessageId;
use std::io::Write as _;
use std::net::SocketAddr;
use std::process::ExitCode;
use std::time::Duration;

/// The environment's variables that belong to the program, behind the prefix of the relay's settings.
pub(crate) const OWN_VARIABLES: [&str; 5] = ["STORAGE_URL", "TRANSPORT_URL", "ROUTES", "LISTEN", "LOG"];

/// The transactional outbox: relays messages from a store to a broker, enqueues, and looks after dead letters.
///
/// URLs with passwords are best given by the environment, which other users of the machine cannot see.
#[derive(Debug, Parser)]
#[command(name = "pillarbox", version, max_term_width = 100)]
pub(crate) struct Arguments {
    /// What to log to standard error: a level, or `target=level,…`. Before RUST_LOG; default `info`.
    #[arg(long, global = true, env = "PILLARBOX__LOG", value_name = "FILTER")]
    pub(crate) log: Option<String>,
    #[command(subcommand)]
    pub(crate) command: Command,
}

#[derive(Debug, Subcommand)]
pub(crate) enum Command {
    /// Relay messages from the store to the broker, until SIGTERM or Ctrl-C.
    ///
    /// The first signal drains: what is being sent is finished within the grace period, and the rest is given back. The
    /// second one ends the program at once, which loses nothing, but may send some messages twice.
    ///
    /// Exits with 0 after a drain, with 2 if settings or credentials are refused, and with 1 for everything else.
    Relay(Box<RelayArguments>),
    /// Enqueue JSON lines from standard input.
    #[command(after_long_help = crate::enqueue::HELP)]
    Enqueue(EnqueueArguments),
    /// Count what is stored.
    Status(StatusArguments),
    /// Look after dead letters.
    Dead(DeadArguments),
    /// Make the tables of a SQL store, or bring them to this program's version.
    ///
    /// Nothing else ever changes the schema: every other command refuses a store whose schema is missing or of another version.
    #[cfg(any(feature = "sqlite", feature = "postgres", feature = "mysql"))]
    Migrate(MigrateArguments),
    /// List the stores and brokers that this program opens, with the options of their URLs.
    Drivers,
}

#[derive(Debug, Args)]
pub(crate) struct StorageArguments {
    /// The store, such as `redis://localhost/?outbox.name=orders`.
    #[arg(long, env = "PILLARBOX__STORAGE_URL", hide_env_values = true, value_name = "URL")]
    pub(crate) storage: String,
}

#[derive(Debug, Args)]
pub(crate) struct RelayArguments {
    #[command(flatten)]
    pub(crate) storage: StorageArguments,
    /// The broker, such as `amqp://localhost`, or `stdout:`. With `--route` it takes what no route does.
    #[arg(
        long,
        env = "PILLARBOX__TRANSPORT_URL",
        hide_env_values = true,
        value_name = "URL",
        required_unless_present = "route"
    )]
    pub(crate) transport: Option<String>,
    /// Send topics that match a pattern to a broker of their own, such as 'orders.*=amqp://localhost'; may be given again, and the
    /// first that matches wins. `*` is within one word, `**` is anything. A broker that is away holds up none of the others.
    #[arg(
        long,
        env = "PILLARBOX__ROUTES",
        hide_env_values = true,
        value_name = "PATTERN=URL",
        value_delimiter = ' '
    )]
    pub(crate) route: Vec<String>,
    /// Serve /health, /ready and /metrics at this address, such as 127.0.0.1:9090.
    #[arg(long, env = "PILLARBOX__LISTEN", value_name = "ADDRESS")]
    pub(crate) listen: Option<SocketAddr>,
    #[command(flatten)]
    pub(crate) settings: RelaySettings,
}

/// The relay's settings. Each is also a variable of the environment; a flag goes before it.
#[derive(Debug, Default, Args)]
#[command(next_help_heading = "Relay settings (also from the environment)")]
pub(crate) struct RelaySettings {
    /// How many messages one claim asks for; default 100 [PILLARBOX__BATCH_SIZE]
    #[arg(long, value_name = "COUNT")]
    batch_size: Option<u32>,
    /// How long an idle relay waits without a hint; default 1s [PILLARBOX__POLLING_INTERVAL_SECONDS]
    #[arg(long, value_name = "DURATION", value_parser = duration::parse)]
    polling_interval: Option<Duration>,
    /// How many failed sends bury a message; default 5 [PILLARBOX__MAX_RETRY_COUNT]
    #[arg(long, value_name = "COUNT")]
    max_attempts: Option<u32>,
    /// How long a claim holds without a renewal; default 30s [PILLARBOX__CLAIM_TIMEOUT_SECONDS]
    #[arg(long, value_name = "DURATION", value_parser = duration::parse)]
    lease: Option<Duration>,
    /// How long a publish may take; default 10s, or half of the lease [PILLARBOX__PUBLISH_TIMEOUT_SECONDS]
    #[arg(long, value_name = "DURATION", value_parser = duration::parse)]
    publish_timeout: Option<Duration>,
    /// How many claims may be on their way; default 3 [PILLARBOX__CLAIMS_IN_FLIGHT]
    #[arg(long, value_name = "COUNT")]
    claims_in_flight: Option<u32>,
    /// How many publishes may be on their way, for each destination; default 4 [PILLARBOX__PUBLISHES_IN_FLIGHT]
    #[arg(long, value_name = "COUNT")]
    publishes_in_flight: Option<u32>,
    /// How many messages the relay holds at most; default six batches [PILLARBOX__MAX_IN_FLIGHT]
    #[arg(long, value_name = "COUNT")]
    max_in_flight: Option<u32>,
    /// How long a message waits after its first failed send; default 1s [PILLARBOX__RETRY_FIRST_SECONDS]
    #[arg(long, value_name = "DURATION", value_parser = duration::parse)]
    retry_first: Option<Duration>,
    /// How long it waits at most between sends; default 5m [PILLARBOX__RETRY_LIMIT_SECONDS]
    #[arg(long, value_name = "DURATION", value_parser = duration::parse)]
    retry_limit: Option<Duration>,
    /// How long a failed broker or store is left alone at first; default 100ms [PILLARBOX__PAUSE_FIRST_SECONDS]
    #[arg(long, value_name = "DURATION", value_parser = duration::parse)]
    pause_first: Option<Duration>,
    /// How long it is left alone at most; default 30s [PILLARBOX__PAUSE_LIMIT_SECONDS]
    #[arg(long, value_name = "DURATION", value_parser = duration::parse)]
    pause_limit: Option<Duration>,
    /// How long a stop waits for what is being sent; default 10s [PILLARBOX__SHUTDOWN_GRACE_SECONDS]
    #[arg(long, value_name = "DURATION", value_parser = duration::parse)]
    shutdown_grace: Option<Duration>,
}

impl RelaySettings {
    /// The settings that were given, as the environment's variables name and write them.
    pub(crate) fn variables(&self) -> Vec<(String, String)> {
        let count = |name: &str, value: Option<u32>| Some((name.to_owned(), value?.to_string()));
        let seconds =
            |name: &str, value: Option<Duration>| Some((name.to_owned(), value?.as_secs_f64().to_string()));
        let all = [
            count("BATCH_SIZE", self.batch_size),
            seconds("POLLING_INTERVAL_SECONDS", self.polling_interval),
            count("MAX_RETRY_COUNT", self.max_attempts),
            seconds("CLAIM_TIMEOUT_SECONDS", self.lease),
            seconds("PUBLISH_TIMEOUT_SECONDS", self.publish_timeout),
            count("CLAIMS_IN_FLIGHT", self.claims_in_flight),
            count("PUBLISHES_IN_FLIGHT", self.publishes_in_flight),
            count("MAX_IN_FLIGHT", self.max_in_flight),
            seconds("RETRY_FIRST_SECONDS", self.retry_first),
            seconds("RETRY_LIMIT_SECONDS", self.retry_limit),
            seconds("PAUSE_FIRST_SECONDS", self.pause_first),
            seconds("PAUSE_LIMIT_SECONDS", self.pause_limit),
            seconds("SHUTDOWN_GRACE_SECONDS", self.shutdown_grace),
        ];
        all.into_iter().flatten().collect()
    }
}

#[derive(Debug, Args)]
pub(crate) struct EnqueueArguments {
    #[command(flatten)]
    pub(crate) storage: StorageArguments,
    /// Go on after a line that is no message. Without this the first such line ends it.
    #[arg(long)]
    pub(crate) keep_going: bool,
}

#[derive(Debug, Args)]
pub(crate) struct StatusArguments {
    #[command(flatten)]
    pub(crate) storage: StorageArguments,
    /// Print one JSON object.
    #[arg(long)]
    pub(crate) json: bool,
}

#[derive(Debug, Args)]
#[cfg(any(feature = "sqlite", feature = "postgres", feature = "mysql"))]
pub(crate) struct MigrateArguments {
    #[command(flatten)]
    pub(crate) storage: StorageArguments,
    /// Print the SQL of all versions instead, for a migration tool of your own. Connects to nothing.
    #[arg(long)]
    pub(crate) print: bool,
}

#[derive(Debug, Args)]
pub(crate) struct DeadArguments {
    #[command(subcommand)]
    pub(crate) action: dead::Action,
}

#[derive(Debug, Default, Args)]
#[command(next_help_heading = "Which dead letters (all that is given must match)")]
pub(crate) struct FilterArguments {
    /// Only these ids.
    #[arg(long = "id", value_name = "ID")]
    pub(crate) ids: Vec<MessageId>,
    /// Only this topic.
    #[arg(long, value_parser = NonEmptyStringValueParser::new())]
    pub(crate) topic: Option<String>,
    /// Only this ordering key.
    #[arg(long, value_parser = NonEmptyStringValueParser::new())]
    pub(crate) key: Option<String>,
    /// Only those whose reason contains this.
    // An empty one would match everything: what `--reason "$VARIABLE"` becomes where the variable is not set.
    #[arg(long, value_name = "TEXT", value_parser = NonEmptyStringValueParser::new())]
    pub(crate) reason: Option<String>,
}

/// Says what is wrong with the arguments, without repeating a password that was typed.
pub(crate) fn refuse(error: &clap::Error) -> ExitCode {
    if !error.use_stderr() {
        // The help or the version; a closed pipe is no failure of ours.
        let _ = error.print();
        return ExitCode::SUCCESS;
    }
    let arguments = std::env::args_os().map(|argument| argument.to_string_lossy().into_owned());
    // As in `say`: where standard error is full or gone there is nobody left to tell.
    let _ = std::io::stderr().write_all(redacted(&error.render().to_string(), arguments).as_bytes());
    ExitCode::from(2)
}
