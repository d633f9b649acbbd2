use pillarbox_core::{
    Destination, Error, ErrorKind, Limits, Message, MessageId, Outcomes, Text, Transport, TransportGuarantees,
};
use pillarbox_testkit::transport::{Abilities, BoxError, Received, TransportHarness};
use std::collections::VecDeque;
use std::sync::{Arc, Mutex, MutexGuard};
use std::task::Poll;

const NOWHERE: &str = "nowhere";
const LARGEST: u32 = 400_000;

macro_rules! faults {
    ($($fault:ident)+) => {
        /// The promise that is broken.
        #[derive(Clone, Copy, Debug, PartialEq, Eq)]
        pub(super) enum Fault {
            None,
            $($fault),+
        }

        impl Fault {
            /// All but none.
            pub(super) const BROKEN: [Self; [$(Self::$fault),+].len()] = [$(Self::$fault),+];
        }
    };
}
faults! {
    SaysOkAndDelivers2Of3
    DeliversTheFirst100
    DeliversTwice
    ReordersTheBatch
    SaysNotApplied
    DropsHeaders
    CutsPayloads
    RenamesRepetitions
    ListsNoDestination
    FailsTheWholeBatch
    TellsTheNeighbour
    ForgetsTheLastOutcome
    SharesConfirms
    SaysUnavailableForUnroutable
    SaysOkForUnroutable
    SaysUnavailableForOversize
    GoesOnBehindAFailure
    ProbePublishes
    ProbeAlwaysSucceeds
    NeverConnectsAgain
    SaysMisconfiguredInOutages
    SaysOkInOutages
    PublishesTheEmptyBatch
}

/// The broker, and the harness of a case.
pub(super) struct Mutant {
    broker: Arc<Mutex<Broker>>,
    fault: Fault,
}

struct Broker {
    is_up: bool,
    /// How often it went away: connections of before are lost.
    stops: u32,
    arrived: Vec<Message>,
}

impl Mutant {
    pub(super) fn new(fault: Fault) -> Self {
        Self { broker: Arc::new(Mutex::new(Broker { is_up: true, stops: 0, arrived: Vec::new() })), fault }
    }
}

impl TransportHarness for Mutant {
    type Transport = Broken;

    fn abilities(&self) -> Abilities {
        Abilities::ALL
    }

    fn topic(&self) -> Text {
        Text::from("orders.created")
    }

    async fn connect(&self) -> Result<Broken, BoxError> {
        let (broker, fault) = (Arc::clone(&self.broker), self.fault);
        let connected_after = self.broker.lock().unwrap().stops;
        Ok(Broken { broker, fault, connected_after, confirms: Mutex::default() })
    }

    async fn received(&self) -> Result<Vec<Received>, BoxError> {
        Ok(self.broker.lock().unwrap().arrived.iter().map(Received::from).collect())
    }

    async fn unroutable_topic(&self) -> Result<Text, BoxError> {
        Ok(Text::from(NOWHERE))
    }

    async fn stop(&self) -> Result<(), BoxError> {
        let mut broker = self.broker.lock().unwrap();
        broker.is_up = false;
        broker.stops += 1;
        Ok(())
    }

    async fn start(&self) -> Result<(), BoxError> {
        self.broker.lock().unwrap().is_up = true;
        Ok(())
    }
}

/// A transport that keeps every promise but one. Each message takes one await between the sending and the confirm.
pub(super) struct Broken {
    broker: Arc<Mutex<Broker>>,
    fault: Fault,
    connected_after: u32,
    /// Of all publishes together: only where that is the fault.
    confirms: Mutex<VecDeque<Result<(), Error>>>,
}

impl Broken {
    fn broker(&self) -> MutexGuard<'_, Broker> {
        self.broker.lock().unwrap()
    }

    fn reaches_the_broker(&self) -> bool {
        let broker = self.broker();
        let is_connected = self.fault != Fault::NeverConnectsAgain || broker.stops == self.connected_after;
        broker.is_up && is_connected
    }

    /// What an outage is called.
    fn outage(&self) -> Result<(), Error> {
        match self.fault {
            Fault::SaysOkInOutages => Ok(()),
            Fault::SaysMisconfiguredInOutages => Err(Error::new(ErrorKind::Misconfigured, "publish")),
            _ => Err(Error::new(ErrorKind::Unavailable, "publish")),
        }
    }

    /// Why a message cannot be sent at all.
    fn refusal(&self, message: &Message) -> Option<Result<(), Error>> {
        let kind = if &**message.topic() == NOWHERE {
            match self.fault {
                Fault::SaysOkForUnroutable => return Some(Ok(())),
                Fault::SaysUnavailableForUnroutable => ErrorKind::Unavailable,
                _ => ErrorKind::Unroutable,
            }
        } else if message.payload().len() > LARGEST as usize {
            if self.fault == Fault::SaysUnavailableForOversize {
                ErrorKind::Unavailable
            } else {
                ErrorKind::Rejected
            }
        } else {
            return None;
        };
        Some(Err(Error::new(kind, "publish").not_applied()))
    }

    fn deliver(&self, index: usize, message: &Message) {
        let mut broker = self.broker();
        let arriving = match self.fault {
            Fault::SaysOkAndDelivers2Of3 if index % 3 == 1 => return,
            Fault::DeliversTheFirst100 if index >= 100 => return,
            Fault::DeliversTwice => {
                broker.arrived.push(message.clone());
                message.clone()
            }
            Fault::DropsHeaders => changed(message, message.id(), message.payload().len(), false),
            Fault::CutsPayloads => changed(message, message.id(), message.payload().len().min(65_535), true),
            Fault::RenamesRepetitions if broker.arrived.iter().any(|known| known.id() == message.id()) => {
                changed(message, MessageId::from_bytes([9; 16]), message.payload().len(), true)
            }
            _ => message.clone(),
        };
        broker.arrived.push(arriving);
    }

    async fn send(&self, index: usize, message: &Message) -> Result<(), Error> {
        if !self.reaches_the_broker() {
            return self.outage().map_err(Error::not_applied);
        }
        let refusal = self.refusal(message);
        if refusal.is_none() {
            self.deliver(index, message);
        }
        if self.fault == Fault::SharesConfirms {
            let refusal_takes_longer = refusal.is_some();
            self.confirms.lock().unwrap().push_back(refusal.unwrap_or(Ok(())));
            if refusal_takes_longer {
                moment().await;
            }
            moment().await;
            return self.confirms.lock().unwrap().pop_front().unwrap();
        }
        moment().await;
        if let Some(refusal) = refusal {
            return refusal;
        }
        if self.reaches_the_broker() {
            return Ok(());
        }
        if self.fault == Fault::SaysNotApplied {
            return self.outage().map_err(Error::not_applied);
        }
        self.outage()
    }
}

impl Transport for Broken {
    async fn publish(&self, batch: &[Message], outcomes: &mut Outcomes) {
        if batch.is_empty() && self.fault == Fault::PublishesTheEmptyBatch {
            let message = Message::to("nothing").payload("").unwrap();
            self.broker().arrived.push(message);
        }
        let mut places: Vec<usize> = (0..batch.len()).collect();
        if self.fault == Fault::ReordersTheBatch {
            places.reverse();
        }
        let mut stopped: Vec<&Text> = Vec::new();
        for index in places {
            let message = &batch[index];
            let is_behind_a_failure = message.key().is_some_and(|key| stopped.contains(&key));
            let outcome = if is_behind_a_failure && self.fault != Fault::GoesOnBehindAFailure {
                Err(Error::new(ErrorKind::Unavailable, "publish").not_applied())
            } else {
                self.send(index, message).await
            };
            if outcome.is_err() {
                stopped.extend(message.key());
            }
            match self.fault {
                Fault::ForgetsTheLastOutcome if index + 1 == batch.len() => {}
                Fault::TellsTheNeighbour => outcomes.set((index + 1) % batch.len(), outcome),
                Fault::FailsTheWholeBatch if outcome.is_err() => {
                    for index in 0..batch.len() {
                        outcomes.set(index, Err(Error::new(ErrorKind::Unavailable, "publish")));
                    }
                    return;
                }
                _ => outcomes.set(index, outcome),
            }
        }
    }

    async fn probe(&self, _: Destination) -> Result<(), Error> {
        if self.fault == Fault::ProbePublishes {
            self.broker().arrived.push(Message::to("probe").payload("").unwrap());
        }
        moment().await;
        if self.reaches_the_broker() || self.fault == Fault::ProbeAlwaysSucceeds {
            Ok(())
        } else {
            Err(Error::new(ErrorKind::Unavailable, "probe"))
        }
    }

    fn destinations(&self) -> Vec<Destination> {
        if self.fault == Fault::ListsNoDestination { Vec::new() } else { vec![Destination::ONLY] }
    }

    fn guarantees(&self, _: Destination) -> TransportGuarantees {
        TransportGuarantees { deduplicates: false, max_payload: LARGEST, prefix_per_key: true }
    }
}

/// The message with another id, less of its payload, or without headers.
fn changed(message: &Message, id: MessageId, length: usize, keeps_headers: bool) -> Message {
    let mut changed =
        Message::given(id, message.created_at(), message.topic().clone()).limits(Limits::highest());
    if let Some(key) = message.key() {
        changed = changed.key(key.clone());
    }
    if let Some(content_type) = message.content_type() {
        changed = changed.content_type(content_type.clone());
    }
    for (name, value) in message.headers().iter().filter(|_| keeps_headers) {
        changed = changed.header(name.clone(), value.clone());
    }
    changed.payload(message.payload().slice(..length)).unwrap()
}

/// One await.
async fn moment() {
    let mut has_passed = false;
    std::future::poll_fn(|context| {
        if has_passed {
            return Poll::Ready(());
        }
        has_passed = true;
        context.waker().wake_by_ref();
        Poll::Pending
    })
    .await;
}
