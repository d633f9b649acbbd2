use pillarbox_core::Moment;

/// The time since the machine booted, its sleep included.
#[cfg(any(target_os = "linux", target_os = "android"))]
pub(super) fn now() -> Moment {
    let time = rustix::time::clock_gettime(rustix::time::ClockId::Boottime);
    // Neither is negative since the boot.
    let seconds = u64::try_from(time.tv_sec).unwrap_or(0);
    let nanoseconds = u64::try_from(time.tv_nsec).unwrap_or(0);
    Moment::from_nanos(seconds.saturating_mul(1_000_000_000).saturating_add(nanoseconds))
}

/// The time since the program first asked. Whether it goes on while the machine sleeps is the system's matter: on Windows it
/// does, on macOS it does not, and then a lease looks longer to a relay than it is until its next answer from the store.
#[cfg(not(any(target_os = "linux", target_os = "android")))]
pub(super) fn now() -> Moment {
    use std::sync::OnceLock;
    #[cfg(not(all(feature = "js", target_family = "wasm", target_os = "unknown")))]
    use std::time::Instant;
    // `performance.now`, since `std` has no clock there.
    #[cfg(all(feature = "js", target_family = "wasm", target_os = "unknown"))]
    use web_time::Instant;
    static ORIGIN: OnceLock<Instant> = OnceLock::new();
    Moment::ORIGIN.after(ORIGIN.get_or_init(Instant::now).elapsed())
}

#[cfg(test)]
mod tests {
    use super::now;

    #[test]
    fn does_not_go_back() {
        let moments: Vec<_> = (0..1_000).map(|_| now()).collect();
        assert!(moments.is_sorted());
    }
}
