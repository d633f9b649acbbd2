//! Connections by TLS, and users who prove themselves by SCRAM, which needs it.

use crate::support::{HANGS, PARTITIONS, TOPIC, all_ok, message, publish};
use pillarbox_core::{Effect, Error, ErrorKind};
use pillarbox_kafka::KafkaTransport;
use pillarbox_testkit::servers::KafkaServer;
use rcgen::{CertifiedKey, generate_simple_self_signed};
use std::path::{Path, PathBuf};

/// A certificate of 127.0.0.1 that is its own authority, and its key, in a folder.
fn certificate(folder: &Path) -> (PathBuf, PathBuf) {
    let CertifiedKey { cert, signing_key } =
        generate_simple_self_signed(["127.0.0.1".to_owned(), "localhost".to_owned()]).unwrap();
    let (certificate, key) = (folder.join("certificate.pem"), folder.join("key.pem"));
    std::fs::write(&certificate, cert.pem()).unwrap();
    std::fs::write(&key, signing_key.serialize_pem()).unwrap();
    (certificate, key)
}

async fn refused(url: &str) -> Error {
    let opened = tokio::time::timeout(HANGS, KafkaTransport::open(url)).await;
    opened.expect("opening hangs").expect_err("it opened")
}

fn is_misconfigured(error: &Error) {
    let shown = format!("{error} {error:?} {}", error.report());
    assert_eq!((error.kind(), error.effect()), (ErrorKind::Misconfigured, Effect::NotApplied), "{shown}");
    assert!(!shown.contains("s3cret") && !shown.contains("wr0ng"), "{shown}");
}

#[tokio::test]
async fn by_tls_with_an_authority_that_is_trusted() {
    let folder = tempfile::tempdir().unwrap();
    let (certificate, key) = certificate(folder.path());
    let server = KafkaServer::options().topic(TOPIC, PARTITIONS).tls(&certificate, &key).start().unwrap();
    let with_tls = format!("{}?transport.tls=true", server.url());
    let url = format!("{with_tls}&transport.root_certificates={}", certificate.display());
    let transport = KafkaTransport::open(&url).await.unwrap_or_else(|error| panic!("{}", error.report()));
    all_ok(&publish(&transport, &[message(TOPIC, Some("k"), "x")]).await);
    // Its authority is nobody's by default, and a file that is not there is named.
    is_misconfigured(&refused(&with_tls).await);
    let error = refused(&format!("{with_tls}&transport.root_certificates=/nowhere.pem")).await;
    is_misconfigured(&error);
    assert!(error.report().contains("/nowhere.pem"), "{}", error.report());
}

#[tokio::test]
async fn a_user_with_a_right_password_and_with_a_wrong_one() {
    let server = KafkaServer::options().topic(TOPIC, PARTITIONS).user("ann", "s3cret").start().unwrap();
    let url = |login: &str| {
        let url = server.url().replace("//", &format!("//{login}@"));
        format!("{url}?transport.sasl=scram-sha-512")
    };
    let transport =
        KafkaTransport::open(&url("ann:s3cret")).await.unwrap_or_else(|error| panic!("{}", error.report()));
    all_ok(&publish(&transport, &[message(TOPIC, Some("k"), "x")]).await);
    is_misconfigured(&refused(&url("ann:wr0ng")).await);
}
