use std::io::{ErrorKind, Read as _, Write as _};
use std::net::{Shutdown, SocketAddr, TcpListener, TcpStream};
use std::thread;
use std::time::{Duration, Instant};

use pillarbox_testkit::servers::Proxy;

use super::eventually;

/// A server that sends back what it receives, until this process ends.
fn echo() -> SocketAddr {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap();
    thread::spawn(move || {
        for stream in listener.incoming() {
            thread::spawn(move || {
                let mut from = stream.unwrap();
                let mut to = from.try_clone().unwrap();
                // Whichever side ends it.
                let _ = std::io::copy(&mut from, &mut to);
                let _ = to.shutdown(Shutdown::Write);
            });
        }
    });
    address
}

fn connect(proxy: &Proxy) -> TcpStream {
    let stream = TcpStream::connect(proxy.address()).unwrap();
    stream.set_read_timeout(Some(Duration::from_secs(20))).unwrap();
    stream
}

fn exchange(stream: &mut TcpStream, text: &[u8]) {
    stream.write_all(text).unwrap();
    expect(stream, text);
}

fn expect(stream: &mut TcpStream, text: &[u8]) {
    let mut answer = vec![0; text.len()];
    stream.read_exact(&mut answer).unwrap();
    assert_eq!(answer, text);
}

/// Whether nothing arrives for a while: neither bytes nor the end.
fn is_silent(stream: &mut TcpStream) -> bool {
    stream.set_read_timeout(Some(Duration::from_millis(100))).unwrap();
    let outcome = stream.read(&mut [0; 1]);
    stream.set_read_timeout(Some(Duration::from_secs(20))).unwrap();
    outcome.is_err_and(|error| matches!(error.kind(), ErrorKind::WouldBlock | ErrorKind::TimedOut))
}

fn assert_ended(stream: &mut TcpStream) {
    match stream.read(&mut [0; 1]) {
        Ok(0) => {}
        Err(error) if error.kind() == ErrorKind::ConnectionReset => {}
        other => panic!("the connection goes on: {other:?}"),
    }
}

#[test]
fn forwards_large_and_many() {
    let proxy = Proxy::start(echo()).unwrap();
    let large: Vec<u8> = (0..3_000_000_u32).map(|number| number.to_le_bytes()[0]).collect();
    let mut streams: Vec<_> = (0..4).map(|_| connect(&proxy)).collect();
    thread::scope(|scope| {
        for stream in &mut streams {
            let large = &large;
            scope.spawn(move || {
                let mut writer = stream.try_clone().unwrap();
                thread::scope(|scope| {
                    scope.spawn(|| writer.write_all(large).unwrap());
                    expect(stream, large);
                });
            });
        }
    });
    assert_eq!(proxy.accepted_connections(), 4);
    assert_eq!(proxy.request_bytes(), 4 * large.len() as u64);
    drop(streams);
    eventually("closed connections are forgotten", || proxy.open_connections() == 0);
}

#[test]
fn a_client_may_close_its_half_first() {
    let proxy = Proxy::start(echo()).unwrap();
    let mut stream = connect(&proxy);
    stream.write_all(b"last words").unwrap();
    stream.shutdown(Shutdown::Write).unwrap();
    let mut answer = String::new();
    stream.read_to_string(&mut answer).unwrap();
    assert_eq!(answer, "last words");
}

#[test]
fn a_cut_ends_connections_and_welcomes_new_ones() {
    let proxy = Proxy::start(echo()).unwrap();
    let mut stream = connect(&proxy);
    exchange(&mut stream, b"one");
    proxy.cut();
    assert_ended(&mut stream);
    exchange(&mut connect(&proxy), b"two");
}

#[test]
fn refuses_until_it_heals_on_the_same_port() {
    let proxy = Proxy::start(echo()).unwrap();
    let mut stream = connect(&proxy);
    exchange(&mut stream, b"one");
    proxy.refuse();
    assert_ended(&mut stream);
    for _ in 0..3 {
        assert_eq!(TcpStream::connect(proxy.address()).unwrap_err().kind(), ErrorKind::ConnectionRefused);
    }
    proxy.refuse();
    proxy.heal().unwrap();
    proxy.heal().unwrap();
    exchange(&mut connect(&proxy), b"two");
    let address = proxy.address();
    drop(proxy);
    assert_eq!(TcpStream::connect(address).unwrap_err().kind(), ErrorKind::ConnectionRefused);
}

#[test]
fn a_stall_holds_bytes_and_the_end_back() {
    let proxy = Proxy::start(echo()).unwrap();
    let mut old = connect(&proxy);
    exchange(&mut old, b"one");
    proxy.stall();
    let mut new = connect(&proxy);
    old.write_all(b"two").unwrap();
    new.write_all(b"three").unwrap();
    new.shutdown(Shutdown::Write).unwrap();
    assert!(is_silent(&mut old) && is_silent(&mut new));
    assert_eq!(proxy.request_bytes(), 3);
    proxy.heal().unwrap();
    expect(&mut old, b"two");
    expect(&mut new, b"three");
    assert_ended(&mut new);
}

#[test]
fn a_cut_during_a_stall_loses_what_was_held_back() {
    let proxy = Proxy::start(echo()).unwrap();
    let mut stream = connect(&proxy);
    exchange(&mut stream, b"one");
    proxy.stall();
    stream.write_all(b"two").unwrap();
    assert!(is_silent(&mut stream));
    proxy.cut();
    assert_ended(&mut stream);
    proxy.heal().unwrap();
    assert_eq!(proxy.request_bytes(), 3);
}

#[test]
fn loses_the_reply_to_a_request_that_arrived() {
    let proxy = Proxy::start(echo()).unwrap();
    let mut stream = connect(&proxy);
    proxy.stall_replies();
    stream.write_all(b"request").unwrap();
    eventually("the server has the request", || proxy.request_bytes() == 7);
    assert!(is_silent(&mut stream));
    proxy.cut();
    assert_ended(&mut stream);
    assert_eq!(proxy.reply_bytes(), 0);
}

#[test]
fn holds_back_what_follows_a_number_of_bytes() {
    let proxy = Proxy::start(echo()).unwrap();
    let mut stream = connect(&proxy);
    exchange(&mut stream, b"before");
    proxy.stall_requests_after(3);
    exchange(&mut stream, b"one");
    stream.write_all(b"two").unwrap();
    assert!(is_silent(&mut stream));
    assert_eq!((proxy.request_bytes(), proxy.reply_bytes()), (9, 9));
    proxy.heal().unwrap();
    expect(&mut stream, b"two");
}

#[test]
fn a_half_open_connection_is_silent_and_new_ones_work() {
    let proxy = Proxy::start(echo()).unwrap();
    let mut old = connect(&proxy);
    exchange(&mut old, b"before");
    proxy.half_open();
    old.write_all(b"lost").unwrap();
    assert!(is_silent(&mut old));
    exchange(&mut connect(&proxy), b"after");
    proxy.heal().unwrap();
    assert!(is_silent(&mut old), "its server will never know it again");
    proxy.cut();
    assert_ended(&mut old);
}

#[test]
fn delays_each_way_without_narrowing() {
    let proxy = Proxy::start(echo()).unwrap();
    let mut stream = connect(&proxy);
    exchange(&mut stream, b"warm");
    proxy.delay(Duration::from_millis(100));
    let start = Instant::now();
    // Chunks that follow each other are on the way together: 50 of them do not take 50 delays.
    for _ in 0..50 {
        stream.write_all(b"x").unwrap();
    }
    expect(&mut stream, &[b'x'; 50]);
    let taken = start.elapsed();
    assert!(taken >= Duration::from_millis(200) && taken < Duration::from_secs(5), "{taken:?}");
    proxy.delay(Duration::from_secs(3600));
    stream.write_all(b"late").unwrap();
    assert!(is_silent(&mut stream));
    proxy.heal().unwrap();
    expect(&mut stream, b"late");
}

#[test]
fn a_server_that_is_down_ends_the_connection() {
    let free = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
    let proxy = Proxy::start(free).unwrap();
    assert_ended(&mut connect(&proxy));
}

#[test]
#[should_panic(expected = "which the URL does not name")]
fn a_url_of_another_server_is_refused() {
    let proxy = Proxy::start(echo()).unwrap();
    let _ = proxy.through("redis://127.0.0.1:1/");
}

#[test]
fn leads_a_url_through_itself() {
    let target = echo();
    let proxy = Proxy::start(target).unwrap();
    let url = proxy.through(&format!("amqp://guest:guest@{target}/host"));
    assert_eq!(url, format!("amqp://guest:guest@{}/host", proxy.address()));
}
