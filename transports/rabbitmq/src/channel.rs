use crate::connection::Live;
use lapin::Channel;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

/// So many channels wait for their next publish at most: more than a relay has publishes in flight.
const IDLE_AT_MOST: usize = 16;

/// The channels of a connection that nobody uses now.
#[derive(Default)]
pub(crate) struct IdleChannels {
    idle: Mutex<Vec<Channel>>,
    /// Their last messages wait to be written. They are not closed, since the client would send the closing before those
    /// messages, and the broker ends the connection over a message on a closed channel.
    abandoned: Mutex<Vec<Channel>>,
}

impl IdleChannels {
    pub(crate) fn take(&self) -> Option<Channel> {
        let mut idle = lock(&self.idle);
        while let Some(channel) = idle.pop() {
            if channel.status().connected() {
                return Some(channel);
            }
        }
        None
    }

    pub(crate) fn has_abandoned(&self) -> bool {
        !lock(&self.abandoned).is_empty()
    }
}

/// A channel in confirm mode that one publish has for itself. So what the broker returns belongs to that publish, and an error
/// that closes the channel is told to no other.
pub(crate) struct ConfirmChannel {
    live: Arc<Live>,
    channel: Channel,
    unwritten: AtomicUsize,
    unconfirmed: AtomicUsize,
}

impl ConfirmChannel {
    /// Takes a channel that has nothing in flight.
    pub(crate) fn new(live: Arc<Live>, channel: Channel) -> Self {
        Self { live, channel, unwritten: AtomicUsize::new(0), unconfirmed: AtomicUsize::new(0) }
    }

    pub(crate) fn live(&self) -> &Live {
        &self.live
    }

    pub(crate) fn channel(&self) -> &Channel {
        &self.channel
    }

    /// A message of so many bytes is handed to the client.
    pub(crate) fn begin(&self, size: usize) {
        self.unwritten.fetch_add(size, Ordering::Relaxed);
        self.unconfirmed.fetch_add(1, Ordering::Relaxed);
    }

    /// The client has written a message of so many bytes, or never will.
    pub(crate) fn written(&self, size: usize) {
        self.unwritten.fetch_sub(size, Ordering::Relaxed);
    }

    /// The fate of a message is known.
    pub(crate) fn landed(&self) {
        self.unconfirmed.fetch_sub(1, Ordering::Relaxed);
    }

    /// How many bytes wait to be written.
    pub(crate) fn unwritten(&self) -> usize {
        self.unwritten.load(Ordering::Relaxed)
    }
}

impl Drop for ConfirmChannel {
    /// The channel waits for its next publish if nothing is in flight on it; otherwise it ends, and late answers with it.
    fn drop(&mut self) {
        let channels = &self.live.channels;
        if self.unwritten() > 0 {
            lock(&channels.abandoned).push(self.channel.clone());
        } else if self.unconfirmed.load(Ordering::Relaxed) == 0 && self.channel.status().connected() {
            let mut idle = lock(&channels.idle);
            if idle.len() < IDLE_AT_MOST {
                idle.push(self.channel.clone());
            }
        }
    }
}

fn lock(channels: &Mutex<Vec<Channel>>) -> MutexGuard<'_, Vec<Channel>> {
    // A list of channels is whole after a panic too.
    channels.lock().unwrap_or_else(PoisonError::into_inner)
}
