//! One publish on its way.

use crate::RedisStreamsConfig;
use crate::connection::{Connector, Link};
use crate::error::{self, Failure, Operation};
use crate::judge::{self, Progress};
use crate::plan::{Lane, Unit, plan};
use crate::properties::{add, add_in_order};
use futures_util::stream::{FuturesUnordered, StreamExt as _};
use pillarbox_core::{Error, Message, Outcomes};
use redis::{Pipeline, Value};
use std::sync::Mutex;

/// What a unit met, and which messages it had.
struct Told {
    unit: Unit,
    progress: Progress,
}

/// Sends a batch, and writes each outcome when its pipeline is answered.
pub(crate) async fn publish(connector: &Connector, link: &Link, batch: &[Message], outcomes: &mut Outcomes) {
    let lanes = plan(batch);
    if let [Lane { requests }] = lanes.as_slice()
        && let [request] = requests.as_slice()
    {
        for told in send(connector, link, batch, request).await {
            write(outcomes, told);
        }
        return;
    }
    // Each lane writes when its answer is there: nothing is awaited while the lock is held.
    let outcomes = Mutex::new(outcomes);
    let write_all = |told: Vec<Told>| {
        if let Ok(mut outcomes) = outcomes.lock() {
            told.into_iter().for_each(|told| write(&mut outcomes, told));
        }
    };
    let sending: FuturesUnordered<_> =
        lanes.iter().map(|lane| send_lane(connector, link, batch, lane, &write_all)).collect();
    sending.for_each(|()| std::future::ready(())).await;
}

/// One request after the other, each only if the one before succeeded.
async fn send_lane(
    connector: &Connector,
    link: &Link,
    batch: &[Message],
    lane: &Lane,
    write_all: &(impl Fn(Vec<Told>) + Sync),
) {
    for (place, request) in lane.requests.iter().enumerate() {
        let told = send(connector, link, batch, request).await;
        let failure = told.iter().find_map(|told| told.progress.failure.as_ref().map(judge::behind));
        write_all(told);
        let Some(failure) = failure else { continue };
        let rest = lane.requests[place + 1..].iter().flatten();
        write_all(rest.map(|unit| failed(unit, judge::repeated(&failure))).collect());
        return;
    }
}

/// One pipeline.
async fn send(connector: &Connector, link: &Link, batch: &[Message], request: &[Unit]) -> Vec<Told> {
    let config = connector.config();
    let mut told = Vec::with_capacity(request.len());
    let (mut pipeline, mut sent) = (Pipeline::with_capacity(request.len() + 1), Vec::new());
    for unit in request {
        let sendable = unit.iter().position(|&index| judge::check(config, &batch[index]).is_err());
        match sendable {
            None => {
                add_commands(&mut pipeline, config, batch, unit);
                sent.push(unit.as_slice());
            }
            Some(bad) => {
                // Its key waits for the relay's word on it.
                if bad > 0 {
                    add_commands(&mut pipeline, config, batch, &unit[..bad]);
                    sent.push(&unit[..bad]);
                }
                if let Err(error) = judge::check(config, &batch[unit[bad]]) {
                    told.push(failed(&unit[bad..], error));
                }
            }
        }
    }
    if sent.is_empty() {
        return told;
    }
    let waits = config.replicas > 0;
    if waits {
        // Half of the time, so that the answer is there before the whole publish is given up.
        let limit = (config.confirm_timeout / 2).as_millis().max(1);
        pipeline.cmd("WAIT").arg(config.replicas).arg(u64::try_from(limit).unwrap_or(u64::MAX));
    }
    match connector.run(link, &pipeline).await {
        Ok(mut answers) => {
            let shortfall = if waits {
                judge::too_few_replicas(config, answers.pop().unwrap_or(Value::Nil))
            } else {
                None
            };
            // One answer for each command: the client counts them.
            let mut answers = answers.into_iter();
            for unit in sent {
                let progress = progress(config, batch, unit, &mut answers);
                told.push(Told { unit: unit.to_vec(), progress: replicated(progress, shortfall.as_ref()) });
            }
        }
        Err(failure) => {
            let error = error::describe(Failure::Request(failure), Operation::Publish, &config.place());
            let unknown = |unit: &[usize]| Told {
                unit: unit.to_vec(),
                progress: Progress { added: 0, failure: Some(judge::repeated(&error)) },
            };
            told.extend(sent.into_iter().map(unknown));
        }
    }
    told
}

/// How a unit is sent.
#[derive(Clone, Copy)]
enum Form {
    One,
    /// Of one stream, whose messages fail together or from some point on: a transaction is enough, and twice as fast as the script
    /// (`examples/throughput.rs`).
    Transaction,
    Script,
}

impl Form {
    fn of(batch: &[Message], unit: &[usize]) -> Self {
        let mut topics = unit.iter().map(|&index| batch[index].topic());
        let first = topics.next();
        match unit.len() {
            1 => Self::One,
            _ if topics.all(|topic| Some(topic) == first) => Self::Transaction,
            _ => Self::Script,
        }
    }
}

fn add_commands(pipeline: &mut Pipeline, config: &RedisStreamsConfig, batch: &[Message], unit: &[usize]) {
    let mut messages = unit.iter().map(|&index| &batch[index]);
    match Form::of(batch, unit) {
        Form::Script => {
            pipeline.add_command(add_in_order(config, messages));
        }
        Form::One => messages.for_each(|message| {
            pipeline.add_command(add(config, message));
        }),
        Form::Transaction => {
            pipeline.cmd("MULTI");
            messages.by_ref().for_each(|message| {
                pipeline.add_command(add(config, message));
            });
            pipeline.cmd("EXEC");
        }
    }
}

/// Takes the answers of a unit from those of its pipeline.
fn progress(
    config: &RedisStreamsConfig,
    batch: &[Message],
    unit: &[usize],
    answers: &mut impl Iterator<Item = Value>,
) -> Progress {
    let mut next = || answers.next().unwrap_or(Value::Nil);
    match Form::of(batch, unit) {
        Form::One => judge::of_one(config, next()),
        Form::Script => judge::of_several(config, unit.len(), next()),
        Form::Transaction => {
            let queued: Vec<_> = (0..=unit.len()).map(|_| next()).collect();
            judge::of_transaction(config, unit.len(), queued, next())
        }
    }
}

/// What was added and has not reached enough replicas is not confirmed.
fn replicated(progress: Progress, shortfall: Option<&Error>) -> Progress {
    match shortfall {
        Some(error) if progress.added > 0 => Progress { added: 0, failure: Some(judge::repeated(error)) },
        _ => progress,
    }
}

fn failed(unit: &[usize], error: Error) -> Told {
    Told { unit: unit.to_vec(), progress: Progress { added: 0, failure: Some(error) } }
}

/// Those that were added are `Ok`; the next one failed, and those behind it were not added, or share its fate.
fn write(outcomes: &mut Outcomes, told: Told) {
    let Told { unit, progress: Progress { added, failure } } = told;
    for &index in &unit[..added] {
        outcomes.set(index, Ok(()));
    }
    let Some(error) = failure else { return };
    let unknown = error.effect() == pillarbox_core::Effect::Unknown;
    for &index in unit.iter().skip(added + 1) {
        let rest = if unknown { judge::repeated(&error) } else { judge::behind(&error) };
        outcomes.set(index, Err(rest));
    }
    if let Some(&index) = unit.get(added) {
        outcomes.set(index, Err(error));
    }
}
