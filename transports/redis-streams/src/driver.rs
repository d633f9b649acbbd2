use crate::RedisStreamsTransport;
use pillarbox_core::{AnyTransport, TransportDriver};

/// Opens `redis:`, `redis+unix:`, `valkey:` and, with the feature `tls`, `rediss:` and `valkeys:`.
pub const DRIVER: TransportDriver = TransportDriver {
    schemes: &["redis", "rediss", "redis+unix", "valkey", "valkeys"],
    description: "Redis Streams, one entry per message: redis://user:password@host:6379/0
  transport.prefix           what stands before the topic in the stream's name; default nothing
  transport.create           make a stream that is not there: true (default) or false, which makes its messages unroutable
  transport.max_length       trim streams to about so many entries, read or not; default never
  transport.replicas         how many replicas must have a message before it counts as sent; default 0
  transport.confirm_timeout  how long an answer may take; default 8s
  transport.connect_timeout  how long connecting may take; default 5s
  transport.max_payload      the largest payload in bytes; default 15728640",
    open: |url| Box::pin(async move { RedisStreamsTransport::open(url).await.map(AnyTransport::new) }),
};
