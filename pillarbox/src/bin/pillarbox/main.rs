//! The program `pillarbox`: relays an outbox, enqueues into it, and looks after it.

mod address;
mod arguments;
mod connect;
mod dead;
mod drivers;
mod duration;
mod enqueue;
mod failure;
mod health;
mod http;
mod log;
#[cfg(any(feature = "sqlite", feature = "postgres", feature = "mysql"))]
mod migrate;
mod progress;
mod relay;
mod routes;
mod say;
mod signals;
mod status;
mod stored;

use arguments::{Arguments, Command};
use clap::Parser as _;
use failure::Failure;
use std::process::ExitCode;

fn main() -> ExitCode {
    let arguments = match Arguments::try_parse() {
        Ok(arguments) => arguments,
        Err(error) => return arguments::refuse(&error),
    };
    let runtime = match tokio::runtime::Builder::new_multi_thread().enable_all().build() {
        Ok(runtime) => runtime,
        Err(error) => return Failure::system("start a runtime", &error).tell(),
    };
    let outcome = runtime.block_on(run(arguments));
    // Without this a thread that still reads standard input would hold the end up.
    runtime.shutdown_background();
    match outcome {
        Ok(()) => ExitCode::SUCCESS,
        Err(failure) => failure.tell(),
    }
}

async fn run(arguments: Arguments) -> Result<(), Failure> {
    log::install(arguments.log.as_deref())?;
    match arguments.command {
        Command::Relay(arguments) => relay::run(*arguments).await,
        Command::Enqueue(arguments) => enqueue::run(arguments).await,
        Command::Status(arguments) => status::run(arguments).await,
        Command::Dead(arguments) => dead::run(arguments).await,
        #[cfg(any(feature = "sqlite", feature = "postgres", feature = "mysql"))]
        Command::Migrate(arguments) => migrate::run(arguments).await,
        Command::Drivers => drivers::list(),
    }
}
