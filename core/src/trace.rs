//! The trace that a message belongs to, as [W3C Trace Context](https://www.w3.org/TR/trace-context/) writes it.

use crate::{Headers, Text};
use std::fmt;

/// The header that names the trace and the span that a message comes from.
pub const TRACEPARENT: &str = "traceparent";
/// The header with what tracing systems add of their own.
pub const TRACESTATE: &str = "tracestate";

/// The trace and the span that a message comes from, checked. Travels in the headers `traceparent` and `tracestate`.
///
/// ```
/// # use pillarbox_core::{Headers, TraceContext};
/// let context = TraceContext::new("00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01")?.state("vendor=1")?;
/// let mut headers = Headers::new();
/// context.write_to(&mut headers);
/// assert_eq!(TraceContext::read_from(&headers), Some(context));
/// # Ok::<(), pillarbox_core::InvalidTraceContext>(())
/// ```
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TraceContext {
    parent: Text,
    state: Option<Text>,
}

impl TraceContext {
    /// A context from the text of a `traceparent`: `version-trace-parent-flags` in lower-case hexadecimal, neither id all
    /// zeros. Versions after `00` may have more behind a further `-`.
    ///
    /// # Errors
    /// [`InvalidTraceContext`] says which part is wrong.
    pub fn new(parent: impl Into<Text>) -> Result<Self, InvalidTraceContext> {
        let parent = parent.into();
        check_parent(&parent)?;
        Ok(Self { parent, state: None })
    }

    /// Adds the text of a `tracestate`: at most 512 bytes of visible ASCII.
    ///
    /// # Errors
    /// [`InvalidTraceContext`] if it is empty, longer, or has other characters.
    pub fn state(mut self, state: impl Into<Text>) -> Result<Self, InvalidTraceContext> {
        let state = state.into();
        let is_printable = state.bytes().all(|byte| (b' '..=b'~').contains(&byte) || byte == b'\t');
        if state.is_empty() || state.len() > 512 || !is_printable {
            return Err(InvalidTraceContext("the tracestate has 1 to 512 bytes of visible ASCII"));
        }
        // A tab is legal there and not in a message's header.
        self.state = Some(if state.contains('\t') { state.replace('\t', " ").into() } else { state });
        Ok(self)
    }

    /// The text of the `traceparent`.
    pub fn parent(&self) -> &Text {
        &self.parent
    }

    /// The text of the `tracestate`, if there is one.
    pub fn tracestate(&self) -> Option<&Text> {
        self.state.as_ref()
    }

    /// Writes the headers, unless one of them is there already: halves of two traces must not be mixed.
    pub fn write_to(&self, headers: &mut Headers) {
        if headers.value(TRACEPARENT).is_some() || headers.value(TRACESTATE).is_some() {
            return;
        }
        headers.insert(Text::from_static(TRACEPARENT), self.parent.clone());
        if let Some(state) = &self.state {
            headers.insert(Text::from_static(TRACESTATE), state.clone());
        }
    }

    /// The context in `headers`; `None` if there is none or it is not valid, and then a consumer begins a trace of its own. An
    /// invalid `tracestate` is left out, as the standard asks.
    pub fn read_from(headers: &Headers) -> Option<Self> {
        let context = Self::new(headers.value(TRACEPARENT)?.clone()).ok()?;
        match headers.value(TRACESTATE) {
            Some(state) => Some(context.clone().state(state.clone()).unwrap_or(context)),
            None => Some(context),
        }
    }
}

/// Tells the trace that the caller is in, asked when a message is made. The application provides it, since it knows its
/// tracing system; a closure will do.
pub trait TraceSource: Send + Sync {
    /// The trace now; `None` outside of any.
    fn current(&self) -> Option<TraceContext>;
}

impl<F: Fn() -> Option<TraceContext> + Send + Sync> TraceSource for F {
    fn current(&self) -> Option<TraceContext> {
        self()
    }
}

impl fmt::Debug for dyn TraceSource {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str("TraceSource")
    }
}

/// A text that is no trace context. Says which part is wrong.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct InvalidTraceContext(&'static str);

impl fmt::Display for InvalidTraceContext {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str(self.0)
    }
}

impl std::error::Error for InvalidTraceContext {}

fn check_parent(parent: &str) -> Result<(), InvalidTraceContext> {
    let mut parts = parent.splitn(5, '-');
    let mut part = |digits: usize, reason: &'static str| match parts.next() {
        Some(part) if part.len() == digits && part.bytes().all(is_lower_hexadecimal) => Ok(part),
        _ => Err(InvalidTraceContext(reason)),
    };
    let version = part(2, "the traceparent's version has two lower-case hexadecimal digits")?;
    let trace = part(32, "the traceparent's trace id has 32 lower-case hexadecimal digits")?;
    let span = part(16, "the traceparent's parent id has 16 lower-case hexadecimal digits")?;
    part(2, "the traceparent's flags have two lower-case hexadecimal digits")?;
    if version == "ff" || (version == "00" && parts.next().is_some()) {
        return Err(InvalidTraceContext(
            "the traceparent's version is not valid, or has parts that it does not know",
        ));
    }
    if [trace, span].iter().any(|id| id.bytes().all(|digit| digit == b'0')) {
        return Err(InvalidTraceContext("the traceparent has an id of zeros, which means none"));
    }
    // The rest of a later version is unknown, but it has to fit into a header.
    if parent.len() > 512 || !parent.bytes().all(|byte| byte.is_ascii_graphic()) {
        return Err(InvalidTraceContext("the traceparent has at most 512 bytes of visible ASCII"));
    }
    Ok(())
}

fn is_lower_hexadecimal(byte: u8) -> bool {
    matches!(byte, b'0'..=b'9' | b'a'..=b'f')
}

#[cfg(test)]
mod tests {
    use super::*;

    const TRACE: &str = "0af7651916cd43dd8448eb211c80319c";
    const SPAN: &str = "b7ad6b7169203331";

    #[test]
    fn the_form_of_a_traceparent() {
        let zeros = "0".repeat(32);
        let cases = [
            (format!("00-{TRACE}-{SPAN}-01"), true),
            (format!("cc-{TRACE}-{SPAN}-01-what-will-be"), true),
            (format!("00-{TRACE}-{SPAN}-01-more"), false),
            (format!("ff-{TRACE}-{SPAN}-01"), false),
            (format!("00-{zeros}-{SPAN}-01"), false),
            (format!("00-{TRACE}-{}-01", &zeros[..16]), false),
            (format!("00-{}-{SPAN}-01", TRACE.to_uppercase()), false),
            (format!("00-{TRACE}-{SPAN}-1"), false),
            (format!("00-{TRACE}-{SPAN}"), false),
            (format!("0-{TRACE}-{SPAN}-01"), false),
            (format!("cc-{TRACE}-{SPAN}-01-a\nb"), false),
            (String::new(), false),
            ("é-é".to_owned(), false),
        ];
        for (text, is_valid) in cases {
            assert_eq!(TraceContext::new(text.clone()).is_ok(), is_valid, "{text:?}");
        }
    }

    #[test]
    fn a_context_that_is_there_stays() {
        let first = TraceContext::new(format!("00-{TRACE}-{SPAN}-01")).unwrap();
        let second = TraceContext::new(format!("00-{TRACE}-{SPAN}-00")).unwrap().state("a=1").unwrap();
        let mut headers = Headers::new();
        first.write_to(&mut headers);
        second.write_to(&mut headers);
        assert_eq!(TraceContext::read_from(&headers), Some(first));
    }

    #[test]
    fn a_broken_state_does_not_cost_the_parent() {
        let context = TraceContext::new(format!("00-{TRACE}-{SPAN}-01")).unwrap();
        assert!(context.clone().state("a\nb").is_err() && context.clone().state("").is_err());
        assert_eq!(&**context.clone().state("a=1\t,b=2").unwrap().tracestate().unwrap(), "a=1 ,b=2");
        let mut headers: Headers = [(TRACESTATE, "ä")].into_iter().collect();
        headers.insert(TRACEPARENT, context.parent().clone());
        assert_eq!(TraceContext::read_from(&headers), Some(context));
        assert_eq!(TraceContext::read_from(&Headers::new()), None);
    }
}
