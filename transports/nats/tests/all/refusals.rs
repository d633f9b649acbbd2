//! What the server and its streams do not take.

use crate::support::{TOPIC, all_ok, failure, message, payloads, publish, server, stream, transport};
use async_nats::jetstream::stream::{Config, DiscardPolicy};
use pillarbox_core::{Destination, Effect, ErrorKind, Limits, Message, Transport as _};
use pillarbox_nats::NatsTransport;
use pillarbox_testkit::servers::NatsServer;

#[tokio::test]
async fn a_full_stream_is_unavailable_and_takes_nothing() {
    let server = NatsServer::start().unwrap();
    let full = Config { max_messages: 2, discard: DiscardPolicy::New, ..Config::default() };
    stream(&server, full).await;
    let transport = transport(&server).await;
    let batch: Vec<_> = (1..=4).map(|number| message(TOPIC, Some("k"), &number.to_string())).collect();
    let mut outcomes = publish(&transport, &batch).await;
    for index in 2..4 {
        let error = outcomes.take(index).unwrap().unwrap_err();
        assert_eq!((error.kind(), error.effect()), (ErrorKind::Unavailable, Effect::NotApplied), "{error:?}");
        assert!(error.to_string().contains("full"), "{error}");
    }
    assert_eq!(payloads(&server).await, ["1", "2"]);
}

#[tokio::test]
async fn a_message_that_the_stream_finds_too_large_is_rejected_alone() {
    let server = NatsServer::start().unwrap();
    stream(&server, Config { max_message_size: 1_000, ..Config::default() }).await;
    let transport = transport(&server).await;
    let batch =
        [message(TOPIC, None, "a"), message(TOPIC, None, &"x".repeat(2_000)), message(TOPIC, None, "b")];
    let mut outcomes = publish(&transport, &batch).await;
    let error = outcomes.take(1).unwrap().unwrap_err();
    assert_eq!((error.kind(), error.effect()), (ErrorKind::Rejected, Effect::NotApplied), "{error:?}");
    assert!(error.to_string().contains("max_msg_size"), "{error}");
    assert!(outcomes.take(0).unwrap().is_ok() && outcomes.take(2).unwrap().is_ok());
}

/// The server says what it takes, and learns nothing of what is larger: it would end the connection.
#[tokio::test]
async fn the_server_s_own_limit_is_known() {
    let server = NatsServer::start_with("max_payload: 65536").unwrap();
    stream(&server, Config::default()).await;
    let transport = transport(&server).await;
    let limit = transport.guarantees(Destination::ONLY).max_payload as usize;
    assert_eq!(limit, 65_536 - 20 * 1024);
    let headers = |size: usize| {
        let most = (0..Limits::HEADERS).fold(Message::to(TOPIC), |message, number| {
            message.header(format!("h-{number:02}"), "v".repeat(250))
        });
        most.key("k".repeat(512)).payload(vec![b'x'; size]).unwrap()
    };
    all_ok(&publish(&transport, &[headers(limit)]).await);
    let error = failure(&transport, headers(limit + 1)).await;
    assert_eq!((error.kind(), error.effect()), (ErrorKind::Rejected, Effect::NotApplied));
    assert!(error.to_string().contains("max_payload"), "{error}");
    // A setting may be nearer to the server's limit than headers allow: the whole message counts then.
    let url = format!("{}?transport.max_payload=65536", server.url());
    let wide = NatsTransport::open(&url).await.unwrap();
    all_ok(&publish(&wide, &[Message::to(TOPIC).payload(vec![b'x'; 65_000]).unwrap()]).await);
    let error = failure(&wide, headers(65_000)).await;
    assert_eq!(error.kind(), ErrorKind::Rejected);
    assert!(error.to_string().contains("with its headers"), "{error}");
    all_ok(&publish(&transport, &[message(TOPIC, None, "the connection lives")]).await);
}

#[tokio::test]
async fn another_stream_than_the_expected_one() {
    let server = server().await;
    let transport = NatsTransport::open(&format!("{}?transport.stream=OTHER", server.url())).await.unwrap();
    let error = failure(&transport, message(TOPIC, None, "x")).await;
    assert_eq!((error.kind(), error.effect()), (ErrorKind::Unroutable, Effect::NotApplied), "{error:?}");
    assert!(error.to_string().contains("transport.stream"), "{error}");
    assert!(payloads(&server).await.is_empty());
}

/// A topic could otherwise command the server: subjects of its own delete streams.
#[tokio::test]
async fn a_topic_that_is_no_subject_harms_nobody() {
    let server = server().await;
    let transport = transport(&server).await;
    let topics =
        ["$JS.API.STREAM.DELETE.ORDERS", "orders.*", "orders.>", "orders..created", "orders created"];
    let mut batch: Vec<_> = topics.map(|topic| message(topic, None, "x")).into();
    batch.push(Message::to(TOPIC).header("Nats-Rollup", "all").payload("x").unwrap());
    batch.push(message(TOPIC, None, "y"));
    let mut outcomes = publish(&transport, &batch).await;
    for index in 0..batch.len() - 1 {
        let error = outcomes.take(index).unwrap().unwrap_err();
        assert_eq!((error.kind(), error.effect()), (ErrorKind::Rejected, Effect::NotApplied), "{error:?}");
    }
    assert!(outcomes.take(batch.len() - 1).unwrap().is_ok());
    assert_eq!(payloads(&server).await, ["y"]);
}

/// Somebody answers on the subject who is no stream.
#[tokio::test]
async fn a_service_on_the_subject_is_no_stream() {
    let server = server().await;
    let client = async_nats::connect(server.url()).await.unwrap();
    let mut requests = client.subscribe("service").await.unwrap();
    client.flush().await.unwrap();
    let transport = transport(&server).await;
    let answering = async {
        use futures_util::StreamExt as _;
        let request = requests.next().await.unwrap();
        client.publish(request.reply.unwrap(), "pong".into()).await.unwrap();
        client.flush().await.unwrap();
    };
    let (error, ()) =
        futures_util::future::join(failure(&transport, message("service", None, "x")), answering).await;
    assert_eq!((error.kind(), error.effect()), (ErrorKind::Unexpected, Effect::Unknown), "{error:?}");
}
