//! A real HTTP server that records what it received, and answers as it is told.

use axum::Router;
use axum::body::{Body, Bytes};
use axum::extract::State;
use axum::http::{HeaderMap, Method, Response, StatusCode};
use pillarbox_core::{Error, Message, Outcomes, Transport as _};
use pillarbox_http::{HEADER_PREFIX, HttpConfig, HttpTransport};
use pillarbox_testkit::servers::free_port;
use pillarbox_testkit::transport::outages::Broker;
use pillarbox_testkit::transport::{BoxError, Received};
use std::net::SocketAddr;
use std::sync::{Arc, Condvar, Mutex, mpsc};
use std::time::Duration;
use tokio::net::TcpListener;
use tokio::runtime::Runtime;

/// A request as it came.
#[derive(Clone, Debug)]
pub(crate) struct Request {
    pub(crate) method: Method,
    pub(crate) path: String,
    pub(crate) headers: HeaderMap,
    pub(crate) body: Bytes,
    /// The status that it was answered with.
    pub(crate) status: StatusCode,
}

type Answer = dyn Fn(&Request) -> Response<Body> + Send + Sync;
type Waits = dyn Fn(&Request) -> bool + Send;

/// What outlives a kill.
pub(crate) struct Log {
    requests: Mutex<Vec<Request>>,
    /// Told of each request.
    came: Condvar,
    answer: Box<Answer>,
    /// Requests that hang are held by it.
    hang: tokio::sync::Semaphore,
    waits: Mutex<Box<Waits>>,
}

/// The server. Killed when it is dropped.
pub(crate) struct Server {
    pub(crate) address: SocketAddr,
    log: Arc<Log>,
    running: Mutex<Option<Runtime>>,
    /// Ends a pause when it is dropped.
    paused: Mutex<Option<mpsc::Sender<()>>>,
}

impl Server {
    /// One that answers 204, and 404 to events of the type `nowhere`.
    pub(crate) fn start() -> Self {
        Self::answering(|request| {
            let nowhere = request.headers.get("ce-type").is_some_and(|topic| topic == "nowhere");
            status(if nowhere { 404 } else { 204 })
        })
    }

    pub(crate) fn answering(answer: impl Fn(&Request) -> Response<Body> + Send + Sync + 'static) -> Self {
        let log = Log {
            requests: Mutex::default(),
            came: Condvar::new(),
            answer: Box::new(answer),
            hang: tokio::sync::Semaphore::new(0),
            waits: Mutex::new(Box::new(|_| false)),
        };
        let log = Arc::new(log);
        let (address, runtime) = serve(log.clone(), None);
        Self { address, log, running: Mutex::new(Some(runtime)), paused: Mutex::default() }
    }

    /// Lets requests hang for which `waits` holds, until [`go_on`](Self::go_on).
    pub(crate) fn hang(&self, waits: impl Fn(&Request) -> bool + Send + 'static) {
        *self.log.waits.lock().unwrap() = Box::new(waits);
    }

    pub(crate) fn go_on(&self) {
        self.hang(|_| false);
        self.log.hang.add_permits(1_000);
    }

    pub(crate) fn url(&self) -> String {
        format!("http://{}/in", self.address)
    }

    pub(crate) fn requests(&self) -> Vec<Request> {
        self.log.requests.lock().unwrap().clone()
    }

    /// Waits until so many requests have come; answers whether they have. Whoever asks for the requests over and over, and copies them
    /// each time, keeps the server from its own list.
    pub(crate) fn have_come(&self, count: usize, patience: Duration) -> bool {
        let requests = self.log.requests.lock().unwrap();
        let waited = self.log.came.wait_timeout_while(requests, patience, |requests| requests.len() < count);
        waited.unwrap().0.len() >= count
    }

    /// The messages that were taken.
    pub(crate) fn received(&self) -> Result<Vec<Received>, BoxError> {
        let requests = self.requests();
        let taken = requests.iter().filter(|one| one.method == Method::POST && one.status.is_success());
        taken.map(read).collect()
    }

    /// Breaks all connections and refuses new ones.
    pub(crate) fn kill(&self) {
        let running = self.running.lock().unwrap().take();
        // Its own thread, since a runtime may not end within another one.
        std::thread::spawn(move || {
            if let Some(runtime) = running {
                runtime.shutdown_timeout(Duration::from_secs(10));
            }
        })
        .join()
        .unwrap();
    }

    /// Stops the only thread that it has: the system still takes connections and bytes for it, and nothing is answered.
    pub(crate) fn pause(&self) {
        let (resume, resumed) = mpsc::channel::<()>();
        let (began, begun) = mpsc::channel();
        let running = self.running.lock().unwrap();
        running.as_ref().unwrap().spawn(async move {
            began.send(()).unwrap();
            // The other end is dropped.
            let _ = resumed.recv();
        });
        begun.recv().unwrap();
        *self.paused.lock().unwrap() = Some(resume);
    }

    pub(crate) fn resume(&self) {
        *self.paused.lock().unwrap() = None;
    }

    /// At the same address, with its memory.
    pub(crate) fn restart(&self) {
        self.kill();
        let (_, runtime) = serve(self.log.clone(), Some(self.address));
        *self.running.lock().unwrap() = Some(runtime);
    }
}

impl Broker for Server {
    fn kill(&self) -> Result<(), BoxError> {
        self.kill();
        Ok(())
    }

    fn restart(&self) -> Result<(), BoxError> {
        self.restart();
        Ok(())
    }

    fn pause(&self) -> Result<(), BoxError> {
        self.pause();
        Ok(())
    }

    fn resume(&self) -> Result<(), BoxError> {
        self.resume();
        Ok(())
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        self.resume();
        self.kill();
    }
}

fn serve(log: Arc<Log>, at: Option<SocketAddr>) -> (SocketAddr, Runtime) {
    std::thread::spawn(move || {
        let runtime =
            tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build().unwrap();
        // No port that the system gives to connections: it has to be free when this one is started again.
        let at = at.unwrap_or_else(|| SocketAddr::from(([127, 0, 0, 1], free_port().unwrap())));
        let listener = runtime.block_on(TcpListener::bind(at)).unwrap();
        let address = listener.local_addr().unwrap();
        let routes = Router::new().fallback(record).with_state(log);
        let routes = routes.layer(axum::extract::DefaultBodyLimit::max(32 * 1024 * 1024));
        runtime.spawn(async move { axum::serve(listener, routes).await });
        (address, runtime)
    })
    .join()
    .unwrap()
}

async fn record(
    State(log): State<Arc<Log>>,
    method: Method,
    uri: axum::http::Uri,
    headers: HeaderMap,
    body: Bytes,
) -> Response<Body> {
    let path = uri.path_and_query().map(ToString::to_string).unwrap_or_default();
    let mut request = Request { method, path, headers, body, status: StatusCode::OK };
    let answer = (log.answer)(&request);
    request.status = answer.status();
    let waits = (log.waits.lock().unwrap())(&request);
    log.requests.lock().unwrap().push(request);
    log.came.notify_all();
    if waits {
        log.hang.acquire().await.unwrap().forget();
    }
    answer
}

pub(crate) fn status(code: u16) -> Response<Body> {
    Response::builder().status(code).body(Body::empty()).unwrap()
}

fn decoded(text: &str) -> String {
    percent_encoding::percent_decode_str(text).decode_utf8().unwrap().into_owned()
}

/// A request as the message that it was.
fn read(request: &Request) -> Result<Received, BoxError> {
    let text = |name: &str| request.headers.get(name).map(|value| decoded(value.to_str().unwrap()));
    let own = ["specversion", "id", "source", "type", "time", "partitionkey"];
    let mut headers = Vec::new();
    for (name, value) in &request.headers {
        let name = match (name.as_str().strip_prefix("ce-"), name.as_str().strip_prefix(HEADER_PREFIX)) {
            (Some(name), _) if !own.contains(&name) => name.to_owned(),
            (_, Some(name)) => decoded(name),
            _ => continue,
        };
        headers.push((name, decoded(value.to_str()?)));
    }
    headers.sort();
    Ok(Received {
        id: text("ce-id").ok_or("no id")?.parse()?,
        topic: text("ce-type").ok_or("no type")?,
        key: text("ce-partitionkey"),
        headers,
        payload: request.body.to_vec(),
        content_type: request.headers.get("content-type").map(|value| value.to_str().unwrap().to_owned()),
    })
}

pub(crate) fn config(server: &Server) -> HttpConfig {
    HttpConfig::from_url(&format!("{}?transport.allow_private=true", server.url())).unwrap()
}

pub(crate) fn transport(server: &Server) -> HttpTransport {
    HttpTransport::new(config(server)).unwrap()
}

pub(crate) fn message(topic: &str, key: Option<&str>, payload: &str) -> Message {
    let message = Message::to(topic.to_owned());
    match key {
        Some(key) => message.key(key.to_owned()).payload(payload.to_owned()).unwrap(),
        None => message.payload(payload.to_owned()).unwrap(),
    }
}

pub(crate) async fn publish(transport: &HttpTransport, batch: &[Message]) -> Outcomes {
    let mut outcomes = Outcomes::new();
    outcomes.reset(batch.len());
    transport.publish(batch, &mut outcomes).await;
    assert!(outcomes.is_complete());
    outcomes
}

/// Publishes one message that fails.
pub(crate) async fn failure(transport: &HttpTransport, message: Message) -> Error {
    publish(transport, &[message]).await.take(0).unwrap().unwrap_err()
}
