use pillarbox::{Error, ErrorKind};
use std::process::ExitCode;

/// Why the program ends with an error: a line for people, and the exit code.
#[derive(Debug)]
pub(crate) struct Failure {
    text: String,
    code: u8,
}

/// Something failed while running.
const FAILED: u8 = 1;
/// The arguments, the environment or the settings have to be changed. The same that wrong arguments give.
const MISCONFIGURED: u8 = 2;

impl Failure {
    pub(crate) fn failed(text: impl Into<String>) -> Self {
        Self { text: text.into(), code: FAILED }
    }

    pub(crate) fn misconfigured(text: impl Into<String>) -> Self {
        Self { text: text.into(), code: MISCONFIGURED }
    }

    pub(crate) fn system(operation: &str, error: &std::io::Error) -> Self {
        Self::failed(format!("cannot {operation}: {error}"))
    }

    /// Says it on standard error, and answers the exit code.
    pub(crate) fn tell(&self) -> ExitCode {
        crate::say::tell(&self.text);
        ExitCode::from(self.code)
    }
}

impl From<Error> for Failure {
    fn from(error: Error) -> Self {
        let code = if error.kind() == ErrorKind::Misconfigured { MISCONFIGURED } else { FAILED };
        Self { text: error.report(), code }
    }
}
