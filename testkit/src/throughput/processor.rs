//! How much processor something takes, as Linux tells it. Elsewhere nothing is known, and everything is zero.

use super::BoxError;
use std::fs;
use std::time::{Duration, Instant};

/// How much time and processor something took.
#[derive(Clone, Copy, Debug)]
pub struct Cost {
    /// How long it took.
    pub took: Duration,
    /// What this process used.
    pub client: Duration,
    /// What the server used; none where there was no process to ask for.
    pub server: Option<Duration>,
}

/// What `work` costs, in the process of the server too.
///
/// # Errors
/// Those of `work`.
pub async fn cost(
    server: Option<u32>,
    work: impl Future<Output = Result<(), BoxError>>,
) -> Result<Cost, BoxError> {
    let used = || server.map(used_by);
    let (server_before, client_before, begun) = (used(), used_here(), Instant::now());
    work.await?;
    let (took, client) = (begun.elapsed(), used_here().saturating_sub(client_before));
    let server = used().zip(server_before).map(|(after, before)| after.saturating_sub(before));
    Ok(Cost { took, client, server })
}

/// How much processor a process, and those that it started, have used so far; zero for one that has ended.
///
/// Linux tells it to the nanosecond, thread by thread. A thread that ends takes its figure along.
fn used_by(process: u32) -> Duration {
    let own = threads(process);
    children(process).into_iter().map(used_by).fold(own, |sum, child| sum + child)
}

/// The same for this process alone, without the servers that it started.
fn used_here() -> Duration {
    threads(std::process::id())
}

fn threads(process: u32) -> Duration {
    let Ok(tasks) = fs::read_dir(format!("/proc/{process}/task")) else { return Duration::ZERO };
    let nanos = tasks.flatten().filter_map(|task| {
        let figures = fs::read_to_string(task.path().join("schedstat")).ok()?;
        figures.split_whitespace().next()?.parse::<u64>().ok()
    });
    Duration::from_nanos(nanos.sum())
}

fn children(process: u32) -> Vec<u32> {
    let Ok(tasks) = fs::read_dir(format!("/proc/{process}/task")) else { return Vec::new() };
    let lists = tasks.flatten().filter_map(|task| fs::read_to_string(task.path().join("children")).ok());
    let lists: Vec<String> = lists.collect();
    lists.iter().flat_map(|list| list.split_whitespace()).filter_map(|child| child.parse().ok()).collect()
}
