//! What is on the wire.

use crate::support::{Server, config, failure, message, publish, status, transport};
use axum::body::Body;
use axum::http::{Method, Response};
use base64::Engine as _;
use pillarbox_core::{
    CloudEvents, Destination, Effect, ErrorKind, Message, MessageId, Registry, Timestamp, Transport as _,
};
use pillarbox_http::{DRIVER, HttpTransport};
use std::time::Duration;

#[tokio::test]
async fn the_example_of_cloudevents() {
    let server = Server::start();
    let config = config(&server).source(CloudEvents::new("/mycontext/subcontext").unwrap());
    let transport = HttpTransport::new(config).unwrap();
    let created_at = Timestamp::from_millis(1_522_900_584_000);
    let message = Message::given(MessageId::from_bytes([0x11; 16]), created_at, "com.example.someevent")
        .content_type("application/json; charset=utf-8")
        .payload("{}")
        .unwrap();
    assert!(publish(&transport, &[message]).await.outcome(0).unwrap().is_ok());
    let request = server.requests().remove(0);
    assert_eq!((request.method, request.path.as_str()), (Method::POST, "/in"));
    for (name, value) in [
        ("ce-specversion", "1.0"),
        ("ce-type", "com.example.someevent"),
        ("ce-time", "2018-04-05T03:56:24Z"),
        ("ce-id", "11111111-1111-1111-1111-111111111111"),
        ("ce-source", "/mycontext/subcontext"),
        ("content-type", "application/json; charset=utf-8"),
    ] {
        assert_eq!(request.headers[name], value, "{name}");
    }
    assert_eq!(&request.body[..], b"{}");
}

#[tokio::test]
async fn a_receiver_can_verify_the_signature() {
    let server = Server::start();
    let key = [7; 32];
    let secret = format!("whsec_{}", base64::engine::general_purpose::STANDARD.encode(key));
    let transport = HttpTransport::new(config(&server).secret(&secret).unwrap()).unwrap();
    publish(&transport, &[message("orders", None, "signed")]).await;
    let request = server.requests().remove(0);
    let header = |name: &str| request.headers[name].to_str().unwrap();
    assert_eq!(header("webhook-id"), header("ce-id"));
    let signed = format!("{}.{}.signed", header("webhook-id"), header("webhook-timestamp"));
    let signature = header("webhook-signature").strip_prefix("v1,").unwrap();
    let signature = base64::engine::general_purpose::STANDARD.decode(signature).unwrap();
    let key = ring::hmac::Key::new(ring::hmac::HMAC_SHA256, &key);
    ring::hmac::verify(&key, signed.as_bytes(), &signature).unwrap();
    let shown = format!("{transport:?}");
    assert!(!shown.contains(&secret[6..]), "{shown}");
}

#[tokio::test]
async fn opens_by_url_through_the_registry_and_authenticates() {
    let server = Server::start();
    let registry = Registry::new().with_transport(DRIVER);
    let url = |options: &str| {
        format!("http://ann:s3cret@{}/in?key=1&transport.allow_private=true{options}", server.address)
    };
    let mut outcomes = pillarbox_core::Outcomes::new();
    for options in ["", "&transport.authorization=Bearer%20t0ken"] {
        let transport = registry.transport(&url(options)).await.unwrap();
        outcomes.reset(1);
        transport.publish(&[message("orders", None, "x")], &mut outcomes).await;
        assert!(outcomes.outcome(0).unwrap().is_ok());
    }
    let requests = server.requests();
    assert_eq!(requests[0].path, "/in?key=1");
    assert_eq!(requests[0].headers["authorization"], "Basic YW5uOnMzY3JldA==");
    assert_eq!(requests[1].headers["authorization"], "Bearer t0ken");
    let error = registry.transport(&url("&transport.retries=3")).await.unwrap_err();
    assert!(
        error.to_string().contains("`transport.timeout`") && !error.report().contains("s3cret"),
        "{error}"
    );
}

#[tokio::test]
async fn a_name_that_leads_to_this_machine_is_refused() {
    let server = Server::start();
    let url = format!("http://localhost:{}/in", server.address.port());
    let guarded = HttpTransport::open(&url).await.unwrap();
    let error = failure(&guarded, message("orders", None, "x")).await;
    assert_eq!((error.kind(), error.effect()), (ErrorKind::Misconfigured, Effect::NotApplied), "{error:?}");
    assert!(error.to_string().contains("transport.allow_private"), "{error}");
    assert_eq!(guarded.probe(Destination::ONLY).await.unwrap_err().kind(), ErrorKind::Misconfigured);
    assert!(server.requests().is_empty());
    let allowed = HttpTransport::open(&format!("{url}?transport.allow_private=true")).await.unwrap();
    assert!(publish(&allowed, &[message("orders", None, "x")]).await.outcome(0).unwrap().is_ok());
    assert_eq!(HttpTransport::open(&server.url()).await.unwrap_err().kind(), ErrorKind::Misconfigured);
}

#[tokio::test]
async fn redirects_are_not_followed() {
    let elsewhere = Server::start();
    let location = elsewhere.url();
    let server = Server::answering(move |_| {
        Response::builder().status(307).header("location", &location).body(Body::empty()).unwrap()
    });
    let error = failure(&transport(&server), message("orders", None, "x")).await;
    assert_eq!(error.kind(), ErrorKind::Misconfigured);
    assert!(error.to_string().contains("redirects are not followed"), "{error}");
    assert!(elsewhere.requests().is_empty());
}

#[tokio::test]
async fn after_an_answer_about_the_endpoint_the_rest_is_not_sent() {
    for (code, kind) in [(429, ErrorKind::Unavailable), (401, ErrorKind::Misconfigured)] {
        let server = Server::answering(move |_| {
            Response::builder().status(code).header("retry-after", "7").body(Body::empty()).unwrap()
        });
        let transport = HttpTransport::new(config(&server).concurrency(2)).unwrap();
        let batch: Vec<_> = (0..50).map(|_| message("orders", None, "x")).collect();
        let outcomes = publish(&transport, &batch).await;
        for index in 0..50 {
            let error = outcomes.outcome(index).unwrap().as_ref().unwrap_err();
            assert_eq!((error.kind(), error.effect()), (kind, Effect::NotApplied));
            assert_eq!(error.requested_pause(), Some(Duration::from_secs(7)));
        }
        assert!(server.requests().len() <= 4, "{} requests", server.requests().len());
    }
}

#[tokio::test]
async fn one_message_of_a_key_is_on_its_way_and_the_next_waits_for_its_success() {
    let server = Server::answering(|request| status(if &request.body[..] == b"a2" { 422 } else { 200 }));
    let batch = ["a1", "b1", "a2", "b2", "a3", "b3", "a4"]
        .map(|payload| message("orders", Some(&payload[..1]), payload));
    let outcomes = publish(&transport(&server), &batch).await;
    let failed: Vec<_> =
        (0..batch.len()).filter(|index| outcomes.outcome(*index).unwrap().is_err()).collect();
    assert_eq!(failed, [2, 4, 6]);
    let of_key = |key: &str| -> Vec<_> {
        let all = server.requests().into_iter().map(|one| String::from_utf8(one.body.to_vec()).unwrap());
        all.filter(|payload| payload.starts_with(key)).collect()
    };
    assert_eq!(of_key("a"), ["a1", "a2"]);
    assert_eq!(of_key("b"), ["b1", "b2", "b3"]);
}

#[tokio::test]
async fn an_answer_without_end_is_read_up_to_a_limit() {
    let server = Server::answering(|_| {
        let endless = futures_util::stream::repeat_with(|| Ok::<_, std::io::Error>("x".repeat(10_000)));
        Response::builder().status(200).body(Body::from_stream(endless)).unwrap()
    });
    let transport = HttpTransport::new(config(&server).timeout(Duration::from_secs(30))).unwrap();
    assert!(publish(&transport, &[message("orders", None, "x")]).await.outcome(0).unwrap().is_ok());
    assert!(publish(&transport, &[message("orders", None, "x")]).await.outcome(0).unwrap().is_ok());
}

/// The status is said by then.
#[tokio::test]
async fn an_answer_whose_body_never_comes_is_one() {
    let server = Server::answering(|request| {
        let never = futures_util::stream::pending::<Result<String, std::io::Error>>();
        let code = if &request.body[..] == b"refused" { 422 } else { 200 };
        Response::builder().status(code).body(Body::from_stream(never)).unwrap()
    });
    let transport = HttpTransport::new(config(&server).timeout(Duration::from_secs(2))).unwrap();
    let batch = ["taken", "refused"].map(|payload| message("orders", None, payload));
    let outcomes = publish(&transport, &batch).await;
    assert!(outcomes.outcome(0).unwrap().is_ok());
    assert_eq!(outcomes.outcome(1).unwrap().as_ref().unwrap_err().kind(), ErrorKind::Rejected);
}

#[tokio::test]
async fn what_the_endpoint_says_is_part_of_the_reason() {
    let server = Server::answering(|_| {
        Response::builder()
            .status(422)
            .body(Body::from("no such\norder".to_owned() + &"!".repeat(9_000)))
            .unwrap()
    });
    let error = failure(&transport(&server), message("orders", None, "x")).await;
    assert!(error.to_string().contains("422 Unprocessable Entity: no such order!!!"), "{error}");
    assert!(error.to_string().len() < 400, "{error}");
}

#[tokio::test]
async fn a_probe_asks_the_path_that_it_was_given() {
    let server = Server::answering(|request| status(if request.path == "/health" { 503 } else { 405 }));
    transport(&server).probe(Destination::ONLY).await.unwrap();
    let with_path = HttpTransport::new(config(&server).probe("/health").unwrap()).unwrap();
    assert_eq!(with_path.probe(Destination::ONLY).await.unwrap_err().kind(), ErrorKind::Unavailable);
    let asked: Vec<_> = server.requests().into_iter().map(|one| (one.method, one.path)).collect();
    assert_eq!(asked, [(Method::OPTIONS, "/in".to_owned()), (Method::GET, "/health".to_owned())]);
}
