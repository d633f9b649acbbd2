//! Hints by a change stream.

use crate::MongoStorage;
use futures_util::StreamExt as _;
use mongodb::bson::{Document, doc};
use pillarbox_core::{BoxFuture, Hints, Wakeup};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;
use tokio::sync::Notify;
use tokio::task::AbortHandle;
use tokio::time::Instant;

/// Between two tries to listen. Hints save at most a poll interval, so there is no hurry.
const PAUSE: Duration = Duration::from_secs(1);
/// For so long a stream is kept for a relay that is busy; after that it would only cost the server work.
const KEPT: Duration = Duration::from_secs(2);

impl Wakeup for MongoStorage {
    fn subscribe(&self) -> Box<dyn Hints> {
        Box::new(MongoHints { outbox: self.clone(), shared: Arc::default(), listener: None })
    }
}

/// A task listens and keeps at most one hint, so that hints that nobody waits for cost no memory.
struct MongoHints {
    outbox: MongoStorage,
    shared: Arc<Shared>,
    listener: Option<AbortHandle>,
}

#[derive(Default)]
struct Shared {
    hint: Notify,
    /// Somebody has begun to wait since the last change.
    wanted: AtomicBool,
    wanted_again: Notify,
}

impl Hints for MongoHints {
    fn hinted(&mut self) -> BoxFuture<'_, ()> {
        if self.listener.as_ref().is_none_or(AbortHandle::is_finished) {
            let listening = listen(self.outbox.clone(), Arc::clone(&self.shared));
            self.listener = Some(tokio::spawn(listening).abort_handle());
        }
        self.shared.wanted.store(true, Ordering::Relaxed);
        self.shared.wanted_again.notify_one();
        Box::pin(self.shared.hint.notified())
    }
}

impl Drop for MongoHints {
    fn drop(&mut self) {
        if let Some(listener) = &self.listener {
            listener.abort();
        }
    }
}

async fn listen(outbox: MongoStorage, shared: Arc<Shared>) {
    loop {
        if let Err(error) = follow(&outbox, &shared).await {
            let place = &outbox.0.place;
            tracing::debug!(place, %error, "cannot listen for changes; trying again");
            tokio::time::sleep(PAUSE).await;
        }
    }
}

/// Follows the stream for as long as somebody wants hints, then waits until somebody does again. The client resumes the stream by itself
/// where that is possible.
async fn follow(outbox: &MongoStorage, shared: &Shared) -> Result<(), mongodb::error::Error> {
    // Of an insert nothing is needed but that it was one.
    let pipeline = [
        doc! { "$match": { "operationType": "insert" } },
        doc! { "$project": { "_id": 1, "operationType": 1 } },
    ];
    let messages = outbox.0.messages.clone_with_type::<Document>();
    let mut changes = messages.watch().pipeline(pipeline).await?.with_type::<Document>();
    // What was enqueued until now was not heard of.
    shared.hint.notify_one();
    let mut wanted_at = Instant::now();
    while let Some(change) = changes.next().await {
        change?;
        shared.hint.notify_one();
        if shared.wanted.swap(false, Ordering::Relaxed) {
            wanted_at = Instant::now();
        } else if wanted_at.elapsed() > KEPT {
            break;
        }
    }
    drop(changes);
    shared.wanted_again.notified().await;
    Ok(())
}
