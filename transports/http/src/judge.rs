//! What becomes of a message, in the relay's terms.

use crate::HttpConfig;
use crate::error::Operation;
use pillarbox_core::{Error, ErrorKind, Message};
use reqwest::StatusCode;
use reqwest::header::{HeaderMap, RETRY_AFTER};
use std::time::{Duration, SystemTime};

/// An endpoint cannot ask for more than this: it may have its clock wrong, or mean harm.
const LONGEST_PAUSE: Duration = Duration::from_secs(3_600);

/// Whether a message may be sent, as far as is known here.
pub(crate) fn check(config: &HttpConfig, message: &Message) -> Result<(), Error> {
    let size = message.payload().len();
    if size > config.max_payload as usize {
        let limit = config.max_payload;
        return Err(Error::new(ErrorKind::Rejected, Operation::Publish.name())
            .describe(format!("the payload has {size} bytes; `transport.max_payload` is {limit}"))
            .not_applied());
    }
    Ok(())
}

/// The kind of a status, and whether the endpoint certainly did nothing. `None` is success.
fn kind_of(status: StatusCode) -> Option<(ErrorKind, bool)> {
    use ErrorKind::{Indeterminate, Misconfigured, Rejected, Unavailable, Unexpected, Unroutable};
    Some(match status.as_u16() {
        200..=299 => return None,
        // It refuses for now.
        408 | 425 | 429 | 503 | 507 => (Unavailable, true),
        // A gateway speaks for an endpoint that may have done it.
        502 | 504 | 520..=530 => (Unavailable, false),
        // Not followed; not allowed; no such method.
        300..=399 | 401 | 402 | 403 | 405 | 407 | 501 | 505 | 511 => (Misconfigured, true),
        404 | 410 | 421 => (Unroutable, true),
        // Another request, or itself, was in the way: it may go the next time.
        409 | 423 | 500..=599 => (Indeterminate, false),
        400..=499 => (Rejected, true),
        _ => (Unexpected, false),
    })
}

fn advice(status: StatusCode) -> &'static str {
    match status.as_u16() {
        300..=399 => "; redirects are not followed, so set the URL that it leads to",
        401..=403 | 407 => "; check the URL's user and password, and `transport.authorization`",
        404 | 410 => "; is the path right?",
        405 | 501 => "; does the path take POST?",
        413 => "; lower `transport.max_payload`, or raise the endpoint's limit",
        _ => "",
    }
}

/// The outcome of a message that was answered; `words` is the beginning of the body.
pub(crate) fn outcome(
    config: &HttpConfig,
    status: StatusCode,
    headers: &HeaderMap,
    words: &[u8],
) -> Result<(), Error> {
    let Some((kind, refused)) = kind_of(status) else { return Ok(()) };
    let place = config.place();
    let words = visible(words);
    let said = if words.is_empty() { words } else { format!(": {words}") };
    let told = Error::new(kind, Operation::Publish.name())
        .describe(format!("{place} answered {status}{}{said}", advice(status)));
    let told = match pause(headers, SystemTime::now()) {
        Some(pause) => told.retry_after(pause),
        None => told,
    };
    Err(if refused { told.not_applied() } else { told })
}

/// The answer to a probe of a path that tells whether the endpoint works, or else to `OPTIONS`.
pub(crate) fn probed(config: &HttpConfig, status: StatusCode, headers: &HeaderMap) -> Result<(), Error> {
    let works = match config.probe {
        Some(_) => status.is_success(),
        // Whoever knows no such method is there.
        None => status.as_u16() == 501 || !(status.is_server_error() || status.as_u16() == 429),
    };
    if works {
        return Ok(());
    }
    let told = Error::new(ErrorKind::Unavailable, Operation::Probe.name())
        .describe(format!("{} answered {status}", config.place()))
        .not_applied();
    Err(match pause(headers, SystemTime::now()) {
        Some(pause) => told.retry_after(pause),
        None => told,
    })
}

/// `Retry-After`, in seconds or as a date.
fn pause(headers: &HeaderMap, now: SystemTime) -> Option<Duration> {
    let text = headers.get(RETRY_AFTER)?.to_str().ok()?.trim();
    let pause = match text.parse::<u64>() {
        Ok(seconds) => Duration::from_secs(seconds),
        Err(_) => httpdate::parse_http_date(text).ok()?.duration_since(now).unwrap_or_default(),
    };
    Some(pause.min(LONGEST_PAUSE))
}

/// Text in one line.
fn visible(words: &[u8]) -> String {
    let text = String::from_utf8_lossy(words);
    let text: String =
        text.chars().map(|letter| if letter.is_control() { ' ' } else { letter }).take(200).collect();
    text.trim().to_owned()
}

/// There was no time to begin the request.
pub(crate) fn not_begun(config: &HttpConfig) -> Error {
    Error::new(ErrorKind::Unavailable, Operation::Publish.name())
        .describe(format!(
            "{} is slow: the request was not begun within {:?} (`transport.timeout`); raise `transport.concurrency`, or lower the relay's batch size",
            config.place(),
            config.timeout
        ))
        .not_applied()
}

/// No answer in time.
pub(crate) fn timed_out(config: &HttpConfig, operation: Operation) -> Error {
    // Somebody who asks for a sign of life got none.
    let kind = match operation {
        Operation::Publish => ErrorKind::Indeterminate,
        Operation::Probe => ErrorKind::Unavailable,
    };
    Error::new(kind, operation.name()).describe(format!(
        "{} did not answer within {:?} (`transport.timeout`)",
        config.place(),
        config.timeout
    ))
}

/// Whether an error is the endpoint's, so that nothing more should be sent for now.
pub(crate) fn is_outage(error: &Error) -> bool {
    matches!(error.kind(), ErrorKind::Unavailable | ErrorKind::Misconfigured)
}

/// The same words, for later.
pub(crate) fn copied(error: &Error) -> Error {
    let told = Error::new(error.kind(), error.operation()).describe(error.description().to_owned());
    match error.requested_pause() {
        Some(pause) => told.retry_after(pause),
        None => told,
    }
}

/// The same for a message that was not sent because of it.
pub(crate) fn spared(error: &Error) -> Error {
    let told = Error::new(error.kind(), error.operation())
        .describe(format!("not sent, since another request failed: {}", error.description()))
        .not_applied();
    match error.requested_pause() {
        Some(pause) => told.retry_after(pause),
        None => told,
    }
}

/// A message behind one of its key that failed.
pub(crate) fn behind(error: &Error) -> Error {
    Error::new(error.kind(), error.operation())
        .describe(format!("not sent, since one before it with its key failed: {}", error.description()))
        .not_applied()
}

#[cfg(test)]
mod tests {
    use super::*;
    use pillarbox_core::Effect;
    use std::time::UNIX_EPOCH;

    fn config() -> HttpConfig {
        HttpConfig::from_url("https://:s3cret@host/t0ken").unwrap()
    }

    #[test]
    fn every_class_of_status() {
        use ErrorKind::{Indeterminate, Misconfigured, Rejected, Unavailable, Unexpected, Unroutable};
        let (refused, unknown) = (Effect::NotApplied, Effect::Unknown);
        for status in [200, 201, 202, 204, 299] {
            let status = StatusCode::from_u16(status).unwrap();
            assert!(outcome(&config(), status, &HeaderMap::new(), b"").is_ok(), "{status}");
        }
        for (status, kind, effect) in [
            (301, Misconfigured, refused),
            (302, Misconfigured, refused),
            (308, Misconfigured, refused),
            (400, Rejected, refused),
            (401, Misconfigured, refused),
            (403, Misconfigured, refused),
            (404, Unroutable, refused),
            (405, Misconfigured, refused),
            (407, Misconfigured, refused),
            (408, Unavailable, refused),
            (409, Indeterminate, unknown),
            (410, Unroutable, refused),
            (413, Rejected, refused),
            (415, Rejected, refused),
            (422, Rejected, refused),
            (423, Indeterminate, unknown),
            (425, Unavailable, refused),
            (429, Unavailable, refused),
            (431, Rejected, refused),
            (451, Rejected, refused),
            (500, Indeterminate, unknown),
            (501, Misconfigured, refused),
            (502, Unavailable, unknown),
            (503, Unavailable, refused),
            (504, Unavailable, unknown),
            (507, Unavailable, refused),
            (522, Unavailable, unknown),
            (599, Indeterminate, unknown),
            (600, Unexpected, unknown),
        ] {
            let status = StatusCode::from_u16(status).unwrap();
            let error = outcome(&config(), status, &HeaderMap::new(), b"it\r\nsays\x07 why ").unwrap_err();
            assert_eq!((error.kind(), error.effect()), (kind, effect), "{status}");
            let shown = error.to_string();
            assert!(shown.contains("https://host answered") && shown.ends_with(": it  says  why"), "{shown}");
            assert!(!shown.contains("s3cret") && !shown.contains("t0ken"), "{shown}");
        }
    }

    #[test]
    fn answers_to_probes() {
        let with_path = config().probe("/health").unwrap();
        for (status, options, path) in [
            (200, true, true),
            (204, true, true),
            (404, true, false),
            (405, true, false),
            (429, false, false),
        ]
        .into_iter()
        .chain([(500, false, false), (501, true, false), (503, false, false), (302, true, false)])
        {
            let status = StatusCode::from_u16(status).unwrap();
            assert_eq!(probed(&config(), status, &HeaderMap::new()).is_ok(), options, "{status}");
            assert_eq!(probed(&with_path, status, &HeaderMap::new()).is_ok(), path, "{status}");
        }
    }

    #[test]
    fn retry_after() {
        let now = UNIX_EPOCH + Duration::from_secs(784_111_747);
        for (text, expected) in [
            ("120", Some(Duration::from_secs(120))),
            (" 0 ", Some(Duration::ZERO)),
            ("Sun, 06 Nov 1994 08:49:37 GMT", Some(Duration::from_secs(30))),
            ("Sun, 06 Nov 1994 08:48:37 GMT", Some(Duration::ZERO)),
            ("999999999999", Some(LONGEST_PAUSE)),
            ("99999999999999999999999", None),
            ("soon", None),
            ("-1", None),
        ] {
            let headers = HeaderMap::from_iter([(RETRY_AFTER, text.parse().unwrap())]);
            assert_eq!(pause(&headers, now), expected, "{text}");
        }
        assert_eq!(pause(&HeaderMap::new(), now), None);
    }
}
