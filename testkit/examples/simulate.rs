//! Simulates relays on the memory storage, seed after seed, and ends with the totals.
//!
//! ```text
//! cargo run --release -p pillarbox-testkit --example simulate -- --seeds 100000 [--first SEED] [--keep CHOICES] [--trace] [--broken MUTANT]
//! ```
//!
//! A seed that breaks a rule is shrunk and told as it happened, with the command that replays it; the exit code is 1 then.
//! `--broken UnfencedSettle` shows that: it breaks one promise of the storage, the relay or the transport, as the proof of
//! the simulator does. An unknown name is answered with all of them.

#[path = "../tests/all/simulate/memory.rs"]
mod memory;
#[allow(clippy::unwrap_used, reason = "it is a test's")]
#[path = "../tests/all/simulate/mutants.rs"]
mod mutants;

use memory::Memory;
use mutants::Mutant;
use pillarbox_testkit::check::Rules;
use pillarbox_testkit::choices::{Choices, Keep};
use pillarbox_testkit::simulate::{Failure, Simulation, Subject, Sweep};
use std::io::Write as _;
use std::process::ExitCode;
use std::time::{Duration, Instant};

#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

/// How many runs are spent on making a failure small.
const SHRINKING: u32 = 5_000;

struct Arguments {
    seeds: u64,
    first: u64,
    keep: Keep,
    trace: bool,
    broken: Option<Mutant>,
}

fn main() -> ExitCode {
    match Arguments::read(std::env::args().skip(1)) {
        Ok(arguments) => match arguments.broken {
            Some(mutant) => simulate(&arguments, &mutant),
            None => simulate(&arguments, &Memory),
        },
        Err(words) => {
            eprintln!(
                "{words}\nusage: simulate --seeds N [--first SEED] [--keep CHOICES] [--trace] [--broken MUTANT]"
            );
            ExitCode::from(2)
        }
    }
}

fn simulate(arguments: &Arguments, subject: &impl Subject) -> ExitCode {
    if arguments.keep != Keep::Everything || arguments.trace {
        replay(arguments, subject)
    } else {
        sweep(arguments, subject)
    }
}

/// Seed after seed, with the rate.
fn sweep(arguments: &Arguments, subject: &impl Subject) -> ExitCode {
    let simulation = Simulation::default();
    let mut sweep = Sweep::new(&simulation, subject, Rules::all());
    let (begun, mut told) = (Instant::now(), Instant::now());
    let rate = |seeds: u64| seeds as f64 / begun.elapsed().as_secs_f64();
    for seed in arguments.first..arguments.first.saturating_add(arguments.seeds) {
        if let Err(failure) = sweep.seed(seed) {
            eprintln!();
            tell(&failure, &simulation, subject, arguments.broken);
            return ExitCode::FAILURE;
        }
        if told.elapsed() > Duration::from_millis(500) {
            told = Instant::now();
            eprint!("\r{} seeds, {:.0} seeds/s ", sweep.seeds, rate(sweep.seeds));
            // The progress is only for looking at.
            let _ = std::io::stderr().flush();
        }
    }
    eprintln!();
    println!("{} seeds from {}, {:.0} seeds/s", sweep.seeds, arguments.first, rate(sweep.seeds));
    println!("{}", sweep.situations);
    println!("{}", sweep.totals);
    ExitCode::SUCCESS
}

/// One seed, as it happens.
fn replay(arguments: &Arguments, subject: &impl Subject) -> ExitCode {
    let simulation = Simulation::default();
    let choices = Choices::keeping(arguments.first, arguments.keep.clone());
    let (history, checked) = simulation.judge(subject, choices, Rules::all());
    println!("{history}");
    for violation in &checked.violations {
        println!("{violation}");
    }
    println!("{}", checked.totals);
    if checked.violations.is_empty() { ExitCode::SUCCESS } else { ExitCode::FAILURE }
}

fn tell(failure: &Failure, simulation: &Simulation, subject: &impl Subject, broken: Option<Mutant>) {
    println!("{failure}");
    let shrunk = failure.shrink(simulation, subject, Rules::all(), SHRINKING);
    println!("{shrunk}");
    let broken = broken.map(|mutant| format!(" --broken {mutant:?}")).unwrap_or_default();
    let command = format!("cargo run --release -p pillarbox-testkit --example simulate --{broken}");
    println!("replay: {command} --first {} --trace --keep {}", shrunk.seed, shrunk.keep);
    println!("unshrunk: {command} --first {} --trace", shrunk.seed);
    println!("{}", failure.totals);
}

impl Arguments {
    fn read(mut given: impl Iterator<Item = String>) -> Result<Self, String> {
        let mut arguments =
            Self { seeds: 1_000, first: 0, keep: Keep::Everything, trace: false, broken: None };
        while let Some(name) = given.next() {
            if name == "--trace" {
                arguments.trace = true;
                continue;
            }
            let value = given.next().ok_or_else(|| format!("{name} needs a value"))?;
            let number =
                || value.parse().map_err(|_| format!("{name} is {value:?}; it takes a whole number"));
            match name.as_str() {
                "--seeds" => arguments.seeds = number()?,
                "--first" => arguments.first = number()?,
                "--keep" => arguments.keep = value.parse()?,
                "--broken" => arguments.broken = Some(named(&value)?),
                _ => return Err(format!("{name} is no option")),
            }
        }
        Ok(arguments)
    }
}

fn named(name: &str) -> Result<Mutant, String> {
    let known = Mutant::ALL.into_iter().find(|mutant| format!("{mutant:?}") == name);
    known.ok_or_else(|| format!("{name} is no mutant; there are {:?}", Mutant::ALL))
}
