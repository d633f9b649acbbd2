//! What brokers and topics do not take. A broker that refuses at will is librdkafka's own, made for tests of clients.

use crate::support::{
    TOPIC, all_ok, config, connect, failure, message, payloads, publish, server, transport,
};
use pillarbox_core::{Destination, Effect, ErrorKind, Message, Outcomes, Transport as _};
use pillarbox_kafka::{KafkaConfig, KafkaTransport};
use rdkafka::ClientConfig;
use rdkafka::consumer::{BaseConsumer, Consumer as _};
use rdkafka::error::{KafkaError, RDKafkaErrorCode};
use rdkafka::message::Message as _;
use rdkafka::mocking::MockCluster;
use rdkafka::producer::DefaultProducerContext;
use rdkafka::types::{RDKafkaApiKey, RDKafkaRespErr};
use rdkafka::{Offset, TopicPartitionList};
use std::time::Duration;

type Brokers = MockCluster<'static, DefaultProducerContext>;

/// Brokers with the topic, in one partition.
fn brokers(count: i32) -> Brokers {
    let brokers = MockCluster::new(count).unwrap();
    brokers.create_topic(TOPIC, 1, count).unwrap();
    brokers
}

fn settings(brokers: &Brokers) -> KafkaConfig {
    KafkaConfig::from_url(&format!("kafka://{}", brokers.bootstrap_servers())).unwrap()
}

/// A transport that knows the topic already.
async fn warm(brokers: &Brokers) -> KafkaTransport {
    let transport = connect(settings(brokers)).await;
    all_ok(&publish(&transport, &[message(TOPIC, None, "warm")]).await);
    transport
}

/// The next requests to store records end so.
fn refuse(brokers: &Brokers, errors: &[RDKafkaRespErr]) {
    brokers.request_errors(RDKafkaApiKey::Produce, errors);
}

/// What is in the topic's partition, up to a message that says `end`.
async fn arrived(brokers: &Brokers, transport: &KafkaTransport) -> Vec<String> {
    all_ok(&publish(transport, &[message(TOPIC, None, "end")]).await);
    let addresses = brokers.bootstrap_servers();
    let read = tokio::task::spawn_blocking(move || {
        let consumer: BaseConsumer = ClientConfig::new()
            .set("bootstrap.servers", addresses)
            .set("group.id", "tests")
            .set("enable.auto.commit", "false")
            .create()
            .unwrap();
        let mut assignment = TopicPartitionList::new();
        assignment.add_partition_offset(TOPIC, 0, Offset::Offset(0)).unwrap();
        consumer.assign(&assignment).unwrap();
        let mut arrived = Vec::new();
        loop {
            let message = match consumer.poll(crate::support::HANGS).expect("the end does not arrive") {
                Ok(message) => message,
                // One of several is away.
                Err(KafkaError::MessageConsumption(
                    RDKafkaErrorCode::BrokerTransportFailure | RDKafkaErrorCode::AllBrokersDown,
                )) => continue,
                Err(error) => panic!("{error}"),
            };
            match std::str::from_utf8(message.payload().unwrap()).unwrap() {
                "end" => return arrived,
                "warm" => {}
                payload => arrived.push(payload.to_owned()),
            }
        }
    });
    read.await.unwrap()
}

fn keyed(count: usize) -> Vec<Message> {
    (1..=count).map(|number| message(TOPIC, Some("k"), &number.to_string())).collect()
}

/// The broker refuses a request for the sake of one record in it: each is asked about alone, and only that one is rejected.
#[tokio::test]
async fn nobody_is_rejected_for_a_neighbour() {
    let brokers = brokers(1);
    let transport = warm(&brokers).await;
    let batch: Vec<_> = (0..6).map(|number| message(TOPIC, None, &number.to_string())).collect();
    // One partition: whether they travel in one request or in more, the first ones are refused, and asked about again in order.
    let large = RDKafkaRespErr::RD_KAFKA_RESP_ERR_MSG_SIZE_TOO_LARGE;
    refuse(&brokers, &[large]);
    all_ok(&publish(&transport, &batch).await);
    let mut first = arrived(&brokers, &transport).await;
    first.sort();
    assert_eq!(first, ["0", "1", "2", "3", "4", "5"]);
    refuse(&brokers, &[large, large]);
    let mut outcomes = publish(&transport, &batch[..1]).await;
    let error = outcomes.take(0).unwrap().unwrap_err();
    assert_eq!((error.kind(), error.effect()), (ErrorKind::Rejected, Effect::NotApplied), "{error:?}");
    assert!(error.to_string().contains("max.message.bytes"), "{error}");
}

/// A message in the middle of a key is refused: what is stored of the key is what came before it.
#[tokio::test]
async fn behind_a_refused_message_its_key_stands_still() {
    let brokers = brokers(1);
    let transport = warm(&brokers).await;
    let (fine, denied) = (
        RDKafkaRespErr::RD_KAFKA_RESP_ERR_NO_ERROR,
        RDKafkaRespErr::RD_KAFKA_RESP_ERR_TOPIC_AUTHORIZATION_FAILED,
    );
    refuse(&brokers, &[fine, fine, denied]);
    let mut outcomes = publish(&transport, &keyed(6)).await;
    for index in 0..6 {
        let outcome = outcomes.take(index).unwrap();
        if index < 2 {
            assert!(outcome.is_ok(), "{outcome:?}");
            continue;
        }
        let error = outcome.unwrap_err();
        assert_eq!(
            (error.kind(), error.effect()),
            (ErrorKind::Misconfigured, Effect::NotApplied),
            "{error:?}"
        );
        assert_eq!(error.to_string().contains("one before it"), index > 2, "{error}");
    }
    assert_eq!(arrived(&brokers, &transport).await, ["1", "2"]);
}

/// What passes by itself is repeated by the producer, and no outcome tells of it.
#[tokio::test]
async fn what_passes_is_repeated_without_duplicates() {
    let brokers = brokers(3);
    let transport = warm(&brokers).await;
    refuse(
        &brokers,
        &[
            RDKafkaRespErr::RD_KAFKA_RESP_ERR_NOT_LEADER_FOR_PARTITION,
            RDKafkaRespErr::RD_KAFKA_RESP_ERR_NOT_ENOUGH_REPLICAS,
            // The broker ends the connection instead of answering.
            RDKafkaRespErr::RD_KAFKA_RESP_ERR__TRANSPORT,
        ],
    );
    all_ok(&publish(&transport, &keyed(5)).await);
    assert_eq!(arrived(&brokers, &transport).await, ["1", "2", "3", "4", "5"]);
}

/// The leader goes away and another broker takes over: no outage of the cluster.
#[tokio::test]
async fn another_leader_takes_over() {
    let brokers = brokers(3);
    brokers.partition_leader(TOPIC, 0, Some(1)).unwrap();
    let transport = warm(&brokers).await;
    brokers.broker_down(1).unwrap();
    brokers.partition_leader(TOPIC, 0, Some(2)).unwrap();
    all_ok(&publish(&transport, &keyed(5)).await);
    assert_eq!(arrived(&brokers, &transport).await, ["1", "2", "3", "4", "5"]);
}

/// No leader for longer than a message may wait: an outage, not the message's fault.
#[tokio::test]
async fn a_leader_that_stays_away_is_unavailable() {
    let brokers = brokers(3);
    brokers.partition_leader(TOPIC, 0, Some(1)).unwrap();
    let transport = connect(settings(&brokers).confirm_timeout(Duration::from_millis(500))).await;
    all_ok(&publish(&transport, &[message(TOPIC, None, "warm")]).await);
    // In this order: these brokers crash when they are sent what they have no leader for.
    brokers.broker_down(1).unwrap();
    brokers.partition_leader(TOPIC, 0, None).unwrap();
    let mut outcomes = publish(&transport, &keyed(2)).await;
    for index in 0..2 {
        let error = outcomes.take(index).unwrap().unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Unavailable, "{error:?}");
        assert!(error.to_string().contains("no leader"), "{error}");
    }
    brokers.partition_leader(TOPIC, 0, Some(2)).unwrap();
    let mut tries = 0;
    while !matches!(publish(&transport, &keyed(1)).await.outcome(0), Some(Ok(()))) {
        tries += 1;
        assert!(tries < 100, "the new leader is not noticed");
    }
}

#[tokio::test]
async fn a_user_who_may_not_write_is_misconfigured() {
    let brokers = brokers(1);
    let transport = warm(&brokers).await;
    refuse(&brokers, &[RDKafkaRespErr::RD_KAFKA_RESP_ERR_TOPIC_AUTHORIZATION_FAILED]);
    let error = failure(&transport, message(TOPIC, None, "x")).await;
    assert_eq!((error.kind(), error.effect()), (ErrorKind::Misconfigured, Effect::NotApplied), "{error:?}");
    assert!(error.to_string().contains("may not write"), "{error}");
    all_ok(&publish(&transport, &[message(TOPIC, None, "allowed by now")]).await);
}

/// The broker has lost what it knew of the producer: it is made anew, and nobody pays.
#[tokio::test]
async fn a_producer_that_the_broker_does_not_know_any_more() {
    let brokers = brokers(1);
    let transport = warm(&brokers).await;
    // From the first of these librdkafka does not recover; of the second it takes no notice.
    for code in [
        RDKafkaRespErr::RD_KAFKA_RESP_ERR_OUT_OF_ORDER_SEQUENCE_NUMBER,
        RDKafkaRespErr::RD_KAFKA_RESP_ERR_PRODUCER_FENCED,
    ] {
        refuse(&brokers, &[code]);
        let error = failure(&transport, message(TOPIC, None, "x")).await;
        assert_eq!((error.kind(), error.effect()), (ErrorKind::Unavailable, Effect::Unknown), "{error:?}");
        assert!(error.to_string().contains("made anew"), "{error}");
        all_ok(&publish(&transport, &[message(TOPIC, None, "x")]).await);
    }
}

/// The queue of the client is far smaller than a batch: the publish waits for room, also where two share it.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_full_queue_holds_the_publish_back() {
    let server = server();
    let transport = connect(config(&server).property("queue.buffering.max.messages", "7")).await;
    let batch = |name: &str| -> Vec<_> {
        (0..200).map(|number| message(TOPIC, None, &format!("{name}{number}"))).collect()
    };
    let (first, second) = (batch("a"), batch("b"));
    let (first, second) =
        futures_util::future::join(publish(&transport, &first), publish(&transport, &second)).await;
    all_ok(&first);
    all_ok(&second);
    assert_eq!(payloads(&server).await.len(), 400);
}

/// What no topic can be called, and what would be taken for something else, harms nobody.
#[tokio::test]
async fn names_that_kafka_does_not_have() {
    let server = server();
    let transport = transport(&server).await;
    let topics = ["orders created", "orders/created", "..", "__consumer_offsets", "b\u{fc}cher"];
    let mut batch: Vec<_> = topics.map(|topic| message(topic, None, "x")).into();
    batch.push(Message::to(TOPIC).header("ce_id", "another").payload("x").unwrap());
    batch.push(message(TOPIC, None, "y"));
    let mut outcomes = publish(&transport, &batch).await;
    for index in 0..batch.len() - 1 {
        let error = outcomes.take(index).unwrap().unwrap_err();
        assert_eq!((error.kind(), error.effect()), (ErrorKind::Rejected, Effect::NotApplied), "{error:?}");
    }
    assert!(outcomes.take(batch.len() - 1).unwrap().is_ok());
    assert_eq!(payloads(&server).await, ["y"]);
}

/// The largest payload passes with the largest headers, and librdkafka's own limit is never what decides.
#[tokio::test]
async fn the_limit_leaves_room_for_headers() {
    let server = server();
    let transport = connect(config(&server).max_payload(100_000)).await;
    assert_eq!(transport.guarantees(Destination::ONLY).max_payload, 100_000);
    let headers = |size: usize| {
        let most = (0..pillarbox_core::Limits::HEADERS).fold(Message::to(TOPIC), |message, number| {
            message.header(format!("h-{number:02}"), "v".repeat(250))
        });
        most.key("k".repeat(512)).payload(vec![b'x'; size]).unwrap()
    };
    let mut outcomes: Outcomes = publish(&transport, &[headers(100_000), headers(100_001)]).await;
    // Both have one key: the second fails for itself, after the first was confirmed.
    assert!(outcomes.take(0).unwrap().is_ok());
    let error = outcomes.take(1).unwrap().unwrap_err();
    assert_eq!((error.kind(), error.effect()), (ErrorKind::Rejected, Effect::NotApplied));
    assert!(error.to_string().contains("transport.max_payload"), "{error}");
}
