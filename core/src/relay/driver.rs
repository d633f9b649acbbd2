use super::machine::{Command, Event, Machine};
use super::{Observer, RelayConfig, Silent};
use crate::{Error, ErrorKind, Hints, Moment, Storage, Timer, Transport, Wakeup};
use futures_util::future::{AbortHandle, Abortable, BoxFuture};
use futures_util::stream::{FuturesUnordered, Stream as _};
use std::fmt;
use std::future::Future;
use std::pin::{Pin, pin};
use std::sync::Arc;
use std::task::Poll;

/// Moves messages from a [`Storage`] to a [`Transport`]: one future that drives a [`Machine`].
///
/// Any number of relays may run side by side on one store. It spawns nothing: dropping the future is a crash, after which the
/// leases run out and another relay takes over.
pub struct Relay<S, T, C = NoTimer> {
    storage: S,
    transport: T,
    timer: C,
    config: RelayConfig,
    random: Option<Random>,
    observer: Arc<dyn Observer>,
}

type Random = Box<dyn FnMut() -> u64 + Send>;

/// Stands for the timer until [`Relay::timer`] gives one: without it a relay does not run.
#[derive(Clone, Copy, Debug)]
pub struct NoTimer(());

impl<S: Storage, T: Transport> Relay<S, T> {
    /// A relay from `storage` to `transport`. Give it a [`timer`](Self::timer) before it runs.
    ///
    /// # Errors
    /// `Misconfigured` if the settings do not hold against each other.
    pub fn new(storage: S, transport: T, config: RelayConfig) -> Result<Self, Error> {
        config.check()?;
        let observer = Arc::new(Silent);
        Ok(Self { storage, transport, timer: NoTimer(()), config, random: default_random(), observer })
    }

    /// Gives it the runtime's timer.
    pub fn timer<C: Timer>(self, timer: C) -> Relay<S, T, C> {
        let Self { storage, transport, timer: _, config, random, observer } = self;
        Relay { storage, transport, timer, config, random, observer }
    }
}

impl<S, T, C> Relay<S, T, C> {
    /// Draws jitter and nonces from `random`, uniform over all values. Default with the feature `clock`: a generator that the
    /// system seeds; without it this must be given.
    #[must_use]
    pub fn randomness(mut self, random: impl FnMut() -> u64 + Send + 'static) -> Self {
        self.random = Some(Box::new(random));
        self
    }

    /// Tells `observer` what the relay does. Default: nobody.
    #[must_use]
    pub fn observer(mut self, observer: impl Observer + 'static) -> Self {
        self.observer = Arc::new(observer);
        self
    }
}

impl<S: Storage, T: Transport, C: Timer> Relay<S, T, C> {
    /// Relays until `shutdown` completes, then drains: claims nothing more, finishes what is being sent within the grace
    /// period, and gives the rest back uncharged. Outages of the store or the broker never end it.
    ///
    /// # Errors
    /// `Misconfigured` if one side refuses the relay's credentials or settings and nothing has succeeded yet.
    ///
    /// # Cancel safety
    /// Dropping the future is a crash: nothing is lost, what was being sent may be sent again, and what was claimed waits for
    /// its lease to run out.
    pub async fn run(self, shutdown: impl Future<Output = ()> + Send) -> Result<(), Error> {
        let Self { storage, transport, timer, config, random, observer } = self;
        let Some(random) = random else {
            return Err(Error::new(ErrorKind::Misconfigured, "run")
                .describe("no source of randomness; call `Relay::randomness`, or enable the feature `clock`")
                .not_applied());
        };
        let destinations: Vec<_> =
            transport.destinations().into_iter().map(|id| (id, transport.guarantees(id))).collect();
        let mut machine = Machine::new(config, &destinations, random, observer)?;
        let mut hints = storage.wakeup().map(Wakeup::subscribe);
        let mut calls = Calls {
            storage: &storage,
            transport: &transport,
            timer: &timer,
            open: FuturesUnordered::new(),
            cut_offs: Vec::new(),
        };
        let mut shutdown = pin!(Some(shutdown));
        let mut events = Vec::new();
        let mut rounds = 0_u32;
        loop {
            rounds = rounds.wrapping_add(1);
            if rounds.is_multiple_of(ROUNDS_IN_A_TURN) {
                yield_once().await;
            }
            let now = timer.now();
            while let Some(command) = machine.poll(now) {
                calls.start(command);
            }
            if machine.is_finished() {
                return machine.take_failure().map_or(Ok(()), Err);
            }
            wait(&mut calls, shutdown.as_mut(), &mut hints, machine.poll_timeout(), &timer, &mut events)
                .await;
            let now = timer.now();
            for event in events.drain(..) {
                if let Event::Published { ticket, .. } = &event {
                    calls.cut_offs.retain(|(open, _)| open != ticket);
                }
                machine.handle(now, event, &transport);
            }
        }
    }
}

/// The calls on their way.
struct Calls<'a, S, T, C> {
    storage: &'a S,
    transport: &'a T,
    timer: &'a C,
    open: FuturesUnordered<BoxFuture<'a, Event>>,
    cut_offs: Vec<(u32, AbortHandle)>,
}

impl<S: Storage, T: Transport, C: Timer> Calls<'_, S, T, C> {
    fn start(&mut self, command: Command) {
        let (storage, transport, timer) = (self.storage, self.transport, self.timer);
        let call: BoxFuture<'_, Event> = match command {
            Command::Claim { claim, deadline } => Box::pin(async move {
                let result = until(timer, deadline, "claim", storage.claim(claim)).await;
                Event::Claimed { nonce: claim.nonce, result }
            }),
            Command::Publish { ticket, batch, mut outcomes, .. } => {
                let (handle, registration) = AbortHandle::new_pair();
                self.cut_offs.push((ticket, handle));
                Box::pin(async move {
                    // Whether it ended or was cut off, what was written stands.
                    let _ = Abortable::new(transport.publish(&batch, &mut outcomes), registration).await;
                    Event::Published { ticket, batch, outcomes }
                })
            }
            Command::CutOff { ticket } => {
                if let Some((_, handle)) = self.cut_offs.iter().find(|(open, _)| *open == ticket) {
                    handle.abort();
                }
                return;
            }
            Command::Probe { destination, deadline } => Box::pin(async move {
                let result = until(timer, deadline, "probe", transport.probe(destination)).await;
                Event::Probed { destination, result }
            }),
            Command::Renew { ticket, tokens, lease, deadline } => Box::pin(async move {
                let result = until(timer, deadline, "renew", storage.renew(&tokens, lease)).await;
                Event::Renewed { ticket, tokens, result }
            }),
            Command::Settle { ticket, settlements, deadline } => Box::pin(async move {
                let result = until(timer, deadline, "settle", storage.settle(&settlements)).await;
                Event::Settled { ticket, settlements, result }
            }),
        };
        self.open.push(call);
    }
}

/// `call`, given up at `deadline`.
async fn until<V>(
    timer: &impl Timer,
    deadline: Moment,
    operation: &'static str,
    call: impl Future<Output = Result<V, Error>>,
) -> Result<V, Error> {
    let (call, sleep) = (pin!(call), pin!(timer.sleep_until(deadline)));
    match futures_util::future::select(call, sleep).await {
        futures_util::future::Either::Left((result, _)) => result,
        futures_util::future::Either::Right(((), _)) => {
            Err(Error::new(ErrorKind::Unavailable, operation).describe("no answer in time"))
        }
    }
}

/// Waits for the first event, or until `timeout`, and gathers everything that is there.
async fn wait<S, T, C: Timer>(
    calls: &mut Calls<'_, S, T, C>,
    mut shutdown: Pin<&mut Option<impl Future<Output = ()>>>,
    hints: &mut Option<Box<dyn Hints>>,
    timeout: Option<Moment>,
    timer: &C,
    events: &mut Vec<Event>,
) {
    let mut hinted = hints.as_mut().map(|hints| hints.hinted());
    let mut sleep = pin!(timeout.map(|moment| timer.sleep_until(moment)));
    std::future::poll_fn(|context| {
        while let Poll::Ready(Some(event)) = Pin::new(&mut calls.open).poll_next(context) {
            events.push(event);
        }
        if shutdown.as_mut().as_pin_mut().is_some_and(|shutdown| shutdown.poll(context).is_ready()) {
            shutdown.set(None);
            events.push(Event::Shutdown);
        }
        if let Some(hint) = &mut hinted
            && hint.as_mut().poll(context).is_ready()
        {
            events.push(Event::Hint);
        }
        if !events.is_empty() {
            return Poll::Ready(());
        }
        match sleep.as_mut().as_pin_mut() {
            Some(sleep) => sleep.poll(context),
            None => Poll::Pending,
        }
    })
    .await;
}

/// Over a store and a broker within the process nothing has to be waited for: so often, others on the same thread have their
/// turn all the same.
const ROUNDS_IN_A_TURN: u32 = 64;

async fn yield_once() {
    let mut yielded = false;
    std::future::poll_fn(|context| {
        if std::mem::replace(&mut yielded, true) {
            return Poll::Ready(());
        }
        context.waker().wake_by_ref();
        Poll::Pending
    })
    .await;
}

/// Seeded by the system.
#[cfg(feature = "clock")]
fn default_random() -> Option<Random> {
    let mut random = super::random::SplitMix64::seeded(uuid::Uuid::new_v4().as_u64_pair().0);
    Some(Box::new(move || random.draw()))
}

#[cfg(not(feature = "clock"))]
fn default_random() -> Option<Random> {
    None
}

impl<S, T, C> fmt::Debug for Relay<S, T, C> {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.debug_struct("Relay").field("config", &self.config).finish_non_exhaustive()
    }
}
