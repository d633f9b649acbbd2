//! Throughput programs and benches of the Pillarbox outbox.
