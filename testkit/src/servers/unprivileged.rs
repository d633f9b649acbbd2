//! Servers that refuse to run as root, for tests that do run as root, as in a container.

use std::fs;
use std::os::unix::fs::{PermissionsExt as _, chown};
use std::path::{Path, PathBuf};
use std::process::Command;

use super::{Launch, ServerError, find_program};

/// Whom a server runs as: the user of the tests, or a system's user where that is root.
#[derive(Debug)]
pub(super) struct Account {
    user: Option<User>,
}

#[derive(Debug)]
struct User {
    id: u32,
    group: u32,
    setpriv: PathBuf,
}

impl Account {
    /// The first of `names` that the system has, if this process is root's.
    pub(super) fn choose(names: &[&str]) -> Result<Self, ServerError> {
        if !rustix::process::geteuid().is_root() {
            return Ok(Self { user: None });
        }
        let accounts = fs::read_to_string("/etc/passwd")
            .map_err(|cause| ServerError::system("read /etc/passwd", &cause))?;
        let Some((id, group)) = names.iter().find_map(|name| ids_of(&accounts, name)) else {
            return Err(ServerError::refused(format!(
                "the server refuses to run as root, and there is none of the users {names:?}"
            )));
        };
        Ok(Self { user: Some(User { id, group, setpriv: find_program("setpriv", &["/usr/bin/setpriv"])? }) })
    }

    /// Makes a folder in `parent` that the server owns and can reach.
    pub(super) fn folder(&self, parent: &Path, name: &str) -> Result<PathBuf, ServerError> {
        let folder = parent.join(name);
        let system = |cause| ServerError::system(&format!("prepare {}", folder.display()), &cause);
        fs::create_dir_all(&folder).map_err(system)?;
        if let Some(User { id, group, .. }) = self.user {
            // Only passed through, not listed: others learn no names.
            for passed in parent.ancestors().take(2) {
                fs::set_permissions(passed, fs::Permissions::from_mode(0o711)).map_err(system)?;
            }
            chown(&folder, Some(id), Some(group)).map_err(system)?;
        }
        fs::set_permissions(&folder, fs::Permissions::from_mode(0o700)).map_err(system)?;
        Ok(folder)
    }

    /// A command that runs `program` as this user.
    pub(super) fn command(&self, program: &Path) -> Command {
        let mut words = self.words(program).into_iter();
        let mut command = Command::new(words.next().unwrap_or_default());
        command.args(words);
        command
    }

    /// A launch of `program` as this user.
    pub(super) fn launch(&self, name: &str, program: &Path, folder: &Path) -> Launch {
        let mut words = self.words(program).into_iter();
        Launch::new(name, words.next().unwrap_or_default(), folder).arguments(words)
    }

    fn words(&self, program: &Path) -> Vec<std::ffi::OsString> {
        let mut words = Vec::new();
        if let Some(User { id, group, setpriv }) = &self.user {
            words.push(setpriv.into());
            for word in [format!("--reuid={id}"), format!("--regid={group}"), "--clear-groups".to_owned()] {
                words.push(word.into());
            }
        }
        words.push(program.into());
        words
    }
}

/// The numbers of a user and its group in the text of `/etc/passwd`.
fn ids_of(accounts: &str, name: &str) -> Option<(u32, u32)> {
    let line = accounts.lines().find(|line| line.split(':').next() == Some(name))?;
    let mut fields = line.split(':').skip(2);
    Some((fields.next()?.parse().ok()?, fields.next()?.parse().ok()?))
}

/// Runs a command that prepares a server, to its end.
pub(super) fn prepare(mut command: Command, what: &str) -> Result<(), ServerError> {
    let output = command.output().map_err(|cause| ServerError::system(&format!("start `{what}`"), &cause))?;
    if output.status.success() {
        return Ok(());
    }
    let errors = String::from_utf8_lossy(&output.stderr).into_owned();
    Err(ServerError::refused(format!("`{what}` failed: {}", errors.trim())))
}
