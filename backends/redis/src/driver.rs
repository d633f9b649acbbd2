use crate::RedisStorage;
use pillarbox_core::{OpenedStorage, StorageDriver};

/// Opens outboxes in Redis by URL, with the options of [`RedisConfig`](crate::RedisConfig).
pub const DRIVER: StorageDriver = StorageDriver {
    schemes: &[
        "redis",
        "rediss",
        "redis+unix",
        "redis+cluster",
        "rediss+cluster",
        "redis+sentinel",
        "rediss+sentinel",
        "valkey",
        "valkeys",
    ],
    description: "An outbox in Redis or Valkey: redis://user:password@host:6379/0?outbox.name=orders
Also redis+cluster://host:6379,… and redis+sentinel://host:26379,…/service, and each with rediss for TLS.
  outbox.name                its name; default outbox
  outbox.lanes               lanes that keys are spread over, 1 to 256; default 32, stored with the outbox
  outbox.head_policy         what a dead head of a key does: continue (default) or block; stored with the outbox
  outbox.max_strikes         how many dead relays bury a message; default 3, stored with the outbox
  outbox.max_payload         the largest payload in bytes; default 1048576, stored with the outbox
  outbox.durability          what an enqueue outside a transaction waits for: none (default), wait or waitaof
  outbox.replicas            how many replicas it waits for; default 1
  outbox.durability_timeout  how long it waits for them; default 1s
  outbox.response_timeout    how long an answer may take; default 10s
  outbox.connect_timeout     how long connecting may take; default 5s
  outbox.notify              whether an enqueue wakes waiting relays: true (default) or false
  outbox.sentinel_username   the user at the sentinels
  outbox.sentinel_password   the password at the sentinels",
    open: |url| Box::pin(async move { Ok(OpenedStorage::new(RedisStorage::open(url).await?)) }),
};
