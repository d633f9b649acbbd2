//! The store as a relay sees it: some way off, and every answer is written down.

use super::ledger::Shared;
use super::time::{Clock, Random};
use pillarbox_core::{
    Admin, BoxFuture, Claim, Claimed, Error, ErrorKind, Filter, ListState, Listing, Renewed, Settled,
    Settlements, Storage, StorageGuarantees, Stored, Token, Wakeup,
};
use pillarbox_memory::MemoryStorage;
use std::sync::{Arc, Mutex, PoisonError};
use std::task::{Context, Poll, Waker};
use std::time::Duration;

pub(super) struct Watched {
    pub(super) inner: MemoryStorage,
    pub(super) ledger: Shared,
    pub(super) clock: Arc<Clock>,
    pub(super) relay: usize,
    pub(super) random: Mutex<Random>,
}

impl Watched {
    async fn travel(&self) {
        let way = self.random.lock().unwrap_or_else(PoisonError::into_inner).between(60, 180);
        self.clock.sleep(way).await;
    }
}

impl Storage for Watched {
    fn guarantees(&self) -> StorageGuarantees {
        self.inner.guarantees()
    }

    async fn claim(&self, claim: Claim) -> Result<Claimed, Error> {
        self.travel().await;
        let claimed = self.inner.claim(claim).await?;
        // At once, since the answer may never arrive.
        if claimed.buried > 0 {
            let dead = list(&self.inner, ListState::Dead);
            let mut ledger = self.ledger.lock();
            let dead: Vec<usize> =
                dead.iter().filter_map(|letter| Some(ledger.number(letter.id()?))).collect();
            ledger.buried(&dead);
        }
        self.ledger.lock().claimed(self.relay, &claim, &claimed);
        self.travel().await;
        Ok(claimed)
    }

    async fn renew(&self, tokens: &[Token], lease: Duration) -> Result<Vec<Renewed>, Error> {
        self.travel().await;
        let answers = self.inner.renew(tokens, lease).await?;
        self.ledger.lock().renewed(self.relay, tokens, &answers);
        self.travel().await;
        Ok(answers)
    }

    async fn settle(&self, settlements: &Settlements) -> Result<Vec<Settled>, Error> {
        self.travel().await;
        let answers = self.inner.settle(settlements).await?;
        let is_lost = self.ledger.lock().settled(self.relay, settlements, &answers);
        self.travel().await;
        if is_lost {
            return Err(Error::new(ErrorKind::Unavailable, "settle").describe("the connection was lost"));
        }
        Ok(answers)
    }

    fn wakeup(&self) -> Option<&dyn Wakeup> {
        self.inner.wakeup()
    }

    fn admin(&self) -> Option<&dyn Admin> {
        self.inner.admin()
    }
}

/// What the store lists in a state: the first thousand, which the world stays far below.
pub(super) fn list(storage: &MemoryStorage, state: ListState) -> Vec<Stored> {
    let listing = Listing { state, filter: Filter::all(), cursor: None, limit: 1_000 };
    at_once(Admin::list(storage, listing)).map(|page| page.messages).unwrap_or_default()
}

/// The answer of the storage in memory, which waits for nothing.
pub(super) fn at_once<V>(mut call: BoxFuture<'_, Result<V, Error>>) -> Option<V> {
    match call.as_mut().poll(&mut Context::from_waker(Waker::noop())) {
        Poll::Ready(Ok(value)) => Some(value),
        Poll::Ready(Err(_)) | Poll::Pending => None,
    }
}
