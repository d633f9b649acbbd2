use std::sync::PoisonError;
use std::sync::atomic::{AtomicU32, Ordering};

use crate::servers::ServerError;

use super::RabbitMqNode;

/// How many virtual hosts one call of `rabbitmqctl` makes. One takes 0.6 seconds that way, eight 0.8.
const AT_ONCE: u32 = 8;

static NEXT: AtomicU32 = AtomicU32::new(1);

/// A virtual host of one test: its exchanges and queues are nobody else's, so that tests can share a node.
///
/// It is never deleted, since its node lives no longer than the test process.
#[derive(Clone, Debug)]
pub struct RabbitMqVirtualHost<'node> {
    node: &'node RabbitMqNode,
    name: String,
}

impl RabbitMqVirtualHost<'_> {
    /// `amqp://guest:guest@127.0.0.1:PORT/NAME`.
    pub fn url(&self) -> String {
        self.node.url_of(&self.name)
    }

    /// Its name, as [`RabbitMqNode::control`] wants it after `--vhost`.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// The node that it belongs to.
    pub fn node(&self) -> &RabbitMqNode {
        self.node
    }
}

impl RabbitMqNode {
    /// A virtual host that nobody else was given, with all permissions for `guest`.
    ///
    /// # Errors
    ///
    /// As [`control`](Self::control).
    pub fn virtual_host(&self) -> Result<RabbitMqVirtualHost<'_>, ServerError> {
        let mut spare = self.spare.lock().unwrap_or_else(PoisonError::into_inner);
        if spare.is_empty() {
            let first = NEXT.fetch_add(AT_ONCE, Ordering::Relaxed);
            let names: Vec<String> =
                (first..first + AT_ONCE).rev().map(|number| format!("test-{number}")).collect();
            self.make_virtual_hosts(&names)?;
            *spare = names;
        }
        let name = spare.pop().ok_or_else(|| ServerError::refused("no virtual host was made"))?;
        Ok(RabbitMqVirtualHost { node: self, name })
    }

    fn make_virtual_hosts(&self, names: &[String]) -> Result<(), ServerError> {
        // The names need no escaping in JSON.
        let list = |entry: &dyn Fn(&String) -> String| names.iter().map(entry).collect::<Vec<_>>().join(",");
        let hosts = list(&|name| format!(r#"{{"name":"{name}"}}"#));
        let all = r#""configure":".*","write":".*","read":".*""#;
        let permissions = list(&|name| format!(r#"{{"user":"guest","vhost":"{name}",{all}}}"#));
        let definitions = format!(r#"{{"vhosts":[{hosts}],"permissions":[{permissions}]}}"#);
        self.folder.write("definitions.json", &definitions)?;
        self.control(&["import_definitions", "definitions.json"]).map(drop)
    }
}
