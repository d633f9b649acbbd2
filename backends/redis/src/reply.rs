//! Reads the scripts' answers.

use crate::layout;
use bytes::Bytes;
use pillarbox_core::{
    Claimed, Content, Entry, Error, ErrorKind, Nonce, Outcome, Renewed, Run, Settled, Text, Timestamp, Token,
    Undecodable,
};
use redis::Value;
use std::str::FromStr;

/// What a claim answers: a line of numbers, and all records in one MessagePack array, which costs one allocation for all.
pub(crate) fn claimed(value: Value, nonce: Nonce) -> Result<Claimed, Error> {
    let Value::Array(parts) = value else { return Err(unexpected("claim")) };
    let mut parts = parts.into_iter();
    let head = text(parts.next().ok_or_else(|| unexpected("claim"))?, "claim")?;
    let mut words = Words { words: head.split(' '), operation: "claim" };
    let now = words.time()?;
    let next_due = match words.word()? {
        "-" => None,
        due => Some(Timestamp::from_micros(words.parse(due)?)),
    };
    let (buried, suspects) = (words.number()?, words.number()?);
    let mut claimed = Claimed { next_due, now, buried, suspects, ..Claimed::default() };
    if let Some(Value::BulkString(packed)) = parts.next() {
        entries(&packed.into(), &mut claimed.entries)?;
    }
    let mut start = 0_u32;
    while let Some(unit) = words.next_number()? {
        let token = Token { unit, fence: words.number()?, nonce };
        let (claimed_at, lease_until, len) = (words.time()?, words.time()?, words.number()?);
        claimed.runs.push(Run { token, claimed_at, lease_until, start, len });
        start = start.checked_add(len).ok_or_else(|| unexpected("claim"))?;
    }
    if claimed.entries.len() != start as usize {
        return Err(unexpected("claim"));
    }
    Ok(claimed)
}

fn entries(packed: &Bytes, entries: &mut Vec<Entry>) -> Result<(), Error> {
    let mut at = 0;
    let count = match take(packed, &mut at, 1)?[0] {
        short @ 0x90..=0x9f => usize::from(short & 0x0f),
        0xdc => big_endian(take(packed, &mut at, 2)?),
        0xdd => big_endian(take(packed, &mut at, 4)?),
        _ => return Err(unexpected("claim")),
    };
    entries.reserve(count.min(packed.len()));
    for _ in 0..count {
        let length = match take(packed, &mut at, 1)?[0] {
            short @ 0xa0..=0xbf => usize::from(short & 0x1f),
            0xd9 | 0xc4 => big_endian(take(packed, &mut at, 1)?),
            0xda | 0xc5 => big_endian(take(packed, &mut at, 2)?),
            0xdb | 0xc6 => big_endian(take(packed, &mut at, 4)?),
            _ => return Err(unexpected("claim")),
        };
        let from = at;
        take(packed, &mut at, length)?;
        entries.push(entry(packed.slice(from..at)));
    }
    Ok(())
}

fn take<'a>(packed: &'a Bytes, at: &mut usize, size: usize) -> Result<&'a [u8], Error> {
    let from = *at;
    *at = from.saturating_add(size);
    packed.get(from..*at).ok_or_else(|| unexpected("claim"))
}

fn big_endian(bytes: &[u8]) -> usize {
    bytes.iter().fold(0, |number, byte| number << 8 | usize::from(*byte))
}

fn entry(stored: Bytes) -> Entry {
    let layout::Opened { record, attempts, strikes } = layout::open(stored);
    Entry { content: content(record), attempts, strikes }
}

/// The message in a record, or the record with the reason why it is none.
pub(crate) fn content(record: Bytes) -> Content {
    match layout::decode(&record) {
        Ok(message) => Content::Message(message),
        Err(reason) => {
            let reason = Text::from(format!("the record is no message: {reason}"));
            Content::Undecodable(Undecodable { id: layout::id_of(&record), bytes: record, reason })
        }
    }
}

/// What a settlement answers: the time, then a letter for each run.
pub(crate) fn settled(value: Value, answers: &mut Vec<Settled>) -> Result<(), Error> {
    let line = text(value, "settle")?;
    if let Some(reason) = line.strip_prefix('!') {
        let words = format!("{reason}; nothing was changed");
        return Err(Error::new(ErrorKind::Rejected, "settle").describe(words).not_applied());
    }
    let mut words = Words { words: line.split(' '), operation: "settle" };
    let at = words.time()?;
    for code in words.word()?.chars() {
        let outcome = match code {
            '1' => Outcome::Applied,
            'A' => Outcome::AlreadyApplied,
            'F' => Outcome::Fenced,
            _ => return Err(unexpected("settle")),
        };
        answers.push(Settled { outcome, at });
    }
    Ok(())
}

/// What a renewal answers: the time, then for each token the new end of its lease, or a letter.
pub(crate) fn renewed(value: Value) -> Result<Vec<Renewed>, Error> {
    let line = text(value, "renew")?;
    let mut words = Words { words: line.split(' '), operation: "renew" };
    let at = words.time()?;
    let mut answers = Vec::new();
    while let Some(word) = words.words.next() {
        answers.push(match word {
            "A" => Renewed { outcome: Outcome::AlreadyApplied, at, lease_until: None },
            "F" => Renewed { outcome: Outcome::Fenced, at, lease_until: None },
            until => {
                let until = Timestamp::from_micros(words.parse(until)?);
                Renewed { outcome: Outcome::Applied, at, lease_until: Some(until) }
            }
        });
    }
    Ok(answers)
}

pub(crate) fn text(value: Value, operation: &'static str) -> Result<String, Error> {
    match value {
        Value::BulkString(bytes) => String::from_utf8(bytes).map_err(|_| unexpected(operation)),
        Value::SimpleString(text) => Ok(text),
        _ => Err(unexpected(operation)),
    }
}

pub(crate) fn unexpected(operation: &'static str) -> Error {
    Error::new(ErrorKind::Unexpected, operation)
        .describe("a script answered something else than it does; do two versions of it share a server?")
}

struct Words<'a> {
    words: std::str::Split<'a, char>,
    operation: &'static str,
}

impl<'a> Words<'a> {
    fn word(&mut self) -> Result<&'a str, Error> {
        self.words.next().ok_or_else(|| unexpected(self.operation))
    }

    fn parse<T: FromStr>(&self, word: &str) -> Result<T, Error> {
        word.parse().map_err(|_| unexpected(self.operation))
    }

    fn number<T: FromStr>(&mut self) -> Result<T, Error> {
        let word = self.word()?;
        self.parse(word)
    }

    fn next_number<T: FromStr>(&mut self) -> Result<Option<T>, Error> {
        self.words.next().map(|word| self.parse(word)).transpose()
    }

    fn time(&mut self) -> Result<Timestamp, Error> {
        self.number().map(Timestamp::from_micros)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn a_claim_without_runs() {
        let head = Value::BulkString(b"17 42 1 2".to_vec());
        let answer = claimed(Value::Array(vec![head]), Nonce::default()).unwrap();
        assert_eq!(answer.now, Timestamp::from_micros(17));
        assert_eq!(answer.next_due, Some(Timestamp::from_micros(42)));
        assert_eq!((answer.buried, answer.suspects, answer.runs.len()), (1, 2, 0));
    }

    #[test]
    fn a_run_whose_records_are_missing_is_an_error() {
        let head = Value::BulkString(b"17 - 0 0 3 9 17 20 2".to_vec());
        let packed = Value::BulkString(b"\x91\xa1x".to_vec());
        let error = claimed(Value::Array(vec![head, packed]), Nonce::default()).unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Unexpected);
    }

    #[test]
    fn settlements_and_renewals() {
        let mut answers = Vec::new();
        settled(Value::BulkString(b"17 1AF".to_vec()), &mut answers).unwrap();
        let outcomes: Vec<_> = answers.iter().map(|answer| answer.outcome).collect();
        assert_eq!(outcomes, [Outcome::Applied, Outcome::AlreadyApplied, Outcome::Fenced]);
        let rejected = settled(Value::BulkString(b"!run 1 has 2".to_vec()), &mut answers).unwrap_err();
        assert_eq!(rejected.kind(), ErrorKind::Rejected);
        let answers = renewed(Value::BulkString(b"17 99 A F".to_vec())).unwrap();
        assert_eq!(answers[0].lease_until, Some(Timestamp::from_micros(99)));
        assert_eq!(answers[2].outcome, Outcome::Fenced);
    }

    proptest! {
        #[test]
        fn whatever_is_answered_never_panics(head in "[-0-9 ]{0,40}", packed: Vec<u8>) {
            let parts = vec![Value::BulkString(head.clone().into_bytes()), Value::BulkString(packed)];
            let _ = claimed(Value::Array(parts), Nonce::default());
            let _ = settled(Value::BulkString(head.clone().into_bytes()), &mut Vec::new());
            let _ = renewed(Value::BulkString(head.into_bytes()));
        }
    }
}
