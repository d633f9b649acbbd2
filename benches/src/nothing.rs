//! A broker that does nothing and a time that stands still, so that what is measured between them and testkit's `Supply` is the relay
//! alone.

use pillarbox_core::{Destination, Error, Message, Moment, Outcomes, Timer, Transport, TransportGuarantees};

/// Confirms everything at once.
#[derive(Clone, Copy, Debug)]
pub struct Nowhere;

impl Transport for Nowhere {
    async fn publish(&self, _: &[Message], outcomes: &mut Outcomes) {
        outcomes.fill(|| Ok(()));
    }

    async fn probe(&self, _: Destination) -> Result<(), Error> {
        Ok(())
    }

    fn guarantees(&self, _: Destination) -> TransportGuarantees {
        TransportGuarantees { deduplicates: false, max_payload: u32::MAX, prefix_per_key: true }
    }
}

/// A time that stands still: for relays that never have to wait, where the system cannot tell the time, as under Valgrind.
#[derive(Clone, Copy, Debug)]
pub struct Still;

impl Timer for Still {
    fn now(&self) -> Moment {
        Moment::ORIGIN
    }

    async fn sleep_until(&self, _: Moment) {
        std::future::pending::<()>().await;
    }
}
