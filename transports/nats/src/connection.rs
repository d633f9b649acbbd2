//! One shared connection, made when it is first needed and again when it broke.

use crate::config::NatsConfig;
use crate::credentials::Identity;
use crate::error::{self, Operation};
use async_nats::{
    AuthError, Client, ConnectOptions, Event, HeaderMap, Message, Request, RequestErrorKind, ServerError,
};
use bytes::Bytes;
use futures_util::future::{Either, select};
use pillarbox_core::Error;
use std::collections::VecDeque;
use std::pin::pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU32, AtomicU64, Ordering};
use std::time::Duration;
use tokio::sync::{Mutex, watch};
use tokio::time::timeout;

/// How often the client asks a silent server for a sign of life. After three without an answer the connection counts as lost; the
/// client's own minute would leave a vanished server unnoticed for three.
const PING_INTERVAL: Duration = Duration::from_secs(5);

/// So many refused subjects are remembered, for the requests that wait for an answer about them.
const DENIALS: usize = 1024;

/// What the largest headers of a message take beside its payload, rounded up: 16 KiB of the producer's, key, id and content type.
const ROOM_FOR_HEADERS: u32 = 20 * 1024;

/// As attributes of a CloudEvent they stand there once more, each byte of a value with up to three.
const ROOM_FOR_ATTRIBUTES: u32 = 52 * 1024;

/// Makes the connection, and hands it to every publish. Dropping a call's future harms no other call.
pub(crate) struct Connector {
    config: NatsConfig,
    state: Mutex<State>,
    /// Counts finished attempts, so that who waited for one gets its failure.
    attempts: AtomicU64,
    /// What the server took at the last connection, headers included.
    max_payload: AtomicU32,
}

#[derive(Default)]
struct State {
    link: Option<Link>,
    failure: Option<Error>,
}

/// A connection that lived when it was handed out.
#[derive(Clone)]
pub(crate) struct Link {
    client: Client,
    signs: Arc<watch::Sender<Signs>>,
}

/// What the server says about the connection beside its answers.
#[derive(Default)]
struct Signs {
    lost: bool,
    /// Subjects that the user may not publish to, with a running number: they get no answer.
    denied: VecDeque<(u64, String)>,
    denials: u64,
}

/// Why there is no answer.
pub(crate) enum NoAnswer {
    /// The connection had been lost before: nothing was sent.
    NotSent,
    /// The connection was lost with the request in flight.
    Lost,
    /// The connection lives.
    TimedOut,
    /// Nobody listens on the subject.
    NoResponders,
    /// The user may not publish to the subject.
    Denied,
}

impl Connector {
    pub(crate) fn new(config: NatsConfig) -> Self {
        // The server's default, until it says otherwise.
        let max_payload = AtomicU32::new(1024 * 1024);
        Self { config, state: Mutex::default(), attempts: AtomicU64::new(0), max_payload }
    }

    pub(crate) fn config(&self) -> &NatsConfig {
        &self.config
    }

    /// The largest message, headers included.
    pub(crate) fn max_message(&self) -> u32 {
        self.max_payload.load(Ordering::Relaxed)
    }

    /// The largest payload that passes with any headers.
    pub(crate) fn max_payload(&self) -> u32 {
        let most = self.max_message();
        let attributes = if self.config.source.is_some() { ROOM_FOR_ATTRIBUTES } else { 0 };
        let with_headers = most.saturating_sub(ROOM_FOR_HEADERS + attributes).max(most / 2);
        self.config.max_payload.map_or(with_headers, |bytes| bytes.min(most))
    }

    /// The connection, made if there is none. Who waited while another caller's attempt failed gets that failure, so that
    /// attempts do not queue up.
    pub(crate) async fn link(&self, operation: Operation) -> Result<Link, Error> {
        let seen = self.attempts.load(Ordering::Acquire);
        let mut state = self.state.lock().await;
        if let Some(link) = state.link.as_ref().filter(|link| !link.is_lost()) {
            return Ok(link.clone());
        }
        state.link = None;
        if let Some(failure) = state.failure.as_ref().filter(|_| self.attempts.load(Ordering::Acquire) > seen)
        {
            return Err(crate::judge::repeated(failure));
        }
        let made = self.connect(operation).await;
        self.attempts.fetch_add(1, Ordering::Release);
        match made {
            Ok(link) => {
                let bytes = link.client.server_info().max_payload;
                self.max_payload.store(u32::try_from(bytes).unwrap_or(u32::MAX), Ordering::Relaxed);
                state.failure = None;
                state.link = Some(link.clone());
                Ok(link)
            }
            Err(failure) => {
                let told = crate::judge::repeated(&failure);
                state.failure = Some(failure);
                Err(told)
            }
        }
    }

    async fn connect(&self, operation: Operation) -> Result<Link, Error> {
        let config = &self.config;
        let identity = Identity::read(config)?;
        let signs = Arc::new(watch::Sender::new(Signs::default()));
        let (told, made) = (signs.clone(), Arc::new(AtomicBool::new(false)));
        let was_made = made.clone();
        // The client would connect again by itself and then send what waited in its queue, long after the relay was told that its
        // fate is unknown. Without a login it cannot, and ends.
        let login = move |nonce: Vec<u8>| {
            std::future::ready(if was_made.load(Ordering::Acquire) {
                Err(AuthError::new("this connection is not made again: the transport makes a new one"))
            } else {
                identity
                    .answer(&nonce)
                    .ok_or_else(|| AuthError::new("the seed of the credentials cannot sign"))
            })
        };
        let mut options = ConnectOptions::with_auth_callback(login)
            .name(&config.name)
            .custom_inbox_prefix(&config.inbox_prefix)
            .connection_timeout(config.connect_timeout)
            .ping_interval(PING_INTERVAL)
            .request_timeout(None)
            .ignore_discovered_servers()
            // Each server once.
            .max_reconnects(config.servers.len())
            .event_callback(move |event| {
                note(&told, event);
                std::future::ready(())
            });
        if let Some(path) = &config.root_certificates {
            options = options.add_root_certificates(path.clone());
        }
        // Boxed, since the client's futures are deep.
        match Box::pin(options.connect(&config.servers)).await {
            Ok(client) => {
                made.store(true, Ordering::Release);
                Ok(Link { client, signs })
            }
            Err(failure) => Err(error::not_connected(&failure, operation, &config.place())),
        }
    }
}

impl Link {
    /// Sends a message and waits for the answer to it.
    ///
    /// # Cancel safety
    /// Dropping the future leaves unknown whether the message is sent.
    pub(crate) async fn request(
        &self,
        subject: &str,
        headers: Option<HeaderMap>,
        payload: Bytes,
        limit: Duration,
    ) -> Result<Message, NoAnswer> {
        if self.is_lost() {
            return Err(NoAnswer::NotSent);
        }
        let mut signs = self.signs.subscribe();
        let denials = signs.borrow().denials;
        let mut request = Request::new().payload(payload).timeout(None);
        if let Some(headers) = headers {
            request = request.headers(headers);
        }
        let answer = pin!(self.client.send_request(subject.to_owned(), request));
        let sign = pin!(signs.wait_for(|signs| signs.lost || signs.deny(subject, denials)));
        // An answer that is here counts, also if the connection was lost behind it: the first of the two is looked at first.
        match timeout(limit, select(answer, sign)).await {
            Err(_) => Err(NoAnswer::TimedOut),
            Ok(Either::Left((Ok(answer), _))) => Ok(answer),
            Ok(Either::Left((Err(failure), _))) => Err(match failure.kind() {
                RequestErrorKind::NoResponders => NoAnswer::NoResponders,
                // The client has ended, or its queue has. Sizes and subjects were looked at before.
                _ => {
                    self.give_up();
                    NoAnswer::Lost
                }
            }),
            Ok(Either::Right((Ok(signs), _))) if !signs.lost => Err(NoAnswer::Denied),
            Ok(Either::Right(_)) => Err(NoAnswer::Lost),
        }
    }

    /// Lets nobody use this connection any more; the next call makes a new one.
    pub(crate) fn give_up(&self) {
        self.signs.send_modify(|signs| signs.lost = true);
    }

    fn is_lost(&self) -> bool {
        self.signs.borrow().lost
    }
}

impl Signs {
    /// Whether the subject was refused since there were so many denials.
    fn deny(&self, subject: &str, since: u64) -> bool {
        self.denied.iter().any(|(number, denied)| *number > since && denied == subject)
    }
}

fn note(signs: &watch::Sender<Signs>, event: Event) {
    match event {
        Event::Disconnected | Event::Closed => signs.send_modify(|signs| signs.lost = true),
        Event::ServerError(ServerError::Other(words)) => {
            let Some(subject) = denied_subject(&words) else { return };
            signs.send_modify(|signs| {
                signs.denials += 1;
                signs.denied.push_back((signs.denials, subject.to_owned()));
                if signs.denied.len() > DENIALS {
                    signs.denied.pop_front();
                }
            });
        }
        _ => {}
    }
}

/// The subject in `Permissions Violation for Publish to "orders.created"`.
fn denied_subject(words: &str) -> Option<&str> {
    let begin = words.get(.."permissions violation for publish".len())?;
    let quoted = words.split_once('"')?.1.rsplit_once('"')?.0;
    begin.eq_ignore_ascii_case("permissions violation for publish").then_some(quoted)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_refused_subject_is_read_from_the_server_s_words() {
        assert_eq!(denied_subject("Permissions Violation for Publish to \"a.b\""), Some("a.b"));
        assert_eq!(denied_subject("Permissions Violation for Subscription to \"a.b\""), None);
        assert_eq!(denied_subject("Stale Connection"), None);
        assert_eq!(denied_subject(""), None);
    }

    #[test]
    fn a_denial_counts_for_requests_that_were_there_before_it() {
        let signs = watch::Sender::new(Signs::default());
        note(
            &signs,
            Event::ServerError(ServerError::Other("Permissions Violation for Publish to \"a\"".into())),
        );
        assert!(signs.borrow().deny("a", 0) && !signs.borrow().deny("b", 0) && !signs.borrow().deny("a", 1));
        assert!(!signs.borrow().lost);
        note(&signs, Event::Disconnected);
        assert!(signs.borrow().lost);
    }
}
