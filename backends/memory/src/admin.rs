use crate::outbox::Mending;
use crate::storage::MemoryStorage;
use pillarbox_core::{Admin, Affected, BoxFuture, Error, Filter, Listing, MessageId, Page, Stats, Stored};
use std::time::Duration;

impl Admin for MemoryStorage {
    fn stats(&self) -> BoxFuture<'_, Result<Stats, Error>> {
        Box::pin(async { Ok(self.lock().stats(self.now())) })
    }

    fn list(&self, listing: Listing) -> BoxFuture<'_, Result<Page, Error>> {
        Box::pin(async move { self.lock().page(&listing, self.now()) })
    }

    fn get(&self, id: MessageId) -> BoxFuture<'_, Result<Option<Stored>, Error>> {
        Box::pin(async move { Ok(self.lock().find(id)) })
    }

    /// Looks at every dead letter when the filter names no ids.
    fn redrive(&self, filter: Filter, limit: u32, dry_run: bool) -> BoxFuture<'_, Result<Affected, Error>> {
        Box::pin(async move { Ok(self.lock().mend(Mending::Redrive, &filter, limit, dry_run, self.now())) })
    }

    /// Looks at every dead letter when the filter names no ids.
    fn discard(&self, filter: Filter, limit: u32, dry_run: bool) -> BoxFuture<'_, Result<Affected, Error>> {
        Box::pin(async move { Ok(self.lock().mend(Mending::Discard, &filter, limit, dry_run, self.now())) })
    }

    fn purge_published(&self, older_than: Duration, limit: u32) -> BoxFuture<'_, Result<u64, Error>> {
        Box::pin(async move { Ok(self.lock().purge(older_than, limit, self.now())) })
    }
}
