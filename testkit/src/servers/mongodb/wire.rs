//! One command on a connection of its own, in the wire protocol's `OP_MSG`: enough to start servers, and no driver.

use std::io::{Read as _, Write as _};
use std::net::{SocketAddr, TcpStream};
use std::time::Duration;

use bson::{Document, doc};

use crate::servers::{ServerError, ServerErrorKind};

const PATIENCE: Duration = Duration::from_secs(30);
const OP_MSG: i32 = 2013;
/// Length, request number, number of the request that is answered, operation: 4 bytes each; then flags, and the kind of
/// the only section.
const HEADER: usize = 21;
const LONGEST: usize = 48 * 1024 * 1024;

/// Runs `command` in the database `admin`.
pub(super) fn call(address: SocketAddr, command: &Document) -> Result<Document, ServerError> {
    let mut command = command.clone();
    if !command.contains_key("$db") {
        command.insert("$db", "admin");
    }
    let answer = exchange(address, &command).map_err(|cause| {
        let words = format!("mongod at {address} does not answer: {cause}");
        ServerError::new(ServerErrorKind::NotRunning, words)
    })?;
    let ok = answer.get("ok").is_some_and(|ok| *ok == bson::Bson::Double(1.0) || *ok == bson::Bson::Int32(1));
    if ok {
        return Ok(answer);
    }
    let name = command.keys().next().cloned().unwrap_or_default();
    let reason = answer.get_str("errmsg").unwrap_or("no reason").to_owned();
    Err(ServerError::refused(format!("mongod at {address} refused `{name}`: {reason}")))
}

fn exchange(address: SocketAddr, command: &Document) -> std::io::Result<Document> {
    let body = command.to_vec().map_err(std::io::Error::other)?;
    let mut stream = TcpStream::connect_timeout(&address, PATIENCE)?;
    stream.set_read_timeout(Some(PATIENCE))?;
    stream.set_write_timeout(Some(PATIENCE))?;
    let length = i32::try_from(HEADER + body.len()).map_err(std::io::Error::other)?;
    let mut message = Vec::with_capacity(HEADER + body.len());
    for number in [length, 1, 0, OP_MSG, 0] {
        message.extend(number.to_le_bytes());
    }
    message.push(0);
    message.extend(body);
    stream.write_all(&message)?;
    let mut header = [0; HEADER];
    stream.read_exact(&mut header)?;
    let length = u32::from_le_bytes([header[0], header[1], header[2], header[3]]) as usize;
    let invalid = || std::io::Error::new(std::io::ErrorKind::InvalidData, "the answer is no OP_MSG");
    let rest = length.checked_sub(HEADER).filter(|rest| *rest < LONGEST).ok_or_else(invalid)?;
    let mut body = vec![0; rest];
    stream.read_exact(&mut body)?;
    Document::from_reader(&body[..]).map_err(std::io::Error::other)
}

/// What the server says of its role.
pub(super) fn hello(address: SocketAddr) -> Result<Document, ServerError> {
    call(address, &doc! { "hello": 1 })
}

/// Whether the server with this very process id answers.
pub(super) fn is_process(address: SocketAddr, process: u32) -> Result<(), String> {
    let status = call(address, &doc! { "serverStatus": 1 }).map_err(|error| error.to_string())?;
    let found = match status.get("pid") {
        Some(bson::Bson::Int64(number)) => *number,
        Some(bson::Bson::Int32(number)) => i64::from(*number),
        _ => 0,
    };
    if found == i64::from(process) { Ok(()) } else { Err(format!("process {found} answers on its port")) }
}

/// Whether it takes writes.
pub(super) fn is_primary(address: SocketAddr) -> Result<(), String> {
    let hello = hello(address).map_err(|error| error.to_string())?;
    if says(&hello, "isWritablePrimary") { Ok(()) } else { Err("it is not the primary yet".to_owned()) }
}

/// Whether it says so of itself.
pub(super) fn says(hello: &Document, fact: &str) -> bool {
    hello.get_bool(fact).unwrap_or(false)
}
