//! Endpoints that speak TLS.

use crate::support::{Server, failure, message, publish};
use pillarbox_core::{Destination, Effect, ErrorKind, Transport as _};
use pillarbox_http::{HttpConfig, HttpTransport};
use rcgen::{CertifiedKey, KeyPair, generate_simple_self_signed};
use std::net::SocketAddr;
use std::sync::Arc;
use tokio::io::copy_bidirectional;
use tokio::net::{TcpListener, TcpStream};
use tokio_rustls::TlsAcceptor;
use tokio_rustls::rustls::ServerConfig;
use tokio_rustls::rustls::pki_types::PrivateKeyDer;

/// Speaks TLS for the endpoint at `target`, with a certificate that is its own authority.
async fn forward(target: SocketAddr, identity: &CertifiedKey<KeyPair>) -> SocketAddr {
    let key = PrivateKeyDer::try_from(identity.signing_key.serialize_der()).unwrap();
    let config = ServerConfig::builder().with_no_client_auth();
    let config = config.with_single_cert(vec![identity.cert.der().clone()], key).unwrap();
    let acceptor = TlsAcceptor::from(Arc::new(config));
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    tokio::spawn(async move {
        while let Ok((client, _)) = listener.accept().await {
            // Clients that do not trust the certificate go again.
            let Ok(mut client) = acceptor.accept(client).await else { continue };
            tokio::spawn(async move {
                let mut server = TcpStream::connect(target).await.unwrap();
                // Ends with either side.
                let _ = copy_bidirectional(&mut client, &mut server).await;
            });
        }
    });
    address
}

#[tokio::test]
async fn an_authority_that_is_trusted_and_one_that_is_not() {
    let server = Server::start();
    let identity = generate_simple_self_signed(["localhost".to_owned()]).unwrap();
    let address = forward(server.address, &identity).await;
    let folder = tempfile::tempdir().unwrap();
    let authority = folder.path().join("authority.pem");
    std::fs::write(&authority, identity.cert.pem()).unwrap();
    let url = |host: &str, options: &str| {
        format!("https://ann:s3cret@{host}:{}/t0ken?transport.allow_private=true{options}", address.port())
    };

    let trusted = format!("&transport.root_certificates={}", authority.display());
    let transport = HttpTransport::open(&url("localhost", &trusted)).await.unwrap();
    assert!(publish(&transport, &[message("orders", None, "x")]).await.outcome(0).unwrap().is_ok());
    transport.probe(Destination::ONLY).await.unwrap();

    // The system does not know the authority; the authority does not know the other name.
    for url in [url("localhost", ""), url("127.0.0.1", &trusted)] {
        let transport = HttpTransport::open(&url).await.unwrap();
        let error = failure(&transport, message("orders", None, "x")).await;
        assert_eq!(
            (error.kind(), error.effect()),
            (ErrorKind::Misconfigured, Effect::NotApplied),
            "{error:?}"
        );
        assert!(error.to_string().contains("its certificate is not valid"), "{error}");
        let shown = format!("{error:?} {}", error.report());
        assert!(!shown.contains("s3cret") && !shown.contains("t0ken"), "{shown}");
        let probe = transport.probe(Destination::ONLY).await.unwrap_err();
        assert_eq!(probe.kind(), ErrorKind::Misconfigured, "{probe:?}");
    }
    assert_eq!(server.received().unwrap().len(), 1);

    std::fs::write(&authority, "no certificate").unwrap();
    for path in [authority.display().to_string(), "/nowhere.pem".to_owned()] {
        let options = format!("&transport.root_certificates={path}");
        let error = HttpTransport::open(&url("localhost", &options)).await.unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Misconfigured);
        assert!(error.to_string().contains(&path), "{error}");
    }
}

#[tokio::test]
async fn tls_with_an_endpoint_that_speaks_none_is_unavailable() {
    let server = Server::start();
    let url = format!("https://localhost:{}/?transport.allow_private=true", server.address.port());
    let transport = HttpTransport::new(HttpConfig::from_url(&url).unwrap()).unwrap();
    let error = failure(&transport, message("orders", None, "x")).await;
    assert_eq!((error.kind(), error.effect()), (ErrorKind::Unavailable, Effect::NotApplied), "{error:?}");
}
