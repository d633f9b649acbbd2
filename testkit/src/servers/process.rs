use std::fmt;
use std::fs::{self, File};
use std::io::Write as _;
use std::os::unix::process::CommandExt as _;
use std::path::Path;
use std::process::{Child, Stdio};
use std::sync::{Mutex, MutexGuard, PoisonError};

use rustix::process::{Pid, Signal, WaitId, WaitIdOptions, kill_process_group, waitid};

use super::wait::poll;
use super::{Launch, ServerError, ServerErrorKind, guardian};

/// How many lines of a server's log an error shows: the reason of a failed start is near the end.
const SHOWN_LINES: usize = 40;

type Ready = Box<dyn Fn(u32) -> Result<(), String> + Send + Sync>;

/// A server as a child process. It has its own process group, is killed on drop, and never outlives this process.
pub struct ChildServer {
    launch: Launch,
    ready: Ready,
    running: Mutex<Option<Child>>,
}

impl ChildServer {
    /// Starts it and waits until `ready` answers `Ok` for its process id.
    ///
    /// `ready` asks the server something that only this very process can answer rightly, such as its process id or its
    /// name: on a port that was taken, somebody else answers. Its error is the reason that a timeout shows.
    ///
    /// # Errors
    ///
    /// [`ServerErrorKind::NotReady`] or [`ServerErrorKind::PortTaken`] with the end of the log, and
    /// [`ServerErrorKind::System`].
    pub fn start(
        launch: Launch,
        ready: impl Fn(u32) -> Result<(), String> + Send + Sync + 'static,
    ) -> Result<Self, ServerError> {
        let server = Self { launch, ready: Box::new(ready), running: Mutex::new(None) };
        server.restart()?;
        Ok(server)
    }

    /// Kills it if it runs, then starts the same command again and waits until it answers.
    ///
    /// # Errors
    ///
    /// As [`start`](Self::start).
    pub fn restart(&self) -> Result<(), ServerError> {
        let mut running = self.lock();
        end(&mut running);
        let log = File::options().create(true).append(true).open(self.launch.log());
        let log = log.map_err(|cause| ServerError::system("create the log of a server", &cause))?;
        let before = log.metadata().map_or(0, |metadata| metadata.len());
        let errors =
            log.try_clone().map_err(|cause| ServerError::system("share the log of a server", &cause))?;
        let mut command = self.launch.command_behind_gate();
        // A group of its own, so that a signal reaches its children too, and Ctrl-C in the terminal reaches none of them.
        command.process_group(0).stdin(Stdio::piped()).stdout(log).stderr(errors);
        let child = command.spawn().map_err(|cause| ServerError::system("start `sh`", &cause))?;
        let child = running.insert(child);
        let outcome = open_gate(child).and_then(|()| self.wait_until_ready(child, before));
        if outcome.is_err() {
            end(&mut running);
        }
        outcome
    }

    /// Sends SIGKILL to it and its children, and waits for its end. Does nothing if it has ended already.
    pub fn kill(&self) {
        end(&mut self.lock());
    }

    /// Stops it with SIGSTOP: connections stay open and nothing answers, as on a machine that hangs. Returns when it has stopped.
    ///
    /// # Errors
    ///
    /// [`ServerErrorKind::NotRunning`].
    pub fn pause(&self) -> Result<(), ServerError> {
        let mut running = self.lock();
        let group = self.signal(&mut running, Signal::STOP)?;
        // The signal is on its way; a test needs to know that nothing is answered from now on.
        waitid(WaitId::Pid(group), WaitIdOptions::STOPPED).map_err(|_| self.not_running())?;
        Ok(())
    }

    /// Lets it go on after [`pause`](Self::pause).
    ///
    /// # Errors
    ///
    /// [`ServerErrorKind::NotRunning`].
    pub fn resume(&self) -> Result<(), ServerError> {
        self.signal(&mut self.lock(), Signal::CONT).map(drop)
    }

    /// Its process id, while it runs.
    pub fn process_id(&self) -> Option<u32> {
        let mut running = self.lock();
        notice_end(&mut running);
        running.as_ref().map(Child::id)
    }

    /// What it has logged since its first start.
    pub fn log(&self) -> String {
        read_log(&self.launch.log(), 0)
    }

    fn lock(&self) -> MutexGuard<'_, Option<Child>> {
        self.running.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn signal(&self, running: &mut Option<Child>, signal: Signal) -> Result<Pid, ServerError> {
        notice_end(running);
        let group = running.as_ref().map(Pid::from_child).ok_or_else(|| self.not_running())?;
        kill_process_group(group, signal).map_err(|_| self.not_running())?;
        Ok(group)
    }

    fn not_running(&self) -> ServerError {
        let name = &self.launch.name;
        ServerError::new(ServerErrorKind::NotRunning, format!("{name} is not running: call `restart` first"))
    }

    fn wait_until_ready(&self, child: &Child, log_start: u64) -> Result<(), ServerError> {
        let mut ended = false;
        let outcome = poll(self.launch.patience, || {
            ended = has_ended(child);
            if ended { Ok(()) } else { (self.ready)(child.id()) }
        });
        let reason = match outcome {
            Ok(()) if ended => "ended before it answered".to_owned(),
            Ok(()) => return Ok(()),
            Err(reason) => format!("did not answer within {:?}: {reason}", self.launch.patience),
        };
        let log = read_log(&self.launch.log(), log_start);
        let kind = if ended && says_port_taken(&log) {
            ServerErrorKind::PortTaken
        } else {
            ServerErrorKind::NotReady
        };
        Err(ServerError::new(
            kind,
            format!("{} {reason}. The end of its log:\n{}", self.launch.name, tail(&log)),
        ))
    }
}

impl Drop for ChildServer {
    fn drop(&mut self) {
        self.kill();
    }
}

impl fmt::Debug for ChildServer {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.debug_struct("ChildServer").field("name", &self.launch.name).finish_non_exhaustive()
    }
}

/// Lets the server begin, now that it dies with this process.
fn open_gate(child: &mut Child) -> Result<(), ServerError> {
    guardian::watch(child.id())?;
    if let Some(mut gate) = child.stdin.take() {
        // Fails only if it has ended already, which is noticed next.
        let _ = gate.write_all(b"\n");
    }
    Ok(())
}

fn end(running: &mut Option<Child>) {
    let Some(mut child) = running.take() else { return };
    // The child was not waited for yet, so its number is still its own. Fails only if all of the group has ended.
    let _ = kill_process_group(Pid::from_child(&child), Signal::KILL);
    let _ = child.wait();
    guardian::forget(child.id());
}

/// Sees whether it ended by itself; what it left behind of its group is killed.
fn notice_end(running: &mut Option<Child>) {
    if running.as_ref().is_some_and(has_ended) {
        end(running);
    }
}

/// Unlike `Child::try_wait` this leaves the process to be waited for, so that its number is not given to another process.
fn has_ended(child: &Child) -> bool {
    let look = WaitIdOptions::EXITED | WaitIdOptions::NOHANG | WaitIdOptions::NOWAIT;
    !matches!(waitid(WaitId::Pid(Pid::from_child(child)), look), Ok(None))
}

fn read_log(path: &Path, start: u64) -> String {
    let content = fs::read(path).unwrap_or_default();
    let start = usize::try_from(start).unwrap_or(0).min(content.len());
    String::from_utf8_lossy(&content[start..]).into_owned()
}

fn says_port_taken(log: &str) -> bool {
    let log = log.to_lowercase();
    log.contains("address already in use") || log.contains("eaddrinuse")
}

fn tail(log: &str) -> String {
    let lines: Vec<&str> = log.lines().collect();
    lines[lines.len().saturating_sub(SHOWN_LINES)..].join("\n")
}
