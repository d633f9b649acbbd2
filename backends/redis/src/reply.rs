//! Reads the scripts' answers.

use crate::layout;
use bytes::Bytes;
use pillarbox_core::{
    Claimed, Content, Entry, Error, ErrorKind, Nonce, Outcome, Renewed, Run, Settled, Text, Timestamp, Token,
    Undecodable,
};
use redis::Value;
use std::str::FromStr;

/// What a claim answers: a line of numbers, and the records in one MessagePack array, which costs one allocation for all. Those of
/// long runs are left to be read from their lanes.
pub(crate) struct Claiming {
    claimed: Claimed,
    /// Which of the runs are to be read, in their order.
    unread: Vec<bool>,
}

pub(crate) fn claiming(value: Value, nonce: Nonce) -> Result<Claiming, Error> {
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
    let mut unread = Vec::new();
    let mut start = 0_u32;
    while let Some(unit) = words.next_number()? {
        let token = Token { unit, fence: words.number()?, nonce };
        let (claimed_at, lease_until, len) = (words.time()?, words.time()?, words.number()?);
        unread.push(words.number::<u8>()? == 0);
        claimed.runs.push(Run { token, claimed_at, lease_until, start, len });
        if unread.last() == Some(&false) {
            start = start.checked_add(len).ok_or_else(|| unexpected("claim"))?;
        }
    }
    if claimed.entries.len() != start as usize {
        return Err(unexpected("claim"));
    }
    Ok(Claiming { claimed, unread })
}

impl Claiming {
    /// The runs that are to be read.
    pub(crate) fn unread(&self) -> impl Iterator<Item = &Run> {
        self.claimed.runs.iter().zip(&self.unread).filter_map(|(run, unread)| unread.then_some(run))
    }

    /// The claim, with what was read: the records of each run in turn, then who holds their lanes. A run that was lost meanwhile is
    /// left out.
    pub(crate) fn with(self, mut lists: Vec<Value>) -> Result<Claimed, Error> {
        let Some(Value::Array(holders)) = lists.pop() else { return Err(unexpected("claim")) };
        let Self { mut claimed, unread } = self;
        let mut read = lists.into_iter().zip(holders);
        let mut answered = std::mem::take(&mut claimed.entries).into_iter();
        let runs = std::mem::take(&mut claimed.runs);
        for (mut run, unread) in runs.into_iter().zip(unread) {
            run.start = u32::try_from(claimed.entries.len()).unwrap_or(u32::MAX);
            if !unread {
                claimed.entries.extend(answered.by_ref().take(run.len as usize));
                claimed.runs.push(run);
                continue;
            }
            let Some((Value::Array(records), holder)) = read.next() else { return Err(unexpected("claim")) };
            if !held(&holder, run.token.nonce) || records.len() != run.len as usize {
                // Its lease ran out before it was read, and somebody else took it.
                claimed.next_due = Some(claimed.now);
                continue;
            }
            for record in records {
                let Value::BulkString(record) = record else { return Err(unexpected("claim")) };
                claimed.entries.push(entry(record.into()));
            }
            claimed.runs.push(run);
        }
        Ok(claimed)
    }

    /// The claim, if nothing of it is to be read.
    pub(crate) fn read(self) -> Result<Claimed, Self> {
        if self.unread.contains(&true) { Err(self) } else { Ok(self.claimed) }
    }
}

/// Whether the stored state of a lane names this nonce, which stands in front.
fn held(state: &Value, nonce: Nonce) -> bool {
    matches!(state, Value::BulkString(state) if state.starts_with(nonce.as_bytes()))
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

    fn claim(head: &str, packed: &[u8]) -> Result<Claiming, Error> {
        let parts = [head.as_bytes(), packed].map(|part| Value::BulkString(part.to_vec()));
        claiming(Value::Array(parts.to_vec()), Nonce::from_words(1, 2))
    }

    #[test]
    fn a_claim_without_runs() {
        let head = Value::BulkString(b"17 42 1 2".to_vec());
        let claiming = claiming(Value::Array(vec![head]), Nonce::default()).unwrap();
        let answer = claiming.read().ok().unwrap();
        assert_eq!(answer.now, Timestamp::from_micros(17));
        assert_eq!(answer.next_due, Some(Timestamp::from_micros(42)));
        assert_eq!((answer.buried, answer.suspects, answer.runs.len()), (1, 2, 0));
    }

    #[test]
    fn a_run_whose_records_are_missing_is_an_error() {
        let error = claim("17 - 0 0 3 9 17 20 2 1", b"\x91\xa1x").err().unwrap();
        assert_eq!(error.kind(), ErrorKind::Unexpected);
    }

    /// Of three runs the first and the last are read from their lanes, and the one between is in the answer.
    fn partly_read(first_holder: Nonce, last_records: usize) -> Claimed {
        let answer = claim("17 - 0 0 3 7 17 20 2 0 4 8 17 20 1 1 5 9 17 20 2 0", b"\x91\xa1b").unwrap();
        assert_eq!(answer.unread().map(|run| run.token.unit).collect::<Vec<_>>(), [3, 5]);
        let list = |text: &[u8], count| Value::Array(vec![Value::BulkString(text.to_vec()); count]);
        let state = |nonce: Nonce| Value::BulkString([nonce.as_bytes(), &b"more"[..]].concat());
        let holders = Value::Array(vec![state(first_holder), state(Nonce::from_words(1, 2))]);
        let Err(answer) = answer.read() else { panic!() };
        answer.with(vec![list(b"a", 2), list(b"c", last_records), holders]).unwrap()
    }

    fn stored(claimed: &Claimed, run: usize) -> Vec<&[u8]> {
        let entries = claimed.entries_of(&claimed.runs[run]).iter();
        let bytes = entries.map(|entry| match &entry.content {
            Content::Undecodable(undecodable) => &undecodable.bytes[..],
            Content::Message(_) => panic!(),
        });
        bytes.collect()
    }

    #[test]
    fn runs_that_are_read_stand_in_their_places() {
        let claimed = partly_read(Nonce::from_words(1, 2), 2);
        assert_eq!(claimed.runs.len(), 3);
        let all = [0, 1, 2].map(|run| stored(&claimed, run));
        assert_eq!(all, [vec![&b"a"[..]; 2], vec![b"b"], vec![b"c"; 2]]);
        assert_eq!(claimed.next_due, None);
    }

    #[test]
    fn a_run_that_was_lost_before_it_was_read_is_left_out() {
        for (claimed, units) in [
            (partly_read(Nonce::from_words(1, 3), 2), [4, 5]),
            (partly_read(Nonce::from_words(1, 2), 1), [3, 4]),
        ] {
            assert_eq!(claimed.runs.iter().map(|run| run.token.unit).collect::<Vec<_>>(), units);
            assert_eq!(claimed.entries.len(), 3);
            assert_eq!(stored(&claimed, usize::from(units[0] == 3)), [b"b"]);
            assert_eq!(claimed.next_due, Some(claimed.now), "somebody else has it, or it is there again");
        }
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
            if let Ok(Err(claiming)) = claiming(Value::Array(parts), Nonce::default()).map(Claiming::read) {
                let _ = claiming.with(vec![Value::Array(Vec::new())]);
            }
            let _ = settled(Value::BulkString(head.clone().into_bytes()), &mut Vec::new());
            let _ = renewed(Value::BulkString(head.into_bytes()));
        }
    }
}
