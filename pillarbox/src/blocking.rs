//! A relay on a thread of its own, for programs without an async runtime.
//!
//! Such a program enqueues without async as well: `append` of the memory and Redis storages only adds to a transaction that the
//! program commits with its own blocking client.
//!
//! ```
//! use pillarbox::blocking::RelayThread;
//! use pillarbox::memory::{MemoryStorage, StdoutTransport};
//! use pillarbox::{Message, Relay, RelayConfig};
//!
//! # fn main() -> Result<(), pillarbox::Error> {
//! let outbox = MemoryStorage::new();
//! let storage = outbox.clone();
//! let relay = RelayThread::start(async move || Relay::new(storage, StdoutTransport::new(), RelayConfig::default()))?;
//!
//! let mut transaction = outbox.transaction();
//! transaction.append(&[Message::to("orders.created").payload("{}")?])?;
//! transaction.commit();
//!
//! relay.stop()?; // drains, and ends the thread
//! # Ok(())
//! # }
//! ```

use crate::TokioTimer;
use pillarbox_core::{Error, ErrorKind, Relay, Storage, Transport};
use std::fmt;
use std::sync::mpsc;
use std::thread::JoinHandle;
use tokio::sync::oneshot;

/// A relay that runs on a thread of its own.
///
/// End it with [`stop`](Self::stop), which answers how it went. Dropping the handle stops the relay too and waits for it; then
/// an error is lost, and a panic of the relay goes on in the dropping thread.
#[must_use = "dropping the handle stops the relay"]
pub struct RelayThread {
    stop: Option<oneshot::Sender<()>>,
    thread: Option<JoinHandle<Result<(), Error>>>,
}

impl RelayThread {
    /// Starts a thread with a runtime, opens storage and transport there with `open`, and relays. Returns when they are open.
    ///
    /// # Errors
    /// What `open` answers, or `Unavailable` if the system gives no thread.
    pub fn start<S, T>(
        open: impl AsyncFnOnce() -> Result<Relay<S, T>, Error> + Send + 'static,
    ) -> Result<Self, Error>
    where
        S: Storage + 'static,
        T: Transport + 'static,
    {
        let (stop, stopped) = oneshot::channel();
        let (opened, is_open) = mpsc::sync_channel(1);
        let thread = std::thread::Builder::new()
            .name("pillarbox-relay".to_owned())
            .spawn(move || relay(open, &opened, stopped))
            .map_err(|cause| unavailable("the system gives no thread for the relay", cause))?;
        let handle = Self { stop: Some(stop), thread: Some(thread) };
        // Closed without a word: opening failed or panicked, and the thread knows how.
        if is_open.recv().is_ok() {
            return Ok(handle);
        }
        let ended = || Error::new(ErrorKind::Unexpected, "start").describe("the relay ended before it began");
        Err(handle.join().err().unwrap_or_else(ended))
    }

    /// Whether the relay has ended: by an error, since nobody has stopped it. [`join`](Self::join) tells which.
    pub fn is_finished(&self) -> bool {
        self.thread.as_ref().is_none_or(JoinHandle::is_finished)
    }

    /// Drains the relay and waits for its end, at most twice its shutdown grace.
    ///
    /// # Errors
    /// As [`Relay::run`]; `Unexpected` if the relay panicked.
    pub fn stop(mut self) -> Result<(), Error> {
        self.stop = None;
        self.wait()
    }

    /// Waits until the relay ends by itself, which it does only with an error.
    ///
    /// # Errors
    /// As [`Relay::run`]; `Unexpected` if the relay panicked.
    pub fn join(mut self) -> Result<(), Error> {
        self.wait()
    }

    fn wait(&mut self) -> Result<(), Error> {
        let Some(thread) = self.thread.take() else { return Ok(()) };
        thread.join().unwrap_or_else(|panic| {
            let words = panic.downcast_ref::<&str>().copied();
            let words = words.or_else(|| panic.downcast_ref::<String>().map(String::as_str));
            Err(Error::new(ErrorKind::Unexpected, "run")
                .describe(format!("the relay's thread panicked: {}", words.unwrap_or("without words"))))
        })
    }
}

impl Drop for RelayThread {
    fn drop(&mut self) {
        self.stop = None;
        if let Some(Err(panic)) = self.thread.take().map(JoinHandle::join)
            && !std::thread::panicking()
        {
            std::panic::resume_unwind(panic);
        }
    }
}

impl fmt::Debug for RelayThread {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.debug_struct("RelayThread").field("is_finished", &self.is_finished()).finish()
    }
}

/// The thread: open, say so, relay until the other half of `stopped` is gone.
fn relay<S: Storage, T: Transport>(
    open: impl AsyncFnOnce() -> Result<Relay<S, T>, Error>,
    opened: &mpsc::SyncSender<()>,
    stopped: oneshot::Receiver<()>,
) -> Result<(), Error> {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .map_err(|cause| unavailable("the system gives no runtime for the relay", cause))?;
    runtime.block_on(async {
        let relay = open().await?;
        // The starter waits for this, so somebody hears it.
        let _ = opened.send(());
        let shutdown = async {
            // Nothing is ever sent: that the handle is gone is the signal.
            let _ = stopped.await;
        };
        relay.timer(TokioTimer::new()).run(shutdown).await
    })
}

fn unavailable(description: &'static str, cause: std::io::Error) -> Error {
    Error::new(ErrorKind::Unavailable, "start").describe(description).not_applied().caused_by(cause)
}
