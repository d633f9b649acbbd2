//! Hints by pub/sub.

use crate::RedisStorage;
use crate::connection::Target;
use futures_util::stream::{BoxStream, StreamExt as _};
use pillarbox_core::{BoxFuture, Hints, Wakeup};
use redis::{PushInfo, PushKind, RedisError};
use std::sync::Arc;
use std::time::Duration;
use tokio::sync::{Notify, mpsc};
use tokio::task::AbortHandle;

/// Between two tries to listen. Hints save at most a poll interval, so there is no hurry.
const PAUSE: Duration = Duration::from_secs(1);

impl Wakeup for RedisStorage {
    fn subscribe(&self) -> Box<dyn Hints> {
        Box::new(RedisHints { outbox: self.clone(), hint: Arc::new(Notify::new()), listener: None })
    }
}

/// A task listens and keeps at most one hint, so that hints that nobody waits for cost no memory.
struct RedisHints {
    outbox: RedisStorage,
    hint: Arc<Notify>,
    listener: Option<AbortHandle>,
}

impl Hints for RedisHints {
    fn hinted(&mut self) -> BoxFuture<'_, ()> {
        if self.listener.as_ref().is_none_or(AbortHandle::is_finished) {
            let listening = listen(self.outbox.clone(), Arc::clone(&self.hint));
            self.listener = Some(tokio::spawn(listening).abort_handle());
        }
        Box::pin(self.hint.notified())
    }
}

impl Drop for RedisHints {
    fn drop(&mut self) {
        if let Some(listener) = &self.listener {
            listener.abort();
        }
    }
}

async fn listen(outbox: RedisStorage, hint: Arc<Notify>) {
    loop {
        match connect(&outbox).await {
            Ok(mut hints) => {
                // What was enqueued until now was not heard of.
                hint.notify_one();
                while hints.next().await.is_some() {
                    hint.notify_one();
                }
            }
            Err(error) => {
                tracing::debug!(place = outbox.0.place, %error, "cannot listen for hints; trying again");
            }
        }
        tokio::time::sleep(PAUSE).await;
    }
}

async fn connect(outbox: &RedisStorage) -> Result<BoxStream<'static, ()>, RedisError> {
    let channel = outbox.key("wake");
    let timeout = outbox.0.config.connect_timeout;
    let connecting = async {
        match (&outbox.0.config.target, outbox.0.config.target.client().await?) {
            (Target::Cluster(nodes), _) => sharded(outbox, nodes, channel).await,
            (_, None) => Err(timed_out()),
            (_, Some(client)) => {
                let mut connection = client.get_async_pubsub().await?;
                connection.subscribe(channel).await?;
                Ok(connection.into_on_message().map(|_| ()).boxed())
            }
        }
    };
    tokio::time::timeout(timeout, connecting).await.unwrap_or_else(|_| Err(timed_out()))
}

/// On a cluster hints go through the node that has the outbox, over the protocol that has sharded channels.
async fn sharded(
    outbox: &RedisStorage,
    nodes: &[redis::ConnectionInfo],
    channel: String,
) -> Result<BoxStream<'static, ()>, RedisError> {
    let (sender, receiver) = mpsc::unbounded_channel::<PushInfo>();
    let client = redis::cluster::ClusterClientBuilder::new(nodes.to_vec())
        .use_protocol(redis::ProtocolVersion::RESP3)
        .connection_timeout(outbox.0.config.connect_timeout)
        .push_sender(sender)
        .build()?;
    let mut connection = client.get_async_connection().await?;
    if outbox.0.publish == "SPUBLISH" {
        connection.ssubscribe(channel).await?;
    } else {
        connection.subscribe(channel).await?;
    }
    // The connection subscribes again by itself when nodes change; it ends with the stream that keeps it.
    let hints = futures_util::stream::unfold((receiver, connection), |(mut receiver, connection)| async {
        loop {
            let push = receiver.recv().await?;
            if matches!(push.kind, PushKind::Message | PushKind::SMessage | PushKind::Disconnection) {
                return Some(((), (receiver, connection)));
            }
        }
    });
    Ok(hints.boxed())
}

fn timed_out() -> RedisError {
    std::io::Error::from(std::io::ErrorKind::TimedOut).into()
}
