use futures_util::future::BoxFuture;
use std::future::Future;

/// Why a handler failed: any error of the application.
pub type HandlerError = Box<dyn std::error::Error + Send + Sync>;

/// Does something about a domain event, in the transaction in which it happened. Write it with plain `async fn`.
///
/// ```
/// # use pillarbox_core::events::{Domain, Event, EventPublisher, Handler, HandlerError};
/// # #[derive(serde::Serialize)]
/// # struct OrderCreated;
/// # impl Event for OrderCreated { type Route = Domain; const TOPIC: &'static str = "orders.created"; }
/// struct ReserveGoods;
///
/// impl Handler<OrderCreated, Vec<String>> for ReserveGoods {
///     async fn handle(&self, _: &OrderCreated, transaction: &mut Vec<String>) -> Result<(), HandlerError> {
///         transaction.push("goods reserved".to_owned());
///         Ok(())
///     }
/// }
///
/// fn handlers(publisher: EventPublisher<Vec<String>>) -> EventPublisher<Vec<String>> {
///     publisher.on::<OrderCreated>(ReserveGoods)
/// }
/// ```
pub trait Handler<E, Tx>: Send + Sync {
    /// Handles `event`; what it writes goes into `transaction`.
    ///
    /// # Errors
    /// Any error of the application. It fails the publish, and so the caller rolls its transaction back.
    ///
    /// # Cancel safety
    /// After the future was dropped a part may be done in the transaction: the caller rolls it back.
    fn handle(
        &self,
        event: &E,
        transaction: &mut Tx,
    ) -> impl Future<Output = Result<(), HandlerError>> + Send;
}

/// The dyn-compatible twin of [`Handler`].
pub(super) trait ErasedHandler<E, Tx>: Send + Sync {
    fn handle<'a>(&'a self, event: &'a E, transaction: &'a mut Tx)
    -> BoxFuture<'a, Result<(), HandlerError>>;
}

impl<H: Handler<E, Tx>, E: Sync, Tx: Send> ErasedHandler<E, Tx> for H {
    fn handle<'a>(
        &'a self,
        event: &'a E,
        transaction: &'a mut Tx,
    ) -> BoxFuture<'a, Result<(), HandlerError>> {
        Box::pin(Handler::handle(self, event, transaction))
    }
}
