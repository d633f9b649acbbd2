//! Runs the program.

use pillarbox_testkit::servers::RedisServer;
use std::io::{BufRead as _, BufReader, Read as _, Write as _};
use std::process::{Child, Command, Output, Stdio};
use std::sync::mpsc;
use std::time::{Duration, Instant};

/// How long anything may take before a test gives up on it.
pub(super) const PATIENCE: Duration = Duration::from_secs(60);

/// The program with these arguments, and nothing of this process's own settings.
pub(crate) fn program(arguments: &[&str]) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_pillarbox"));
    for (name, _) in std::env::vars_os() {
        if name.to_string_lossy().starts_with("PILLARBOX__") {
            command.env_remove(name);
        }
    }
    command.args(arguments).env_remove("RUST_LOG");
    command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped());
    command
}

/// Runs it to its end.
pub(super) fn run(arguments: &[&str]) -> Output {
    program(arguments).output().unwrap()
}

/// Runs it to its end with standard input.
pub(super) fn run_with_input(arguments: &[&str], input: &str) -> Output {
    let mut child = program(arguments).stdin(Stdio::piped()).spawn().unwrap();
    let mut stdin = child.stdin.take().unwrap();
    let input = input.to_owned();
    // It may end before it has read everything: then the rest has nowhere to go.
    let writer = std::thread::spawn(move || drop(stdin.write_all(input.as_bytes())));
    let output = child.wait_with_output().unwrap();
    writer.join().unwrap();
    output
}

pub(super) fn text(bytes: &[u8]) -> String {
    String::from_utf8_lossy(bytes).into_owned()
}

/// The URL of an outbox on `server`.
pub(super) fn outbox(server: &RedisServer, name: &str) -> String {
    format!("{}?outbox.name={name}", server.url())
}

/// What `pillarbox status --json` says.
pub(super) fn status(url: &str) -> serde_json::Value {
    let output = run(&["status", "--json", "--storage", url]);
    assert!(output.status.success(), "{}", text(&output.stderr));
    serde_json::from_slice(&output.stdout).unwrap()
}

pub(super) fn wait_until(what: &str, mut holds: impl FnMut() -> bool) {
    let start = Instant::now();
    while !holds() {
        assert!(start.elapsed() < PATIENCE, "waited in vain: {what}");
        std::thread::sleep(Duration::from_millis(10));
    }
}

/// A relay that runs; killed when it is dropped.
pub(crate) struct Relay {
    child: Child,
    lines: mpsc::Receiver<String>,
    errors: Option<std::thread::JoinHandle<String>>,
}

impl Relay {
    /// Starts it and reads its standard output.
    pub(crate) fn start(arguments: &[&str]) -> Self {
        let mut child = program(arguments).spawn().unwrap();
        let stdout = BufReader::new(child.stdout.take().unwrap());
        let mut stderr = child.stderr.take().unwrap();
        let (sender, lines) = mpsc::channel();
        std::thread::spawn(move || {
            for line in stdout.lines() {
                let Ok(line) = line else { return };
                if sender.send(line).is_err() {
                    return;
                }
            }
        });
        let errors = std::thread::spawn(move || {
            let mut all = String::new();
            stderr.read_to_string(&mut all).unwrap();
            all
        });
        Self { child, lines, errors: Some(errors) }
    }

    /// The next line of its standard output.
    pub(super) fn line(&self) -> String {
        self.lines.recv_timeout(PATIENCE).expect("the relay prints a line")
    }

    /// The lines that it prints until its output ends.
    pub(super) fn rest(&self) -> Vec<String> {
        self.lines.iter().collect()
    }

    pub(crate) fn signal(&self, signal: rustix::process::Signal) {
        rustix::process::kill_process(rustix::process::Pid::from_child(&self.child), signal).unwrap();
    }

    /// Waits for its end: the exit code, and everything that it wrote to standard error.
    pub(crate) fn end(&mut self) -> (Option<i32>, String) {
        let mut code = None;
        wait_until("the relay ends", || {
            code = self.child.try_wait().unwrap();
            code.is_some()
        });
        let errors = self.errors.take().map(|errors| errors.join().unwrap()).unwrap_or_default();
        (code.and_then(|status| status.code()), errors)
    }
}

impl Drop for Relay {
    fn drop(&mut self) {
        // It may have ended by itself.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}
