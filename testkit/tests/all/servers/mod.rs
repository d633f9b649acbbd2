#[cfg(target_os = "linux")]
mod endings;
mod process;
mod proxy;
mod rabbitmq;
mod redis;

use std::time::{Duration, Instant};

/// Polls until `condition` holds, for at most 20 seconds.
fn eventually(what: &str, mut condition: impl FnMut() -> bool) {
    let deadline = Instant::now() + Duration::from_secs(20);
    while !condition() {
        assert!(Instant::now() < deadline, "{what}: not within 20 seconds");
        std::thread::sleep(Duration::from_millis(5));
    }
}
