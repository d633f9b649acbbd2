//! Several brokers behind one relay, by topic.

use super::run::{Relay, outbox, run, run_with_input, status, text, wait_until};
use pillarbox_testkit::servers::RedisServer;
use rustix::process::Signal;

fn enqueue(url: &str, topic: &str, count: usize) {
    let line = |number| {
        format!("{{\"topic\":\"{topic}\",\"key\":\"{topic}-{}\",\"payload\":\"{number}\"}}\n", number % 7)
    };
    let output = run_with_input(&["enqueue", "--storage", url], &(0..count).map(line).collect::<String>());
    assert!(output.status.success(), "{}", text(&output.stderr));
}

fn server() -> RedisServer {
    RedisServer::options().append_only().start().unwrap()
}

fn length(server: &RedisServer, stream: &str) -> usize {
    server.command(&["XLEN", stream]).unwrap().parse().unwrap()
}

/// The payloads of a stream, each once: the first time that it came.
fn first_arrivals(server: &RedisServer, stream: &str) -> Vec<usize> {
    let entries = server.command(&["XRANGE", stream, "-", "+"]).unwrap();
    let lines: Vec<_> = entries.lines().collect();
    let payloads = lines.windows(2).filter(|pair| pair[0] == "payload");
    let mut seen = Vec::new();
    for number in payloads.map(|pair| pair[1].parse().unwrap()) {
        if !seen.contains(&number) {
            seen.push(number);
        }
    }
    seen
}

fn all_in_order(server: &RedisServer, stream: &str, count: usize) {
    let arrived = first_arrivals(server, stream);
    assert_eq!(arrived.len(), count, "{stream}");
    for key in 0..7 {
        assert!(arrived.iter().filter(|number| *number % 7 == key).is_sorted(), "{stream}, key {key}");
    }
}

/// F9 and F26: a broker that is away holds up only its own messages, however many of them stand in front, and nothing is charged.
#[test]
fn a_broker_that_is_away_holds_up_no_other() {
    let (store, orders, invoices) = (server(), server(), server());
    let url = outbox(&store, "shop");
    invoices.kill();
    // Ten batches in front.
    enqueue(&url, "invoices.sent", 1_000);
    enqueue(&url, "orders.created", 300);
    let (to_orders, to_invoices) =
        (format!("orders.*={}", orders.url()), format!("invoices.*={}", invoices.url()));
    let arguments = ["relay", "--storage", &url, "--max-attempts", "1", "--pause-limit", "200ms"];
    let mut relay =
        Relay::start(&[&arguments[..], &["--route", &to_orders, "--route", &to_invoices]].concat());
    wait_until("all orders arrive", || length(&orders, "orders.created") >= 300);
    wait_until("the orders are settled", || status(&url)["pending"].as_u64() <= Some(1_000));

    // The other way round, while both run.
    invoices.restart().unwrap();
    wait_until("all invoices arrive", || length(&invoices, "invoices.sent") >= 1_000);
    orders.kill();
    enqueue(&url, "orders.created", 300);
    enqueue(&url, "invoices.paid", 200);
    wait_until("all later invoices arrive", || length(&invoices, "invoices.paid") >= 200);
    orders.restart().unwrap();
    // Those that were set aside are scheduled for later.
    wait_until("everything is settled", || {
        let status = status(&url);
        ["pending", "scheduled", "claimed"].iter().all(|state| status[state].as_u64() == Some(0))
    });
    assert_eq!(status(&url)["dead"].as_u64(), Some(0), "an outage buries nobody, even with one attempt");
    all_in_order(&invoices, "invoices.sent", 1_000);
    all_in_order(&invoices, "invoices.paid", 200);
    assert_eq!(first_arrivals(&orders, "orders.created").len(), 300);
    assert!(length(&orders, "orders.created") >= 600);
    relay.signal(Signal::TERM);
    let (code, errors) = relay.end();
    assert_eq!(code, Some(0), "{errors}");
    assert!(errors.contains("orders.* to redis://127.0.0.1"), "{errors}");
}

#[test]
fn the_first_route_that_matches_wins_and_the_transport_takes_the_rest() {
    let (store, vip, others) = (server(), server(), server());
    let url = outbox(&store, "shop");
    for topic in ["orders.vip", "orders.plain", "users.new"] {
        enqueue(&url, topic, 10);
    }
    let routes =
        [format!("orders.vip={}", vip.url()), format!("orders.*={}?transport.prefix=o:", others.url())];
    let mut command = super::run::program(&["relay", "--storage", &url, "--transport", &others.url()]);
    let mut relay = command.env("PILLARBOX__ROUTES", routes.join(" ")).spawn().unwrap();
    wait_until("each is where it belongs", || {
        (length(&vip, "orders.vip"), length(&others, "o:orders.plain"), length(&others, "users.new"))
            == (10, 10, 10)
    });
    relay.kill().unwrap();
    relay.wait().unwrap();
    assert_eq!(length(&others, "orders.vip") + length(&vip, "users.new"), 0);
}

#[test]
fn a_topic_without_a_route_is_buried_with_its_reason() {
    let (store, orders) = (server(), server());
    let url = outbox(&store, "shop");
    enqueue(&url, "invoices.sent", 1);
    enqueue(&url, "orders.created", 1);
    let route = format!("orders.*={}", orders.url());
    let mut relay = Relay::start(&["relay", "--storage", &url, "--route", &route, "--max-attempts", "1"]);
    wait_until("it is buried", || status(&url)["dead"] == 1);
    wait_until("the other one arrives", || length(&orders, "orders.created") == 1);
    relay.signal(Signal::TERM);
    assert_eq!(relay.end().0, Some(0));
    let list = text(&run(&["dead", "list", "--storage", &url]).stdout);
    assert!(list.contains("no route matches the topic \"invoices.sent\""), "{list}");
}

#[test]
fn a_route_that_cannot_be_used_is_refused_by_name_and_shows_no_secret() {
    let store = server();
    let url = outbox(&store, "shop");
    let secret = "hunter2-secret";
    for (route, part) in [
        (format!("redis://:{secret}@host/"), "PATTERN=URL"),
        (format!("redis://:{secret}@host/?transport.prefix=a"), "PATTERN=URL"),
        ("orders.*".to_owned(), "PATTERN=URL"),
        (format!("={secret}://host"), "PATTERN=URL"),
        (format!("orders.*=smtp://:{secret}@host/"), "the route `orders.*`: the scheme `smtp:`"),
        (format!("orders.*=redis://:{secret}@host/?transport.prefx=a"), "did you mean `transport.prefix`?"),
    ] {
        let output = run(&["relay", "--storage", &url, "--route", &route]);
        let errors = text(&output.stderr);
        assert_eq!(output.status.code(), Some(2), "{route}: {errors}");
        assert!(errors.contains(part) && !errors.contains(secret), "{route}: {errors}");
    }
    let output = run(&["relay", "--storage", &url]);
    let errors = text(&output.stderr);
    assert!(output.status.code() == Some(2) && errors.contains("--transport"), "{errors}");
    let typo = format!("--rout=orders.*=redis://:{secret}@host/");
    let errors = text(&run(&["relay", "--storage", &url, &typo]).stderr);
    assert!(errors.contains("--route") && !errors.contains(secret), "{errors}");
}
