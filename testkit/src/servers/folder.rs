use std::path::Path;

use tempfile::TempDir;

use super::{ServerError, guardian};

/// A temporary folder of a server: its data, its settings, its log. Removed with its content on drop, or by the guardian
/// when the process ends without dropping it.
#[derive(Debug)]
pub struct ServerFolder(TempDir);

impl ServerFolder {
    /// A new, empty folder whose name begins with `name`.
    ///
    /// # Errors
    ///
    /// [`ServerErrorKind::System`](super::ServerErrorKind::System), when it cannot be created.
    pub fn create(name: &str) -> Result<Self, ServerError> {
        let parent = guardian::folder()?;
        let folder =
            tempfile::Builder::new().prefix(&format!("{name}-")).tempdir_in(parent).map_err(|cause| {
                ServerError::system(&format!("create a folder in {}", parent.display()), &cause)
            })?;
        Ok(Self(folder))
    }

    /// Where it is.
    pub fn path(&self) -> &Path {
        self.0.path()
    }

    /// Writes a file of settings into it, and gives nothing but the error.
    pub(super) fn write(&self, name: &str, content: &str) -> Result<(), ServerError> {
        let path = self.path().join(name);
        std::fs::write(&path, content)
            .map_err(|cause| ServerError::system(&format!("write {}", path.display()), &cause))
    }
}
