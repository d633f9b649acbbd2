//! In-process transports of the Pillarbox outbox: a channel and standard output.
