//! Conformance suites, real servers and fault injection for the Pillarbox outbox.
