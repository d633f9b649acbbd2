use crate::{MemoryConfig, MemoryStorage};
use pillarbox_core::{Error, ErrorKind, Limits, OpenedStorage, StorageDriver, UrlOptions};

/// Opens `memory:`, a new outbox each time, with the options of [`MemoryConfig`]:
/// `memory:?outbox.head_policy=block&outbox.max_strikes=5`.
pub const DRIVER: StorageDriver = StorageDriver {
    schemes: &["memory"],
    description: "An outbox in memory, new each time: for one process, and gone with it.
  outbox.head_policy     what a dead head of a key does: continue (default) or block
  outbox.max_strikes     how many dead relays bury a message; default 3
  outbox.max_run         the longest run that a claim answers; default 500
  outbox.max_payload     the largest payload in bytes; default 1048576
  outbox.keep_published  whether published messages stay: true or false (default)",
    open: |url| Box::pin(async move { MemoryStorage::open(config(url)?).map(OpenedStorage::new) }),
};

fn config(url: &str) -> Result<MemoryConfig, Error> {
    let rest = url.split_once(':').map_or("", |(_, rest)| rest);
    let (place, query) = rest.split_once('?').unwrap_or((rest, ""));
    if !place.is_empty() {
        return Err(Error::new(ErrorKind::Misconfigured, "open")
            .describe("`memory:` has no host and no path; write `memory:` or `memory:?outbox.max_strikes=5`")
            .not_applied());
    }
    let pairs = query.split('&').filter(|pair| !pair.is_empty());
    // No option here takes text that would need decoding. What is none of ours is unknown too: there is no other client.
    let mut options = UrlOptions::new("", pairs.map(|pair| pair.split_once('=').unwrap_or((pair, ""))));
    let mut config = MemoryConfig::new();
    if let Some(policy) = options.text("outbox.head_policy")? {
        config = config.head_policy(policy.parse()?);
    }
    if let Some(strikes) = options.parsed("outbox.max_strikes", "a whole number")? {
        config = config.max_strikes(strikes);
    }
    if let Some(messages) = options.parsed("outbox.max_run", "a whole number")? {
        config = config.max_run(messages);
    }
    if let Some(bytes) = options.parsed("outbox.max_payload", "a number of bytes")? {
        config = config.limits(Limits::with_max_payload(bytes)?);
    }
    if let Some(keep) = options.parsed("outbox.keep_published", "`true` or `false`")? {
        config = config.keep_published(keep);
    }
    options.finish()?;
    Ok(config)
}

#[cfg(test)]
mod tests {
    use super::*;
    use futures_executor::block_on;
    use pillarbox_core::{HeadPolicy, Message, Storage as _};

    #[test]
    fn opens_both_halves_of_one_outbox() {
        let opened =
            block_on((DRIVER.open)("memory:?outbox.head_policy=block&outbox.max_strikes=5")).unwrap();
        let guarantees = opened.storage.guarantees();
        assert_eq!((guarantees.head_policy, guarantees.max_strikes), (HeadPolicy::Block, 5));
        let message = Message::to("orders.created").payload("{}").unwrap();
        block_on(opened.producer.enqueue_alone(&[message])).unwrap();
        let stats = block_on(opened.storage.admin().unwrap().stats()).unwrap();
        assert_eq!(stats.pending, 1);
    }

    #[test]
    fn an_option_that_is_wrong_or_unknown_is_named() {
        for (url, part) in [
            ("memory:?outbox.max_strike=1", "did you mean `outbox.max_strikes`?"),
            ("memory:?max_strikes=1", "`max_strikes` is no option"),
            ("memory:?outbox.max_strikes=many", "`outbox.max_strikes` is \"many\""),
            ("memory:?outbox.head_policy=stop", "`head_policy`"),
            ("memory:?outbox.max_payload=0", "`max_payload`"),
            ("memory://host", "no host"),
        ] {
            let error = block_on((DRIVER.open)(url)).unwrap_err();
            assert_eq!(error.kind(), ErrorKind::Misconfigured);
            assert!(error.to_string().contains(part), "{url}: {error}");
        }
    }
}
