//! A property test of storages: whatever several relays and producers do, in whatever order, the store answers as the model
//! of the rules allows. A sequence that fails is shrunk to a short one, and told in words.
//!
//! ```
//! # include!(concat!(env!("CARGO_MANIFEST_DIR"), "/src/docs/memory_harness.rs"));
//! # fn main() {}
//! pillarbox_testkit::property_suite!(#[test] block_on = futures_executor::block_on, harness = MyHarness);
//! ```
//!
//! The commands are those of the [random walks](crate::storage::cases::walks): enqueues, claims by several relays, settlements of
//! every kind, renewals, crashes, zombies that come back, and a clock that jumps. The walks of the suite are long and the same
//! every time; these are many, shorter, and shrink.
//!
//! Two environment variables change a run: `PILLARBOX_TESTKIT_CASES`, how many sequences are drawn for each head policy (default 12,
//! which takes a server some seconds), and `PILLARBOX_TESTKIT_SEED` (default 0), which draws others.

#![allow(clippy::test_attr_in_doctest, reason = "what the macro makes are tests")]

use crate::storage::cases::walks::given_walk;
use crate::storage::{StorageHarness, Trial, Violation};
use pillarbox_core::HeadPolicy;
use proptest::collection::vec;
use proptest::prelude::any;
use proptest::test_runner::{Config, RngAlgorithm, TestCaseError, TestError, TestRng, TestRunner};

/// Makes a test of sequences of commands in the module where it stands: `sequences_agree_with_the_model`.
///
/// Takes the test attribute, a function that runs a future to its end, and the harness of the
/// [storage suite](crate::storage_suite). The harness's expression is evaluated for every sequence.
#[macro_export]
macro_rules! property_suite {
    ($(#$attribute:tt)+ block_on = $block_on:path, harness = $($harness:tt)+) => {
        $(#$attribute)+
        fn sequences_agree_with_the_model() {
            $crate::property::sequences_agree_with_the_model(|sequence| {
                let trial = $crate::storage::Trial::new("sequences_agree_with_the_model", &[], $($harness)+);
                $block_on(sequence.run(&trial))
            });
        }
    };
}

/// One sequence that was drawn.
#[derive(Clone, Debug)]
pub struct Sequence {
    head_policy: HeadPolicy,
    steps: Vec<Vec<u16>>,
}

impl Sequence {
    /// Runs it against a fresh store of the harness.
    ///
    /// # Errors
    /// The rule that was broken, and what was done before.
    #[doc(hidden)]
    pub async fn run<H: StorageHarness>(&self, trial: &Trial<H>) -> Result<(), String> {
        let result: Result<(), Violation> = given_walk(trial, self.head_policy, &self.steps).await;
        let steps = trial.take_steps();
        result.map_err(|violation| format!("{violation}\n  after these steps:\n    {}", steps.join("\n    ")))
    }
}

/// Draws sequences and runs each.
///
/// # Panics
/// With the shortest sequence found that fails.
#[doc(hidden)]
pub fn sequences_agree_with_the_model(run: impl Fn(&Sequence) -> Result<(), String>) {
    let cases = from_environment("PILLARBOX_TESTKIT_CASES", 12);
    let seed = from_environment("PILLARBOX_TESTKIT_SEED", 0);
    for head_policy in [HeadPolicy::Continue, HeadPolicy::Block] {
        if let Err(failure) = search(head_policy, cases, seed, &run) {
            panic!(
                "\n`sequences_agree_with_the_model` is broken under {head_policy:?}\n{failure}\n  again: \
                 PILLARBOX_TESTKIT_SEED={seed} PILLARBOX_TESTKIT_CASES={cases} cargo test sequences_agree_with_the_model\n"
            );
        }
        println!("{cases} sequences under {head_policy:?} from seed {seed} agree with the model");
    }
}

/// The longest sequence.
const STEPS: usize = 60;
/// The most choices that a step takes.
const CHOICES: usize = 16;
/// Shrinking ends after so many runs: each is a walk on a real store.
const SHRINKS: u32 = 1_000;

fn search(
    head_policy: HeadPolicy,
    cases: u32,
    seed: u32,
    run: impl Fn(&Sequence) -> Result<(), String>,
) -> Result<(), String> {
    // What failed is told with its seed; nothing is written next to the sources.
    let config = Config { cases, failure_persistence: None, max_shrink_iters: SHRINKS, ..Config::default() };
    let mut bytes = [0; 32];
    bytes[..4].copy_from_slice(&seed.to_le_bytes());
    let random = TestRng::from_seed(RngAlgorithm::ChaCha, &bytes);
    let strategy = vec(vec(any::<u16>(), 0..CHOICES), 1..STEPS);
    TestRunner::new_with_rng(config, random)
        .run(&strategy, |steps| run(&Sequence { head_policy, steps }).map_err(TestCaseError::fail))
        .map_err(|failure| match failure {
            TestError::Fail(reason, steps) => {
                format!("{}\n  shrunk to {} commands", reason.message(), steps.len())
            }
            TestError::Abort(reason) => reason.message().to_owned(),
        })
}

fn from_environment(name: &str, default: u32) -> u32 {
    match std::env::var(name) {
        Ok(text) => text.parse().unwrap_or_else(|_| panic!("{name} is {text:?}; give a number")),
        Err(_) => default,
    }
}
