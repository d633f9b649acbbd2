//! Options in URLs: taken by name, checked, and none dropped in silence.

use crate::{Error, ErrorKind};
use std::str::FromStr;
use std::time::Duration;

/// The options of a URL that carry one prefix, such as `outbox.` in `redis://localhost/?outbox.name=orders`.
///
/// Stores and transports take what they know and call [`finish`](Self::finish), which refuses what is left.
///
/// ```
/// # use pillarbox_core::UrlOptions;
/// # use std::time::Duration;
/// let mut options = UrlOptions::new("outbox.", [("outbox.timeout", "500ms"), ("outbox.lanes", "16"), ("db", "1")]);
/// assert_eq!(options.duration("timeout")?, Some(Duration::from_millis(500)));
/// assert_eq!(options.parsed::<u32>("lanes", "a whole number")?, Some(16));
/// options.finish()?;
/// # Ok::<(), pillarbox_core::Error>(())
/// ```
#[derive(Debug)]
pub struct UrlOptions {
    prefix: &'static str,
    given: Vec<(String, String)>,
    known: Vec<&'static str>,
}

impl UrlOptions {
    /// The options among `pairs`, decoded names and values of a query, whose names begin with `prefix`. The others are the
    /// client's own.
    pub fn new<N: AsRef<str>, V: Into<String>>(
        prefix: &'static str,
        pairs: impl IntoIterator<Item = (N, V)>,
    ) -> Self {
        let given = pairs
            .into_iter()
            .filter_map(|(name, value)| Some((name.as_ref().strip_prefix(prefix)?.to_owned(), value.into())))
            .collect();
        Self { prefix, given, known: Vec::new() }
    }

    /// Takes the value of `name`, written without the prefix; `None` if it is not given.
    ///
    /// # Errors
    /// `Misconfigured` if it is given twice.
    pub fn text(&mut self, name: &'static str) -> Result<Option<String>, Error> {
        self.known.push(name);
        let mut value = None;
        while let Some(at) = self.given.iter().position(|(given, _)| given == name) {
            if value.replace(self.given.swap_remove(at).1).is_some() {
                return Err(misconfigured(format!(
                    "the option `{}{name}` is given twice; give it once",
                    self.prefix
                )));
            }
        }
        Ok(value)
    }

    /// Takes the value of `name`, parsed; `expected` says in an error what it takes.
    ///
    /// # Errors
    /// `Misconfigured` if it does not parse, or is given twice.
    pub fn parsed<T: FromStr>(&mut self, name: &'static str, expected: &str) -> Result<Option<T>, Error> {
        let Some(value) = self.text(name)? else { return Ok(None) };
        let wrong = || misconfigured(format!("`{}{name}` is {value:?}; it takes {expected}", self.prefix));
        value.parse().map(Some).map_err(|_| wrong())
    }

    /// Takes the duration `name`, written as [`parse_duration`] reads it.
    ///
    /// # Errors
    /// `Misconfigured` if it is no duration, or is given twice.
    pub fn duration(&mut self, name: &'static str) -> Result<Option<Duration>, Error> {
        let Some(value) = self.text(name)? else { return Ok(None) };
        let wrong = || {
            let prefix = self.prefix;
            misconfigured(format!(
                "`{prefix}{name}` is {value:?}; it takes a duration such as `30s` or `500ms`"
            ))
        };
        parse_duration(&value).map(Some).ok_or_else(wrong)
    }

    /// Ends the taking.
    ///
    /// # Errors
    /// `Misconfigured` if an option was not taken: it names the nearest, and all that were asked for.
    pub fn finish(mut self) -> Result<(), Error> {
        self.given.sort();
        let Some((unknown, _)) = self.given.first() else { return Ok(()) };
        let prefix = self.prefix;
        self.known.sort_unstable();
        let Some(nearest) = nearest(unknown, &self.known) else {
            return Err(misconfigured(format!("`{prefix}{unknown}` is no option, and there are none here")));
        };
        let known: Vec<_> = self.known.iter().map(|name| format!("`{prefix}{name}`")).collect();
        Err(misconfigured(format!(
            "`{prefix}{unknown}` is no option; did you mean `{prefix}{nearest}`? There are {}",
            known.join(", ")
        )))
    }
}

/// A duration as URLs write it: a whole number and one of `ms`, `s`, `m`, `h`. `None` for anything else.
pub fn parse_duration(text: &str) -> Option<Duration> {
    let unit = text.find(|letter: char| !letter.is_ascii_digit())?;
    let (count, unit) = text.split_at(unit);
    let count: u64 = count.parse().ok()?;
    let milliseconds: u64 = match unit {
        "ms" => 1,
        "s" => 1_000,
        "m" => 60_000,
        "h" => 3_600_000,
        _ => return None,
    };
    count.checked_mul(milliseconds).map(Duration::from_millis)
}

/// The name that is most alike `name`, for "did you mean"; `None` if there are none.
pub fn nearest<'a>(name: &str, known: &[&'a str]) -> Option<&'a str> {
    known.iter().copied().min_by_key(|known| distance(known, name))
}

/// The Levenshtein distance, byte by byte: names are short.
fn distance(left: &str, right: &str) -> usize {
    let mut row: Vec<usize> = (0..=right.len()).collect();
    for (i, a) in left.bytes().enumerate() {
        let mut diagonal = row[0];
        row[0] = i + 1;
        for (j, b) in right.bytes().enumerate() {
            let substituted = diagonal + usize::from(a != b);
            diagonal = row[j + 1];
            row[j + 1] = substituted.min(row[j] + 1).min(diagonal + 1);
        }
    }
    row[right.len()]
}

fn misconfigured(description: String) -> Error {
    Error::new(ErrorKind::Misconfigured, "open").describe(description).not_applied()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn durations() {
        for (text, expected) in [
            ("30s", Some(Duration::from_secs(30))),
            ("500ms", Some(Duration::from_millis(500))),
            ("2m", Some(Duration::from_secs(120))),
            ("1h", Some(Duration::from_secs(3_600))),
            ("0s", Some(Duration::ZERO)),
            ("30", None),
            ("s", None),
            ("", None),
            ("1.5s", None),
            ("-1s", None),
            ("1 s", None),
            ("99999999999999999999s", None),
            ("18446744073709551615h", None),
        ] {
            assert_eq!(parse_duration(text), expected, "{text:?}");
        }
    }

    #[test]
    fn what_is_wrong_is_named() {
        let mut options = UrlOptions::new("outbox.", [("outbox.nam", "orders"), ("timeout", "1")]);
        assert_eq!(options.text("name").unwrap(), None);
        assert_eq!(options.duration("lease").unwrap(), None);
        let error = options.finish().unwrap_err().to_string();
        assert!(error.contains("did you mean `outbox.name`?") && error.contains("`outbox.lease`"), "{error}");

        let pairs = [("outbox.a", "1"), ("outbox.a", "2"), ("outbox.b", "x"), ("outbox.c", "10")];
        let mut options = UrlOptions::new("outbox.", pairs);
        assert!(options.text("a").unwrap_err().to_string().contains("`outbox.a` is given twice"));
        let error = options.parsed::<u32>("b", "a whole number").unwrap_err().to_string();
        assert!(error.contains("`outbox.b` is \"x\"; it takes a whole number"), "{error}");
        assert!(options.duration("c").unwrap_err().to_string().contains("such as `30s`"));
        options.finish().unwrap();
        let none = UrlOptions::new("outbox.", [("outbox.a", "1")]).finish().unwrap_err();
        assert!(none.to_string().contains("there are none"));
    }
}
