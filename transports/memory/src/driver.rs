use crate::StdoutTransport;
use pillarbox_core::{AnyTransport, Error, ErrorKind, TransportDriver};

/// Opens `stdout:`.
pub const DRIVER: TransportDriver = TransportDriver {
    schemes: &["stdout"],
    description: "Standard output: a line of JSON per message. Takes no options.",
    open: |url| Box::pin(async move { open(url) }),
};

fn open(url: &str) -> Result<AnyTransport, Error> {
    if url != "stdout:" {
        return Err(Error::new(ErrorKind::Misconfigured, "open")
            .describe("`stdout:` has no host, no path and no options; write just `stdout:`")
            .not_applied());
    }
    Ok(AnyTransport::new(StdoutTransport::new()))
}

#[cfg(test)]
mod tests {
    use super::*;
    use futures_executor::block_on;

    #[test]
    fn opens_its_own_url_and_nothing_else() {
        assert!(block_on((DRIVER.open)("stdout:")).is_ok());
        let error = block_on((DRIVER.open)("stdout:?outbox.name=x")).unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Misconfigured);
    }
}
