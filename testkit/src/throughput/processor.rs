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
    let (server_before, client_before, begun) = (server.map(Used::by), Used::here(), Instant::now());
    work.await?;
    let (took, client) = (begun.elapsed(), Used::here().since(client_before));
    let server = server.map(Used::by).zip(server_before).map(|(after, before)| after.since(before));
    Ok(Cost { took, client, server })
}

/// How much processor a process has used so far; nothing for one that has ended.
#[derive(Clone, Copy, Debug, Default)]
struct Used {
    /// To the nanosecond, of the threads that live: one that ends takes its figure along, as a server's does with its connection.
    by_threads: Duration,
    /// In hundredths of a second, of all threads that ever lived.
    by_all: Duration,
}

impl Used {
    /// By a process, and those that it started and that live.
    fn by(process: u32) -> Self {
        let own = Self::alone(process);
        children(process).into_iter().map(Self::by).fold(own, |sum, child| Self {
            by_threads: sum.by_threads + child.by_threads,
            by_all: sum.by_all + child.by_all,
        })
    }

    /// By this process, without the servers that it started.
    fn here() -> Self {
        Self::alone(std::process::id())
    }

    fn alone(process: u32) -> Self {
        Self { by_threads: by_threads(process), by_all: by_all(process) }
    }

    /// The finer figure, unless threads have ended.
    fn since(self, before: Self) -> Duration {
        let fine = self.by_threads.saturating_sub(before.by_threads);
        let coarse = self.by_all.saturating_sub(before.by_all);
        if fine + 3 * HUNDREDTH < coarse { coarse } else { fine }
    }
}

const HUNDREDTH: Duration = Duration::from_millis(10);

fn by_threads(process: u32) -> Duration {
    let Ok(tasks) = fs::read_dir(format!("/proc/{process}/task")) else { return Duration::ZERO };
    let nanos = tasks.flatten().filter_map(|task| {
        let figures = fs::read_to_string(task.path().join("schedstat")).ok()?;
        figures.split_whitespace().next()?.parse::<u64>().ok()
    });
    Duration::from_nanos(nanos.sum())
}

fn by_all(process: u32) -> Duration {
    let stat = fs::read_to_string(format!("/proc/{process}/stat")).unwrap_or_default();
    // The name, in parentheses, may hold anything; behind it come the state and ten more figures before these two.
    let figures = stat.rsplit(')').next().unwrap_or_default().split_whitespace();
    HUNDREDTH * figures.skip(11).take(2).filter_map(|figure| figure.parse::<u32>().ok()).sum()
}

fn children(process: u32) -> Vec<u32> {
    let Ok(tasks) = fs::read_dir(format!("/proc/{process}/task")) else { return Vec::new() };
    let lists = tasks.flatten().filter_map(|task| fs::read_to_string(task.path().join("children")).ok());
    let lists: Vec<String> = lists.collect();
    lists.iter().flat_map(|list| list.split_whitespace()).filter_map(|child| child.parse().ok()).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn a_thread_that_ends_takes_nothing_along() {
        let used = Duration::from_millis(100);
        let before = Used::here().by_threads;
        let busy = move || while Used::here().by_threads < before + used {};
        let work = async {
            std::thread::spawn(busy).join().map_err(|_| "it panicked")?;
            Ok(())
        };
        let cost = cost(None, work).await.unwrap();
        assert!(cost.client > used / 2, "{cost:?}");
    }
}
