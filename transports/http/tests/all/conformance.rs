//! The suite that every transport passes.

use crate::support::{Server, config};
use pillarbox_core::Text;
use pillarbox_http::HttpTransport;
use pillarbox_testkit::transport::{Abilities, BoxError, Received, TransportHarness};
use std::time::Duration;

struct Harness {
    server: Server,
}

impl TransportHarness for Harness {
    type Transport = HttpTransport;

    fn abilities(&self) -> Abilities {
        Abilities { prefix_per_key: false, ..Abilities::ALL }
    }

    fn topic(&self) -> Text {
        "orders.created".into()
    }

    async fn connect(&self) -> Result<HttpTransport, BoxError> {
        Ok(HttpTransport::new(config(&self.server).max_payload(2 * 1024 * 1024))?)
    }

    async fn received(&self) -> Result<Vec<Received>, BoxError> {
        self.server.received()
    }

    async fn unroutable_topic(&self) -> Result<Text, BoxError> {
        Ok("nowhere".into())
    }

    async fn stop(&self) -> Result<(), BoxError> {
        self.server.kill();
        Ok(())
    }

    async fn start(&self) -> Result<(), BoxError> {
        self.server.restart();
        Ok(())
    }

    async fn moment(&self) {
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
}

pillarbox_testkit::transport_suite!(
    #[tokio::test(flavor = "multi_thread", worker_threads = 2)] async harness = Harness { server: Server::start() }
);
