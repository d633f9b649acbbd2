//! The playground as a folder of files, and a server for it that needs nothing to be installed.

use std::ffi::OsStr;
use std::io::{self, BufRead as _, BufReader, Write as _};
use std::net::{TcpListener, TcpStream};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::Duration;

const TARGET: &str = "wasm32-unknown-unknown";
const PACKAGE: &str = env!("CARGO_MANIFEST_DIR");

/// Compiles one of the modules of this package in a profile, and answers where it lies. `features` are what it needs.
///
/// # Errors
/// Cargo's, which it has told of itself.
pub fn module(name: &str, profile: &str, features: &str) -> io::Result<PathBuf> {
    let mut cargo = Command::new(env!("CARGO"));
    cargo.args([
        "build",
        "--profile",
        profile,
        "--example",
        name,
        "--target",
        TARGET,
        "--no-default-features",
    ]);
    cargo.args(["--features", features, "--message-format", "json-render-diagnostics"]);
    let output = cargo.current_dir(PACKAGE).stderr(Stdio::inherit()).output()?;
    let said = String::from_utf8_lossy(&output.stdout);
    let messages = said.lines().filter_map(|line| serde_json::from_str::<serde_json::Value>(line).ok());
    let files = messages.filter_map(|message| message["filenames"].as_array().cloned()).flatten();
    let mut files = files.filter_map(|file| Some(PathBuf::from(file.as_str()?)));
    let module = files.find(|file| file.extension() == Some(OsStr::new("wasm")));
    module.filter(|_| output.status.success()).ok_or_else(|| {
        io::Error::other(format!(
            "the module {name} was not built: cargo says why above. If the target is missing, `rustup target add {TARGET}` adds it"
        ))
    })
}

/// Builds the playground, and answers its folder: it can be put on any web server as it is.
///
/// # Errors
/// That of the compilation, or of the files.
pub fn build() -> io::Result<PathBuf> {
    let module = module("playground", "wasm", "")?;
    // target/wasm32-unknown-unknown/wasm/examples/playground.wasm
    let target = module.ancestors().nth(4).unwrap_or(&module);
    let folder = target.join("playground");
    std::fs::create_dir_all(&folder)?;
    for file in std::fs::read_dir(Path::new(PACKAGE).join("web"))? {
        let file = file?;
        std::fs::copy(file.path(), folder.join(file.file_name()))?;
    }
    std::fs::copy(module, folder.join("playground.wasm"))?;
    Ok(folder)
}

/// Serves the files of `folder`, until the program ends.
///
/// # Errors
/// The listener's.
pub fn serve(listener: &TcpListener, folder: &Path) -> io::Result<()> {
    for connection in listener.incoming() {
        let (connection, folder) = (connection?, folder.to_owned());
        // A browser that went away is no reason to stop.
        std::thread::spawn(move || drop(answer(connection, &folder)));
    }
    Ok(())
}

fn answer(mut connection: TcpStream, folder: &Path) -> io::Result<()> {
    connection.set_read_timeout(Some(Duration::from_secs(10)))?;
    let mut lines = BufReader::new(connection.try_clone()?).lines();
    let request = lines.next().transpose()?.unwrap_or_default();
    while lines.next().transpose()?.is_some_and(|line| !line.is_empty()) {}
    let path = request.split(' ').nth(1).and_then(|path| path.split('?').next()).unwrap_or("/");
    let name = if path == "/" { "index.html" } else { path.trim_start_matches('/') };
    let kind = match name.rsplit('.').next() {
        Some("html") => "text/html; charset=utf-8",
        Some("css") => "text/css; charset=utf-8",
        Some("js") => "text/javascript; charset=utf-8",
        _ => "application/wasm",
    };
    // Only files of the folder itself.
    let found = if name.contains(['/', '\\']) { None } else { std::fs::read(folder.join(name)).ok() };
    let status = if found.is_some() { "200 OK" } else { "404 Not Found" };
    let content = found.unwrap_or_default();
    let length = content.len();
    write!(
        connection,
        "HTTP/1.1 {status}\r\ncontent-type: {kind}\r\ncontent-length: {length}\r\ncache-control: no-store\r\nconnection: close\r\n\r\n"
    )?;
    connection.write_all(&content)
}
