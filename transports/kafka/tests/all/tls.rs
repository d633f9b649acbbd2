//! Connections by TLS. The broker of the tests speaks none, so that somebody in front of it does.

use crate::support::{HANGS, PARTITIONS, TOPIC, all_ok, message, publish};
use pillarbox_core::{Effect, Error, ErrorKind};
use pillarbox_kafka::KafkaTransport;
use pillarbox_testkit::servers::KafkaServer;
use rcgen::{CertifiedKey, generate_simple_self_signed};
use std::net::SocketAddr;
use std::sync::Arc;
use tokio::io::copy_bidirectional;
use tokio::net::{TcpListener, TcpStream};
use tokio_rustls::TlsAcceptor;
use tokio_rustls::rustls::ServerConfig;
use tokio_rustls::rustls::pki_types::PrivateKeyDer;

/// Speaks TLS for the broker at `target`, with a certificate that is its own authority.
fn forward(listener: TcpListener, target: SocketAddr, identity: &CertifiedKey<rcgen::KeyPair>) {
    let key = PrivateKeyDer::try_from(identity.signing_key.serialize_der()).unwrap();
    let config = ServerConfig::builder().with_no_client_auth();
    let config = config.with_single_cert(vec![identity.cert.der().clone()], key).unwrap();
    let acceptor = TlsAcceptor::from(Arc::new(config));
    tokio::spawn(async move {
        while let Ok((client, _)) = listener.accept().await {
            let acceptor = acceptor.clone();
            tokio::spawn(async move {
                // Clients that do not trust the certificate go again.
                let Ok(mut client) = acceptor.accept(client).await else { return };
                let mut server = TcpStream::connect(target).await.unwrap();
                // Ends with either side.
                let _ = copy_bidirectional(&mut client, &mut server).await;
            });
        }
    });
}

/// The error of opening, which must not open.
async fn refused(url: &str) -> Error {
    let opened = tokio::time::timeout(HANGS, KafkaTransport::open(url)).await;
    let error = opened.expect("opening hangs").expect_err("it opened");
    assert_eq!(
        (error.kind(), error.effect()),
        (ErrorKind::Misconfigured, Effect::NotApplied),
        "{}",
        error.report()
    );
    error
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_authority_that_is_trusted_and_one_that_is_not() {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    let options = KafkaServer::options().topic(TOPIC, PARTITIONS).advertised(address);
    let server = options.start().unwrap();
    let identity = generate_simple_self_signed(["127.0.0.1".to_owned()]).unwrap();
    let folder = tempfile::tempdir().unwrap();
    let authority = folder.path().join("authority.pem");
    std::fs::write(&authority, identity.cert.pem()).unwrap();
    forward(listener, server.address(), &identity);

    let url = format!("kafka://{address}?transport.tls=true");
    let trusting = format!("{url}&transport.root_certificates={}", authority.display());
    let transport =
        KafkaTransport::open(&trusting).await.unwrap_or_else(|error| panic!("{}", error.report()));
    all_ok(&publish(&transport, &[message(TOPIC, Some("k"), "x")]).await);

    // The system's authorities do not know it.
    let error = refused(&url).await;
    assert!(error.report().contains("certificate"), "{}", error.report());
    let error = refused(&format!("{url}&transport.root_certificates=/nowhere.pem")).await;
    assert!(error.report().contains("ssl.ca.location"), "{}", error.report());
}
