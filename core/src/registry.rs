//! Stores and transports by URL. Drivers are plain constants; nothing registers itself.

use crate::{AnyStorage, AnyTransport, EnqueueAlone, Error, ErrorKind, Storage};
use futures_util::future::BoxFuture;
use std::fmt;
use std::sync::Arc;

/// How one kind of store is opened by URL. A backend exports one as a constant.
#[derive(Clone, Copy)]
pub struct StorageDriver {
    /// The schemes that it opens, such as `redis` and `rediss`.
    pub schemes: &'static [&'static str],
    /// What it is, and its options, for people: a line, then one line for each option.
    pub description: &'static str,
    /// Opens the store that a URL with one of the schemes names. Errors follow [`Error`]'s rule: no credential in any part.
    pub open: fn(&str) -> BoxFuture<'_, Result<OpenedStorage, Error>>,
}

/// How one kind of transport is opened by URL. A transport's crate exports one as a constant.
#[derive(Clone, Copy)]
pub struct TransportDriver {
    /// The schemes that it opens, such as `amqp` and `amqps`.
    pub schemes: &'static [&'static str],
    /// What it is, and its options, for people: a line, then one line for each option.
    pub description: &'static str,
    /// Opens the transport that a URL with one of the schemes names. Errors follow [`Error`]'s rule: no credential in any part.
    pub open: fn(&str) -> BoxFuture<'_, Result<AnyTransport, Error>>,
}

/// A store that was opened by URL: both halves that need no transaction of the application.
#[derive(Clone)]
pub struct OpenedStorage {
    /// The relay's half.
    pub storage: AnyStorage,
    /// The producer's half, for messages that belong to no transaction of the application.
    pub producer: Arc<dyn EnqueueAlone>,
}

impl OpenedStorage {
    /// Both halves of one handle.
    pub fn new(handle: impl Storage + EnqueueAlone + Clone + 'static) -> Self {
        Self { storage: AnyStorage::new(handle.clone()), producer: Arc::new(handle) }
    }
}

/// Opens stores and transports by URL, with the drivers that it was given.
#[derive(Clone, Debug, Default)]
pub struct Registry {
    storages: Vec<StorageDriver>,
    transports: Vec<TransportDriver>,
    absent: Vec<AbsentScheme>,
}

#[derive(Clone, Copy, Debug)]
struct AbsentScheme {
    scheme: &'static str,
    feature: &'static str,
    /// Only of this side, where stores and transports share a scheme.
    side: Option<&'static str>,
}

impl Registry {
    /// A registry that knows no scheme yet.
    pub const fn new() -> Self {
        Self { storages: Vec::new(), transports: Vec::new(), absent: Vec::new() }
    }

    /// Adds a kind of store. Of two drivers with one scheme the later one opens it, so that an application can replace one.
    #[must_use]
    pub fn with_storage(mut self, driver: StorageDriver) -> Self {
        self.storages.push(driver);
        self
    }

    /// Adds a kind of transport. Of two drivers with one scheme the later one opens it.
    #[must_use]
    pub fn with_transport(mut self, driver: TransportDriver) -> Self {
        self.transports.push(driver);
        self
    }

    /// Makes the error about an unknown `scheme` name the `feature` that would bring it.
    #[must_use]
    pub fn with_absent(mut self, scheme: &'static str, feature: &'static str) -> Self {
        self.absent.push(AbsentScheme { scheme, feature, side: None });
        self
    }

    /// As [`with_absent`](Self::with_absent), for transports alone: where a store and a transport share a scheme.
    #[must_use]
    pub fn with_absent_transport(mut self, scheme: &'static str, feature: &'static str) -> Self {
        self.absent.insert(0, AbsentScheme { scheme, feature, side: Some("transport") });
        self
    }

    /// Opens the store at `url` for a relay.
    ///
    /// # Errors
    /// `Misconfigured` if no driver knows the scheme; it lists the known ones. Else what the driver answers.
    pub async fn storage(&self, url: &str) -> Result<AnyStorage, Error> {
        Ok(self.open_storage(url).await?.storage)
    }

    /// Opens the store at `url`, both halves.
    ///
    /// # Errors
    /// As [`storage`](Self::storage).
    pub async fn open_storage(&self, url: &str) -> Result<OpenedStorage, Error> {
        let scheme = scheme_of(url, "storage")?;
        let Some(driver) =
            self.storages.iter().rev().find(|driver| driver.schemes.contains(&scheme.as_str()))
        else {
            return Err(self.unknown(&scheme, "storage", self.storages.iter().flat_map(|one| one.schemes)));
        };
        (driver.open)(url).await
    }

    /// Opens the transport at `url`.
    ///
    /// # Errors
    /// As [`storage`](Self::storage).
    pub async fn transport(&self, url: &str) -> Result<AnyTransport, Error> {
        let scheme = scheme_of(url, "transport")?;
        let Some(driver) =
            self.transports.iter().rev().find(|driver| driver.schemes.contains(&scheme.as_str()))
        else {
            return Err(self.unknown(
                &scheme,
                "transport",
                self.transports.iter().flat_map(|one| one.schemes),
            ));
        };
        (driver.open)(url).await
    }

    /// The stores that it opens.
    pub fn storages(&self) -> &[StorageDriver] {
        &self.storages
    }

    /// The transports that it opens.
    pub fn transports(&self) -> &[TransportDriver] {
        &self.transports
    }

    fn unknown<'a>(&self, scheme: &str, side: &str, known: impl Iterator<Item = &'a &'static str>) -> Error {
        let known: Vec<_> = known.map(|scheme| format!("`{scheme}:`")).collect();
        let known = if known.is_empty() {
            "no scheme is enabled".to_owned()
        } else {
            format!("there are {}", known.join(", "))
        };
        let absent = self
            .absent
            .iter()
            .find(|absent| absent.scheme == scheme && absent.side.is_none_or(|only| only == side));
        let reason = match absent {
            Some(AbsentScheme { feature, .. }) => {
                format!("comes with the feature `{feature}`, which is not enabled")
            }
            None => format!("opens no {side}"),
        };
        misconfigured(format!("the scheme `{scheme}:` {reason}; {known}"))
    }
}

/// The scheme of a URL in lower case. The rest of the text is never shown: it may hold a password.
fn scheme_of(url: &str, side: &str) -> Result<String, Error> {
    let scheme = url.split_once(':').map(|(scheme, _)| scheme);
    let is_scheme = |scheme: &&str| {
        scheme.starts_with(|first: char| first.is_ascii_alphabetic())
            && scheme.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"+-.".contains(&byte))
    };
    match scheme.filter(is_scheme) {
        Some(scheme) => Ok(scheme.to_ascii_lowercase()),
        None => Err(misconfigured(format!(
            "the {side}'s URL has no scheme; write it as `scheme://host`, or `scheme:` where there is no host"
        ))),
    }
}

fn misconfigured(description: String) -> Error {
    Error::new(ErrorKind::Misconfigured, "open").describe(description).not_applied()
}

impl fmt::Debug for StorageDriver {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.debug_struct("StorageDriver").field("schemes", &self.schemes).finish_non_exhaustive()
    }
}

impl fmt::Debug for TransportDriver {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.debug_struct("TransportDriver").field("schemes", &self.schemes).finish_non_exhaustive()
    }
}

impl fmt::Debug for OpenedStorage {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.debug_struct("OpenedStorage").finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use futures_executor::block_on;

    const REFUSES: StorageDriver = StorageDriver {
        schemes: &["first", "second"],
        description: "Refuses.",
        open: |url| {
            let length = url.len();
            Box::pin(async move { Err(misconfigured(format!("asked with {length} bytes"))) })
        },
    };

    fn refusal(registry: &Registry, url: &str) -> String {
        block_on(registry.storage(url)).unwrap_err().to_string()
    }

    #[test]
    fn a_scheme_chooses_the_driver_whatever_its_case() {
        let registry = Registry::new().with_storage(REFUSES);
        assert!(refusal(&registry, "SECOND://host").contains("asked with 13 bytes"));
    }

    #[test]
    fn an_unknown_scheme_lists_the_known_ones_and_names_the_feature() {
        let registry = Registry::new().with_storage(REFUSES).with_absent("postgres", "postgres");
        let unknown = refusal(&registry, "third://user:secret@host");
        assert!(unknown.contains("`third:` opens no storage; there are `first:`, `second:`"), "{unknown}");
        let absent = refusal(&registry, "postgres://user:secret@host");
        assert!(absent.contains("feature `postgres`"), "{absent}");
        assert!(!(unknown + &absent).contains("secret"));
        let registry = registry.with_absent_transport("postgres", "postgres-notify");
        let absent = block_on(registry.transport("postgres://host")).unwrap_err().to_string();
        assert!(absent.contains("feature `postgres-notify`"), "{absent}");
        assert!(refusal(&registry, "postgres://host").contains("feature `postgres`"));
        let transport = block_on(registry.transport("amqp://user:secret@host")).unwrap_err().to_string();
        assert!(transport.contains("no scheme is enabled") && !transport.contains("secret"), "{transport}");
    }

    #[test]
    fn what_is_no_url_is_not_repeated() {
        let registry = Registry::new().with_storage(REFUSES);
        for url in ["", "secret", ":secret@host", "user name:secret@host/", "1st:secret"] {
            let error = refusal(&registry, url);
            assert!(error.contains("has no scheme") && !error.contains("secret"), "{error}");
        }
    }
}
