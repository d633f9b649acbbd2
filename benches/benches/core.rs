//! What the parts cost that no server is needed for: `cargo bench -p pillarbox-benches --bench core [-- FILTER]`.

use criterion::{BatchSize, BenchmarkId, Criterion, Throughput, criterion_group, criterion_main};
use pillarbox::TokioTimer;
use pillarbox_benches::{Keys, Nowhere, drain_memory};
use pillarbox_core::{
    AnyStorage, AnyTransport, CloudEvents, Command, Message, Nonce, Record, Timestamp, Token, Verdict, step,
};
use pillarbox_memory::MemoryStorage;
use pillarbox_testkit::throughput::Supply;
use std::hint::black_box;
use std::time::Duration;

const MESSAGES: u32 = 50_000;
const BATCH: u32 = 500;

/// One claim and one settle of the specification.
fn state(criterion: &mut Criterion) {
    let now = Timestamp::from_millis(1);
    let token = Token { unit: 1, fence: 1, nonce: Nonce::from_words(1, 2) };
    let claim = Command::Claim { token, lease: Duration::from_secs(30), run: 1, solo: false };
    let settle = Command::Settle { token, verdict: &Verdict::Published };
    criterion.bench_function("state/claim and settle", |bencher| {
        bencher.iter(|| {
            let claimed = step(black_box(&Record::pending(now)), black_box(&claim), now, 3);
            let claimed = claimed.ok().and_then(|transition| transition.record().copied());
            claimed.map(|claimed| step(&claimed, black_box(&settle), now, 3))
        });
    });
}

/// Messages as they are stored and sent.
fn encoding(criterion: &mut Criterion) {
    let message = Keys::Of(100).message(7).expect("a message within the limits");
    let record = bytes::Bytes::from(pillarbox_redis::layout::encode(&message, 3));
    let source = CloudEvents::new("/bench").expect("a source");
    let mut group = criterion.benchmark_group("encoding");
    group.bench_function("redis, encode", |bencher| {
        bencher.iter(|| pillarbox_redis::layout::encode(black_box(&message), 3));
    });
    group.bench_function("redis, decode", |bencher| {
        bencher.iter(|| pillarbox_redis::layout::decode(black_box(&record)));
    });
    group.bench_function("mongodb, encode", |bencher| {
        bencher.iter(|| pillarbox_mongodb::layout::encode(black_box(&message), 3));
    });
    group.bench_function("cloudevents, attributes", |bencher| {
        bencher.iter(|| source.attributes(black_box(&message)));
    });
    group.finish();
}

/// The whole relay between a store and a broker that do nothing: per message, what the relay itself costs.
fn relay(criterion: &mut Criterion) {
    let runtime = runtime();
    let mut group = criterion.benchmark_group("relay");
    group.throughput(Throughput::Elements(u64::from(MESSAGES))).sample_size(20);
    for (name, keys) in [("unkeyed", Keys::None), ("100 keys", Keys::Of(100)), ("a key each", Keys::Each)] {
        let messages = messages(keys);
        for run_length in [1, BATCH] {
            let id = BenchmarkId::new(name, format!("runs of {run_length}"));
            group.bench_function(id, |bencher| {
                bencher.iter_batched(
                    || supply(&messages).runs_of(run_length),
                    |supply| {
                        let relaying = supply.relay_from(supply.clone(), Nowhere, TokioTimer::new());
                        runtime.block_on(relaying).expect("everything is relayed");
                        supply
                    },
                    BatchSize::PerIteration,
                );
            });
        }
    }
    let messages = messages(Keys::None);
    group.bench_function("unkeyed, behind AnyStorage and AnyTransport", |bencher| {
        bencher.iter_batched(
            || supply(&messages),
            |supply| {
                let (storage, transport) = (AnyStorage::new(supply.clone()), AnyTransport::new(Nowhere));
                let relaying = supply.relay_from(storage, transport, TokioTimer::new());
                runtime.block_on(relaying).expect("everything is relayed");
                supply
            },
            BatchSize::PerIteration,
        );
    });
    group.finish();
}

/// The whole relay over the storage in memory.
fn memory(criterion: &mut Criterion) {
    let runtime = runtime();
    let mut group = criterion.benchmark_group("memory");
    group.throughput(Throughput::Elements(u64::from(MESSAGES))).sample_size(20);
    for (name, keys) in
        [("unkeyed", Keys::None), ("100 keys", Keys::Of(100)), ("10,000 keys", Keys::Of(10_000))]
    {
        let messages = messages(keys);
        group.bench_function(BenchmarkId::new("drain", name), |bencher| {
            bencher.iter_batched(
                || {
                    let storage = MemoryStorage::new();
                    storage.enqueue_alone(&messages).expect("memory takes them");
                    storage
                },
                |storage| runtime.block_on(drain_memory(storage, MESSAGES, BATCH, TokioTimer::new())),
                BatchSize::PerIteration,
            );
        });
    }
    group.finish();
}

fn messages(keys: Keys) -> Vec<Message> {
    (0..MESSAGES).map(|number| keys.message(number).expect("a message within the limits")).collect()
}

fn supply(messages: &[Message]) -> Supply {
    Supply::new(messages.to_vec()).expect("few enough messages")
}

fn runtime() -> tokio::runtime::Runtime {
    tokio::runtime::Builder::new_current_thread().enable_time().build().expect("a runtime without a network")
}

criterion_group!(benches, state, encoding, relay, memory);
criterion_main!(benches);
