use pillarbox_core::{HeadPolicy, Message, Storage, StorageGuarantees};
use std::future::Future;
use std::time::Duration;

/// What goes wrong outside the storage's own traits.
pub type BoxError = Box<dyn std::error::Error + Send + Sync>;

/// How the suite reaches the storage that it proves. One value is made per case.
///
/// Write it with plain `async fn`; the futures need not be `Send`. The suite brings no runtime: it runs under the test
/// attribute, or the `block_on`, that the macro was given.
pub trait StorageHarness {
    /// An outbox of its own for one case.
    type Store: TestStore;

    /// What the storage can do. It alone decides which cases apply.
    fn abilities(&self) -> Abilities;

    /// Makes an outbox: empty, and not seen by any other case, also not by one that runs at the same time.
    ///
    /// # Errors
    /// Whatever stops it. The case fails then: a server that is not there is no success.
    fn create(&self, settings: &OutboxSettings) -> impl Future<Output = Result<Self::Store, BoxError>>;
}

/// One outbox, for one case.
pub trait TestStore {
    /// The storage under test.
    type Storage: Storage;
    /// Enqueues into it.
    type Producer: Producer;

    /// A further handle, as another process would have it: with connections of its own.
    ///
    /// # Errors
    /// Whatever stops it; the case fails then.
    fn connect(&self) -> impl Future<Output = Result<Self::Storage, BoxError>>;

    /// A further producer, as another process would have it.
    ///
    /// # Errors
    /// Whatever stops it; the case fails then.
    fn producer(&self) -> impl Future<Output = Result<Self::Producer, BoxError>>;

    /// Moves the store's clock on, for every handle. The clock may run meanwhile: the suite needs no exact times.
    ///
    /// # Errors
    /// Whatever stops it; the case fails then.
    fn advance(&self, by: Duration) -> impl Future<Output = Result<(), BoxError>>;

    /// Adds, behind everything else, one record that is no message. Asked for only with [`Abilities::corrupt`].
    ///
    /// # Errors
    /// Whatever stops it; the case fails then. Where it is not written, it always fails.
    fn corrupt(&self) -> impl Future<Output = Result<(), BoxError>> {
        async {
            Err("the harness declares the ability `corrupt` and does not write `TestStore::corrupt`".into())
        }
    }
}

/// Enqueues messages in the store's own transactions.
pub trait Producer {
    /// The caller's transaction, as applications use it.
    type Transaction;

    /// Begins a transaction.
    ///
    /// # Errors
    /// Whatever stops it; the case fails then.
    fn begin(&self) -> impl Future<Output = Result<Self::Transaction, BoxError>>;

    /// Adds messages to a transaction.
    ///
    /// # Errors
    /// The storage's own error, not wrapped: some cases provoke one and look at its kind.
    fn enqueue(
        &self,
        transaction: &mut Self::Transaction,
        messages: &[Message],
    ) -> impl Future<Output = Result<(), BoxError>>;

    /// Commits a transaction.
    ///
    /// # Errors
    /// Whatever stops it; the case fails then.
    fn commit(&self, transaction: Self::Transaction) -> impl Future<Output = Result<(), BoxError>>;

    /// Rolls a transaction back.
    ///
    /// # Errors
    /// Whatever stops it; the case fails then.
    fn rollback(&self, transaction: Self::Transaction) -> impl Future<Output = Result<(), BoxError>>;

    /// Enqueues messages in one transaction of their own.
    ///
    /// # Errors
    /// Those of the three calls that it makes.
    fn enqueue_alone(&self, messages: &[Message]) -> impl Future<Output = Result<(), BoxError>> {
        async move {
            let mut transaction = self.begin().await?;
            self.enqueue(&mut transaction, messages).await?;
            self.commit(transaction).await
        }
    }
}

/// The settings of the outbox that a case asks for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct OutboxSettings {
    /// What happens to a key whose head died. Default `Continue`.
    pub head_policy: HeadPolicy,
    /// How many strikes bury a message. Default 3.
    pub max_strikes: u32,
    /// Whether published messages are kept until they are purged. Asked for only with [`Abilities::retention`]. Default no.
    pub keep_published: bool,
}

impl Default for OutboxSettings {
    fn default() -> Self {
        Self {
            head_policy: HeadPolicy::Continue,
            max_strikes: StorageGuarantees::DEFAULT_MAX_STRIKES,
            keep_published: false,
        }
    }
}

/// What a storage and its harness can do. [`Abilities::ALL`] with exceptions reads best:
/// `Abilities { retention: false, ..Abilities::ALL }`.
///
/// `declares_what_it_can` is a test of the suite: it lists what does not apply, and compares with what the storage offers.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[allow(clippy::struct_excessive_bools, reason = "each is an independent declaration")]
pub struct Abilities {
    /// [`Storage::admin`] answers.
    pub admin: bool,
    /// [`Storage::wakeup`] answers.
    pub wakeup: bool,
    /// [`TestStore::corrupt`] works.
    pub corrupt: bool,
    /// Two transactions of producers can be open at once and commit in any order.
    pub concurrent_transactions: bool,
    /// Published messages can be kept (see [`OutboxSettings::keep_published`]).
    pub retention: bool,
}

impl Abilities {
    /// Everything.
    pub const ALL: Self =
        Self { admin: true, wakeup: true, corrupt: true, concurrent_transactions: true, retention: true };
    /// Nothing but the contract of [`Storage`].
    pub const NONE: Self = Self {
        admin: false,
        wakeup: false,
        corrupt: false,
        concurrent_transactions: false,
        retention: false,
    };

    /// Those of `needed` that are not there.
    pub(super) fn missing(self, needed: &[Ability]) -> Vec<Ability> {
        let has = |ability: &Ability| match ability {
            Ability::Admin => self.admin,
            Ability::Wakeup => self.wakeup,
            Ability::Corrupt => self.corrupt,
            Ability::ConcurrentTransactions => self.concurrent_transactions,
            Ability::Retention => self.retention,
        };
        needed.iter().copied().filter(|ability| !has(ability)).collect()
    }
}

/// One of [`Abilities`], as cases name what they need.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Ability {
    /// [`Abilities::admin`].
    Admin,
    /// [`Abilities::wakeup`].
    Wakeup,
    /// [`Abilities::corrupt`].
    Corrupt,
    /// [`Abilities::concurrent_transactions`].
    ConcurrentTransactions,
    /// [`Abilities::retention`].
    Retention,
}
