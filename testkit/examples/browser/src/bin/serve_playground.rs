//! Builds the playground and serves it: `cargo run -p pillarbox-browser`, with another port as an argument if 8080 is taken.

use pillarbox_browser::site;
use std::io;
use std::net::TcpListener;

fn main() -> io::Result<()> {
    let port = match std::env::args().nth(1) {
        None => 8080,
        Some(port) => port.parse().map_err(|_| io::Error::other(format!("{port:?} is no port")))?,
    };
    let listener = TcpListener::bind(("127.0.0.1", port)).map_err(|error| {
        io::Error::other(format!("port {port}: {error}; name another one as an argument"))
    })?;
    let folder = site::build()?;
    println!(
        "The playground is at http://{}/ and its files are in {}",
        listener.local_addr()?,
        folder.display()
    );
    site::serve(&listener, &folder)
}
