//! The driver: what the machine cannot show by itself.

use crate::supply::{Sink, Still, Supply};
use futures_executor::block_on;
use pillarbox_core::{AnyStorage, AnyTransport, ErrorKind, Relay, RelayConfig, Storage, Transport};

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
