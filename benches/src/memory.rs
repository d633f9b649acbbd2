use crate::BoxError;

/// How much memory this process has.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Resident {
    /// Bytes now.
    pub(crate) now: u64,
    /// Bytes at most so far.
    pub(crate) peak: u64,
}

/// What this process has now is its peak from now on, as Linux counts it.
pub(crate) fn forget_peak() -> Result<(), BoxError> {
    Ok(std::fs::write("/proc/self/clear_refs", "5")?)
}

/// Asks the system, which must be Linux.
pub(crate) fn resident() -> Result<Resident, BoxError> {
    let status = std::fs::read_to_string("/proc/self/status")?;
    let field = |name: &str| {
        let rest = status.lines().find_map(|line| line.strip_prefix(name));
        let kibibytes = rest.and_then(|rest| rest.split_whitespace().next()?.parse::<u64>().ok());
        kibibytes.map(|kibibytes| kibibytes * 1024).ok_or("/proc/self/status does not tell the memory")
    };
    Ok(Resident { now: field("VmRSS:")?, peak: field("VmHWM:")? })
}
