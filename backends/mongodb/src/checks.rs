//! What a server must be, looked at when an outbox is opened.

use crate::config::misconfigured;
use crate::error;
use crate::layout::whole;
use mongodb::Client;
use mongodb::bson::{Document, doc};
use mongodb::options::{Acknowledgment, WriteConcern};
use pillarbox_core::Error;

pub(crate) async fn check(client: &Client, place: &str) -> Result<(), Error> {
    let map = |failure| error::map(failure, "open", place);
    let admin = client.database("admin");
    let hello = admin.run_command(doc! { "hello": 1 }).await.map_err(map)?;
    judge(&hello, place)?;
    // Not everybody may ask for it.
    let defaults = admin.run_command(doc! { "getDefaultRWConcern": 1 }).await.ok();
    let nodes = hello.get_array("hosts").map_or(1, Vec::len);
    if let Some(weak) = weak_concern(client.write_concern(), defaults.as_ref(), nodes) {
        tracing::warn!(
            place,
            "transactions that commit with `{weak}` may lose their messages in a failover, and are seen by relays only later; leave `w` and `journal` out of the URL, or commit with the write concern `majority`"
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
    // 17 is MongoDB 6.0, the first whose partial indexes may have an `$or`.
    let version = hello.get_i32("maxWireVersion").unwrap_or(0);
    if version < 17 {
        return Err(misconfigured(format!(
            "MongoDB at {place} is too old (wire version {version}); 6.0 or later is needed"
        )));
    }
    Ok(())
}

/// The write concern that transactions of this client commit with, if it is weaker than the majority of so many nodes.
fn weak_concern(asked: Option<&WriteConcern>, defaults: Option<&Document>, nodes: usize) -> Option<String> {
    // One node confirms before it has written its journal.
    let is_weak = |number: u32| number < 2 || usize::try_from(number).is_ok_and(|number| number * 2 <= nodes);
    match asked {
        Some(asked) if asked.journal == Some(false) => return Some("j: false".to_owned()),
        Some(WriteConcern { w: Some(Acknowledgment::Nodes(number)), .. }) => {
            return is_weak(*number).then(|| format!("w: {number}"));
        }
        Some(WriteConcern { w: Some(_), .. }) => return None,
        _ => {}
    }
    let default = defaults?.get_document("defaultWriteConcern").ok()?;
    let number = u32::try_from(whole(default.get("w")?)?).ok()?;
    is_weak(number).then(|| format!("w: {number}"))
}

#[cfg(test)]
mod tests {
    use super::*;
    use mongodb::bson::Bson;

    #[test]
    fn servers_are_judged() {
        let judge = |hello: Document| judge(&hello, "host:1").map_err(|error| error.to_string());
        judge(doc! { "setName": "rs0", "maxWireVersion": 17 }).unwrap();
        judge(doc! { "msg": "isdbgrid", "maxWireVersion": 17 }).unwrap();
        let alone = judge(doc! { "maxWireVersion": 17 }).unwrap_err();
        assert!(alone.contains("host:1") && alone.contains("--replSet"), "{alone}");
        let old = judge(doc! { "setName": "rs0", "maxWireVersion": 13 }).unwrap_err();
        assert!(old.contains("6.0 or later"), "{old}");
    }

    #[test]
    fn a_weak_write_concern_is_seen() {
        let asked = |number| WriteConcern::builder().w(Acknowledgment::Nodes(number)).build();
        let default = |w: Bson| doc! { "defaultWriteConcern": { "w": w } };
        let weak = |asked: Option<WriteConcern>, default: Option<Document>, nodes| {
            weak_concern(asked.as_ref(), default.as_ref(), nodes)
        };
        assert_eq!(weak(None, None, 3), None);
        assert_eq!(weak(Some(asked(1)), None, 1).as_deref(), Some("w: 1"));
        assert_eq!(weak(Some(asked(2)), None, 3), None);
        assert_eq!(weak(Some(asked(2)), None, 5).as_deref(), Some("w: 2"));
        assert_eq!(weak(Some(WriteConcern::majority()), Some(default(Bson::Int32(1))), 3), None);
        let unwritten = WriteConcern::builder().w(Acknowledgment::Majority).journal(false).build();
        assert_eq!(weak(Some(unwritten), None, 3).as_deref(), Some("j: false"));
        let waits = WriteConcern::builder().w_timeout(std::time::Duration::from_secs(1)).build();
        assert_eq!(weak(Some(waits), Some(default(Bson::Int32(1))), 3).as_deref(), Some("w: 1"));
        assert_eq!(weak(None, Some(default(Bson::Int32(1))), 3).as_deref(), Some("w: 1"));
        assert_eq!(weak(None, Some(default(Bson::Int32(2))), 3), None);
        assert_eq!(weak(None, Some(default(Bson::from("majority"))), 3), None);
    }
}
