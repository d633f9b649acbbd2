use std::fmt;
use std::io;

/// What kept a server from doing what a test asked for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum ServerErrorKind {
    /// The program is not installed.
    Missing,
    /// The server ended, or did not answer in time. The message shows the end of its log.
    NotReady,
    /// Another process took the port between choosing it and starting. Starting again on other ports helps, and
    /// the servers of this module do so by themselves.
    PortTaken,
    /// The server is not running: it was killed, or it ended by itself.
    NotRunning,
    /// The server runs and refused a command.
    Refused,
    /// The operating system refused something: a file, a port, a process.
    System,
}

/// An error of a server for tests. Its message says what to do.
///
/// It is `Clone`, because every user of a shared server is told the same reason.
#[derive(Clone)]
pub struct ServerError {
    kind: ServerErrorKind,
    message: String,
}

impl ServerError {
    /// An error of `kind`; `message` says what to do about it.
    pub fn new(kind: ServerErrorKind, message: impl Into<String>) -> Self {
        Self { kind, message: message.into() }
    }

    /// What kind of error this is.
    pub fn kind(&self) -> ServerErrorKind {
        self.kind
    }

    /// The operating system's refusal of `what` ("create a folder in /tmp").
    pub(crate) fn system(what: &str, cause: &io::Error) -> Self {
        Self::new(ServerErrorKind::System, format!("cannot {what}: {cause}"))
    }

    pub(crate) fn refused(message: impl Into<String>) -> Self {
        Self::new(ServerErrorKind::Refused, message)
    }
}

impl fmt::Display for ServerError {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str(&self.message)
    }
}

/// The same as `Display`: a test that fails with this error shows `Debug`, and a server's log is readable only with its line ends.
impl fmt::Debug for ServerError {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, formatter)
    }
}

impl std::error::Error for ServerError {}
