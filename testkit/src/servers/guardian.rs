//! The process that ends the servers of a test process which could not do so itself.
//!
//! It is a shell that reads lines from a pipe. Only the test process holds the other end, so the pipe ends when that
//! process does, however it ends: by returning with servers in a `static`, by a panic that aborts, or by SIGKILL.
//!
//! The other known way, `PR_SET_PDEATHSIG`, was not taken: it is bound to the *thread* that started the child, so a server
//! that one test starts for all would die with that test; it needs Linux; and it is lost when a program changes its user.

use std::fs;
use std::io::Write as _;
use std::os::unix::process::CommandExt as _;
use std::path::{Path, PathBuf};
use std::process::{ChildStdin, Command, Stdio};
use std::sync::{Mutex, OnceLock, PoisonError};

use super::ServerError;

/// `watch` and `forget` name a process group. Signals that ask for an end are ignored, because the end of the pipe follows.
/// A process that was just killed may still be leaving its folder, hence the repeated `rm`.
const SCRIPT: &str = r#"
trap '' HUP INT TERM
folder=$1 watched=
while read -r verb group; do
    case $verb in
    watch) watched="$watched $group" ;;
    forget)
        rest=
        for one in $watched; do
            [ "$one" = "$group" ] || rest="$rest $one"
        done
        watched=$rest
        ;;
    esac
done
for group in $watched; do
    kill -s KILL -- "-$group"
done
tries=0
until rm -rf -- "$folder" || [ "$tries" -ge 50 ]; do
    tries=$((tries + 1))
    sleep 0.1
done
"#;

struct Guardian {
    lines: Mutex<ChildStdin>,
    folder: PathBuf,
}

static GUARDIAN: OnceLock<Result<Guardian, ServerError>> = OnceLock::new();

fn guardian() -> Result<&'static Guardian, ServerError> {
    GUARDIAN.get_or_init(Guardian::start).as_ref().map_err(Clone::clone)
}

/// The folder of this process, in which each of its servers has its own. The guardian removes it at the end.
pub(super) fn folder() -> Result<&'static Path, ServerError> {
    Ok(&guardian()?.folder)
}

/// From now on the process group dies with this process.
pub(super) fn watch(group: u32) -> Result<(), ServerError> {
    guardian()?.tell("watch", group)
}

/// The process group has ended, and its number may soon be another's.
pub(super) fn forget(group: u32) {
    // Fails only if the guardian was killed; then nobody holds the number either.
    let _ = guardian().and_then(|guardian| guardian.tell("forget", group));
}

impl Guardian {
    fn start() -> Result<Self, ServerError> {
        let folder = tempfile::Builder::new()
            .prefix("pillarbox-testkit-")
            .tempdir()
            .map_err(|cause| ServerError::system("create a temporary folder (see TMPDIR)", &cause))?
            .keep();
        // Some servers compare paths, and on macOS the temporary folder is behind a link.
        let folder = fs::canonicalize(&folder).unwrap_or(folder);
        let mut child = Command::new("sh")
            .args(["-c", SCRIPT, "guardian"])
            .arg(&folder)
            .current_dir("/")
            // A signal for the group of the test process must not end the guardian before the servers.
            .process_group(0)
            .stdin(Stdio::piped())
            // Whoever waits for the end of the test's output must not wait for the guardian.
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn()
            .map_err(|cause| {
                ServerError::system("start `sh`, which ends the servers after the test", &cause)
            })?;
        let lines = child.stdin.take().map(Mutex::new);
        let lines = lines.ok_or_else(|| ServerError::refused("the guardian of the servers has no input"))?;
        Ok(Self { lines, folder })
    }

    fn tell(&self, verb: &str, group: u32) -> Result<(), ServerError> {
        let mut lines = self.lines.lock().unwrap_or_else(PoisonError::into_inner);
        // One write, so that a line is never cut in two.
        lines.write_all(format!("{verb} {group}\n").as_bytes()).map_err(|cause| {
            ServerError::system("reach the guardian of the servers (was its `sh` killed?)", &cause)
        })
    }
}
