//! Where the relay sends: one broker, or several by topic.

use crate::address;
use crate::arguments::RelayArguments;
use crate::failure::Failure;
use pillarbox::{
    AnyTransport, Destination, Error, ErrorKind, Message, Outcomes, Registry, Routes, Transport,
    TransportGuarantees,
};
use tokio::sync::OnceCell;

/// Opens what the arguments name.
pub(crate) async fn transport(arguments: &RelayArguments) -> Result<AnyTransport, Failure> {
    let registry = pillarbox::registry();
    let routes = routes(arguments)?;
    if let ([], Some(url)) = (routes.as_slice(), &arguments.transport) {
        return Ok(registry.transport(url).await?);
    }
    let others = arguments.transport.as_deref().map(|url| ("**", url));
    let mut opened = Routes::new();
    for (pattern, url) in routes.into_iter().chain(others) {
        let transport = Reopening::open(&registry, url).await.map_err(|error| in_route(pattern, error))?;
        opened = opened.route(pattern, transport)?;
    }
    Ok(AnyTransport::new(opened))
}

/// The brokers, for people, without what may be secret.
pub(crate) fn shown(arguments: &RelayArguments) -> String {
    let routes = routes(arguments).unwrap_or_default();
    let mut shown: Vec<_> =
        routes.iter().map(|(pattern, url)| format!("{pattern} to {}", address::shown(url))).collect();
    match (&arguments.transport, shown.is_empty()) {
        (Some(url), true) => return address::shown(url),
        (Some(url), false) => shown.push(format!("all else to {}", address::shown(url))),
        (None, _) => {}
    }
    shown.join(", ")
}

/// Patterns and URLs.
fn routes(arguments: &RelayArguments) -> Result<Vec<(&str, &str)>, Failure> {
    let given = arguments.route.iter().filter(|route| !route.is_empty());
    given.map(|route| split(route)).collect()
}

fn split(route: &str) -> Result<(&str, &str), Failure> {
    match route.split_once('=') {
        // What stands before an `=` within a URL's query is no pattern.
        Some((pattern, url)) if !pattern.is_empty() && !pattern.contains("://") && url.contains(':') => {
            Ok((pattern, url))
        }
        _ => Err(Failure::misconfigured(
            "a route (`--route`, PILLARBOX__ROUTES) reads PATTERN=URL, such as 'orders.*=amqp://localhost'",
        )),
    }
}

fn in_route(pattern: &str, error: Error) -> Failure {
    let told = Error::new(error.kind(), error.operation());
    Failure::from(told.describe(format!("the route `{pattern}`: {}", error.description())).caused_by(error))
}

/// A broker that may be away when the relay starts: then it is opened by the first call that finds it there, so that it holds up
/// no other route.
struct Reopening {
    registry: Registry,
    url: String,
    opened: OnceCell<AnyTransport>,
}

impl Reopening {
    /// Fails only for what a later call would not find better.
    async fn open(registry: &Registry, url: &str) -> Result<Self, Error> {
        let transport = Self { registry: registry.clone(), url: url.to_owned(), opened: OnceCell::new() };
        match transport.opened().await {
            Err(error) if error.kind() == ErrorKind::Unavailable => {
                tracing::warn!(error = error.report(), "a broker is away; its route waits for it");
                Ok(transport)
            }
            Err(error) => Err(error),
            Ok(_) => Ok(transport),
        }
    }

    async fn opened(&self) -> Result<&AnyTransport, Error> {
        self.opened.get_or_try_init(|| self.registry.transport(&self.url)).await
    }
}

impl Transport for Reopening {
    async fn publish(&self, batch: &[Message], outcomes: &mut Outcomes) {
        match self.opened().await {
            Ok(transport) => transport.publish(batch, outcomes).await,
            Err(error) => {
                let description = error.report();
                outcomes.fill(|| {
                    Err(Error::new(error.kind(), "publish").describe(description.clone()).not_applied())
                });
            }
        }
    }

    async fn probe(&self, _: Destination) -> Result<(), Error> {
        // The transports that open by URL have one destination each.
        self.opened().await?.probe(Destination::ONLY).await
    }

    fn guarantees(&self, _: Destination) -> TransportGuarantees {
        match self.opened.get() {
            Some(transport) => transport.guarantees(Destination::ONLY),
            // A relay asks once. With less promised it sends a key's messages one at a time, which is right for all.
            None => TransportGuarantees { deduplicates: false, max_payload: u32::MAX, prefix_per_key: false },
        }
    }
}
