//! What several tests need: nodes, places of their own on them, and a look at the broker by other means than the transport.

use lapin::message::BasicGetMessage;
use lapin::options::{
    BasicGetOptions, ExchangeDeclareOptions, QueueBindOptions, QueueDeclareOptions, QueuePurgeOptions,
};
use lapin::types::FieldTable;
use lapin::{Channel, Connection, ConnectionProperties, ExchangeKind};
use pillarbox_core::{Destination, Effect, Error, ErrorKind, Message, Outcomes, Transport as _};
use pillarbox_rabbitmq::{RabbitMqConfig, RabbitMqTransport};
use pillarbox_testkit::servers::{Proxy, RabbitMqNode, RabbitMqVirtualHost};
use std::collections::BTreeMap;
use std::sync::OnceLock;
use std::time::{Duration, Instant};
use tokio::sync::{Mutex, MutexGuard};

/// A publish that takes longer hangs: far above every timeout that the tests set.
const HANGS: Duration = Duration::from_secs(60);

/// The queue of a place. By the default exchange its name is its topic.
pub(crate) const QUEUE: &str = "orders.created";

/// The node of the tests that harm their broker, one at a time. Messages above 64 KiB close a channel there.
pub(crate) async fn own_node() -> (&'static RabbitMqNode, MutexGuard<'static, ()>) {
    static NODE: OnceLock<RabbitMqNode> = OnceLock::new();
    static TURN: Mutex<()> = Mutex::const_new(());
    let turn = TURN.lock().await;
    let node = NODE.get_or_init(|| RabbitMqNode::start_with("max_message_size = 65536").unwrap());
    if node.process().process_id().is_none() {
        // The test before failed in the middle of an outage.
        node.restart().unwrap();
    }
    (node, turn)
}

/// A virtual host of a test's own with a durable queue, and a connection of the test's own to it.
pub(crate) struct Place {
    pub(crate) host: RabbitMqVirtualHost<'static>,
    reader: Mutex<Option<(Connection, Channel)>>,
}

impl Place {
    /// On the node that all tests share.
    pub(crate) async fn shared() -> Self {
        Self::on(RabbitMqNode::shared().unwrap()).await
    }

    pub(crate) async fn on(node: &'static RabbitMqNode) -> Self {
        let place = Self { host: node.virtual_host().unwrap(), reader: Mutex::new(None) };
        place.queue(QUEUE, FieldTable::default()).await;
        place
    }

    pub(crate) fn url(&self) -> String {
        self.host.url()
    }

    pub(crate) fn proxy(&self) -> Proxy {
        Proxy::start(self.host.node().address()).unwrap()
    }

    /// A transport with the settings `options`, as in a URL, and short timeouts.
    pub(crate) async fn transport(&self, options: &str) -> RabbitMqTransport {
        connect(&format!("{}?{options}", self.url())).await
    }

    /// The same, through the proxy.
    pub(crate) async fn behind(&self, proxy: &Proxy, options: &str) -> RabbitMqTransport {
        connect(&proxy.through(&format!("{}?{options}", self.url()))).await
    }

    /// A channel of the test's own, opened again after an outage.
    pub(crate) async fn channel(&self) -> Channel {
        let mut reader = self.reader.lock().await;
        if let Some((_, channel)) = reader.as_ref().filter(|(_, channel)| channel.status().connected()) {
            return channel.clone();
        }
        let deadline = Instant::now() + HANGS;
        loop {
            let connected = Connection::connect(&self.url(), ConnectionProperties::default()).await;
            match connected {
                Ok(connection) => {
                    let channel = connection.create_channel().await.unwrap();
                    *reader = Some((connection, channel.clone()));
                    return channel;
                }
                // A node that was started again lets nobody in for a moment.
                Err(error) => assert!(Instant::now() < deadline, "{error}"),
            }
        }
    }

    pub(crate) async fn queue(&self, name: &str, arguments: FieldTable) {
        let options = QueueDeclareOptions { durable: true, ..QueueDeclareOptions::default() };
        self.channel().await.queue_declare(name.into(), options, arguments).await.unwrap();
    }

    pub(crate) async fn exchange(&self, name: &str, kind: ExchangeKind) {
        let options = ExchangeDeclareOptions { durable: true, ..ExchangeDeclareOptions::default() };
        let channel = self.channel().await;
        channel.exchange_declare(name.into(), kind, options, FieldTable::default()).await.unwrap();
    }

    pub(crate) async fn bind(&self, exchange: &str, topic: &str) {
        let (channel, options) = (self.channel().await, QueueBindOptions::default());
        let arguments = FieldTable::default();
        channel.queue_bind(QUEUE.into(), exchange.into(), topic.into(), options, arguments).await.unwrap();
    }

    pub(crate) async fn purge(&self) {
        self.channel().await.queue_purge(QUEUE.into(), QueuePurgeOptions::default()).await.unwrap();
    }

    /// Takes everything out of the queue, in order.
    pub(crate) async fn take_all(&self) -> Vec<BasicGetMessage> {
        let channel = self.channel().await;
        let mut taken = Vec::new();
        while let Some(message) =
            channel.basic_get(QUEUE.into(), BasicGetOptions { no_ack: true }).await.unwrap()
        {
            taken.push(message);
        }
        taken
    }

    /// How often each id is in the queue. Takes all of it out.
    pub(crate) async fn arrivals(&self) -> BTreeMap<String, u32> {
        let mut arrivals = BTreeMap::new();
        for message in self.take_all().await {
            let id = message.delivery.properties.message_id().as_ref().unwrap().to_string();
            *arrivals.entry(id).or_default() += 1;
        }
        arrivals
    }
}

pub(crate) async fn connect(url: &str) -> RabbitMqTransport {
    let config = RabbitMqConfig::from_url(url).unwrap();
    RabbitMqTransport::connect(config).await.unwrap_or_else(|error| panic!("{}", error.report()))
}

/// The error of opening, which must not open.
pub(crate) async fn refused(url: &str) -> Error {
    let opened = tokio::time::timeout(HANGS, RabbitMqTransport::open(url)).await;
    opened.expect("opening hangs").expect_err("it opened")
}

pub(crate) fn message(topic: &str) -> Message {
    Message::to(topic.to_owned()).payload("{}").unwrap()
}

/// Messages of `size` bytes to the queue.
pub(crate) fn messages(count: usize, size: usize) -> Vec<Message> {
    (0..count).map(|_| Message::to(QUEUE).payload(vec![b'x'; size]).unwrap()).collect()
}

/// Publishes to the end, and fails if there is none.
pub(crate) async fn publish(transport: &RabbitMqTransport, batch: &[Message]) -> Outcomes {
    let mut outcomes = Outcomes::new();
    outcomes.reset(batch.len());
    let published = tokio::time::timeout(HANGS, transport.publish(batch, &mut outcomes)).await;
    published.expect("the publish hangs");
    assert!(outcomes.is_complete(), "a message has no outcome: {outcomes:?}");
    outcomes
}

pub(crate) fn is_ok(outcomes: &Outcomes, index: usize) -> bool {
    matches!(outcomes.outcome(index), Some(Ok(())))
}

pub(crate) fn error_at(outcomes: &Outcomes, index: usize) -> &Error {
    match outcomes.outcome(index) {
        Some(Err(error)) => error,
        other => panic!("message {index} has {other:?} and no error"),
    }
}

pub(crate) fn all_ok(outcomes: &Outcomes) {
    for index in 0..outcomes.len() {
        assert!(is_ok(outcomes, index), "message {index}: {:?}", outcomes.outcome(index));
    }
}

/// Every message has an error of this kind and effect.
pub(crate) fn all_failed(outcomes: &Outcomes, kind: ErrorKind, effect: Effect) {
    for index in 0..outcomes.len() {
        let error = error_at(outcomes, index);
        assert_eq!((error.kind(), error.effect()), (kind, effect), "{}", error.report());
    }
}

/// How many are `Ok`, failed certainly, and failed perhaps. Every failure is of this kind.
#[derive(Debug, Default)]
pub(crate) struct Tally {
    pub(crate) ok: usize,
    pub(crate) not_applied: usize,
    pub(crate) unknown: usize,
}

impl Tally {
    pub(crate) fn of(outcomes: &Outcomes, kind: ErrorKind) -> Self {
        let mut tally = Self::default();
        for index in 0..outcomes.len() {
            if is_ok(outcomes, index) {
                tally.ok += 1;
                continue;
            }
            let error = error_at(outcomes, index);
            assert_eq!(error.kind(), kind, "{}", error.report());
            match error.effect() {
                Effect::NotApplied => tally.not_applied += 1,
                Effect::Unknown => tally.unknown += 1,
            }
        }
        tally
    }
}

/// What is `Ok` is in the queue once, and what is `NotApplied` is not; then the failed ones are sent again, and all have arrived.
pub(crate) async fn nothing_is_lost(
    place: &Place,
    transport: &RabbitMqTransport,
    batch: &[Message],
    outcomes: &Outcomes,
) {
    let mut arrived = place.arrivals().await;
    for (index, message) in batch.iter().enumerate() {
        let times = arrived.get(&message.id().to_string()).copied().unwrap_or(0);
        match outcomes.outcome(index) {
            Some(Ok(())) => assert_eq!(times, 1, "message {index} was confirmed"),
            Some(Err(error)) if error.effect() == Effect::NotApplied => {
                assert_eq!(times, 0, "message {index} was not applied");
            }
            _ => assert!(times <= 1, "message {index} arrived {times} times"),
        }
    }
    let failed = |index: &usize| !is_ok(outcomes, *index);
    let rest: Vec<_> = (0..batch.len()).filter(failed).map(|index| batch[index].clone()).collect();
    all_ok(&publish(transport, &rest).await);
    for (id, times) in place.arrivals().await {
        *arrived.entry(id).or_default() += times;
    }
    for message in batch {
        assert!(arrived.remove(&message.id().to_string()).is_some(), "a message is lost");
    }
    assert!(arrived.is_empty(), "what nobody published arrived: {arrived:?}");
}

/// Runs `rabbitmqctl`. It may take long, and the connections of the test need their heartbeats meanwhile.
pub(crate) async fn control(node: &'static RabbitMqNode, words: &[&str]) -> String {
    let words: Vec<_> = words.iter().map(|word| (*word).to_owned()).collect();
    let run = move || node.control(&words.iter().map(String::as_str).collect::<Vec<_>>()).unwrap();
    tokio::task::spawn_blocking(run).await.unwrap()
}

/// Waits, bounded, until a condition holds.
pub(crate) async fn until(what: &str, mut holds: impl FnMut() -> bool) {
    let deadline = Instant::now() + HANGS;
    while !holds() {
        assert!(Instant::now() < deadline, "waited in vain until {what}");
        tokio::time::sleep(Duration::from_millis(1)).await;
    }
}

/// Waits, bounded, until a probe is answered.
pub(crate) async fn until_it_answers(transport: &RabbitMqTransport) {
    let deadline = Instant::now() + HANGS;
    while let Err(error) = transport.probe(Destination::ONLY).await {
        assert!(Instant::now() < deadline, "{}", error.report());
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
}
