//! `pillarbox enqueue`: JSON lines from standard input into an outbox.

mod input;
mod line;

use crate::arguments::EnqueueArguments;
use crate::failure::Failure;
use crate::{connect, progress, say};
use input::{Batch, Item};
use pillarbox::{Effect, EnqueueAlone, ErrorKind, Message};
use std::time::Instant;

/// What `pillarbox enqueue --help` says about the lines.
pub(crate) const HELP: &str = r#"Each line is one JSON object:

  {"topic": "orders.created", "key": "order-1", "payload": {"total": 12}}

  topic           where it goes; the only field that is always needed
  payload         a string is sent as its text; any other JSON value as it is written,
                  and then the content type is application/json if none is given
  payload_base64  the payload in base64, instead of `payload`
  key             the ordering key: messages of one key are delivered in order
  headers         an object of strings
  content_type    a media type
  id              a UUID; a new one by default. Give it if the line may be enqueued again
  deliver_at      not before this time: RFC 3339, 2030-01-31T08:00:00Z, or microseconds since 1970
  delay           not before so long from now: 30s, 500ms, 2m, 1h
  created_at      when it was made, as `deliver_at`; now by default

What the transport `stdout:` prints can be enqueued again. Empty lines are skipped. Anything
else is a bad line, and so are unknown fields: standard error names it by its number, from 1,
and the exit code is 1.

What is stored then: without --keep-going every line before the first bad one and none after
it; with --keep-going every line but the bad ones. Lines are stored in their order, in batches
of up to 500, each wholly or not at all. If the store fails, the program ends and says
which lines are stored."#;

/// Enqueues all lines.
pub(crate) async fn run(arguments: EnqueueArguments) -> Result<(), Failure> {
    let producer = connect::storage(&arguments.storage).await?.producer;
    let started = Instant::now();
    let mut lines = input::read(arguments.keep_going);
    let mut run =
        Run { producer: &*producer, enqueued: 0, bytes: 0, bad: 0, bar: progress::bar(None, "enqueued") };
    let mut outcome = Ok(());
    while let Some(batch) = lines.recv().await {
        outcome = run.take(batch?, arguments.keep_going).await;
        if outcome.is_err() {
            break;
        }
    }
    run.bar.finish_and_clear();
    let Run { enqueued, bytes, bad, .. } = run;
    let seconds = started.elapsed().as_secs_f64();
    say::tell(format_args!(
        "enqueued {enqueued} messages with {bytes} bytes of payload in {seconds:.2} s; bad lines: {bad}"
    ));
    outcome?;
    if bad > 0 { Err(Failure::failed(format!("{bad} lines were not enqueued"))) } else { Ok(()) }
}

struct Run<'a> {
    producer: &'a dyn EnqueueAlone,
    enqueued: u64,
    bytes: u64,
    bad: u64,
    bar: indicatif::ProgressBar,
}

impl Run<'_> {
    /// Stores the messages of a batch and tells of its bad lines, in the order of the lines.
    async fn take(&mut self, batch: Batch, keep_going: bool) -> Result<(), Failure> {
        let (mut numbers, mut messages) = (Vec::new(), Vec::new());
        for (number, item) in batch {
            match item {
                Item::Message(message) => {
                    numbers.push(number);
                    messages.push(message);
                }
                // Without `keep_going` a bad line ends its batch, so that what stands before it is stored first.
                Item::Bad(reason) => {
                    self.store(&numbers, &messages, keep_going).await?;
                    numbers.clear();
                    messages.clear();
                    self.refuse(number, &reason, keep_going)?;
                }
            }
        }
        self.store(&numbers, &messages, keep_going).await
    }

    async fn store(
        &mut self,
        numbers: &[u64],
        messages: &[Message],
        keep_going: bool,
    ) -> Result<(), Failure> {
        let (Some(first), Some(last)) = (numbers.first(), numbers.last()) else { return Ok(()) };
        match self.producer.enqueue_alone(messages).await {
            Ok(()) => self.count(messages),
            // One of them is over a limit of this outbox, and none was stored: one at a time shows which.
            Err(error) if error.kind() == ErrorKind::Rejected => {
                for (number, message) in numbers.iter().zip(messages) {
                    match self.producer.enqueue_alone(std::slice::from_ref(message)).await {
                        Ok(()) => self.count(std::slice::from_ref(message)),
                        Err(error) if error.kind() == ErrorKind::Rejected => {
                            self.refuse(*number, error.description(), keep_going)?;
                        }
                        Err(error) => return Err(stopped(*number, *number, &error)),
                    }
                }
            }
            Err(error) => return Err(stopped(*first, *last, &error)),
        }
        Ok(())
    }

    fn count(&mut self, messages: &[Message]) {
        self.enqueued += messages.len() as u64;
        self.bytes += messages.iter().map(|message| message.payload().len() as u64).sum::<u64>();
        self.bar.set_position(self.enqueued);
    }

    fn refuse(&mut self, number: u64, reason: &str, keep_going: bool) -> Result<(), Failure> {
        self.bad += 1;
        self.bar.suspend(|| say::tell(format_args!("line {number}: {reason}")));
        if keep_going {
            return Ok(());
        }
        let before = number - 1;
        Err(Failure::failed(format!(
            "stopped at line {number}; the lines before it are stored (up to {before}), the later ones are not"
        )))
    }
}

/// The store failed with these lines on their way.
fn stopped(first: u64, last: u64, error: &pillarbox::Error) -> Failure {
    let fate = match error.effect() {
        Effect::NotApplied => "are not stored",
        Effect::Unknown => "may or may not be stored",
    };
    let before = first - 1;
    Failure::failed(format!(
        "{}; good lines up to {before} are stored, lines {first} to {last} {fate}, later ones are not",
        error.report()
    ))
}
