//! The threads of a proxy: one accepts; each connection has two for each direction, because one has to go on reading
//! while the other holds chunks back.

use std::io::{self, Read as _, Write as _};
use std::net::{Shutdown, TcpListener, TcpStream};
use std::sync::Arc;
use std::sync::mpsc::{Receiver, SyncSender, sync_channel};
use std::thread;
use std::time::{Duration, Instant};

use super::state::{Direction, Shared};

const CHUNK: usize = 16 * 1024;

/// Chunks on the way in one direction. What is beyond stays in the sender's socket, which feels it as a slow network.
const CHUNKS: usize = 256;

const CONNECT_TIMEOUT: Duration = Duration::from_secs(5);

type Chunk = (Instant, Vec<u8>);

/// Accepts until the proxy refuses. The listener is dropped with this thread.
pub(super) fn accept(listener: &TcpListener, shared: &Arc<Shared>) {
    while shared.is_listening() {
        let Ok((client, _)) = listener.accept() else {
            // The process has no file descriptor left, most likely. Others will be closed.
            thread::sleep(Duration::from_millis(10));
            continue;
        };
        let shared = Arc::clone(shared);
        thread::spawn(move || connection(&shared, client));
    }
}

fn connection(shared: &Arc<Shared>, client: TcpStream) {
    let Some(number) = client.try_clone().ok().and_then(|client| shared.admit(client)) else { return };
    // Any error ends the connection, as in a network.
    let _ = forward(shared, number, client);
    shared.end(number);
}

fn forward(shared: &Arc<Shared>, number: u64, client: TcpStream) -> io::Result<()> {
    // While nothing is forwarded the server does not see the connection either.
    if !shared.wait_for_passage(number, Direction::Requests, Instant::now()) {
        return Ok(());
    }
    let server = TcpStream::connect_timeout(&shared.target, CONNECT_TIMEOUT)?;
    // The proxy adds no delay of its own.
    client.set_nodelay(true)?;
    server.set_nodelay(true)?;
    if !shared.join(number, server.try_clone()?) {
        return Ok(());
    }
    let (requests_from, requests_to) = (client.try_clone()?, server.try_clone()?);
    let other = Arc::clone(shared);
    let requests =
        thread::spawn(move || carry(&other, number, Direction::Requests, requests_from, requests_to));
    carry(shared, number, Direction::Replies, server, client);
    // It does not panic, and if it did, this connection would end all the same.
    let _ = requests.join();
    Ok(())
}

/// Carries one direction until its end. The other direction goes on: a client may close its half and wait for replies.
fn carry(shared: &Arc<Shared>, number: u64, direction: Direction, from: TcpStream, to: TcpStream) {
    let (sender, receiver) = sync_channel(CHUNKS);
    let reader = thread::spawn(move || read(from, &sender));
    if write(shared, number, direction, to, &receiver).is_err() {
        // Nobody takes these bytes any more, so the side that sends them is told.
        shared.end(number);
    }
    drop(receiver);
    let _ = reader.join();
}

fn read(mut from: TcpStream, sender: &SyncSender<Chunk>) {
    let mut buffer = vec![0; CHUNK];
    // An error is an end, too: the connection was reset or cut.
    while let Ok(length @ 1..) = from.read(&mut buffer) {
        if sender.send((Instant::now(), buffer[..length].to_vec())).is_err() {
            return;
        }
    }
}

fn write(
    shared: &Shared,
    number: u64,
    direction: Direction,
    mut to: TcpStream,
    receiver: &Receiver<Chunk>,
) -> io::Result<()> {
    while let Ok((arrival, bytes)) = receiver.recv() {
        if !shared.wait_for_passage(number, direction, arrival) {
            return Ok(());
        }
        to.write_all(&bytes)?;
        shared.count(direction, bytes.len());
    }
    // The end is held back like the bytes before it.
    if shared.wait_for_passage(number, direction, Instant::now()) {
        to.shutdown(Shutdown::Write)?;
    }
    Ok(())
}
