use crate::KafkaTransport;
use pillarbox_core::{AnyTransport, TransportDriver};

/// Opens `kafka:`.
pub const DRIVER: TransportDriver = TransportDriver {
    schemes: &["kafka"],
    description: "Kafka, an idempotent producer, a delivery report per message: kafka://user:password@host:9092,other-host:9092
  transport.source           the source of the CloudEvents, a URI; default /pillarbox
  transport.confirm_timeout  how long a confirmation may take; default 7s
  transport.connect_timeout  how long connecting may take; default 5s
  transport.max_payload      the largest payload in bytes; default 1028108, what a broker takes by default with headers
  transport.create_topics    whether the broker may create topics that are not there: true or false (default)
  transport.client_id        the name in the broker's logs and quotas; default pillarbox
  transport.sasl             plain (default where there is a user), scram-sha-256 or scram-sha-512
  transport.tls              connect by TLS: true or false (default)
  transport.root_certificates  a PEM file of authorities, instead of the system's
  transport.client_certificate, transport.client_key  PEM files that prove the client
  others                     librdkafka's own settings, such as compression.codec=lz4",
    open: |url| Box::pin(async move { KafkaTransport::open(url).await.map(AnyTransport::new) }),
};
