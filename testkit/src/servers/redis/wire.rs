//! As much of the Redis protocol as starting and steering a server needs, so that the kit depends on no client.

use std::io::{self, BufRead, BufReader, Read, Write as _};
use std::net::{SocketAddr, TcpStream};
use std::time::Duration;

use crate::servers::{ServerError, ServerErrorKind};

/// A paused server accepts a connection and never answers.
const TIMEOUT: Duration = Duration::from_secs(5);

/// Sends one command and reads its reply, after a login if there is a password.
pub(super) fn call(
    address: SocketAddr,
    password: Option<&str>,
    words: &[&str],
) -> Result<String, ServerError> {
    let verb = words.first().copied().unwrap_or_default();
    let silent = |cause: io::Error| {
        let message = format!("redis at {address} does not answer {verb}: {cause}");
        ServerError::new(ServerErrorKind::NotRunning, message)
    };
    let refused =
        |reason: String| ServerError::refused(format!("redis at {address} refuses {verb}: {reason}"));
    let mut connection = Connection::open(address).map_err(silent)?;
    if let Some(password) = password {
        connection.ask(&["AUTH", password]).map_err(silent)?.map_err(refused)?;
    }
    connection.ask(words).map_err(silent)?.map_err(refused)
}

struct Connection(BufReader<TcpStream>);

/// What Redis answered: text, or its error.
type Reply = Result<String, String>;

impl Connection {
    fn open(address: SocketAddr) -> io::Result<Self> {
        let stream = TcpStream::connect_timeout(&address, TIMEOUT)?;
        stream.set_read_timeout(Some(TIMEOUT))?;
        stream.set_write_timeout(Some(TIMEOUT))?;
        Ok(Self(BufReader::new(stream)))
    }

    fn ask(&mut self, words: &[&str]) -> io::Result<Reply> {
        let mut request = format!("*{}\r\n", words.len());
        for word in words {
            request += &format!("${}\r\n{word}\r\n", word.len());
        }
        self.0.get_mut().write_all(request.as_bytes())?;
        self.reply()
    }

    fn reply(&mut self) -> io::Result<Reply> {
        let mut line = String::new();
        if self.0.read_line(&mut line)? == 0 {
            return Err(io::ErrorKind::UnexpectedEof.into());
        }
        let line = line.trim_end();
        // `get` and not an index: the answer may be anything if something else listens there.
        let (sign, rest) = (line.get(..1).unwrap_or_default(), line.get(1..).unwrap_or_default());
        match sign {
            "+" | ":" => Ok(Ok(rest.to_owned())),
            "-" => Ok(Err(rest.to_owned())),
            "$" => self.text(rest).map(Ok),
            "*" => self.array(rest),
            _ => Err(io::Error::new(io::ErrorKind::InvalidData, "this is not Redis")),
        }
    }

    fn text(&mut self, length: &str) -> io::Result<String> {
        // A negative length is nil.
        let Ok(length) = length.parse::<u64>() else { return Ok(String::new()) };
        let mut text = Vec::new();
        self.0.by_ref().take(length).read_to_end(&mut text)?;
        self.0.read_line(&mut String::new())?;
        Ok(String::from_utf8_lossy(&text).into_owned())
    }

    fn array(&mut self, length: &str) -> io::Result<Reply> {
        let mut lines = Vec::new();
        for _ in 0..length.parse::<u32>().unwrap_or(0) {
            match self.reply()? {
                Ok(line) => lines.push(line),
                Err(error) => return Ok(Err(error)),
            }
        }
        Ok(Ok(lines.join("\n")))
    }
}
