use crate::arguments::StatusArguments;
use crate::connect;
use crate::failure::Failure;
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
        println!("{object}");
        return Ok(());
    }
    println!("pending    {:>12}  due, and waiting for a relay", stats.pending);
    println!(
        "scheduled  {:>12}  waiting for a time, a retry or an earlier message of their key",
        stats.scheduled
    );
    println!("claimed    {:>12}  held by relays", stats.claimed);
    println!("dead       {:>12}  given up: see `pillarbox dead list`", stats.dead);
    println!("published  {:>12}  kept after publishing", stats.published);
    if let Some(age) = age {
        println!("the oldest message that is due has waited for {age:.1?}");
    }
    Ok(())
}
