use super::{Destination, Outcomes, Transport, TransportGuarantees};
use crate::{AnyTransport, Error, ErrorKind, Message};
use futures_util::future::join_all;
use std::fmt;

/// Topic patterns to transports; itself a transport, with every destination of each.
///
/// The first pattern that matches wins. A message that no pattern matches is `Unroutable`: it is retried, so that adding
/// the route delivers it, and buried with that reason when its attempts are spent.
///
/// Order per key spans destinations: while the head of a key waits for a destination that is down, that key waits, and no
/// other. Who wants destinations independent puts the destination into the key.
#[derive(Clone, Debug, Default)]
pub struct Routes {
    routes: Vec<(TopicPattern, AnyTransport)>,
}

/// A route's destinations are numbered from its place times this.
const DESTINATIONS_PER_ROUTE: u16 = 256;

impl Routes {
    /// At most so many routes.
    pub const MAX: usize = 255;

    /// No routes yet.
    pub const fn new() -> Self {
        Self { routes: Vec::new() }
    }

    /// Sends topics that match `pattern`, and no earlier one, to `transport`.
    ///
    /// # Errors
    /// `Misconfigured` for an empty pattern or more than [`Routes::MAX`] routes.
    pub fn route(mut self, pattern: &str, transport: impl Transport + 'static) -> Result<Self, Error> {
        if self.routes.len() == Self::MAX {
            return Err(Error::new(ErrorKind::Misconfigured, "route").describe(format!(
                "there are more than {} routes; join some by a wider pattern",
                Self::MAX
            )));
        }
        self.routes.push((pattern.parse()?, AnyTransport::new(transport)));
        Ok(self)
    }

    fn find(&self, message: &Message) -> Option<usize> {
        self.routes.iter().position(|(pattern, _)| pattern.matches(message.topic()))
    }

    fn behind(&self, destination: Destination) -> Option<(&AnyTransport, Destination)> {
        let (route, inner) = (destination.0 / DESTINATIONS_PER_ROUTE, destination.0 % DESTINATIONS_PER_ROUTE);
        self.routes.get(usize::from(route)).map(|(_, transport)| (transport, Destination(inner)))
    }
}

fn numbered(route: usize, inner: Destination) -> Destination {
    // `MAX` routes keep the product within the type.
    let first = u16::try_from(route).unwrap_or(0) * DESTINATIONS_PER_ROUTE;
    Destination(first + inner.0.min(DESTINATIONS_PER_ROUTE - 1))
}

/// The destination of messages without a route: last, so that it is no transport's.
const NOWHERE: Destination = Destination(u16::MAX);

impl Transport for Routes {
    async fn publish(&self, batch: &[Message], outcomes: &mut Outcomes) {
        // A relay publishes one destination at a time, so nearly every batch has one route and is passed on as it is.
        let mut routes = batch.iter().map(|message| self.find(message));
        let first = routes.next().flatten();
        match first {
            Some(route) if routes.all(|other| other == first) => {
                self.routes[route].1.publish(batch, outcomes).await;
            }
            _ => self.publish_mixed(batch, outcomes).await,
        }
    }

    async fn probe(&self, destination: Destination) -> Result<(), Error> {
        match self.behind(destination) {
            Some((transport, inner)) => transport.probe(inner).await,
            None => Ok(()),
        }
    }

    fn destination(&self, message: &Message) -> Destination {
        let Some(route) = self.find(message) else { return NOWHERE };
        numbered(route, self.routes[route].1.destination(message))
    }

    fn destinations(&self) -> Vec<Destination> {
        let routes = self.routes.iter().enumerate();
        routes
            .flat_map(|(route, (_, inner))| {
                inner.destinations().into_iter().map(move |inner| numbered(route, inner))
            })
            .collect()
    }

    fn guarantees(&self, destination: Destination) -> TransportGuarantees {
        match self.behind(destination) {
            Some((transport, inner)) => transport.guarantees(inner),
            None => TransportGuarantees { deduplicates: false, max_payload: u32::MAX, prefix_per_key: true },
        }
    }
}

impl Routes {
    async fn publish_mixed(&self, batch: &[Message], outcomes: &mut Outcomes) {
        let mut parts: Vec<(Vec<usize>, Vec<Message>, Outcomes)> = Vec::new();
        parts.resize_with(self.routes.len(), Default::default);
        for (index, message) in batch.iter().enumerate() {
            match self.find(message) {
                Some(route) => {
                    parts[route].0.push(index);
                    parts[route].1.push(message.clone());
                }
                None => outcomes.set(index, Err(no_route(message))),
            }
        }
        join_all(self.routes.iter().zip(&mut parts).map(
            |((_, transport), (_, messages, outcomes))| async move {
                outcomes.reset(messages.len());
                if !messages.is_empty() {
                    transport.publish(messages, outcomes).await;
                }
            },
        ))
        .await;
        for (indices, _, part) in &mut parts {
            for (place, &index) in indices.iter().enumerate() {
                if let Some(outcome) = part.take(place) {
                    outcomes.set(index, outcome);
                }
            }
        }
    }
}

fn no_route(message: &Message) -> Error {
    Error::new(ErrorKind::Unroutable, "publish")
        .describe(format!("no route matches the topic {:?}; add one", &**message.topic()))
        .not_applied()
}

/// A pattern of topics: `*` stands for any characters within one dot-separated word, `**` for any characters at all.
#[derive(Clone, PartialEq, Eq)]
pub struct TopicPattern(String);

impl TopicPattern {
    /// Whether `topic` matches.
    ///
    /// ```
    /// # use pillarbox_core::TopicPattern;
    /// let pattern: TopicPattern = "orders.*".parse()?;
    /// assert!(pattern.matches("orders.created"));
    /// assert!(!pattern.matches("orders.created.v2"));
    /// assert!("orders.**".parse::<TopicPattern>()?.matches("orders.created.v2"));
    /// # Ok::<(), pillarbox_core::Error>(())
    /// ```
    pub fn matches(&self, topic: &str) -> bool {
        matches(self.0.as_bytes(), topic.as_bytes())
    }
}

impl std::str::FromStr for TopicPattern {
    type Err = Error;

    fn from_str(pattern: &str) -> Result<Self, Error> {
        if pattern.is_empty() {
            return Err(Error::new(ErrorKind::Misconfigured, "route")
                .describe("a route has an empty topic pattern; `**` matches every topic"));
        }
        Ok(Self(pattern.to_owned()))
    }
}

impl fmt::Debug for TopicPattern {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(formatter)
    }
}

/// Iterative glob matching with one point of return per kind of star: linear memory, no exponential patterns.
fn matches(pattern: &[u8], topic: &[u8]) -> bool {
    let (mut at_pattern, mut at_topic) = (0, 0);
    let mut word_star: Option<(usize, usize)> = None;
    let mut any_star: Option<(usize, usize)> = None;
    loop {
        if pattern[at_pattern..].starts_with(b"**") {
            at_pattern += 2;
            (any_star, word_star) = (Some((at_pattern, at_topic)), None);
        } else if pattern.get(at_pattern) == Some(&b'*') {
            at_pattern += 1;
            word_star = Some((at_pattern, at_topic));
        } else if at_topic < topic.len() && pattern.get(at_pattern) == topic.get(at_topic) {
            at_pattern += 1;
            at_topic += 1;
        } else if at_pattern == pattern.len() && at_topic == topic.len() {
            return true;
        } else if let Some((after, from)) =
            word_star.filter(|&(_, from)| topic.get(from).is_some_and(|byte| *byte != b'.'))
        {
            word_star = Some((after, from + 1));
            (at_pattern, at_topic) = (after, from + 1);
        } else if let Some((after, from)) = any_star.filter(|&(_, from)| from < topic.len()) {
            (any_star, word_star) = (Some((after, from + 1)), None);
            (at_pattern, at_topic) = (after, from + 1);
        } else {
            return false;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn patterns() {
        let cases = [
            ("**", "a.b.c", true),
            ("*", "a.b", false),
            ("a.*.c", "a.b.c", true),
            ("a.*.c", "a.b.d.c", false),
            ("a.**.c", "a.b.d.c", true),
            ("a.*-x.*", "a.b-c-x.d", true),
            ("**.x*", "a.x.b.xyz", true),
            ("*.*.b", "a.b", false),
            ("a", "a", true),
            ("a", "ab", false),
            ("ab*", "ab", true),
            ("*a*a*a*a*a*b", "aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa", false),
        ];
        for (pattern, topic, expected) in cases {
            assert_eq!(
                pattern.parse::<TopicPattern>().unwrap().matches(topic),
                expected,
                "{pattern} on {topic}"
            );
        }
        assert!("".parse::<TopicPattern>().is_err());
    }
}
