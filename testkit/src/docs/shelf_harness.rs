use pillarbox_core::{Destination, Error, Message, Outcomes, Text, Transport, TransportGuarantees};
use pillarbox_testkit::transport::{Abilities, BoxError, Received, TransportHarness};
use std::sync::{Arc, Mutex};

/// A transport whose broker is a list.
#[derive(Clone, Default)]
struct Shelf(Arc<Mutex<Vec<Message>>>);

impl Transport for Shelf {
    async fn publish(&self, batch: &[Message], outcomes: &mut Outcomes) {
        self.0.lock().unwrap().extend_from_slice(batch);
        outcomes.fill(|| Ok(()));
    }

    async fn probe(&self, _: Destination) -> Result<(), Error> {
        Ok(())
    }

    fn guarantees(&self, _: Destination) -> TransportGuarantees {
        TransportGuarantees { deduplicates: false, max_payload: u32::MAX, prefix_per_key: true }
    }
}

#[derive(Default)]
struct MyHarness(Shelf);

impl TransportHarness for MyHarness {
    type Transport = Shelf;

    fn abilities(&self) -> Abilities {
        Abilities { prefix_per_key: true, ..Abilities::NONE }
    }

    fn topic(&self) -> Text {
        Text::from("orders.created")
    }

    async fn connect(&self) -> Result<Shelf, BoxError> {
        Ok(self.0.clone())
    }

    /// Read by other means than the transport: of a real broker by a consumer.
    async fn received(&self) -> Result<Vec<Received>, BoxError> {
        Ok(self.0.0.lock().unwrap().iter().map(Received::from).collect())
    }
}
