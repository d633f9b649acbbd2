use std::hash::{BuildHasher as _, RandomState};
use std::net::{Ipv4Addr, TcpListener};
use std::sync::{Mutex, PoisonError};

use super::{ServerError, ServerErrorKind};

/// The ports that are given out. They end below the range from which Linux (32768) and macOS (49152) take the ports of
/// outgoing connections. A port of that range can be lost to any client while its server restarts; and a client that
/// reconnects in a loop to a port there can even be connected to itself.
const FIRST: u16 = 10_240;
const END: u16 = 32_768;

/// How many ports one lock covers; the first of them is the lock.
const BLOCK: u16 = 32;
const BLOCKS: u16 = (END - FIRST) / BLOCK;

/// How often a server is started before a taken port is an error.
const STARTS: usize = 5;

/// A block of ports that belongs to this process.
struct Block {
    /// Listening on the block's first port is the lock: the kernel gives it to one process, and frees it when that process ends.
    _lock: TcpListener,
    next: u16,
    end: u16,
}

/// The blocks of this process. They are never given back, so that a port that was named once is never another's.
static BLOCKS_OF_THIS_PROCESS: Mutex<Vec<Block>> = Mutex::new(Vec::new());

/// A port on 127.0.0.1 that nothing listens on and that no other caller of this function is given, in this process or in
/// another, as long as this process lives.
///
/// Asking the system for port 0 and closing it again would not do: a server that is killed and restarted has to find its
/// port unused. A process therefore owns blocks of ports, by listening on the first one of each.
///
/// # Errors
///
/// [`ServerErrorKind::System`], when every port is in use.
pub fn free_port() -> Result<u16, ServerError> {
    let mut blocks = BLOCKS_OF_THIS_PROCESS.lock().unwrap_or_else(PoisonError::into_inner);
    loop {
        if let Some(block) = blocks.last_mut() {
            while block.next < block.end {
                let port = block.next;
                block.next += 1;
                // Something that does not use this function may listen there.
                if listen(port).is_some() {
                    return Ok(port);
                }
            }
        }
        let block = lock_block().ok_or_else(|| {
            ServerError::new(
                ServerErrorKind::System,
                format!("no free port between {FIRST} and {END} on 127.0.0.1: end what listens there"),
            )
        })?;
        blocks.push(block);
    }
}

/// Calls `start`, which chooses ports and starts a server on them, again while something else takes one of them in between.
pub(super) fn on_free_ports<T>(mut start: impl FnMut() -> Result<T, ServerError>) -> Result<T, ServerError> {
    let mut outcome = start();
    for _ in 1..STARTS {
        match &outcome {
            Err(error) if error.kind() == ServerErrorKind::PortTaken => outcome = start(),
            _ => break,
        }
    }
    outcome
}

fn lock_block() -> Option<Block> {
    // Processes that start together begin at different places, so that they seldom try the same block.
    let start = RandomState::new().hash_one(std::process::id()) % u64::from(BLOCKS);
    let start = u16::try_from(start).unwrap_or(0);
    (0..BLOCKS).find_map(|step| {
        let first = FIRST + (start + step) % BLOCKS * BLOCK;
        listen(first).map(|lock| Block { _lock: lock, next: first + 1, end: first + BLOCK })
    })
}

fn listen(port: u16) -> Option<TcpListener> {
    TcpListener::bind((Ipv4Addr::LOCALHOST, port)).ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ports_are_given_once_and_outlast_a_block() {
        let mut ports: Vec<u16> = (0..3 * BLOCK).map(|_| free_port().unwrap()).collect();
        let given = ports.len();
        ports.sort_unstable();
        ports.dedup();
        assert_eq!(ports.len(), given);
        assert!(ports.iter().all(|port| (FIRST..END).contains(port)));
    }
}
