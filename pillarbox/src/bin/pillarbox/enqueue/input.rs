use super::line;
use crate::failure::Failure;
use pillarbox::Message;
use std::io::{self, BufRead, BufReader, Read as _};
use tokio::sync::mpsc;

/// One line: a message, or why it is none.
pub(super) enum Item {
    Message(Message),
    Bad(String),
}

/// Lines with their numbers, from 1.
pub(super) type Batch = Vec<(u64, Item)>;

/// How many messages are stored at once: more gains nothing and holds the store up longer.
const LINES: usize = 500;
/// How many bytes of input make a batch at most, so that large messages do not fill the memory.
const BYTES: usize = 4 * 1024 * 1024;
/// The longest line: 15 MiB of payload, every byte of it escaped by six, would be 90.
const LONGEST: u64 = 96 * 1024 * 1024;

/// Reads and parses standard input on a thread of its own, a few batches ahead of what is stored. Without `keep_going` it ends
/// after the first bad line.
pub(super) fn read(keep_going: bool) -> mpsc::Receiver<Result<Batch, Failure>> {
    let (sender, receiver) = mpsc::channel(4);
    std::thread::spawn(move || {
        let mut input = BufReader::with_capacity(256 * 1024, io::stdin().lock());
        let mut number = 0;
        loop {
            let batch = batch(&mut input, &mut number, keep_going);
            let is_last = match &batch {
                Ok(batch) if batch.is_empty() => return,
                Ok(batch) => !keep_going && batch.iter().any(|(_, item)| matches!(item, Item::Bad(_))),
                Err(_) => true,
            };
            let batch = batch.map_err(|error| Failure::system("read standard input", &error));
            // Nobody listens any more: the run has ended with its own word.
            if sender.blocking_send(batch).is_err() || is_last {
                return;
            }
        }
    });
    receiver
}

/// The next lines; empty at the end. A batch ends early where the input has no more at the moment, so that what a slow program
/// writes is stored at once.
fn batch(input: &mut BufReader<impl io::Read>, number: &mut u64, keep_going: bool) -> io::Result<Batch> {
    let (mut batch, mut text, mut size) = (Batch::new(), Vec::new(), 0);
    while batch.len() < LINES && size < BYTES {
        if !batch.is_empty() && !input.buffer().contains(&b'\n') {
            break;
        }
        text.clear();
        let Some(is_whole) = next_line(input, &mut text)? else { break };
        *number += 1;
        size += text.len();
        let item = if !is_whole {
            Item::Bad(format!("it has more than {LONGEST} bytes"))
        } else if text.trim_ascii().is_empty() {
            continue;
        } else {
            line::parse(&text).map_or_else(Item::Bad, Item::Message)
        };
        let is_bad = matches!(item, Item::Bad(_));
        batch.push((*number, item));
        if is_bad && !keep_going {
            break;
        }
    }
    Ok(batch)
}

/// Reads a line into `text`: `None` at the end of the input, `false` for one that is too long, which is skipped.
fn next_line(input: &mut impl BufRead, text: &mut Vec<u8>) -> io::Result<Option<bool>> {
    if input.by_ref().take(LONGEST).read_until(b'\n', text)? == 0 {
        return Ok(None);
    }
    if text.last() == Some(&b'\n') || (text.len() as u64) < LONGEST {
        return Ok(Some(true));
    }
    text.clear();
    input.skip_until(b'\n')?;
    Ok(Some(false))
}
