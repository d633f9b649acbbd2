//! The suite that every transport passes, with a broker of its own for each case.

use crate::support::{TOPIC, config, received, server};
use pillarbox_core::Text;
use pillarbox_kafka::KafkaTransport;
use pillarbox_testkit::servers::KafkaServer;
use pillarbox_testkit::transport::{Abilities, BoxError, Received, TransportHarness};
use std::time::Duration;

struct Harness {
    server: KafkaServer,
}

impl TransportHarness for Harness {
    type Transport = KafkaTransport;

    fn abilities(&self) -> Abilities {
        Abilities::ALL
    }

    fn topic(&self) -> Text {
        TOPIC.into()
    }

    async fn connect(&self) -> Result<KafkaTransport, BoxError> {
        Ok(KafkaTransport::connect(config(&self.server)).await?)
    }

    async fn received(&self) -> Result<Vec<Received>, BoxError> {
        received(&self.server).await
    }

    async fn unroutable_topic(&self) -> Result<Text, BoxError> {
        Ok("nobody.listens".into())
    }

    async fn stop(&self) -> Result<(), BoxError> {
        self.server.kill();
        Ok(())
    }

    async fn start(&self) -> Result<(), BoxError> {
        Ok(self.server.restart()?)
    }

    async fn moment(&self) {
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
}

pillarbox_testkit::transport_suite!(
    #[tokio::test(flavor = "multi_thread", worker_threads = 2)] async harness = Harness { server: server() }
);
