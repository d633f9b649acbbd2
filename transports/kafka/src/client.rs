//! The settings of librdkafka, and what it reports.

use crate::KafkaConfig;
use crate::config::ROOM;
use crate::error::{self, Loss};
use crate::flight::Ticket;
use rdkafka::client::ClientContext;
use rdkafka::config::ClientConfig;
use rdkafka::error::{KafkaError, RDKafkaErrorCode};
use rdkafka::message::{DeliveryResult, Message as _};
use rdkafka::producer::{NoCustomPartitioner, ProducerContext};
use std::sync::Arc;
use std::time::Duration;
use tokio::sync::watch;

/// How many messages a request may carry.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Sending {
    /// As many as fit.
    Batched,
    /// One, so that the broker's refusal is about that one.
    Single,
}

/// How long librdkafka waits before it connects again to a broker. When that was the last one, the producer is discarded meanwhile, and
/// nothing that it holds is sent again.
const RECONNECT: Duration = Duration::from_secs(1);

/// The settings of a producer.
pub(crate) fn settings(config: &KafkaConfig, sending: Sending) -> ClientConfig {
    let mut settings = ClientConfig::new();
    let milliseconds = |duration: Duration| duration.as_millis().max(1).to_string();
    settings
        .set("bootstrap.servers", config.brokers.join(","))
        .set("client.id", &config.client_id)
        .set("linger.ms", "0")
        .set("partitioner", "murmur2_random")
        .set("socket.nagle.disable", "true")
        .set("socket.keepalive.enable", "true")
        .set("reconnect.backoff.ms", milliseconds(RECONNECT))
        .set("socket.connection.setup.timeout.ms", milliseconds(config.connect_timeout.max(RECONNECT)));
    if let Some(login) = &config.login {
        settings
            .set("sasl.mechanism", config.sasl.mechanism())
            .set("sasl.username", &login.user)
            .set("sasl.password", &login.password);
    }
    let protocol = match (config.login.is_some(), config.tls) {
        (false, false) => "plaintext",
        (false, true) => "ssl",
        (true, false) => "sasl_plaintext",
        (true, true) => "sasl_ssl",
    };
    settings.set("security.protocol", protocol);
    for (name, path) in [
        ("ssl.ca.location", &config.root_certificates),
        ("ssl.certificate.location", &config.client_certificate),
        ("ssl.key.location", &config.client_key),
    ] {
        if let Some(path) = path {
            settings.set(name, path.display().to_string());
        }
    }
    for (name, value) in &config.properties {
        settings.set(name, value);
    }
    settings
        // With it `acks=all`, and five requests in flight.
        .set("enable.idempotence", "true")
        .set("message.timeout.ms", milliseconds(config.confirm_timeout))
        .set("message.max.bytes", (config.max_payload + ROOM).max(1_000).to_string())
        .set("allow.auto.create.topics", config.create_topics.to_string())
        // Whether a topic that was just created will be there in a moment is for the relay to find out.
        .set("topic.metadata.propagation.max.ms", if config.create_topics { "5000" } else { "0" });
    if sending == Sending::Single {
        settings.set("batch.num.messages", "1");
    }
    settings
}

/// What librdkafka says about the connection beside its delivery reports.
#[derive(Debug)]
pub(crate) struct Signs {
    condition: watch::Sender<Condition>,
}

#[derive(Debug, Default)]
struct Condition {
    /// Why no broker is left, and the producer is of no use any more.
    lost: Option<Loss>,
    /// How many connections were lost or could not be made.
    failures: u64,
    last_failure: String,
}

impl Signs {
    pub(crate) fn new() -> Self {
        Self { condition: watch::Sender::new(Condition::default()) }
    }

    pub(crate) fn loss(&self) -> Option<Loss> {
        let condition = self.condition.borrow();
        match &condition.lost {
            Some(Loss::Away(_)) if !condition.last_failure.is_empty() => {
                Some(Loss::Away(condition.last_failure.clone()))
            }
            lost => lost.clone(),
        }
    }

    pub(crate) fn failures(&self) -> u64 {
        self.condition.borrow().failures
    }

    /// Waits until the producer is lost or dropped.
    pub(crate) fn lost(&self) -> impl Future<Output = ()> + use<> {
        self.until(|condition| condition.lost.is_some())
    }

    /// Waits until a loss has its reason: librdkafka reports that no broker is left before, or after, it reports why.
    pub(crate) fn explained(&self) -> impl Future<Output = ()> + use<> {
        self.until(|condition| {
            !condition.last_failure.is_empty() || !matches!(condition.lost, Some(Loss::Away(_)))
        })
    }

    fn until<F: Fn(&Condition) -> bool>(&self, is_so: F) -> impl Future<Output = ()> + use<F> {
        let mut watch = self.condition.subscribe();
        async move {
            // The other end goes with the producer.
            let _ = watch.wait_for(is_so).await;
        }
    }

    /// Lets nobody use the producer any more. The first reason stands, unless a later one is what lies behind it.
    pub(crate) fn lose(&self, loss: Loss) {
        self.condition.send_if_modified(|condition| {
            let says_more = matches!(loss, Loss::Refused(_)) && matches!(condition.lost, Some(Loss::Away(_)));
            let is_first = condition.lost.is_none();
            if is_first || says_more {
                condition.lost = Some(loss);
            }
            is_first || says_more
        });
    }

    fn note(&self, code: RDKafkaErrorCode, words: &str) {
        match error::of_connection(code, words) {
            Some(loss) => self.lose(loss),
            None => self.condition.send_modify(|condition| {
                condition.failures += 1;
                words.clone_into(&mut condition.last_failure);
            }),
        }
    }
}

/// Where librdkafka reports to.
#[derive(Debug)]
pub(crate) struct Reports(pub(crate) Arc<Signs>);

impl ClientContext for Reports {
    fn error(&self, error: KafkaError, words: &str) {
        if let Some(code) = error.rdkafka_error_code() {
            self.0.note(code, words);
        }
    }
}

impl ProducerContext<NoCustomPartitioner> for Reports {
    type DeliveryOpaque = Box<Ticket>;

    fn delivery(&self, result: &DeliveryResult<'_>, ticket: Box<Ticket>) {
        ticket.land(match result {
            Ok(_) => Ok(()),
            // A report without a code is none that librdkafka makes.
            Err((error, message)) => {
                Err((error.rdkafka_error_code().unwrap_or(RDKafkaErrorCode::Unknown), message.partition()))
            }
        });
    }
}
