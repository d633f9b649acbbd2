use crate::arguments::StatusArguments;
use crate::connect;
use crate::failure::Failure;
use crate::say;
use serde_json::json;

/// Prints how much is stored.
pub(crate) async fn run(arguments: StatusArguments) -> Result<(), Failure> {
    let storage = connect::storage(&arguments.storage).await?.storage;
    let stats = connect::admin(&storage)?.stats().await?;
    let age = stats.oldest_due_age;
    if arguments.json {
        let object = json!({
            "pending": stats.pending,
            "scheduled": stats.scheduled,
            "claimed": stats.claimed,
            "dead": stats.dead,
            "published": stats.published,
            "oldest_due_age_seconds": age.map(|age| age.as_secs_f64()),
        });
        return say::print(&format!("{object}\n"));
    }
    let mut text = format!(
        "pending    {:>12}  due, and waiting for a relay\n\
         scheduled  {:>12}  waiting for a time, a retry or an earlier message of their key\n\
         claimed    {:>12}  held by relays\n\
         dead       {:>12}  given up: see `pillarbox dead list`\n\
         published  {:>12}  kept after publishing\n",
        stats.pending, stats.scheduled, stats.claimed, stats.dead, stats.published
    );
    if let Some(age) = age {
        text += &format!("the oldest message that is due has waited for {age:.1?}\n");
    }
    say::print(&text)
}
