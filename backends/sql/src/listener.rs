//! A task that listens for hints.

use pillarbox_core::{BoxFuture, Hints};
use std::sync::Arc;
use std::time::Duration;
use tokio::sync::Notify;
use tokio::task::AbortHandle;

/// Between two tries to listen. Hints save at most a poll interval, so there is no hurry.
const PAUSE: Duration = Duration::from_secs(1);

/// A task of its own that listens, and keeps at most one hint: hints that nobody waits for cost no memory. It starts when a hint is
/// first waited for, and ends with this value.
pub(crate) struct Listener<F> {
    listen: F,
    hint: Arc<Notify>,
    task: Option<AbortHandle>,
}

impl<F, L> Listener<F>
where
    F: Fn(Arc<Notify>) -> L,
    L: Future<Output = Result<(), sqlx::Error>> + Send + 'static,
{
    /// `listen` notifies until it fails; then it is begun again after a pause.
    pub(crate) fn new(listen: F) -> Self {
        Self { listen, hint: Arc::new(Notify::new()), task: None }
    }
}

impl<F, L> Hints for Listener<F>
where
    F: Fn(Arc<Notify>) -> L + Clone + Send + 'static,
    L: Future<Output = Result<(), sqlx::Error>> + Send + 'static,
{
    fn hinted(&mut self) -> BoxFuture<'_, ()> {
        if self.task.as_ref().is_none_or(AbortHandle::is_finished) {
            let (listen, hint) = (self.listen.clone(), Arc::clone(&self.hint));
            let task = async move {
                loop {
                    let listening = listen(Arc::clone(&hint));
                    if let Err(error) = listening.await {
                        tracing::debug!(%error, "cannot listen for hints; trying again");
                    }
                    tokio::time::sleep(PAUSE).await;
                }
            };
            self.task = Some(tokio::spawn(task).abort_handle());
        }
        Box::pin(self.hint.notified())
    }
}

impl<F> Drop for Listener<F> {
    fn drop(&mut self) {
        if let Some(task) = &self.task {
            task.abort();
        }
    }
}

/// Hints by looking at a number that changes with every commit of others.
#[cfg(feature = "sqlite")]
pub(crate) fn polled<D: crate::dialect::Dialect>(
    config: &crate::SqlConfig<D>,
    query: &'static str,
    interval: Duration,
) -> Box<dyn Hints> {
    let options = config.options.clone();
    Box::new(Listener::new(move |hint: Arc<Notify>| {
        let options = options.clone();
        async move {
            use sqlx::ConnectOptions as _;
            let mut connection = options.connect().await?;
            let mut known = None;
            loop {
                let rows = D::query(&mut connection, query.to_owned(), Vec::new(), true).await?;
                let seen = rows.first().map(|row| D::int(row, 0)).transpose()?.flatten();
                if seen != known {
                    known = seen;
                    // At first too: what was enqueued until now was not heard of.
                    hint.notify_one();
                }
                tokio::time::sleep(interval).await;
            }
        }
    }))
}
