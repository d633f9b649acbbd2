//! How a batch is cut into requests.

use pillarbox_core::Message;
use std::collections::HashMap;

/// Messages that are sent as one: one, or several of one key, by their places in the batch.
pub(crate) type Unit = Vec<usize>;

/// Requests that are sent one after the other, each only if the one before succeeded. Several lanes are sent side by side.
pub(crate) struct Lane {
    /// Each is one pipeline.
    pub(crate) requests: Vec<Vec<Unit>>,
}

/// A pipeline holds at most so many messages: enough that a round trip is nothing beside them, and few enough that a publish which
/// is cut off knows of most what has become of it.
const MESSAGES: usize = 64;
/// One of a single key holds more, since its pipelines wait for each other.
const OF_ONE_KEY: usize = 256;
/// And each at most about so many bytes of payload, so that the server attends to others in between.
const BYTES: usize = 1024 * 1024;

/// Cuts a batch. Messages of one key stay together and in order; where they are too many for one request they become a lane of
/// their own.
pub(crate) fn plan(batch: &[Message]) -> Vec<Lane> {
    let mut lanes = Vec::new();
    let mut open = Request::default();
    for unit in units(batch) {
        let messages = unit.len();
        let bytes = unit.iter().map(|&index| batch[index].payload().len()).sum::<usize>();
        if messages > 1 && (messages > MESSAGES || bytes > BYTES) {
            lanes.push(Lane { requests: in_parts(batch, &unit) });
            continue;
        }
        if open.is_full_with(messages, bytes) {
            lanes.push(std::mem::take(&mut open).into_lane());
        }
        open.add(unit, messages, bytes);
    }
    if open.messages > 0 {
        lanes.push(open.into_lane());
    }
    lanes
}

fn units(batch: &[Message]) -> Vec<Unit> {
    let mut of_key: HashMap<&str, usize> = HashMap::new();
    let mut units: Vec<Unit> = Vec::with_capacity(batch.len());
    for (index, message) in batch.iter().enumerate() {
        let place = match message.key() {
            Some(key) => *of_key.entry(&**key).or_insert(units.len()),
            None => units.len(),
        };
        match units.get_mut(place) {
            Some(unit) => unit.push(index),
            None => units.push(vec![index]),
        }
    }
    units
}

fn in_parts(batch: &[Message], unit: &[usize]) -> Vec<Vec<Unit>> {
    let mut parts: Vec<Vec<Unit>> = Vec::new();
    let (mut part, mut bytes) = (Unit::new(), 0);
    for &index in unit {
        let more = batch[index].payload().len();
        if part.len() == OF_ONE_KEY || (!part.is_empty() && bytes + more > BYTES) {
            parts.push(vec![std::mem::take(&mut part)]);
            bytes = 0;
        }
        part.push(index);
        bytes += more;
    }
    parts.push(vec![part]);
    parts
}

#[derive(Default)]
struct Request {
    units: Vec<Unit>,
    messages: usize,
    bytes: usize,
}

impl Request {
    fn is_full_with(&self, messages: usize, bytes: usize) -> bool {
        self.messages > 0 && (self.messages + messages > MESSAGES || self.bytes + bytes > BYTES)
    }

    fn add(&mut self, unit: Unit, messages: usize, bytes: usize) {
        self.units.push(unit);
        self.messages += messages;
        self.bytes += bytes;
    }

    fn into_lane(self) -> Lane {
        Lane { requests: vec![self.units] }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use pillarbox_core::{MessageId, Timestamp};

    fn message(key: Option<&str>, bytes: usize) -> Message {
        let message = Message::given(MessageId::from_bytes([1; 16]), Timestamp::EPOCH, "t");
        match key {
            Some(key) => message.key(key.to_owned()).payload(vec![0; bytes]).unwrap(),
            None => message.payload(vec![0; bytes]).unwrap(),
        }
    }

    fn shape(batch: &[Message]) -> Vec<Vec<Vec<Unit>>> {
        plan(batch).into_iter().map(|lane| lane.requests).collect()
    }

    #[test]
    fn a_key_stays_together() {
        let keys = [Some("a"), None, Some("b"), Some("a"), None, Some("a")];
        let batch: Vec<_> = keys.into_iter().map(|key| message(key, 1)).collect();
        assert_eq!(shape(&batch), [[[vec![0, 3, 5], vec![1], vec![2], vec![4]]]]);
        assert!(plan(&[]).is_empty());
    }

    #[test]
    fn requests_are_bounded() {
        let many: Vec<_> = (0..130).map(|_| message(None, 1)).collect();
        let sizes: Vec<_> = shape(&many).iter().map(|lane| lane[0].len()).collect();
        assert_eq!(sizes, [64, 64, 2]);
        let large: Vec<_> = (0..3).map(|_| message(None, BYTES)).collect();
        assert_eq!(shape(&large).len(), 3);
    }

    #[test]
    fn a_key_that_is_too_much_for_a_request_goes_in_parts_one_after_the_other() {
        let mut batch: Vec<_> = (0..600).map(|_| message(Some("a"), 1)).collect();
        batch.push(message(None, 1));
        let shape = shape(&batch);
        let sizes: Vec<_> = shape[0].iter().map(|request| request[0].len()).collect();
        assert_eq!((shape.len(), sizes), (2, vec![256, 256, 88]));
        let large: Vec<_> = (0..3).map(|_| message(Some("a"), BYTES / 2 + 1)).collect();
        assert_eq!(plan(&large)[0].requests.len(), 3);
    }
}
