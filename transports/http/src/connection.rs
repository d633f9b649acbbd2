//! The client, which connects only to addresses that were checked.

use crate::config::misconfigured;
use crate::{HttpConfig, address};
use pillarbox_core::Error;
use reqwest::dns::{Addrs, Name, Resolve, Resolving};
use reqwest::redirect::Policy;
use reqwest::{Certificate, Client, retry};
use std::fmt;
use std::net::SocketAddr;
use std::time::Duration;

/// Idle connections are closed before common servers do it (the shortest default is 5 s), so that requests seldom meet one that is
/// just being closed.
const IDLE: Duration = Duration::from_secs(4);

/// Made once; nothing is connected yet.
pub(crate) fn client(config: &HttpConfig) -> Result<Client, Error> {
    provide_cryptography();
    let authorities = authorities(config)?;
    Client::builder()
        .tls_certs_merge(authorities)
        .user_agent(concat!("pillarbox/", env!("CARGO_PKG_VERSION")))
        .redirect(Policy::none())
        .referer(false)
        .retry(retry::never())
        // A proxy would resolve the name by itself.
        .no_proxy()
        .dns_resolver(Resolver { allow_private: config.allow_private })
        .connect_timeout(config.connect_timeout)
        .pool_idle_timeout(IDLE)
        .build()
        .map_err(|error| {
            misconfigured("the HTTP client cannot be made".to_owned()).caused_by(error.without_url())
        })
}

/// Those that are trusted beside the system's.
fn authorities(config: &HttpConfig) -> Result<Vec<Certificate>, Error> {
    let Some(path) = &config.root_certificates else { return Ok(Vec::new()) };
    let wrong = |what: &str| {
        misconfigured(format!("`transport.root_certificates` is {}, which {what}", path.display()))
    };
    let text = std::fs::read(path).map_err(|error| wrong("cannot be read").caused_by(error))?;
    match Certificate::from_pem_bundle(&text) {
        Ok(certificates) if !certificates.is_empty() => Ok(certificates),
        _ => Err(wrong("holds no certificate in PEM")),
    }
}

/// Resolves by the system, and answers only addresses that may be used: the client connects to one of them and to nothing else.
struct Resolver {
    allow_private: bool,
}

impl Resolve for Resolver {
    fn resolve(&self, name: Name) -> Resolving {
        let allow_private = self.allow_private;
        Box::pin(async move {
            let found = tokio::net::lookup_host((name.as_str(), 0)).await?;
            let usable = usable(found, allow_private)?;
            Ok(Box::new(usable.into_iter()) as Addrs)
        })
    }
}

fn usable(
    found: impl Iterator<Item = SocketAddr>,
    allow_private: bool,
) -> Result<Vec<SocketAddr>, RefusedAddress> {
    let (usable, refused): (Vec<_>, Vec<_>) =
        found.partition(|found| allow_private || address::is_public(found.ip()));
    if usable.is_empty() && !refused.is_empty() { Err(RefusedAddress) } else { Ok(usable) }
}

/// A name leads to private addresses only.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct RefusedAddress;

impl fmt::Display for RefusedAddress {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str("an address of a private network")
    }
}

impl std::error::Error for RefusedAddress {}

/// TLS needs a provider of cryptography; one that the program has chosen stays.
fn provide_cryptography() {
    if rustls::crypto::CryptoProvider::get_default().is_none() {
        // Fails only if another thread was first, which is as good.
        let _ = rustls::crypto::ring::default_provider().install_default();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_usable_addresses_are_answered() {
        let found = |texts: &[&str]| -> Vec<SocketAddr> {
            texts.iter().map(|text| SocketAddr::new(text.parse().unwrap(), 0)).collect()
        };
        let mixed = found(&["10.0.0.1", "8.8.8.8", "::1", "::ffff:127.0.0.1", "64:ff9b::10.0.0.1"]);
        assert_eq!(usable(mixed.iter().copied(), false), Ok(found(&["8.8.8.8"])));
        assert_eq!(usable(mixed.iter().copied(), true), Ok(mixed));
        assert_eq!(usable(found(&["127.0.0.1"]).into_iter(), false), Err(RefusedAddress));
        assert_eq!(usable(std::iter::empty(), false), Ok(Vec::new()));
    }
}
