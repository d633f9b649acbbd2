use super::run::{PATIENCE, Relay, outbox, run, run_with_input, status, text, wait_until};
use pillarbox_testkit::servers::{RedisServer, free_port};
use rustix::process::Signal;
use std::collections::HashSet;
use std::io::{Read as _, Write as _};
use std::net::TcpStream;

fn enqueue(url: &str, count: usize, payload: &str) {
    let input: String = (0..count)
        .map(|number| {
            format!(
                "{{\"topic\":\"orders.created\",\"key\":\"order-{}\",\"payload\":\"<{number}>{payload}\"}}\n",
                number % 5
            )
        })
        .collect();
    let output = run_with_input(&["enqueue", "--storage", url], &input);
    assert!(output.status.success(), "{}", text(&output.stderr));
}

/// The number between `<` and `>`.
fn number(line: &str) -> usize {
    let number = line.split_once('<').and_then(|(_, rest)| rest.split_once('>')).expect(line).0;
    number.parse().expect(line)
}

#[test]
fn everything_that_is_enqueued_arrives_in_order_per_key_and_sigterm_drains() {
    let server = RedisServer::start().unwrap();
    let url = outbox(&server, "orders");
    enqueue(&url, 2_000, "");
    let mut relay = Relay::start(&["relay", "--storage", &url, "--transport", "stdout:"]);
    let numbers: Vec<_> = (0..2_000).map(|_| number(&relay.line())).collect();
    relay.signal(Signal::TERM);
    let (code, errors) = relay.end();
    assert_eq!(code, Some(0), "{errors}");
    assert_eq!(numbers.iter().collect::<HashSet<_>>().len(), 2_000);
    for key in 0..5 {
        assert!(numbers.iter().filter(|number| *number % 5 == key).is_sorted(), "key {key}");
    }
    assert_eq!(
        errors.lines().filter(|line| line.contains("relaying from redis://127.0.0.1")).count(),
        1,
        "{errors}"
    );
    assert!(errors.contains("stopped; published 2000"), "{errors}");
    let status = status(&url);
    assert_eq!((status["pending"].as_u64(), status["claimed"].as_u64()), (Some(0), Some(0)));
}

#[test]
fn a_corrupt_record_is_buried_with_its_reason_and_stops_nobody() {
    let server = RedisServer::start().unwrap();
    let url = outbox(&server, "orders");
    enqueue(&url, 10, "");
    for list in ["{orders}:lane:0", "{orders}:inbox"] {
        server.command(&["RPUSH", list, "garbage"]).unwrap();
    }
    enqueue(&url, 10, "");
    let mut relay = Relay::start(&["relay", "--storage", &url, "--transport", "stdout:"]);
    let numbers: Vec<_> = (0..20).map(|_| number(&relay.line())).collect();
    assert_eq!(numbers.len(), 20);
    wait_until("both are buried", || status(&url)["dead"] == 2);
    relay.signal(Signal::TERM);
    assert_eq!(relay.end().0, Some(0));
    let list = text(&run(&["dead", "list", "--storage", &url]).stdout);
    assert!(
        list.lines().count() == 2 && list.lines().all(|line| line.contains("the record is no message")),
        "{list}"
    );
}

#[test]
fn a_relay_that_is_stopped_early_gives_the_rest_back_at_once() {
    let server = RedisServer::start().unwrap();
    let url = outbox(&server, "orders");
    // More than the pipe holds, so that the relay is in the middle when nobody reads.
    enqueue(&url, 3_000, &"x".repeat(1_000));
    let relay = ["relay", "--storage", &url, "--transport", "stdout:", "--batch-size", "50"];
    let mut first = Relay::start(&relay);
    let mut seen: HashSet<_> = (0..100).map(|_| number(&first.line())).collect();
    first.signal(Signal::INT);
    seen.extend(first.rest().iter().map(|line| number(line)));
    let (code, errors) = first.end();
    assert_eq!(code, Some(0), "{errors}");
    // The lease is 30 s: whatever was not given back would be missing for that long.
    let mut second = Relay::start(&relay);
    let start = std::time::Instant::now();
    while seen.len() < 3_000 {
        seen.insert(number(&second.line()));
    }
    assert!(start.elapsed().as_secs() < 25, "{:?}", start.elapsed());
    second.signal(Signal::TERM);
    assert_eq!(second.end().0, Some(0));
}

/// The status and the body.
fn get(port: u16, path: &str) -> Option<(u16, String)> {
    let mut stream = TcpStream::connect(("127.0.0.1", port)).ok()?;
    stream.set_read_timeout(Some(PATIENCE)).ok()?;
    write!(stream, "GET {path} HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n").ok()?;
    let mut answer = String::new();
    stream.read_to_string(&mut answer).ok()?;
    let (head, body) = answer.split_once("\r\n\r\n")?;
    Some((head.split(' ').nth(1)?.parse().ok()?, body.to_owned()))
}

#[test]
fn health_and_metrics_are_served_and_an_outage_is_seen() {
    let server = RedisServer::options().append_only().start().unwrap();
    let url = outbox(&server, "orders");
    enqueue(&url, 10, "");
    let port = free_port().unwrap();
    let listen = format!("127.0.0.1:{port}");
    let mut relay = Relay::start(&[
        "relay",
        "--storage",
        &url,
        "--transport",
        "stdout:",
        "--listen",
        &listen,
        "--pause-limit",
        "200ms",
    ]);
    for _ in 0..10 {
        relay.line();
    }
    wait_until("ten messages are settled", || {
        get(port, "/metrics")
            .is_some_and(|(_, body)| body.lines().any(|line| line == "pillarbox_settled_messages_total 10"))
    });
    let (code, page) = get(port, "/metrics").unwrap();
    assert_eq!(code, 200);
    for line in [
        "pillarbox_store_up 1",
        "pillarbox_stored_messages{state=\"pending\"} 0",
        "pillarbox_buried_messages_total 0",
    ] {
        assert!(page.lines().any(|present| present == line), "{line} in {page}");
    }
    assert!(page.contains("pillarbox_publish_seconds_bucket{destination=\"0\",le=\"0.001\"}"), "{page}");
    let (code, body) = get(port, "/health").unwrap();
    let body: serde_json::Value = serde_json::from_str(&body).unwrap();
    assert_eq!((code, body["status"].as_str(), body["store"].as_str()), (200, Some("ok"), Some("up")));
    assert_eq!(get(port, "/ready").unwrap().0, 200);
    assert_eq!(get(port, "/nothing").unwrap().0, 404);

    server.kill();
    wait_until("the outage is seen", || get(port, "/ready").is_some_and(|(code, _)| code == 503));
    let (code, body) = get(port, "/health").unwrap();
    assert_eq!((code, body.contains("\"down\"")), (200, true), "{body}");
    server.restart().unwrap();
    wait_until("the relay is ready again", || get(port, "/ready").is_some_and(|(code, _)| code == 200));
    enqueue(&url, 1, "");
    assert_eq!(number(&relay.line()), 0);
    relay.signal(Signal::TERM);
    let (code, errors) = relay.end();
    assert_eq!(code, Some(0), "{errors}");
    for part in ["the store failed; it is tried again", "the store answers again", "draining", "stopping"] {
        assert!(errors.contains(part), "{part} in {errors}");
    }
}

#[test]
fn settings_come_from_the_environment_and_arguments_go_first() {
    let server = RedisServer::start().unwrap();
    let url = outbox(&server, "orders");
    let relay = |variables: &[(&str, &str)], arguments: &[&str]| {
        let mut command = super::run::program(&["relay"]);
        command
            .args(arguments)
            .env("PILLARBOX__STORAGE_URL", &url)
            .env("PILLARBOX__TRANSPORT_URL", "stdout:");
        let output = command.envs(variables.iter().copied()).output().unwrap();
        (output.status.code(), text(&output.stderr))
    };
    let (code, errors) = relay(&[("PILLARBOX__BATCH_SIZE", "many")], &[]);
    assert!(code == Some(2) && errors.contains("PILLARBOX__BATCH_SIZE is \"many\""), "{errors}");
    let (code, errors) = relay(&[("PILLARBOX__BATCHSIZE", "7")], &[]);
    assert!(code == Some(2) && errors.contains("did you mean PILLARBOX__BATCH_SIZE?"), "{errors}");
    let (code, errors) = relay(&[], &["--lease", "1ms"]);
    assert!(code == Some(2) && errors.contains("`lease` is 1ms"), "{errors}");
    let (code, errors) = relay(&[("PILLARBOX__BATCH_SIZE", "7")], &["--batch-size", "5000"]);
    assert!(code == Some(2) && errors.contains("`batch_size` is 5000"), "{errors}");
    let (code, errors) = relay(&[], &["--listen", "127.0.0.1:notaport"]);
    assert!(code == Some(2) && errors.contains("--listen"), "{errors}");
    let help = run(&["relay", "--help"]);
    assert!(help.status.success() && text(&help.stdout).contains("PILLARBOX__MAX_RETRY_COUNT"));
}
