//! The transactional outbox: write business data and messages in one transaction, relay them at least once and in order.
