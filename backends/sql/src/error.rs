//! One table from the client's errors to what a relay does about them.

use crate::dialect::Dialect;
use pillarbox_core::{Error, ErrorKind};
use sqlx::error::DatabaseError;

/// Maps a failure of `operation` at `place`. Whether it took effect is for the caller to add: only a commit can have.
pub(crate) fn map<D: Dialect>(failure: sqlx::Error, operation: &'static str, place: &str) -> Error {
    let (kind, advice) = row::<D>(&failure);
    Error::new(kind, operation).describe(format!("{} at {place}: {advice}", D::PRODUCT)).caused_by(failure)
}

/// Whether running the whole transaction again is the answer: a deadlock, a failed serialization, a busy database.
pub(crate) fn is_transient<D: Dialect>(failure: &sqlx::Error) -> bool {
    let sqlx::Error::Database(error) = failure else { return false };
    let code = error.code();
    let code = code.as_deref().unwrap_or_default();
    if D::PRODUCT == "SQLite" {
        return matches!(primary(code), 5 | 6);
    }
    matches!(code, "40001" | "40P01") || matches!(D::number(&**error), Some(1205 | 1213 | 1020))
}

/// Whether this answer to a commit says for certain that nothing was committed: a collision or a constraint, and in SQLite a full disk.
/// Others, such as a shutdown or a disk that did not confirm, may come after the transaction was written.
pub(crate) fn is_refused_commit<D: Dialect>(failure: &sqlx::Error) -> bool {
    let sqlx::Error::Database(error) = failure else { return false };
    let code = error.code();
    let code = code.as_deref().unwrap_or_default();
    if D::PRODUCT == "SQLite" {
        return matches!(primary(code), 5 | 6 | 13 | 19);
    }
    is_transient::<D>(failure) || code.starts_with("23")
}

fn row<D: Dialect>(failure: &sqlx::Error) -> (ErrorKind, &'static str) {
    use ErrorKind::{Misconfigured, Unavailable, Unexpected};
    match failure {
        sqlx::Error::Io(_) => (Unavailable, "is it running, and reachable?"),
        sqlx::Error::Tls(_) => {
            (Misconfigured, "TLS failed; check the certificates and the options of the URL")
        }
        sqlx::Error::Configuration(_) | sqlx::Error::InvalidArgument(_) => (Misconfigured, "check the URL"),
        sqlx::Error::PoolTimedOut => {
            (Unavailable, "no connection in time; is it running, and is `outbox.max_connections` enough?")
        }
        sqlx::Error::PoolClosed | sqlx::Error::WorkerCrashed | sqlx::Error::BeginFailed => {
            (Unavailable, "the connection was lost")
        }
        sqlx::Error::Protocol(_) => (Unavailable, "the connection broke within an answer"),
        sqlx::Error::Database(error) => {
            let code = error.code();
            let code = code.as_deref().unwrap_or_default();
            if D::PRODUCT == "SQLite" { sqlite_row(code, &**error) } else { server_row::<D>(code, &**error) }
        }
        _ => (Unexpected, "it answered something that was not expected"),
    }
}

const MIGRATE: &str = "the outbox's tables are missing or of another version; run `pillarbox migrate`";

fn primary(code: &str) -> u32 {
    code.parse::<u32>().map_or(0, |code| code & 0xff)
}

fn sqlite_row(code: &str, error: &(dyn DatabaseError + 'static)) -> (ErrorKind, &'static str) {
    use ErrorKind::{Misconfigured, Unavailable, Unexpected};
    match primary(code) {
        1 if error.message().contains("no such") => (Misconfigured, MIGRATE),
        3 | 8 | 23 => (Misconfigured, "the file or its folder cannot be written"),
        5 | 6 => (Unavailable, "another process holds it"),
        7 => (Unavailable, "there is no memory left"),
        10 => (Unavailable, "the disk failed"),
        11 | 26 => (Misconfigured, "the file is no database, or is damaged"),
        13 => (Unavailable, "the disk is full"),
        14 => (Misconfigured, "the file cannot be opened; `pillarbox migrate` makes a new one"),
        _ => (Unexpected, "it answered something that was not expected"),
    }
}

fn server_row<D: Dialect>(code: &str, error: &(dyn DatabaseError + 'static)) -> (ErrorKind, &'static str) {
    use ErrorKind::{Misconfigured, Unavailable, Unexpected};
    // MySQL's own numbers say more than its SQLSTATEs.
    match D::number(error) {
        Some(1040 | 1203 | 1226) => return (Unavailable, "it has no room for another connection"),
        Some(1044 | 1045 | 1142 | 1143 | 1698) => {
            return (Misconfigured, "check the user, the password and its rights");
        }
        Some(1049) => return (Misconfigured, "the database does not exist"),
        Some(1053 | 1077 | 1079 | 1080 | 1927 | 3169) => return (Unavailable, "it is shutting down"),
        Some(1054 | 1146) => return (Misconfigured, MIGRATE),
        Some(1021 | 1041 | 1114) => return (Unavailable, "its disk or memory is full"),
        Some(1205 | 1213 | 1020) => return (Unavailable, "transactions collided again and again"),
        Some(1290 | 1792 | 1836) => {
            return (Unavailable, "this one takes no writes; a failover may be under way");
        }
        Some(1153) => return (Misconfigured, "`max_allowed_packet` is smaller than a message"),
        _ => {}
    }
    match code {
        "40001" | "40P01" | "55P03" => (Unavailable, "transactions collided again and again"),
        "42P01" | "42703" | "3F000" | "42883" => (Misconfigured, MIGRATE),
        "42501" => (Misconfigured, "the user may not do this; grant it the outbox's tables"),
        "25006" => (Unavailable, "this one takes no writes; a failover may be under way"),
        "3D000" => (Misconfigured, "the database does not exist"),
        "53100" => (Unavailable, "its disk is full"),
        "53300" => (Unavailable, "it has no room for another connection"),
        "57014" => (Unavailable, "it cancelled the statement; its timeout may be too short"),
        "57P01" | "57P02" | "57P03" | "25P03" => (Unavailable, "it is starting or shutting down"),
        "26000" | "42P05" => (
            Misconfigured,
            "a pooler in transaction mode mixes up prepared statements; add `outbox.transaction_pooler=true` to the URL",
        ),
        _ => match &code[..code.len().min(2)] {
            "08" | "53" | "57" | "58" => (Unavailable, "it cannot serve now"),
            "28" => (Misconfigured, "check the user and the password"),
            _ => (Unexpected, "it answered something that was not expected"),
        },
    }
}
