use super::run::{program, run, text};
use lapin::options::{BasicGetOptions, QueueDeclareOptions};
use lapin::types::FieldTable;
use lapin::{Connection, ConnectionProperties};
use pillarbox_testkit::servers::{RabbitMqNode, RedisServer, ServerFolder, free_port};
use rustix::process::Signal;
use std::io::Write as _;
use std::path::PathBuf;
use std::process::Stdio;
use std::time::Duration;

/// A certificate for `localhost` that nobody knows, in files.
struct Certificate {
    folder: ServerFolder,
}

impl Certificate {
    fn create() -> Self {
        let folder = ServerFolder::create("tls").unwrap();
        let made = rcgen::generate_simple_self_signed(vec!["localhost".to_owned()]).unwrap();
        let certificate = Self { folder };
        std::fs::write(certificate.file("certificate.pem"), made.cert.pem()).unwrap();
        std::fs::write(certificate.file("key.pem"), made.signing_key.serialize_pem()).unwrap();
        certificate
    }

    fn file(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    fn text(&self, name: &str) -> String {
        self.file(name).display().to_string()
    }
}

fn redis_with_tls(certificate: &Certificate) -> (RedisServer, String) {
    let port = free_port().unwrap();
    let mut options = RedisServer::options();
    for (name, value) in [
        ("--tls-port", port.to_string()),
        ("--tls-cert-file", certificate.text("certificate.pem")),
        ("--tls-key-file", certificate.text("key.pem")),
        ("--tls-auth-clients", "no".to_owned()),
    ] {
        options = options.argument(name).argument(value);
    }
    (options.start().unwrap(), format!("rediss://localhost:{port}"))
}

fn rabbitmq_with_tls(certificate: &Certificate) -> (RabbitMqNode, String) {
    let port = free_port().unwrap();
    let settings = format!(
        "listeners.ssl.default = 127.0.0.1:{port}\nssl_options.certfile = {}\nssl_options.keyfile = {}\nssl_options.verify = verify_none\n",
        certificate.text("certificate.pem"),
        certificate.text("key.pem"),
    );
    (RabbitMqNode::start_with(&settings).unwrap(), format!("amqps://localhost:{port}"))
}

/// A queue on the plain port, to see what arrived.
async fn queue(node: &RabbitMqNode) -> lapin::Channel {
    let connection = Connection::connect(&node.url(), ConnectionProperties::default()).await.unwrap();
    let channel = connection.create_channel().await.unwrap();
    channel
        .queue_declare("orders".into(), QueueDeclareOptions::durable(), FieldTable::default())
        .await
        .unwrap();
    channel
}

#[tokio::test(flavor = "multi_thread")]
async fn a_message_goes_from_redis_to_rabbitmq_with_tls_on_both_sides() {
    let certificate = Certificate::create();
    let (_redis, storage) = redis_with_tls(&certificate);
    let (node, transport) = rabbitmq_with_tls(&certificate);
    let channel = queue(&node).await;
    // The system's root certificates are read from here.
    let trusting = |arguments: &[&str]| {
        let mut program = program(arguments);
        program.env("SSL_CERT_FILE", certificate.file("certificate.pem"));
        program
    };

    let mut enqueue = trusting(&["enqueue", "--storage", &storage]).stdin(Stdio::piped()).spawn().unwrap();
    enqueue.stdin.take().unwrap().write_all(br#"{"topic":"orders","payload":"one"}"#).unwrap();
    let enqueued = enqueue.wait_with_output().unwrap();
    assert!(enqueued.status.success(), "{}", text(&enqueued.stderr));

    let mut relay = trusting(&["relay", "--storage", &storage, "--transport", &transport]).spawn().unwrap();
    let message = loop {
        assert!(relay.try_wait().unwrap().is_none(), "the relay has ended");
        match channel.basic_get("orders".into(), BasicGetOptions::default()).await.unwrap() {
            Some(message) => break message,
            None => tokio::time::sleep(Duration::from_millis(20)).await,
        }
    };
    assert_eq!(message.delivery.data, b"one");
    rustix::process::kill_process(rustix::process::Pid::from_child(&relay), Signal::TERM).unwrap();
    assert!(relay.wait().unwrap().success());
}

#[test]
fn a_certificate_that_nobody_vouches_for_is_refused() {
    let certificate = Certificate::create();
    let (_redis, storage) = redis_with_tls(&certificate);
    let errors = text(&run(&["status", "--storage", &storage]).stderr);
    assert!(errors.contains("localhost") && errors.contains("certificate"), "{errors}");
}
