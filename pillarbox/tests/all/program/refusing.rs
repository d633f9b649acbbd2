use super::run::{outbox, program, run, text};
use pillarbox_testkit::servers::RedisServer;

const SECRET: &str = "hunter2-secret";

#[test]
fn an_unknown_option_or_scheme_is_refused_with_the_known_ones() {
    let server = RedisServer::start().unwrap();
    let url = format!("{}?outbox.nam=orders", server.url());
    let output = run(&["status", "--storage", &url]);
    let errors = text(&output.stderr);
    assert_eq!(output.status.code(), Some(2), "{errors}");
    assert!(errors.contains("outbox.nam") && errors.contains("outbox.name"), "{errors}");
    let output = run(&["status", "--storage", &format!("etcd://user:{SECRET}@host/")]);
    let errors = text(&output.stderr);
    assert_eq!(output.status.code(), Some(2), "{errors}");
    assert!(
        errors.contains("`etcd:`") && errors.contains("`redis:`") && !errors.contains(SECRET),
        "{errors}"
    );
    let url = outbox(&server, "orders");
    let output = run(&["relay", "--storage", &url, "--transport", "smtp://host"]);
    assert!(text(&output.stderr).contains("`stdout:`"), "{}", text(&output.stderr));
}

#[test]
fn a_store_within_one_process_is_refused() {
    let output = run(&["relay", "--storage", "memory:", "--transport", "stdout:"]);
    assert_eq!(output.status.code(), Some(2));
    assert!(text(&output.stderr).contains("lives within one process"), "{}", text(&output.stderr));
}

#[test]
fn a_wrong_password_is_refused_and_never_shown() {
    let server = RedisServer::options().password("right").start().unwrap();
    let wrong = server.url().replace(":right@", &format!(":{SECRET}@"));
    assert!(wrong.contains(SECRET));
    for log in ["info", "trace"] {
        for arguments in [
            &["relay", "--log", log, "--storage", &wrong, "--transport", "stdout:"][..],
            &["status", "--log", log, "--storage", &wrong],
            &["enqueue", "--log", log, "--storage", &wrong],
            &["status", "--storage", &wrong, &wrong],
            &["status", &format!("--storag={wrong}")],
            &["status", "--storage", &wrong, "--help"],
        ] {
            let output = program(arguments).env("PILLARBOX__STORAGE_URL", &wrong).output().unwrap();
            let shown = text(&output.stdout) + &text(&output.stderr);
            let expected = if arguments.contains(&"--help") { Some(0) } else { Some(2) };
            assert_eq!(output.status.code(), expected, "{arguments:?}: {shown}");
            assert!(!shown.contains(SECRET), "{arguments:?}: {shown}");
        }
    }
}

#[test]
fn a_malformed_url_is_refused_and_named() {
    let server = RedisServer::start().unwrap();
    let (good, outputs) = (outbox(&server, "orders"), "stdout:");
    for (storage, transport, named) in [
        ("", outputs, "storage"),
        ("orders", outputs, "storage"),
        ("redis://", outputs, "host"),
        ("redis://127.0.0.1:port", outputs, "port"),
        ("redis://127.0.0.1:1?outbox.lanes=many", outputs, "outbox.lanes"),
        (&*good, "amqp://127.0.0.1:notaport", "amqp://user:password@host:5672/virtual-host"),
        (&*good, "amqp://127.0.0.1?transport.verifi=true", "transport.verify"),
    ] {
        if transport.starts_with("amqp") && !cfg!(feature = "rabbitmq") {
            continue;
        }
        let output = run(&["relay", "--storage", storage, "--transport", transport]);
        let errors = text(&output.stderr);
        assert_eq!(output.status.code(), Some(2), "{storage} {transport}: {errors}");
        assert!(errors.contains(named), "{storage} {transport} names {named}: {errors}");
        assert!(!errors.contains("panicked"), "{errors}");
    }
}

#[test]
fn a_server_that_is_down_at_the_start_is_named() {
    let server = RedisServer::start().unwrap();
    let (url, address) = (outbox(&server, "orders"), server.address().to_string());
    server.kill();
    for arguments in [
        &["relay", "--storage", &url, "--transport", "stdout:"][..],
        &["enqueue", "--storage", &url],
        &["status", "--storage", &url],
        &["dead", "list", "--storage", &url],
    ] {
        let output = run(arguments);
        let errors = text(&output.stderr);
        assert_eq!(output.status.code(), Some(1), "{arguments:?}: {errors}");
        assert!(errors.contains(&address) && errors.contains("is it running"), "{arguments:?}: {errors}");
    }
}

#[test]
fn a_server_that_evicts_is_refused() {
    let server =
        RedisServer::options().argument("--maxmemory-policy").argument("allkeys-lru").start().unwrap();
    let output = run(&["relay", "--storage", &outbox(&server, "orders"), "--transport", "stdout:"]);
    let errors = text(&output.stderr);
    assert_eq!(output.status.code(), Some(2), "{errors}");
    assert!(errors.contains("maxmemory-policy") && errors.contains("noeviction"), "{errors}");
}
