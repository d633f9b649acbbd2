use std::process::Stdio;
use std::sync::PoisonError;

use crate::servers::ServerError;

use super::RabbitMqNode;

/// In seconds. A paused node would keep `rabbitmqctl` waiting.
const TIMEOUT: &str = "30";

impl RabbitMqNode {
    /// Runs `rabbitmqctl` and gives its output: `["list_queues", "name", "messages"]`, `["close_all_connections", "test"]`,
    /// `["set_vm_memory_high_watermark", "0"]`. Takes about half a second.
    ///
    /// # Errors
    ///
    /// [`ServerErrorKind::Refused`](crate::servers::ServerErrorKind::Refused) with what `rabbitmqctl` says.
    pub fn control(&self, words: &[&str]) -> Result<String, ServerError> {
        let _one = self.control.lock().unwrap_or_else(PoisonError::into_inner);
        let launch =
            self.node.control().arguments(["--quiet", "--timeout", TIMEOUT]).arguments(words.iter().copied());
        let output = launch.command().stdin(Stdio::null()).output();
        let output = output.map_err(|cause| ServerError::system("start rabbitmqctl", &cause))?;
        let said = String::from_utf8_lossy(&output.stdout).into_owned();
        if output.status.success() {
            return Ok(said);
        }
        let errors = String::from_utf8_lossy(&output.stderr);
        let verb = words.first().copied().unwrap_or_default();
        Err(ServerError::refused(format!("rabbitmqctl {verb} failed:\n{said}{errors}")))
    }
}
