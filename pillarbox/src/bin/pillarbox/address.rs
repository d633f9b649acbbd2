//! Which part of a URL may be shown.

/// Scheme, host and port of `url`. User, password, path and options are left out: each of them may be a secret.
pub(crate) fn shown(url: &str) -> String {
    let Some((scheme, rest)) = url.split_once(':') else { return "…".to_owned() };
    let Some(rest) = rest.strip_prefix("//") else { return format!("{scheme}:") };
    // A password may hold anything that should have been encoded: what stands before any `@` is not shown.
    let host = rest.rsplit('@').next().unwrap_or_default();
    let end = host.find(['/', '?', '#']).unwrap_or(host.len());
    let is_inside_query = rest.find('?').is_some_and(|query| rest.rfind('@').is_some_and(|at| at > query));
    if is_inside_query { format!("{scheme}://…") } else { format!("{scheme}://{}", &host[..end]) }
}

/// `text` with every URL in it shown without its credentials, for messages that repeat what was typed.
pub(crate) fn redacted(text: &str, arguments: impl IntoIterator<Item = String>) -> String {
    let mut text = text.to_owned();
    for argument in arguments {
        // What stands before an `=` outside of the URL is a flag's name, or a route's pattern, or both.
        let mut value = argument.as_str();
        while let Some((name, rest)) = value.split_once('=')
            && !name.contains(':')
        {
            value = rest;
        }
        if value.contains("://") {
            text = text.replace(value, &shown(value));
        }
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_scheme_host_and_port_are_shown() {
        for (url, expected) in [
            ("redis://localhost:6379/0?outbox.name=orders", "redis://localhost:6379"),
            ("redis://:secret@localhost/", "redis://localhost"),
            ("redis://:se/cret@localhost/", "redis://localhost"),
            ("redis://:se?cret@localhost/", "redis://…"),
            ("redis://localhost/?password=se@cret", "redis://…"),
            ("amqp://user:sec@ret@host:5672/vhost", "amqp://host:5672"),
            ("https://hooks.example/secret", "https://hooks.example"),
            ("stdout:", "stdout:"),
            ("secret", "…"),
        ] {
            assert_eq!(shown(url), expected, "{url}");
        }
    }

    #[test]
    fn what_was_typed_is_redacted() {
        let arguments = ["redis://:secret@host/".to_owned(), "--storag=redis://:hidden@host/".to_owned()];
        let text = "unexpected argument 'redis://:secret@host/', or 'redis://:hidden@host/'";
        let shown = redacted(text, arguments);
        assert_eq!(shown, "unexpected argument 'redis://host', or 'redis://host'");
        let arguments =
            ["--rout=orders.*=amqp://ann:secret@host/".to_owned(), "a=amqp://ann:secret@host".to_owned()];
        let shown = redacted("'orders.*=amqp://ann:secret@host/', 'a=amqp://ann:secret@host'", arguments);
        assert_eq!(shown, "'orders.*=amqp://host', 'a=amqp://host'");
    }
}
