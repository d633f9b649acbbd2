//! An outbox in Redis, relayed to RabbitMQ. Needs both servers; their URLs are the two arguments.
//!
//! ```sh
//! cargo run -p pillarbox --features redis,rabbitmq --example redis_to_rabbitmq -- redis://localhost/ amqp://localhost
//! ```
//!
//! It writes an order with its message every second, and relays until Ctrl-C. With no queue bound to the exchange for
//! `orders.created` the messages are unroutable: they are retried, and arrive when a queue is there.

use pillarbox::rabbitmq::RabbitMqTransport;
use pillarbox::redis::RedisStorage;
use pillarbox::{DEFAULT_PREFIX, Message, Observation, Relay, RelayConfig, TokioTimer};
use std::time::Duration;

#[tokio::main]
async fn main() -> Result<(), Box<dyn std::error::Error>> {
    let mut arguments = std::env::args().skip(1);
    let redis_url = arguments.next().unwrap_or_else(|| "redis://localhost/".to_owned());
    let rabbitmq_url = arguments.next().unwrap_or_else(|| "amqp://localhost".to_owned());

    let outbox = RedisStorage::open(&redis_url).await?;
    let transport = RabbitMqTransport::open(&rabbitmq_url).await?;
    let config = RelayConfig::from_env(DEFAULT_PREFIX)?;

    let relay = Relay::new(outbox.clone(), transport, config)?.timer(TokioTimer::new()).observer(Printer);
    let shutdown = async {
        // Without signals the program can still be killed, which loses nothing.
        let _ = tokio::signal::ctrl_c().await;
    };
    println!("Relaying; press Ctrl-C to drain and stop.");
    tokio::select! {
        outcome = relay.run(shutdown) => outcome?,
        outcome = write_orders(&redis_url, outbox) => outcome?,
    }
    Ok(())
}

/// The application: one order a second, written together with its message.
async fn write_orders(url: &str, outbox: RedisStorage) -> Result<(), Box<dyn std::error::Error>> {
    // The application's own connection: the outbox's options are none of its business.
    let own_url = url.split('?').next().unwrap_or(url);
    let mut connection = redis::Client::open(own_url)?.get_multiplexed_async_connection().await?;
    for number in 1_u64.. {
        let order = format!("order-{number}");
        let message =
            Message::to("orders.created").key(order.clone()).payload(format!("{{\"order\":{number}}}"))?;
        let mut transaction = redis::pipe();
        transaction.atomic().hset(&order, "state", "created");
        outbox.append(&mut transaction, &[message])?;
        let _: () = transaction.query_async(&mut connection).await?;
        println!("wrote {order}");
        tokio::time::sleep(Duration::from_secs(1)).await;
    }
    Ok(())
}

/// Tells what the relay does.
struct Printer;

impl pillarbox::Observer for Printer {
    fn observe(&self, observation: &Observation<'_>) {
        match observation {
            Observation::Settled { published, .. } => println!("published {published}"),
            Observation::Retried { reason, after, .. } => println!("retried in {after:?}: {reason}"),
            Observation::Paused { error: Some(error), .. } => {
                println!("the broker is away: {}", error.report());
            }
            Observation::StoreFailed { error, .. } => println!("the store is away: {}", error.report()),
            _ => {}
        }
    }
}
