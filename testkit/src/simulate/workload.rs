//! What a seed means to happen: messages, transactions, and the settings of everyone.

use super::Simulation;
use super::kernel::{WORLD, nanos};
use crate::choices::Choices;
use crate::history::{CREATED, Planned, Recorder, Terms};
use pillarbox_core::{Backoff, HeadPolicy, Message, RelayConfig, Text};
use std::time::Duration;

/// What a message does to whoever sends it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Poison {
    None,
    /// The broker refuses it for good.
    Refused,
    /// Its first sends find no queue.
    Unroutable {
        sends: u32,
    },
    /// Its first sends kill the relay, before or after the broker has it.
    Deadly {
        sends: u32,
        arrives: bool,
    },
}

/// A transaction, and what becomes of it. Times are nanoseconds since the beginning.
#[derive(Clone, Debug)]
pub(super) struct Plan {
    pub(super) messages: Vec<u32>,
    pub(super) begins: u64,
    pub(super) ends: u64,
    pub(super) fate: Fate,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Fate {
    Commits,
    RollsBack,
    /// The commit goes through, and nobody learns so.
    CommitsUnseen,
    /// The commit is lost, and nobody learns so.
    LostUnseen,
    /// As `CommitsUnseen`; the producer then writes the same messages again.
    CommitsTwice,
}

pub(super) struct Workload {
    pub(super) messages: Vec<Planned>,
    pub(super) poison: Vec<Poison>,
    pub(super) plans: Vec<Plan>,
    pub(super) terms: Terms,
    pub(super) config: RelayConfig,
    pub(super) lease: Duration,
    pub(super) max_run: u32,
    pub(super) keep_published: bool,
    pub(super) destinations: u16,
    pub(super) prefix_per_key: bool,
}

const SITE_KEY: u16 = 1;
const SITE_SCHEDULED: u16 = 2;
const SITE_DELAY: u16 = 3;
const SITE_POISON: u16 = 4;
const SITE_POISON_SENDS: u16 = 5;
const SITE_ARRIVES: u16 = 6;
const SITE_TOPIC: u16 = 7;
const SITE_LENGTH: u16 = 8;
const SITE_BEGINS: u16 = 9;
const SITE_LASTS: u16 = 10;
const SITE_LONG: u16 = 11;
const SITE_FATE: u16 = 12;
const SITE_SETTINGS: u16 = 13;
const SITE_POISONED: u16 = 14;

/// Payloads are parts of it: with a zero byte, and one that is no UTF-8.
static PAYLOAD: [u8; 64] = {
    let mut bytes = [0; 64];
    let (mut place, mut byte) = (0, 0_u8);
    while place < 64 {
        bytes[place] = byte;
        byte = byte.wrapping_add(37);
        place += 1;
    }
    bytes[2] = 0xff;
    bytes
};

const KEYS: [&str; 16] =
    ["k0", "k1", "k2", "k3", "k4", "k5", "k6", "k7", "k8", "k9", "k10", "k11", "k12", "k13", "k14", "k15"];

impl Workload {
    pub(super) fn new(choices: &Choices, simulation: &Simulation) -> Self {
        let chaos = nanos(simulation.chaos);
        let any_poison = choices.below(WORLD, SITE_POISONED, 4) > 0;
        let mut poison = Vec::new();
        let mut messages = Vec::new();
        for number in 0..simulation.messages {
            let drawn = if any_poison { draw_poison(choices) } else { Poison::None };
            messages.push(Planned {
                message: message(choices, number, simulation),
                refused: drawn == Poison::Refused,
            });
            poison.push(drawn);
        }
        let pick = |values: &[u32]| values[choices.index(WORLD, SITE_SETTINGS, values.len())];
        let terms = Terms {
            head_policy: if pick(&[0, 0, 0, 1]) == 1 { HeadPolicy::Block } else { HeadPolicy::Continue },
            max_strikes: pick(&[3, 1, 2]),
            max_attempts: pick(&[3, 1, 2, 5]),
            lease: simulation.lease,
        };
        let lease = simulation.lease;
        let config = RelayConfig::default()
            .batch_size(pick(&[4, 1, 2, 8, 16]))
            .claims_in_flight(pick(&[1, 2, 3]))
            .publishes_in_flight(pick(&[4, 1, 2]))
            .polling_interval(Duration::from_millis(u64::from(pick(&[400, 150, 1_000]))))
            .max_attempts(terms.max_attempts)
            .lease(lease)
            .publish_timeout(lease * pick(&[3, 1, 6]) / 10)
            .retry(Backoff::new(lease / 20, lease))
            .pause(Backoff::new(lease / 40, lease / 2))
            .shutdown_grace(lease * pick(&[1, 0, 2]) / 4);
        Self {
            plans: plans(choices, simulation.messages, chaos),
            messages,
            poison,
            terms,
            config,
            lease,
            max_run: pick(&[500, 1, 3]),
            keep_published: pick(&[0, 1]) == 1,
            destinations: u16::try_from(pick(&[1, 2])).unwrap_or(1),
            prefix_per_key: pick(&[0, 1]) == 1,
        }
    }
}

fn message(choices: &Choices, number: u32, simulation: &Simulation) -> Message {
    // A third has no key; the others share a few.
    let keys = u64::from(simulation.keys.min(16));
    let key = choices.below(WORLD, SITE_KEY, keys + keys / 2).checked_sub(keys / 2);
    let is_scheduled = choices.below(WORLD, SITE_SCHEDULED, 10) == 9;
    let delay = choices.below(WORLD, SITE_DELAY, nanos(simulation.chaos) / 1_000);
    let topic = if choices.below(WORLD, SITE_TOPIC, 2) == 1 { "topic.2" } else { "topic.1" };
    let mut builder = Message::given(Recorder::id(number), CREATED, Text::from_static(topic));
    if let Some(key) = key {
        builder = builder.key(Text::from_static(KEYS[usize::try_from(key).unwrap_or(0)]));
    }
    if is_scheduled {
        builder = builder.deliver_at(CREATED.after(Duration::from_micros(delay)));
    }
    if number.is_multiple_of(4) {
        builder = builder.header(Text::from_static("traceparent"), Text::from_static("00-0a-0b-01"));
    }
    let start = number as usize % 32;
    let payload = &PAYLOAD[start..start + 8];
    builder.payload(payload).expect("within every limit")
}

fn draw_poison(choices: &Choices) -> Poison {
    let kind = choices.below(WORLD, SITE_POISON, 60);
    let sends = match choices.below(WORLD, SITE_POISON_SENDS, 3) {
        0 => 1,
        1 => 2,
        _ => u32::MAX,
    };
    let arrives = choices.below(WORLD, SITE_ARRIVES, 2) == 1;
    match kind {
        59 => Poison::Deadly { sends, arrives },
        57 | 58 => Poison::Refused,
        54..=56 => Poison::Unroutable { sends },
        _ => Poison::None,
    }
}

/// Messages in transactions of one to three, which stay open across each other's commits.
fn plans(choices: &Choices, messages: u32, chaos: u64) -> Vec<Plan> {
    let mut plans = Vec::new();
    let mut next = 0;
    while next < messages {
        let length = 1 + u32::try_from(choices.below(WORLD, SITE_LENGTH, 3)).unwrap_or(0);
        let end = (next + length).min(messages);
        let begins = choices.below(WORLD, SITE_BEGINS, chaos * 7 / 10);
        let is_long = choices.below(WORLD, SITE_LONG, 4) == 3;
        let lasts = choices.below(WORLD, SITE_LASTS, if is_long { chaos / 4 } else { chaos / 100 });
        let fate = match choices.below(WORLD, SITE_FATE, 40) {
            0..=33 => Fate::Commits,
            34..=36 => Fate::RollsBack,
            37 => Fate::CommitsUnseen,
            38 => Fate::LostUnseen,
            _ => Fate::CommitsTwice,
        };
        let plan = Plan { messages: (next..end).collect(), begins, ends: begins + lasts, fate };
        if fate == Fate::CommitsTwice {
            let begins = plan.ends + lasts;
            let again = Plan { begins, ends: begins + lasts, fate: Fate::Commits, ..plan.clone() };
            plans.push(plan);
            plans.push(again);
        } else {
            plans.push(plan);
        }
        next = end;
    }
    plans
}
