//! The machine's decisions, one table of events each. Time is set, nothing runs.

mod figures;
mod keeping;
mod reporting;
mod sending;
mod stopping;

use super::{Command, Event, Machine};
use crate::{
    Backoff, Claim, Claimed, Content, Destination, Entry, Error, ErrorKind, Message, MessageId, Moment,
    Nonce, Observation, Observer, Outcome, Outcomes, RelayConfig, Renewed, Run, Settled, Settlement,
    Settlements, Timestamp, Token, Transport, TransportGuarantees, Verdict,
};
use std::sync::{Arc, Mutex};
use std::time::Duration;

const SECOND: Duration = Duration::from_secs(1);
const NORTH: Destination = Destination(0);
const SOUTH: Destination = Destination(1);

/// Topics that begin with `south` go to the second destination.
struct Compass {
    prefix_per_key: bool,
}

impl Transport for Compass {
    async fn publish(&self, _: &[Message], _: &mut Outcomes) {}

    async fn probe(&self, _: Destination) -> Result<(), Error> {
        Ok(())
    }

    fn destination(&self, message: &Message) -> Destination {
        if message.topic().starts_with("south") { SOUTH } else { NORTH }
    }

    fn destinations(&self) -> Vec<Destination> {
        vec![NORTH, SOUTH]
    }

    fn guarantees(&self, _: Destination) -> TransportGuarantees {
        TransportGuarantees { deduplicates: false, max_payload: 100, prefix_per_key: self.prefix_per_key }
    }
}

/// Keeps what was observed, as text.
#[derive(Default)]
struct Heard(Mutex<Vec<String>>);

impl Observer for Heard {
    fn observe(&self, observation: &Observation<'_>) {
        self.0.lock().unwrap().push(format!("{observation:?}"));
    }
}

/// A machine, its clock, and the commands that nobody has answered yet.
struct World {
    machine: Machine,
    compass: Compass,
    heard: Arc<Heard>,
    now: Moment,
    commands: Vec<Command>,
}

fn config() -> RelayConfig {
    RelayConfig::default()
        .batch_size(10)
        .lease(30 * SECOND)
        .publish_timeout(5 * SECOND)
        .max_attempts(3)
        .claims_in_flight(1)
        .retry(Backoff::new(2 * SECOND, 60 * SECOND))
        .pause(Backoff::new(SECOND, 8 * SECOND))
}

impl World {
    fn new() -> Self {
        Self::with(config(), false)
    }

    fn with(config: RelayConfig, prefix_per_key: bool) -> Self {
        let compass = Compass { prefix_per_key };
        let destinations: Vec<_> =
            compass.destinations().into_iter().map(|id| (id, compass.guarantees(id))).collect();
        let heard = Arc::new(Heard::default());
        let mut state = 1_u64;
        let random = Box::new(move || {
            state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
            state
        });
        let machine = Machine::new(config, &destinations, random, heard.clone()).unwrap();
        let mut world = Self { machine, compass, heard, now: Moment::ORIGIN, commands: Vec::new() };
        world.settle_down();
        world
    }

    /// Takes every command that is due now.
    fn settle_down(&mut self) {
        for _ in 0..1_000 {
            match self.machine.poll(self.now) {
                Some(command) => self.commands.push(command),
                None => {
                    let timeout = self.machine.poll_timeout();
                    assert!(
                        self.machine.is_finished() || timeout.is_none_or(|at| at > self.now),
                        "poll gave nothing, and poll_timeout {timeout:?} has passed at {:?}",
                        self.now
                    );
                    return;
                }
            }
        }
        panic!("a hot loop of commands: {:?}", self.commands.last());
    }

    fn handle(&mut self, event: Event) {
        self.machine.handle(self.now, event, &self.compass);
        self.settle_down();
    }

    fn pass(&mut self, time: Duration) {
        let end = self.now.after(time);
        while let Some(next) = self.machine.poll_timeout().filter(|next| *next <= end) {
            self.now = self.now.max(next);
            self.settle_down();
        }
        self.now = end;
        let known = self.commands.len();
        self.settle_down();
        assert_eq!(self.commands.len(), known, "something was due that poll_timeout did not announce");
    }

    fn take<T>(&mut self, what: &str, matching: impl Fn(&Command) -> bool, open: impl Fn(Command) -> T) -> T {
        let Some(place) = self.commands.iter().position(matching) else {
            panic!("expected {what}, there is {:?}", self.commands);
        };
        open(self.commands.remove(place))
    }

    fn take_claim(&mut self) -> Claim {
        let matching = |command: &Command| matches!(command, Command::Claim { .. });
        self.take("a claim", matching, |command| match command {
            Command::Claim { claim, .. } => claim,
            _ => unreachable!(),
        })
    }

    fn take_publish(&mut self) -> Publish {
        let matching = |command: &Command| matches!(command, Command::Publish { .. });
        self.take("a publish", matching, |command| match command {
            Command::Publish { ticket, destination, batch, outcomes } => {
                Publish { ticket, destination, batch, outcomes }
            }
            _ => unreachable!(),
        })
    }

    fn take_probe(&mut self) -> Destination {
        let matching = |command: &Command| matches!(command, Command::Probe { .. });
        self.take("a probe", matching, |command| match command {
            Command::Probe { destination, .. } => destination,
            _ => unreachable!(),
        })
    }

    fn take_renewal(&mut self) -> (u32, Vec<Token>) {
        let matching = |command: &Command| matches!(command, Command::Renew { .. });
        self.take("a renewal", matching, |command| match command {
            Command::Renew { ticket, tokens, .. } => (ticket, tokens),
            _ => unreachable!(),
        })
    }

    fn take_settle(&mut self) -> (u32, Settlements) {
        let matching = |command: &Command| matches!(command, Command::Settle { .. });
        self.take("a settle", matching, |command| match command {
            Command::Settle { ticket, settlements, .. } => (ticket, settlements),
            _ => unreachable!(),
        })
    }

    fn has(&self, matching: impl Fn(&Command) -> bool) -> bool {
        self.commands.iter().any(matching)
    }

    fn claims(&self) -> bool {
        self.has(|command| matches!(command, Command::Claim { .. }))
    }

    fn publishes(&self) -> bool {
        self.has(|command| matches!(command, Command::Publish { .. }))
    }

    /// Answers the open claim with one run of these messages. A topic that ends with `full` has as much payload as the
    /// destinations take, one that ends with `large` more.
    fn give(&mut self, messages: &[(&str, Option<&str>)]) -> Token {
        self.give_attempted(messages, 0)
    }

    fn give_attempted(&mut self, messages: &[(&str, Option<&str>)], attempts: u32) -> Token {
        let claim = self.take_claim();
        let (claimed, token) = one_run(&claim, messages, attempts);
        self.handle(Event::Claimed { nonce: claim.nonce, result: Ok(claimed) });
        token
    }

    fn give_nothing(&mut self) {
        let claim = self.take_claim();
        self.handle(Event::Claimed { nonce: claim.nonce, result: Ok(Claimed::default()) });
    }

    /// Answers a publish with one outcome per message; `None` stays unknown.
    fn answer(
        &mut self,
        mut publish: Publish,
        outcomes: impl IntoIterator<Item = Option<Result<(), Error>>>,
    ) {
        for (index, outcome) in outcomes.into_iter().enumerate() {
            if let Some(outcome) = outcome {
                publish.outcomes.set(index, outcome);
            }
        }
        let Publish { ticket, batch, outcomes, .. } = publish;
        self.handle(Event::Published { ticket, batch, outcomes });
    }

    fn confirm_all(&mut self, publish: Publish) {
        let count = publish.batch.len();
        self.answer(publish, (0..count).map(|_| Some(Ok(()))));
    }

    /// Answers the open settle, and tells what it reported, run after run.
    fn settle(&mut self, outcome: Outcome) -> Vec<String> {
        let (ticket, settlements) = self.take_settle();
        let reported = describe(&settlements);
        let at = Timestamp::EPOCH;
        let result = Ok(settlements.iter().map(|_| Settled { outcome, at }).collect());
        self.handle(Event::Settled { ticket, settlements, result });
        reported
    }

    fn heard(&self, part: &str) -> usize {
        self.heard.0.lock().unwrap().iter().filter(|line| line.contains(part)).count()
    }
}

struct Publish {
    ticket: u32,
    destination: Destination,
    batch: Vec<Message>,
    outcomes: Outcomes,
}

impl Publish {
    fn topics(&self) -> Vec<&str> {
        self.batch.iter().map(|message| &**message.topic()).collect()
    }
}

fn one_run(claim: &Claim, messages: &[(&str, Option<&str>)], attempts: u32) -> (Claimed, Token) {
    let token = Token { unit: 1, fence: 1, nonce: claim.nonce };
    let entries: Vec<_> = messages
        .iter()
        .map(|(topic, key)| {
            let id = MessageId::from_bytes([1; 16]);
            let builder = Message::given(id, Timestamp::EPOCH, (*topic).to_owned());
            let builder = match key {
                Some(key) => builder.key((*key).to_owned()),
                None => builder,
            };
            let payload = match topic.rsplit('.').next() {
                Some("large") => vec![0; 101],
                Some("full") => vec![0; 100],
                _ => b"payload".to_vec(),
            };
            let content = Content::Message(builder.payload(payload).unwrap());
            Entry { content, attempts, strikes: 0 }
        })
        .collect();
    let len = u32::try_from(entries.len()).unwrap();
    let (claimed_at, lease_until) = (Timestamp::EPOCH, Timestamp::EPOCH.after(claim.lease));
    let run = Run { token, claimed_at, lease_until, start: 0, len };
    (Claimed { runs: vec![run], entries, ..Claimed::default() }, token)
}

fn describe(settlements: &Settlements) -> Vec<String> {
    let word = |verdict: &Verdict| match verdict {
        Verdict::Published => "published".to_owned(),
        Verdict::Retry { .. } => "retry".to_owned(),
        Verdict::Release { after } if after.is_zero() => "release".to_owned(),
        Verdict::Release { .. } => "release later".to_owned(),
        Verdict::Bury { .. } => "bury".to_owned(),
    };
    settlements
        .iter()
        .map(|(_, settlement)| match settlement {
            Settlement::Verdicts(verdicts) => verdicts.iter().map(word).collect::<Vec<_>>().join(", "),
            Settlement::HandBack { after } if after.is_zero() => "hand back".to_owned(),
            Settlement::HandBack { .. } => "hand back later".to_owned(),
        })
        .collect()
}

fn error(kind: ErrorKind) -> Error {
    Error::new(kind, "publish")
}

fn failed(kind: ErrorKind) -> Option<Result<(), Error>> {
    Some(Err(error(kind)))
}
