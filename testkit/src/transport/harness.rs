use super::BoxError;
use pillarbox_core::{Message, MessageId, Text, Transport};
use std::future::Future;

/// How the suite reaches the transport that it proves, and the broker behind it. One value is made per case.
///
/// Write it with plain `async fn`; the futures need not be `Send`. The suite brings no runtime: it runs under the test
/// attribute, or the `block_on`, that the macro was given.
pub trait TransportHarness {
    /// The transport under test.
    type Transport: Transport;

    /// What the transport and this harness can do. It alone decides which cases apply.
    fn abilities(&self) -> Abilities;

    /// A topic whose messages [`received`](Self::received) finds, and which no other case uses, also not one that runs at the
    /// same time.
    fn topic(&self) -> Text;

    /// A further handle, as another process would have it: with a connection of its own. It takes batches of 500.
    ///
    /// # Errors
    /// Whatever stops it. The case fails then: a broker that is not there is no success.
    fn connect(&self) -> impl Future<Output = Result<Self::Transport, BoxError>>;

    /// Everything that has arrived since the harness was made, in order of arrival, with all repetitions, read by other means
    /// than the transport: a consumer, or the broker's own interface.
    ///
    /// # Errors
    /// Whatever stops it; the case fails then.
    fn received(&self) -> impl Future<Output = Result<Vec<Received>, BoxError>>;

    /// A topic that leads nowhere, without harm to others. Asked for only with [`Abilities::unroutable`].
    ///
    /// # Errors
    /// Whatever stops it; the case fails then. Where it is not written, it always fails.
    fn unroutable_topic(&self) -> impl Future<Output = Result<Text, BoxError>> {
        async { Err(not_written("unroutable", "unroutable_topic")) }
    }

    /// Takes the broker away from the transports, as a kill does: connections break, new ones are refused. `received` may still
    /// work, and does after [`start`](Self::start). Asked for only with [`Abilities::outage`].
    ///
    /// # Errors
    /// Whatever stops it; the case fails then. Where it is not written, it always fails.
    fn stop(&self) -> impl Future<Output = Result<(), BoxError>> {
        async { Err(not_written("outage", "stop")) }
    }

    /// Brings the broker back at the same address, with all that it had confirmed. Asked for only with [`Abilities::outage`].
    ///
    /// # Errors
    /// Whatever stops it; the case fails then. Where it is not written, it always fails.
    fn start(&self) -> impl Future<Output = Result<(), BoxError>> {
        async { Err(not_written("outage", "start")) }
    }

    /// Waits a moment, such as 20 ms, between two looks at a broker that comes back; the suite looks up to 200 times. Default:
    /// does not wait.
    fn moment(&self) -> impl Future<Output = ()> {
        std::future::ready(())
    }
}

fn not_written(ability: &str, method: &str) -> BoxError {
    format!("the harness declares the ability `{ability}` and does not write `TransportHarness::{method}`")
        .into()
}

/// A message as it arrived.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Received {
    /// [`Message::id`].
    pub id: MessageId,
    /// [`Message::topic`].
    pub topic: String,
    /// [`Message::key`].
    pub key: Option<String>,
    /// [`Message::headers`], without any that the transport adds, sorted by name.
    pub headers: Vec<(String, String)>,
    /// [`Message::payload`].
    pub payload: Vec<u8>,
    /// [`Message::content_type`].
    pub content_type: Option<String>,
}

impl From<&Message> for Received {
    fn from(message: &Message) -> Self {
        let headers = message.headers().iter().map(|(name, value)| (name.to_string(), value.to_string()));
        Self {
            id: message.id(),
            topic: message.topic().to_string(),
            key: message.key().map(Text::to_string),
            headers: headers.collect(),
            payload: message.payload().to_vec(),
            content_type: message.content_type().map(Text::to_string),
        }
    }
}

/// What a transport and its harness can do. [`Abilities::ALL`] with exceptions reads best:
/// `Abilities { prefix_per_key: false, ..Abilities::ALL }`.
///
/// `declares_what_it_can` is a test of the suite: it lists what does not apply, and compares with what the transport guarantees.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[allow(clippy::struct_excessive_bools, reason = "each is an independent declaration")]
pub struct Abilities {
    /// There are topics that lead nowhere, and [`TransportHarness::unroutable_topic`] names one.
    pub unroutable: bool,
    /// Payloads have a limit, and [`TransportHarness::connect`] sets it below 15 MiB.
    pub oversize: bool,
    /// [`TransportHarness::stop`] and [`TransportHarness::start`] work.
    pub outage: bool,
    /// The transport guarantees `prefix_per_key`.
    pub prefix_per_key: bool,
}

impl Abilities {
    /// Everything.
    pub const ALL: Self = Self { unroutable: true, oversize: true, outage: true, prefix_per_key: true };
    /// Nothing but the contract of [`Transport`].
    pub const NONE: Self = Self { unroutable: false, oversize: false, outage: false, prefix_per_key: false };

    /// Those of `needed` that are not there.
    pub(super) fn missing(self, needed: &[Ability]) -> Vec<Ability> {
        let has = |ability: &Ability| match ability {
            Ability::Unroutable => self.unroutable,
            Ability::Oversize => self.oversize,
            Ability::Outage => self.outage,
            Ability::PrefixPerKey => self.prefix_per_key,
        };
        needed.iter().copied().filter(|ability| !has(ability)).collect()
    }
}

/// One of [`Abilities`], as cases name what they need.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Ability {
    /// [`Abilities::unroutable`].
    Unroutable,
    /// [`Abilities::oversize`].
    Oversize,
    /// [`Abilities::outage`].
    Outage,
    /// [`Abilities::prefix_per_key`].
    PrefixPerKey,
}
