//! What keeps keys in order: the due times of a key's messages that came back never fall from one to the next, so that the order of
//! due times is the order of the key.

use crate::dialect::{Argument, Dialect};
use crate::layout::in_list;
use crate::session::{Session, arguments};
use pillarbox_core::Text;
use std::collections::HashMap;

/// So many keys go into one statement at most.
const KEYS: usize = 200;

/// The last of a key's messages that one transaction sent back.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Held {
    pub(crate) seq: i64,
    pub(crate) due_at: i64,
}

/// Makes messages that came back earlier wait no shorter than what now stands before them in their key.
pub(crate) async fn hold_back<D: Dialect>(
    session: &mut Session<'_, D>,
    held: impl Iterator<Item = (Text, Held)>,
) -> Result<(), sqlx::Error> {
    let mut last: HashMap<Text, Held> = HashMap::new();
    for (key, held) in held {
        let known = last.entry(key).or_insert(held);
        known.seq = known.seq.max(held.seq);
        known.due_at = known.due_at.max(held.due_at);
    }
    for (key, Held { seq, due_at }) in last {
        session
            .execute(
                "UPDATE {message} SET due_at = ? WHERE held_key = ? AND state IN (2, 6) AND seq > ? AND due_at < ?",
                arguments![due_at, &*key, seq, due_at],
            )
            .await?;
    }
    Ok(())
}

/// Of each key the latest due time of what came back; nothing for a key that only a dead head holds.
pub(crate) async fn latest_dues<D: Dialect>(
    session: &mut Session<'_, D>,
    keys: impl Iterator<Item = Text>,
) -> Result<HashMap<Text, i64>, sqlx::Error> {
    let mut keys: Vec<Text> = keys.collect();
    keys.sort_unstable();
    keys.dedup();
    let mut dues = HashMap::new();
    for keys in keys.chunks(KEYS) {
        let places = vec!["?"; keys.len()].join(", ");
        let sql = format!(
            "SELECT held_key, max(due_at) FROM {{message}} WHERE state IN (2, 6) AND held_key IN ({places}) GROUP BY held_key"
        );
        let arguments = keys.iter().map(|key| Argument::Text(key.to_string())).collect();
        for row in session.rows_once(&sql, arguments).await? {
            if let (Some(key), Some(due)) = (D::text(&row, 0)?, D::int(&row, 1)?) {
                dues.insert(key.into(), due);
            }
        }
    }
    Ok(dues)
}

/// Puts messages behind everything that was enqueued before, as new ones without charges. `enqueued_at` is what counts as the time
/// of their enqueueing, `order` their order.
pub(crate) async fn enqueue_again<D: Dialect>(
    session: &mut Session<'_, D>,
    messages: &[i64],
    enqueued_at: &str,
    order: &str,
) -> Result<(), sqlx::Error> {
    let list = in_list(messages);
    let sql = format!(
        "INSERT INTO {{message}} (id, topic, ordering_key, headers, payload, content_type, created_at, deliver_at, enqueued_at, state) \
         SELECT id, topic, ordering_key, headers, payload, content_type, created_at, deliver_at, {enqueued_at}, 1 \
         FROM {{message}} WHERE seq IN ({list}) ORDER BY {order}"
    );
    session.execute_once(&sql, Vec::new()).await?;
    session.delete(messages).await?;
    Ok(())
}
