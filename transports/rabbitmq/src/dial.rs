//! One attempt to connect, which leaves nothing behind when it is given up.

use crate::RabbitMqConfig;
use crate::connection::Live;
use crate::error::{Operation, describe};
use futures_util::future::BoxFuture;
use lapin::options::ExchangeDeclareOptions;
use lapin::runtime::default_runtime;
use lapin::tcp::TLSConfig;
use lapin::types::FieldTable;
use lapin::uri::{AMQPScheme, AMQPUri};
use lapin::{AsyncTcpStream, Connection, ConnectionProperties};
use pillarbox_core::Error;
use std::io;
use std::net::{Shutdown, TcpStream};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;
use tokio::time::{Instant, timeout};

pub(crate) struct Attempt {
    began: Instant,
    connecting: BoxFuture<'static, Result<Live, Error>>,
    socket: Arc<Socket>,
}

impl Attempt {
    pub(crate) fn begin(config: Arc<RabbitMqConfig>) -> Self {
        let socket = Arc::new(Socket::default());
        let connecting = Box::pin(connect(config, Arc::clone(&socket)));
        Self { began: Instant::now(), connecting, socket }
    }

    pub(crate) fn age(&self) -> Duration {
        self.began.elapsed()
    }

    /// Not to be called again once it has answered.
    pub(crate) async fn end(&mut self) -> Result<Live, Error> {
        (&mut self.connecting).await
    }
}

impl Drop for Attempt {
    fn drop(&mut self) {
        self.socket.shut();
    }
}

/// The socket of a connection that is not made yet. The client has a thread for each connection, which waits for the broker's
/// greeting however long that takes, also when nobody waits for the connection any more.
#[derive(Default)]
struct Socket(Mutex<State>);

#[derive(Default)]
enum State {
    #[default]
    Closed,
    Open(TcpStream),
    /// Somebody has the connection, or nobody wants it.
    Ended,
}

impl Socket {
    /// Remembers the socket below a stream. An error if nobody wants it any more.
    fn keep(&self, stream: &impl Duplicate) -> io::Result<()> {
        let mut state = self.lock();
        if matches!(*state, State::Ended) {
            return Err(io::ErrorKind::ConnectionAborted.into());
        }
        *state = State::Open(stream.duplicate()?);
        Ok(())
    }

    /// The connection is made, and now has its own ways to end.
    fn release(&self) {
        *self.lock() = State::Ended;
    }

    fn shut(&self) {
        let state = std::mem::replace(&mut *self.lock(), State::Ended);
        if let State::Open(socket) = state {
            // Fails only if the other side was faster.
            let _ = socket.shutdown(Shutdown::Both);
        }
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        // It is replaced as a whole, so it is whole after a panic too.
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// A second handle to the same socket.
trait Duplicate {
    fn duplicate(&self) -> io::Result<TcpStream>;
}

#[cfg(unix)]
impl<S: std::os::fd::AsFd> Duplicate for S {
    fn duplicate(&self) -> io::Result<TcpStream> {
        self.as_fd().try_clone_to_owned().map(TcpStream::from)
    }
}

#[cfg(windows)]
impl<S: std::os::windows::io::AsSocket> Duplicate for S {
    fn duplicate(&self) -> io::Result<TcpStream> {
        self.as_socket().try_clone_to_owned().map(TcpStream::from)
    }
}

async fn connect(config: Arc<RabbitMqConfig>, socket: Arc<Socket>) -> Result<Live, Error> {
    let made = async {
        let properties = ConnectionProperties::default().with_connection_name("pillarbox".into());
        let runtime = default_runtime()?;
        let (patience, dialled, reactor) = (config.connect_timeout, Arc::clone(&socket), runtime.clone());
        let dial = async move |uri: AMQPUri, _| {
            let host = uri.authority.host;
            let connecting = async {
                let addresses = reactor.to_socket_addrs((host.clone(), uri.authority.port));
                let stream = AsyncTcpStream::connect(&reactor, addresses).await?;
                if let AsyncTcpStream::Plain(plain) = &stream {
                    dialled.keep(plain.get_ref())?;
                }
                match uri.scheme {
                    AMQPScheme::AMQP => Ok(stream),
                    AMQPScheme::AMQPS => stream.into_tls(&host, TLSConfig::default()).await,
                }
            };
            // The client itself would wait for as long as the operating system does.
            match timeout(patience, connecting).await {
                Ok(stream) => Ok(stream?),
                Err(_) => Err(io::Error::from(io::ErrorKind::TimedOut).into()),
            }
        };
        let connection = Connection::connector(config.uri.clone(), runtime, dial, properties).await?;
        if let Some(kind) = &config.declare {
            let channel = connection.create_channel().await?;
            let options = ExchangeDeclareOptions { durable: true, ..ExchangeDeclareOptions::default() };
            let exchange = config.exchange.as_str().into();
            channel.exchange_declare(exchange, kind.clone(), options, FieldTable::default()).await?;
            channel.close(200, "done".into()).await?;
        }
        socket.release();
        Ok(Live::new(connection))
    };
    made.await
        .map_err(|error: lapin::Error| describe(&error, Operation::Open, &config.address()).not_applied())
}
