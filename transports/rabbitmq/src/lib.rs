//! The RabbitMQ transport of the Pillarbox outbox.
