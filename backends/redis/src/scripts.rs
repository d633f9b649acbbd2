//! The scripts, and how they are called.

use crate::connection::{Connection, Failure};
use redis::{Cmd, ErrorKind, ServerErrorKind, Value};
use std::sync::LazyLock;

/// A script with what all of them share in front of it.
pub(crate) struct Script {
    text: &'static str,
    hash: LazyLock<String>,
}

macro_rules! script {
    ($name:ident, $file:literal) => {
        pub(crate) static $name: Script = Script {
            text: concat!(include_str!("scripts/common.lua"), include_str!(concat!("scripts/", $file))),
            hash: LazyLock::new(|| redis::Script::new($name.text).get_hash().to_owned()),
        };
    };
}

script!(OPEN, "open.lua");
script!(CLAIM, "claim.lua");
script!(RENEW, "renew.lua");
script!(SETTLE, "settle.lua");
script!(DEAD, "dead.lua");
script!(STATS, "stats.lua");
script!(LIST, "list.lua");
script!(FIND, "find.lua");

impl Script {
    /// Runs the script by its hash, or by its text where the server does not know it (any more). `add` adds the arguments.
    pub(crate) async fn run(
        &self,
        connection: &Connection,
        state_key: &str,
        add: impl Fn(&mut Cmd),
    ) -> Result<Value, Failure> {
        let mut command = redis::cmd("EVALSHA");
        command.arg(self.hash.as_str()).arg(1).arg(state_key);
        add(&mut command);
        match connection.run(&command).await {
            Err(Failure::Request(error)) if error.kind() == ErrorKind::Server(ServerErrorKind::NoScript) => {
                let mut command = redis::cmd("EVAL");
                command.arg(self.text).arg(1).arg(state_key);
                add(&mut command);
                connection.run(&command).await
            }
            answer => answer,
        }
    }
}
