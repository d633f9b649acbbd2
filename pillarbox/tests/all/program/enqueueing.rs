use super::run::{outbox, run_with_input, status, text};
use pillarbox_testkit::servers::RedisServer;

fn line(number: usize) -> String {
    format!(r#"{{"topic":"orders.created","key":"order-{}","payload":{{"number":{number}}}}}"#, number % 7)
}

#[test]
fn a_bad_line_ends_it_and_what_stands_before_is_stored() {
    let server = RedisServer::start().unwrap();
    let url = outbox(&server, "orders");
    let input = format!("{}\n\n{}\n{{\"topic\":\"t\",\"paylod\":1}}\n{}\n", line(1), line(2), line(3));
    let output = run_with_input(&["enqueue", "--storage", &url], &input);
    let errors = text(&output.stderr);
    assert_eq!(output.status.code(), Some(1), "{errors}");
    assert!(errors.contains("line 4: unknown field `paylod`"), "{errors}");
    assert!(errors.contains("stopped at line 4"), "{errors}");
    assert_eq!(status(&url)["pending"], 2);
}

#[test]
fn with_keep_going_every_good_line_is_stored() {
    let server = RedisServer::start().unwrap();
    let url = outbox(&server, "orders");
    let too_large = format!(r#"{{"topic":"t","payload":"{}"}}"#, "x".repeat(1024 * 1024 + 1));
    let input = [line(1), "nonsense".to_owned(), line(2), too_large, line(3)].join("\n");
    let output = run_with_input(&["enqueue", "--keep-going", "--storage", &url], &input);
    let errors = text(&output.stderr);
    assert_eq!(output.status.code(), Some(1), "{errors}");
    assert!(errors.contains("line 2: it is no JSON object"), "{errors}");
    assert!(errors.contains("line 4:") && errors.contains("1048577"), "{errors}");
    assert!(errors.contains("2 lines were not enqueued"), "{errors}");
    assert_eq!(status(&url)["pending"], 3);
}

#[test]
fn every_bad_field_is_named_and_stops_no_good_line() {
    let server = RedisServer::start().unwrap();
    let url = outbox(&server, "orders");
    let long_key = format!(r#"{{"topic":"t","key":"{}","payload":"x"}}"#, "k".repeat(10_000));
    let bad = [
        (long_key.as_str(), "key"),
        (r#"{"topic":"","payload":"x"}"#, "topic"),
        (r#"{"payload":"x"}"#, "topic"),
        (r#"{"topic":"t"}"#, "payload"),
        (r#"{"topic":"t","headers":{"a":"one\ntwo"},"payload":"x"}"#, "header"),
        (r#"{"topic":"t","headers":{"a\r\nb":"one"},"payload":"x"}"#, "header"),
        (r#"{"topic":"t","id":"7","payload":"x"}"#, "id"),
        (r#"{"topic":"t","payload_base64":"*"}"#, "payload_base64"),
        (r#"{"topic":"t","payload":"x","delay":"soon"}"#, "delay"),
        (r#"["topic"]"#, "object"),
        ("\u{fffd}\0", "object"),
    ];
    let input: String =
        bad.iter().enumerate().map(|(at, (bad, _))| format!("{}\n{bad}\n", line(at))).collect();
    let output = run_with_input(&["enqueue", "--keep-going", "--storage", &url], &input);
    let errors = text(&output.stderr);
    assert_eq!(output.status.code(), Some(1), "{errors}");
    for (at, (bad, named)) in bad.iter().enumerate() {
        let prefix = format!("line {}:", 2 * at + 2);
        let said = errors.lines().find(|line| line.contains(&prefix));
        assert!(said.is_some_and(|said| said.contains(named)), "{bad:.60} names {named}: {errors}");
    }
    assert!(errors.lines().all(|line| line.len() < 1_000), "{errors}");
    assert_eq!(status(&url)["pending"], bad.len());
}

#[test]
fn a_line_that_the_outbox_refuses_ends_it_at_that_line() {
    let server = RedisServer::start().unwrap();
    let url = outbox(&server, "orders");
    let too_large = format!(r#"{{"topic":"t","payload":"{}"}}"#, "x".repeat(1024 * 1024 + 1));
    let input = [line(1), line(2), too_large, line(3)].join("\n");
    let output = run_with_input(&["enqueue", "--storage", &url], &input);
    assert_eq!(output.status.code(), Some(1));
    assert!(text(&output.stderr).contains("stopped at line 3"), "{}", text(&output.stderr));
    assert_eq!(status(&url)["pending"], 2);
}

#[test]
fn many_lines_take_batches_and_a_delay_is_kept() {
    let server = RedisServer::start().unwrap();
    let url = outbox(&server, "orders");
    let mut input: String = (0..20_000).map(|number| line(number) + "\n").collect();
    input.push_str(r#"{"topic":"later","payload":"x","delay":"1h"}"#);
    let output = run_with_input(&["enqueue", "--storage", &url], &input);
    assert!(output.status.success(), "{}", text(&output.stderr));
    assert!(text(&output.stderr).contains("enqueued 20001 messages"), "{}", text(&output.stderr));
    let status = status(&url);
    assert_eq!((status["pending"].as_u64(), status["scheduled"].as_u64()), (Some(20_000), Some(1)));
    let commands = server.command(&["INFO", "commandstats"]).unwrap();
    let transactions = commands
        .lines()
        .find_map(|line| line.strip_prefix("cmdstat_exec:calls=")?.split(',').next()?.parse::<u32>().ok());
    assert!(transactions.is_none_or(|count| count < 1_000), "batches, not single messages: {commands}");
}
