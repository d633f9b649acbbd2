use crate::NatsTransport;
use pillarbox_core::{AnyTransport, TransportDriver};

/// Opens `nats:` and, with TLS required, `tls:`.
pub const DRIVER: TransportDriver = TransportDriver {
    schemes: &["nats", "tls"],
    description: "NATS JetStream, an acknowledgement per message: nats://user:password@host:4222,other-host:4222
  transport.stream           the stream that must take the messages; default whichever listens on the topic
  transport.verify           stop at the start if that stream is not there: true or false (default)
  transport.confirm_timeout  how long an acknowledgement may take; default 8s
  transport.connect_timeout  how long connecting may take; default 5s
  transport.max_payload      the largest payload in bytes; default what the server takes, less 20480 for headers
  transport.credentials      a file with a user's JWT and seed
  transport.root_certificates  a PEM file of authorities, beside the system's
  transport.name             the connection's name in the server's lists; default pillarbox
  transport.inbox_prefix     the beginning of the subjects of answers; default _INBOX",
    open: |url| Box::pin(async move { NatsTransport::open(url).await.map(AnyTransport::new) }),
};
