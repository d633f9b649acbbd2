use super::run::{Relay, run, run_with_input, status, text};

#[test]
fn a_schema_is_made_only_when_asked_for() {
    let folder = tempfile::tempdir().unwrap();
    let url = format!("sqlite://{}?mode=rwc&outbox.name=orders", folder.path().join("orders.db").display());
    let refused = run(&["status", "--storage", &url]);
    let errors = text(&refused.stderr);
    assert_eq!(refused.status.code(), Some(2), "{errors}");
    assert!(errors.contains("pillarbox migrate"), "{errors}");

    let made = run(&["migrate", "--storage", &url]);
    assert!(made.status.success(), "{}", text(&made.stderr));
    assert!(text(&made.stdout).contains("applied version 1"), "{}", text(&made.stdout));
    let again = run(&["migrate", "--storage", &url]);
    assert!(text(&again.stdout).contains("nothing was changed"), "{}", text(&again.stdout));

    let line = r#"{"topic":"orders.created","key":"order-1","payload":{"total":12}}"#;
    let enqueued = run_with_input(&["enqueue", "--storage", &url], &format!("{line}\n"));
    assert!(enqueued.status.success(), "{}", text(&enqueued.stderr));
    assert_eq!(status(&url)["pending"], 1);
    let mut relay = Relay::start(&["relay", "--storage", &url, "--transport", "stdout:"]);
    assert!(relay.line().contains("orders.created"));
    relay.signal(rustix::process::Signal::TERM);
    let (code, errors) = relay.end();
    assert_eq!(code, Some(0), "{errors}");
    assert_eq!(status(&url)["pending"], 0);
}

#[test]
fn the_schema_is_printed_for_other_tools() {
    let printed =
        run(&["migrate", "--print", "--storage", "postgres://user:hunter2@host/db?outbox.name=orders"]);
    let (sql, errors) = (text(&printed.stdout), text(&printed.stderr));
    assert!(printed.status.success(), "{errors}");
    assert!(sql.contains("CREATE TABLE orders_message (") && !sql.contains("pillarbox_message"), "{sql}");
    let refused = run(&["migrate", "--storage", "redis://user:hunter2@host/"]);
    let errors = text(&refused.stderr);
    assert!(errors.contains("only SQL stores have a schema") && !errors.contains("hunter2"), "{errors}");
}
