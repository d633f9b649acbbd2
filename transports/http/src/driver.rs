use crate::HttpTransport;
use pillarbox_core::{AnyTransport, TransportDriver};

/// Opens `https:` and `http:`.
pub const DRIVER: TransportDriver = TransportDriver {
    schemes: &["https", "http"],
    description: "Webhooks, one POST per message as a CloudEvent: https://user:password@host/path
  transport.source           the source of the CloudEvents, a URI; default /pillarbox
  transport.secret           sign as Standard Webhooks: whsec_ and base64, with + written as %2B; several after commas
  transport.authorization    the header Authorization, such as Bearer%20TOKEN
  transport.allow_private    send to addresses of private networks: true or false (default)
  transport.concurrency      how many requests of one publish may be on their way; default 16
  transport.timeout          how long a request may take; default 4s
  transport.connect_timeout  how long connecting may take; default 2s
  transport.probe            a path that answers 2xx while the endpoint works; default: any answer to OPTIONS but 5xx
  transport.max_payload      the largest payload in bytes; default 15728640",
    open: |url| Box::pin(async move { HttpTransport::open(url).await.map(AnyTransport::new) }),
};
