//! One publish on its way.

use crate::HttpConfig;
use crate::error::{self, Operation};
use crate::judge;
use crate::properties;
use futures_util::stream::{self, StreamExt as _};
use pillarbox_core::{Error, Message, Outcomes};
use reqwest::{Client, Method, Response};
use std::collections::HashMap;
use std::sync::{Mutex, PoisonError};
use std::time::{Instant, SystemTime, UNIX_EPOCH};
use tokio::time::timeout;

/// So much of an answer is read, so that its connection can be used again; one that says more is closed.
const ANSWER_BYTES: usize = 64 * 1024;

/// What all requests of one publish share.
struct Flight<'a> {
    config: &'a HttpConfig,
    client: &'a Client,
    began: Instant,
    outcomes: Mutex<&'a mut Outcomes>,
    /// Why nothing more is sent.
    outage: Mutex<Option<Error>>,
}

/// Sends a batch: keys side by side, the messages of one key one after the other.
pub(crate) async fn publish(
    config: &HttpConfig,
    client: &Client,
    batch: &[Message],
    outcomes: &mut Outcomes,
) {
    let flight = Flight {
        config,
        client,
        began: Instant::now(),
        outcomes: Mutex::new(outcomes),
        outage: Mutex::new(None),
    };
    let flight = &flight;
    let sending = stream::iter(by_key(batch));
    sending.for_each_concurrent(config.concurrency, |of_key| flight.send_in_order(batch, of_key)).await;
}

/// The places of messages that have an order among them.
fn by_key(batch: &[Message]) -> Vec<Vec<usize>> {
    let mut of_key: HashMap<&str, usize> = HashMap::new();
    let mut all: Vec<Vec<usize>> = Vec::with_capacity(batch.len());
    for (index, message) in batch.iter().enumerate() {
        let place = match message.key() {
            Some(key) => *of_key.entry(&**key).or_insert(all.len()),
            None => all.len(),
        };
        match all.get_mut(place) {
            Some(places) => places.push(index),
            None => all.push(vec![index]),
        }
    }
    all
}

impl Flight<'_> {
    async fn send_in_order(&self, batch: &[Message], of_key: Vec<usize>) {
        let mut places = of_key.into_iter();
        while let Some(index) = places.next() {
            let outcome = self.send(&batch[index]).await;
            let failure = outcome.as_ref().err().map(judge::behind);
            self.write(index, outcome);
            if let Some(failure) = failure {
                for index in places.by_ref() {
                    self.write(index, Err(judge::copied(&failure).not_applied()));
                }
            }
        }
    }

    async fn send(&self, message: &Message) -> Result<(), Error> {
        let config = self.config;
        judge::check(config, message)?;
        if let Some(error) = &*self.outage.lock().unwrap_or_else(PoisonError::into_inner) {
            return Err(judge::spared(error));
        }
        if self.began.elapsed() >= config.timeout {
            return Err(judge::not_begun(config));
        }
        let outcome = self.exchange(message).await;
        if let Err(error) = &outcome
            && judge::is_outage(error)
        {
            let mut outage = self.outage.lock().unwrap_or_else(PoisonError::into_inner);
            outage.get_or_insert_with(|| judge::copied(error));
        }
        outcome
    }

    async fn exchange(&self, message: &Message) -> Result<(), Error> {
        let config = self.config;
        // A clock before 1970 signs as of then, and the receiver refuses it.
        let seconds = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default().as_secs();
        let headers = properties::headers(config, message, seconds)?;
        let request = self.client.request(Method::POST, config.url.clone());
        let request = request.headers(headers).body(message.payload().clone());
        let Ok(answered) = timeout(config.timeout, request.send()).await else {
            return Err(judge::timed_out(config, Operation::Publish));
        };
        let mut answer =
            answered.map_err(|error| error::describe(error, Operation::Publish, &config.place()))?;
        let words = beginning(config, &mut answer).await;
        judge::outcome(config, answer.status(), answer.headers(), &words)
    }

    fn write(&self, index: usize, outcome: Result<(), Error>) {
        self.outcomes.lock().unwrap_or_else(PoisonError::into_inner).set(index, outcome);
    }
}

/// The beginning of an answer's body, for a quarter of a request's time. The status was said before it, so that a body that does not
/// come changes nothing.
async fn beginning(config: &HttpConfig, answer: &mut Response) -> Vec<u8> {
    let mut words = Vec::new();
    let reading = async {
        while let Ok(Some(part)) = answer.chunk().await {
            let room = ANSWER_BYTES - words.len();
            words.extend_from_slice(&part[..part.len().min(room)]);
            if part.len() >= room {
                break;
            }
        }
    };
    let _ = timeout(config.timeout / 4, reading).await;
    words
}

/// Asks for a sign of life.
pub(crate) async fn probe(config: &HttpConfig, client: &Client) -> Result<(), Error> {
    let (method, url) = match &config.probe {
        Some(url) => (Method::GET, url.clone()),
        None => (Method::OPTIONS, config.url.clone()),
    };
    let mut request = client.request(method, url);
    if let Some(value) = &config.authorization {
        request = request.header(reqwest::header::AUTHORIZATION, value.clone());
    }
    let exchange = async {
        let answered = request.send().await;
        let failed = |error| error::describe(error, Operation::Probe, &config.place());
        let mut answer = answered.map_err(failed)?;
        beginning(config, &mut answer).await;
        judge::probed(config, answer.status(), answer.headers())
    };
    timeout(config.timeout, exchange)
        .await
        .unwrap_or_else(|_| Err(judge::timed_out(config, Operation::Probe)))
        .map_err(Error::not_applied)
}
