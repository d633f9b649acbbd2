//! The suite that every transport passes.

use crate::support::{config, received, server};
use pillarbox_core::Text;
use pillarbox_redis_streams::RedisStreamsTransport;
use pillarbox_testkit::servers::RedisServer;
use pillarbox_testkit::transport::{Abilities, BoxError, Received, TransportHarness};
use std::time::Duration;

struct Harness {
    server: RedisServer,
}

const PREFIX: &str = "events:";

impl TransportHarness for Harness {
    type Transport = RedisStreamsTransport;

    fn abilities(&self) -> Abilities {
        Abilities::ALL
    }

    fn topic(&self) -> Text {
        "orders.created".into()
    }

    async fn connect(&self) -> Result<RedisStreamsTransport, BoxError> {
        let config = config(&self.server).prefix(PREFIX).max_payload(2 * 1024 * 1024);
        Ok(RedisStreamsTransport::connect(config).await?)
    }

    async fn received(&self) -> Result<Vec<Received>, BoxError> {
        let mut received = received(&self.server, &format!("{PREFIX}orders.created")).await?;
        for received in &mut received {
            "orders.created".clone_into(&mut received.topic);
        }
        Ok(received)
    }

    async fn unroutable_topic(&self) -> Result<Text, BoxError> {
        self.server.command(&["SET", &format!("{PREFIX}taken"), "no stream"])?;
        Ok("taken".into())
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
