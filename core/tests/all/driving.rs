//! The driver: what the machine cannot show by itself.

use crate::supply::{Jumping, Sink, Still, Supply};
use futures_executor::block_on;
use pillarbox_core::{
    AnyStorage, AnyTransport, Destination, Error, ErrorKind, Message, Outcomes, Relay, RelayConfig, Storage,
    Transport, TransportGuarantees,
};
use std::sync::atomic::{AtomicU32, Ordering};

#[test]
fn drains_and_stops() {
    let supply = Supply::new(1_234, 7, true);
    let relay = Relay::new(&supply, Sink { prefix_per_key: false }, RelayConfig::default()).unwrap();
    block_on(relay.timer(Still).randomness(|| 7).run(supply.drained())).unwrap();
    assert_eq!(supply.settled(), 1_234);
}

/// A relay whose store and broker never let it wait would have its thread for itself.
#[test]
fn others_on_the_thread_have_their_turn() {
    let supply = Supply::new(1_000_000, 500, false);
    let relay = Relay::new(&supply, Sink { prefix_per_key: true }, RelayConfig::default()).unwrap();
    let mut running = std::pin::pin!(relay.timer(Still).randomness(|| 7).run(supply.drained()));
    let mut context = std::task::Context::from_waker(std::task::Waker::noop());
    assert!(running.as_mut().poll(&mut context).is_pending());
    assert!(supply.settled() < 500_000, "{} settled in one turn", supply.settled());
}

#[test]
fn the_future_can_be_sent_between_threads() {
    fn sendable<T: Send>(value: T) -> T {
        value
    }
    fn shareable<T: Send + Sync>() {}
    shareable::<AnyStorage>();
    shareable::<AnyTransport>();
    let supply = Supply::new(10, 1, false);
    let relay = Relay::new(&supply, Sink { prefix_per_key: true }, RelayConfig::default()).unwrap();
    block_on(sendable(relay.timer(Still).randomness(|| 7).run(supply.drained()))).unwrap();
}

#[test]
fn an_erased_storage_and_transport_relay_as_well() {
    let supply: &'static Supply = Box::leak(Box::new(Supply::new(100, 10, false)));
    let storage = AnyStorage::new(supply);
    let transport = AnyTransport::new(Sink { prefix_per_key: true });
    assert_eq!(storage.guarantees().max_run, 10);
    assert_eq!(transport.destinations().len(), 1);
    let relay = Relay::new(storage, transport, RelayConfig::default()).unwrap();
    block_on(relay.timer(Still).randomness(|| 7).run(supply.drained())).unwrap();
    assert_eq!(supply.settled(), 100);
}

#[test]
fn settings_that_do_not_hold_are_refused_at_once() {
    let supply = Supply::new(1, 1, false);
    let config = RelayConfig::default().batch_size(0);
    let error = Relay::new(&supply, Sink { prefix_per_key: true }, config).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Misconfigured);
}

/// Its first publish is confirmed, every other one hangs until somebody drops it.
#[derive(Debug, Default)]
struct Stuck {
    publishes: AtomicU32,
    dropped: AtomicU32,
}

struct CountsDrop<'a>(&'a AtomicU32);

impl Drop for CountsDrop<'_> {
    fn drop(&mut self) {
        self.0.fetch_add(1, Ordering::Relaxed);
    }
}

impl Transport for &Stuck {
    async fn publish(&self, _: &[Message], outcomes: &mut Outcomes) {
        if self.publishes.fetch_add(1, Ordering::Relaxed) == 0 {
            // Beside the second one, not before it.
            std::future::poll_fn(|context| {
                context.waker().wake_by_ref();
                let is_alone = self.publishes.load(Ordering::Relaxed) == 1;
                if is_alone { std::task::Poll::Pending } else { std::task::Poll::Ready(()) }
            })
            .await;
            outcomes.fill(|| Ok(()));
            return;
        }
        let _counts = CountsDrop(&self.dropped);
        std::future::pending::<()>().await;
    }

    async fn probe(&self, _: Destination) -> Result<(), Error> {
        Ok(())
    }

    fn guarantees(&self, _: Destination) -> TransportGuarantees {
        Sink { prefix_per_key: false }.guarantees(Destination::ONLY)
    }
}

#[test]
fn a_publish_that_hangs_is_dropped_beside_one_that_ended() {
    let supply = Supply::new(2, 1, false);
    let stuck = Stuck::default();
    let config = RelayConfig::default().batch_size(1).publishes_in_flight(2);
    let relay = Relay::new(&supply, &stuck, config).unwrap();
    let relay = relay.timer(Jumping::default()).randomness(|| 7);
    block_on(relay.run(supply.drained())).unwrap();
    assert_eq!(stuck.dropped.load(Ordering::Relaxed), 1);
    assert_eq!(supply.settled(), 2, "one published, one to be tried again");
}

#[test]
fn a_relay_tells_its_settings() {
    let supply = Supply::new(1, 1, false);
    let relay = Relay::new(&supply, Sink { prefix_per_key: true }, RelayConfig::default().batch_size(77));
    assert!(format!("{:?}", relay.unwrap()).contains("77"));
}

#[cfg(feature = "clock")]
#[test]
fn the_system_seeds_a_relay_that_was_given_no_randomness() {
    let supply = Supply::new(10, 1, false);
    let relay = Relay::new(&supply, Sink { prefix_per_key: true }, RelayConfig::default()).unwrap();
    block_on(relay.timer(Still).run(supply.drained())).unwrap();
    assert_eq!(supply.settled(), 10);
}

#[cfg(not(feature = "clock"))]
#[test]
fn a_relay_without_randomness_says_what_to_do() {
    let supply = Supply::new(10, 1, false);
    let relay = Relay::new(&supply, Sink { prefix_per_key: true }, RelayConfig::default()).unwrap();
    let error = block_on(relay.timer(Still).run(supply.drained())).unwrap_err();
    assert!(error.to_string().contains("Relay::randomness"), "{error}");
}
