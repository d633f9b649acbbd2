//! Hints by a change stream.

use crate::MongoStorage;
use futures_util::future::{Either, select};
use futures_util::stream::StreamExt as _;
use mongodb::bson::{Document, doc};
use pillarbox_core::{BoxFuture, Claim, Claimed, Hints, Wakeup};
use std::pin::pin;
use std::sync::{Arc, Mutex, PoisonError, Weak};
use std::time::Duration;
use tokio::sync::watch;
use tokio::task::AbortHandle;
use tokio::time::{Instant, timeout_at};

/// Between two tries to listen. Hints save at most a poll interval, so there is no hurry.
const PAUSE: Duration = Duration::from_secs(1);
/// For so long the stream is kept while every claim finds as much as it asks for. Each change of the collection costs the server some
/// microseconds for each stream, deletions too, and relays that have work need no hints.
const KEPT: Duration = Duration::from_millis(100);

impl Wakeup for MongoStorage {
    fn subscribe(&self) -> Box<dyn Hints> {
        let mut current = self.0.listening.current.lock().unwrap_or_else(PoisonError::into_inner);
        let listener = current.upgrade().unwrap_or_else(|| {
            let listener = Arc::<Listener>::default();
            *current = Arc::downgrade(&listener);
            listener
        });
        let heard = listener.hint.subscribe();
        Box::new(MongoHints { outbox: self.clone(), listener, heard })
    }
}

/// What the subscribers of one handle share.
#[derive(Debug, Default)]
pub(crate) struct Listening {
    /// There as long as somebody subscribes.
    current: Mutex<Weak<Listener>>,
    /// Since when every claim has found as much as it asked for.
    busy: watch::Sender<Option<Instant>>,
}

impl Listening {
    /// Notes what a claim has found: nobody needs hints while there is enough.
    pub(crate) fn claimed(&self, claim: &Claim, claimed: &Claimed) {
        if claim.solo || claim.limit == 0 {
            return;
        }
        let more = claimed.next_due.is_some_and(|due| due <= claimed.now);
        let busy = more || claimed.entries.len() >= claim.limit as usize;
        self.busy.send_if_modified(|since| {
            let changes = since.is_some() != busy;
            if changes {
                *since = busy.then(Instant::now);
            }
            changes
        });
    }

    /// Whether the claims of late have found as much as they asked for.
    pub(crate) fn is_busy(&self) -> bool {
        self.busy.borrow().is_some()
    }

    fn idle(&self) {
        self.busy.send_if_modified(|since| since.take().is_some());
    }

    /// Comes to its end when nobody has needed hints for a while.
    async fn unneeded(&self) {
        let mut busy = self.busy.subscribe();
        loop {
            let since = *busy.borrow_and_update();
            let Some(since) = since else {
                // The sender lives as long as this does.
                let _ = busy.changed().await;
                continue;
            };
            if timeout_at(since + KEPT, busy.changed()).await.is_err() {
                return;
            }
        }
    }

    async fn needed(&self) {
        let _ = self.busy.subscribe().wait_for(Option::is_none).await;
    }
}

/// One stream for all subscribers of a handle, and the task that follows it.
#[derive(Debug, Default)]
struct Listener {
    hint: watch::Sender<()>,
    task: Mutex<Option<AbortHandle>>,
}

impl Drop for Listener {
    fn drop(&mut self) {
        let task = self.task.get_mut().unwrap_or_else(PoisonError::into_inner);
        task.iter().for_each(AbortHandle::abort);
    }
}

/// Keeps at most one hint, so that hints that nobody waits for cost no memory.
struct MongoHints {
    outbox: MongoStorage,
    listener: Arc<Listener>,
    heard: watch::Receiver<()>,
}

impl Hints for MongoHints {
    fn hinted(&mut self) -> BoxFuture<'_, ()> {
        let mut task = self.listener.task.lock().unwrap_or_else(PoisonError::into_inner);
        if task.as_ref().is_none_or(AbortHandle::is_finished) {
            let listening = listen(self.outbox.clone(), self.listener.hint.clone());
            *task = Some(tokio::spawn(listening).abort_handle());
        }
        drop(task);
        Box::pin(async {
            // The sender lives as long as this does.
            let _ = self.heard.changed().await;
        })
    }
}

impl Drop for MongoHints {
    fn drop(&mut self) {
        // It may have been the one that had work.
        self.outbox.0.listening.idle();
    }
}

async fn listen(outbox: MongoStorage, hint: watch::Sender<()>) {
    loop {
        outbox.0.listening.needed().await;
        if let Err(error) = follow(&outbox, &hint).await {
            let place = &outbox.0.place;
            tracing::debug!(place, %error, "cannot listen for changes; trying again");
            tokio::time::sleep(PAUSE).await;
        }
    }
}

/// Follows the stream for as long as somebody needs hints. The client resumes it by itself where that is possible.
async fn follow(outbox: &MongoStorage, hint: &watch::Sender<()>) -> Result<(), mongodb::error::Error> {
    // Of an insert nothing is needed but that it was one.
    let pipeline = [
        doc! { "$match": { "operationType": "insert" } },
        doc! { "$project": { "_id": 1, "operationType": 1 } },
    ];
    let messages = outbox.0.messages.clone_with_type::<Document>();
    let mut changes = messages.watch().pipeline(pipeline).await?.with_type::<Document>();
    // What was enqueued until now was not heard of.
    hint.send_replace(());
    let mut unneeded = pin!(outbox.0.listening.unneeded());
    while let Either::Left((Some(change), _)) = select(changes.next(), unneeded.as_mut()).await {
        change?;
        hint.send_replace(());
    }
    Ok(())
}
