//! What a server must be, looked at when an outbox is opened.

use crate::config::misconfigured;
use crate::error;
use mongodb::Client;
use mongodb::bson::{Bson, Document, doc};
use mongodb::options::Acknowledgment;
use pillarbox_core::Error;

pub(crate) async fn check(client: &Client, place: &str) -> Result<(), Error> {
    let map = |failure| error::map(failure, "open", place);
    let admin = client.database("admin");
    let hello = admin.run_command(doc! { "hello": 1 }).await.map_err(map)?;
    judge(&hello, place)?;
    // Not everybody may ask for it.
    let defaults = admin.run_command(doc! { "getDefaultRWConcern": 1 }).await.ok();
    let asked = client.default_write_concern();
    if let Some(weak) = weak_concern(asked.as_deref(), defaults.as_ref()) {
        tracing::warn!(
            place,
            "transactions that commit with `w: {weak}` may lose their messages in a failover, and are seen by relays only later; leave `w` out of the URL, or commit with the write concern `majority`"
        );
    }
    Ok(())
}

/// Whether it has what the outbox is built on: transactions, snapshot reads and change streams.
fn judge(hello: &Document, place: &str) -> Result<(), Error> {
    let is_router = hello.get_str("msg").is_ok_and(|text| text == "isdbgrid");
    if !is_router && hello.get_str("setName").is_err() {
        return Err(misconfigured(format!(
            "MongoDB at {place} is no replica set, and so has no transactions; start it with `--replSet rs0` and run `rs.initiate()`: one node is enough"
        )));
    }
    // 13 is MongoDB 5.0, the first whose snapshot reads need no transaction.
    let version = hello.get_i32("maxWireVersion").unwrap_or(0);
    if version < 13 {
        return Err(misconfigured(format!(
            "MongoDB at {place} is too old (wire version {version}); 5.0 or later is needed"
        )));
    }
    Ok(())
}

/// The write concern that transactions of this client commit with, if it is weaker than the majority.
fn weak_concern(asked: Option<&str>, defaults: Option<&Document>) -> Option<String> {
    if let Some(asked) = asked {
        return Some(asked.to_owned()).filter(|asked| asked != "majority");
    }
    let default = defaults?.get_document("defaultWriteConcern").ok()?.get("w")?;
    match default {
        Bson::String(_) => None,
        number => Some(number.to_string()).filter(|number| number == "0" || number == "1"),
    }
}

trait DefaultWriteConcern {
    fn default_write_concern(&self) -> Option<String>;
}

impl DefaultWriteConcern for Client {
    fn default_write_concern(&self) -> Option<String> {
        Some(match self.write_concern()?.w.as_ref()? {
            Acknowledgment::Nodes(nodes @ (0 | 1)) => nodes.to_string(),
            _ => "majority".to_owned(),
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn servers_are_judged() {
        let judge = |hello: Document| judge(&hello, "host:1").map_err(|error| error.to_string());
        judge(doc! { "setName": "rs0", "maxWireVersion": 17 }).unwrap();
        judge(doc! { "msg": "isdbgrid", "maxWireVersion": 13 }).unwrap();
        let alone = judge(doc! { "maxWireVersion": 17 }).unwrap_err();
        assert!(alone.contains("host:1") && alone.contains("--replSet"), "{alone}");
        let old = judge(doc! { "setName": "rs0", "maxWireVersion": 9 }).unwrap_err();
        assert!(old.contains("5.0 or later"), "{old}");
    }

    #[test]
    fn a_weak_write_concern_is_seen() {
        let default = |w: Bson| doc! { "defaultWriteConcern": { "w": w } };
        assert_eq!(weak_concern(None, None), None);
        assert_eq!(weak_concern(Some("1"), None).as_deref(), Some("1"));
        assert_eq!(weak_concern(Some("majority"), Some(&default(Bson::Int32(1)))), None);
        assert_eq!(weak_concern(None, Some(&default(Bson::Int32(1)))).as_deref(), Some("1"));
        assert_eq!(weak_concern(None, Some(&default(Bson::Int32(2)))), None);
        assert_eq!(weak_concern(None, Some(&default(Bson::from("majority")))), None);
    }
}
