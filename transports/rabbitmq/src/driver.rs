use crate::RabbitMqTransport;
use pillarbox_core::{AnyTransport, TransportDriver};

/// Opens `amqp:` and, with the feature `tls`, `amqps:`.
pub const DRIVER: TransportDriver = TransportDriver {
    schemes: &["amqp", "amqps"],
    description: "RabbitMQ, with publisher confirms: amqp://user:password@host:5672/virtual-host
  transport.exchange         where messages go; default the broker's default exchange: the topic names a queue
  transport.declare          declare the exchange, durable: direct, fanout, headers or topic; default no
  transport.verify           stop at the start if the exchange is not there: true or false (default)
  transport.confirm_timeout  how long a confirm may take; default 8s
  transport.connect_timeout  how long connecting may take; default 5s
  transport.max_payload      the largest payload in bytes; default 16777216",
    open: |url| Box::pin(async move { RabbitMqTransport::open(url).await.map(AnyTransport::new) }),
};
