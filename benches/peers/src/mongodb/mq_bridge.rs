use crate::peer::{Measured, Peer};
use async_trait::async_trait;
use pillarbox_benches::{BoxError, PAYLOAD};
use std::process::Stdio;
use std::time::Duration;
use tokio::process::Command;

/// mq-bridge's queue in a collection, in a process of its own, which see.
pub(crate) struct MqBridge {
    url: String,
    batch: u32,
    rounds: u32,
}

impl MqBridge {
    pub(crate) fn new(url: &str, batch: u32) -> Self {
        Self { url: url.to_owned(), batch, rounds: 0 }
    }
}

#[async_trait(?Send)]
impl Peer for MqBridge {
    fn name(&self) -> &'static str {
        "mq-bridge 1.3"
    }

    fn promises_less(&self) -> &'static str {
        "lease by the consumer's clock, not renewed; no attempts, no order per key"
    }

    fn part(&self) -> u32 {
        1
    }

    async fn drain(&mut self, messages: u32) -> Result<Measured, BoxError> {
        self.rounds += 1;
        // Cargo builds it at the first turn; it takes its time itself, without that.
        let told = Command::new(env!("CARGO"))
            .args(["run", "--quiet", "--release", "--package", "pillarbox-peer-mq-bridge"])
            .args(["--manifest-path", concat!(env!("CARGO_MANIFEST_DIR"), "/Cargo.toml"), "--"])
            .args([&self.url, &format!("peer_{}", self.rounds)])
            .args([messages, self.batch, u32::try_from(PAYLOAD)?].map(|number| number.to_string()))
            .stderr(Stdio::inherit())
            .output()
            .await?;
        if !told.status.success() {
            return Err(format!("mq-bridge failed: {}", told.status).into());
        }
        let took = Duration::try_from_secs_f64(String::from_utf8(told.stdout)?.trim().parse()?)?;
        Ok(Measured { drained: messages, took })
    }
}
