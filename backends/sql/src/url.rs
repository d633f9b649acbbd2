//! Reads the URLs of outboxes.

use crate::config::{SqlConfig, misconfigured};
use crate::dialect::Dialect;
use pillarbox_core::{Error, HeadPolicy, Limits, UrlOptions, nearest};

pub(crate) fn parse<D: Dialect>(text: &str) -> Result<SqlConfig<D>, Error> {
    let scheme = text.split_once(':').map_or("", |(scheme, _)| scheme);
    if !D::SCHEMES.contains(&scheme.to_ascii_lowercase().as_str()) {
        let known: Vec<_> = D::SCHEMES.iter().map(|scheme| format!("`{scheme}:`")).collect();
        return Err(misconfigured(format!(
            "this is no URL of {}; begin it with {}",
            D::PRODUCT,
            known.join(" or ")
        )));
    }
    let (place, query) = text.split_once('?').unwrap_or((text, ""));
    let mut pairs: Vec<(String, String)> = Vec::new();
    let mut client = url::form_urlencoded::Serializer::new(String::new());
    for (name, value) in url::form_urlencoded::parse(query.as_bytes()) {
        if name.starts_with("outbox.") {
            pairs.push((name.into_owned(), value.into_owned()));
        } else if D::CLIENT_OPTIONS.contains(&&*name) || name.starts_with("options[") {
            client.append_pair(&name, &value);
        } else {
            let near = nearest(&name, D::CLIENT_OPTIONS).unwrap_or_default();
            return Err(misconfigured(format!(
                "`{name}` is no option of the client for {}; did you mean `{near}`? Ours begin with `outbox.`",
                D::PRODUCT
            )));
        }
    }
    let query = client.finish();
    let separator = if query.is_empty() { "" } else { "?" };
    let options = D::options(&format!("{place}{separator}{query}")).map_err(|error| {
        // The client's own words may quote the URL; those of a wrong option name it and its value only.
        let words = match &error {
            sqlx::Error::Configuration(cause) => cause.to_string(),
            _ => String::new(),
        };
        let shown =
            if words.contains('@') || text.contains(&words) { String::new() } else { format!(" ({words})") };
        misconfigured(format!("the URL of {} cannot be read{shown}; write `{}`", D::PRODUCT, form::<D>()))
    })?;
    let mut config = SqlConfig::new(options)?;
    let mut options = UrlOptions::new("outbox.", pairs);
    apply(&mut config, &mut options)?;
    options.finish()?;
    config.check()?;
    Ok(config)
}

fn form<D: Dialect>() -> String {
    match D::SCHEMES {
        ["sqlite", ..] => "sqlite://folder/file.db".to_owned(),
        [scheme, ..] => format!("{scheme}://user:password@host:port/database"),
        [] => String::new(),
    }
}

fn apply<D: Dialect>(config: &mut SqlConfig<D>, options: &mut UrlOptions) -> Result<(), Error> {
    if let Some(name) = options.text("name")? {
        config.name = name;
    }
    if let Some(policy) = options.parsed::<HeadPolicy>("head_policy", "`continue` or `block`")? {
        config.head_policy = Some(policy);
    }
    if let Some(strikes) = options.parsed("max_strikes", "a whole number from 1 up")? {
        config.max_strikes = Some(strikes);
    }
    if let Some(bytes) = options.parsed("max_payload", "a number of bytes")? {
        config.max_payload = Some(Limits::with_max_payload(bytes)?);
    }
    if let Some(keep) = options.parsed("keep_published", "`true` or `false`")? {
        config.keep_published = Some(keep);
    }
    if let Some(length) = options.duration("published_partitions")? {
        config.published_partitions = Some(length);
    }
    if let Some(connections) = options.parsed("max_connections", "a whole number from 1 up")? {
        config.max_connections = connections;
    }
    if let Some(timeout) = options.duration("connect_timeout")? {
        config.connect_timeout = timeout;
    }
    if let Some(timeout) = options.duration("response_timeout")? {
        config.response_timeout = timeout;
    }
    if let Some(notify) = options.parsed("notify", "`true` or `false`")? {
        config.notify = notify;
    }
    if let Some(pooler) = options.parsed("transaction_pooler", "`true` or `false`")? {
        config.transaction_pooler = pooler;
    }
    Ok(())
}
