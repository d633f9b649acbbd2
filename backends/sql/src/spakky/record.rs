//! Rows of Spakky's table to messages.

use super::runs::Held;
use pillarbox_core::{
    Claimed, Content, Entry, Headers, Limits, Message, MessageId, Run, Timestamp, Token, Undecodable,
};
use sqlx::Row as _;
use sqlx::postgres::PgRow;
use std::collections::BTreeMap;
use uuid::Uuid;

/// The id in the first column. `uuid_send` answers 16 bytes always.
pub(super) fn id_of(row: &PgRow) -> Result<Uuid, sqlx::Error> {
    Ok(Uuid::from_slice(row.try_get(0)?).unwrap_or_default())
}

pub(super) fn answer(
    now: Timestamp,
    token: Token,
    held: &Held,
    rows: &[PgRow],
) -> Result<Claimed, sqlx::Error> {
    let mut found: BTreeMap<Uuid, &PgRow> = BTreeMap::new();
    for row in rows {
        found.insert(id_of(row)?, row);
    }
    let entries = held.ids.iter().filter_map(|id| found.get(id)).map(|row| entry(row));
    let entries: Vec<Entry> = entries.collect::<Result<_, _>>()?;
    let len = u32::try_from(entries.len()).unwrap_or(u32::MAX);
    let run = Run { token, claimed_at: held.since, lease_until: held.lease_until, start: 0, len };
    Ok(Claimed { runs: vec![run], entries, now, ..Claimed::default() })
}

fn entry(row: &PgRow) -> Result<Entry, sqlx::Error> {
    let attempts = row.try_get::<i32, _>(5)?;
    Ok(Entry { content: content(row)?, attempts: u32::try_from(attempts).unwrap_or(0), strikes: 0 })
}

pub(super) fn content(row: &PgRow) -> Result<Content, sqlx::Error> {
    let id = MessageId::from(id_of(row)?);
    let payload = bytes::Bytes::from(row.try_get::<Option<Vec<u8>>, _>(2)?.unwrap_or_default());
    let topic: Option<String> = row.try_get(1)?;
    let headers: Option<String> = row.try_get(3)?;
    let created_at: Option<i64> = row.try_get(4)?;
    let build = || -> Result<Message, String> {
        let mut headers: BTreeMap<String, String> = match headers.as_deref() {
            None | Some("null") => BTreeMap::new(),
            Some(json) => serde_json::from_str(json)
                .map_err(|error| format!("`headers` is no JSON object of strings: {error}"))?,
        };
        let content_type = headers.remove("content-type");
        let mut message = Message::given(
            id,
            Timestamp::from_micros(created_at.unwrap_or_default()),
            topic.unwrap_or_default(),
        )
        .limits(Limits::highest())
        .headers(headers.into_iter().collect::<Headers>());
        if let Some(content_type) = content_type {
            message = message.content_type(content_type);
        }
        message.payload(payload.clone()).map_err(|invalid| invalid.to_string())
    };
    Ok(match build() {
        Ok(message) => Content::Message(message),
        Err(reason) => {
            Content::Undecodable(Undecodable { id: Some(id), bytes: payload, reason: reason.into() })
        }
    })
}
