//! Reads the URLs of outboxes.

use crate::config::{MongoConfig, misconfigured};
use mongodb::options::ConnectionString;
use pillarbox_core::{Error, HeadPolicy, Limits, UrlOptions};

const FORMS: &str =
    "`mongodb://user:password@host:27017,host:27017/database?replicaSet=rs0` or `mongodb+srv://…`";

pub(crate) fn parse(text: &str) -> Result<MongoConfig, Error> {
    let (scheme, rest) = text.split_once("://").ok_or_else(|| not_a_url("it has no scheme"))?;
    if scheme != "mongodb" && scheme != "mongodb+srv" {
        return Err(not_a_url("its scheme is none of ours"));
    }
    let (place, query) = rest.split_once('?').unwrap_or((rest, ""));
    let mut pairs: Vec<(String, String)> = Vec::new();
    let mut client: Vec<&str> = Vec::new();
    for option in query.split('&').filter(|option| !option.is_empty()) {
        if option.starts_with("outbox.") {
            let decoded = ::url::form_urlencoded::parse(option.as_bytes());
            pairs.extend(decoded.map(|(name, value)| (name.into_owned(), value.into_owned())));
        } else {
            // The client reads its own, in its own encoding.
            client.push(option);
        }
    }
    let separator = if place.contains('/') { "" } else { "/" };
    let question = if client.is_empty() { "" } else { "?" };
    let url = format!("{scheme}://{place}{separator}{question}{}", client.join("&"));
    // What the client says about a URL may repeat parts of it, and so a password.
    let parsed = ConnectionString::parse(&url).map_err(|_| not_a_url("the client cannot read it"))?;
    let mut config = MongoConfig::new(parsed.default_database.unwrap_or_default());
    config.url = url;
    let mut options = UrlOptions::new("outbox.", pairs);
    apply(&mut config, &mut options)?;
    options.finish()?;
    config.check()?;
    Ok(config)
}

fn apply(config: &mut MongoConfig, options: &mut UrlOptions) -> Result<(), Error> {
    if let Some(name) = options.text("name")? {
        config.name = name;
    }
    if let Some(lanes) = options.parsed("lanes", "a whole number from 1 to 200")? {
        config.lanes = Some(lanes);
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
    if let Some(timeout) = options.duration("response_timeout")? {
        config.response_timeout = timeout;
    }
    if let Some(timeout) = options.duration("connect_timeout")? {
        config.connect_timeout = timeout;
    }
    Ok(())
}

fn not_a_url(what: &str) -> Error {
    misconfigured(format!("this is no URL of a MongoDB outbox ({what}); write {FORMS}"))
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::time::Duration;

    #[test]
    fn our_options_are_taken_and_the_client_s_are_left() {
        let config = parse(
            "mongodb://me:pa%40ss@a:1,b:2/shop?replicaSet=rs0&outbox.name=orders&outbox.lanes=8&w=majority&outbox.response_timeout=3s",
        )
        .unwrap();
        assert_eq!(config.url, "mongodb://me:pa%40ss@a:1,b:2/shop?replicaSet=rs0&w=majority");
        assert_eq!((&*config.database, &*config.name, config.lanes), ("shop", "orders", Some(8)));
        assert_eq!(config.response_timeout, Duration::from_secs(3));
        assert_eq!(parse("mongodb://h/shop").unwrap().url, "mongodb://h/shop");
    }

    #[test]
    fn what_is_wrong_is_named_and_no_credential_is_shown() {
        for (url, part) in [
            ("localhost", "no scheme"),
            ("http://me:secret@localhost/d", "scheme"),
            ("mongodb://me:secret@", "cannot read"),
            ("mongodb://me:secret@host:x/d", "cannot read"),
            ("mongodb://me:secret@host/", "no database"),
            ("mongodb://me:secret@host", "no database"),
            ("mongodb://me:secret@host/d?outbox.lane=1", "did you mean `outbox.lanes`?"),
            ("mongodb://me:secret@host/d?outbox.lanes=many", "`outbox.lanes` is \"many\""),
            ("mongodb://me:secret@host/d?outbox.lanes=201", "`outbox.lanes` is 201"),
            ("mongodb://me:secret@host/d?outbox.lanes=0", "`outbox.lanes` is 0"),
            ("mongodb://me:secret@host/d?outbox.name=a%24b", "`outbox.name`"),
            ("mongodb://me:secret@host/d?outbox.name=", "`outbox.name`"),
            ("mongodb://me:secret@host/d?outbox.head_policy=stop", "`outbox.head_policy`"),
            ("mongodb://me:secret@host/d?outbox.keep_published=maybe", "`outbox.keep_published`"),
            ("mongodb://me:secret@host/d?outbox.connect_timeout=5", "`outbox.connect_timeout`"),
            ("mongodb://me:secret@host/d?outbox.connect_timeout=0s", "`outbox.connect_timeout`"),
            ("mongodb://me:secret@host/d?outbox.max_strikes=0", "`outbox.max_strikes`"),
            ("mongodb://me:secret@host/d?outbox.max_payload=0", "`max_payload`"),
        ] {
            let error = parse(url).unwrap_err();
            assert_eq!(error.kind(), pillarbox_core::ErrorKind::Misconfigured, "{url}");
            let report = format!("{} {error:?}", error.report());
            assert!(report.contains(part), "{url}: {report}");
            assert!(!report.contains("secret"), "{url}: {report}");
        }
        assert!(!format!("{:?}", parse("mongodb://me:hunter2@host/d").unwrap()).contains("hunter2"));
    }
}
