use crate::MongoStorage;
use pillarbox_core::{OpenedStorage, StorageDriver};

/// Opens outboxes in MongoDB by URL, with the options of [`MongoConfig`](crate::MongoConfig).
pub const DRIVER: StorageDriver = StorageDriver {
    schemes: &["mongodb", "mongodb+srv"],
    description: "An outbox in MongoDB: mongodb://user:password@host:27017/database?replicaSet=rs0&outbox.name=orders
  outbox.name              its name; default outbox
  outbox.lanes             lanes that keys are spread over, 1 to 200; default 32, stored with the outbox
  outbox.head_policy       what a dead head of a key does: continue (default) or block; stored with the outbox
  outbox.max_strikes       how many dead relays bury a message; default 3, stored with the outbox
  outbox.max_payload       the largest payload in bytes; default 1048576, stored with the outbox
  outbox.keep_published    whether published messages are kept until a purge: true or false (default); stored with the outbox
  outbox.response_timeout  how long a call may take; default 10s
  outbox.connect_timeout   how long connecting may take; default 5s",
    open: |url| Box::pin(async move { Ok(OpenedStorage::new(MongoStorage::open(url).await?)) }),
};
