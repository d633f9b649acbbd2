//! One error for stores, transports and the relay. It answers what the relay should do.

use std::borrow::Cow;
use std::fmt;
use std::time::Duration;

/// What went wrong, in terms of what the relay does about it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum ErrorKind {
    /// The broker or store is down or throttles, or a connection was lost. The relay hands back, pauses that side, backs
    /// off and probes; no attempt is charged.
    Unavailable,
    /// The connection lived, and this one answer did not come in time. The relay retries, which may duplicate. An attempt
    /// is charged only if the destination answers a probe afterwards.
    Indeterminate,
    /// Depends on topology: no queue bound, unknown topic. The relay retries with backoff, charged, and buries with the
    /// reason when attempts are spent.
    Unroutable,
    /// Depends on the message alone: too large, malformed, refused for good. The relay buries it and keeps the reason.
    Rejected,
    /// Bad credentials or a bad setting. The relay stops if nothing has succeeded yet; later it pauses that side, loudly,
    /// and goes on trying. No attempt is charged.
    Misconfigured,
    /// Nothing that was expected. As [`ErrorKind::Indeterminate`], and logged loudly.
    Unexpected,
}

impl ErrorKind {
    /// The kind in lower case, as logs and metrics name it.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Unavailable => "unavailable",
            Self::Indeterminate => "indeterminate",
            Self::Unroutable => "unroutable",
            Self::Rejected => "rejected",
            Self::Misconfigured => "misconfigured",
            Self::Unexpected => "unexpected",
        }
    }
}

/// Whether what failed may have happened all the same.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Default)]
pub enum Effect {
    /// It certainly did not happen: the request never left, or was refused as a whole.
    NotApplied,
    /// It may have happened, or may happen later: the answer is missing.
    #[default]
    Unknown,
}

type Source = Box<dyn std::error::Error + Send + Sync>;

/// The error of every store and transport. One word wide, since it travels in every outcome.
///
/// `Display` names the operation, the kind and what to do; it does not repeat [`source`](std::error::Error::source), and
/// no part may contain a credential: describe a server by host and port, never by its URL.
pub struct Error(Box<Parts>);

struct Parts {
    kind: ErrorKind,
    effect: Effect,
    operation: &'static str,
    description: Cow<'static, str>,
    retry_after: Option<Duration>,
    source: Option<Source>,
}

impl Error {
    /// An error of `kind` in `operation` (a verb: `claim`, `publish`, `open`), whose effect is unknown.
    pub fn new(kind: ErrorKind, operation: &'static str) -> Self {
        let description = Cow::Borrowed("");
        Self(Box::new(Parts {
            kind,
            effect: Effect::Unknown,
            operation,
            description,
            retry_after: None,
            source: None,
        }))
    }

    /// Says in words what is wrong and what to do, naming the setting or the message.
    #[must_use]
    pub fn describe(mut self, description: impl Into<Cow<'static, str>>) -> Self {
        self.0.description = description.into();
        self
    }

    /// States that the effect did not happen. Without this it counts as unknown.
    #[must_use]
    pub fn not_applied(mut self) -> Self {
        self.0.effect = Effect::NotApplied;
        self
    }

    /// Asks for a pause of at least `duration` before the next try, where the other side said so.
    #[must_use]
    pub fn retry_after(mut self, duration: Duration) -> Self {
        self.0.retry_after = Some(duration);
        self
    }

    /// Keeps the cause. Its own `Display` must not show a secret.
    #[must_use]
    pub fn caused_by(mut self, source: impl Into<Source>) -> Self {
        self.0.source = Some(source.into());
        self
    }

    /// What the relay does about it.
    pub fn kind(&self) -> ErrorKind {
        self.0.kind
    }

    /// Whether it may have happened all the same.
    pub fn effect(&self) -> Effect {
        self.0.effect
    }

    /// What was being done.
    pub fn operation(&self) -> &'static str {
        self.0.operation
    }

    /// The words of [`describe`](Self::describe); empty if there are none.
    pub fn description(&self) -> &str {
        &self.0.description
    }

    /// How long the other side asked to wait.
    pub fn requested_pause(&self) -> Option<Duration> {
        self.0.retry_after
    }

    /// The error and its causes in one line: what is stored as the reason of a retry or a burial.
    pub fn report(&self) -> String {
        use fmt::Write as _;
        let mut line = self.to_string();
        let mut cause = std::error::Error::source(self);
        while let Some(error) = cause {
            // Writing to a `String` cannot fail.
            let _ = write!(line, ": {error}");
            cause = error.source();
        }
        line
    }
}

impl fmt::Display for Error {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(formatter, "{} ({})", self.0.operation, self.0.kind.name())?;
        if !self.0.description.is_empty() {
            write!(formatter, ": {}", self.0.description)?;
        }
        Ok(())
    }
}

impl fmt::Debug for Error {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter
            .debug_struct("Error")
            .field("kind", &self.0.kind)
            .field("operation", &self.0.operation)
            .field("description", &self.0.description)
            .field("effect", &self.0.effect)
            .field("retry_after", &self.0.retry_after)
            .field("source", &self.0.source)
            .finish()
    }
}

impl std::error::Error for Error {
    fn source(&self) -> Option<&(dyn std::error::Error + 'static)> {
        self.0.source.as_deref().map(|source| source as _)
    }
}

impl From<crate::InvalidMessage> for Error {
    fn from(invalid: crate::InvalidMessage) -> Self {
        Self::new(ErrorKind::Rejected, "enqueue").describe(invalid.to_string()).not_applied()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn display_does_not_repeat_the_source_and_report_does() {
        let error = Error::new(ErrorKind::Unavailable, "claim")
            .describe("redis at localhost:6379 does not answer; is it running?")
            .caused_by("connection refused");
        assert_eq!(
            error.to_string(),
            "claim (unavailable): redis at localhost:6379 does not answer; is it running?"
        );
        assert!(error.report().ends_with(": connection refused"));
        assert_eq!(error.effect(), Effect::Unknown);
    }

    #[test]
    fn is_one_word_wide() {
        assert_eq!(size_of::<Error>(), size_of::<usize>());
        assert_eq!(size_of::<Result<(), Error>>(), size_of::<usize>());
    }
}
