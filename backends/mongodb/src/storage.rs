use crate::config::MongoConfig;
use crate::settings::{self, Settings};
use crate::turns::Turns;
use crate::wakeup::Listening;
use crate::{checks, error, schema};
use mongodb::bson::raw::RawDocumentBuf;
use mongodb::options::{ClientOptions, CollectionOptions, ReadPreference, SelectionCriteria, WriteConcern};
use mongodb::{Client, ClientSession, Collection, Database};
use pillarbox_core::{
    Admin, Claim, Claimed, Error, Order, Renewed, RepeatedIds, Settled, Settlements, Storage,
    StorageGuarantees, Token, Wakeup,
};
use std::fmt;
use std::future::Future;
use std::sync::{Arc, Mutex};
use std::time::Duration;

/// An outbox in MongoDB. Clones share one client, whose connections are made again when they break.
#[derive(Clone)]
pub struct MongoStorage(pub(crate) Arc<Shared>);

pub(crate) struct Shared {
    pub(crate) config: MongoConfig,
    pub(crate) settings: Settings,
    pub(crate) client: Client,
    pub(crate) database: Database,
    pub(crate) place: String,
    pub(crate) messages: Collection<RawDocumentBuf>,
    pub(crate) lanes: Collection<RawDocumentBuf>,
    pub(crate) parked: Collection<RawDocumentBuf>,
    pub(crate) dead: Collection<RawDocumentBuf>,
    pub(crate) published: Collection<RawDocumentBuf>,
    pub(crate) turns: Turns,
    pub(crate) listening: Listening,
    /// Sessions whose transactions may still be open at the server.
    pub(crate) left_open: Mutex<Vec<ClientSession>>,
}

/// The longest run, and the most messages of one claim.
pub(crate) const MAX_RUN: u32 = 1_000;

impl MongoStorage {
    /// Opens the outbox that a URL names: see [`MongoConfig::from_url`].
    ///
    /// # Errors
    /// `Misconfigured` for a URL, an option, a server or an index that cannot be used, naming it; `Unavailable` if no primary
    /// answers, naming hosts and ports.
    ///
    /// # Cancel safety
    /// Dropping the future leaves at most some collections and indexes of a new outbox made; opening it again makes the rest.
    pub async fn open(url: &str) -> Result<Self, Error> {
        Self::connect(MongoConfig::from_url(url)?).await
    }

    /// Opens an outbox: connects, checks the server, makes a new outbox or checks the one that is there.
    ///
    /// # Errors
    /// As [`open`](Self::open).
    ///
    /// # Cancel safety
    /// As [`open`](Self::open).
    pub async fn connect(config: MongoConfig) -> Result<Self, Error> {
        let client = client(&config).await?;
        Self::with_client(client, config).await
    }

    /// Opens an outbox through the application's own client, whose database `config` names.
    ///
    /// # Errors
    /// As [`open`](Self::open).
    ///
    /// # Cancel safety
    /// As [`open`](Self::open).
    pub async fn with_client(client: Client, config: MongoConfig) -> Result<Self, Error> {
        Self::opened(client, config, false).await
    }

    /// Makes what an outbox lacks: its collections, its indexes and its settings. [`open`](Self::open) does so for a new outbox only;
    /// for one that is there it names what is missing, since to build an index over many documents is for a person to decide.
    ///
    /// # Errors
    /// As [`open`](Self::open).
    ///
    /// # Cancel safety
    /// As [`open`](Self::open).
    pub async fn create(config: MongoConfig) -> Result<Self, Error> {
        let client = client(&config).await?;
        Self::opened(client, config, true).await
    }

    async fn opened(client: Client, config: MongoConfig, create: bool) -> Result<Self, Error> {
        config.check()?;
        let place = place(&config);
        let opening = async {
            let database = client.database(&config.database);
            checks::check(&client, &place).await?;
            let map = |failure| error::map(failure, "open", &place);
            let stored = match schema::stored_settings(&database, &config.name).await.map_err(map)? {
                Some(stored) if !create => {
                    schema::check(&database, &config.name).await?;
                    stored
                }
                stored => {
                    let wanted = stored.unwrap_or_else(|| settings::wanted(&config));
                    schema::create(&database, &config.name, wanted).await.map_err(map)?
                }
            };
            let settings = settings::agreed(&config, &stored)?;
            Ok((database, settings))
        };
        let patience = config.response_timeout.max(config.connect_timeout) * 3;
        let (database, settings) = tokio::time::timeout(patience, opening)
            .await
            .unwrap_or_else(|_| Err(error::timed_out("open", &place, patience)))?;
        let shared = Shared {
            messages: collection(&database, &config.name, "messages"),
            lanes: collection(&database, &config.name, "lanes"),
            parked: collection(&database, &config.name, "parked"),
            dead: collection(&database, &config.name, "dead"),
            published: collection(&database, &config.name, "published"),
            turns: Turns::default(),
            listening: Listening::default(),
            left_open: Mutex::default(),
            config,
            settings,
            client,
            database,
            place,
        };
        Ok(Self(Arc::new(shared)))
    }

    /// The outbox's name.
    pub fn name(&self) -> &str {
        &self.0.config.name
    }

    /// How many lanes the outbox has.
    pub fn lanes(&self) -> u16 {
        self.0.settings.lanes
    }

    pub(crate) async fn in_time<T>(
        &self,
        operation: &'static str,
        work: impl Future<Output = Result<T, Error>> + Send,
    ) -> Result<T, Error> {
        let patience = self.0.config.response_timeout;
        tokio::time::timeout(patience, work)
            .await
            .unwrap_or_else(|_| Err(error::timed_out(operation, &self.0.place, patience)))
    }
}

impl Storage for MongoStorage {
    fn guarantees(&self) -> StorageGuarantees {
        StorageGuarantees {
            order: Order::InsertOrdered,
            repeated_ids: RepeatedIds::SecondCopy,
            head_policy: self.0.settings.head_policy,
            max_strikes: self.0.settings.max_strikes,
            max_run: MAX_RUN,
        }
    }

    async fn claim(&self, claim: Claim) -> Result<Claimed, Error> {
        let claimed = self.in_time("claim", self.claim_runs(&claim)).await?;
        self.0.listening.claimed(&claim, &claimed);
        Ok(claimed)
    }

    async fn renew(&self, tokens: &[Token], lease: Duration) -> Result<Vec<Renewed>, Error> {
        self.in_time("renew", self.renew_runs(tokens, lease)).await
    }

    async fn settle(&self, settlements: &Settlements) -> Result<Vec<Settled>, Error> {
        let (outbox, settlements) = (self.clone(), settlements.clone());
        let settling = async move {
            let settled = outbox.settle_runs(&settlements).await;
            outbox.0.turns.settled();
            settled
        };
        self.to_the_end("settle", settling).await
    }

    fn wakeup(&self) -> Option<&dyn Wakeup> {
        Some(self)
    }

    fn admin(&self) -> Option<&dyn Admin> {
        Some(self)
    }
}

impl fmt::Debug for MongoStorage {
    /// Shows the place and the settings, never a credential.
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter
            .debug_struct("MongoStorage")
            .field("place", &self.0.place)
            .field("name", &self.0.config.name)
            .field("settings", &self.0.settings)
            .finish_non_exhaustive()
    }
}

async fn client(config: &MongoConfig) -> Result<Client, Error> {
    config.check()?;
    let place = place(config);
    let map = |failure| error::map(failure, "open", &place);
    let mut options = ClientOptions::parse(&config.url).await.map_err(map)?;
    options.server_selection_timeout.get_or_insert(config.connect_timeout);
    options.connect_timeout.get_or_insert(config.connect_timeout);
    options.app_name.get_or_insert_with(|| "pillarbox".to_owned());
    Client::with_options(options).map_err(map)
}

fn collection<T: Send + Sync>(database: &Database, name: &str, of: &str) -> Collection<T> {
    let options = CollectionOptions::builder()
        .write_concern(WriteConcern::majority())
        .selection_criteria(SelectionCriteria::ReadPreference(ReadPreference::Primary))
        .build();
    database.collection_with_options(&format!("{name}.{of}"), options)
}

/// Hosts and database, for errors: what stands in the URL behind the credentials.
fn place(config: &MongoConfig) -> String {
    let hosts = config.url.split_once("://").map_or("", |(_, rest)| rest);
    let hosts = hosts.split_once('?').map_or(hosts, |(before, _)| before);
    let hosts = hosts.rsplit_once('@').map_or(hosts, |(_, after)| after);
    let hosts = hosts.split_once('/').map_or(hosts, |(before, _)| before);
    if hosts.is_empty() {
        format!("the client's hosts, database {:?}", config.database)
    } else {
        hosts.to_owned()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_place_has_hosts_and_no_credentials() {
        let place = |url: &str| place(&MongoConfig::from_url(url).unwrap());
        assert_eq!(place("mongodb://me:pa%40ss@a:1,b:2/shop?replicaSet=rs0"), "a:1,b:2");
        assert_eq!(place("mongodb://localhost/shop"), "localhost");
    }
}
