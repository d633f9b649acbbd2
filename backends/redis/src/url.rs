//! Reads the URLs of outboxes.

use crate::config::{Durability, RedisConfig, misconfigured};
use crate::connection::{SentinelTarget, Target};
use ::url::Url;
use pillarbox_core::{Error, HeadPolicy, Limits, UrlOptions};
use redis::{ConnectionInfo, IntoConnectionInfo as _};

const FORMS: &str = "`redis://host:port/database`, `rediss://…` (feature `tls`), `redis+unix:///path`, \
`redis+cluster://host:port,…` or `redis+sentinel://host:port,…/service`";

pub(crate) fn parse(text: &str) -> Result<RedisConfig, Error> {
    let (scheme, rest) = text.split_once("://").ok_or_else(|| not_a_url("it has no scheme"))?;
    let (rest, fragment) = rest.split_once('#').map_or((rest, None), |(rest, after)| (rest, Some(after)));
    let (place, query) = rest.split_once('?').unwrap_or((rest, ""));
    let mut pairs: Vec<(String, String)> = Vec::new();
    let mut client_query = String::new();
    for (name, value) in ::url::form_urlencoded::parse(query.as_bytes()) {
        if name.starts_with("outbox.") {
            pairs.push((name.into_owned(), value.into_owned()));
        } else {
            let separator = if client_query.is_empty() { '?' } else { '&' };
            client_query.push(separator);
            let mut one = ::url::form_urlencoded::Serializer::new(String::new());
            client_query.push_str(&one.append_pair(&name, &value).finish());
        }
    }
    let fragment = fragment.map(|fragment| format!("#{fragment}")).unwrap_or_default();
    let tail = format!("{client_query}{fragment}");
    let mut options = UrlOptions::new("outbox.", pairs);
    let target = match scheme {
        "redis" | "rediss" | "redis+unix" | "valkey" | "valkeys" => {
            Target::Single(Box::new(node(scheme, place, &tail)?))
        }
        "redis+cluster" | "rediss+cluster" => {
            let (credentials, hosts, path) = split(place);
            let scheme = scheme.trim_end_matches("+cluster");
            let nodes =
                hosts.split(',').map(|host| node(scheme, &format!("{credentials}{host}/{path}"), &tail));
            Target::Cluster(nodes.collect::<Result<_, _>>()?)
        }
        "redis+sentinel" | "rediss+sentinel" => {
            sentinel(scheme.trim_end_matches("+sentinel"), place, &tail, &mut options)?
        }
        _ => return Err(not_a_url("its scheme is none of ours")),
    };
    let mut config = RedisConfig::new(target);
    apply(&mut config, &mut options)?;
    options.finish()?;
    config.check()?;
    Ok(config)
}

/// `user:password@`, the hosts, and what follows the first slash.
fn split(place: &str) -> (&str, &str, &str) {
    let (credentials, rest) = place.rfind('@').map_or(("", place), |at| place.split_at(at + 1));
    let (hosts, path) = rest.split_once('/').unwrap_or((rest, ""));
    (credentials, hosts, path)
}

fn sentinel(scheme: &str, place: &str, tail: &str, options: &mut UrlOptions) -> Result<Target, Error> {
    let (credentials, hosts, path) = split(place);
    let (service, database) = path.split_once('/').unwrap_or((path, ""));
    if service.is_empty() {
        return Err(misconfigured(
            "the URL names no service: write `redis+sentinel://host:26379,host:26379/service`".to_owned(),
        ));
    }
    let mut sentinels = Vec::new();
    let mut primary = None;
    for host in hosts.split(',') {
        // Sentinels listen on a port of their own where none is given; a bracket ends an IPv6 address.
        let has_port = host.rfind(':').is_some_and(|colon| host.rfind(']').is_none_or(|end| end < colon));
        let host = if has_port { host.to_owned() } else { format!("{host}:26379") };
        let info = node(scheme, &format!("{credentials}{host}/{database}"), tail)?;
        sentinels.push(info.addr().clone());
        primary.get_or_insert(info);
    }
    let Some(primary) = primary else { return Err(not_a_url("it has no host")) };
    Ok(Target::Sentinel(Box::new(SentinelTarget {
        sentinels,
        service: percent_encoding::percent_decode_str(service).decode_utf8_lossy().into_owned(),
        redis: primary.redis_settings().clone(),
        tls: scheme == "rediss",
        username: options.text("sentinel_username")?,
        password: options.text("sentinel_password")?,
    })))
}

/// One server, read by the client's own rules.
fn node(scheme: &str, place: &str, tail: &str) -> Result<ConnectionInfo, Error> {
    let url = Url::parse(&format!("{scheme}://{place}{tail}"))
        .map_err(|error| misconfigured(format!("the URL cannot be read ({error}); write {FORMS}")))?;
    let wrong = |error: redis::RedisError| {
        // The client's messages for URLs name what is missing; its details could quote the URL.
        let lacks_tls = scheme.ends_with("diss") || scheme == "valkeys";
        let hint = if lacks_tls && !cfg!(feature = "tls") { "; TLS needs the feature `tls`" } else { "" };
        let category = error.detail().map_or_else(|| error.to_string(), |_| error.category().to_owned());
        misconfigured(format!("the URL cannot be used ({category}){hint}; write {FORMS}"))
    };
    url.into_connection_info().map_err(wrong)
}

fn apply(config: &mut RedisConfig, options: &mut UrlOptions) -> Result<(), Error> {
    if let Some(name) = options.text("name")? {
        config.name = name;
    }
    if let Some(lanes) = options.parsed::<u16>("lanes", "a whole number from 1 to 256")? {
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
    if let Some(durability) = options.text("durability")? {
        config.durability = match durability.as_str() {
            "none" => Durability::None,
            "wait" => Durability::Wait,
            "waitaof" => Durability::WaitAof,
            _ => {
                let text =
                    format!("`outbox.durability` is {durability:?}; it takes `none`, `wait` or `waitaof`");
                return Err(misconfigured(text));
            }
        };
    }
    if let Some(replicas) = options.parsed("replicas", "a whole number")? {
        config.replicas = replicas;
    }
    if let Some(notify) = options.parsed("notify", "`true` or `false`")? {
        config.notify = notify;
    }
    if let Some(timeout) = options.duration("durability_timeout")? {
        config.durability_timeout = timeout;
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
    misconfigured(format!("this is no URL of a Redis outbox ({what}); write {FORMS}"))
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::time::Duration;

    #[test]
    fn reads_every_form() {
        let place = |url: &str| parse(url).unwrap().target.place();
        assert_eq!(place("redis://localhost"), "localhost:6379");
        assert_eq!(place("redis://user:pa%40ss@10.0.0.1:7000/3?outbox.name=orders"), "10.0.0.1:7000");
        assert_eq!(place("redis://[::1]:7000/"), "::1:7000");
        assert_eq!(place("redis+unix:///run/redis.sock?db=2&outbox.name=orders"), "/run/redis.sock");
        assert_eq!(place("redis+cluster://:pw@a:1,b:2,c/?outbox.name=o"), "a:1, b:2, c:6379");
        assert_eq!(place("redis+sentinel://pw@a,b:2/primary/1"), "sentinels a:26379, b:2 of \"primary\"");
        let config =
            parse("redis://localhost/4?protocol=resp3&outbox.lanes=8&outbox.response_timeout=3s").unwrap();
        let Target::Single(info) = &config.target else { panic!("one server") };
        assert_eq!((info.redis_settings().db(), config.lanes), (4, Some(8)));
        assert_eq!(info.redis_settings().protocol(), redis::ProtocolVersion::RESP3);
        assert_eq!(config.response_timeout, Duration::from_secs(3));
    }

    #[test]
    fn what_is_wrong_is_named_and_no_credential_is_shown() {
        for (url, part) in [
            ("localhost", "no scheme"),
            ("http://:secret@localhost", "scheme"),
            ("redis://:secret@", "cannot be read"),
            ("redis://:secret@host:99999999/", "cannot be read"),
            ("redis://:secret@host/secret", "Invalid database number"),
            ("redis+sentinel://:secret@host", "names no service"),
            ("redis://:secret@host/?outbox.lane=1", "did you mean `outbox.lanes`?"),
            ("redis://:secret@host/?outbox.lane=1", "`outbox.durability`"),
            ("redis://:secret@host/?outbox.lanes=many", "`outbox.lanes` is \"many\""),
            ("redis://:secret@host/?outbox.lanes=257", "`outbox.lanes` is 257"),
            ("redis://:secret@host/?outbox.lanes=0", "`outbox.lanes` is 0"),
            ("redis://:secret@host/?outbox.name=%7Ba%7D", "`outbox.name`"),
            ("redis://:secret@host/?outbox.head_policy=stop", "`outbox.head_policy`"),
            ("redis://:secret@host/?outbox.durability=maybe", "`outbox.durability`"),
            ("redis://:secret@host/?outbox.durability=wait&outbox.replicas=0", "`outbox.replicas`"),
            ("redis://:secret@host/?outbox.connect_timeout=5", "`outbox.connect_timeout`"),
            ("redis://:secret@host/?outbox.connect_timeout=0s", "`outbox.connect_timeout`"),
            ("redis://:secret@host/?outbox.max_strikes=0", "`outbox.max_strikes`"),
            ("redis://:secret@host/?outbox.max_payload=0", "`max_payload`"),
        ] {
            let error = parse(url).unwrap_err();
            assert_eq!(error.kind(), pillarbox_core::ErrorKind::Misconfigured, "{url}");
            let report = format!("{} {error:?}", error.report());
            assert!(report.contains(part), "{url}: {report}");
            assert!(!report.contains(":secret"), "{url}: {report}");
        }
        #[cfg(not(feature = "tls"))]
        assert!(parse("rediss://host/").unwrap_err().to_string().contains("needs the feature `tls`"));
        #[cfg(feature = "tls")]
        assert_eq!(parse("rediss://host/").unwrap().target.place(), "host:6379");
        assert!(!format!("{:?}", parse("redis://me:hunter2@host/").unwrap()).contains("hunter2"));
    }
}
