//! What the program says. `println!` and `eprintln!` panic where nobody can listen any more, and a relay must not die of a full
//! disk under its log.

use crate::failure::Failure;
use std::fmt::Display;
use std::io::{self, Write as _};

/// A line on standard error, for people. If it cannot be written there is nobody left to tell.
pub(crate) fn tell(text: impl Display) {
    let _ = io::stderr().write_all(format!("pillarbox: {text}\n").as_bytes());
}

/// Text on standard output. A reader that has gone is no failure of ours.
pub(crate) fn print(text: &str) -> Result<(), Failure> {
    let mut output = io::stdout().lock();
    written(output.write_all(text.as_bytes()).and_then(|()| output.flush()))
}

/// What became of writing to standard output.
pub(crate) fn written(outcome: io::Result<()>) -> Result<(), Failure> {
    match outcome {
        Err(error) if error.kind() != io::ErrorKind::BrokenPipe => {
            Err(Failure::system("write to standard output", &error))
        }
        _ => Ok(()),
    }
}
