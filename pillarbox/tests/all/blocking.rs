//! A relay on its own thread.

use pillarbox::blocking::RelayThread;
use pillarbox::memory::MemoryStorage;
use pillarbox::{
    Destination, Error, ErrorKind, Message, Outcomes, Relay, RelayConfig, Transport, TransportGuarantees,
};
use std::sync::mpsc;
use std::time::Duration;

/// Sends what it is given to a channel; panics at the topic `deadly`.
struct Channel(mpsc::Sender<String>);

impl Transport for Channel {
    async fn publish(&self, batch: &[Message], outcomes: &mut Outcomes) {
        for message in batch {
            assert!(&**message.topic() != "deadly", "a deadly message");
            self.0.send(message.topic().to_string()).expect("the test listens");
        }
        outcomes.fill(|| Ok(()));
    }

    async fn probe(&self, _: Destination) -> Result<(), Error> {
        Ok(())
    }

    fn guarantees(&self, _: Destination) -> TransportGuarantees {
        TransportGuarantees { deduplicates: false, max_payload: u32::MAX, prefix_per_key: true }
    }
}

fn start(outbox: &MemoryStorage) -> (RelayThread, mpsc::Receiver<String>) {
    let (sender, receiver) = mpsc::channel();
    let storage = outbox.clone();
    let relay =
        RelayThread::start(async move || Relay::new(storage, Channel(sender), RelayConfig::default()));
    (relay.unwrap(), receiver)
}

fn enqueue(outbox: &MemoryStorage, topic: &'static str) {
    outbox.enqueue_alone(&[Message::to(topic).payload("{}").unwrap()]).unwrap();
}

#[test]
fn relays_without_a_runtime_and_stops() {
    let outbox = MemoryStorage::new();
    let (relay, received) = start(&outbox);
    enqueue(&outbox, "orders.created");
    assert_eq!(received.recv_timeout(Duration::from_secs(30)).unwrap(), "orders.created");
    assert!(!relay.is_finished());
    relay.stop().unwrap();
}

#[test]
fn what_fails_at_the_opening_is_answered_by_the_start() {
    let error = RelayThread::start(async || -> Result<Relay<MemoryStorage, Channel>, Error> {
        Err(Error::new(ErrorKind::Misconfigured, "open").describe("no such store"))
    })
    .unwrap_err();
    assert_eq!((error.kind(), error.description()), (ErrorKind::Misconfigured, "no such store"));
}

#[test]
fn a_panic_is_seen() {
    let outbox = MemoryStorage::new();
    let (relay, _received) = start(&outbox);
    enqueue(&outbox, "deadly");
    let error = relay.join().unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Unexpected);
    assert!(error.description().contains("a deadly message"), "{error}");

    let panic =
        RelayThread::start(async || -> Result<Relay<MemoryStorage, Channel>, Error> { panic!("at once") });
    assert!(panic.unwrap_err().description().contains("at once"));
}

#[test]
fn dropping_the_handle_stops_the_relay() {
    let outbox = MemoryStorage::new();
    let (relay, received) = start(&outbox);
    drop(relay);
    // The transport went with the relay, so nobody sends any more.
    assert_eq!(received.recv(), Err(mpsc::RecvError));
}
