//! Shared producers, made when they are first needed and again when they were lost.

use crate::client::{Reports, Sending, Signs, settings};
use crate::config::KafkaConfig;
use crate::error::{self, Loss, Operation};
use crate::flight::Ticket;
use futures_util::future::{Either, select};
use pillarbox_core::Error;
use rdkafka::error::RDKafkaErrorCode;
use rdkafka::metadata::{MetadataPartition, MetadataTopic};
use rdkafka::producer::{BaseRecord, Producer as _, PurgeConfig, ThreadedProducer};
use std::pin::pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;
use tokio::sync::Mutex;
use tokio::task::{JoinError, spawn_blocking};
use tokio::time::{Instant, sleep, timeout};

/// What a sign of life asks about: every cluster answers, whether it has the topic, or lets this user see it, or not.
const ANY_TOPIC: &str = "__consumer_offsets";

/// The first of the limits of one question; each is twice as long as the one before. Whoever asks may go before the
/// answer is there, and then a thread waits for it for so long.
pub(crate) const FIRST_LIMIT: Duration = Duration::from_millis(500);

/// The last of them.
const LAST_LIMIT: Duration = Duration::from_secs(8);

/// A question that fails at once, while a connection is being made, is asked again so much later.
const ASK_AGAIN: Duration = Duration::from_millis(20);

/// The reason of a loss is reported so soon after it, or never.
const EXPLANATION: Duration = Duration::from_millis(200);

/// What is in flight when the last handle is dropped may take so long to end. Nobody waits for its outcome.
const FLUSH: Duration = Duration::from_secs(1);

/// Makes the producers, and hands them to every publish. Dropping a call's future harms no other call.
pub(crate) struct Connector {
    config: KafkaConfig,
    batched: Place,
    single: Place,
}

#[derive(Default)]
struct Place {
    state: Mutex<State>,
    /// Counts finished attempts, so that who waited for one gets its failure.
    attempts: AtomicU64,
}

#[derive(Default)]
struct State {
    link: Option<Link>,
    failure: Option<Error>,
}

/// A producer that had a broker when it was handed out.
#[derive(Clone)]
pub(crate) struct Link(Arc<Producer>);

struct Producer {
    /// Taken when it is dropped.
    client: Option<ThreadedProducer<Reports>>,
    signs: Arc<Signs>,
}

impl Connector {
    pub(crate) fn new(config: KafkaConfig) -> Self {
        Self { config, batched: Place::default(), single: Place::default() }
    }

    pub(crate) fn config(&self) -> &KafkaConfig {
        &self.config
    }

    /// The producer, made if there is none. Who waited while another caller's attempt failed gets that failure, so that
    /// attempts do not queue up.
    pub(crate) async fn link(&self, operation: Operation, sending: Sending) -> Result<Link, Error> {
        let place = match sending {
            Sending::Batched => &self.batched,
            Sending::Single => &self.single,
        };
        let seen = place.attempts.load(Ordering::Acquire);
        let mut state = place.state.lock().await;
        if let Some(link) = state.link.as_ref().filter(|link| link.loss().is_none()) {
            return Ok(link.clone());
        }
        state.link = None;
        if let Some(failure) =
            state.failure.as_ref().filter(|_| place.attempts.load(Ordering::Acquire) > seen)
        {
            return Err(error::repeated(failure));
        }
        let made = self.connect(operation, sending).await;
        place.attempts.fetch_add(1, Ordering::Release);
        match made {
            Ok(link) => {
                state.failure = None;
                state.link = Some(link.clone());
                Ok(link)
            }
            Err(failure) => {
                let told = error::repeated(&failure);
                state.failure = Some(failure);
                Err(told)
            }
        }
    }

    async fn connect(&self, operation: Operation, sending: Sending) -> Result<Link, Error> {
        let (settings, signs) = (settings(&self.config, sending), Arc::new(Signs::new()));
        let told = signs.clone();
        // It reads files of certificates.
        let made = spawn_blocking(move || settings.create_with_context(Reports(told))).await;
        let Some(made) = ended(made) else {
            let loss = Loss::Away("the runtime ends".to_owned());
            return Err(loss.error(operation, &self.config.place()).not_applied());
        };
        let client = made.map_err(|failure| error::not_created(&failure))?;
        let link = Link(Arc::new(Producer { client: Some(client), signs }));
        link.purge_when_lost();
        let asked = link.ask(ANY_TOPIC, self.config.connect_timeout).await;
        asked.map_err(|loss| loss.error(operation, &self.config.place()).not_applied())?;
        Ok(link)
    }

    /// A sign of life. A producer that gets none is made anew at the next call.
    pub(crate) async fn ask(&self, operation: Operation) -> Result<(), Error> {
        let link = self.link(operation, Sending::Batched).await?;
        let asked = link.ask(ANY_TOPIC, self.config.connect_timeout).await;
        asked.map(drop).map_err(|loss| {
            link.signs().lose(loss.clone());
            loss.error(operation, &self.config.place()).not_applied()
        })
    }
}

impl Link {
    pub(crate) fn signs(&self) -> &Arc<Signs> {
        &self.0.signs
    }

    /// Why it is of no use any more.
    pub(crate) fn loss(&self) -> Option<Loss> {
        // The code of a fatal error is known before it is reported, and the report has its words alone.
        let fatal = self.0.client().client().fatal_error();
        let fatal =
            fatal.map(|(code, words)| error::of_connection(code, &words).unwrap_or(Loss::Fatal(words)));
        fatal.or_else(|| self.0.signs.loss())
    }

    /// Hands a message to the producer. Gives the code of the refusal, which may be that its queue is full.
    pub(crate) fn send(
        &self,
        record: BaseRecord<'_, [u8], [u8], Box<Ticket>>,
    ) -> Result<(), RDKafkaErrorCode> {
        self.0.client().send(record).map_err(|(failure, _)| {
            // Only a topic with a zero in it has no code, and that is no topic.
            failure.rdkafka_error_code().unwrap_or(RDKafkaErrorCode::InvalidTopic)
        })
    }

    /// Asks a broker about a topic, which also tells the producer whether it is there by now. Gives the partitions that have no leader.
    pub(crate) async fn ask(&self, topic: &str, limit: Duration) -> Result<Vec<i32>, Loss> {
        let deadline = Instant::now() + limit;
        let mut lost = pin!(self.0.signs.lost());
        let mut limit = FIRST_LIMIT;
        loop {
            let left = deadline.saturating_duration_since(Instant::now());
            if left.is_zero() {
                return Err(Loss::Silent);
            }
            let (link, topic, patience) = (self.clone(), topic.to_owned(), limit.min(left));
            let asking = pin!(spawn_blocking(move || link.0.leaderless(&topic, patience)));
            match select(asking, lost.as_mut()).await {
                Either::Left((answered, _)) => {
                    if let Some(partitions) = ended(answered).flatten() {
                        return Ok(partitions);
                    }
                }
                Either::Right(_) => {
                    // Without an explanation the loss is the same.
                    let _ = timeout(EXPLANATION, self.0.signs.explained()).await;
                    return Err(self.loss().unwrap_or(Loss::Silent));
                }
            }
            limit = longer(limit);
            sleep(ASK_AGAIN).await;
        }
    }

    /// Nothing is sent by a connection that is made later, also not what publishes that were dropped have left behind.
    fn purge_when_lost(&self) {
        let (lost, producer) = (self.0.signs.lost(), Arc::downgrade(&self.0));
        tokio::spawn(async move {
            lost.await;
            if let Some(producer) = producer.upgrade() {
                Self(producer).purge();
            }
        });
    }

    /// Throws away all that it holds: what waits is not sent any more, and the fate of what is in flight stays unknown. The reports say
    /// so of each message. Only for a producer that was lost.
    pub(crate) fn purge(&self) {
        self.0.client().purge(PurgeConfig::default().queue().inflight().non_blocking());
    }
}

impl Producer {
    fn client(&self) -> &ThreadedProducer<Reports> {
        self.client.as_ref().expect("it is taken by the drop alone")
    }

    /// The partitions of a topic that have no leader, as a broker says; `None` without an answer. Blocks.
    fn leaderless(&self, topic: &str, patience: Duration) -> Option<Vec<i32>> {
        let metadata = self.client().client().fetch_metadata(Some(topic), patience).ok()?;
        let partitions = metadata.topics().iter().flat_map(MetadataTopic::partitions);
        let without = partitions.filter(|partition| partition.leader() < 0 || partition.error().is_some());
        Some(without.map(MetadataPartition::id).collect())
    }
}

impl Drop for Producer {
    /// Ends it on a thread of its own, since that takes a moment: what waits is thrown away, what is in flight gets a bounded time.
    fn drop(&mut self) {
        let Some(client) = self.client.take() else { return };
        let end = move || {
            client.purge(PurgeConfig::default().queue());
            // What did not end by then is thrown away too.
            let _ = client.flush(FLUSH);
        };
        // Without a thread it ends here: the closure is dropped with the error.
        drop(std::thread::Builder::new().name("pillarbox-kafka-end".to_owned()).spawn(end));
    }
}

/// The limit of the next question. There may be many, since they may fail at once.
fn longer(limit: Duration) -> Duration {
    (limit * 2).min(LAST_LIMIT)
}

/// What a blocking task gave; `None` if the runtime ended before it began. One that panicked goes on doing so.
fn ended<T>(ended: Result<T, JoinError>) -> Option<T> {
    match ended.map_err(JoinError::try_into_panic) {
        Ok(value) => Some(value),
        Err(Ok(panic)) => std::panic::resume_unwind(panic),
        Err(Err(_)) => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn however_often_it_is_asked_the_limit_stays_one() {
        let limits: Vec<_> =
            std::iter::successors(Some(FIRST_LIMIT), |limit| Some(longer(*limit))).take(1_000).collect();
        assert!(limits.is_sorted() && limits[999] == LAST_LIMIT);
    }
}
