//! The part of the S3 protocol that the broker needs of an object store: what it has stored there outlives it.
//!
//! Objects are put whole, on condition that none is there (`If-None-Match: *`) or that it is the one that was read (`If-Match`),
//! read whole, listed by prefix and deleted.

use std::collections::BTreeMap;
use std::fmt::{self, Write as _};
use std::io::{self, BufRead as _, BufReader, Read as _, Write as _};
use std::net::{Ipv4Addr, SocketAddr, TcpListener, TcpStream};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::thread;

use super::super::port::{free_port, on_free_ports};
use super::super::{ServerError, ServerErrorKind};

/// All objects were made at one moment: nothing depends on when.
const MODIFIED: &str = "Thu, 01 Jan 2026 00:00:00 GMT";
const MODIFIED_IN_LISTS: &str = "2026-01-01T00:00:00.000Z";

/// The largest object that is taken: far more than a batch of records.
const LARGEST: usize = 256 << 20;

/// Objects in memory, behind a port on 127.0.0.1. Dropping it ends its threads as soon as their connections end.
pub(super) struct ObjectStore {
    address: SocketAddr,
    shared: Arc<Shared>,
}

#[derive(Default)]
struct Shared {
    objects: Mutex<Objects>,
    has_ended: AtomicBool,
}

#[derive(Default)]
struct Objects {
    by_key: BTreeMap<String, Object>,
    made: u64,
}

#[derive(Clone)]
struct Object {
    tag: String,
    content: Arc<[u8]>,
}

impl ObjectStore {
    pub(super) fn start() -> Result<Self, ServerError> {
        let (listener, address) = on_free_ports(|| {
            let address = SocketAddr::from((Ipv4Addr::LOCALHOST, free_port()?));
            TcpListener::bind(address).map(|listener| (listener, address)).map_err(|cause| {
                let message = format!("the object store cannot listen on {address}: {cause}");
                ServerError::new(ServerErrorKind::PortTaken, message)
            })
        })?;
        let store = Self { address, shared: Arc::default() };
        let shared = store.shared.clone();
        thread::spawn(move || accept(&listener, &shared));
        Ok(store)
    }

    pub(super) fn address(&self) -> SocketAddr {
        self.address
    }
}

impl Drop for ObjectStore {
    fn drop(&mut self) {
        self.shared.has_ended.store(true, Ordering::Release);
        // Wakes the thread that accepts. If it fails, that one is awake.
        let _ = TcpStream::connect(self.address);
    }
}

impl fmt::Debug for ObjectStore {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        let count = self.shared.lock().by_key.len();
        formatter.debug_struct("ObjectStore").field("objects", &count).finish_non_exhaustive()
    }
}

impl Shared {
    fn lock(&self) -> MutexGuard<'_, Objects> {
        self.objects.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

fn accept(listener: &TcpListener, shared: &Arc<Shared>) {
    for stream in listener.incoming() {
        if shared.has_ended.load(Ordering::Acquire) {
            return;
        }
        let Ok(stream) = stream else { continue };
        let shared = shared.clone();
        // A connection that breaks is the end of its thread: the broker was killed.
        thread::spawn(move || drop(serve(stream, &shared)));
    }
}

struct Request {
    method: String,
    path: String,
    query: BTreeMap<String, String>,
    headers: BTreeMap<String, String>,
    body: Vec<u8>,
}

struct Answer {
    status: &'static str,
    tag: Option<String>,
    body: Arc<[u8]>,
}

impl Answer {
    fn empty(status: &'static str) -> Self {
        Self { status, tag: None, body: Arc::default() }
    }

    fn failure(status: &'static str, code: &str) -> Self {
        Self {
            body: format!("<Error><Code>{code}</Code></Error>").into_bytes().into(),
            ..Self::empty(status)
        }
    }
}

fn serve(stream: TcpStream, shared: &Shared) -> io::Result<()> {
    stream.set_nodelay(true)?;
    let mut writer = stream.try_clone()?;
    let mut reader = BufReader::new(stream);
    while let Some(request) = read(&mut reader)? {
        let answer = answer(&request, shared);
        let mut head = format!("HTTP/1.1 {}\r\nLast-Modified: {MODIFIED}\r\n", answer.status);
        if let Some(tag) = &answer.tag {
            let _ = write!(head, "ETag: {tag}\r\n");
        }
        let _ = write!(head, "Content-Length: {}\r\n\r\n", answer.body.len());
        let mut whole = head.into_bytes();
        if request.method != "HEAD" {
            whole.extend_from_slice(&answer.body);
        }
        writer.write_all(&whole)?;
    }
    Ok(())
}

/// The next request; `None` at the end of the connection.
fn read(reader: &mut BufReader<TcpStream>) -> io::Result<Option<Request>> {
    let mut line = String::new();
    if reader.read_line(&mut line)? == 0 {
        return Ok(None);
    }
    let malformed = || io::Error::from(io::ErrorKind::InvalidData);
    let mut words = line.split_whitespace();
    let (method, target) = (words.next().ok_or_else(malformed)?, words.next().ok_or_else(malformed)?);
    let (path, query) = target.split_once('?').unwrap_or((target, ""));
    let query = query.split('&').map(|pair| pair.split_once('=').unwrap_or((pair, "")));
    let mut request = Request {
        method: method.to_owned(),
        path: decoded(path),
        query: query.map(|(name, value)| (decoded(name), decoded(value))).collect(),
        headers: BTreeMap::new(),
        body: Vec::new(),
    };
    loop {
        let mut line = String::new();
        reader.read_line(&mut line)?;
        let Some((name, value)) = line.split_once(':') else { break };
        request.headers.insert(name.to_ascii_lowercase(), value.trim().to_owned());
    }
    let length = request.headers.get("content-length").map_or(Ok(0), |length| length.parse());
    let length: usize = length.map_err(|_| malformed())?;
    if length > LARGEST {
        return Err(malformed());
    }
    request.body.resize(length, 0);
    reader.read_exact(&mut request.body)?;
    Ok(Some(request))
}

fn answer(request: &Request, shared: &Shared) -> Answer {
    let mut objects = shared.lock();
    // The first part of the path is the bucket.
    let key = request.path.trim_start_matches('/').split_once('/').map_or("", |(_, key)| key);
    match request.method.as_str() {
        "GET" if key.is_empty() => list(request, &objects),
        "GET" | "HEAD" => {
            let Some(object) = objects.by_key.get(key) else {
                return Answer::failure("404 Not Found", "NoSuchKey");
            };
            let tag = Some(object.tag.clone());
            if request.headers.get("if-none-match") == tag.as_ref() {
                return Answer { tag, ..Answer::empty("304 Not Modified") };
            }
            Answer { status: "200 OK", tag, body: object.content.clone() }
        }
        "PUT" => {
            let present = objects.by_key.get(key).map(|object| object.tag.as_str());
            let header = |name: &str| request.headers.get(name).map(String::as_str);
            let is_other = header("if-match").is_some_and(|expected| present != Some(expected));
            if is_other || (header("if-none-match") == Some("*") && present.is_some()) {
                return Answer::failure("412 Precondition Failed", "PreconditionFailed");
            }
            objects.made += 1;
            let tag = format!("\"{:032x}\"", objects.made);
            let object = Object { tag: tag.clone(), content: request.body.clone().into() };
            objects.by_key.insert(key.to_owned(), object);
            Answer { tag: Some(tag), ..Answer::empty("200 OK") }
        }
        "DELETE" => {
            objects.by_key.remove(key);
            Answer::empty("204 No Content")
        }
        "POST" if request.query.contains_key("delete") => {
            let asked = String::from_utf8_lossy(&request.body);
            let mut body = String::from("<DeleteResult>");
            for key in asked.split("<Key>").skip(1).filter_map(|rest| rest.split("</Key>").next()) {
                objects.by_key.remove(key);
                let _ = write!(body, "<Deleted><Key>{key}</Key></Deleted>");
            }
            body.push_str("</DeleteResult>");
            Answer { body: body.into_bytes().into(), ..Answer::empty("200 OK") }
        }
        _ => Answer::failure("501 Not Implemented", "NotImplemented"),
    }
}

/// All in one page. Keys are the broker's own, and need no escape in XML.
fn list(request: &Request, objects: &Objects) -> Answer {
    let text = |name: &str| request.query.get(name).map_or("", String::as_str);
    let (prefix, delimiter) = (text("prefix"), text("delimiter"));
    let mut body = String::from("<ListBucketResult><IsTruncated>false</IsTruncated>");
    let mut last_folder = None;
    for (key, object) in objects.by_key.range(prefix.to_owned()..) {
        let Some(rest) = key.strip_prefix(prefix) else { break };
        if let Some((folder, _)) = rest.split_once(delimiter).filter(|_| !delimiter.is_empty()) {
            let folder = format!("{prefix}{folder}{delimiter}");
            if last_folder.as_ref() != Some(&folder) {
                let _ = write!(body, "<CommonPrefixes><Prefix>{folder}</Prefix></CommonPrefixes>");
                last_folder = Some(folder);
            }
            continue;
        }
        let (tag, size) = (&object.tag, object.content.len());
        let _ = write!(
            body,
            "<Contents><Key>{key}</Key><LastModified>{MODIFIED_IN_LISTS}</LastModified><ETag>{tag}</ETag><Size>{size}</Size></Contents>"
        );
    }
    body.push_str("</ListBucketResult>");
    Answer { body: body.into_bytes().into(), ..Answer::empty("200 OK") }
}

/// Percent-decoded.
fn decoded(text: &str) -> String {
    let mut bytes = Vec::with_capacity(text.len());
    let mut rest = text.as_bytes();
    while let [first, behind @ ..] = rest {
        let number = behind.get(..2).and_then(|digits| std::str::from_utf8(digits).ok());
        match number.and_then(|digits| u8::from_str_radix(digits, 16).ok()).filter(|_| *first == b'%') {
            Some(byte) => {
                bytes.push(byte);
                rest = &behind[2..];
            }
            None => {
                bytes.push(*first);
                rest = behind;
            }
        }
    }
    String::from_utf8_lossy(&bytes).into_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn request(method: &str, target: &str, headers: &[(&str, &str)], body: &str) -> Request {
        let (path, query) = target.split_once('?').unwrap_or((target, ""));
        let query = query.split('&').map(|pair| pair.split_once('=').unwrap_or((pair, "")));
        Request {
            method: method.to_owned(),
            path: path.to_owned(),
            query: query.map(|(name, value)| (name.to_owned(), value.to_owned())).collect(),
            headers: headers.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned())).collect(),
            body: body.as_bytes().to_vec(),
        }
    }

    #[test]
    fn objects_are_put_on_condition() {
        let shared = Shared::default();
        let put = |headers: &[(&str, &str)]| answer(&request("PUT", "/b/a/1", headers, "x"), &shared);
        let first = put(&[("if-none-match", "*")]).tag.unwrap();
        assert!(put(&[("if-none-match", "*")]).status.starts_with("412"));
        let second = put(&[("if-match", &first)]).tag.unwrap();
        assert!(put(&[("if-match", &first)]).status.starts_with("412"));
        let read = answer(&request("GET", "/b/a/1", &[], ""), &shared);
        assert_eq!((read.tag.as_ref(), &*read.body), (Some(&second), &b"x"[..]));
        let unchanged = answer(&request("GET", "/b/a/1", &[("if-none-match", &second)], ""), &shared);
        assert!(unchanged.status.starts_with("304"));
        assert!(answer(&request("GET", "/b/a/2", &[], ""), &shared).status.starts_with("404"));
    }

    #[test]
    fn objects_are_listed_and_deleted() {
        let shared = Shared::default();
        for key in ["/b/a/1", "/b/a/2", "/b/a/c/1", "/b/a/c/2", "/b/b"] {
            answer(&request("PUT", key, &[], "x"), &shared);
        }
        let listed = |target: &str| {
            let answer = answer(&request("GET", target, &[], ""), &shared);
            String::from_utf8(answer.body.to_vec()).unwrap()
        };
        let folder = listed("/b?list-type=2&prefix=a/&delimiter=/");
        assert_eq!(folder.matches("<Key>").count(), 2);
        assert_eq!(folder.matches("<Prefix>a/c/</Prefix>").count(), 1);
        let body = "<Delete><Object><Key>a/1</Key></Object><Object><Key>a/c/1</Key></Object></Delete>";
        answer(&request("POST", "/b?delete", &[], body), &shared);
        answer(&request("DELETE", "/b/b", &[], ""), &shared);
        assert_eq!(listed("/b?list-type=2&prefix=").matches("<Key>").count(), 2);
    }

    #[test]
    fn keys_are_decoded() {
        assert_eq!(decoded("a%2Fb%3d%"), "a/b=%");
    }
}
