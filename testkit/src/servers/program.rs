use std::env;
use std::path::{Path, PathBuf};

use super::{ServerError, ServerErrorKind};

/// Where the program `name` is: the first of `preferred` that exists, else what `PATH` says.
///
/// `preferred` is for programs whose entry on `PATH` does something else, as Debian's `rabbitmq-server`, which changes
/// the user and the folder.
///
/// # Errors
///
/// [`ServerErrorKind::Missing`], which says to run `scripts/setup`.
pub fn find_program(name: &str, preferred: &[&str]) -> Result<PathBuf, ServerError> {
    let path = env::var_os("PATH").unwrap_or_default();
    let on_path = env::split_paths(&path).map(|folder| folder.join(name));
    let mut candidates = preferred.iter().map(PathBuf::from).chain(on_path);
    candidates.find(|candidate| is_program(candidate)).ok_or_else(|| {
        ServerError::new(
            ServerErrorKind::Missing,
            format!("`{name}` is not installed: run scripts/setup, which installs what the tests need"),
        )
    })
}

fn is_program(path: &Path) -> bool {
    use std::os::unix::fs::PermissionsExt as _;
    path.metadata().is_ok_and(|metadata| metadata.is_file() && metadata.permissions().mode() & 0o111 != 0)
}
