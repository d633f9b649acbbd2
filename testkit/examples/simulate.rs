//! Simulates relays on the memory storage, seed after seed, and ends with the totals.
//!
//! ```text
//! cargo run --release -p pillarbox-testkit --example simulate -- --seeds 100000 [--first SEED] [--keep CHOICES] [--trace]
//! ```
//!
//! A seed that breaks a rule is shrunk and told as it happened, with the command that replays it; the exit code is 1 then.

#[path = "../tests/all/simulate/memory.rs"]
mod memory;

use memory::Memory;
use pillarbox_testkit::check::Rules;
use pillarbox_testkit::choices::{Choices, Keep};
use pillarbox_testkit::simulate::{Failure, Simulation, Sweep};
use std::io::Write as _;
use std::process::ExitCode;
use std::time::{Duration, Instant};

/// How many runs are spent on making a failure small.
const SHRINKING: u32 = 5_000;

struct Arguments {
    seeds: u64,
    first: u64,
    keep: Keep,
    trace: bool,
}

fn main() -> ExitCode {
    match Arguments::read(std::env::args().skip(1)) {
        Ok(arguments) if arguments.keep != Keep::Everything || arguments.trace => replay(&arguments),
        Ok(arguments) => sweep(&arguments),
        Err(words) => {
            eprintln!("{words}\nusage: simulate --seeds N [--first SEED] [--keep CHOICES] [--trace]");
            ExitCode::from(2)
        }
    }
}

/// Seed after seed, with the rate.
fn sweep(arguments: &Arguments) -> ExitCode {
    let simulation = Simulation::default();
    let mut sweep = Sweep::new(&simulation, &Memory, Rules::all());
    let (begun, mut told) = (Instant::now(), Instant::now());
    let rate = |seeds: u64| seeds as f64 / begun.elapsed().as_secs_f64();
    for seed in arguments.first..arguments.first.saturating_add(arguments.seeds) {
        if let Err(failure) = sweep.seed(seed) {
            eprintln!();
            tell(&failure, &simulation);
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
fn replay(arguments: &Arguments) -> ExitCode {
    let simulation = Simulation::default();
    let choices = Choices::keeping(arguments.first, arguments.keep.clone());
    let (history, checked) = simulation.judge(&Memory, choices, Rules::all());
    println!("{history}");
    for violation in &checked.violations {
        println!("{violation}");
    }
    println!("{}", checked.totals);
    if checked.violations.is_empty() { ExitCode::SUCCESS } else { ExitCode::FAILURE }
}

fn tell(failure: &Failure, simulation: &Simulation) {
    println!("{failure}");
    let shrunk = failure.shrink(simulation, &Memory, Rules::all(), SHRINKING);
    println!("{shrunk}");
    let command = "cargo run --release -p pillarbox-testkit --example simulate --";
    println!("replay: {command} --first {} --trace --keep {}", shrunk.seed, shrunk.keep);
    println!("unshrunk: {command} --first {} --trace", shrunk.seed);
    println!("{}", failure.totals);
}

impl Arguments {
    fn read(mut given: impl Iterator<Item = String>) -> Result<Self, String> {
        let mut arguments = Self { seeds: 1_000, first: 0, keep: Keep::Everything, trace: false };
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
                _ => return Err(format!("{name} is no option")),
            }
        }
        Ok(arguments)
    }
}
