//! Stores and transports that are chosen at run time.

use crate::{
    Admin, Claim, Claimed, Destination, Error, Message, Outcomes, Renewed, Settled, Settlements, Storage,
    StorageGuarantees, Token, Transport, TransportGuarantees, Wakeup,
};
use futures_util::future::BoxFuture;
use std::fmt;
use std::sync::Arc;
use std::time::Duration;

/// Any [`Storage`], behind one pointer. Costs one allocation per call, not per message.
#[derive(Clone)]
pub struct AnyStorage(Arc<dyn ErasedStorage>);

impl AnyStorage {
    /// Hides the type of `storage`.
    pub fn new(storage: impl Storage + 'static) -> Self {
        Self(Arc::new(storage))
    }
}

impl fmt::Debug for AnyStorage {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str("AnyStorage")
    }
}

impl Storage for AnyStorage {
    fn guarantees(&self) -> StorageGuarantees {
        self.0.guarantees()
    }

    async fn claim(&self, claim: Claim) -> Result<Claimed, Error> {
        self.0.claim(claim).await
    }

    async fn renew(&self, tokens: &[Token], lease: Duration) -> Result<Vec<Renewed>, Error> {
        self.0.renew(tokens, lease).await
    }

    async fn settle(&self, settlements: &Settlements) -> Result<Vec<Settled>, Error> {
        self.0.settle(settlements).await
    }

    fn wakeup(&self) -> Option<&dyn Wakeup> {
        self.0.wakeup()
    }

    fn admin(&self) -> Option<&dyn Admin> {
        self.0.admin()
    }
}

/// The dyn-compatible twin of [`Storage`]; private, since nobody implements it by hand.
trait ErasedStorage: Send + Sync {
    fn guarantees(&self) -> StorageGuarantees;
    fn claim(&self, claim: Claim) -> BoxFuture<'_, Result<Claimed, Error>>;
    fn renew<'a>(
        &'a self,
        tokens: &'a [Token],
        lease: Duration,
    ) -> BoxFuture<'a, Result<Vec<Renewed>, Error>>;
    fn settle<'a>(&'a self, settlements: &'a Settlements) -> BoxFuture<'a, Result<Vec<Settled>, Error>>;
    fn wakeup(&self) -> Option<&dyn Wakeup>;
    fn admin(&self) -> Option<&dyn Admin>;
}

impl<S: Storage> ErasedStorage for S {
    fn guarantees(&self) -> StorageGuarantees {
        Storage::guarantees(self)
    }

    fn claim(&self, claim: Claim) -> BoxFuture<'_, Result<Claimed, Error>> {
        Box::pin(Storage::claim(self, claim))
    }

    fn renew<'a>(
        &'a self,
        tokens: &'a [Token],
        lease: Duration,
    ) -> BoxFuture<'a, Result<Vec<Renewed>, Error>> {
        Box::pin(Storage::renew(self, tokens, lease))
    }

    fn settle<'a>(&'a self, settlements: &'a Settlements) -> BoxFuture<'a, Result<Vec<Settled>, Error>> {
        Box::pin(Storage::settle(self, settlements))
    }

    fn wakeup(&self) -> Option<&dyn Wakeup> {
        Storage::wakeup(self)
    }

    fn admin(&self) -> Option<&dyn Admin> {
        Storage::admin(self)
    }
}

/// Any [`Transport`], behind one pointer. Costs one allocation per call, not per message.
#[derive(Clone)]
pub struct AnyTransport(Arc<dyn ErasedTransport>);

impl AnyTransport {
    /// Hides the type of `transport`.
    pub fn new(transport: impl Transport + 'static) -> Self {
        Self(Arc::new(transport))
    }
}

impl fmt::Debug for AnyTransport {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str("AnyTransport")
    }
}

impl Transport for AnyTransport {
    async fn publish(&self, batch: &[Message], outcomes: &mut Outcomes) {
        self.0.publish(batch, outcomes).await;
    }

    async fn probe(&self, destination: Destination) -> Result<(), Error> {
        self.0.probe(destination).await
    }

    fn destination(&self, message: &Message) -> Destination {
        self.0.destination(message)
    }

    fn destinations(&self) -> Vec<Destination> {
        self.0.destinations()
    }

    fn guarantees(&self, destination: Destination) -> TransportGuarantees {
        self.0.guarantees(destination)
    }
}

/// The dyn-compatible twin of [`Transport`].
trait ErasedTransport: Send + Sync {
    fn publish<'a>(&'a self, batch: &'a [Message], outcomes: &'a mut Outcomes) -> BoxFuture<'a, ()>;
    fn probe(&self, destination: Destination) -> BoxFuture<'_, Result<(), Error>>;
    fn destination(&self, message: &Message) -> Destination;
    fn destinations(&self) -> Vec<Destination>;
    fn guarantees(&self, destination: Destination) -> TransportGuarantees;
}

impl<T: Transport> ErasedTransport for T {
    fn publish<'a>(&'a self, batch: &'a [Message], outcomes: &'a mut Outcomes) -> BoxFuture<'a, ()> {
        Box::pin(Transport::publish(self, batch, outcomes))
    }

    fn probe(&self, destination: Destination) -> BoxFuture<'_, Result<(), Error>> {
        Box::pin(Transport::probe(self, destination))
    }

    fn destination(&self, message: &Message) -> Destination {
        Transport::destination(self, message)
    }

    fn destinations(&self) -> Vec<Destination> {
        Transport::destinations(self)
    }

    fn guarantees(&self, destination: Destination) -> TransportGuarantees {
        Transport::guarantees(self, destination)
    }
}
